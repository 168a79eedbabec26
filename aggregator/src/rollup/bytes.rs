//! The bytes of a rollup.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use entrenar::metric::{Kind, MetricId};
use entrenar::unit::Timestamp;

use super::{Extent, Rollup, kind_of};
use crate::chunk::packed;
use crate::chunk::varint::{self, unzigzag, zigzag};
use crate::chunk::{ChunkError, Profile};
use crate::query::bucket::Bucket;

/// First byte of every rollup.
pub(super) const VERSION: u8 = 1;

/// Buckets that one rollup may have: a stretch of three hours has 180 minutes, and a wrong number must not eat the memory.
pub(super) const MAX_BUCKETS: usize = 1 << 14;

/// Version, checksum, step in seconds, buckets, metrics, how the rest is written, and how long it is as it stands.
const HEADER: usize = 1 + 4 + 4 + 2 + 1 + 1 + 4;
/// Where the last two are.
const HOW: usize = 12;
const LENGTH: usize = 13;
/// What follows the header is a zstd frame; else it stands as it is.
const PACKED: u8 = 1;
/// The samples were rounded to what sensors mean; else they are exact.
const SENSOR: u8 = 2;
pub(super) const ZSTD_LEVEL: i32 = 3;

/// Metric, shape, length.
const TABLE_ROW: usize = 2 + 1 + 2;

/// Some samples do not have it: a count for each bucket, 0 for none, and unless it is flat the times of its own samples.
const SPARSE: u8 = 1;
/// Every value is the same: it stands once.
const FLAT: u8 = 2;
/// A total that had a reset: what it gained stands for each bucket.
const RESET: u8 = 4;
const KNOWN: u8 = SPARSE | FLAT | RESET;

/// A rollup as bytes.
pub fn encode(rollup: &Rollup) -> Result<Vec<u8>, ChunkError> {
    let n = rollup.starts.len();
    if !(1..=MAX_BUCKETS).contains(&n) {
        return Err(ChunkError::Length(n));
    }
    let (mut table, mut bodies) = (Vec::new(), Vec::new());
    let mut n_metrics: u8 = 0;
    for (metric, buckets) in &rollup.metrics {
        let kind = kind_of(*metric).ok_or(ChunkError::Malformed("unknown metric"))?;
        let (shape, body) = put_metric(kind, buckets, rollup);
        let length = u16::try_from(body.len()).map_err(|_| ChunkError::Length(n))?;
        table.extend(metric.0.to_le_bytes());
        table.push(shape);
        table.extend(length.to_le_bytes());
        bodies.extend(body);
        n_metrics += 1;
    }
    let mut blob = vec![VERSION, 0, 0, 0, 0];
    blob.extend((rollup.step.as_secs() as u32).to_le_bytes());
    blob.extend((n as u16).to_le_bytes());
    blob.push(n_metrics);
    let mut payload = table;
    put_extents(&mut payload, rollup);
    payload.extend(bodies);
    let rounded = match rollup.profile {
        Profile::Exact => 0,
        Profile::Sensor => SENSOR,
    };
    match packed::pack(&payload, ZSTD_LEVEL) {
        Ok(packed) if packed.len() < payload.len() => {
            blob.push(rounded | PACKED);
            blob.extend((payload.len() as u32).to_le_bytes());
            blob.extend(packed);
        }
        _ => {
            blob.push(rounded);
            blob.extend((payload.len() as u32).to_le_bytes());
            blob.extend(payload);
        }
    }
    let sum = checksum(&blob).to_le_bytes();
    blob[1..5].copy_from_slice(&sum);
    Ok(blob)
}

/// How the samples were rounded before they were summed up.
pub fn profile_of(blob: &[u8]) -> Result<Profile, ChunkError> {
    Ok(Frame::parse(blob)?.profile)
}

/// One metric's buckets, ascending; none if the rollup has none of it.
pub fn decode(blob: &[u8], metric: MetricId) -> Result<Vec<Bucket>, ChunkError> {
    Opened::new(blob)?.metric(metric)
}

/// A rollup that was unpacked: one of its metrics after the other is read without doing that again.
#[derive(Clone, Debug)]
pub struct Opened {
    pub(super) profile: Profile,
    pub(super) n_buckets: usize,
    step: Duration,
    payload: Vec<u8>,
    /// Where in it the buckets' extents are.
    extents: Range<usize>,
    /// Metric, shape, and where its body is; by metric.
    bodies: Vec<(MetricId, u8, Range<usize>)>,
}

