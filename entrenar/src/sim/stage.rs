//! A stage: nodes, jobs on them, what goes wrong, and the labels that say so. *(pure)*
//!
//! Scenarios are builders over a stage: each takes nodes, gives them jobs, edits the jobs' scores, adds effects to
//! GPUs, and labels what it did. Several scenarios share one stage without meeting: nobody takes a node twice.

mod dice;
mod draft;
mod label;
mod life;
mod whole;

pub(crate) use dice::Dice;
pub(crate) use draft::{Draft, HANG_SIDE, LOSS_SIDE};
pub use label::{Header, Label, LabelSeverity, Place};
pub(crate) use life::Checkpoints;

use std::sync::Arc;
use std::time::Duration;

use super::activity::Rank;
use super::board::{A100, B200, Board, H100, H200};
use super::effect::{Effect, What};
use super::job::{SimMillis, Workload};
use super::node::SimNode;
use super::noise::hash;
use super::plan::{Delay, DueXid, FOREVER, NodePlan, Note, Outage, Play, Slot, Work};
use super::plan::{labels_of, memory_of, pid_of};
use super::score::{Beat, Score};
use super::{SimError, node_name};
use crate::report::{Holder, JobKind, Labels};
use crate::trace::TraceEvent;
use crate::unit::Timestamp;

/// How long a staged fleet has run before its trace begins: long enough for heat sinks to be warm.
pub(crate) const WARM_UP_MS: SimMillis = 600_000;

/// GPU models that a stage can be set with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// H100 SXM 80 GB.
    H100,
    /// A100 SXM 80 GB.
    A100,
    /// H200 SXM.
    H200,
    /// B200.
    B200,
}

impl Model {
    pub(crate) fn board(self) -> &'static Board {
        match self {
            Self::H100 => &H100,
            Self::A100 => &A100,
            Self::H200 => &H200,
            Self::B200 => &B200,
        }
    }
}

/// What a fleet and its trace look like, before anyone takes the stage.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// When the trace begins.
    pub start: Timestamp,
    /// How long it is.
    pub lasts: Duration,
    /// The agents' sampling interval.
    pub interval: Duration,
    /// Every GPU's model.
    pub model: Model,
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// Whether a scheduler's job ids are known.
    pub has_job_ids: bool,
    /// Whether it is known where nodes hang.
    pub has_racks: bool,
}

/// A job on a stage.
#[derive(Clone, Debug)]
struct Job {
    id: String,
    score: Score,
    /// In the order of ranks.
    places: Vec<(u32, u32)>,
    kind: JobKind,
    user: String,
    has_rank_groups: bool,
}

/// How an agent falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It says goodbye, and another starts later.
    Goodbye,
    /// It dies without a word; another may start later.
    Death,
    /// It lives on, and nothing that it says arrives.
    Cut,
}

/// A job on a stage: its place in the list.
pub(crate) type JobRef = usize;

/// Where things happen.
#[derive(Clone, Debug)]
pub struct Stage {
    pub(crate) setting: Setting,
    pub(crate) dice: Dice,
    nodes: Vec<NodePlan>,
    jobs: Vec<Job>,
    drafts: Vec<Draft>,
    last_id: u32,
}

/// A staged fleet, ready to live, and what is true of it.
#[derive(Clone, Debug)]
pub struct Show {
    /// Its nodes at the beginning of the trace.
    pub(crate) nodes: Vec<SimNode>,
    /// What truly goes wrong; trace and id are still to be filled in.
    pub labels: Vec<Label>,
    /// How it was set.
    pub setting: Setting,
}

impl Stage {
    /// An empty stage.
    pub fn new(setting: Setting) -> Self {
        let mut dice = Dice::new(setting.seed);
        Self {
            last_id: dice.whole(1_000, 90_000),
            dice,
            setting,
            nodes: Vec::new(),
            jobs: Vec::new(),
            drafts: Vec::new(),
        }
    }

    /// Nodes so far.
    pub fn n_nodes(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// An instant of the trace, in seconds from its beginning.
    pub(crate) fn at(secs: f64) -> SimMillis {
        WARM_UP_MS + (secs * 1e3) as SimMillis
    }

    /// The end of the trace.
    pub(crate) fn end(&self) -> SimMillis {
        WARM_UP_MS + self.setting.lasts.as_millis() as SimMillis
    }

    /// A whole second between two shares of the trace.
    pub(crate) fn moment(&mut self, from: f64, to: f64) -> SimMillis {
        let lasts = self.setting.lasts.as_secs_f64();
        Self::at(self.dice.between(from * lasts, to * lasts).round())
    }

    /// A span between so many seconds and so many.
    pub(crate) fn span(&mut self, from_s: f64, to_s: f64) -> SimMillis {
        self.dice.between(from_s * 1e3, to_s * 1e3) as SimMillis
    }

    /// The board of every GPU.
    pub(crate) fn board(&self) -> &'static Board {
        self.setting.model.board()
    }

