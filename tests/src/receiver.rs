//! Receivers of messages on loopback: each path answers in its own way, and what came is kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// How a path answers.
#[derive(Clone, Debug)]
pub enum Answers {
    /// With this status and these headers each time.
    Always(u16, Vec<(&'static str, String)>),
    /// So the first time, then with 200.
    Once(u16, Vec<(&'static str, String)>),
    /// Not at all.
    Never,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Post {
    pub path: String,
    /// The id that an attempt shares with those before it.
    pub delivery: String,
    pub body: Value,
}

/// A server of paths; it ends with the test's runtime.
#[derive(Clone)]
pub struct Hooks {
    base: String,
    seen: Arc<Mutex<Vec<Post>>>,
}

impl Hooks {
    /// Paths that are not named answer 200.
    pub async fn start(paths: &[(&'static str, Answers)]) -> Self {
        let seen: Arc<Mutex<Vec<Post>>> = Arc::default();
        let paths: BTreeMap<_, _> = paths.iter().cloned().collect();
        let kept = Arc::clone(&seen);
        let handler = move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let path = uri.path().trim_start_matches('/').to_owned();
            let delivery = headers.get("x-entrenar-delivery");
            let post = Post {
                delivery: delivery.map_or("", |d| d.to_str().unwrap_or("")).to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
                path: path.clone(),
            };
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let is_first = kept.iter().all(|p| p.path != path);
            kept.push(post);
            let answers = paths.get(path.as_str()).cloned();
            async move { answer(answers, is_first).await }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(handler);
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { base, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// What came to a path, oldest first.
    pub fn seen(&self, path: &str) -> Vec<Post> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|p| p.path == path).cloned().collect()
    }

    /// A receivers file with a webhook of the same name for each path.
    pub fn file(&self, dir: &Path, paths: &[&str]) -> String {
        let webhook = |path: &&str| {
            std::fs::write(dir.join(format!("{path}.url")), self.url(path)).expect("written");
            format!("  - {{ name: {path}, kind: webhook, url_file: {path}.url }}\n")
        };
        let webhooks: String = paths.iter().map(webhook).collect();
        let file = dir.join("receivers.yaml");
        std::fs::write(&file, format!("receivers:\n{webhooks}")).expect("written");
        file.display().to_string()
    }
}

async fn answer(answers: Option<Answers>, is_first: bool) -> Response {
    let (status, headers) = match answers {
        Some(Answers::Always(status, headers)) => (status, headers),
        Some(Answers::Once(status, headers)) if is_first => (status, headers),
        None | Some(Answers::Once(..)) => (200, Vec::new()),
        Some(Answers::Never) => std::future::pending().await,
    };
    let mut response = StatusCode::from_u16(status)
        .expect("a status")
        .into_response();
    for (name, value) in headers {
        let value = value.parse().expect("a header's value");
        response.headers_mut().insert(name, value);
    }
    response
}
