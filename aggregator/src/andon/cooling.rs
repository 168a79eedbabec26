//! CoolingFailure: several nodes get too hot at about the same time. *(pure)*
//!
//! One hot GPU is a fan, a heat sink or a neighbour; most GPUs of several nodes within minutes are the air or the
//! coolant that they share. It is said with the first slowdown for heat on enough nodes, and it explains what follows:
//! throttling, lost GPUs, and nodes that shut down.

use std::collections::{BTreeMap, BTreeSet};

use entrenar::gpu::NodeId;
use entrenar::metric::clock_reason;
use entrenar::report::Labels;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, listed};
use super::rules::{Span, require, rule};
use super::sample::Sample;
use super::{Evidence, Finding};

rule! {
    /// Several nodes get too hot at about the same time.
    CoolingFailureRule: CoolingFailure, named "cooling_failure", Critical, true;
    /// At least so many nodes
    nodes: u32 = 3;
    /// got hot within this time of each other.
    within: Span = Span::secs(300);
    /// A node is hot when at least this share of its GPUs is,
    gpu_share: f64 = 0.5;
    /// and a GPU is when it slows down for heat, or its margin to the slowdown point is not above this,
    margin_celsius: i64 = 0;
    /// or, where it reports neither, when it is this warm.
    celsius: i64 = 87;
    /// How long all of them must be cool for it to be over.
    settle: Span = Span::secs(600);
    => |this| {
        require((2..=1000).contains(&this.nodes), "nodes", "write a number from 2 to 1000: one hot node is no cooling failure")?;
        let can_be = this.gpu_share > 0.0 && this.gpu_share <= 1.0;
        require(can_be, "gpu_share", "write a share above 0 and up to 1")
    }
}

/// A hot tick counts for so long: software slowdown comes and goes.
const STANDS_MS: i64 = 30_000;
/// The same in sampling intervals, where those are long.
const STANDS_INTERVALS: i64 = 3;

/// Whether a GPU's tick is hot; `None`: it does not say.
pub(super) fn is_hot(sample: &Sample, rule: &CoolingFailureRule) -> Option<bool> {
    let slows = sample
        .clock_reasons
        .map(|bits| bits & (clock_reason::HW_THERMAL | clock_reason::SW_THERMAL) != 0);
    let spent = sample
        .margin_celsius
        .map(|margin| margin <= rule.margin_celsius);
    match (slows, spent) {
        (None, None) => sample.celsius.map(|celsius| celsius >= rule.celsius),
        (slows, spent) => Some(slows.unwrap_or(false) || spent.unwrap_or(false)),
    }
}

/// How long a hot tick counts.
pub(super) fn stands_ms(interval_ms: i64) -> i64 {
    STANDS_MS.max(STANDS_INTERVALS * interval_ms)
}

/// A node that is hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HotNode {
    pub(super) since: Timestamp,
    pub(super) last: Timestamp,
}

/// Nodes that are hot, and those that were told of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cooling {
    hot: BTreeMap<NodeId, HotNode>,
    /// What was told, while it is up.
    pub(super) told: Option<Told>,
}

/// A cooling failure that is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) group: String,
    pub(super) nodes: BTreeSet<NodeId>,
}

impl Cooling {
    /// Most GPUs of a node are hot.
    pub(super) fn note(&mut self, at: Timestamp, id: &NodeId) {
        let node = self.hot.entry(id.clone()).or_insert(HotNode {
            since: at,
            last: at,
        });
        node.last = node.last.max(at);
    }

    /// Forgets the nodes that have been cool for long. `stays`: nothing new is known of a node.
    pub(super) fn settle(
        &mut self,
        now: Timestamp,
        rule: &CoolingFailureRule,
        stays: impl Fn(&NodeId) -> bool,
    ) {
        let settle_ms = rule.settle.millis();
        self.hot
            .retain(|id, node| now.0 - node.last.0 < settle_ms || stays(id));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hot.is_empty()
    }

    pub(super) fn forget(&mut self, id: &NodeId) {
        self.hot.remove(id);
    }

    /// Nodes that got hot together, if they are enough; with those that followed. `None`: too few.
    pub(super) fn together(
        &self,
        rule: &CoolingFailureRule,
        is_hot_now: impl Fn(&NodeId, HotNode) -> bool,
    ) -> Option<(Timestamp, BTreeSet<NodeId>)> {
        let mut hot: Vec<(Timestamp, &NodeId)> = self
            .hot
            .iter()
            .filter(|(id, node)| is_hot_now(id, **node))
            .map(|(id, node)| (node.since, id))
            .collect();
        hot.sort();
        let n = rule.nodes as usize;
        let within = |group: &[(Timestamp, &NodeId)]| {
            group[n - 1].0.0 - group[0].0.0 <= rule.within.millis()
        };
        let first = hot.windows(n).position(within)?;
        let nodes = hot[first..].iter().map(|(_, id)| (*id).clone()).collect();
        Some((hot[first].0, nodes))
    }
}

/// What is said of them.
pub(super) fn cooling_finding(
    group: &str,
    nodes: &BTreeSet<NodeId>,
    rule: &CoolingFailureRule,
) -> Finding {
    let n = nodes.len();
    let summary = format!("{n} nodes slow down for heat together ({group}): their cooling fails");
    let action = "Look at what cools these nodes: air handler, coolant pump and flow, doors, the room. Drain them before \
                  they shut down.";
    finding(rule, &Labels::new(), summary, action)
        .with(Evidence::new("nodes", listed(nodes.iter())))
        .with(
            Evidence::new("hot nodes", n.to_string())
                .against(format!("{} within {}", rule.nodes, rule.within)),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_that_got_hot_within_minutes_of_each_other_belong_together() {
        let rule = CoolingFailureRule::default();
        let check = |minutes: &[i64], expected: Option<usize>| {
            let mut cooling = Cooling::default();
            for (n, minute) in minutes.iter().enumerate() {
                let id = NodeId::from(format!("n{n}").as_str());
                cooling.note(Timestamp::from_secs(minute * 60), &id);
            }
            let found = cooling.together(&rule, |_, _| true);
            assert_eq!(found.map(|(_, nodes)| nodes.len()), expected, "{minutes:?}");
        };
        check(&[0, 1], None);
        check(&[0, 2, 4], Some(3));
        check(&[0, 6, 12], None);
        check(&[0, 10, 11, 12, 19], Some(4));
    }
}
