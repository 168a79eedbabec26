//! The receivers file: who is told, how, and about what. Checked whole before anything runs; an error names the line.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::andon::{Kind, Severity};
use crate::notify::lane::Merging;
use crate::notify::route::{Glob, Route, Routes};
use crate::notify::target;

/// Where PagerDuty takes events, unless the file says otherwise.
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Receivers in one file. More is a mistake.
const MAX_RECEIVERS: usize = 100;
/// Secrets that sign at the same time: the old, the new, and room.
const MAX_KEYS: usize = 4;
/// Bytes of a secret's file.
const MAX_SECRET_BYTES: u64 = 8192;
/// How often the heartbeat is sent, unless the file says otherwise.
const HEARTBEAT_INTERVAL: Duration = Duration::from_mins(1);

/// What is wrong with a receivers file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {reason}", path.display())]
pub struct ReceiversError {
    pub path: PathBuf,
    /// From 1; 0 where there is none.
    pub line: u64,
    pub reason: String,
}

/// A URL, given or in a file that is read again at each use.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    Given(Url),
    InFile(PathBuf),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A URL's path may be a secret.
            Self::Given(url) => write!(f, "{}://{}/…", url.scheme(), url.host_str().unwrap_or("")),
            Self::InFile(path) => write!(f, "in {}", path.display()),
        }
    }
}

impl Address {
    /// The URL as it is now.
    pub fn read(&self) -> Result<Url, String> {
        match self {
            Self::Given(url) => Ok(url.clone()),
            Self::InFile(path) => {
                let text = read_secret(path)?;
                target::parse(&text).map_err(|e| format!("the URL in {}: {e}", path.display()))
            }
        }
    }
}

/// How a receiver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    Slack {
        url: Address,
    },
    PagerDuty {
        url: Url,
        routing_key_file: PathBuf,
    },
    Webhook {
        url: Address,
        /// Id and file of each secret that signs.
        keys: Vec<(String, PathBuf)>,
    },
}

impl Channel {
    /// The word in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Slack { .. } => "slack",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Webhook { .. } => "webhook",
        }
    }

    /// Least time between two messages.
    pub fn spacing(&self) -> Duration {
        match self {
            Self::Slack { .. } => Duration::from_secs(1),
            Self::PagerDuty { .. } | Self::Webhook { .. } => Duration::ZERO,
        }
    }

    /// What its digests may hold.
    pub fn merging(&self) -> Merging {
        match self {
            Self::PagerDuty { .. } => Merging::Beginnings,
            Self::Slack { .. } | Self::Webhook { .. } => Merging::Everything,
        }
    }
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// What it wants to hear of; holds its name.
    pub route: Route,
    pub channel: Channel,
}

impl Receiver {
    pub fn name(&self) -> &str {
        &self.route.receiver
    }
}

/// A URL that is called as long as this process lives, so that something else notices when it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub url: Address,
    pub interval: Duration,
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receivers {
    pub receivers: Vec<Receiver>,
    pub heartbeat: Option<Heartbeat>,
    /// An HTTP proxy for all requests. The environment's proxies are not used.
    pub proxy: Option<Url>,
}

impl Receivers {
    /// Reads a file. Names of other files in it are relative to its folder.
    pub fn load(path: &Path) -> Result<Self, ReceiversError> {
        let text = fs::read_to_string(path).map_err(|error| ReceiversError {
            path: path.into(),
            line: 0,
            reason: format!("it cannot be read: {error}"),
        })?;
        Self::parse(path, &text)
    }

    /// Reads a file's text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ReceiversError> {
        let check = Check { path };
        let empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(empty) {
            return Ok(Self::default());
        }
        // Without the snippet: a line of this file may hold a secret.
        let file: RawFile = serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().map_or(0, |at| at.line());
            check.error(line, error.without_snippet().to_string())
        })?;
        check.file(&file)
    }

    /// Every receiver's share of the incidents.
    pub fn routes(&self) -> Routes {
        Routes(self.receivers.iter().map(|r| r.route.clone()).collect())
    }
}

/// The text of a secret's file, without the space around it.
pub fn read_secret(path: &Path) -> Result<String, String> {
    let name = path.display();
    let size = fs::metadata(path)
        .map_err(|e| format!("{name} cannot be read: {e}"))?
        .len();
    if size > MAX_SECRET_BYTES {
        return Err(format!(
            "{name} is larger than {MAX_SECRET_BYTES} bytes: is it the right file?"
        ));
    }
    let text = fs::read_to_string(path).map_err(|e| format!("{name} cannot be read: {e}"))?;
    match text.trim() {
        "" => Err(format!("{name} is empty")),
        text => Ok(text.to_owned()),
    }
}

