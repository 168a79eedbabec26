//! NodeLost: a node has gone silent without a goodbye. *(pure)*
//!
//! Silence is judged on the fleet's clock, never on a node's own. A node that was expected at the start and does not
//! come counts as silent once the start's grace is over. Several silent nodes of one rack, switch or feed are one
//! finding.

use std::collections::BTreeSet;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

use super::cause::SHARED_LABELS;
use super::finding::{finding, lasting, listed, time_of_day};
use super::fleet::{Fleet, Node};
use super::rules::{Span, require, rule};
use super::{Evidence, Finding, Presence};
use entrenar::report::Labels;

rule! {
    /// A node has gone silent without a goodbye.
    NodeLostRule: NodeLost, named "node_lost", Critical, true;
    /// How many sampling intervals of silence are too many.
    intervals: u32 = 3;
    /// Silence shorter than this is never too long, however short the interval.
    at_least: Span = Span::secs(5);
    /// No node is called lost for so long after the start: agents are coming back.
    start_grace: Span = Span::secs(60);
    /// How many messages a lost node must send before it is back.
    good_frames: u32 = 3;
    /// From this many silent nodes of one rack, switch or feed on, they are one finding.
    group_nodes: u32 = 3;
    => |this| {
        require((2..=1000).contains(&this.intervals), "intervals", "write a number from 2 to 1000: a single late message is no loss")?;
        require(this.at_least >= Span::secs(1), "at_least", "write at least 1s")?;
        require((1..=100).contains(&this.good_frames), "good_frames", "write a number from 1 to 100")?;
        require((2..=1000).contains(&this.group_nodes), "group_nodes", "write a number from 2 to 1000")
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

    /// Whether its silence waits for a judgement.
    pub(super) fn is_unjudged(&self) -> bool {
        self.presence != Presence::Gone && !self.maintenance && self.lost_by.is_none() && !self.held
    }
}

/// Nodes that fell silent together with one that is silent: within `within` of each other, and for at least half of
/// their own patience.
pub(super) fn cohort(
    fleet: &Fleet,
    first: &NodeId,
    (now, started_at): (Timestamp, Timestamp),
    within: Span,
    rule: &NodeLostRule,
) -> BTreeSet<NodeId> {
    let Some(heard) = fleet
        .nodes
        .get(first)
        .map(|node| node.last_heard(started_at))
    else {
        return BTreeSet::new();
    };
    let belongs = |node: &Node| {
        let last = node.last_heard(started_at);
        node.is_unjudged()
            && (now.0 - last.0) * 2 >= node.patience_ms(rule)
            && (last.0 - heard.0).abs() <= within.millis()
    };
    let members = fleet.nodes.iter().filter(|(_, node)| belongs(node));
    members.map(|(id, _)| id.clone()).collect()
}

/// The silent nodes that share a label with one of them, if they are enough for one finding: the group's name and its
/// members.
pub(super) fn rack_of(
    fleet: &Fleet,
    first: &NodeId,
    cohort: &BTreeSet<NodeId>,
    rule: &NodeLostRule,
) -> Option<(String, Vec<NodeId>)> {
    let group = |label: &&str| {
        let value = fleet.label(first, label)?;
        let same = |node: &&NodeId| fleet.label(node, label) == Some(value);
        let nodes: Vec<NodeId> = cohort.iter().filter(same).cloned().collect();
        let name = format!("{} {value}", label.replace('_', " "));
        (nodes.len() >= rule.group_nodes as usize).then_some((name, nodes))
    };
    SHARED_LABELS
        .iter()
        .filter_map(group)
        .max_by_key(|(_, nodes)| nodes.len())
}

const ACTION: &str = "Ping the node and ask its management controller (BMC): power, kernel panic, network. If it is up, \
                      look at the agent: `systemctl status entrenar-agent`.";

/// What is said of one node.
pub(super) fn node_finding(
    id: &NodeId,
    node: &Node,
    (now, started_at): (Timestamp, Timestamp),
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
