//! What people read, before it takes a receiver's format. Every message says: cluster, what, where, since when, the
//! evidence with its numbers, what to do, what data is missing, and where to look and to acknowledge.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use entrenar::gpu::NodeId;
use entrenar::spark::sparkline_scaled;

use crate::andon::{Evidence, GpuAt, Resolution, Scope};
use crate::incident::{Incident, Notice, NoticeEvent, State};
use crate::notify::parcel::{Parcel, folds};

/// Names that a line of text lists before it says how many more there are.
const NAMES_SHOWN: usize = 4;
/// The pages of a digest list this many incidents, then say how many more there are. The board lists all.
pub const DIGEST_LINES: usize = 20;

/// What every message needs to know besides its incident.
#[derive(Clone, Debug)]
pub struct Context {
    pub cluster: String,
    /// Where people reach the board, without a slash at the end.
    pub external_url: String,
}

impl Context {
    /// `external_url` may end in a slash.
    pub fn new(cluster: &str, external_url: &str) -> Self {
        Self {
            cluster: cluster.into(),
            external_url: external_url.trim_end_matches('/').into(),
        }
    }

    /// The incident's page.
    pub fn link(&self, incident: &str) -> String {
        format!("{}/incidents/{incident}", self.external_url)
    }

    /// The incident's page, asking to acknowledge it.
    pub fn acknowledge_link(&self, incident: &str) -> String {
        format!("{}/incidents/{incident}?acknowledge=1", self.external_url)
    }
}

/// A row of evidence as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub name: String,
    /// `94 °C, threshold 90 °C`.
    pub text: String,
    /// Recent values as glyphs, with their range; a gap is `·`.
    pub spark: Option<String>,
}

/// A message about one incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// One line that says it all: `CRITICAL Xid on n7 GPU 3: …`.
    pub headline: String,
    /// How it stands: `CRITICAL`, `WARNING`, `RESOLVED`, `ACKNOWLEDGED`, `EXPLAINED`.
    pub word: &'static str,
    pub cluster: String,
    pub kind: &'static str,
    pub what: String,
    pub place: String,
    pub job: Option<String>,
    pub since: String,
    pub culprits: Option<String>,
    pub facts: Vec<Fact>,
    pub action: String,
    pub runbook_url: Option<String>,
    /// `none`, or the names of what was not there.
    pub missing: String,
    /// What else must be known: who took it, why it ended, that it is not recorded.
    pub notes: Vec<String>,
    pub link: String,
    /// Absent when there is nothing left to acknowledge.
    pub acknowledge_link: Option<String>,
}

impl Message {
    /// The message that a notice makes.
    pub fn of(notice: &Notice, unrecorded: bool, context: &Context) -> Self {
        let incident = &notice.incident;
        let word = word_for(notice);
        let place = place(&incident.scope);
        let kind = incident.kind.name();
        let waits = incident.state.is_open() && !incident.flags.acknowledged && !folds(notice);
        Self {
            headline: format!("{word} {kind} on {place}: {}", incident.summary),
            word,
            cluster: context.cluster.clone(),
            kind,
            what: incident.summary.clone(),
            place,
            job: incident.job.clone(),
            since: since(incident),
            culprits: (!incident.culprits.is_empty()).then(|| gpus(&incident.culprits)),
            facts: incident.evidence.iter().map(fact).collect(),
            action: incident.action.clone(),
            runbook_url: incident.runbook_url.clone(),
            missing: missing(incident),
            notes: notes(notice, unrecorded, context),
            link: context.link(&incident.id),
            acknowledge_link: waits.then(|| context.acknowledge_link(&incident.id)),
        }
    }
}

/// A message about several incidents at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// `12 incidents at once in cluster c: 3 critical, 9 warning`.
    pub headline: String,
    /// A line and a link for each of the worst, at most [`DIGEST_LINES`].
    pub lines: Vec<(String, String)>,
    /// How many are not listed.
    pub n_more: usize,
    /// The board, which lists all.
    pub link: String,
    pub unrecorded: Option<String>,
}

impl Digest {
    /// The message that a digest makes.
    pub fn of(parcel: &Parcel, context: &Context) -> Self {
        let n = parcel.notices.len();
        let line = |notice: &Notice| {
            let message = Message::of(notice, false, context);
            (message.headline, message.link)
        };
        Self {
            headline: format!(
                "{n} pieces of news at once in cluster {}: {}",
                context.cluster,
                tally(&parcel.notices)
            ),
            lines: parcel.notices.iter().take(DIGEST_LINES).map(line).collect(),
            n_more: n.saturating_sub(DIGEST_LINES),
            link: format!("{}/", context.external_url),
            unrecorded: parcel.unrecorded.then(|| UNRECORDED.to_owned()),
        }
    }
}

