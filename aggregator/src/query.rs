//! Head and store together, as points: no seam between them, and nothing twice.
//!
//! Raw points only. What a point means (unit, scale) is the catalogue's matter; the edge that shows it asks there.

use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::metric::{Metric, MetricId, Pace};
use entrenar::unit::Timestamp;

use crate::chunk::{self, ChunkError};
use crate::store::{SealedChunk, Store, StoreError};

#[cfg(test)]
mod tests;

/// Most points of one answer, over all its series: some 15 MB of JSON. More is refused with a word on how to ask for less.
pub const MAX_POINTS: usize = 500_000;

/// The store is asked for this much history at a time, so that a question that is refused was not read to its end.
const PAGE: Duration = Duration::from_hours(6);

/// How often slow metrics are read at the least.
const SLOW_EVERY: Duration = Duration::from_secs(10);

/// A time and a value in the catalogue's integer unit.
pub type Point = (Timestamp, i64);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(
        "the answer would have more than {limit} points: ask for a shorter time (`from`, `to`), or for one `node`, `device` or `job`"
    )]
    TooManyPoints { limit: usize },
    #[error("a stored stretch of {gpu} from {stretch} cannot be read")]
    Damaged {
        gpu: GpuUuid,
        stretch: Timestamp,
        source: ChunkError,
    },
    #[error("the history cannot be read")]
    Store(#[from] StoreError),
}

/// What one answer may still hold. Shared by all series of the answer.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    left: usize,
}

impl Budget {
    /// An answer of at most `limit` points.
    pub const fn new(limit: usize) -> Self {
        Self { limit, left: limit }
    }

    fn spend(&mut self, points: usize) -> Result<(), QueryError> {
        let short = QueryError::TooManyPoints { limit: self.limit };
        self.left = self.left.checked_sub(points).ok_or(short)?;
        Ok(())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(MAX_POINTS)
    }
}

/// Which points.
#[derive(Clone, Debug)]
pub struct Question {
    pub gpu: GpuUuid,
    pub metric: MetricId,
    /// Both included.
    pub from: Timestamp,
    pub to: Timestamp,
}

/// One metric of one GPU, ascending. `head` is what the head answered to the same question, and it must have been asked
/// *before* this is called: what is sealed in between is then seen twice, and not never.
pub async fn series(
    store: &dyn Store,
    question: &Question,
    head: Vec<Point>,
    budget: &mut Budget,
) -> Result<Vec<Point>, QueryError> {
    let mut points = Vec::new();
    let (mut from, mut page) = (question.from, PAGE);
    while from <= question.to {
        let to = question.to.min(from + page);
        let chunks = store.chunks(&question.gpu, from, to).await?;
        // Through years without data in longer and longer steps.
        page = if chunks.is_empty() { page * 2 } else { PAGE };
        let known = points.len();
        for chunk in &chunks {
            let read = decode(chunk, question.metric)?;
            points.extend(read.into_iter().filter(|(at, _)| from <= *at && *at <= to));
        }
        budget.spend(points.len() - known)?;
        if to == question.to {
            break;
        }
        from = to + Duration::from_millis(1);
    }
    budget.spend(head.len())?;
    points.extend(head);
    Ok(in_order(points))
}

fn decode(chunk: &SealedChunk, metric: MetricId) -> Result<Vec<Point>, QueryError> {
    chunk::decode_metric(&chunk.blob, metric).map_err(|source| QueryError::Damaged {
        gpu: chunk.gpu.clone(),
        stretch: chunk.stretch,
        source,
    })
}

/// By time; of two at the same time the one that stood first, which is the stored one.
fn in_order(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by_key(|(at, _)| *at);
    points.dedup_by_key(|(at, _)| *at);
    points
}

/// The last point of each step, counted from the epoch: fewer points, none of them made up.
pub fn last_per_step(points: &[Point], step: Duration) -> Vec<Point> {
    let step_ms = (step.as_millis() as i64).max(1);
    let of_step = |(at, _): &Point| at.0.div_euclid(step_ms);
    let mut kept: Vec<Point> = Vec::new();
    for point in points {
        match kept.last_mut() {
            Some(last) if of_step(last) == of_step(point) => *last = *point,
            _ => kept.push(*point),
        }
    }
    kept
}

/// In the unit that people see, with a `None` where samples are missing: a line must not be drawn across it. `spacing` is
/// the sampling interval, or the step if that is longer.
pub fn display(
    points: &[Point],
    metric: &Metric,
    spacing: Duration,
) -> Vec<(Timestamp, Option<f64>)> {
    let expected = match metric.pace {
        Pace::Fast => spacing,
        Pace::Slow => spacing.max(SLOW_EVERY),
    };
    // Late by more than one and a half: at least one sample is missing.
    let gap = expected * 5 / 2;
    let mut shown = Vec::with_capacity(points.len());
    let mut previous: Option<Timestamp> = None;
    for (at, value) in points {
        if let Some(previous) = previous.filter(|previous| at.since(*previous) > gap) {
            shown.push((previous + expected, None));
        }
        shown.push((*at, Some(metric.to_display(*value))));
        previous = Some(*at);
    }
    shown
}
