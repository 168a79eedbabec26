//! The usual mix of jobs on a fleet of any size. *(pure)*

use std::time::Duration;

use super::job::{JobSpec, Workload};

/// Nodes after which the mix repeats.
const BLOCK: u32 = 8;
/// Scheduler ids count up from here.
const FIRST_JOB: usize = 4711;
const USERS: [&str; 6] = ["amira", "bruno", "chen", "dana", "emeka", "freya"];

/// The usual mix: in each block of eight nodes one large data-parallel job on four, two single-node trainings, one
/// node of inference servers, and one of notebooks and GPUs that nobody holds. Smaller fleets get what fits.
///
/// Jobs are named like a scheduler's: `4711`, `4712`, …
pub fn usual_jobs(nodes: u32, gpus_per_node: u32) -> Vec<JobSpec> {
    let mut jobs = Jobs::default();
    for first in (0..nodes).step_by(BLOCK as usize) {
        let block = Block {
            first,
            nodes: (nodes - first).min(BLOCK),
            gpus: gpus_per_node,
        };
        block.fill(&mut jobs, first / BLOCK);
    }
    jobs.0
}

/// Every node but two trains; preallocated inference on one; a node that nobody holds: a fleet without a worry.
pub(crate) fn calm_jobs(nodes: u32, gpus_per_node: u32) -> Vec<JobSpec> {
    let mut jobs = usual_jobs(nodes, gpus_per_node);
    jobs.retain(|job| job.workload != Workload::Notebook);
    jobs
}

#[derive(Default)]
struct Jobs(Vec<JobSpec>);

impl Jobs {
    fn add(&mut self, workload: Workload, gpus: Vec<(u32, u32)>, checkpoint_minutes: Option<u64>) {
        if gpus.is_empty() {
            return;
        }
        let number = self.0.len();
        self.0.push(JobSpec {
            job: (FIRST_JOB + number).to_string(),
            workload,
            user: USERS[number % USERS.len()].to_owned(),
            gpus,
            checkpoint_every: checkpoint_minutes.map(Duration::from_mins),
        });
    }
}

struct Block {
    first: u32,
    nodes: u32,
    gpus: u32,
}

impl Block {
    fn fill(&self, jobs: &mut Jobs, number: u32) {
        // What is small comes first away: the mixed node, then the servers, then single-node jobs.
        let mixed = self.nodes - 1;
        let serving = if self.nodes >= 4 {
            self.nodes - 2
        } else {
            mixed
        };
        let singles = serving.saturating_sub(serving.saturating_sub(4).clamp(1, 2));
        let large = if number.is_multiple_of(2) {
            Workload::DataParallel
        } else {
            Workload::Pipeline
        };
        jobs.add(large, self.whole(0..singles), Some(20));
        for node in singles..serving {
            jobs.add(Workload::SmallSteps, self.whole(node..node + 1), Some(15));
        }
        if serving < mixed {
            jobs.add(Workload::Inference, self.whole(serving..serving + 1), None);
        }
        self.fill_mixed(jobs, mixed);
    }

    /// A quarter each: a small training if the fleet has no other, notebooks, and free GPUs.
    fn fill_mixed(&self, jobs: &mut Jobs, node: u32) {
        let node = self.first + node;
        let quarter = self.gpus / 4;
        let notebooks = quarter.min(2);
        let trains = if self.nodes == 1 {
            self.gpus - quarter.max(1) - notebooks
        } else {
            0
        };
        let gpus = |from: u32, n: u32| (from..from + n).map(|gpu| (node, gpu)).collect::<Vec<_>>();
        jobs.add(
            Workload::DataParallel,
            gpus(0, trains.max(u32::from(self.gpus == 1))),
            Some(20),
        );
        for gpu in 0..notebooks {
            jobs.add(Workload::Notebook, gpus(trains + gpu, 1), None);
        }
        if self.nodes > 1 && self.gpus >= 4 {
            jobs.add(Workload::Inference, gpus(trains + notebooks, quarter), None);
        }
    }

    fn whole(&self, nodes: std::ops::Range<u32>) -> Vec<(u32, u32)> {
        nodes
            .flat_map(|n| (0..self.gpus).map(move |gpu| (n, gpu)))
            .map(|(n, gpu)| (self.first + n, gpu))
            .collect()
    }
}
