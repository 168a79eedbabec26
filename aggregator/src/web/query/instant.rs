//! At an instant: what every GPU said last, or a function over the time before.

use std::collections::HashMap;
use std::time::Duration;

use axum::response::Response;
use entrenar::metric::Kind;
use entrenar::unit::Timestamp;

use super::reading::Reading;
use super::view::{GroupAt, InstantAnswer};
use super::{Asked, MAX_AGE};
use crate::chunk::Profile;
use crate::line::instant::Instant;
use crate::query::fold::Closed;
use crate::query::function::Function;
use crate::query::gather::{Gathering, Name, Told};
use crate::query::select::{By, Seat};
use crate::query::step::Steps;
use crate::query::{self, Budget};
use crate::web::Web;
use crate::web::api::Answer;
use crate::web::error::Problem;
use crate::web::history;
use crate::web::listing::listing;
use crate::web::params::Params;

/// The time before an instant that is asked about, if nothing else is said.
const USUAL_WINDOW: Duration = Duration::from_mins(5);

pub(super) async fn answer(web: &Web, asked: Asked, mut words: Params) -> Answer<Response> {
    let at = words.time("at")?;
    let max_age = words.duration("max_age")?;
    let window = words.duration("window")?;
    words.finish()?;
    let function = match (&asked.function, asked.metric.kind) {
        (Some(name), _) => Function::parse(name, asked.metric)?,
        (None, Kind::Gauge) if window.is_none() => Function::Last,
        (None, _) => Function::usual(asked.metric),
    };
    let is_last = function == Function::Last;
    if is_last && window.is_some() {
        return Err(Problem::bad_request(
            "window= goes with a function over time, such as fn=mean; how old a last value may be is max_age=",
        ));
    }
    if !is_last && max_age.is_some() {
        return Err(Problem::bad_request(format!(
            "max_age= goes with fn=last; the time that fn={} looks back is window=",
            function.name()
        )));
    }
    let length = if is_last {
        max_age.unwrap_or(MAX_AGE)
    } else {
        window.unwrap_or(USUAL_WINDOW)
    };
    let now = web.clock.now();
    let is_present = is_last && at.is_none_or(|at| at >= now);
    let at = at.unwrap_or(now).min(now);
    let window = (!is_present).then(|| Steps::window(at, length));
    let (mut told, profile) = match window {
        // What was said last is always exact.
        None => (present(web, &asked, at - length).await?, Profile::Exact),
        Some(window) => {
            let (told, profile) = past(web, &asked, function, window).await?;
            (told, profile.max(web.profile))
        }
    };
    if let Some(rank) = asked.rank {
        rank.keep(&mut told, |group| group.value);
    }
    let head = InstantAnswer {
        metric: asked.metric.name,
        unit: asked.unit(function.unit(asked.metric)),
        function: function.name(),
        agg: asked.agg(),
        by: asked.by.name(),
        at: at.rfc3339(),
        max_age_seconds: is_last.then_some(length.as_secs_f64()),
        window_seconds: (!is_last).then_some(length.as_secs_f64()),
        from: window.map(|window| window.from().rfc3339()),
        resolution: query::source::resolution(window.as_ref()),
        profile: profile.name(),
    };
    let by = asked.by.name();
    let items = told.into_iter().map(move |told| GroupAt { by, at, told });
    Ok(listing(&head, "items", items))
}

/// From what the line has in hand.
async fn present(web: &Web, asked: &Asked, since: Timestamp) -> Answer<Vec<Told>> {
    let question = Instant {
        metric: asked.metric,
        filter: asked.filter.clone(),
        job: asked.job.clone(),
        by: asked.by.clone(),
        aggregate: asked.aggregate,
        since,
        cluster: web.cluster.clone(),
    };
    Ok(web.line.ask(move |line| line.instant(&question)).await?)
}

/// From history, GPU by GPU.
async fn past(
    web: &Web,
    asked: &Asked,
    function: Function,
    window: Steps,
) -> Answer<(Vec<Told>, Profile)> {
    let _turn = web.gate.turn().await?;
    let seats = history::seats(web, &asked.filter).await?;
    let at = window.to();
    let needs_holders = asked.job.is_some() || asked.by == By::Job;
    let holdings = if needs_holders {
        history::holdings(web, &seats, (at, at)).await?
    } else {
        HashMap::new()
    };
    let mut budget = Budget::default();
    let mut gathering = Gathering::new(asked.aggregate, window.from());
    let job_of = |seat: &Seat| {
        let holder = holdings.get(&seat.uuid).and_then(|held| held.at(at));
        holder.map(|holder| holder.job.as_str())
    };
    let is_asked = |seat: &&Seat| asked.job.is_none() || asked.job.as_deref() == job_of(seat);
    let seats = seats.iter().filter(is_asked).collect();
    let extent = (window.from(), window.to());
    let mut rest = Reading::new(web, asked.metric, extent, window, seats, true).await?;
    let mut all = Vec::new();
    while let Some((place, seat, source)) = rest.next().await? {
        let mut last = None;
        let over = |_, step: &Closed| {
            let value = function.value(asked.metric, step);
            last = value.map(|value| (step.bucket.last.0, value));
        };
        query::fold(vec![source], window, &mut budget, over).await?;
        if last.is_some() || seat.is_present {
            all.push((place, seat, last));
        }
    }
    all.sort_unstable_by_key(|(place, ..)| *place);
    for (_, seat, last) in all {
        match asked.by {
            By::Gpu => gathering.alone(name(seat), last),
            By::Job => gathering.shared(job_of(seat), last),
            _ => gathering.shared(asked.key(seat, &web.cluster), last),
        }
    }
    budget.spend(gathering.len())?;
    Ok((gathering.finish(), budget.profile()))
}

/// What a GPU for itself is called.
pub(super) fn name(seat: &Seat) -> Name {
    let place = seat.place.as_ref();
    let place = place.map(|place| (place.node.clone(), place.device));
    Name::Gpu(place, seat.uuid.clone())
}
