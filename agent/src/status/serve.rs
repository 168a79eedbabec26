//! The agent's small HTTP server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use entrenar::clock::Clock;
use entrenar::expose::CONTENT_TYPE;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE as CONTENT_TYPE_HEADER, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Status;

/// Connections at once; beyond it the kernel queues.
const MAX_CONNECTIONS: usize = 16;

/// A client that has not sent its request by then is dropped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            // Out of file handles, most likely: give others time to end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (status, clock, stop) = (Arc::clone(&status), Arc::clone(&clock), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &status, clock.as_ref());
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(tcp), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // A client that breaks off is its own affair.
                _ = served => {}
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, status: &Status, clock: &dyn Clock) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is served here\n".into(),
        );
    }
    match request.uri().path() {
        "/metrics" => {
            let mut page = text(StatusCode::OK, status.page(clock.now()));
            page.headers_mut()
                .insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(CONTENT_TYPE));
            page
        }
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match status.not_ready(clock.now()) {
            None => text(StatusCode::OK, "ok\n".into()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".into(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE_HEADER,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
