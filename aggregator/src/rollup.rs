//! Summaries of a stretch, by the minute and by the hour, as bytes and back. Drawn in `docs/formats/rollup.md`.
//!
//! They stand beside the stretch's chunk, made of the same samples, and live longer. A bucket of one stretch may be a
//! part of its minute or hour: parts are joined by whoever reads them, as [`Bucket::then`] does.

mod bytes;
mod read;
pub mod sheet;
mod total;
mod write;

use std::sync::Arc;
use std::time::Duration;

use entrenar::metric::{Kind, MetricId};
use entrenar::unit::Timestamp;

use crate::chunk::{self, ChunkError, Columns, Profile, stretch};
use crate::query::bucket::{Bucket, gain};

pub use self::bytes::{Opened, decode, encode, profile_of};
use self::sheet::Sheets;

/// Lengths of a bucket, ascending.
pub const STEPS: [Duration; 2] = [Duration::from_mins(1), Duration::from_hours(1)];

/// A step is kept where it is at least so many sampling intervals: below, a summary is hardly shorter than what it sums up.
pub const LEAST_INTERVALS: u32 = 32;

/// Steps worth keeping at a sampling interval, ascending.
pub fn steps_for(interval: Duration) -> impl Iterator<Item = Duration> {
    STEPS
        .into_iter()
        .filter(move |step| interval * LEAST_INTERVALS <= *step)
}

/// The longest step that whole steps of this length are made of.
pub fn step_within(length: Duration) -> Option<Duration> {
    let fits =
        |step: &Duration| !length.is_zero() && length.as_millis().is_multiple_of(step.as_millis());
    STEPS.into_iter().rev().find(fits)
}

/// One step of a stretch: its buckets, and what each metric did in each. A metric that no sample has is not in it.
///
/// Of a level's bucket, the value of the first sample is not kept: its least value stands there. Of a total's, least,
/// largest and sum are not kept. Of a metric that never changed and is not in every sample, the times of the first and
/// last sample are those of the samples that there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollup {
    pub step: Duration,
    /// How the samples were rounded before.
    pub profile: Profile,
    /// Starts of buckets with samples, ascending.
    pub starts: Vec<Timestamp>,
    /// First and last sample of each, and how many there are.
    extents: Vec<Extent>,
    /// By id; a place for each bucket.
    pub metrics: Vec<(MetricId, Vec<Option<Bucket>>)>,
}

/// What a stretch comes to, as it rests in a store.
#[derive(Clone, Debug)]
pub enum Sums {
    /// In a row of its own, all metrics; with what is wrong with it.
    Alone(Result<Arc<Opened>, ChunkError>),
    /// Beside those of other stretches, at a place among them.
    Together(Arc<Sheets>, usize),
}

impl Sums {
    /// From a row of its own.
    pub fn alone(blob: &[u8]) -> Self {
        Self::Alone(Opened::new(blob).map(Arc::new))
    }

    /// Shows one metric's buckets, ascending; none if there is nothing of it. Where they are damaged, some may be shown before
    /// the error.
    pub fn each(&self, metric: MetricId, see: impl FnMut(Bucket)) -> Result<(), ChunkError> {
        match self {
            Self::Alone(opened) => opened.as_ref().map_err(|error| *error)?.each(metric, see),
            Self::Together(sheets, place) => sheets.each(*place, metric, see),
        }
    }

    /// What one metric comes to in all buckets, joined as [`Bucket::then`] does but for what a level gained, which is 0; `None` if
    /// there is nothing of it.
    pub fn total(&self, metric: MetricId) -> Result<Option<Bucket>, ChunkError> {
        match self {
            Self::Alone(opened) => opened.as_ref().map_err(|error| *error)?.total(metric),
            Self::Together(sheets, place) => sheets.total(*place, metric),
        }
    }

    /// How many buckets there are.
    pub fn n_buckets(&self) -> usize {
        match self {
            Self::Alone(opened) => opened.as_ref().map_or(0, |opened| opened.n_buckets),
            Self::Together(sheets, place) => sheets.lines()[*place].n_buckets,
        }
    }

    /// One metric's buckets, collected.
    #[cfg(test)]
    pub(crate) fn metric(&self, metric: MetricId) -> Result<Vec<Bucket>, ChunkError> {
        let mut buckets = Vec::new();
        self.each(metric, |bucket| buckets.push(bucket))?;
        Ok(buckets)
    }

