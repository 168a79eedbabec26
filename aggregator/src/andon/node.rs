//! NodeLost: a node has gone silent without a goodbye. *(pure)*
//!
//! Silence is judged on the fleet's clock, never on a node's own. A node that was expected at the start and does not
//! come counts as silent once the start's grace is over. A dead node and a dead agent are equally silent: what tells
//! them apart is whether the node's jobs stop with it on other nodes. Nodes that fall silent together are one finding.

use std::collections::BTreeSet;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

use super::finding::{finding, lasting, listed, time_of_day};
use super::fleet::{Fleet, Node};
use super::gpu::Gpu;
use super::pulse::Activity;
use super::rules::{RuleSet, Span, require, rule};
use super::witness::Witness;
use super::{Evidence, Finding, Presence, Severity};
use entrenar::report::Labels;

rule! {
    /// A node has gone silent without a goodbye.
    NodeLostRule: NodeLost, named "node_lost", Critical, true;
    /// How many sampling intervals of silence are too many.
    intervals: u32 = 3;
    /// Silence shorter than this is never too long, however short the interval.
    at_least: Span = Span::secs(5);
    /// Where the node's jobs stopped with it on other nodes, this much is enough, and so many intervals.
    proven: Span = Span::secs(4);
    /// Where only most of their GPUs did, so much more.
    doubt: Span = Span::secs(20);
    /// Where nothing tells, a node that was in use is called lost after this, an interval more, and twice the usual
    /// patience: an agent that restarts is silent for a while.
    alone: Span = Span::secs(40);
    /// A node that was not in use is only missed, as a warning, after this and two intervals.
    unused: Span = Span::secs(60);
    /// No node is called lost for so long after the start: agents are coming back.
    start_grace: Span = Span::secs(60);
    /// How many messages a lost node must send before it is back.
    good_frames: u32 = 3;
    /// From this many nodes on that fell silent together, they are one finding.
    group_nodes: u32 = 2;
    => |this| {
        require((2..=1000).contains(&this.intervals), "intervals", "write a number from 2 to 1000: a single late message is no loss")?;
        require(this.at_least >= Span::secs(1), "at_least", "write at least 1s")?;
        require((1..=100).contains(&this.good_frames), "good_frames", "write a number from 1 to 100")?;
        require((2..=1000).contains(&this.group_nodes), "group_nodes", "write a number from 2 to 1000")
    }
}

impl NodeLostRule {
    /// How long a silence must be that others prove.
    fn proven_ms(&self, interval_ms: i64) -> i64 {
        (interval_ms * i64::from(self.intervals)).max(self.proven.millis())
    }
}

impl Node {
    /// When it was last heard of; the start counts as such.
    pub(super) fn last_heard(&self, started_at: Timestamp) -> Timestamp {
        let heard = self.last_frame.max(self.released_at);
        heard.map_or(started_at, |at| at.max(started_at))
    }

    /// How long a silence of it may last, in milliseconds.
    pub(super) fn patience_ms(&self, rule: &NodeLostRule) -> i64 {
        (self.interval_ms * i64::from(rule.intervals)).max(rule.at_least.millis())
    }

    /// How it stands by now.
    pub(super) fn presence_at(
        &self,
        now: Timestamp,
        started_at: Timestamp,
        rule: &NodeLostRule,
    ) -> Presence {
        let in_grace = now.since(started_at) < rule.start_grace.0;
        let was_heard = self.last_frame.is_some_and(|at| at >= started_at);
        let silence_ms = now.0 - self.last_heard(started_at).0;
        match self.presence {
            Presence::Gone => Presence::Gone,
            _ if !was_heard && in_grace => Presence::Expected,
            _ if silence_ms > self.patience_ms(rule) && !in_grace => Presence::Silent,
            _ if silence_ms * 2 > self.interval_ms * 3 + 1000 => Presence::Late,
            _ => Presence::Live,
        }
    }

    /// Whether its silence is long enough to be judged, should its peers tell.
    pub(super) fn is_due(
        &self,
        now: Timestamp,
        started_at: Timestamp,
        rule: &NodeLostRule,
    ) -> bool {
        let in_grace = now.since(started_at) < rule.start_grace.0;
        let silence_ms = now.0 - self.last_heard(started_at).0;
        rule.enabled
            && !in_grace
            && self.is_unjudged()
            && silence_ms >= rule.proven_ms(self.interval_ms)
    }

    /// Whether it was in use when it was last heard of, as far as is known.
    pub(super) fn is_busy(&self) -> bool {
        let rests = |gpu: &Gpu| {
            let doing = gpu.pulse.activity;
            gpu.holder().is_none() && doing.is_some_and(|doing| doing != Activity::Work)
        };
        self.gpus.is_empty() || !self.gpus.iter().all(rests)
    }

    /// Whether its silence waits for a judgement.
    pub(super) fn is_unjudged(&self) -> bool {
        self.presence != Presence::Gone && !self.maintenance && self.lost_by.is_none() && !self.held
    }
}

/// What speaks for and against calling someone, of a node or of nodes that are silent together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calls {
    /// How long the first of them has been silent.
    pub(super) silence_ms: i64,
    /// How long all of them have.
    pub(super) all_ms: i64,
    /// The slowest of their intervals.
    pub(super) interval_ms: i64,
    /// A job had them, or their GPUs worked.
    pub(super) is_busy: bool,
    /// It does this all the time.
    pub(super) flaps: bool,
}

