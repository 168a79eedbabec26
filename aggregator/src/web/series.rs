//! `GET /api/v1/series`: one metric or several, of one GPU or of many, as they were read or in steps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use entrenar::gpu::GpuUuid;
use entrenar::metric::Metric;
use entrenar::unit::Timestamp;

use super::Web;
use super::api::{Answer, QueryOf};
use super::error::Problem;
use super::history;
use super::listing::listing;
use super::params::{Metrics, Params, span};
use super::view::{MetricAnswer, SeriesAnswer, SeriesView};
use crate::query::fold::Closed;
use crate::query::function::Function;
use crate::query::holding::Holding;
use crate::query::select::Seat;
use crate::query::step::{Steps, usual};
use crate::query::{self, Budget, QueryError};

/// Series in one answer.
const MAX_SERIES: usize = 1024;

/// Points of a series where the step is left to us: as many as a wide chart shows.
pub(super) const USUAL_POINTS: usize = 500;

pub(super) async fn series(
    State(web): State<Arc<Web>>,
    QueryOf(words): QueryOf<Vec<(String, String)>>,
) -> Answer<Response> {
    let mut words = Params::new(words, web.clock.now());
    let metrics = words.metrics()?;
    let filter = words.filter()?;
    let job = words.one("job")?;
    let range = words.range()?;
    let steps = steps(&mut words, range)?;
    let function = words.one("fn")?;
    words.finish()?;
    if function.is_some() && steps.is_none() {
        return Err(Problem::bad_request(
            "fn= says what a step comes to: give step=, points= or step=auto with it",
        ));
    }
    let functions = functions(&metrics, function.as_deref())?;
    let _turn = web.gate.turn().await?;
    let mut seats = history::seats(&web, &filter).await?;
    let held = Held::of(&web, job, &mut seats, range).await?;
    let n_series = seats.len() * metrics.list.len();
    if n_series > MAX_SERIES {
        return Err(Problem::bad_request(format!(
            "that is {n_series} series, and at most {MAX_SERIES} are answered: narrow it with node=, device=, uuid=, model= or job=, name fewer metrics, or ask /api/v1/query for aggregates"
        )));
    }
    let reading = Reading {
        web: &web,
        metrics: &metrics.list,
        functions: &functions,
        range,
        held: &held,
    };
    let told = metrics.list.iter().zip(&functions);
    let told = told.map(|(metric, function)| MetricAnswer::of(metric, *function, steps.is_some()));
    let told: Vec<MetricAnswer> = told.collect();
    let mut budget = Budget::default();
    let mut series = Vec::with_capacity(n_series);
    for seat in seats {
        let of_metrics = match &steps {
            Some(steps) => reading.steps(&seat, steps, &mut budget).await?,
            None => reading.raw(&seat, &mut budget).await?,
        };
        for (told, points) in told.iter().zip(of_metrics) {
            // Of one that is gone there is something to say, or it was never there; and no GPU has all metrics.
            let is_expected = seat.is_present && !metrics.is_all;
            if is_expected || points.iter().any(|(_, value)| value.is_some()) {
                let own = metrics.are_many().then(|| told.clone());
                series.push(SeriesView::of(&seat, own, points));
            }
        }
    }
    let head = SeriesAnswer {
        metric: told.into_iter().next().filter(|_| !metrics.are_many()),
        step_seconds: steps.map(|steps| steps.length().as_secs_f64()),
        resolution: query::source::resolution(steps.as_ref()),
        profile: budget.profile().max(web.profile).name(),
    };
    Ok(listing(&head, "series", series))
}

/// What a step of each metric comes to.
fn functions(metrics: &Metrics, asked: Option<&str>) -> Answer<Vec<Function>> {
    let of_metric = |metric: &&'static Metric| match asked {
        Some(name) => Function::parse(name, metric),
        None => Ok(Function::usual(metric)),
    };
    let functions: Result<_, _> = metrics.list.iter().map(of_metric).collect();
    Ok(functions?)
}