    /// Some new nodes, which nobody has taken.
    pub(crate) fn take(&mut self, n: u32) -> Vec<u32> {
        let first = self.n_nodes();
        for node in first..first + n {
            let slot = |gpu| Slot {
                seed: hash(&[self.setting.seed, 1, u64::from(node), u64::from(gpu)]),
                board: self.setting.model.board(),
                works: Vec::new(),
                effects: Vec::new(),
            };
            let labels = if self.setting.has_racks {
                labels_of(node)
            } else {
                Labels::new()
            };
            self.nodes.push(NodePlan {
                labels,
                slots: (0..self.setting.gpus_per_node).map(slot).collect(),
                ..NodePlan::default()
            });
        }
        (first..first + n).collect()
    }

    /// Every GPU of some nodes.
    pub(crate) fn all_of(&self, nodes: &[u32]) -> Vec<(u32, u32)> {
        let gpus = self.setting.gpus_per_node;
        nodes
            .iter()
            .flat_map(|&node| (0..gpus).map(move |gpu| (node, gpu)))
            .collect()
    }

    /// Says that some nodes hang together, and apart from all others.
    pub(crate) fn hang_together(&mut self, what: &str, name: &str, nodes: &[u32]) {
        if self.setting.has_racks {
            for &node in nodes {
                let labels = &mut self.nodes[node as usize].labels;
                labels.insert(what.to_owned(), name.to_owned());
            }
        }
    }

    /// A job that works from the beginning of time, without a pause.
    pub(crate) fn job(&mut self, workload: Workload, places: Vec<(u32, u32)>) -> JobRef {
        const USERS: [&str; 6] = ["amira", "bruno", "chen", "dana", "emeka", "freya"];
        self.last_id += self.dice.whole(1, 40);
        let is_told = self.dice.chance(0.5);
        self.jobs.push(Job {
            id: self.last_id.to_string(),
            score: Score::new(workload, self.dice.word()),
            places,
            kind: if is_told {
                workload.kind()
            } else {
                JobKind::Unknown
            },
            user: self.dice.pick(&USERS).to_owned(),
            has_rank_groups: workload == Workload::Pipeline && self.dice.chance(0.5),
        });
        self.jobs.len() - 1
    }

    /// Says what kind of job it is, whether or not a scheduler happens to.
    pub(crate) fn tell_kind(&mut self, job: JobRef) {
        self.jobs[job].kind = self.jobs[job].score.workload.kind();
    }

    /// All jobs so far.
    pub(crate) fn job_refs(&self) -> std::ops::Range<JobRef> {
        0..self.jobs.len()
    }

    /// Makes two entries one job for whoever looks at ids.
    pub(crate) fn same_job(&mut self, job: JobRef, other: JobRef) {
        let (id, kind, user) = {
            let job = &self.jobs[job];
            (job.id.clone(), job.kind, job.user.clone())
        };
        let other = &mut self.jobs[other];
        (other.id, other.kind, other.user) = (id, kind, user);
    }

    pub(crate) fn score(&mut self, job: JobRef) -> &mut Score {
        &mut self.jobs[job].score
    }

    pub(crate) fn places(&self, job: JobRef) -> &[(u32, u32)] {
        &self.jobs[job].places
    }

    pub(crate) fn n_ranks(&self, job: JobRef) -> u32 {
        self.jobs[job].places.len() as u32
    }

    /// Nodes of a job, each once.
    pub(crate) fn nodes_of(&self, job: JobRef) -> Vec<u32> {
        let mut nodes: Vec<u32> = self.places(job).iter().map(|(node, _)| *node).collect();
        nodes.dedup();
        nodes
    }

    /// Any rank of a job, and where it is.
    pub(crate) fn any_rank(&mut self, job: JobRef) -> (u32, (u32, u32)) {
        let rank = self.dice.whole(0, self.n_ranks(job) - 1);
        (rank, self.places(job)[rank as usize])
    }