impl Opened {
    /// Checks its checksum and unpacks it.
    pub fn new(blob: &[u8]) -> Result<Self, ChunkError> {
        let frame = Frame::parse(blob)?;
        let payload = frame.payload()?;
        let table_length = frame.n_metrics * TABLE_ROW;
        let (table, mut rest) = payload
            .split_at_checked(table_length)
            .ok_or(ChunkError::Truncated)?;
        take_spans(&mut rest, frame.n_buckets, frame.step)?;
        let mut begin = payload.len() - rest.len();
        let extents = table_length..begin;
        let mut bodies = Vec::with_capacity(frame.n_metrics);
        for row in table.chunks_exact(TABLE_ROW) {
            let length = usize::from(u16::from_le_bytes([row[3], row[4]]));
            let metric = MetricId(u16::from_le_bytes([row[0], row[1]]));
            bodies.push((metric, row[2], begin..begin + length));
            begin += length;
        }
        if !bodies.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(ChunkError::Malformed("metrics out of order"));
        }
        if begin != payload.len() {
            return Err(ChunkError::Malformed("bodies of another length"));
        }
        Ok(Self {
            profile: frame.profile,
            n_buckets: frame.n_buckets,
            step: frame.step,
            payload: payload.into_owned(),
            extents,
            bodies,
        })
    }

    /// How the samples were rounded before they were summed up.
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// One metric's buckets, ascending; none if the rollup has none of it.
    pub fn metric(&self, metric: MetricId) -> Result<Vec<Bucket>, ChunkError> {
        let found = self.bodies.binary_search_by_key(&metric, |body| body.0);
        let Ok(place) = found else {
            return Ok(Vec::new());
        };
        let (_, shape, body) = &self.bodies[place];
        let body = &self.payload[body.clone()];
        buckets(
            self.extents(),
            self.n_buckets,
            self.step,
            metric,
            *shape,
            body,
        )
    }

    /// The bytes that say when its buckets are.
    pub(super) fn extents(&self) -> &[u8] {
        &self.payload[self.extents.clone()]
    }

    /// Metric, shape and body of each, by metric.
    pub(super) fn bodies(&self) -> impl Iterator<Item = (MetricId, u8, &[u8])> {
        let body = |(metric, shape, at): &(MetricId, u8, Range<usize>)| {
            (*metric, *shape, &self.payload[at.clone()])
        };
        self.bodies.iter().map(body)
    }
}

/// One metric's buckets, from when they are and what it did.
pub(super) fn buckets(
    mut extents: &[u8],
    n_buckets: usize,
    step: Duration,
    metric: MetricId,
    shape: u8,
    mut body: &[u8],
) -> Result<Vec<Bucket>, ChunkError> {
    let kind = kind_of(metric).ok_or(ChunkError::Malformed("unknown metric"))?;
    let spans = take_spans(&mut extents, n_buckets, step)?;
    take_metric(&mut body, shape, kind, &spans)
}

/// When a bucket begins, and its samples.
#[derive(Clone, Copy)]
struct Span {
    start: Timestamp,
    extent: Extent,
}

