//! Sending a parcel: the one place that speaks HTTP to receivers. It follows no redirect, reads at most 64 KiB of an
//! answer, and never lets a secret into an error.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use entrenar::unit::Timestamp;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, Proxy, RequestBuilder, Url};

use crate::notify::message::Context;
use crate::notify::parcel::Parcel;
use crate::notify::receivers::{Channel, Receiver, read_routing_key, read_secret};
use crate::notify::retry::{Answer, Verdict, parse_retry_after};
use crate::notify::target::GuardedResolver;
use crate::notify::{pagerduty, slack, webhook};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for everything.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that nobody uses is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Bytes of an answer that are read. The rest is not looked at.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for receivers could not be set up")]
pub struct PostError(#[from] reqwest::Error);

/// Sends parcels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Poster {
    client: Client,
    agent: String,
}

impl Poster {
    /// A client with its connection pool. `proxy`: for all requests; the environment's proxies are not used.
    pub fn new(proxy: Option<&Url>) -> Result<Self, PostError> {
        Self::with_timeouts(proxy, CONNECT_TIMEOUT, TOTAL_TIMEOUT)
    }

    /// The same, less patient: for tests.
    pub(crate) fn with_timeouts(
        proxy: Option<&Url>,
        connect: Duration,
        total: Duration,
    ) -> Result<Self, PostError> {
        // Only the first call in a process takes effect, and all of ours ask for the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let client = Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(connect)
                .timeout(total)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .dns_resolver(Arc::new(GuardedResolver));
            match proxy {
                Some(url) => Proxy::all(url.clone()).map(|proxy| client.no_proxy().proxy(proxy)),
                None => Ok(client.no_proxy()),
            }
        };
        let client = builder()?.build().or_else(|error| {
            // A host without certificates can still reach a bridge over plain HTTP.
            tracing::warn!(%error, "no root certificates: https receivers will fail until ca-certificates is installed");
            builder()?.tls_certs_only([]).build()
        })?;
        Ok(Self {
            client,
            agent: format!("entrenar/{}", env!("CARGO_PKG_VERSION")),
        })
    }

    /// One attempt.
    pub async fn send(
        &self,
        receiver: &Receiver,
        parcel: &Parcel,
        context: &Context,
        now: Timestamp,
    ) -> Verdict {
        let secrets = match Secrets::read(receiver.channel.clone()).await {
            Ok(secrets) => secrets,
            // The operator may be replacing the file just now.
            Err(why) => return not_sent(why),
        };
        let request = self.request(receiver, &secrets, parcel, context, now);
        let verdict = match self.answer(request, now).await {
            Ok(answer) => judge(&receiver.channel, &answer),
            Err(verdict) => verdict,
        };
        secrets.mask(verdict)
    }

    /// Calls a heartbeat's URL.
    pub async fn ping(&self, url: Url, now: Timestamp) -> Result<(), String> {
        let request = self.client.get(url).header(USER_AGENT, &self.agent);
        let verdict = match self.answer(request, now).await {
            Ok(answer) => answer.verdict(),
            Err(verdict) => verdict,
        };
        match verdict {
            Verdict::Delivered => Ok(()),
            Verdict::Retry { why, .. } | Verdict::Refused { why } => Err(why),
        }
    }

    fn request(
        &self,
        receiver: &Receiver,
        secrets: &Secrets,
        parcel: &Parcel,
        context: &Context,
        now: Timestamp,
    ) -> RequestBuilder {
        let body = match &receiver.channel {
            Channel::Slack { .. } => slack::body(parcel, context),
            Channel::PagerDuty { .. } => pagerduty::body(parcel, &secrets.routing_key, context),
            Channel::Webhook { .. } => webhook::body(parcel, receiver.name(), context),
        };
        let body = body.to_string().into_bytes();
        let mut request = self
            .client
            .post(secrets.url.clone())
            .header(USER_AGENT, &self.agent)
            .header(CONTENT_TYPE, "application/json");
        if let Channel::Webhook { .. } = receiver.channel {
            for (name, value) in webhook::headers(parcel, &secrets.keys, &body, now) {
                request = request.header(name, value);
            }
        }
        request.body(body)
    }

    async fn answer(&self, request: RequestBuilder, now: Timestamp) -> Result<Answer, Verdict> {
        let mut response = request.send().await.map_err(|error| failed(&error))?;
        let header = response.headers().get(RETRY_AFTER);
        let retry_after = header
            .and_then(|value| value.to_str().ok())
            .and_then(|text| parse_retry_after(text, now));
        let mut body = Vec::new();
        // The status is the answer; a body that breaks off only explains less.
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() >= MAX_ANSWER_BYTES {
                body.truncate(MAX_ANSWER_BYTES);
                break;
            }
        }
        Ok(Answer {
            status: response.status().as_u16(),
            retry_after,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

fn judge(channel: &Channel, answer: &Answer) -> Verdict {
    match channel {
        Channel::Slack { .. } => slack::judge(answer),
        Channel::PagerDuty { .. } => pagerduty::judge(answer),
        Channel::Webhook { .. } => webhook::judge(answer),
    }
}

fn not_sent(why: String) -> Verdict {
    Verdict::Retry {
        after: None,
        perhaps_taken: false,
        why,
    }
}

/// No answer came. The error's own text would name the URL, so only its innermost cause is kept.
fn failed(error: &reqwest::Error) -> Verdict {
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
    let (perhaps_taken, what) = match (error.is_connect(), error.is_timeout()) {
        (true, true) => (false, "no connection in time"),
        (true, false) => (false, "no connection"),
        (false, true) => (true, "no answer in time"),
        (false, false) => (true, "the connection broke"),
    };
    Verdict::Retry {
        after: None,
        perhaps_taken,
        why: format!("{what}{cause}"),
    }
}

/// What a channel keeps in files, as it is at this moment.
struct Secrets {
    url: Url,
    routing_key: String,
    keys: Vec<webhook::Key>,
}

impl Secrets {
    /// Reads the files away from the tasks that must not wait.
    async fn read(channel: Channel) -> Result<Self, String> {
        let read = tokio::task::spawn_blocking(move || Self::read_now(&channel));
        read.await
            .map_err(|_| "the secrets could not be read".to_owned())?
    }

    fn read_now(channel: &Channel) -> Result<Self, String> {
        let mut secrets = match channel {
            Channel::Slack { url } | Channel::Webhook { url, .. } => Self::at(url.read()?),
            Channel::PagerDuty { url, .. } => Self::at(url.clone()),
        };
        match channel {
            Channel::Slack { .. } => {}
            Channel::PagerDuty {
                routing_key_file, ..
            } => secrets.routing_key = read_routing_key(routing_key_file)?,
            Channel::Webhook { keys, .. } => {
                for (id, file) in keys {
                    secrets.keys.push(webhook::Key {
                        id: id.clone(),
                        secret: read_secret(file)?.into_bytes(),
                    });
                }
            }
        }
        Ok(secrets)
    }

    fn at(url: Url) -> Self {
        Self {
            url,
            routing_key: String::new(),
            keys: Vec::new(),
        }
    }

    /// A receiver may repeat what it was sent; an error is shown to people.
    fn mask(&self, verdict: Verdict) -> Verdict {
        let mask = |text: String| {
            let hidden = [self.url.as_str(), self.url.path(), &self.routing_key];
            let long = hidden.into_iter().filter(|secret| secret.len() > 4);
            long.fold(text, |text, secret| text.replace(secret, "…"))
        };
        match verdict {
            Verdict::Delivered => Verdict::Delivered,
            Verdict::Refused { why } => Verdict::Refused { why: mask(why) },
            Verdict::Retry {
                after,
                perhaps_taken,
                why,
            } => Verdict::Retry {
                after,
                perhaps_taken,
                why: mask(why),
            },
        }
    }
}

#[cfg(test)]
mod tests;
