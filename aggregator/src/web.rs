//! The HTTP side, for people and scrapers: board, JSON API, events, Prometheus.
//!
//! It decides nothing: it asks the line, reads the store, and renders.

mod api;
mod assets;
mod error;
mod export;
mod gate;
mod guard;
mod history;
mod listing;
mod live;
mod params;
mod prometheus;
mod query;
mod rules;
mod series;
mod serve;
mod view;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use entrenar::clock::Clock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::chunk::Profile;
use crate::incident::book::BookError;
use crate::line::handle::{LineGone, LineHandle};
use crate::status::Vitals;
use crate::store::Store;

pub use gate::Gate;
pub use live::{Live, LiveEvent, Topic};
pub use serve::serve;
pub(crate) use view::{GpuSample, IncidentView};

/// Largest body that is read: notes are small.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What the handlers work with.
pub struct Web {
    pub line: LineHandle,
    pub store: Arc<dyn Store>,
    pub live: Arc<Live>,
    pub access: Arc<Access>,
    pub clock: Arc<dyn Clock>,
    pub vitals: Arc<Vitals>,
    pub cluster: String,
    /// Whether the listener is on loopback: then the `Host` must be too.
    pub loopback: bool,
    pub metrics_max_gpus: usize,
    /// How history is kept now.
    pub profile: Profile,
    pub gate: Gate,
    pub stop: CancellationToken,
}

/// Every route, in one list.
pub fn router(web: Arc<Web>) -> Router {
    let api = Router::new()
        .route("/nodes", get(api::nodes))
        .route("/gpus", get(api::gpus))
        .route("/jobs", get(api::jobs))
        .route("/series", get(series::series))
        .route("/query", get(query::query))
        .route("/export", get(export::export))
        .route("/incidents", get(api::incidents))
        .route("/incidents/{id}", get(api::incident))
        .route("/incidents/{id}/acknowledge", post(api::acknowledge))
        .route("/incidents/{id}/close", post(api::close))
        .route("/rules", get(rules::rules))
        .route("/notifications", get(api::notifications))
        .route("/stream", get(live::stream));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus::metrics))
        .nest("/api/v1", api)
        .fallback(get(assets::serve))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&web),
            guard::guard,
        ))
        .with_state(web)
}

/// Whether it can take and keep data.
async fn readyz(State(web): State<Arc<Web>>) -> Response {
    match web.vitals.not_ready() {
        None => Json(json!({ "ready": true })).into_response(),
        Some(why) => error::Problem::unavailable(why).into_response(),
    }
}

async fn method_not_allowed() -> error::Problem {
    error::Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this endpoint does not take that method",
    )
}

impl From<LineGone> for error::Problem {
    fn from(_: LineGone) -> Self {
        Self::unavailable("the aggregator is shutting down: ask again in a moment")
    }
}

fn book_status(error: &BookError) -> StatusCode {
    match error {
        BookError::NotFound(_) => StatusCode::NOT_FOUND,
        BookError::Closed(_) => StatusCode::CONFLICT,
    }
}
