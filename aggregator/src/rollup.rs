//! Summaries of a stretch, by the minute and by the hour, as bytes and back. Drawn in `docs/formats/rollup.md`.
//!
//! They stand beside the stretch's chunk, made of the same samples, and live longer. A bucket of one stretch may be a
//! part of its minute or hour: parts are joined by whoever reads them.

mod bytes;

use std::time::Duration;

use entrenar::metric::{self, CATALOGUE, Kind, MetricId};
use entrenar::unit::Timestamp;

use crate::chunk::{self, ChunkError, Sample, stretch};

pub use self::bytes::{decode, encode};

/// Lengths of a bucket.
pub const STEPS: [Duration; 2] = [Duration::from_mins(1), Duration::from_hours(1)];

/// A step is kept where it is at least so many sampling intervals: below, a summary is hardly shorter than what it sums up.
pub const LEAST_INTERVALS: u32 = 32;

/// Steps worth keeping at a sampling interval, ascending.
pub fn steps_for(interval: Duration) -> impl Iterator<Item = Duration> {
    STEPS
        .into_iter()
        .filter(move |step| interval * LEAST_INTERVALS <= *step)
}

/// What a level did in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    pub min: i64,
    pub max: i64,
    /// Of all samples, for their mean. Saturates.
    pub sum: i64,
    pub last: i64,
    /// Samples that had a value; at least 1.
    pub count: u32,
}

/// What a total did in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    pub first: i64,
    pub last: i64,
    /// What was added from the first sample to the last: after a reset, which is a step down, the new value counts
    /// from zero. Saturates.
    pub increase: i64,
    /// Samples that had a value; at least 1.
    pub count: u32,
}

/// One metric in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    Gauge(Gauge),
    Counter(Counter),
}

/// What a total rose by between two readings.
pub fn rise(before: i64, after: i64) -> i64 {
    if after < before {
        after
    } else {
        after.saturating_sub(before)
    }
}

impl Summary {
    /// Of one sample.
    pub fn of(kind: Kind, value: i64) -> Self {
        match kind {
            Kind::Gauge => Self::Gauge(Gauge {
                min: value,
                max: value,
                sum: value,
                last: value,
                count: 1,
            }),
            Kind::Counter => Self::Counter(Counter {
                first: value,
                last: value,
                increase: 0,
                count: 1,
            }),
        }
    }

    /// Takes in what came later: of the same metric. A total's step between the two counts.
    pub fn join(&mut self, later: &Self) {
        match (self, later) {
            (Self::Gauge(a), Self::Gauge(b)) => {
                a.min = a.min.min(b.min);
                a.max = a.max.max(b.max);
                a.sum = a.sum.saturating_add(b.sum);
                a.last = b.last;
                a.count += b.count;
            }
            (Self::Counter(a), Self::Counter(b)) => {
                let between = rise(a.last, b.first);
                a.increase = a
                    .increase
                    .saturating_add(between)
                    .saturating_add(b.increase);
                a.last = b.last;
                a.count += b.count;
            }
            // One metric has one kind.
            (Self::Gauge(_), Self::Counter(_)) | (Self::Counter(_), Self::Gauge(_)) => {}
        }
    }
}

/// A bucket's start, counted from the epoch.
pub fn start_of(at: Timestamp, step: Duration) -> Timestamp {
    let step_ms = (step.as_millis() as i64).max(1);
    Timestamp(at.0 - at.0.rem_euclid(step_ms))
}

/// One step of a stretch: its buckets, and what each metric did in each. A metric that no sample has is not in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollup {
    pub step: Duration,
    /// Starts of buckets with samples, ascending.
    pub starts: Vec<Timestamp>,
    /// By id; a place for each bucket.
    pub metrics: Vec<(MetricId, Vec<Option<Summary>>)>,
}

impl Rollup {
    /// Sums up samples, ascending by time.
    pub fn of(samples: &[Sample], step: Duration) -> Self {
        let mut starts: Vec<Timestamp> = Vec::new();
        let mut places = Vec::with_capacity(samples.len());
        for (at, _) in samples {
            let start = start_of(*at, step);
            if starts.last() != Some(&start) {
                starts.push(start);
            }
            places.push(starts.len() - 1);
        }
        let metrics = CATALOGUE.iter().filter_map(|def| {
            let mut buckets: Vec<Option<Summary>> = vec![None; starts.len()];
            for ((_, values), place) in samples.iter().zip(&places) {
                let Some(value) = values.get(def.id) else {
                    continue;
                };
                let now = Summary::of(def.kind, value);
                match &mut buckets[*place] {
                    Some(known) => known.join(&now),
                    empty => *empty = Some(now),
                }
            }
            buckets
                .iter()
                .any(Option::is_some)
                .then_some((def.id, buckets))
        });
        let metrics = metrics.collect();
        Self {
            step,
            starts,
            metrics,
        }
    }
}

fn kind_of(metric: MetricId) -> Option<Kind> {
    metric.def().map(|def: &metric::Metric| def.kind)
}

/// Every step worth keeping of a chunk: what a store writes beside it. `length`: of its stretch.
pub fn of_chunk(blob: &[u8], length: Duration) -> Result<Vec<(Duration, Vec<u8>)>, ChunkError> {
    let samples = chunk::decode_all(blob)?;
    steps_for(length / stretch::TICKS)
        .map(|step| Ok((step, encode(&Rollup::of(&samples, step))?)))
        .collect()
}

#[cfg(test)]
mod tests;
