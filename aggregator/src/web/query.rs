//! `GET /api/v1/query`: one number for many GPUs, at an instant or in steps: by node, job, model, rack, or all together.

mod instant;
mod range;
mod reading;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use entrenar::metric::Metric;

use super::Web;
use super::api::{Answer, QueryOf};
use super::error::Problem;
use super::params::Params;
use crate::query::aggregate::Aggregate;
use crate::query::gather::Rank;
use crate::query::select::{By, Filter, Seat};

/// What every question says, at an instant or over a time.
struct Asked {
    metric: &'static Metric,
    filter: Filter,
    job: Option<String>,
    by: By,
    aggregate: Aggregate,
    /// Of one GPU for itself nothing is put together.
    is_aggregated: bool,
    function: Option<String>,
    rank: Option<Rank>,
}

pub(super) async fn query(
    State(web): State<Arc<Web>>,
    QueryOf(words): QueryOf<Vec<(String, String)>>,
) -> Answer<Response> {
    let is_of = |names: &[&str]| words.iter().any(|(name, _)| names.contains(&name.as_str()));
    let is_range = is_of(&["from", "to", "step", "points"]);
    if is_range && is_of(&["at"]) {
        return Err(Problem::bad_request(
            "at= asks for an instant, from=, to= and step= for a time: give one of the two",
        ));
    }
    let mut words = Params::new(words, web.clock.now());
    let asked = Asked::parse(&mut words)?;
    if is_range {
        range::answer(&web, asked, words).await
    } else {
        instant::answer(&web, asked, words).await
    }
}

impl Asked {
    fn parse(words: &mut Params) -> Answer<Self> {
        let metric = words.metric()?;
        let by = words.one("by")?;
        let agg = words.one("agg")?;
        let quantile = words.number("quantile", "a number from 0 to 1")?;
        let is_aggregated = agg.is_some() || quantile.is_some();
        let by = match by.as_deref() {
            Some(name) => By::parse(name).map_err(Problem::bad_request)?,
            // As in `max(x)`: of all together.
            None if is_aggregated => By::Cluster,
            None => By::Gpu,
        };
        let aggregate = Aggregate::parse(agg.as_deref(), quantile).map_err(Problem::bad_request)?;
        let top = words.number("top", "how many to show")?;
        let bottom = words.number("bottom", "how many to show")?;
        let rank = match (top, bottom) {
            (Some(_), Some(_)) => {
                return Err(Problem::bad_request("give top= or bottom=, not both"));
            }
            (Some(most), None) => Some(Rank::Top(most)),
            (None, most) => most.map(Rank::Bottom),
        };
        Ok(Self {
            metric,
            filter: words.filter()?,
            job: words.one("job")?,
            is_aggregated: is_aggregated || by != By::Gpu,
            by,
            aggregate,
            function: words.one("fn")?,
            rank,
        })
    }

    /// The unit of the answer, of values that a function gave in this one.
    fn unit(&self, of_values: String) -> String {
        match self.aggregate {
            Aggregate::Count if self.is_aggregated => "gpus".to_owned(),
            _ => of_values,
        }
    }

    fn agg(&self) -> Option<&'static str> {
        self.is_aggregated.then(|| self.aggregate.name())
    }

    /// What the group of a GPU is called that sits there.
    fn key<'a>(&self, seat: &'a Seat, cluster: &'a str) -> Option<&'a str> {
        let place = seat.place.as_ref();
        match &self.by {
            By::Node => place.map(|place| place.node.as_str()),
            By::Model => place.map(|place| &*place.model),
            By::Label(label) => {
                let value = place.and_then(|place| place.labels.get(*label));
                value.map(String::as_str)
            }
            By::Cluster => Some(cluster),
            // By its UUID, and by who holds it.
            By::Gpu | By::Job => None,
        }
    }
}

/// A value that was read longer ago than this is not told as the present one: Prometheus' own bound.
const MAX_AGE: Duration = Duration::from_mins(5);
