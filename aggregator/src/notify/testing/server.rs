//! A receiver on the loopback interface: it answers by a script and keeps what it was sent.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::notify::receivers::{Receiver, Receivers};
use crate::notify::testing::ROUTING_KEY;

/// How long a test waits for a request before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status and body.
    Says(u16, String),
    /// The same with a header.
    With(u16, (&'static str, String), String),
    /// None at all.
    Never,
}

/// `200 ok`, which every kind of receiver understands.
pub(crate) fn ok() -> Reply {
    Reply::Says(200, "ok".into())
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Seen {
    headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).map(|v| v.to_str().expect("text"));
        value.unwrap_or_default().to_owned()
    }

    pub(crate) fn body(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("JSON")
    }
}

/// The server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) url: String,
    seen: mpsc::Receiver<Seen>,
}

impl Server {
    /// Gives these answers, then `ok`.
    pub(crate) async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let script: VecDeque<Reply> = script.into_iter().collect();
        let script = Arc::new(Mutex::new(script));
        let (sender, seen) = mpsc::channel(1000);
        let handler = move |headers: HeaderMap, body: Bytes| {
            let reply = script.lock().expect("no panic").pop_front().unwrap_or(ok());
            let sender = sender.clone();
            async move {
                let bytes = body.to_vec();
                // The test may have seen enough.
                let _ = sender.send(Seen { headers, bytes }).await;
                answer(reply).await
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let app = axum::Router::new().fallback(handler);
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, seen }
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Seen {
        let seen = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        seen.expect("a request in time").expect("the server lives")
    }

    /// What has come and was not looked at.
    pub(crate) fn rest(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

async fn answer(reply: Reply) -> Response {
    let status = |code| StatusCode::from_u16(code).expect("a status");
    match reply {
        Reply::Says(code, body) => (status(code), body).into_response(),
        Reply::With(code, (name, value), body) => {
            let mut response = (status(code), body).into_response();
            let value = HeaderValue::from_str(&value).expect("a header");
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
            response
        }
        Reply::Never => std::future::pending().await,
    }
}

/// A receiver of each kind (`slack`, `pagerduty`, `webhook`) at this URL, from warnings on, its secrets in this folder.
pub(crate) fn receivers_at(folder: &Path, url: &str) -> Vec<Receiver> {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
    write("url", url);
    write("key", ROUTING_KEY);
    write("secret", "s3cret");
    let file = format!(
        "receivers:
  - {{ name: slack, kind: slack, url_file: url }}
  - {{ name: pagerduty, kind: pagerduty, routing_key_file: key, url: '{url}', min_severity: warning }}
  - {{ name: webhook, kind: webhook, url_file: url, secrets: [{{ id: k1, secret_file: secret }}] }}
"
    );
    Receivers::parse(&folder.join("receivers.yaml"), &file)
        .expect("a good file")
        .receivers
}