/// `3 CRITICAL, 1 RESOLVED`.
fn tally(notices: &[Notice]) -> String {
    let words: Vec<&str> = notices.iter().map(word_for).collect();
    let mut counted = Vec::new();
    for word in [
        "CRITICAL",
        "WARNING",
        "INFO",
        "ACKNOWLEDGED",
        "EXPLAINED",
        "RESOLVED",
        "CLOSED",
    ] {
        match words.iter().filter(|w| **w == word).count() {
            0 => {}
            n => counted.push(format!("{n} {word}")),
        }
    }
    counted.join(", ")
}

const UNRECORDED: &str =
    "Not recorded: the database takes no writes, so the board may not show this incident yet.";

fn word_for(notice: &Notice) -> &'static str {
    match (notice.event, notice.incident.state) {
        (NoticeEvent::Resolve, State::Closed) => "CLOSED",
        (NoticeEvent::Resolve, _) => "RESOLVED",
        (NoticeEvent::Acknowledge, _) => "ACKNOWLEDGED",
        _ if folds(notice) => "EXPLAINED",
        _ => match notice.incident.severity {
            crate::andon::Severity::Critical => "CRITICAL",
            crate::andon::Severity::Warning => "WARNING",
            crate::andon::Severity::Info => "INFO",
        },
    }
}

/// Where: `n7 GPU 3`, `node n7`, `job 12 (8 GPUs on n1, n2)`, `rack r7 (n1, n2, n3, n4 and 3 more)`, `the fleet`.
pub fn place(scope: &Scope) -> String {
    match scope {
        Scope::Fleet => "the fleet".into(),
        Scope::Node { node } => format!("node {node}"),
        Scope::Gpu { gpu } => gpu_name(gpu),
        Scope::Job { job, gpus } => {
            let nodes: BTreeSet<&NodeId> = gpus.iter().map(|gpu| &gpu.node).collect();
            let names = listed(nodes.iter().map(ToString::to_string));
            format!("job {job} ({} GPUs on {names})", gpus.len())
        }
        Scope::Nodes { group, nodes } => {
            format!(
                "{group} ({})",
                listed(nodes.iter().map(ToString::to_string))
            )
        }
    }
}

fn gpu_name(gpu: &GpuAt) -> String {
    format!("{} GPU {}", gpu.node, gpu.device)
}

