//! An aggregator that is asked over HTTP: its address, a token, a CA, and a trace of what it has stored.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, Url};
use tokio::runtime::Runtime;

use crate::service::fail;

/// How to reach it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Access {
    /// File with the bearer token for the aggregator.
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// CA of the aggregator's certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "url")]
    tls_ca: Option<PathBuf>,
}

/// Which part of its history.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Part {
    /// Only this node; may be repeated.
    #[arg(long, value_name = "NAME", requires = "url")]
    node: Vec<String>,
    /// Only while this job held the GPUs.
    #[arg(long, value_name = "JOB", requires = "url")]
    job: Option<String>,
    /// Only nodes with this label; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", requires = "url")]
    labels: Vec<String>,
}

/// Why there is no trace.
#[derive(Debug)]
pub(crate) enum Refused {
    /// What was asked for makes no sense: status 2.
    Usage(anyhow::Error),
    /// It could not be had: status 1.
    Failed(anyhow::Error),
}

impl Refused {
    /// Tells it; the status to end with.
    pub(crate) fn fail(&self) -> ExitCode {
        match self {
            Self::Usage(error) => fail(error, ExitCode::from(2)),
            Self::Failed(error) => fail(error, ExitCode::FAILURE),
        }
    }
}

/// A trace that is being received. It reads as its bytes, compressed with gzip.
pub(crate) struct Download {
    runtime: Runtime,
    response: Response,
    /// What was received and not read yet.
    received: Vec<u8>,
    read: usize,
}

impl Download {
    /// Asks for the history between two times, and waits for the beginning of the answer.
    pub(crate) fn start(
        url: &str,
        access: &Access,
        (from, to): (&str, &str),
        part: &Part,
    ) -> Result<Self, Refused> {
        let url = part.url(url, from, to).map_err(Refused::Usage)?;
        let client = access.client(&url).map_err(Refused::Usage)?;
        let token = access.token().map_err(Refused::Usage)?;
        let mut request = client
            .get(url.clone())
            .header(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let (runtime, response) = send(&url, request).map_err(Refused::Failed)?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = runtime.block_on(response.bytes()).unwrap_or_default();
            let error = anyhow::Error::msg(refusal(status, &body));
            return Err(match status {
                StatusCode::BAD_REQUEST => Refused::Usage(error),
                _ => Refused::Failed(error),
            });
        }
        let coding = response.headers().get(CONTENT_ENCODING);
        if coding.is_none_or(|coding| coding != "gzip") {
            return Err(Refused::Failed(anyhow::Error::msg(
                "the answer is no compressed trace: is there a proxy between here and the aggregator that unpacks it?",
            )));
        }
        Ok(Self {
            runtime,
            response,
            received: Vec::new(),
            read: 0,
        })
    }
}

fn send(url: &Url, request: RequestBuilder) -> Result<(Runtime, Response)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let response = runtime
        .block_on(request.send())
        .map_err(reqwest::Error::without_url)
        .with_context(|| format!("could not ask {}", url.origin().ascii_serialization()))?;
    Ok((runtime, response))
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.received.len() {
            let more = self.runtime.block_on(self.response.chunk());
            match more.map_err(|error| io::Error::other(error.without_url()))? {
                Some(bytes) => (self.received, self.read) = (bytes.to_vec(), 0),
                None => return Ok(0),
            }
        }
        let waiting = &self.received[self.read..];
        let n = waiting.len().min(buffer.len());
        buffer[..n].copy_from_slice(&waiting[..n]);
        self.read += n;
        Ok(n)
    }
}

impl Part {
    fn url(&self, base: &str, from: &str, to: &str) -> Result<Url> {
        let wrong =
            || format!("--url {base}: give the aggregator's address, like http://gpu-monitor:8470");
        let base = Url::parse(base).with_context(wrong)?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            bail!("{}", wrong());
        }
        let path = format!("{}/api/v1/export", base.path().trim_end_matches('/'));
        let mut url = base;
        url.set_path(&path);
        url.set_query(None);
        let mut query = url.query_pairs_mut();
        query.append_pair("from", from).append_pair("to", to);
        for node in &self.node {
            query.append_pair("node", node);
        }
        if let Some(job) = &self.job {
            query.append_pair("job", job);
        }
        for label in &self.labels {
            let Some((key, value)) = label.split_once('=') else {
                bail!("--label {label}: give KEY=VALUE, like rack=r12");
            };
            query.append_pair(&format!("label.{key}"), value);
        }
        drop(query);
        Ok(url)
    }
}

impl Access {
    fn client(&self, url: &Url) -> Result<Client> {
        entrenar_aggregator::install_crypto_provider();
        let mut client = Client::builder().redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &self.tls_ca {
            let pem = fs::read(path)
                .with_context(|| format!("could not read {} (--tls-ca)", path.display()))?;
            let ca = Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("{} (--tls-ca) has no certificate", path.display()))?;
            client = client.tls_certs_only(ca);
        } else if url.scheme() == "http" {
            // A host without certificates can ask over plain HTTP all the same.
            client = client.tls_certs_only([]);
        }
        client.build().context("could not set up the HTTP client")
    }

    fn token(&self) -> Result<Option<String>> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let token = fs::read_to_string(path)
            .with_context(|| format!("could not read {} (--token-file)", path.display()))?;
        Ok(Some(token.trim().to_owned()))
    }
}

/// What a refusal says: its detail, where it is one of ours.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|p| p["detail"].as_str());
    match (status, detail) {
        (StatusCode::UNAUTHORIZED, _) => {
            "the aggregator wants a token that it knows: give --token-file".to_owned()
        }
        (_, Some(detail)) => detail.to_owned(),
        (_, None) => {
            format!("the aggregator answered {status}: is this the address of its HTTP side?")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(nodes: &[&str], labels: &[&str]) -> Part {
        Part {
            node: nodes.iter().map(ToString::to_string).collect(),
            job: None,
            labels: labels.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_address_may_have_a_path_and_words_are_quoted() {
        let url = part(&["n 1", "n2"], &["rack=r&1"]).url("https://h:1/entrenar/", "-7d", "now");
        assert_eq!(
            url.unwrap().as_str(),
            "https://h:1/entrenar/api/v1/export?from=-7d&to=now&node=n+1&node=n2&label.rack=r%261"
        );
    }

    #[test]
    fn an_address_that_is_none_is_told() {
        for wrong in ["gpu-monitor", "gpu-monitor:8470", "ftp://h", "http://"] {
            let told = part(&[], &[])
                .url(wrong, "-1h", "now")
                .unwrap_err()
                .to_string();
            assert!(told.contains("http://gpu-monitor:8470"), "{told}");
        }
        let told = part(&[], &["rack"])
            .url("http://h", "-1h", "now")
            .unwrap_err();
        assert!(told.to_string().contains("KEY=VALUE"));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let body = br#"{"detail":"`from` is after `to`"}"#;
        assert_eq!(
            refusal(StatusCode::BAD_REQUEST, body),
            "`from` is after `to`"
        );
        assert!(refusal(StatusCode::NOT_FOUND, b"<html>").contains("address"));
        assert!(refusal(StatusCode::UNAUTHORIZED, b"").contains("--token-file"));
    }
}
