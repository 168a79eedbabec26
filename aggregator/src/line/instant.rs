//! The fleet at this moment, answered from what every GPU said last, in one pass.

use entrenar::metric::Metric;
use entrenar::unit::Timestamp;

use super::{Line, Seated};
use crate::query::aggregate::Aggregate;
use crate::query::gather::{Gathering, Name, Told};
use crate::query::select::{By, Filter};

/// What is asked of the fleet as it stands.
#[derive(Clone, Debug)]
pub struct Instant {
    pub metric: &'static Metric,
    pub filter: Filter,
    /// GPUs that this job holds.
    pub job: Option<String>,
    pub by: By,
    pub aggregate: Aggregate,
    /// What was read before is too old.
    pub since: Timestamp,
    pub cluster: String,
}

impl Line {
    /// The groups of GPUs that were asked for, in order of nodes, with the last known value of each.
    pub fn instant(&self, asked: &Instant) -> Vec<Told> {
        let mut gathering = Gathering::new(asked.aggregate, asked.since);
        self.each_gpu(&asked.filter, |gpu| {
            let is_held_by = |job: &String| gpu.holder().is_some_and(|h| h.job == *job);
            if !asked.job.as_ref().is_none_or(is_held_by) {
                return;
            }
            let last = gpu.last(asked.metric.id);
            let last = last.map(|(at, value)| (at, asked.metric.to_display(value)));
            match &asked.by {
                By::Gpu => gathering.alone(name(&gpu), last),
                By::Node => gathering.following(gpu.node.as_str(), last),
                By::Job => gathering.shared(gpu.holder().map(|h| h.job.as_str()), last),
                By::Model => gathering.shared(Some(&gpu.info.name), last),
                By::Label(label) => {
                    gathering.shared(gpu.labels.get(*label).map(String::as_str), last);
                }
                By::Cluster => gathering.shared(Some(&asked.cluster), last),
            }
        });
        gathering.finish()
    }
}

fn name(gpu: &Seated<'_>) -> Name {
    Name::Gpu(
        Some((gpu.node.clone(), gpu.info.index)),
        gpu.info.uuid.clone(),
    )
}