/// A routing key: 32 letters and digits.
pub fn read_routing_key(path: &Path) -> Result<String, String> {
    let key = read_secret(path)?;
    if key.len() == 32 && key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(key);
    }
    Err(format!(
        "{} does not hold a routing key of 32 letters and digits: copy the integration key of an Events API v2 integration",
        path.display()
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    receivers: Vec<Spanned<RawReceiver>>,
    heartbeat: Option<Spanned<RawHeartbeat>>,
    proxy: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReceiver {
    name: Spanned<String>,
    kind: Spanned<String>,
    min_severity: Option<Spanned<String>>,
    #[serde(default)]
    nodes: Vec<Spanned<String>>,
    #[serde(default)]
    kinds: Vec<Spanned<String>>,
    url: Option<Spanned<String>>,
    url_file: Option<Spanned<String>>,
    routing_key_file: Option<Spanned<String>>,
    #[serde(default)]
    secrets: Vec<RawKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    id: Spanned<String>,
    secret_file: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeartbeat {
    url: Option<Spanned<String>>,
    url_file: Option<Spanned<String>>,
    interval: Option<Spanned<String>>,
}

/// Turns what was written into what is meant, or says in which line it means nothing.
struct Check<'a> {
    path: &'a Path,
}

type Checked<T> = Result<T, ReceiversError>;

impl Check<'_> {
    fn error(&self, line: u64, reason: impl Into<String>) -> ReceiversError {
        ReceiversError {
            path: self.path.into(),
            line,
            reason: reason.into(),
        }
    }

    fn wrong<T>(&self, at: &Spanned<T>, reason: impl Into<String>) -> ReceiversError {
        self.error(at.referenced.line(), reason)
    }

    fn file(&self, file: &RawFile) -> Checked<Receivers> {
        if file.receivers.len() > MAX_RECEIVERS {
            return Err(self.wrong(
                &file.receivers[MAX_RECEIVERS],
                format!("there are more than {MAX_RECEIVERS} receivers"),
            ));
        }
        let mut names = BTreeSet::new();
        let mut receivers = Vec::new();
        for raw in &file.receivers {
            let receiver = self.receiver(raw)?;
            if !names.insert(receiver.name().to_owned()) {
                let name = &raw.value.name;
                return Err(self.wrong(
                    name,
                    format!("there are two receivers named {}", name.value),
                ));
            }
            receivers.push(receiver);
        }
        Ok(Receivers {
            receivers,
            heartbeat: file
                .heartbeat
                .as_ref()
                .map(|raw| self.heartbeat(raw))
                .transpose()?,
            proxy: file
                .proxy
                .as_ref()
                .map(|raw| self.url("proxy", raw))
                .transpose()?,
        })
    }

    fn receiver(&self, raw: &Spanned<RawReceiver>) -> Checked<Receiver> {
        let r = &raw.value;
        if r.name.value.trim().is_empty() {
            return Err(self.wrong(&r.name, "a receiver's name is empty"));
        }
        let channel = match r.kind.value.as_str() {
            "slack" => {
                self.unused(raw, "slack", &["url", "routing_key_file", "secrets"])?;
                self.slack(raw)?
            }
            "pagerduty" => {
                self.unused(raw, "pagerduty", &["url_file", "secrets"])?;
                self.pagerduty(raw)?
            }
            "webhook" => {
                self.unused(raw, "webhook", &["routing_key_file"])?;
                self.webhook(raw)?
            }
            other => {
                let reason =
                    format!("no kind of receiver is {other:?}: write slack, pagerduty or webhook");
                return Err(self.wrong(&r.kind, reason));
            }
        };
        let route = Route {
            receiver: r.name.value.clone(),
            min_severity: self.min_severity(r.min_severity.as_ref(), &channel)?,
            nodes: r
                .nodes
                .iter()
                .map(|node| Glob::from(node.value.as_str()))
                .collect(),
            kinds: self.kinds(&r.kinds)?,
        };
        Ok(Receiver { route, channel })
    }

    /// Keys that mean nothing for a kind are mistakes: above all a secret in a place where nobody reads it.
    fn unused(&self, raw: &Spanned<RawReceiver>, kind: &str, keys: &[&str]) -> Checked<()> {
        let r = &raw.value;
        let line = |value: &Option<Spanned<String>>| value.as_ref().map(|v| v.referenced.line());
        let given = [
            ("url", line(&r.url)),
            ("url_file", line(&r.url_file)),
            ("routing_key_file", line(&r.routing_key_file)),
            (
                "secrets",
                r.secrets.first().map(|key| key.id.referenced.line()),
            ),
        ];
        for (key, line) in given {
            if let (true, Some(line)) = (keys.contains(&key), line) {
                let hint = match key {
                    "url" => ": the URL is a secret, put it into a file and name that as url_file",
                    _ => "",
                };
                return Err(self.error(line, format!("a {kind} receiver takes no {key}{hint}")));
            }
        }
        Ok(())
    }

    fn slack(&self, raw: &Spanned<RawReceiver>) -> Checked<Channel> {
        let Some(file) = &raw.value.url_file else {
            let reason =
                "a slack receiver needs url_file: a file that holds the incoming webhook's URL";
            return Err(self.wrong(raw, reason));
        };
        Ok(Channel::Slack {
            url: self.url_in_file(file)?,
        })
    }

    fn pagerduty(&self, raw: &Spanned<RawReceiver>) -> Checked<Channel> {
        let Some(file) = &raw.value.routing_key_file else {
            let reason = "a pagerduty receiver needs routing_key_file: a file that holds the integration key";
            return Err(self.wrong(raw, reason));
        };
        let url = match &raw.value.url {
            Some(url) => self.url("url", url)?,
            None => Url::parse(PAGERDUTY_URL).expect("PagerDuty's address is a URL"),
        };
        let routing_key_file = self.file_named(file);
        read_routing_key(&routing_key_file).map_err(|reason| self.wrong(file, reason))?;
        Ok(Channel::PagerDuty {
            url,
            routing_key_file,
        })
    }

    fn webhook(&self, raw: &Spanned<RawReceiver>) -> Checked<Channel> {
        let r = &raw.value;
        if let Some(key) = r.secrets.get(MAX_KEYS) {
            let reason = format!(
                "more than {MAX_KEYS} secrets: remove those that the receiver no longer needs"
            );
            return Err(self.wrong(&key.id, reason));
        }
        let mut keys: Vec<(String, PathBuf)> = Vec::new();
        for key in &r.secrets {
            let (id, file) = (&key.id.value, self.file_named(&key.secret_file));
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if id.is_empty() || !id.chars().all(plain) {
                let reason = "a secret's id is made of letters, digits, '-', '_' and '.'";
                return Err(self.wrong(&key.id, reason));
            }
            if keys.iter().any(|(other, _)| other == id) {
                return Err(self.wrong(&key.id, format!("there are two secrets with the id {id}")));
            }
            read_secret(&file).map_err(|reason| self.wrong(&key.secret_file, reason))?;
            keys.push((id.clone(), file));
        }
        Ok(Channel::Webhook {
            url: self.address(raw, r.url.as_ref(), r.url_file.as_ref())?,
            keys,
        })
    }

    fn heartbeat(&self, raw: &Spanned<RawHeartbeat>) -> Checked<Heartbeat> {
        let h = &raw.value;
        let interval = match &h.interval {
            Some(text) => entrenar::config::duration(&text.value)
                .map_err(|reason| self.wrong(text, format!("interval: {reason}")))?,
            None => HEARTBEAT_INTERVAL,
        };
        Ok(Heartbeat {
            url: self.address(raw, h.url.as_ref(), h.url_file.as_ref())?,
            interval,
        })
    }

    fn address<T>(
        &self,
        whole: &Spanned<T>,
        url: Option<&Spanned<String>>,
        file: Option<&Spanned<String>>,
    ) -> Checked<Address> {
        match (url, file) {
            (Some(url), None) => Ok(Address::Given(self.url("url", url)?)),
            (None, Some(file)) => self.url_in_file(file),
            _ => Err(self.wrong(whole, "give exactly one of url and url_file")),
        }
    }

    fn url(&self, key: &str, url: &Spanned<String>) -> Checked<Url> {
        target::parse(&url.value).map_err(|error| self.wrong(url, format!("{key}: {error}")))
    }

    fn url_in_file(&self, file: &Spanned<String>) -> Checked<Address> {
        let address = Address::InFile(self.file_named(file));
        address.read().map_err(|reason| self.wrong(file, reason))?;
        Ok(address)
    }

    fn file_named(&self, name: &Spanned<String>) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        folder.join(&name.value)
    }

    fn min_severity(
        &self,
        given: Option<&Spanned<String>>,
        channel: &Channel,
    ) -> Checked<Severity> {
        let Some(given) = given else {
            return Ok(match channel {
                Channel::PagerDuty { .. } => Severity::Critical,
                Channel::Slack { .. } | Channel::Webhook { .. } => Severity::Warning,
            });
        };
        let all = [Severity::Info, Severity::Warning, Severity::Critical];
        all.into_iter()
            .find(|severity| severity.name() == given.value)
            .ok_or_else(|| self.wrong(given, "min_severity is info, warning or critical"))
    }

    fn kinds(&self, given: &[Spanned<String>]) -> Checked<Vec<Glob>> {
        let mut globs = Vec::new();
        for kind in given {
            let glob = Glob::from(kind.value.as_str());
            if !Kind::ALL.iter().any(|kind| glob.matches(kind.name())) {
                let names = Kind::ALL.map(Kind::name).join(", ");
                let reason = format!("{:?} is no kind of incident: there are {names}", kind.value);
                return Err(self.wrong(kind, reason));
            }
            globs.push(glob);
        }
        Ok(globs)
    }
}

#[cfg(test)]
mod tests;
