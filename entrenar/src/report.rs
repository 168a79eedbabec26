//! What a node reports, in the order in which it happened: batches of samples, events, and who holds which GPU.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use crate::unit::Timestamp;

/// Labels of a node that the rules know: `rack`, `switch`, `power_feed`. Others are free.
pub type Labels = BTreeMap<String, String>;

/// 128 random bits, born with a spool directory. Sequence numbers are unbroken inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

/// The GPUs of a node, in the order in which a batch lists them. A change makes a new generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Counts up inside a stream.
    pub generation: u32,
    /// Each GPU; its place here is its place in a batch.
    pub gpus: Vec<GpuInfo>,
}

/// The first word of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which sequence the numbers belong to.
    pub stream: StreamId,
    /// Who speaks.
    pub node: NodeId,
    /// Where it hangs, and what else its owner says of it.
    pub labels: Labels,
    /// Every inventory that a kept record refers to, oldest first; the last is the present one.
    pub inventories: Vec<Inventory>,
    /// Version of the agent.
    pub agent_version: String,
    /// Version of the driver, where there is one.
    pub driver_version: Option<String>,
    /// Sampling interval in milliseconds, at least 1.
    pub interval_ms: u32,
    /// Ticks in a message, at least 1.
    pub batch_ticks: u32,
    /// Oldest record that the agent can still send. Anything older is gone.
    pub first_seq: u64,
    /// The number that the next new record will have.
    pub next_seq: u64,
}

/// A numbered piece of a node's story.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Unbroken inside a stream, from 1.
    pub seq: u64,
    /// What happened.
    pub body: Body,
}

/// What a record can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Samples.
    Batch(Batch),
    /// A GPU, or the driver, reported something.
    Event(GpuEvent),
    /// A GPU was taken, given back, or changed hands.
    Holder(HolderChange),
    /// The GPUs of the node changed.
    Inventory(Inventory),
}

/// One instant at which a node was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The agent's wall clock.
    pub at: Timestamp,
    /// The agent's monotonic clock, in milliseconds.
    pub monotonic_ms: u64,
}

/// The samples of a node's GPUs at one or more ticks.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Generation of the inventory that gives the order of GPUs.
    pub generation: u32,
    /// How many GPUs that inventory has.
    pub gpus: u32,
    /// Ticks that were due since the last batch and are lost: missed, or dropped from a full spool.
    pub n_lost: u64,
    /// When, oldest first.
    pub ticks: Vec<Tick>,
    /// `ticks.len() * gpus` rows: all GPUs of the first tick, then of the second. An empty row: no sample.
    pub rows: Vec<Values>,
}

impl Batch {
    /// The rows of one tick, a row per GPU in inventory order.
    pub fn tick_rows(&self, tick: usize) -> &[Values] {
        let gpus = self.gpus as usize;
        &self.rows[tick * gpus..(tick + 1) * gpus]
    }
}

/// Something that happened to a GPU at an instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuEvent {
    /// The agent's wall clock.
    pub at: Timestamp,
    /// Which GPU; `None` when the driver did not say.
    pub gpu: Option<GpuUuid>,
    /// What.
    pub what: GpuEventKind,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuEventKind {
    /// NVIDIA's error code, as the driver logs it.
    Xid(u64),
}

/// What kind of work a job does, where its scheduler or a label says so.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Not said.
    #[default]
    Unknown,
    /// Training: ranks move together.
    Train,
    /// Serving: idle by right.
    Inference,
    /// A person's notebook or shell.
    Interactive,
}

impl JobKind {
    /// The word in a trace: `train`, `inference`, `interactive`, or nothing.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Train => "train",
            Self::Inference => "inference",
            Self::Interactive => "interactive",
        }
    }

    /// From the word in a trace; anything else is unknown.
    pub fn from_name(name: &str) -> Self {
        match name {
            "train" => Self::Train,
            "inference" => Self::Inference,
            "interactive" => Self::Interactive,
            _ => Self::Unknown,
        }
    }
}

/// Who holds a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The job's id: the scheduler's, else the pod's, container's or user's process.
    pub job: String,
    /// What kind of work it is.
    pub kind: JobKind,
    /// Pipeline stage or parallel group, where known.
    pub rank_group: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Kubernetes pod, by uid or name.
    pub pod: Option<String>,
    /// Container id or name.
    pub container: Option<String>,
    /// Owner of the processes.
    pub user: Option<String>,
    /// Processes on the GPU, at most 64.
    pub pids: Vec<u32>,
}

/// The holder of a GPU from an instant on; `None`: nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderChange {
    /// When, by the agent's wall clock.
    pub at: Timestamp,
    /// Which GPU.
    pub gpu: GpuUuid,
    /// Who now; `None` when it was given back.
    pub holder: Option<Holder>,
}
