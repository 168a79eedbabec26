//! What the line looks like from outside: copies that the web side may keep and render at its leisure.

use std::time::Duration;

use entrenar::gpu::{NodeId, Values};
use entrenar::report::{Holder, JobKind, Labels};
use entrenar::unit::Timestamp;

use crate::andon::{GpuAt, Light, Presence};

/// A node as it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: NodeId,
    pub light: Light,
    pub presence: Presence,
    /// When something last arrived from it, by our clock.
    pub last_received_at: Option<Timestamp>,
    /// Its newest tick, corrected for its clock.
    pub sampled_at: Option<Timestamp>,
    pub agent_version: Option<String>,
    pub driver_version: Option<String>,
    pub labels: Labels,
    pub gpu_count: usize,
    /// Its clock minus ours, smallest of the last minute; `None` before the first message.
    pub clock_offset_ms: Option<i64>,
}

/// A GPU as it stands.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub at: GpuAt,
    pub name: String,
    pub light: Light,
    pub holder: Option<Holder>,
    pub sampled_at: Option<Timestamp>,
    /// How often its agent samples.
    pub interval: Duration,
    pub values: Values,
}

/// A job as it stands.
#[derive(Clone, Debug)]
pub struct Job {
    pub job: String,
    pub kind: JobKind,
    pub gpus: Vec<GpuAt>,
    pub light: Light,
    pub started_at: Option<Timestamp>,
    pub state: String,
}
