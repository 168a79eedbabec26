//! GpuUnresponsive: calls for a GPU do not come back. *(pure)*
//!
//! One GPU alone: its own firmware hangs. All GPUs of a node: the driver hangs, and that is one finding on the node.

use entrenar::andon::{Cord, CordChange, Patience, Verdict};
use entrenar::metric::NvmlStatus;
use entrenar::report::Labels;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node, lasting};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};
use entrenar::gpu::NodeId;

rule! {
    /// Calls for a GPU do not come back.
    GpuUnresponsiveRule: GpuUnresponsive, named "gpu_unresponsive", Critical, true;
    /// How long its calls must have timed out, over two ticks at least.
    hold: Span = Span::secs(5);
    /// How long its calls must have failed with an error that says nothing.
    unknown_hold: Span = Span::secs(30);
    /// How long a driver's word (XID 119, 120) that its firmware hangs stands, even if it answers.
    xid_stands: Span = Span::secs(600);
    /// How many ticks in a row it must answer.
    good_ticks: u32 = 5;
    => |this| {
        let can_be = this.unknown_hold >= this.hold;
        require(can_be, "unknown_hold", "write at least as long as hold: it is the weaker sign")?;
        require((1..=1000).contains(&this.good_ticks), "good_ticks", "write a number from 1 to 1000")
    }
}

/// Codes of the driver for firmware (GSP) that does not answer.
pub(super) const GSP_XIDS: [u64; 2] = [119, 120];

/// What is remembered of a GPU's answers.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct UnresponsiveState {
    cord: Cord,
    stalled: bool,
    /// The driver said that its firmware hangs: when, and by which code.
    said: Option<(Timestamp, u64)>,
}

impl Watch for UnresponsiveState {
    type Rule = GpuUnresponsiveRule;
    const NEEDS_DATA: bool = false;

    fn observe(&mut self, look: &Look<'_>, rule: &GpuUnresponsiveRule) -> Option<Change> {
        let (status, interval) = (look.status, look.interval);
        let slow = look.sample.latency_us >= Some(rule.hold.0.as_micros() as i64);
        let hangs = look.is_absent && look.hangs;
        self.stalled = slow || hangs || matches!(status, NvmlStatus::Timeout | NvmlStatus::Unknown);
        let stands = self
            .said
            .is_some_and(|(at, _)| look.at.since(at) < rule.xid_stands.0);
        let verdict = if self.stalled {
            Verdict::Unwelcome
        } else if stands {
            Verdict::Between
        } else {
            Verdict::Fine
        };
        let hold = if status == NvmlStatus::Unknown {
            rule.unknown_hold.0
        } else {
            rule.hold.0
        };
        let patience = Patience {
            // Two ticks at least, however far apart they are.
            hold: hold.max(interval / 2),
            settle: interval * rule.good_ticks.saturating_sub(1),
        };
        let change = self.cord.observe(look.at, verdict, patience, interval);
        if change == Some(CordChange::Cleared) {
            self.said = None;
        }
        change.map(Change::from)
    }

    fn hear(&mut self, at: Timestamp, xid: u64, _: &GpuUnresponsiveRule) -> Option<Change> {
        if !GSP_XIDS.contains(&xid) {
            return None;
        }
        let is_known = self.said.replace((at, xid)).is_some();
        if self.cord.is_raised() {
            return (!is_known).then_some(Change::Updated);
        }
        self.cord = Cord::raised(at);
        Some(Change::Raised)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &GpuUnresponsiveRule) -> Finding {
        let (at, gpu) = (tell.at, tell.gpu);
        let lasts = at.0 - self.started_at(at).0;
        let summary = match self.said {
            Some((_, xid)) if !self.stalled => format!(
                "The firmware of {} does not answer its driver: XID {xid}",
                gpu_on_node(gpu)
            ),
            _ => format!(
                "{} has not answered for {}",
                gpu_on_node(gpu),
                lasting(lasts)
            ),
        };
        let action = "Its firmware (GSP) may hang. Drain the node, reset the GPU, and reboot the node if the reset \
                      does not come back.";
        let mut found = finding(rule, tell.labels, summary, action)
            .with(Evidence::new("no answer for", lasting(lasts)).against(rule.hold.to_string()));
        found = found.with_some(
            self.said
                .map(|(_, xid)| Evidence::new("XID", xid.to_string())),
        );
        found.culprits.push(gpu.clone());
        found = found.missing_if(self.stalled, "every metric of this GPU");
        found
    }
}

impl UnresponsiveState {
    /// Whether the last tick's calls did not come back.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub(super) fn is_raised(&self) -> bool {
        self.cord.is_raised()
    }
}

/// The same for a node of which no GPU answers.
pub(super) fn node_finding(
    node: &NodeId,
    gpus: usize,
    labels: &Labels,
    rule: &GpuUnresponsiveRule,
) -> Finding {
    let summary = format!("None of the {gpus} GPUs of {node} answers: its driver hangs");
    let action = "Look at the kernel's log for NVRM errors, drain the node and reboot it.";
    let mut found = finding(rule, labels, summary, action).with(Evidence::new(
        "GPUs without an answer",
        format!("{gpus} of {gpus}"),
    ));
    found
        .missing
        .push("every metric of this node's GPUs".into());
    found
}
