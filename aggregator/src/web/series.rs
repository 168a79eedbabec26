//! `GET /api/v1/series`: raw points of one metric, of one GPU or of many.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use entrenar::metric::{self, Metric};
use entrenar::unit::Timestamp;
use serde::Deserialize;

use super::Web;
use super::api::{Answer, QueryOf};
use super::error::Problem;
use super::view::{SeriesAnswer, SeriesView};
use crate::line::view::Gpu;
use crate::query;

/// Series in one answer.
const MAX_SERIES: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeriesQuery {
    metric: String,
    node: Option<String>,
    device: Option<u32>,
    uuid: Option<String>,
    job: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

pub(super) async fn series(
    State(web): State<Arc<Web>>,
    QueryOf(asked): QueryOf<SeriesQuery>,
) -> Answer<Json<SeriesAnswer>> {
    let metric = metric::by_name(&asked.metric).ok_or_else(|| {
        Problem::bad_request(format!(
            "there is no metric {:?}: see docs/metrics.md for their names",
            asked.metric
        ))
    })?;
    let now = web.clock.now();
    let to = parse_time(asked.to.as_deref().unwrap_or("now"), now)?;
    let from = parse_time(asked.from.as_deref().unwrap_or("-1h"), now)?;
    if to < from {
        return Err(Problem::bad_request("`from` is after `to`"));
    }
    let gpus = chosen(&web, &asked).await?;
    let mut budget = query::Budget::default();
    let mut series = Vec::with_capacity(gpus.len());
    for gpu in gpus {
        let points = points(&web, &gpu, metric, from, to, &mut budget).await?;
        series.push(SeriesView {
            node: gpu.at.node.to_string(),
            device: gpu.at.device,
            uuid: gpu.at.uuid.to_string(),
            points,
        });
    }
    Ok(Json(SeriesAnswer {
        metric: metric.name,
        unit: metric.unit,
        step_seconds: None,
        series,
    }))
}

async fn chosen(web: &Web, asked: &SeriesQuery) -> Answer<Vec<Gpu>> {
    let mut gpus = web.line.ask(|line| line.gpus()).await?;
    gpus.retain(|g| {
        asked
            .node
            .as_deref()
            .is_none_or(|n| g.at.node.as_str() == n)
            && asked.device.is_none_or(|d| g.at.device == d)
            && asked
                .uuid
                .as_deref()
                .is_none_or(|u| g.at.uuid.as_str() == u)
            && asked
                .job
                .as_deref()
                .is_none_or(|j| g.holder.as_ref().is_some_and(|h| h.job == j))
    });
    if gpus.len() > MAX_SERIES {
        return Err(Problem::bad_request(format!(
            "that is {} series, and at most {MAX_SERIES} are answered: narrow it with node=, device=, uuid= or job=",
            gpus.len()
        )));
    }
    Ok(gpus)
}

async fn points(
    web: &Web,
    gpu: &Gpu,
    metric: &'static Metric,
    from: Timestamp,
    to: Timestamp,
    budget: &mut query::Budget,
) -> Answer<Vec<(f64, Option<f64>)>> {
    let question = query::Question {
        gpu: gpu.at.uuid.clone(),
        metric: metric.id,
        from,
        to,
    };
    let asked = question.clone();
    // Head first: what is sealed meanwhile is then in both, and a double is dropped; the other way it would be in neither.
    let recent = web.line.ask(move |line| line.recent(&asked)).await?;
    let points = query::series(web.store.as_ref(), &question, recent, budget).await?;
    let shown = query::display(&points, metric, gpu.interval);
    Ok(shown
        .into_iter()
        .map(|(at, value)| (at.as_secs_f64(), value))
        .collect())
}

impl From<query::QueryError> for Problem {
    fn from(error: query::QueryError) -> Self {
        match error {
            query::QueryError::TooManyPoints { .. } => Self::bad_request(error.to_string()),
            query::QueryError::Store(error) => error.into(),
            query::QueryError::Damaged { .. } => Self::new(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                error.to_string(),
            ),
        }
    }
}

/// RFC 3339, unix seconds, `now`, or `-1h` before now.
fn parse_time(text: &str, now: Timestamp) -> Answer<Timestamp> {
    let wrong = || {
        Problem::bad_request(format!(
            "{text:?} is not a time: give RFC 3339 (2026-01-31T12:00:00Z), unix seconds, or an offset such as -1h"
        ))
    };
    if text == "now" {
        return Ok(now);
    }
    if let Some(offset) = text.strip_prefix('-') {
        return entrenar::config::duration(offset)
            .map(|d| now - d)
            .map_err(|_| wrong());
    }
    if let Some(at) = Timestamp::parse_rfc3339(text) {
        return Ok(at);
    }
    let secs: f64 = text.parse().map_err(|_| wrong())?;
    // Until the year 9999.
    if secs.is_finite() && (0.0..253_402_300_800.0).contains(&secs) {
        Ok(Timestamp::from_secs_f64(secs))
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_many_ways() {
        let now = Timestamp::from_secs(1_700_000_000);
        let check = |text: &str| {
            parse_time(text, now)
                .ok()
                .map(|t| t.as_millis() - now.as_millis())
        };
        assert_eq!(check("now"), Some(0));
        assert_eq!(check("-1h"), Some(-3_600_000));
        assert_eq!(check("2023-11-14T22:13:20Z"), Some(0));
        assert_eq!(check("1700000000.5"), Some(500));
        for bad in ["", "yesterday", "-", "-1x", "1e300", "NaN", "12:00"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
