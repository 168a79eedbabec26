//! A seeded fleet: nodes, GPUs, jobs, physics, faults. *(pure, but for its backend)*
//!
//! The same seed gives the same fleet, second by second, at whatever steps it is looked at. It has run for hours when
//! it starts: boards are warm, counters stand high, jobs have worked. [`SimFleet`] is advanced by its caller;
//! [`SimBackend`] shows one node of it to an agent as if it were hardware.

mod activity;
mod backend;
mod board;
mod catalogue;
mod cycle;
mod effect;
mod fault;
mod feed;
mod gpu;
mod job;
mod layout;
mod level;
mod node;
mod noise;
mod normal;
mod physics;
mod plan;
mod record;
mod scenario;
mod score;
mod stage;
mod strike;
mod traces;

pub use backend::{Gate, SimBackend};
pub use catalogue::{Case, Expect, case, catalogue};
#[cfg(feature = "config")]
pub use fault::parse_faults;
pub use fault::{Fault, FaultFileError, FaultKind, Hang, Target};
pub use feed::{Feed, FeedNode, News, NodeTick, Voice};
pub use job::{JobSpec, Workload};
pub use layout::usual_jobs;
pub use node::{NodeState, SimNode};
pub use normal::{normal_day, normal_fleet};
pub use record::Recorder;
pub use scenario::Scenario;
pub use stage::{Header, Label, LabelSeverity, Model, Place, Setting, Show, Stage};
pub use traces::{Columns, TracePlan, plan_traces};

use std::sync::Arc;

use crate::clock::Clock;
use crate::gpu::NodeId;
use crate::unit::Timestamp;

/// What fleet to simulate.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Nodes, at least 1.
    pub nodes: u32,
    /// GPUs of each node, 1 to 16.
    pub gpus_per_node: u32,
    /// Decides everything that chance decides.
    pub seed: u64,
    /// When the simulation starts.
    pub start: Timestamp,
    /// Who holds which GPUs.
    pub jobs: Vec<JobSpec>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

impl SimConfig {
    /// A fleet with the usual mix of jobs, and nothing that goes wrong.
    pub fn new(nodes: u32, gpus_per_node: u32) -> Self {
        Self {
            nodes,
            gpus_per_node,
            seed: 1,
            start: Timestamp::from_secs(1_700_000_000),
            jobs: usual_jobs(nodes, gpus_per_node),
            faults: Vec::new(),
        }
    }

    /// The same with another seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same with another start.
    #[must_use]
    pub fn start(mut self, start: Timestamp) -> Self {
        self.start = start;
        self
    }

    /// The same with other jobs.
    #[must_use]
    pub fn jobs(mut self, jobs: Vec<JobSpec>) -> Self {
        self.jobs = jobs;
        self
    }

    /// The same with these faults.
    #[must_use]
    pub fn faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self
    }
}

/// Why a fleet cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// No node, no GPU, or too many GPUs.
    #[error("a simulated fleet has at least 1 node, and 1 to 16 GPUs on each")]
    Size,
    /// A job names a GPU that the fleet does not have.
    #[error("job {job} wants GPU {gpu} of node {node}, which this fleet does not have")]
    JobOutside {
        /// The job.
        job: String,
        /// The node.
        node: String,
        /// Index on the node.
        gpu: u32,
    },
    /// Two jobs name the same GPU.
    #[error("job {job} wants GPU {gpu} of node {node}, which another job holds")]
    GpuTakenTwice {
        /// The second job.
        job: String,
        /// The node.
        node: String,
        /// Index on the node.
        gpu: u32,
    },
    /// A fault strikes something that the fleet does not have.
    #[error("a fault strikes {target}, which this fleet does not have: correct the fault file")]
    FaultOutside {
        /// What it strikes.
        target: String,
    },
    /// A fault of this kind strikes something else: a GPU, a node or a job.
    #[error("a fault of kind {kind} cannot strike {target}: give it the target that its kind has")]
    FaultMisplaced {
        /// The kind.
        kind: &'static str,
        /// What it strikes.
        target: String,
    },
    /// A fault needs a job where none is.
    #[error("a fault strikes {target}, which nobody holds: choose a GPU that a job holds")]
    NobodyHolds {
        /// What it strikes.
        target: String,
    },
}

/// Most GPUs of a simulated node.
const MOST_GPUS_A_NODE: u32 = 16;

/// Name of the n-th node, counted from 0: `n01`, `n02`, …
pub fn node_name(node: u32) -> String {
    format!("n{:02}", node + 1)
}

/// A simulated fleet. Its nodes live independently of each other: each may be at its own instant.
#[derive(Clone, Debug)]
pub struct SimFleet {
    start: Timestamp,
    nodes: Vec<SimNode>,
}

impl SimFleet {
    /// A fleet as it is at its start.
    pub fn new(config: &SimConfig) -> Result<Self, SimError> {
        Self::at_pace(config, 1.0)
    }

    /// A fleet whose jobs and faults run `speed` times as fast as the clock of whoever reads it. Counters go by the
    /// reader's seconds, so that power is still what energy grows by.
    fn at_pace(config: &SimConfig, speed: f64) -> Result<Self, SimError> {
        if config.nodes == 0 || !(1..=MOST_GPUS_A_NODE).contains(&config.gpus_per_node) {
            return Err(SimError::Size);
        }
        let plans = plan::plan(config, node::WARM_UP_MS)?;
        let nodes = (0..).zip(plans).map(|(index, plan)| {
            SimNode::new(config.start, node::WARM_UP_MS, index, plan, 1.0 / speed)
        });
        Ok(Self {
            start: config.start,
            nodes: nodes.collect(),
        })
    }

    /// When the simulation starts.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// Lets every node live on until `now`.
    pub fn advance_to(&mut self, now: Timestamp) {
        for node in &mut self.nodes {
            node.advance_to(now);
        }
    }

    /// The nodes, in the order of their names.
    pub fn nodes(&self) -> &[SimNode] {
        &self.nodes
    }

    /// The nodes, to be advanced one by one.
    pub fn nodes_mut(&mut self) -> &mut [SimNode] {
        &mut self.nodes
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&SimNode> {
        self.nodes.iter().find(|node| node.name().as_str() == name)
    }

    /// A backend for each node, all driven by one clock from now on. `speed`: simulated seconds a second of the
    /// clock; 1 is real time.
    pub fn backends(
        config: &SimConfig,
        clock: &Arc<dyn Clock>,
        speed: f64,
    ) -> Result<Vec<(NodeId, Arc<SimBackend>)>, SimError> {
        let speed = if speed.is_finite() && speed > 0.0 {
            speed
        } else {
            1.0
        };
        let fleet = Self::at_pace(config, speed)?;
        let gate = Arc::new(Gate::new(Arc::clone(clock), config.start, speed));
        Ok(fleet
            .nodes
            .into_iter()
            .map(|node| {
                (
                    node.name().clone(),
                    Arc::new(SimBackend::new(node, Arc::clone(&gate))),
                )
            })
            .collect())
    }
}

#[cfg(test)]
mod tests;