/// For each bucket: how many steps after the one before it begins, its samples, and when the first and the last were.
fn put_extents(blob: &mut Vec<u8>, rollup: &Rollup) {
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

fn take_spans(rest: &mut &[u8], n: usize, step: Duration) -> Result<Vec<Span>, ChunkError> {
    let step_ms = step.as_millis() as i64;
    let mut number = 0_i64;
    let mut spans = Vec::with_capacity(n);
    for _ in 0..n {
        number = number.wrapping_add(unzigzag(take(rest)?));
        let start = Timestamp(number.saturating_mul(step_ms));
        let count = take(rest)?;
        let (first, last) = take_times(rest, start)?;
        let is_within = |at: Timestamp| at.0.div_euclid(step_ms) == number;
        let extent = Extent { first, last, count };
        if count == 0 || !is_within(first) || !is_within(last) || last < first {
            return Err(ChunkError::Malformed("a bucket without its samples"));
        }
        spans.push(Span { start, extent });
    }
    if spans.is_sorted_by(|a, b| a.start < b.start) {
        Ok(spans)
    } else {
        Err(ChunkError::Malformed("buckets out of order"))
    }
}

fn put_times(bytes: &mut Vec<u8>, start: Timestamp, first: Timestamp, last: Timestamp) {
    varint::put(bytes, first.0.abs_diff(start.0));
    varint::put(bytes, last.0.abs_diff(first.0));
}

fn take_times(bytes: &mut &[u8], start: Timestamp) -> Result<(Timestamp, Timestamp), ChunkError> {
    let first = start.0.wrapping_add(take(bytes)? as i64);
    let last = first.wrapping_add(take(bytes)? as i64);
    Ok((Timestamp(first), Timestamp(last)))
}

fn put_metric(kind: Kind, buckets: &[Option<Bucket>], rollup: &Rollup) -> (u8, Vec<u8>) {
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

fn take_metric(
    body: &mut &[u8],
    shape: u8,
    kind: Kind,
    spans: &[Span],
) -> Result<Vec<Bucket>, ChunkError> {
    if shape & !KNOWN != 0 {
        return Err(ChunkError::Malformed("unknown shape of a rollup"));
    }
    let counts = match shape & SPARSE {
        0 => None,
        _ => Some(take_counts(body, spans.len())?),
    };
    let flat = match shape & FLAT {
        0 => None,
        _ => Some(unzigzag(take(body)?)),
    };
    // Of the buckets that have it: when, and how many samples.
    let known = match counts {
        None => Cow::Borrowed(spans),
        Some(counts) => Cow::Owned(known_of(body, spans, &counts, flat.is_none())?),
    };
    let buckets = match (flat, kind) {
        (Some(value), _) => known
            .iter()
            .map(|span| flat_at(value, &span.extent))
            .collect(),
        (None, Kind::Gauge) => take_gauges(body, &known)?,
        (None, Kind::Counter) => take_counters(body, &known, shape)?,
    };
    if body.is_empty() {
        Ok(buckets)
    } else {
        Err(ChunkError::Malformed("bytes after the last bucket"))
    }
}

fn take_counts(body: &mut &[u8], n: usize) -> Result<Vec<u64>, ChunkError> {
    (0..n).map(|_| take(body)).collect()
}

/// The buckets in which a metric is that is not in every sample. `has_times`: those of its own samples follow.
fn known_of(
    body: &mut &[u8],
    spans: &[Span],
    counts: &[u64],
    has_times: bool,
) -> Result<Vec<Span>, ChunkError> {
    let mut known = Vec::with_capacity(spans.len());
    for (span, count) in spans.iter().zip(counts).filter(|(_, count)| **count > 0) {
        let (first, last) = if has_times {
            take_times(body, span.start)?
        } else {
            (span.extent.first, span.extent.last)
        };
        let count = *count;
        let is_within = |at: Timestamp| span.extent.first <= at && at <= span.extent.last;
        if count > span.extent.count || !is_within(first) || !is_within(last) || last < first {
            return Err(ChunkError::Malformed("values outside their bucket"));
        }
        let extent = Extent { first, last, count };
        known.push(Span { extent, ..*span });
    }
    Ok(known)
}

fn flat_at(value: i64, extent: &Extent) -> Bucket {
    Bucket {
        first: (extent.first, value),
        last: (extent.last, value),
        min: value,
        max: value,
        sum: i128::from(value) * i128::from(extent.count),
        count: extent.count,
        increase: 0,
    }
}

fn take_gauges(body: &mut &[u8], known: &[Span]) -> Result<Vec<Bucket>, ChunkError> {
    let mut before = 0_i64;
    let mut buckets = Vec::with_capacity(known.len());
    for span in known {
        before = before.wrapping_add(unzigzag(take(body)?));
        buckets.push(flat_at(before, &span.extent));
    }
    for bucket in &mut buckets {
        let above = bucket.min.checked_add_unsigned(take(body)?);
        bucket.max = above.ok_or(OUT_OF_RANGE)?;
    }
    for bucket in &mut buckets {
        let above = bucket.min.checked_add_unsigned(take(body)?);
        let is_level = |last: &i64| *last <= bucket.max;
        bucket.last.1 = above.filter(is_level).ok_or(OUT_OF_RANGE)?;
    }
    for bucket in &mut buckets {
        let most = i128::from(bucket.max) * i128::from(bucket.count);
        let above = bucket.sum.checked_add_unsigned(take_long(body)?);
        let is_sum = |sum: &i128| *sum <= most;
        bucket.sum = above.filter(is_sum).ok_or(OUT_OF_RANGE)?;
    }
    Ok(buckets)
}

fn take_counters(body: &mut &[u8], known: &[Span], shape: u8) -> Result<Vec<Bucket>, ChunkError> {
    let mut steps = Vec::with_capacity(known.len());
    for _ in known {
        steps.push(unzigzag(take(body)?));
    }
    let mut before = 0_i64;
    let mut buckets = Vec::with_capacity(known.len());
    for (Span { extent, .. }, step) in known.iter().zip(steps) {
        let first = before.wrapping_add(step);
        let last = first.wrapping_add(unzigzag(take(body)?));
        before = last;
        buckets.push(Bucket {
            first: (extent.first, first),
            last: (extent.last, last),
            min: first.min(last),
            max: first.max(last),
            sum: 0,
            count: extent.count,
            increase: i128::from(last) - i128::from(first),
        });
    }
    if shape & RESET != 0 {
        for bucket in &mut buckets {
            let gained = i128::try_from(take_long(body)?);
            bucket.increase = gained.map_err(|_| OUT_OF_RANGE)?;
        }
    }
    if buckets.iter().any(|bucket| bucket.increase < 0) {
        return Err(OUT_OF_RANGE);
    }
    Ok(buckets)
}

pub(super) const CUT_SHORT: ChunkError = ChunkError::Malformed("rollup cut short");
const OUT_OF_RANGE: ChunkError = ChunkError::Malformed("a sum that no samples come to");

pub(super) fn take(bytes: &mut &[u8]) -> Result<u64, ChunkError> {
    varint::take(bytes).ok_or(CUT_SHORT)
}

fn take_long(bytes: &mut &[u8]) -> Result<u128, ChunkError> {
    varint::take_long(bytes).ok_or(CUT_SHORT)
}

/// Over everything but itself.
pub(super) fn checksum(blob: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&blob[..1]);
    crc.update(&blob[5..]);
    crc.finalize()
}

/// A rollup whose checksum is in order.
struct Frame<'a> {
    step: Duration,
    profile: Profile,
    n_buckets: usize,
    n_metrics: usize,
    is_packed: bool,
    /// Of the payload as it stands.
    length: usize,
    rest: &'a [u8],
}

