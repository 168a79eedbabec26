//! What watches a GPU: every detector of one device behind one trait, and all of them in one struct. *(pure)*
//!
//! A new detector is a file with a rule and a state that is a [`Watch`], a line in `watches!` below, and a line for its
//! rule in the rule set.

use std::time::Duration;

use entrenar::andon::CordChange;
use entrenar::metric::NvmlStatus;
use entrenar::report::{JobKind, Labels};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::effort::Effort;
use super::peers::Peers;
use super::recent::Recent;
use super::rules::{Rule, RuleSet};
use super::sample::Sample;
use super::{Change, Finding, GpuAt, Kind, Resolution, RuleUid, Severity};

/// One detector's state on one GPU.
pub(super) trait Watch: Default {
    /// The parameters that it goes by.
    type Rule: Rule;
    /// Whether it judges what the GPU itself reports: without data it is then unknown, and it is asked only about rows
    /// of which the device calls went well.
    const NEEDS_DATA: bool = true;

    /// Looks at a row.
    fn observe(&mut self, look: &Look<'_>, rule: &Self::Rule) -> Option<Change>;

    /// Hears of an error code that the driver logged for this GPU.
    fn hear(&mut self, _at: Timestamp, _xid: u64, _rule: &Self::Rule) -> Option<Change> {
        None
    }

    /// How much its finding matters now.
    fn severity(&self, rule: &Self::Rule) -> Severity {
        rule.severity()
    }

    /// When, by the evidence, the trouble began; `at` if there is none.
    fn started_at(&self, at: Timestamp) -> Timestamp;

    /// What people will read.
    fn finding(&self, tell: &Telling<'_>, rule: &Self::Rule) -> Finding;
}

/// A row of a GPU, with what is known around it.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    /// Event time.
    pub(super) at: Timestamp,
    pub(super) interval: Duration,
    pub(super) status: NvmlStatus,
    pub(super) sample: &'a Sample,
    /// Nothing came of it, while the others of its node reported.
    pub(super) is_absent: bool,
    /// Its firmware was seen to hang a moment ago: by an error code, or by calls that took seconds.
    pub(super) hangs: bool,
    /// It gets something done.
    pub(super) is_working: bool,
    /// Mean over seconds where the energy counter tells it, else of this instant.
    pub(super) power_mw: Option<i64>,
    /// A scheduler or a process is known to hold it, and since when it has its holder.
    pub(super) is_held: bool,
    pub(super) held_since: Option<Timestamp>,
    /// Of the job that holds it.
    pub(super) kind: Option<JobKind>,
    /// A MIG instance.
    pub(super) is_partition: bool,
    /// The GPUs of its node, where all are of one model.
    pub(super) peers: Peers,
    /// Its driver was reloaded, or it was reset, since the last row.
    pub(super) was_reset: bool,
}

impl Look<'_> {
    pub(super) fn interval_ms(&self) -> i64 {
        self.interval.as_millis() as i64
    }
}

/// What a finding is told of.
#[derive(Clone, Copy)]
pub(super) struct Telling<'a> {
    pub(super) at: Timestamp,
    pub(super) interval: Duration,
    pub(super) gpu: &'a GpuAt,
    /// The node's.
    pub(super) labels: &'a Labels,
    pub(super) recent: &'a Recent,
}

/// A cord of a GPU has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal {
    pub(super) kind: Kind,
    pub(super) change: Change,
}

/// What is to be told of a cord: rule, severity, beginning, finding.
pub(super) type Said = (RuleUid, Severity, Timestamp, Finding);

macro_rules! watches {
    ($($(#[$doc:meta])* $field:ident: $state:ty;)*) => {
        /// All watches of a GPU. The rule of each has the field's name in the rule set.
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub(super) struct Watches {
            $($(#[$doc])* pub(super) $field: $state,)*
        }

        impl Watches {
            /// Each that must look at a row does. What they say is added to `said`.
            pub(super) fn observe(
                &mut self,
                look: &Look<'_>,
                effort: Effort,
                rules: &RuleSet,
                said: &mut Vec<Signal>,
            ) {
                let answers = look.status == NvmlStatus::Ok;
                $(if rules.$field.enabled
                    && (answers || !<$state as Watch>::NEEDS_DATA)
                    && effort.admits(kind_of::<$state>(), rules.$field.severity())
                {
                    let change = self.$field.observe(look, &rules.$field);
                    said.extend(change.map(|change| Signal { kind: kind_of::<$state>(), change }));
                })*
            }

            /// Each hears of an error code.
            pub(super) fn hear(&mut self, at: Timestamp, xid: u64, rules: &RuleSet, said: &mut Vec<Signal>) {
                $(if rules.$field.enabled {
                    let change = self.$field.hear(at, xid, &rules.$field);
                    said.extend(change.map(|change| Signal { kind: kind_of::<$state>(), change }));
                })*
            }

            /// What the watch of a kind has to say; `None`: no watch of a GPU has that kind.
            pub(super) fn describe(&self, kind: Kind, tell: &Telling<'_>, rules: &RuleSet) -> Option<Said> {
                $(if kind == kind_of::<$state>() {
                    return Some(said_by(&self.$field, tell, &rules.$field));
                })*
                None
            }

            /// Forgets what the watch of a kind remembers: its rule was switched off.
            pub(super) fn reset(&mut self, kind: Kind) {
                $(if kind == kind_of::<$state>() {
                    self.$field = <$state>::default();
                })*
            }
        }

        /// Whether a kind is judged by what the GPU itself reports.
        pub(super) fn needs_data(kind: Kind) -> bool {
            $((kind == kind_of::<$state>() && <$state as Watch>::NEEDS_DATA))||*
        }
    };
}

// In the order in which they look: what explains others comes first.
watches! {
    gpu_lost: super::lost::LostState;
    gpu_unresponsive: super::unresponsive::UnresponsiveState;
    /// Fed by events; it takes note of resets.
    xid: super::xid::XidState;
    ecc_uncorrectable: super::ecc::EccState;
    row_remap: super::remap::RemapState;
    ecc_storm: super::ecc::EccStormState;
    nvlink_error: super::nvlink::NvlinkState;
    pcie_degraded: super::pcie::PcieState;
    power_brake: super::brake::BrakeState;
    thermal_throttling: super::thermal::ThermalState;
    thermal_drift: super::drift::DriftState;
    power_cap_loss: super::power_cap::PowerCapState;
    power_limit: super::power::PowerState;
    memory_pressure: super::memory::MemoryState;
    memory_leak: super::leak::LeakState;
    sensor_fault: super::sensor::SensorState;
    zombie_gpu: super::zombie::ZombieState;
    repeat_offender: super::repeat::RepeatState;
}

const fn kind_of<W: Watch>() -> Kind {
    <W::Rule as Rule>::KIND
}

fn said_by<W: Watch>(watch: &W, tell: &Telling<'_>, rule: &W::Rule) -> Said {
    (
        rule.uid(),
        watch.severity(rule),
        watch.started_at(tell.at),
        watch.finding(tell, rule),
    )
}

impl From<CordChange> for Change {
    fn from(change: CordChange) -> Self {
        match change {
            CordChange::Raised => Self::Raised,
            CordChange::Recovering => Self::Recovering,
            CordChange::Relapsed => Self::Relapsed,
            CordChange::Cleared => Self::Cleared {
                why: Resolution::Recovered,
            },
        }
    }
}