/// The steps that are asked for: `step=1m`, `step=auto`, `points=200`; none for every point.
pub(super) fn steps(
    words: &mut Params,
    (from, to): (Timestamp, Timestamp),
) -> Answer<Option<Steps>> {
    let points = words.number("points", "how many points a series may have")?;
    let step = words.one("step")?;
    let length: Duration = match (step.as_deref(), points) {
        (None | Some("raw"), None) => return Ok(None),
        (None | Some("auto"), points) => usual(from, to, points.unwrap_or(USUAL_POINTS)),
        (Some(text), None) => span("step", text)?,
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("give step= or points=, not both"));
        }
    };
    let steps = Steps::covering(from, to, length);
    // Before anything is read.
    Budget::default().spend(steps.len())?;
    Ok(Some(steps))
}

/// Which job's time is asked for, and when it held which GPU.
struct Held {
    job: Option<String>,
    holdings: HashMap<GpuUuid, Holding>,
}

impl Held {
    /// Of the GPUs only those stay that the job held at some time.
    async fn of(
        web: &Web,
        job: Option<String>,
        seats: &mut Vec<Seat>,
        range: (Timestamp, Timestamp),
    ) -> Answer<Self> {
        let mut held = Self {
            job,
            holdings: HashMap::new(),
        };
        if let Some(job) = &held.job {
            held.holdings = history::holdings(web, seats, range).await?;
            let (from, to) = range;
            let of_job = |holding: &Holding| holding.is_of(job, from, to);
            seats.retain(|seat| held.holdings.get(&seat.uuid).is_some_and(of_job));
        }
        Ok(held)
    }

    /// The job, and when it held this GPU; `None` where no job is asked for.
    fn by(&self, gpu: &GpuUuid) -> Option<(&str, &Holding)> {
        Some((self.job.as_deref()?, self.holdings.get(gpu)?))
    }
}

type Points = Vec<(f64, Option<f64>)>;

/// What all series of an answer have in common.
struct Reading<'a> {
    web: &'a Web,
    metrics: &'a [&'static Metric],
    /// What a step of each comes to.
    functions: &'a [Function],
    range: (Timestamp, Timestamp),
    held: &'a Held,
}

impl Reading<'_> {
    async fn raw(&self, seat: &Seat, budget: &mut Budget) -> Answer<Vec<Points>> {
        let sources = history::sources(self.web, &seat.uuid, self.metrics, self.range).await?;
        let held = self.held.by(&seat.uuid);
        let shown = |(metric, mut points): (&&'static Metric, Vec<query::Point>)| {
            if let Some((job, holding)) = held {
                points.retain(|(at, _)| holding.at(*at).is_some_and(|holder| holder.job == job));
            }
            let shown = query::display(&points, metric, seat.interval).into_iter();
            shown.map(|(at, value)| (at.as_secs_f64(), value)).collect()
        };
        let points = query::points(sources, budget).await?;
        Ok(self.metrics.iter().zip(points).map(shown).collect())
    }

    async fn steps(&self, seat: &Seat, steps: &Steps, budget: &mut Budget) -> Answer<Vec<Points>> {
        budget.spend(steps.len() * self.metrics.len())?;
        let extent = history::extent(steps, self.functions);
        let sources = history::sources(self.web, &seat.uuid, self.metrics, extent).await?;
        let mut values = vec![vec![None; steps.len()]; self.metrics.len()];
        let mut over = |of: usize, step: &Closed| {
            values[of][step.place] = self.functions[of].value(self.metrics[of], step);
        };
        match self.held.by(&seat.uuid) {
            Some((job, holding)) => {
                let of_job = |of: usize, by: Option<&str>, step: &Closed| {
                    if by == Some(job) {
                        over(of, step);
                    }
                };
                query::fold_by_job(sources, *steps, holding, budget, of_job).await?;
            }
            None => query::fold(sources, *steps, budget, over).await?,
        }
        let timed = |values: Vec<Option<f64>>| {
            let values = values.into_iter().enumerate();
            let timed = |(place, value)| (steps.start_of(place).as_secs_f64(), value);
            values.map(timed).collect()
        };
        Ok(values.into_iter().map(timed).collect())
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::TooManyPoints { .. } | QueryError::TooMuchRead { .. } => {
                Self::bad_request(error.to_string())
            }
            QueryError::Store(error) => error.into(),
            QueryError::Damaged { .. } => Self::new(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                error.to_string(),
            ),
        }
    }
}

impl From<query::function::NoFunction> for Problem {
    fn from(error: query::function::NoFunction) -> Self {
        Self::bad_request(error.to_string())
    }
}