/// What becomes of silent nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sentence {
    /// It is too early to say.
    Wait,
    /// They are lost; it matters at most so much.
    Lost(Severity),
    /// Only their agents are.
    AgentSilent,
}

/// Judges silent nodes by what their peers tell: what is proven is said at once, what cannot be known takes longer than
/// an agent's restart, and a node that nobody used calls nobody.
pub(super) fn sentence(told: Witness, calls: Calls, rules: &RuleSet) -> Sentence {
    let rule = &rules.node_lost;
    let Calls {
        silence_ms,
        all_ms,
        interval_ms,
        ..
    } = calls;
    let wait = |ms: i64| {
        if calls.flaps {
            ms.max(rules.node_flapping.patience.millis())
        } else {
            ms
        }
    };
    let patience_ms = (interval_ms * i64::from(rule.intervals)).max(rule.at_least.millis());
    match told {
        Witness::Stopped if silence_ms >= wait(rule.proven_ms(interval_ms)) => {
            Sentence::Lost(Severity::Critical)
        }
        Witness::Wavers if silence_ms >= wait(patience_ms + rule.doubt.millis()) => {
            Sentence::Lost(Severity::Critical)
        }
        Witness::GoesOn if all_ms >= wait(rules.agent_silent.after.millis() + 2 * interval_ms) => {
            Sentence::AgentSilent
        }
        Witness::Nothing if calls.is_busy => {
            let alone_ms = (rule.alone.millis() + interval_ms).max(2 * patience_ms);
            if all_ms >= wait(alone_ms) {
                Sentence::Lost(Severity::Critical)
            } else {
                Sentence::Wait
            }
        }
        Witness::Nothing if all_ms >= wait(rule.unused.millis() + 2 * interval_ms) => {
            Sentence::Lost(Severity::Warning)
        }
        _ => Sentence::Wait,
    }
}

const ACTION: &str = "Ping the node and ask its management controller (BMC): power, kernel panic, network. If it is up, \
                      look at the agent: `systemctl status entrenar-agent`.";

/// What is said of one node.
pub(super) fn node_finding(
    id: &NodeId,
    node: &Node,
    (now, started_at): (Timestamp, Timestamp),
    told: Witness,
    rule: &NodeLostRule,
) -> Finding {
    let was_heard = node.last_frame.is_some_and(|at| at >= started_at);
    let lasts = lasting(now.0 - node.last_heard(started_at).0);
    let since = node.last_frame.map_or("never".into(), time_of_day);
    let summary = if was_heard {
        format!("Node {id} is silent: nothing heard for {lasts}")
    } else {
        format!("Node {id} is silent: not heard of since the aggregator started (last: {since})")
    };
    let jobs = jobs_on(&[node]);
    let mut found = finding(rule, &node.labels, summary, ACTION)
        .with(Evidence::new("silent for", lasts).against(lasting(node.patience_ms(rule))))
        .with(Evidence::new("last heard", since))
        .with(Evidence::new("GPUs", node.gpus.len().to_string()))
        .with(Evidence::new("peers", told.words()))
        .missing_if(true, "everything about this node since then");
    if !jobs.is_empty() {
        found = found.with(Evidence::new("jobs", listed(jobs.iter())));
    }
    found.job = jobs.first().filter(|_| jobs.len() == 1).cloned();
    found
}

/// What is said of several.
pub(super) fn group_finding(
    fleet: &Fleet,
    group: &str,
    nodes: &[NodeId],
    now: Timestamp,
    told: Witness,
    rule: &NodeLostRule,
) -> Finding {
    let members: Vec<&Node> = nodes.iter().filter_map(|id| fleet.nodes.get(id)).collect();
    let last = members.iter().filter_map(|node| node.last_frame).min();
    let lasts = last.map_or("an unknown time".into(), |at| lasting(now.0 - at.0));
    let summary = format!(
        "{} nodes are silent together ({group}): nothing heard for {lasts}",
        nodes.len()
    );
    let action = "Look for what they share: power feed, switch, rack, or the way to the aggregator. Then each node.";
    let gpus: usize = members.iter().map(|node| node.gpus.len()).sum();
    let jobs = jobs_on(&members);
    let mut found = finding(rule, &Labels::new(), summary, action)
        .with(Evidence::new("nodes", listed(nodes.iter())))
        .with(Evidence::new("silent for", lasts))
        .with(Evidence::new("GPUs", gpus.to_string()))
        .with(Evidence::new("peers", told.words()))
        .missing_if(true, "everything about these nodes since then");
    if !jobs.is_empty() {
        found = found.with(Evidence::new("jobs", listed(jobs.iter())));
    }
    found
}

fn jobs_on(nodes: &[&Node]) -> Vec<String> {
    let gpus = nodes.iter().flat_map(|node| &node.gpus);
    let jobs: BTreeSet<&str> = gpus
        .filter_map(|gpu| Some(gpu.holder()?.job.as_str()))
        .collect();
    jobs.into_iter().map(str::to_owned).collect()
}
