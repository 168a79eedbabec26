//! What a stretch's buckets and a metric's sums are written as.

use entrenar::metric::Kind;
use entrenar::unit::Timestamp;

use super::{Extent, Rollup};
use crate::chunk::varint::{self, zigzag};
use crate::query::bucket::Bucket;

/// Some samples do not have it: a count for each bucket, 0 for none, and unless it is flat the times of its own samples.
pub(super) const SPARSE: u8 = 1;
/// Every value is the same: it stands once.
pub(super) const FLAT: u8 = 2;
/// A total that had a reset: what it gained stands for each bucket.
pub(super) const RESET: u8 = 4;
pub(super) const KNOWN: u8 = SPARSE | FLAT | RESET;

/// For each bucket: how many steps after the one before it begins, its samples, and when the first and the last were.
pub(super) fn put_extents(blob: &mut Vec<u8>, rollup: &Rollup) {
    let step_ms = rollup.step.as_millis() as i64;
    let mut before = 0;
    for (start, extent) in rollup.starts.iter().zip(&rollup.extents) {
        let number = start.0.div_euclid(step_ms);
        varint::put(blob, zigzag(number.wrapping_sub(before)));
        before = number;
        varint::put(blob, extent.count);
        put_times(blob, *start, extent.first, extent.last);
    }
}

fn put_times(bytes: &mut Vec<u8>, start: Timestamp, first: Timestamp, last: Timestamp) {
    varint::put(bytes, first.0.abs_diff(start.0));
    varint::put(bytes, last.0.abs_diff(first.0));
}

/// A metric's shape and body.
pub(super) fn put_metric(kind: Kind, buckets: &[Option<Bucket>], rollup: &Rollup) -> (u8, Vec<u8>) {
    let mut body = Vec::new();
    let mut shape = 0;
    let is_full = |(bucket, extent): (&Option<Bucket>, &Extent)| {
        bucket.is_some_and(|known| known.count == extent.count)
    };
    if !buckets.iter().zip(&rollup.extents).all(is_full) {
        shape |= SPARSE;
        for bucket in buckets {
            varint::put(&mut body, bucket.map_or(0, |known| known.count));
        }
    }
    let known = || buckets.iter().flatten();
    let value = known().next().map_or(0, |bucket| bucket.min);
    if known().all(|bucket| bucket.min == value && bucket.max == value) {
        varint::put(&mut body, zigzag(value));
        return (shape | FLAT, body);
    }
    let has_reset = |b: &Bucket| b.increase != i128::from(b.last.1) - i128::from(b.first.1);
    if kind == Kind::Counter && known().any(has_reset) {
        shape |= RESET;
    }
    if shape & SPARSE != 0 {
        for (start, bucket) in rollup.starts.iter().zip(buckets) {
            if let Some(bucket) = bucket {
                put_times(&mut body, *start, bucket.first.0, bucket.last.0);
            }
        }
    }
    // Like beside like: that packs better.
    match kind {
        Kind::Gauge => put_gauges(&mut body, known),
        Kind::Counter => put_counters(&mut body, known, shape),
    }
    (shape, body)
}

fn put_gauges<'a, I: Iterator<Item = &'a Bucket>>(body: &mut Vec<u8>, known: impl Fn() -> I) {
    let mut before = 0_i64;
    for bucket in known() {
        varint::put(body, zigzag(bucket.min.wrapping_sub(before)));
        before = bucket.min;
    }
    for bucket in known() {
        varint::put(body, bucket.max.wrapping_sub(bucket.min) as u64);
    }
    for bucket in known() {
        varint::put(body, bucket.last.1.wrapping_sub(bucket.min) as u64);
    }
    for bucket in known() {
        let least = i128::from(bucket.min) * i128::from(bucket.count);
        varint::put_long(body, bucket.sum.abs_diff(least));
    }
}

fn put_counters<'a, I: Iterator<Item = &'a Bucket>>(
    body: &mut Vec<u8>,
    known: impl Fn() -> I,
    shape: u8,
) {
    let mut before = 0_i64;
    for bucket in known() {
        varint::put(body, zigzag(bucket.first.1.wrapping_sub(before)));
        before = bucket.last.1;
    }
    for bucket in known() {
        varint::put(body, zigzag(bucket.last.1.wrapping_sub(bucket.first.1)));
    }
    if shape & RESET != 0 {
        for bucket in known() {
            varint::put_long(body, bucket.increase.unsigned_abs());
        }
    }
}