impl<'a> Frame<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self, ChunkError> {
        match blob.first() {
            Some(&VERSION) if blob.len() >= HEADER => {}
            None | Some(&VERSION) => return Err(ChunkError::Truncated),
            Some(&other) => return Err(ChunkError::Version(other)),
        }
        let word =
            |at: usize| u32::from_le_bytes([blob[at], blob[at + 1], blob[at + 2], blob[at + 3]]);
        if checksum(blob) != word(1) {
            return Err(ChunkError::Checksum);
        }
        let step = Duration::from_secs(word(5).into());
        let n_buckets = usize::from(u16::from_le_bytes([blob[9], blob[10]]));
        let n_metrics = usize::from(blob[HOW - 1]);
        let length = word(LENGTH) as usize;
        let is_sound = !step.is_zero()
            && (1..=MAX_BUCKETS).contains(&n_buckets)
            && length <= largest_payload(n_metrics, n_buckets);
        if !is_sound {
            return Err(ChunkError::Length(n_buckets));
        }
        let how = blob[HOW];
        if how & !(PACKED | SENSOR) != 0 {
            return Err(ChunkError::Malformed("unknown packing of a rollup"));
        }
        Ok(Self {
            step,
            profile: match how & SENSOR {
                0 => Profile::Exact,
                _ => Profile::Sensor,
            },
            n_buckets,
            n_metrics,
            is_packed: how & PACKED != 0,
            length,
            rest: &blob[HEADER..],
        })
    }

    /// The table and what follows it.
    fn payload(&self) -> Result<Cow<'a, [u8]>, ChunkError> {
        let payload = if self.is_packed {
            let plain = packed::unpack(self.rest, self.length);
            Cow::Owned(plain.map_err(|_| ChunkError::Malformed("rollup does not inflate"))?)
        } else {
            Cow::Borrowed(self.rest)
        };
        if payload.len() == self.length {
            Ok(payload)
        } else {
            Err(ChunkError::Truncated)
        }
    }
}

/// What a table of so many metrics, the extents of the buckets and a body for each metric take at most.
const fn largest_payload(n_metrics: usize, n_buckets: usize) -> usize {
    const EXTENT: usize = 4 * varint::MAX_BYTES;
    n_metrics * (TABLE_ROW + u16::MAX as usize) + n_buckets * EXTENT
}