    /// Ranks of a job on a node: from, to.
    pub(crate) fn ranks_on(&self, job: JobRef, node: u32) -> (u32, u32) {
        let on = |place: &(u32, u32)| place.0 == node;
        let places = self.places(job);
        let first = places.iter().position(on).unwrap_or(0);
        let n = places.iter().filter(|place| on(place)).count();
        (first as u32, (first + n) as u32)
    }

    /// Lets something go wrong with a GPU.
    pub(crate) fn strike(
        &mut self,
        (node, gpu): (u32, u32),
        from: SimMillis,
        to: SimMillis,
        what: What,
    ) {
        let effect = Effect { from, to, what };
        self.nodes[node as usize].slots[gpu as usize]
            .effects
            .push(effect);
    }

    /// Lets the driver log an XID.
    pub(crate) fn xid(&mut self, (node, gpu): (u32, u32), at: SimMillis, code: u64) {
        let xids = &mut self.nodes[node as usize].xids;
        xids.push(DueXid { at, gpu, code });
    }

    /// Lets an agent be silent for a while.
    pub(crate) fn silence(&mut self, node: u32, from: SimMillis, to: SimMillis, how: Silence) {
        self.nodes[node as usize].outages.push(Outage {
            from,
            to,
            planned: how == Silence::Goodbye,
            restarts: how != Silence::Cut,
        });
    }

    /// Lets what an agent says between two instants arrive only then.
    pub(crate) fn delay(&mut self, node: u32, from: SimMillis, to: SimMillis) {
        self.nodes[node as usize].delays.push(Delay { from, to });
    }

    /// Lets people say something of a node.
    pub(crate) fn note(&mut self, node: u32, at: SimMillis, event: TraceEvent) {
        self.nodes[node as usize].notes.push(Note { at, event });
    }

    /// Writes a label down.
    pub(crate) fn sign(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    /// Raises the curtain.
    pub fn raise(mut self) -> Result<Show, SimError> {
        self.label_long_pauses();
        let jobs = std::mem::take(&mut self.jobs);
        for job in &jobs {
            self.place(job)?;
        }
        for plan in &mut self.nodes {
            plan.xids.sort_by_key(|xid| xid.at);
            plan.notes.sort_by_key(|note| note.at);
            for slot in &mut plan.slots {
                slot.works.sort_by_key(|work| work.from);
            }
        }
        self.jobs = jobs;
        let drafts = std::mem::take(&mut self.drafts);
        let labels = drafts.into_iter().map(|draft| self.finished(draft));
        let labels = labels.collect();
        let setting = self.setting;
        let nodes = (0..).zip(self.nodes);
        let nodes = nodes
            .map(|(index, plan)| SimNode::new(setting.start, WARM_UP_MS, index, plan, 1.0))
            .collect();
        Ok(Show {
            nodes,
            labels,
            setting,
        })
    }

    fn place(&mut self, job: &Job) -> Result<(), SimError> {
        let score = Arc::new(job.score.clone());
        let bars: Vec<_> = job.score.bars().collect();
        let is_there = |beat: Beat| beat != Beat::Nobody;
        let from = bars.iter().find(|bar| is_there(bar.beat));
        let from = from.map_or(FOREVER, |bar| bar.from);
        let to = bars.iter().rfind(|bar| is_there(bar.beat));
        let to = to.map_or(from, |bar| bar.to);
        let spans_nodes = job.places.iter().any(|(node, _)| *node != job.places[0].0);
        for (number, &(node, gpu)) in job.places.iter().enumerate() {
            let slot = &mut self.nodes[node as usize].slots[gpu as usize];
            let is_free = |work: &Work| work.to <= from || to <= work.from;
            if !slot.works.iter().all(is_free) {
                return Err(SimError::GpuTakenTwice {
                    job: job.id.clone(),
                    node: node_name(node),
                    gpu,
                });
            }
            let rank = Rank {
                seed: slot.seed,
                number: number as u32,
                ranks: job.places.len() as u32,
                spans_nodes,
                memory_bytes: memory_of(job.score.workload, slot, job.score.seed),
            };
            let holder = self.setting.has_job_ids.then(|| {
                Arc::new(Holder {
                    job: job.id.clone(),
                    kind: job.kind,
                    rank_group: job
                        .has_rank_groups
                        .then(|| format!("stage{}", rank.stage())),
                    user: Some(job.user.clone()),
                    pids: vec![pid_of(node, gpu)],
                    ..Holder::default()
                })
            });
            slot.works.push(Work {
                from,
                to,
                play: Play::Scored(Arc::clone(&score)),
                rank,
                holder,
            });
        }
        Ok(())
    }
}
