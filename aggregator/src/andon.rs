//! What the engine says: transitions of cords, each with the finding that people will read.
//!
//! The engine is pure: `observe` and `advance` in, transitions out, no clock and no I/O. Cords are keyed by rule and
//! scope; a scope keys on the GPU's UUID, never on where it sits.
//!
//! How to read the folder: `engine` is the way in, `fleet` is what it remembers of nodes, GPUs and jobs, a file per
//! detector says what is unwelcome, `custom` what people find unwelcome besides, `register` keeps the raised cords, `cause` says which explains which, `rules` is
//! the file that people edit.

mod agent;
mod brake;
mod cause;
mod cooling;
mod counter;
mod custom;
mod drift;
mod ecc;
mod effort;
mod engine;
mod finding;
mod flapping;
mod fleet;
mod gpu;
mod job;
mod latch;
mod leak;
mod lost;
mod memory;
mod monitoring;
mod node;
mod nvlink;
mod pcie;
mod peers;
mod power;
mod power_cap;
mod power_levels;
mod pulse;
mod recent;
mod register;
mod remap;
mod repeat;
pub mod rules;
mod sample;
mod sensor;
mod slots;
mod snapshot;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod testing;
mod thermal;
mod unresponsive;
mod watch;
mod witness;
mod xid;
mod zombie;

use std::fmt;
use std::sync::Arc;

pub use entrenar::andon::Light;
use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::report::Labels;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

pub use effort::Effort;
pub use engine::Engine;
pub use fleet::{JobState, JobView};
pub use rules::{RuleBook, RuleSet, RulesError};
pub use snapshot::SnapshotError;

/// A rule's identity. It survives edits of the rule's text and thresholds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleUid(pub Arc<str>);

impl From<&str> for RuleUid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for RuleUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Declares the classes of trouble, each with its name.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// The class of trouble, as people and the trace scorer name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: [Self; [$(stringify!($kind)),*].len()] = [$(Self::$kind),*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)*
                }
            }
        }
    };
}

kinds! {
    ThermalThrottling,
    MemoryPressure,
    PowerLimit,
    GpuIdle,
    JobHang,
    JobStall,
    StartupStuck,
    Straggler,
    JobSlow,
    PartialUse,
    ZombieGpu,
    ThermalDrift,
    CoolingFailure,
    PowerBrake,
    PowerCapLoss,
    MemoryLeak,
    EccUncorrectable,
    EccStorm,
    RowRemap,
    NvlinkError,
    PcieDegraded,
    Xid,
    GpuLost,
    GpuUnresponsive,
    SensorFault,
    NodeLost,
    NodeFlapping,
    NetworkFault,
    StorageStall,
    MonitoringFault,
    RepeatOffender,
    /// Found by a rule that people wrote; the rule's name says more.
    Custom,
    /// Pulled by a person or a job.
    Manual,
}

/// How much it matters: a record, something for working hours, or a call to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A GPU and where it sat when it was spoken of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GpuAt {
    pub node: NodeId,
    pub device: u32,
    pub uuid: GpuUuid,
}

/// The narrowest thing that a cord watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case")]
pub enum Scope {
    Fleet,
    Node {
        node: NodeId,
    },
    Gpu {
        gpu: GpuAt,
    },
    Job {
        job: String,
        gpus: Vec<GpuAt>,
    },
    /// Several nodes that share a cause: a rack, a switch, a feed, or only the moment.
    Nodes {
        group: String,
        nodes: Vec<NodeId>,
    },
}

impl Scope {
    /// What makes two scopes the same cord: the UUID, the node's name, the job's id, the group's name.
    pub fn key(&self) -> String {
        match self {
            Self::Fleet => "fleet".into(),
            Self::Node { node } => format!("node:{node}"),
            Self::Gpu { gpu } => format!("gpu:{}", gpu.uuid),
            Self::Job { job, .. } => format!("job:{job}"),
            Self::Nodes { group, .. } => format!("nodes:{group}"),
        }
    }
}

/// One rule watching one thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CordKey {
    pub rule: RuleUid,
    /// [`Scope::key`].
    pub scope: String,
}

/// Why a cord is quiet again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// The evidence says so.
    Recovered,
    /// The job or holder that it was about is gone.
    HolderGone,
    /// The node or GPU was taken out of the fleet.
    Decommissioned,
    /// The rule was switched off or removed.
    RuleRemoved,
    /// A cause was found that explains it; the trouble goes on there.
    Explained,
    /// A person closed it.
    Closed,
}

/// What happened to a cord.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// The trouble is real: an incident begins.
    Raised,
    /// Still raised; severity, cause or evidence changed enough to be worth a line.
    Updated,
    /// The evidence is below the clear threshold and the settle time runs.
    Recovering,
    /// It came back before it had settled.
    Relapsed,
    /// Quiet again.
    Cleared { why: Resolution },
    /// Raised, and now without data: unknown is not recovered.
    DataLost,
    /// Data is back; the cord is still raised.
    DataBack,
}

/// A number that people should see, beside what it was held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub name: String,
    /// With its unit: `94 °C`.
    pub value: String,
    /// With its unit; `None` where nothing was exceeded.
    pub threshold: Option<String>,
    /// Recent values in display units, oldest first, at most 60; `None` inside: no sample.
    pub series: Option<Vec<Option<f64>>>,
}

/// What people will read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// One sentence: what, where, with the decisive number.
    pub summary: String,
    /// What to do, for this kind.
    pub action: String,
    pub runbook_url: Option<String>,
    pub evidence: Vec<Evidence>,
    /// Data that would have helped and was not there.
    pub missing: Vec<String>,
    /// Most likely first; empty: unknown.
    pub culprits: Vec<GpuAt>,
    pub labels: Labels,
    /// Job that suffers, where one is known.
    pub job: Option<String>,
}

/// What a cord reports. `at` rises strictly within one cord, so that deciding twice is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    pub rule: RuleUid,
    pub kind: Kind,
    pub scope: Scope,
    pub severity: Severity,
    pub change: Change,
    /// The engine's time.
    pub at: Timestamp,
    /// When, by the evidence, the trouble began.
    pub started_at: Timestamp,
    pub finding: Finding,
    /// The cord that explains this one; such an incident pages nobody.
    pub consequence_of: Option<CordKey>,
    /// Found by a rule that is on trial: recorded, and told to nobody.
    #[serde(default)]
    pub shadow: bool,
}

impl Transition {
    pub fn cord(&self) -> CordKey {
        CordKey {
            rule: self.rule.clone(),
            scope: self.scope.key(),
        }
    }
}

/// How a node stands with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Expected from the stored inventory; not heard of since the start.
    Expected,
    Live,
    /// Late, within its grace.
    Late,
    /// Silent beyond its grace.
    Silent,
    /// Said goodbye.
    Gone,
}