fn gpus(gpus: &[GpuAt]) -> String {
    let full = |gpu: &GpuAt| format!("{} ({})", gpu_name(gpu), gpu.uuid);
    listed(gpus.iter().map(full))
}

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let mut text = names.take(NAMES_SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

/// `2026-01-01T00:00:00.000Z`, and for how long if it is over.
fn since(incident: &Incident) -> String {
    match incident.resolved_at {
        Some(end) => format!(
            "{} for {}",
            incident.started_at,
            in_words(end.since(incident.started_at))
        ),
        None => incident.started_at.to_string(),
    }
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn in_words(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

fn fact(evidence: &Evidence) -> Fact {
    let text = match &evidence.threshold {
        Some(threshold) => format!("{}, threshold {threshold}", evidence.value),
        None => evidence.value.clone(),
    };
    Fact {
        name: evidence.name.clone(),
        text,
        spark: evidence.series.as_deref().and_then(spark),
    }
}

/// `▁▆·█ 70 … 94`: recent values between their least and their greatest.
fn spark(series: &[Option<f64>]) -> Option<String> {
    let there = || series.iter().flatten().copied().filter(|v| v.is_finite());
    let low = there().reduce(f64::min)?;
    let high = there().reduce(f64::max)?;
    // A flat line is drawn at the top of a scale from zero.
    let floor = if low < high { low } else { low.min(0.0) };
    let glyphs = sparkline_scaled(series, floor, high);
    Some(format!("{glyphs} {} … {}", number(low), number(high)))
}

/// At most one digit after the point, none where it is zero.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn missing(incident: &Incident) -> String {
    let mut missing = incident.missing.clone();
    if incident.flags.unknown {
        missing.push("any data now: nobody can tell whether it goes on".into());
    }
    match missing.as_slice() {
        [] => "none".into(),
        names => names.join(", "),
    }
}

fn notes(notice: &Notice, unrecorded: bool, context: &Context) -> Vec<String> {
    let incident = &notice.incident;
    let mut notes = Vec::new();
    if unrecorded {
        notes.push(UNRECORDED.to_owned());
    }
    if let Some(cause) = &incident.consequence_of {
        notes.push(format!(
            "Folded into the incident that explains it: {}",
            context.link(cause)
        ));
    }
    if let (true, Some(who)) = (incident.flags.acknowledged, &incident.acknowledged_by) {
        notes.push(format!("Taken on by {who}."));
    }
    if notice.event == NoticeEvent::Resolve {
        notes.push(how_it_ended(incident));
    }
    notes
}

fn how_it_ended(incident: &Incident) -> String {
    let text = match incident.resolution {
        Some(Resolution::Recovered) | None => "The evidence says that it is over.",
        Some(Resolution::HolderGone) => "The job that it was about is gone.",
        Some(Resolution::Decommissioned) => "It was taken out of the fleet.",
        Some(Resolution::RuleRemoved) => {
            "The rule was switched off; nobody knows whether the trouble is over."
        }
        Some(Resolution::Explained) => "Another incident explains it; the trouble goes on there.",
        Some(Resolution::Closed) => "A person closed it; the evidence may say otherwise.",
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::andon::{Kind, Severity};
    use crate::incident::testing::{gpu_at, incident};

    fn message(event: NoticeEvent, edit: impl FnOnce(&mut Incident)) -> Message {
        let mut incident = incident("n7", Kind::Xid, Severity::Critical);
        edit(&mut incident);
        let notice = Notice {
            delivery_id: "d".into(),
            receiver: "r".into(),
            event,
            created_at: incident.fired_at,
            incident,
        };
        Message::of(&notice, false, &Context::new("c", "https://andon.example/"))
    }

    #[test]
    fn a_message_says_what_where_since_when_with_numbers_and_what_to_do() {
        let message = message(NoticeEvent::Trigger, |i| i.id = "0123".into());
        assert_eq!(
            message.headline,
            "CRITICAL Xid on n7 GPU 3: GPU 3 of n7 at 94 °C for 120 s"
        );
        assert_eq!(message.cluster, "c");
        assert_eq!(message.since, "2023-11-14T22:13:20.000Z");
        assert_eq!(message.facts[0].text, "94 °C, threshold 90 °C");
        assert_eq!(message.facts[0].spark.as_deref(), Some("▁▆·█ 70 … 94"));
        assert_eq!(message.action, "Check the fans, then drain the node.");
        assert_eq!(message.missing, "memory_temperature_celsius");
        assert_eq!(message.link, "https://andon.example/incidents/0123");
        let acknowledge = "https://andon.example/incidents/0123?acknowledge=1";
        assert_eq!(message.acknowledge_link.as_deref(), Some(acknowledge));
    }

    #[test]
    fn an_end_says_how_long_it_lasted_and_how_it_ended() {
        let over = message(NoticeEvent::Resolve, |i| {
            i.state = State::Resolved;
            i.resolved_at = Some(i.started_at + Duration::from_secs(200));
            i.resolution = Some(Resolution::HolderGone);
        });
        assert!(over.since.ends_with("for 3 min 20 s"), "{}", over.since);
        assert_eq!(over.notes, ["The job that it was about is gone."]);
        assert_eq!((over.word, over.acknowledge_link), ("RESOLVED", None));
    }

    #[test]
    fn a_folded_page_names_its_cause_and_asks_nobody_to_acknowledge() {
        let folded = message(NoticeEvent::Update, |i| {
            i.consequence_of = Some("ffff".into());
        });
        assert_eq!((folded.word, folded.acknowledge_link), ("EXPLAINED", None));
        assert!(folded.notes[0].ends_with("https://andon.example/incidents/ffff"));
    }

    #[test]
    fn missing_data_is_named_even_when_there_is_none_missing() {
        assert_eq!(
            message(NoticeEvent::Trigger, |i| i.missing.clear()).missing,
            "none"
        );
        let unknown = message(NoticeEvent::Trigger, |i| {
            i.missing.clear();
            i.flags.unknown = true;
        });
        assert!(unknown.missing.contains("nobody can tell"));
    }

    #[test]
    fn places_are_short_however_many_there_are() {
        let nodes: Vec<NodeId> = (0..7).map(|n| format!("n{n}").into()).collect();
        let check = |scope: Scope, text: &str| assert_eq!(place(&scope), text);
        check(
            Scope::Nodes {
                group: "rack r7".into(),
                nodes,
            },
            "rack r7 (n0, n1, n2, n3 and 3 more)",
        );
        check(
            Scope::Job {
                job: "12".into(),
                gpus: vec![gpu_at("n1"), gpu_at("n2"), gpu_at("n1")],
            },
            "job 12 (3 GPUs on n1, n2)",
        );
    }

    #[test]
    fn durations_are_said_in_two_words() {
        let said = |s| in_words(Duration::from_secs(s));
        assert_eq!((said(45), said(7500)), ("45 s".into(), "2 h 5 min".into()));
        assert_eq!(said(3 * 86_400 + 4 * 3600), "3 d 4 h");
    }
}
