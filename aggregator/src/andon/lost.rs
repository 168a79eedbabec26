//! GpuLost: a GPU is no longer there, or not before a reset, while its node lives. *(pure)*
//!
//! The driver says so for two ticks, or the GPU is missing from the node's inventory, or an XID says that it has
//! fallen off the bus: then at once.

use std::time::Duration;

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::metric::NvmlStatus;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// A GPU is no longer there, or not before a reset, while its node lives.
    GpuLostRule: GpuLost, named "gpu_lost", Critical, true;
    /// How many ticks in a row the driver must say so.
    ticks: u32 = 2;
    /// How long nothing must come of it while the others of its node report, over two ticks at least.
    absent_hold: Span = Span::secs(3);
    /// How long the GPU must answer again.
    settle: Span = Span::secs(120);
    => |this| {
        require((1..=60).contains(&this.ticks), "ticks", "write a number from 1 to 60")
    }
}

/// What is remembered of a GPU's being there.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct LostState {
    cord: Cord,
    why: Option<Why>,
}

/// How it is known that a GPU is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    FellOff,
    NeedsReset,
    NotEnumerated,
    Absent,
    Xid(u64),
}

impl Why {
    /// From the driver's status; `None`: the GPU is not lost by it.
    pub(super) fn from_status(status: NvmlStatus) -> Option<Self> {
        match status {
            NvmlStatus::GpuIsLost => Some(Self::FellOff),
            NvmlStatus::ResetRequired => Some(Self::NeedsReset),
            NvmlStatus::NotFound => Some(Self::NotEnumerated),
            NvmlStatus::Ok | NvmlStatus::Timeout | NvmlStatus::Unknown => None,
        }
    }

    fn words(self) -> String {
        match self {
            Self::FellOff => "has fallen off the bus".into(),
            Self::NeedsReset => "must be reset before it can be used".into(),
            Self::NotEnumerated => "is no longer listed by its driver".into(),
            Self::Absent => "is no longer reported, while the others of its node are".into(),
            Self::Xid(code) => format!("is lost: the driver logged XID {code}"),
        }
    }

    fn evidence(self) -> Evidence {
        match self {
            Self::FellOff => Evidence::new("NVML status", "GPU_IS_LOST"),
            Self::NeedsReset => Evidence::new("NVML status", "RESET_REQUIRED"),
            Self::NotEnumerated => Evidence::new("NVML status", "NOT_FOUND"),
            Self::Absent => Evidence::new("reports", "none"),
            Self::Xid(code) => Evidence::new("XID", code.to_string()),
        }
    }
}

impl Watch for LostState {
    type Rule = GpuLostRule;
    const NEEDS_DATA: bool = false;

    fn observe(&mut self, look: &Look<'_>, rule: &GpuLostRule) -> Option<Change> {
        let (status, interval) = (look.status, look.interval);
        let verdict = match Why::from_status(status) {
            // Firmware that hangs keeps the driver from listing it.
            Some(_) if look.is_absent && look.hangs => Verdict::Between,
            Some(_) if look.is_absent => {
                self.why = Some(Why::Absent);
                Verdict::Unwelcome
            }
            Some(why) => {
                self.why = Some(why);
                Verdict::Unwelcome
            }
            None if status == NvmlStatus::Ok => Verdict::Fine,
            None => Verdict::Between,
        };
        let patience = Patience {
            // The first of the ticks begins the hold; a tick may come half an interval early.
            hold: if look.is_absent {
                // It has been waited for already.
                Duration::ZERO
            } else {
                (interval * rule.ticks.saturating_sub(1)).saturating_sub(interval / 2)
            },
            settle: rule.settle.0,
        };
        let change = self.cord.observe(look.at, verdict, patience, interval);
        change.map(Change::from)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &GpuLostRule) -> Finding {
        let gpu = tell.gpu;
        let why = self.why.unwrap_or(Why::FellOff);
        let summary = format!("{} {}", gpu_on_node(gpu), why.words());
        let action = match why {
            Why::NeedsReset => {
                "Drain the GPU and reset it (`nvidia-smi --gpu-reset`); reboot the node if that fails."
            }
            _ => {
                "Drain the node and reboot it. If it happens again within 30 days, check its PCIe seat and power, \
                 then have the board replaced."
            }
        };
        let mut found = finding(rule, tell.labels, summary, action).with(why.evidence());
        found.culprits.push(gpu.clone());
        found
    }
}

impl LostState {
    /// It is known for certain. `None` when it was known already.
    pub(super) fn lose(&mut self, at: Timestamp, why: Why) -> Option<Change> {
        if self.cord.is_raised() {
            return None;
        }
        self.why = Some(why);
        self.cord = Cord::raised(at);
        Some(Change::Raised)
    }
}
