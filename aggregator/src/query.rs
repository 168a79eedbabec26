//! Head and store together, as points or as steps: no seam between them, and nothing twice.
//!
//! How to read the folder: `source` reads one series piece by piece, `fold` puts the pieces into the `bucket`s of `step`s,
//! `function` says what a step comes to, `aggregate` what several GPUs come to, `holding` who held a GPU when; `budget` is
//! what all of it may cost. What a point means (unit, scale) is the catalogue's matter; the edge that shows it asks there.

pub mod aggregate;
pub mod bucket;
pub mod budget;
pub mod export;
pub mod fold;
pub mod function;
pub mod gather;
pub mod grid;
pub mod holding;
pub mod select;
pub mod source;
pub mod step;

use std::collections::BTreeMap;
use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::metric::{Metric, MetricId, Pace};
use entrenar::unit::Timestamp;

use self::bucket::Bucket;
use self::fold::{Closed, Fold};
use self::holding::Holding;
use self::source::{Piece, Source};
use self::step::Steps;
use crate::chunk::ChunkError;
use crate::store::{Store, StoreError};

pub use self::budget::{Budget, MAX_POINTS};

#[cfg(test)]
mod tests;

/// How often slow metrics are read at the least.
const SLOW_EVERY: Duration = Duration::from_secs(10);

/// A time and a value in the catalogue's integer unit.
pub type Point = (Timestamp, i64);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(
        "the answer would have more than {limit} points: ask for a shorter time (`from`, `to`), a longer `step`, or for one `node`, `device` or `job`"
    )]
    TooManyPoints { limit: usize },
    #[error(
        "the answer needs more than {limit} stored samples, and no more are read for one: ask for a shorter time (`from`, `to`), or for fewer GPUs (`node`, `job`, `model`)"
    )]
    TooMuchRead { limit: usize },
    #[error("a stored stretch of {gpu} from {stretch} cannot be read")]
    Damaged {
        gpu: GpuUuid,
        stretch: Timestamp,
        source: ChunkError,
    },
    #[error("the history cannot be read")]
    Store(#[from] StoreError),
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

/// Raw points of one metric of one GPU, ascending. `head` is what the head answered to the same question, and it must have
/// been asked *before* this is called: what is sealed in between is then seen twice, and not never.
pub async fn series(
    store: &dyn Store,
    question: &Question,
    head: Vec<Point>,
    budget: &mut Budget,
) -> Result<Vec<Point>, QueryError> {
    points(Source::new(store, question.clone(), head), budget).await
}

/// Every point of a series, ascending.
pub async fn points(mut source: Source<'_>, budget: &mut Budget) -> Result<Vec<Point>, QueryError> {
    let mut points = Vec::new();
    while let Some(piece) = source.next(budget).await? {
        // Of a source that is asked for points; a rollup has none.
        if let Piece::Points(more) = piece {
            budget.spend(more.len())?;
            points.extend(more);
        }
    }
    Ok(points)
}

/// One series in steps: `over` is shown every step that has a sample. The same for everyone who asks, wherever the
/// series lies and in whatever pieces.
pub async fn fold(
    source: Source<'_>,
    steps: Steps,
    budget: &mut Budget,
    mut over: impl FnMut(&Closed),
) -> Result<(), QueryError> {
    let mut source = source.in_steps(&steps, Vec::new());
    let mut fold = Fold::new(steps);
    while let Some(piece) = source.next(budget).await? {
        match piece {
            Piece::Points(points) => points.into_iter().for_each(|p| fold.point(p, &mut over)),
            Piece::Buckets(buckets) => buckets.into_iter().for_each(|b| fold.bucket(b, &mut over)),
        }
    }
    fold.finish(over);
    Ok(())
}

/// The same, each job for itself: a sample belongs to whoever held the GPU when it was taken. What a counter gained between
/// the last sample of one holder and the first of the next is nobody's.
pub async fn fold_by_job(
    source: Source<'_>,
    steps: Steps,
    holding: &Holding,
    budget: &mut Budget,
    mut over: impl FnMut(Option<&str>, &Closed),
) -> Result<(), QueryError> {
    let mut source = source.in_steps(&steps, holding.changes());
    // One that goes on, and those of holders that may come back.
    let mut now: Option<(Option<&str>, Fold)> = None;
    let mut others: BTreeMap<Option<&str>, Fold> = BTreeMap::new();
    while let Some(piece) = source.next(budget).await? {
        let buckets = match piece {
            Piece::Points(points) => points.into_iter().map(Bucket::of).collect(),
            Piece::Buckets(buckets) => buckets,
        };
        for bucket in buckets {
            let job = holding.at(bucket.began()).map(|holder| holder.job.as_str());
            if now.as_ref().is_none_or(|(of, _)| *of != job) {
                others.extend(now.take());
                let mut fold = others.remove(&job).unwrap_or_else(|| Fold::new(steps));
                fold.part();
                now = Some((job, fold));
            }
            if let Some((_, fold)) = &mut now {
                fold.bucket(bucket, |closed| over(job, closed));
            }
        }
    }
    others.extend(now);
    for (job, fold) in others {
        fold.finish(|closed| over(job, closed));
    }
    Ok(())
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
