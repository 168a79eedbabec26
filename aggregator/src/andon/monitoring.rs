//! MonitoringFault: it is the watching that is in trouble, not the fleet. *(pure)*
//!
//! Many nodes silent at once are more likely a cut between them and us: they are held as one finding for a while before
//! they are called lost. A clock that is far off, and a time in which the aggregator itself did not watch, are said too.

use std::collections::BTreeSet;

use entrenar::gpu::NodeId;
use entrenar::report::Labels;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, lasting, listed};
use super::fleet::Fleet;
use super::rules::{Span, require, rule};
use super::{Evidence, Finding, Severity};

rule! {
    /// It is the watching that is in trouble, not the fleet.
    MonitoringFaultRule: MonitoringFault, named "monitoring_fault", Info, true;
    /// At least this many nodes silent at once are held as one finding,
    nodes: u32 = 3;
    /// if they are at least this share of the fleet,
    share: f64 = 0.1;
    /// and fell silent within this time of each other.
    within: Span = Span::secs(10);
    /// How long they are held before they are called lost.
    hold: Span = Span::secs(60);
    /// From this length on it is worth a look in working hours,
    lasting: Span = Span::secs(45);
    /// that is, so much.
    lasting_severity: Severity = Severity::Warning;
    /// With at least this share of the fleet silent, it is never the nodes, however long it lasts;
    blind_share: f64 = 0.9;
    /// but after this it calls someone: nobody watches.
    blind: Span = Span::secs(900);
    /// A clock that is off by more than this is a finding.
    clock_offset: Span = Span::secs(30);
    /// How much that matters.
    clock_severity: Severity = Severity::Warning;
    /// A time longer than this in which the aggregator did not watch counts as a new start.
    own_outage: Span = Span::secs(15);
    => |this| {
        require((2..=100_000).contains(&this.nodes), "nodes", "write a number from 2 on: one silent node is a lost node")?;
        let can_be = this.share > 0.0 && this.share <= 1.0;
        require(can_be, "share", "write a share above 0 and up to 1")?;
        let can_be = this.blind_share > 0.0 && this.blind_share <= 1.0;
        require(can_be, "blind_share", "write a share above 0 and up to 1")?;
        require(this.clock_offset >= Span::secs(1), "clock_offset", "write at least 1s")?;
        require(this.own_outage >= Span::secs(2), "own_outage", "write at least 2s")
    }
}

/// Nodes whose silence is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blackout {
    /// When they are judged.
    pub(super) until: Timestamp,
    /// When the first of them fell silent.
    #[serde(default)]
    pub(super) since: Timestamp,
    /// When their peers were last asked.
    #[serde(default)]
    pub(super) asked_at: Timestamp,
    /// How much it was said to matter.
    #[serde(default = "info")]
    pub(super) told: Severity,
}

const fn info() -> Severity {
    Severity::Info
}

impl MonitoringFaultRule {
    /// How much it matters after a while.
    pub(super) fn severity_after(&self, lasts_ms: i64, is_blind: bool) -> Severity {
        if is_blind && lasts_ms >= self.blind.millis() {
            Severity::Critical
        } else if lasts_ms >= self.lasting.millis() {
            self.severity.max(self.lasting_severity)
        } else {
            self.severity
        }
    }
}

/// Whether so many silent nodes are rather a fault of the monitoring.
pub(super) fn is_blackout(silent: usize, fleet: &Fleet, rule: &MonitoringFaultRule) -> bool {
    let nodes = fleet.nodes.values();
    let expected = nodes
        .filter(|node| node.presence != super::Presence::Gone && !node.maintenance)
        .count();
    rule.enabled && silent >= rule.nodes as usize && silent as f64 >= expected as f64 * rule.share
}

/// What is said while they are held.
pub(super) fn blackout_finding(
    silent: &BTreeSet<NodeId>,
    expected: usize,
    rule: &MonitoringFaultRule,
) -> Finding {
    let n = silent.len();
    let summary = format!(
        "{n} of {expected} nodes fell silent at once: rather the network or the aggregator than the nodes"
    );
    let action = "Look at the network between the nodes and the aggregator. If they stay silent, they are reported as \
                  lost, once.";
    finding(rule, &Labels::new(), summary, action)
        .with(
            Evidence::new("silent nodes", format!("{n} of {expected}")).against(format!(
                "{} and {:.0} %",
                rule.nodes,
                rule.share * 100.0
            )),
        )
        .with(Evidence::new("nodes", listed(silent.iter())))
        .with(Evidence::new("held for", rule.hold.to_string()))
        .missing_if(true, "everything about these nodes")
}

/// What is said when the aggregator has not watched for a while.
pub(super) fn outage_finding(away_ms: i64, rule: &MonitoringFaultRule) -> Finding {
    let summary = if away_ms >= 0 {
        format!("The aggregator did not watch for {}", lasting(away_ms))
    } else {
        format!("The aggregator's clock went back by {}", lasting(-away_ms))
    };
    let action =
        "Nothing to do if it was restarted. Else look at its load, its disk and its host's clock.";
    finding(rule, &Labels::new(), summary, action)
        .with(
            Evidence::new("not watched for", lasting(away_ms.abs()))
                .against(rule.own_outage.to_string()),
        )
        .missing_if(true, "what agents could not deliver yet")
}

/// What is said of a node whose clock is off.
pub(super) fn clock_finding(
    node: &NodeId,
    labels: &Labels,
    offset_ms: i64,
    rule: &MonitoringFaultRule,
) -> Finding {
    let off = lasting(offset_ms.abs());
    let summary = format!("The clock of {node} is off by {off}: its samples are corrected");
    let action = "Start time synchronisation on the node (chrony, systemd-timesyncd).";
    finding(rule, labels, summary, action)
        .with(Evidence::new("clock offset", off).against(rule.clock_offset.to_string()))
}
