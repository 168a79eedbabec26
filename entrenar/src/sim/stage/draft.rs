//! A label while it is being written: in the stage's own time, with jobs instead of names. *(pure)*

use super::{JobRef, Label, LabelSeverity, Place, Stage, WARM_UP_MS};
use crate::sim::job::SimMillis;
use crate::sim::node_name;
use crate::sim::score::Beat;

/// Classes that may come with a hang.
pub(crate) const HANG_SIDE: [&str; 5] =
    ["JobStall", "JobSlow", "Straggler", "GpuIdle", "PartialUse"];

/// Classes that may come with something that takes ranks away from a job.
pub(crate) const LOSS_SIDE: [&str; 8] = [
    "JobHang",
    "JobStall",
    "JobSlow",
    "Straggler",
    "NetworkFault",
    "MonitoringFault",
    "GpuIdle",
    "PartialUse",
];

/// A pause of at least this length may be reported as a stall.
const LONG_PAUSE_MS: SimMillis = 90_000;
/// Intervals that a detector may need beyond the time that the incident itself needs.
const INTERVALS_ALLOWED: f64 = 3.0;

/// A label that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    scenario: &'static str,
    kinds: Vec<&'static str>,
    severity: LabelSeverity,
    from: SimMillis,
    to: SimMillis,
    jobs: Vec<JobRef>,
    nodes: Vec<u32>,
    gpus: Vec<(u32, u32)>,
    culprits: Vec<(u32, Option<u32>)>,
    deadline_s: f64,
    is_exact: bool,
    related: Vec<&'static str>,
    affected: Vec<u32>,
    required: bool,
    fleet: bool,
}

