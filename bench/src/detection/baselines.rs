//! What others do, on the same streams: five rules that are in use or published. *(pure)*
//!
//! They see what we see, and the judge is the same. Where a rule cannot tell classes of trouble apart, its finding may
//! mean any of them, and the judge takes whichever fits. All of them know jobs from each other where the stream names
//! jobs, and nodes where it does not; a GPU that nobody holds is not watched, and a rule calls once an episode.

mod fixed;
mod mean;
mod outlier;
pub mod sight;
mod silence;

use std::sync::Arc;

use entrenar::sim::{FeedNode, News, NodeTick};

use super::finding::Finding;
use sight::Sight;

/// The rules are asked so often.
const LOOK_MS: i64 = 1000;

/// A rule. It keeps its own state by the places of GPUs and groups in the sight.
trait Baseline: Send {
    /// A GPU has a new reading.
    fn row(&mut self, sight: &Sight, gpu: usize, now_ms: i64);
    /// The driver logged an error on a GPU.
    fn xid(&mut self, _sight: &Sight, _gpu: usize, _now_ms: i64, _found: &mut Vec<Finding>) {}
    /// A second has passed.
    fn look(&mut self, sight: &Sight, now_ms: i64, found: &mut Vec<Finding>);
}

/// Their names, in their order.
pub const NAMES: [&str; 5] = [
    "all-zero utilisation, 60 s",
    "mean utilisation under 20 %, 5 min",
    "fixed thresholds",
    "link bytes zero, 600 s",
    "peer outlier, 4 min",
];

/// All of them, with what they see and what they found.
pub struct Baselines {
    sight: Sight,
    rules: [Box<dyn Baseline>; 5],
    found: [Vec<Finding>; 5],
    looked_ms: i64,
}

/// The rules, in the order of their names.
fn rules() -> [Box<dyn Baseline>; 5] {
    [
        Box::new(silence::Silence::of_work()),
        Box::<mean::Mean>::default(),
        Box::<fixed::Fixed>::default(),
        Box::new(silence::Silence::of_links()),
        Box::<outlier::Outlier>::default(),
    ]
}

impl Default for Baselines {
    fn default() -> Self {
        Self {
            sight: Sight::default(),
            rules: rules(),
            found: Default::default(),
            looked_ms: 0,
        }
    }
}

impl Baselines {
    /// A fleet whose nodes are known from the start.
    pub fn of(nodes: &[FeedNode]) -> Self {
        let mut new = Self::default();
        for node in nodes {
            for gpu in &node.gpus {
                new.sight.gpu(&node.name.0, gpu.index);
            }
        }
        new
    }

    /// A tick of the simulated fleet. Its nodes have the places that they had in `of`, and equally many GPUs each.
    pub fn take(&mut self, tick: &NodeTick, gpus_per_node: usize) {
        let now_ms = tick.arrives.0;
        self.move_to(now_ms);
        let first = tick.node * gpus_per_node;
        for news in &tick.news {
            match news {
                News::Holder { gpu, holder } => {
                    let job = holder.as_ref().map(|holder| holder.job.as_str());
                    self.sight.hold(first + *gpu as usize, job, now_ms);
                }
                News::Xid { gpu, .. } => self.xid(first + *gpu as usize, now_ms),
                News::AgentStart
                | News::Goodbye
                | News::MaintenanceStart
                | News::MaintenanceEnd => {}
            }
        }
        for (gpu, row) in (first..).zip(&tick.rows) {
            if !row.is_empty() {
                self.row(gpu, now_ms, row);
            }
        }
    }

    /// A row of a trace.
    pub fn take_row(
        &mut self,
        now_ms: i64,
        (node, index): (&Arc<str>, u32),
        job: Option<&str>,
        xids: usize,
        row: &entrenar::gpu::Values,
    ) {
        self.move_to(now_ms);
        let gpu = self.sight.gpu(node, index);
        self.sight.hold(gpu, job, now_ms);
        for _ in 0..xids {
            self.xid(gpu, now_ms);
        }
        self.row(gpu, now_ms, row);
    }

    /// What each of them said, in order of firing.
    pub fn finish(self) -> [Vec<Finding>; 5] {
        self.found
    }

    fn row(&mut self, gpu: usize, now_ms: i64, row: &entrenar::gpu::Values) {
        self.sight.read(gpu, now_ms, row);
        for rule in &mut self.rules {
            rule.row(&self.sight, gpu, now_ms);
        }
    }

    fn xid(&mut self, gpu: usize, now_ms: i64) {
        for (rule, found) in self.rules.iter_mut().zip(&mut self.found) {
            rule.xid(&self.sight, gpu, now_ms, found);
        }
    }

    fn move_to(&mut self, now_ms: i64) {
        if now_ms - self.looked_ms < LOOK_MS {
            return;
        }
        self.looked_ms = now_ms;
        for (rule, found) in self.rules.iter_mut().zip(&mut self.found) {
            rule.look(&self.sight, now_ms, found);
        }
    }
}