    /// How the samples were rounded before they were summed up.
    pub fn profile(&self) -> Result<Profile, ChunkError> {
        match self {
            Self::Alone(opened) => Ok(opened.as_ref().map_err(|error| *error)?.profile()),
            Self::Together(sheets, place) => Ok(sheets.lines()[*place].profile),
        }
    }
}

/// The samples of a bucket, whatever they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

impl Rollup {
    /// Sums up samples.
    pub fn of(columns: &Columns, step: Duration) -> Self {
        let mut starts: Vec<Timestamp> = Vec::new();
        let mut extents: Vec<Extent> = Vec::new();
        for at in &columns.times {
            let start = start_of(*at, step);
            match extents.last_mut() {
                Some(extent) if starts.last() == Some(&start) => {
                    (extent.last, extent.count) = (*at, extent.count + 1);
                }
                _ => {
                    starts.push(start);
                    extents.push(Extent {
                        first: *at,
                        last: *at,
                        count: 1,
                    });
                }
            }
        }
        let metrics = columns.metrics.iter().filter_map(|(metric, values)| {
            kind_of(*metric)?;
            let mut rest = columns.times.iter().zip(values);
            let of_bucket = |extent: &Extent| sum_up(rest.by_ref().take(extent.count as usize));
            let buckets: Vec<_> = extents.iter().map(of_bucket).collect();
            Some((*metric, buckets))
        });
        Self {
            step,
            profile: columns.profile,
            metrics: metrics.collect(),
            starts,
            extents,
        }
    }

    /// The same by a longer step, of which each bucket is a part.
    fn by(&self, step: Duration) -> Self {
        let mut starts: Vec<Timestamp> = Vec::new();
        let mut extents: Vec<Extent> = Vec::new();
        let mut sizes: Vec<usize> = Vec::new();
        for (start, extent) in self.starts.iter().zip(&self.extents) {
            let start = start_of(*start, step);
            match (extents.last_mut(), sizes.last_mut()) {
                (Some(whole), Some(size)) if starts.last() == Some(&start) => {
                    (whole.last, whole.count) = (extent.last, whole.count + extent.count);
                    *size += 1;
                }
                _ => {
                    starts.push(start);
                    extents.push(*extent);
                    sizes.push(1);
                }
            }
        }
        let joined = |buckets: &[Option<Bucket>]| {
            let mut rest = buckets.iter();
            let join = |size: &usize| {
                rest.by_ref()
                    .take(*size)
                    .flatten()
                    .copied()
                    .reduce(Bucket::then)
            };
            sizes.iter().map(join).collect::<Vec<_>>()
        };
        let metrics = self.metrics.iter();
        Self {
            step,
            profile: self.profile,
            metrics: metrics
                .map(|(metric, buckets)| (*metric, joined(buckets)))
                .collect(),
            starts,
            extents,
        }
    }
}

/// As [`Bucket::of`] and [`Bucket::then`] would, in one pass: a chunk has ten thousand values.
fn sum_up<'a>(samples: impl Iterator<Item = (&'a Timestamp, &'a Option<i64>)>) -> Option<Bucket> {
    let mut known = samples.filter_map(|(at, value)| Some((*at, (*value)?)));
    let mut bucket = Bucket::of(known.next()?);
    for (at, value) in known {
        let before = bucket.last.1;
        if value != before {
            bucket.increase += gain(before, value);
            bucket.min = bucket.min.min(value);
            bucket.max = bucket.max.max(value);
        }
        bucket.sum += i128::from(value);
        bucket.count += 1;
        bucket.last = (at, value);
    }
    Some(bucket)
}

/// A bucket's start, counted from the epoch.
fn start_of(at: Timestamp, step: Duration) -> Timestamp {
    let step_ms = (step.as_millis() as i64).max(1);
    Timestamp(at.0.saturating_sub(at.0.rem_euclid(step_ms)))
}

fn kind_of(metric: MetricId) -> Option<Kind> {
    metric.def().map(|def| def.kind)
}

/// Every step worth keeping of a chunk: what a store writes beside it. `length`: of its stretch.
pub fn of_chunk(blob: &[u8], length: Duration) -> Result<Vec<(Duration, Vec<u8>)>, ChunkError> {
    let columns = chunk::decode_columns(blob)?;
    let mut last: Option<Rollup> = None;
    let mut kept = Vec::new();
    for step in steps_for(length / stretch::TICKS) {
        let rollup = match &last {
            Some(shorter) => shorter.by(step),
            None => Rollup::of(&columns, step),
        };
        kept.push((step, encode(&rollup)?));
        last = Some(rollup);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests;
