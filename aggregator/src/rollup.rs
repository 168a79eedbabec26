//! Summaries of a stretch, by the minute and by the hour, as bytes and back. Drawn in `docs/formats/rollup.md`.
//!
//! They stand beside the stretch's chunk, made of the same samples, and live longer. A bucket of one stretch may be a
//! part of its minute or hour: parts are joined by whoever reads them, as [`Bucket::then`] does.

mod bytes;

use std::time::Duration;

use entrenar::metric::{CATALOGUE, Kind, MetricId};
use entrenar::unit::Timestamp;

use crate::chunk::{self, ChunkError, Profile, Sample, stretch};
use crate::query::bucket::Bucket;

pub use self::bytes::{decode, encode, profile_of};

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

/// The samples of a bucket, whatever they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

impl Rollup {
    /// Sums up samples, ascending by time.
    pub fn of(samples: &[Sample], step: Duration, profile: Profile) -> Self {
        let mut starts: Vec<Timestamp> = Vec::new();
        let mut extents: Vec<Extent> = Vec::new();
        let mut places = Vec::with_capacity(samples.len());
        for (at, _) in samples {
            let start = start_of(*at, step);
            if starts.last() != Some(&start) {
                starts.push(start);
                extents.push(Extent {
                    first: *at,
                    last: *at,
                    count: 0,
                });
            }
            if let Some(extent) = extents.last_mut() {
                (extent.last, extent.count) = (*at, extent.count + 1);
            }
            places.push(starts.len() - 1);
        }
        let metrics = CATALOGUE.iter().filter_map(|def| {
            let mut buckets: Vec<Option<Bucket>> = vec![None; starts.len()];
            for ((at, values), place) in samples.iter().zip(&places) {
                let Some(value) = values.get(def.id) else {
                    continue;
                };
                let next = Bucket::of((*at, value));
                let bucket = &mut buckets[*place];
                *bucket = Some(bucket.map_or(next, |known| known.then(next)));
            }
            let is_there = buckets.iter().any(Option::is_some);
            is_there.then_some((def.id, buckets))
        });
        let metrics = metrics.collect();
        Self {
            step,
            profile,
            starts,
            extents,
            metrics,
        }
    }
}

/// A bucket's start, counted from the epoch.
fn start_of(at: Timestamp, step: Duration) -> Timestamp {
    let step_ms = (step.as_millis() as i64).max(1);
    Timestamp(at.0 - at.0.rem_euclid(step_ms))
}

fn kind_of(metric: MetricId) -> Option<Kind> {
    metric.def().map(|def| def.kind)
}

/// Every step worth keeping of a chunk: what a store writes beside it. `length`: of its stretch.
pub fn of_chunk(blob: &[u8], length: Duration) -> Result<Vec<(Duration, Vec<u8>)>, ChunkError> {
    let (samples, profile) = (chunk::decode_all(blob)?, chunk::profile_of(blob)?);
    steps_for(length / stretch::TICKS)
        .map(|step| Ok((step, encode(&Rollup::of(&samples, step, profile))?)))
        .collect()
}

#[cfg(test)]
mod tests;
