//! What every request must pass: the right host, the right origin, a credential, and safe headers on the way out.
//!
//! On loopback there may be no token, and any web page can make a browser send requests there. So the `Host` must be a
//! loopback name (a rebound DNS name is not), a foreign `Origin` is refused, and what changes something must be JSON,
//! which a page can't send across origins without asking first.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Web;
use super::error::Problem;
use crate::access::{Denied, Role};

/// The middleware of all routes.
pub(super) async fn guard(
    State(web): State<Arc<Web>>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&web, &request) {
        Ok(person) => {
            request.extensions_mut().insert(person);
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            headers.insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
            headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
            headers.insert(
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            );
            response
        }
        Err(problem) => problem.into_response(),
    }
}

fn admit(web: &Web, request: &Request) -> Result<crate::access::Person, Problem> {
    let headers = request.headers();
    let host = text(headers, header::HOST)
        .or_else(|| request.uri().host())
        .unwrap_or("");
    if web.loopback && !is_loopback(host) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "this server listens on loopback and was asked for the host {host:?}: open http://127.0.0.1 or http://localhost"
            ),
        ));
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes {
        same_origin(headers, host)?;
        is_json(headers)?;
    }
    if is_public(request.uri().path()) {
        return Ok(crate::access::Person {
            name: "anonymous".into(),
            role: Role::Viewer,
        });
    }
    let denied = |denied: Denied| Problem::new(StatusCode::UNAUTHORIZED, denied.to_string());
    let person = web
        .access
        .person(text(headers, header::AUTHORIZATION))
        .map_err(denied)?;
    if changes && person.role < Role::Responder {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            Denied::NeedsResponder.to_string(),
        ));
    }
    Ok(person)
}

/// Probes need no credential, and neither do the board's files: they hold nothing of the fleet.
fn is_public(path: &str) -> bool {
    path == "/healthz" || path == "/readyz" || !(path.starts_with("/api/") || path == "/metrics")
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn same_origin(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let Some(origin) = text(headers, header::ORIGIN) else {
        return Ok(());
    };
    let from = origin.split_once("://").map_or("", |(_, rest)| rest);
    if from.eq_ignore_ascii_case(host) && !host.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        format!("a page of another origin ({origin}) may not change anything here"),
    ))
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = text(headers, header::CONTENT_TYPE).unwrap_or("");
    if kind
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "send JSON, with `Content-Type: application/json`; `{}` will do where there is nothing to say",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_loopback_are_loopback() {
        for yes in [
            "127.0.0.1:8470",
            "localhost:8470",
            "LOCALHOST",
            "[::1]:8470",
            "127.0.0.2",
        ] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in [
            "evil.example:8470",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
            "[fe80::1]:8470",
        ] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn a_page_of_another_origin_may_not_change_anything() {
        let check = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a header"));
            }
            same_origin(&headers, "127.0.0.1:8470").is_ok()
        };
        assert!(check(None));
        assert!(check(Some("http://127.0.0.1:8470")));
        assert!(!check(Some("http://127.0.0.1:9999")));
        assert!(!check(Some("https://evil.example")));
        assert!(!check(Some("null")));
    }

    #[test]
    fn a_form_is_not_json() {
        let check = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            is_json(&headers).is_ok()
        };
        assert!(check("application/json"));
        assert!(check("application/json; charset=utf-8"));
        assert!(!check("text/plain"));
        assert!(!check("application/x-www-form-urlencoded"));
    }
}
