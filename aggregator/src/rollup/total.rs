//! One metric's sums over all buckets of a stretch at once: as joining them one by one, several times faster.

use entrenar::metric::{Kind, MetricId};

use super::read::{
    Counters, Gauges, Level, OUT_OF_RANGE, Rise, Spans, UNKNOWN_METRIC, each_bucket, flat_at, take,
};
use super::write::{FLAT, RESET};
use super::{Extent, kind_of};
use crate::chunk::ChunkError;
use crate::chunk::varint::unzigzag;
use crate::query::bucket::{Bucket, gain};

/// Buckets of a stretch that are added up without taking memory: the minutes of 720 seconds, and parts at both ends.
const FEW: usize = 16;

/// What one metric comes to in all buckets; `None` where it is in none.
pub(super) fn total(
    spans: Spans<'_>,
    metric: MetricId,
    shape: u8,
    body: &[u8],
) -> Result<Option<Bucket>, ChunkError> {
    let n = spans.len();
    // Shapes that every device has; all others bucket by bucket.
    let is_usual = shape & !(FLAT | RESET) == 0 && (1..=FEW).contains(&n);
    if !is_usual {
        let mut total: Option<Bucket> = None;
        let join = |next| total = Some(total.map_or(next, |all| all.then(next)));
        each_bucket(spans, metric, shape, body, join)?;
        return Ok(total);
    }
    let kind = kind_of(metric).ok_or(UNKNOWN_METRIC)?;
    let mut counts = [0; FEW];
    let (counts, all) = extents(spans, &mut counts[..n])?;
    let mut rest = body;
    let total = match kind {
        _ if shape & FLAT != 0 => flat_at(unzigzag(take(&mut rest)?), &all),
        Kind::Gauge => gauge(&mut rest, counts, &all)?,
        Kind::Counter => counter(&mut rest, n, shape, &all)?,
    };
    if rest.is_empty() {
        Ok(Some(total))
    } else {
        Err(ChunkError::Malformed("bytes after the last bucket"))
    }
}

/// Samples of each bucket, and of all.
fn extents<'c>(
    mut spans: Spans<'_>,
    counts: &'c mut [u64],
) -> Result<(&'c [u64], Extent), ChunkError> {
    let mut all: Option<Extent> = None;
    for place in &mut *counts {
        let next = spans.take()?.extent;
        *place = next.count;
        all = Some(match all {
            Some(before) => Extent {
                first: before.first,
                last: next.last,
                count: before.count.saturating_add(next.count),
            },
            None => next,
        });
    }
    Ok((counts, all.ok_or(OUT_OF_RANGE)?))
}

fn gauge(rest: &mut &[u8], counts: &[u64], all: &Extent) -> Result<Bucket, ChunkError> {
    let mut levels = Gauges::new(rest, counts.len())?;
    let mut total: Option<Level> = None;
    for count in counts {
        let next = levels.level(rest, *count)?;
        total = Some(match total {
            Some(before) => Level {
                least: before.least.min(next.least),
                most: before.most.max(next.most),
                last: next.last,
                sum: before.sum.saturating_add(next.sum),
            },
            None => next,
        });
    }
    Ok(total.ok_or(OUT_OF_RANGE)?.within(all))
}

fn counter(rest: &mut &[u8], n: usize, shape: u8, all: &Extent) -> Result<Bucket, ChunkError> {
    let mut rises = Counters::new(rest, n, shape)?;
    let mut total: Option<Rise> = None;
    for _ in 0..n {
        let next = rises.rise(rest)?;
        total = Some(match total {
            Some(before) => Rise {
                first: before.first,
                last: next.last,
                least: before.least.min(next.least),
                most: before.most.max(next.most),
                increase: (before.increase)
                    .saturating_add(gain(before.last, next.first))
                    .saturating_add(next.increase),
            },
            None => next,
        });
    }
    Ok(total.ok_or(OUT_OF_RANGE)?.within(all))
}
