//! The story that people read: opened, updated, acknowledged, resolved, closed. Deciding is pure and idempotent; a
//! decision is one transaction.

pub mod book;
mod draft;
pub mod id;
pub mod light;
#[cfg(test)]
pub(crate) mod testing;

use entrenar::report::Labels;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use crate::andon::{CordKey, Evidence, GpuAt, Kind, Resolution, RuleUid, Scope, Severity};

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Firing,
    Recovering,
    /// The evidence says that it is over.
    Resolved,
    /// A person gave a reason.
    Closed,
}

impl State {
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Firing | Self::Recovering)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Recovering => "recovering",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
        }
    }
}

/// Orthogonal to the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    pub acknowledged: bool,
    pub silenced: bool,
    /// There is no data to tell whether it goes on.
    pub unknown: bool,
    pub maintenance: bool,
    /// Found by a rule that is on trial: recorded, told to nobody, and no lamp shows it.
    #[serde(default)]
    pub shadow: bool,
}

/// Why a person closed it: so every rule has a measured false-alarm rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    Hardware,
    Workload,
    FalseAlarm,
    Other,
}

/// An incident, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Derived from cluster, cord and first transition: the same after any crash. 16 hex digits.
    pub id: String,
    pub rule: RuleUid,
    pub kind: Kind,
    pub severity: Severity,
    pub state: State,
    pub flags: Flags,
    pub scope: Scope,
    pub labels: Labels,
    pub summary: String,
    pub action: String,
    pub runbook_url: Option<String>,
    pub started_at: Timestamp,
    pub fired_at: Timestamp,
    pub acknowledged_at: Option<Timestamp>,
    pub acknowledged_by: Option<String>,
    pub resolved_at: Option<Timestamp>,
    pub resolution: Option<Resolution>,
    pub close_reason: Option<CloseReason>,
    pub culprits: Vec<GpuAt>,
    /// Id of the incident that explains this one.
    pub consequence_of: Option<String>,
    pub evidence: Vec<Evidence>,
    pub missing: Vec<String>,
    pub job: Option<String>,
    /// Receivers that were told that it began, and not yet that it ended.
    #[serde(default)]
    pub notified: Vec<String>,
    /// Counts the transitions of this incident, from 1; delivery ids derive from it.
    pub ordinal: u32,
    pub last_transition_at: Timestamp,
}

impl Incident {
    pub fn cord(&self) -> CordKey {
        CordKey {
            rule: self.rule.clone(),
            scope: self.scope.key(),
        }
    }

    /// Closed by a person while its cord was raised: until the cord has cleared, it opens nothing new. A cord pulled by
    /// hand has no evidence to wait for.
    pub fn is_held(&self) -> bool {
        self.state == State::Closed
            && self.resolution == Some(Resolution::Closed)
            && self.kind != Kind::Manual
    }
}

/// A line of an incident's story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    pub at: Timestamp,
    /// `raised`, `recovering`, `resolved`, `acknowledged`, `closed`, `notified`, …
    pub what: String,
    /// A person, a receiver, or `engine`.
    pub who: String,
    pub note: Option<String>,
}

/// What a message tells its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeEvent {
    Trigger,
    /// Still open, and something about it changed that people must know.
    Update,
    Acknowledge,
    Resolve,
}

impl NoticeEvent {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Update => "update",
            Self::Acknowledge => "acknowledge",
            Self::Resolve => "resolve",
        }
    }
}

/// A message that must reach a receiver: a row of the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Derived from (incident, ordinal, receiver): stable over retries and restarts. 32 hex digits.
    pub delivery_id: String,
    pub receiver: String,
    pub event: NoticeEvent,
    pub created_at: Timestamp,
    /// The incident as it stood.
    pub incident: Incident,
}

/// How a notice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeState {
    Pending,
    Delivered,
    /// The receiver refused it for good, or it grew too old. Kept and shown.
    Dead,
}

/// A notice and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoticeStatus {
    pub notice: Notice,
    pub state: NoticeState,
    pub attempts: u32,
    pub next_attempt_at: Option<Timestamp>,
    pub delivered_at: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// One transaction: incidents as they now stand, their new lines, and what is to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub incidents: Vec<Incident>,
    /// (incident id, line)
    pub timeline: Vec<(String, TimelineEntry)>,
    pub notices: Vec<Notice>,
    /// Newest transition of each cord, kept even after its incident is resolved.
    pub cords: Vec<(CordKey, Timestamp)>,
}

impl Decision {
    /// This one, and then another, as one transaction.
    #[must_use]
    pub fn and(mut self, next: Self) -> Self {
        self.incidents.extend(next.incidents);
        self.timeline.extend(next.timeline);
        self.notices.extend(next.notices);
        self.cords.extend(next.cords);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.incidents.is_empty()
            && self.timeline.is_empty()
            && self.notices.is_empty()
            && self.cords.is_empty()
    }
}
