//! What is served before there is a line: that it lives, and what it waits for.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::web;

/// The page, until it is ended.
pub(crate) struct Waiting {
    why: watch::Sender<String>,
    stop: CancellationToken,
    served: JoinHandle<io::Result<()>>,
}

impl Waiting {
    /// Serves on this listener; gives back another hold of it.
    pub(super) fn start(
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<(Self, TcpListener)> {
        let listener = listener.into_std()?;
        let ours = TcpListener::from_std(listener.try_clone()?)?;
        let (why, told) = watch::channel(String::new());
        let stop = CancellationToken::new();
        let app = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .fallback(unavailable)
            .with_state(told);
        let served = tokio::spawn(web::serve(ours, tls, app, stop.clone()));
        let waiting = Self { why, stop, served };
        Ok((waiting, TcpListener::from_std(listener)?))
    }

    pub(super) fn say(&self, why: &str) {
        self.why.send_replace(why.to_owned());
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        // However it ended, it is over.
        let _ = self.served.await;
    }
}

async fn unavailable(State(why): State<watch::Receiver<String>>) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": format!("waiting for the database: {}", *why.borrow()),
    });
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, problem.to_string()).into_response()
}
