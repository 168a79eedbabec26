//! Named scenarios: a fleet, and what goes wrong in it. *(pure)*

use std::time::Duration;

use super::fault::{Fault, FaultKind, Hang, Target};
use super::job::{JobSpec, Workload};
use super::layout::{calm_jobs, usual_jobs};
use super::{SimConfig, node_name};

/// A fleet with a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The usual mix of jobs; nothing goes wrong.
    Steady,
    /// Training with checkpoints, preallocated inference, GPUs that nobody holds: nothing that anyone should hear of.
    Calm,
    /// One GPU loses its cooling.
    Hot,
    /// One GPU's memory fills up.
    FullMemory,
    /// One GPU falls off the bus.
    LostGpu,
    /// One node goes silent.
    LostNode,
    /// One job hangs in a collective.
    HungJob,
    /// One XID.
    Xid,
    /// Every training job pauses for checkpoints, again and again.
    CheckpointPauses,
    /// What the demo shows: a hot GPU, a full memory, a hung job whose GPUs idle, an XID and a lost node, all within
    /// two minutes; everything else is healthy.
    DemoDefault,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Steady,
        Self::Calm,
        Self::Hot,
        Self::FullMemory,
        Self::LostGpu,
        Self::LostNode,
        Self::HungJob,
        Self::Xid,
        Self::CheckpointPauses,
        Self::DemoDefault,
    ];

    /// Its name: `steady`, `hot`, `demo-default`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Calm => "calm",
            Self::Hot => "hot",
            Self::FullMemory => "full-memory",
            Self::LostGpu => "lost-gpu",
            Self::LostNode => "lost-node",
            Self::HungJob => "hung-job",
            Self::Xid => "xid",
            Self::CheckpointPauses => "checkpoint-pauses",
            Self::DemoDefault => "demo-default",
        }
    }

    /// The scenario of a name; `None` if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// The scenario on a fleet of a size. A fault that has no place in so small a fleet is left out.
    pub fn config(self, nodes: u32, gpus_per_node: u32) -> SimConfig {
        let jobs = match self {
            Self::Calm => calm_jobs(nodes, gpus_per_node),
            _ => usual_jobs(nodes, gpus_per_node),
        };
        let faults = self.faults(&jobs);
        SimConfig::new(nodes, gpus_per_node)
            .jobs(jobs)
            .faults(faults)
    }

    fn faults(self, jobs: &[JobSpec]) -> Vec<Fault> {
        let cast = Cast { jobs };
        let faults = match self {
            Self::Steady | Self::Calm => vec![],
            Self::Hot => vec![cast.hot(20)],
            Self::FullMemory => vec![cast.full_memory(20)],
            Self::LostGpu => vec![cast.on_training_gpu(60, FaultKind::LostGpu)],
            Self::LostNode => vec![cast.lost_node(60)],
            Self::HungJob => vec![cast.hung(60, Hang::Spin)],
            Self::Xid => vec![cast.on_training_gpu(20, FaultKind::Xid { code: 48 })],
            Self::CheckpointPauses => cast.pauses(),
            Self::DemoDefault => vec![
                cast.hot(20),
                cast.full_memory(30),
                cast.hung(40, Hang::Cold),
                cast.on_training_gpu(55, FaultKind::Xid { code: 63 }),
                cast.lost_node(70),
            ],
        };
        faults.into_iter().flatten().collect()
    }
}

/// How long a scenario's faults last: long enough to be looked at, short enough to be seen to end.
const LASTS: Duration = Duration::from_mins(10);

/// Who plays what: the jobs of a fleet, by what they are good for.
struct Cast<'a> {
    jobs: &'a [JobSpec],
}

impl Cast<'_> {
    fn nth(&self, workload: Workload, n: usize) -> Option<&JobSpec> {
        let mut jobs = self.jobs.iter().filter(|job| job.workload == workload);
        jobs.nth(n)
    }

    fn largest_training(&self) -> Option<&JobSpec> {
        let synchronous = self.jobs.iter().filter(|job| job.workload.is_synchronous());
        // The first among equals.
        synchronous.rev().max_by_key(|job| job.gpus.len())
    }

    /// A GPU a third into the largest training: inside a node, and not on the first.
    fn hot(&self, at_s: u64) -> Option<Fault> {
        let gpus = &self.largest_training()?.gpus;
        let target = gpu_of(*gpus.get(gpus.len() / 3)?);
        Some(fault(at_s, FaultKind::HotGpu, target))
    }

    /// A notebook's, else any GPU of a job.
    fn full_memory(&self, at_s: u64) -> Option<Fault> {
        let job = self.nth(Workload::Notebook, 0).or(self.jobs.last())?;
        let kind = FaultKind::FullMemory {
            rise: Duration::from_secs(45),
            job_dies: false,
        };
        Some(fault(at_s, kind, gpu_of(*job.gpus.last()?)))
    }

    fn on_training_gpu(&self, at_s: u64, kind: FaultKind) -> Option<Fault> {
        let gpu = self.largest_training()?.gpus.last()?;
        Some(fault(at_s, kind, gpu_of(*gpu)))
    }

    /// A job of its own node, so that no other node waits for it.
    fn hung(&self, at_s: u64, how: Hang) -> Option<Fault> {
        let job = self
            .nth(Workload::SmallSteps, 0)
            .or(self.largest_training())?;
        let target = Target::Job {
            job: job.job.clone(),
        };
        Some(fault(at_s, FaultKind::HungJob { how }, target))
    }

    /// The node of a second single-node job.
    fn lost_node(&self, at_s: u64) -> Option<Fault> {
        let job = self.nth(Workload::SmallSteps, 1)?;
        let node = node_name(job.gpus.first()?.0);
        Some(fault(at_s, FaultKind::LostNode, Target::Node { node }))
    }

    /// Each training job in turn, every ten minutes for two hours.
    fn pauses(&self) -> Vec<Option<Fault>> {
        let training = self.jobs.iter().filter(|job| job.workload.is_synchronous());
        let mut pauses = Vec::new();
        for (n, job) in (0..).zip(training) {
            for round in 0..12 {
                let target = Target::Job {
                    job: job.job.clone(),
                };
                let kind = FaultKind::CheckpointPause;
                let mut pause = fault(60 + 20 * n + 600 * round, kind, target);
                pause.duration = Some(Duration::from_secs(15 + (7 * n + 11 * round) % 46));
                pauses.push(Some(pause));
            }
        }
        pauses
    }
}

fn gpu_of((node, gpu): (u32, u32)) -> Target {
    Target::Gpu {
        node: node_name(node),
        gpu,
    }
}

fn fault(at_s: u64, kind: FaultKind, target: Target) -> Fault {
    Fault {
        at: Duration::from_secs(at_s),
        duration: Some(LASTS),
        kind,
        target,
    }
}
