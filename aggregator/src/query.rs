//! Head and store together, as points or as steps: no seam between them, and nothing twice.
//!
//! How to read the folder: `source` reads one series piece by piece, `fold` puts the pieces into the `bucket`s of `step`s,
//! `function` says what a step comes to, `aggregate` what several GPUs come to, `holding` who held a GPU when; `budget` is
//! what all of it may cost. What a point means (unit, scale) is the catalogue's matter; the edge that shows it asks there.

pub mod aggregate;
pub mod bucket;
pub mod budget;
pub mod export;
pub mod fleet;
pub mod fold;
pub mod function;
pub mod gather;
pub mod grid;
mod hands;
pub mod holding;
pub mod recent;
pub mod select;
mod shelf;
pub mod source;
pub mod step;

use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::metric::{Metric, MetricId, Pace};
use entrenar::unit::Timestamp;

use self::bucket::Bucket;
use self::fold::{Closed, Fold};
use self::hands::Hands;
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
    let source = Source::new(store, question.clone(), head);
    Ok(points(vec![source], budget).await?.concat())
}

/// Every point of some series of one GPU, ascending, in the order of the series.
pub async fn points(
    sources: Vec<Source<'_>>,
    budget: &mut Budget,
) -> Result<Vec<Vec<Point>>, QueryError> {
    let mut points = vec![Vec::new(); sources.len()];
    let see = |of: usize, piece, budget: &mut Budget| {
        // Of a source that is asked for points; a rollup has none.
        if let Piece::Points(more) = piece {
            budget.spend(more.len())?;
            points[of].extend(more);
        }
        Ok(())
    };
    read(sources, budget, see).await?;
    Ok(points)
}

/// Some series of one GPU in steps: `over` is shown every step of each that has a sample. The same for everyone who asks,
/// wherever the series lie and in whatever pieces.
pub async fn fold<'a>(
    sources: Vec<Source<'a>>,
    steps: Steps,
    budget: &mut Budget,
    mut over: impl FnMut(usize, &Closed),
) -> Result<(), QueryError> {
    let in_steps = |source: Source<'a>| (source.in_steps(&steps, Vec::new()), Fold::new(steps));
    let (sources, mut folds): (Vec<_>, Vec<_>) = sources.into_iter().map(in_steps).unzip();
    let see = |of: usize, piece, _: &mut Budget| {
        let (fold, mut over) = (&mut folds[of], |closed: &Closed| over(of, closed));
        match piece {
            Piece::Points(points) => fold.points(&points, &mut over),
            Piece::Buckets(buckets) => buckets.into_iter().for_each(|b| fold.bucket(b, &mut over)),
        }
        Ok(())
    };
    read(sources, budget, see).await?;
    for (of, fold) in folds.into_iter().enumerate() {
        fold.finish(|closed| over(of, closed));
    }
    Ok(())
}

/// The same, each job for itself: a sample belongs to whoever held the GPU when it was taken. What a counter gained between
/// the last sample of one holder and the first of the next is nobody's.
pub async fn fold_by_job<'a>(
    sources: Vec<Source<'a>>,
    steps: Steps,
    holding: &Holding,
    budget: &mut Budget,
    mut over: impl FnMut(usize, Option<&str>, &Closed),
) -> Result<(), QueryError> {
    let in_steps = |source: Source<'a>| {
        let source = source.in_steps(&steps, holding.changes());
        (source, Hands::new(holding, steps))
    };
    let (sources, mut hands): (Vec<_>, Vec<_>) = sources.into_iter().map(in_steps).unzip();
    let see = |of: usize, piece, _: &mut Budget| {
        let mut over = |job: Option<&str>, closed: &Closed| over(of, job, closed);
        match piece {
            Piece::Points(points) => points
                .into_iter()
                .for_each(|p| hands[of].take(Bucket::of(p), &mut over)),
            Piece::Buckets(buckets) => buckets
                .into_iter()
                .for_each(|b| hands[of].take(b, &mut over)),
        }
        Ok(())
    };
    read(sources, budget, see).await?;
    for (of, hands) in hands.into_iter().enumerate() {
        hands.finish(|job, closed| over(of, job, closed));
    }
    Ok(())
}

/// Shows the pieces of several series, each in order, page by page: what all have in common is read once.
async fn read(
    mut sources: Vec<Source<'_>>,
    budget: &mut Budget,
    mut see: impl FnMut(usize, Piece, &mut Budget) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    loop {
        let mut is_over = true;
        for (of, source) in sources.iter_mut().enumerate() {
            let Some(pieces) = source.page(budget).await? else {
                continue;
            };
            is_over = false;
            for piece in pieces {
                see(of, piece, budget)?;
            }
        }
        if is_over {
            return Ok(());
        }
    }
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
