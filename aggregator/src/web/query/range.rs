//! Over a time, in steps: each GPU is read once and folded into its group, and nothing of it is kept.

use std::collections::HashMap;

use axum::response::Response;

use super::Asked;
use super::instant::name;
use super::reading::Reading;
use super::view::{BandAnswer, RangeAnswer};
use crate::chunk::Profile;
use crate::query::aggregate::Aggregate;
use crate::query::fold::Closed;
use crate::query::function::Function;
use crate::query::grid::{Band, Grid};
use crate::query::select::By;
use crate::query::step::Steps;
use crate::query::{self, Budget, QueryError};
use crate::web::Web;
use crate::web::api::Answer;
use crate::web::error::Problem;
use crate::web::history;
use crate::web::listing::listing;
use crate::web::params::Params;
use crate::web::series::{USUAL_POINTS, steps};

/// Numbers that are held for a quantile, which needs every GPU's of every step: 32 MB.
const MAX_HELD: usize = 4_000_000;

pub(super) async fn answer(web: &Web, asked: Asked, mut words: Params) -> Answer<Response> {
    let range = words.range()?;
    let steps = match steps(&mut words, range)? {
        Some(steps) => steps,
        None => Steps::covering(
            range.0,
            range.1,
            query::step::usual(range.0, range.1, USUAL_POINTS),
        ),
    };
    words.finish()?;
    let function = match &asked.function {
        Some(name) => Function::parse(name, asked.metric)?,
        None => Function::usual(asked.metric),
    };
    let (mut bands, profile) = bands(web, &asked, function, steps).await?;
    if let Some(rank) = asked.rank {
        rank.keep(&mut bands, Band::mean);
    }
    let head = RangeAnswer {
        metric: asked.metric.name,
        unit: asked.unit(function.unit(asked.metric)),
        function: function.name(),
        agg: asked.agg(),
        by: asked.by.name(),
        step_seconds: steps.length().as_secs_f64(),
        resolution: query::source::resolution(Some(&steps)),
        profile: profile.max(web.profile).name(),
    };
    let by = asked.by.name();
    let series = bands
        .into_iter()
        .map(move |band| BandAnswer { by, steps, band });
    Ok(listing(&head, "series", series))
}

/// Every group, and the coarsest profile of what it was made of.
async fn bands(
    web: &Web,
    asked: &Asked,
    function: Function,
    steps: Steps,
) -> Answer<(Vec<Band>, Profile)> {
    let _turn = web.gate.turn().await?;
    let extent = history::extent(&steps, &[function]);
    let seats = history::seats(web, &asked.filter).await?;
    if matches!(asked.aggregate, Aggregate::Quantile(_)) && seats.len() * steps.len() > MAX_HELD {
        return Err(Problem::bad_request(format!(
            "a quantile of {} GPUs in {} steps is more than can be held: ask for a longer step=, or for fewer GPUs with node=, model= or label.rack=",
            seats.len(),
            steps.len()
        )));
    }
    let needs_holders = asked.job.is_some() || asked.by == By::Job;
    let holdings = if needs_holders {
        history::holdings(web, &seats, extent).await?
    } else {
        HashMap::new()
    };
    let mut budget = Budget::default();
    let mut grid = Grid::new(asked.aggregate, steps.len());
    let all = seats.iter().collect();
    let mut rest = Reading::new(web, asked.metric, extent, steps, all, !needs_holders).await?;
    while let Some((place, seat, source)) = rest.next().await? {
        grid.next_gpu(place);
        let n_before = grid.len();
        let key = asked.key(seat, &web.cluster);
        let mut own = None;
        let mut take = |job: Option<&str>, step: &Closed, grid: &mut Grid| {
            let Some(value) = function.value(asked.metric, step) else {
                return;
            };
            let group = match asked.by {
                By::Gpu => *own.get_or_insert_with(|| grid.alone(name(seat))),
                By::Job => grid.shared(job),
                _ => grid.shared(key),
            };
            grid.take(group, step.place, value);
        };
        if let Some(holding) = holdings.get(&seat.uuid) {
            let over = |_, job: Option<&str>, step: &Closed| {
                if asked.job.is_none() || asked.job.as_deref() == job {
                    take(job, step, &mut grid);
                }
            };
            query::fold_by_job(vec![source], steps, holding, &mut budget, over).await?;
        } else {
            let over = |_, step: &Closed| take(None, step, &mut grid);
            query::fold(vec![source], steps, &mut budget, over).await?;
        }
        spend(&mut budget, grid.len() - n_before, steps)?;
    }
    Ok((grid.finish(), budget.profile()))
}

fn spend(budget: &mut Budget, groups: usize, steps: Steps) -> Result<(), QueryError> {
    budget.spend(groups.saturating_mul(steps.len()))
}
