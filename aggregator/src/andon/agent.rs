//! MonitoringFault of one node: its agent is silent while its jobs work on. *(pure)*
//!
//! The peers of a node's jobs cannot work without it: as long as they do, the node is fine and only its agent is not.
//! That is work for the day, not a call.

use std::collections::BTreeSet;

use entrenar::gpu::NodeId;
use entrenar::report::Labels;

use super::finding::{finding, lasting, listed};
use super::rules::{Span, require, rule};
use super::witness::Witness;
use super::{Evidence, Finding};

rule! {
    /// An agent is silent while its node's jobs work on.
    AgentSilentRule: MonitoringFault, named "agent_silent", Warning, true;
    /// How long, beside two sampling intervals: an upgrade of agents takes less.
    after: Span = Span::secs(60);
    => |this| {
        require(this.after >= Span::secs(5), "after", "write at least 5s: an agent that restarts is silent for a while")
    }
}

/// What is said of the agents of these nodes.
pub(super) fn agent_finding(
    nodes: &BTreeSet<NodeId>,
    labels: &Labels,
    silence_ms: i64,
    rule: &AgentSilentRule,
) -> Finding {
    let lasts = lasting(silence_ms);
    let summary = match nodes.first() {
        Some(node) if nodes.len() == 1 => {
            format!("The agent on {node} is silent for {lasts}, and its node's jobs work on")
        }
        _ => format!(
            "The agents on {} nodes are silent for {lasts}, and their nodes' jobs work on",
            nodes.len()
        ),
    };
    let action = "Look at the agent: `systemctl status entrenar-agent`, its log, and the way from it to the aggregator.";
    finding(rule, labels, summary, action)
        .with(Evidence::new("nodes", listed(nodes.iter())))
        .with(Evidence::new("silent for", lasts).against(rule.after.to_string()))
        .with(Evidence::new("peers", Witness::GoesOn.words()))
        .missing_if(true, "everything about these nodes since then")
}