impl Draft {
    pub(crate) fn new(
        scenario: &'static str,
        kinds: &[&'static str],
        severity: LabelSeverity,
    ) -> Self {
        Self {
            scenario,
            kinds: kinds.to_vec(),
            severity,
            from: 0,
            to: 0,
            jobs: Vec::new(),
            nodes: Vec::new(),
            gpus: Vec::new(),
            culprits: Vec::new(),
            deadline_s: 300.0,
            is_exact: false,
            related: Vec::new(),
            affected: Vec::new(),
            required: true,
            fleet: false,
        }
    }

    pub(crate) fn lasts(mut self, from: SimMillis, to: SimMillis) -> Self {
        (self.from, self.to) = (from, to);
        self
    }

    /// A job as a whole: its nodes, or its GPUs where it shares a node.
    pub(crate) fn whole_job(mut self, stage: &Stage, job: JobRef) -> Self {
        self.jobs.push(job);
        let places = stage.places(job);
        let nodes = stage.nodes_of(job);
        let is_whole = places.len() == nodes.len() * stage.setting.gpus_per_node as usize;
        if is_whole {
            self.nodes.extend(&nodes);
        } else {
            self.gpus.extend(places);
        }
        self.affected.extend(nodes);
        self
    }

    /// A job that is touched; what it is about is said beside.
    pub(crate) fn in_job(mut self, stage: &Stage, job: JobRef) -> Self {
        self.jobs.push(job);
        self.affected.extend(stage.nodes_of(job));
        self
    }

    pub(crate) fn nodes(mut self, nodes: &[u32]) -> Self {
        self.nodes.extend(nodes);
        self
    }

    /// About these nodes, and they are to blame.
    pub(crate) fn blamed_nodes(mut self, nodes: &[u32]) -> Self {
        self.culprits.extend(nodes.iter().map(|node| (*node, None)));
        self.nodes(nodes)
    }

    pub(crate) fn gpus(mut self, gpus: &[(u32, u32)]) -> Self {
        self.gpus.extend(gpus);
        self
    }

    /// About this GPU, and it is to blame.
    pub(crate) fn blamed_gpu(self, gpu: (u32, u32)) -> Self {
        self.gpus(&[gpu]).culprit(gpu)
    }

    pub(crate) fn culprit(mut self, (node, gpu): (u32, u32)) -> Self {
        self.culprits.push((node, Some(gpu)));
        self
    }

    pub(crate) fn culprit_node(mut self, node: u32) -> Self {
        self.culprits.push((node, None));
        self
    }

    /// So many seconds, and some sampling intervals on top.
    pub(crate) fn due(mut self, secs: f64) -> Self {
        self.deadline_s = secs;
        self
    }

    /// So many seconds and no more.
    pub(crate) fn due_exactly(mut self, secs: f64) -> Self {
        self.is_exact = true;
        self.due(secs)
    }

    pub(crate) fn related(mut self, kinds: &[&'static str]) -> Self {
        self.related.extend(kinds);
        self
    }

    /// Would be right, too.
    pub(crate) fn or(mut self, kind: &'static str) -> Self {
        self.kinds.push(kind);
        self
    }

    /// May be reported, need not be.
    pub(crate) fn optional(mut self) -> Self {
        self.required = false;
        self.is_exact = true;
        self
    }

    pub(crate) fn fleet(mut self) -> Self {
        self.fleet = true;
        self
    }
}

impl Stage {
    /// Every pause of a job that is long enough for someone to say so may be reported.
    pub(super) fn label_long_pauses(&mut self) {
        let (begin, end) = (WARM_UP_MS, self.end());
        for job in 0..self.jobs.len() {
            let bars: Vec<_> = self.jobs[job].score.bars().collect();
            for bar in bars {
                let is_pause = match bar.beat {
                    Beat::Checkpoint { write_rate, .. } => write_rate > 0.0,
                    Beat::Evaluate | Beat::Reload => true,
                    _ => false,
                };
                let is_seen = begin <= bar.from && bar.from < end;
                if is_pause && is_seen && LONG_PAUSE_MS <= bar.to - bar.from {
                    let kinds = ["JobStall", "StorageStall", "JobSlow"];
                    let draft = Draft::new("pause", &kinds, LabelSeverity::Warning)
                        .lasts(bar.from, bar.to.min(end))
                        .whole_job(self, job)
                        .optional();
                    self.sign(draft);
                }
            }
        }
    }

    /// A label in the words of the contract.
    pub(super) fn finished(&self, draft: Draft) -> Label {
        let unix = |at: SimMillis| {
            let ms = self.setting.start.0 - WARM_UP_MS + at.clamp(0, self.end());
            ms as f64 / 1e3
        };
        let place = |node: u32, gpu: Option<u32>| Place {
            node: node_name(node),
            gpu,
        };
        let names = |mut nodes: Vec<u32>| -> Vec<String> {
            nodes.sort_unstable();
            nodes.dedup();
            nodes.into_iter().map(node_name).collect()
        };
        let id = |job: &JobRef| self.jobs[*job].id.clone();
        let ids: Vec<_> = draft.jobs.iter().map(id).collect();
        let known = if self.setting.has_job_ids {
            ids
        } else {
            vec![]
        };
        let slack = if draft.is_exact {
            0.0
        } else {
            INTERVALS_ALLOWED * self.setting.interval.as_secs_f64()
        };
        let mut affected = draft.affected;
        affected.extend(&draft.nodes);
        affected.extend(draft.gpus.iter().map(|(node, _)| *node));
        if draft.fleet {
            affected.clear();
        }
        Label {
            trace: String::new(),
            id: String::new(),
            scenario: draft.scenario,
            kinds: draft.kinds,
            severity: draft.severity,
            start: unix(draft.from),
            end: unix(draft.to),
            job: (known.len() == 1).then(|| known[0].clone()),
            jobs: if known.len() > 1 { known } else { vec![] },
            nodes: names(draft.nodes),
            gpus: draft.gpus.iter().map(|&(n, g)| place(n, Some(g))).collect(),
            culprits: draft.culprits.iter().map(|&(n, g)| place(n, g)).collect(),
            deadline_s: draft.deadline_s + slack,
            related: draft.related,
            affected_nodes: names(affected),
            required: draft.required,
            fleet: draft.fleet,
        }
    }
}
