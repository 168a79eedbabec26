//! What the engine remembers of the fleet: nodes, the GPUs on them, and the jobs that hold those. *(pure)*
//!
//! A GPU is its UUID: it may move to another slot or node and stays itself. A job is known as long as it holds a GPU.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use entrenar::gpu::{GpuInfo, GpuUuid, NodeId};
use entrenar::report::{Holder, Inventory, JobKind, Labels};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::custom::CustomState;
use super::flapping::Returns;
use super::gpu::Gpu;
use super::job::JobWatch;
use super::job::infer::is_inferred;
use super::rules::index::SetId;
use super::xid::XidState;
use super::{CordKey, GpuAt, Kind, Presence, Scope};

/// Most GPUs that a job is remembered to have held; beyond, causes on further ones are not found.
const MOST_TOUCHED: usize = 16_384;
/// Most GPUs of a node that are remembered after they were no longer listed; the oldest is forgotten.
pub(super) const MOST_ABSENT: usize = 64;

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) labels: Labels,
    pub(super) interval_ms: i64,
    pub(super) presence: Presence,
    /// By the aggregator's clock.
    pub(super) last_frame: Option<Timestamp>,
    /// Frames since it was silent.
    pub(super) frames_back: u32,
    /// The cord that says that it is lost.
    pub(super) lost_by: Option<CordKey>,
    /// Its silence waits to be judged together with others'.
    pub(super) held: bool,
    /// When it came back from a silence.
    #[serde(default)]
    pub(super) returns: Returns,
    /// People work on it: nothing on it calls anyone.
    #[serde(default)]
    pub(super) maintenance: bool,
    /// When they were last done: its silence counts from then on.
    #[serde(default)]
    pub(super) released_at: Option<Timestamp>,
    /// Ticks that are gone for good, and when that was last learned.
    pub(super) n_lost: u64,
    pub(super) lost_history_at: Option<Timestamp>,
    /// In inventory order.
    pub(super) gpus: Vec<Gpu>,
    /// No longer listed.
    pub(super) absent: Vec<Gpu>,
    /// Errors of which the driver did not say on which GPU.
    pub(super) xid: XidState,
    /// None of its GPUs answers: one finding for all.
    pub(super) wedged: bool,
    /// The rules that hold for it.
    #[serde(skip)]
    pub(super) rules: SetId,
    /// What the rules of people remember of it.
    #[serde(default)]
    pub(super) custom: Vec<CustomState>,
}

impl Node {
    pub(super) fn new(labels: Labels, interval_ms: u32) -> Self {
        Self {
            labels,
            interval_ms: i64::from(interval_ms.max(1)),
            presence: Presence::Expected,
            last_frame: None,
            frames_back: 0,
            lost_by: None,
            held: false,
            returns: Returns::default(),
            maintenance: false,
            released_at: None,
            n_lost: 0,
            lost_history_at: None,
            gpus: Vec::new(),
            absent: Vec::new(),
            xid: XidState::default(),
            wedged: false,
            rules: SetId::default(),
            custom: Vec::new(),
        }
    }

    /// Forgets what a rule remembered: it was switched off.
    pub(super) fn reset(&mut self, kind: Kind) {
        match kind {
            Kind::NodeLost => self.lost_by = None,
            Kind::NodeFlapping => self.returns = Returns::default(),
            Kind::GpuUnresponsive => self.wedged = false,
            Kind::Xid => self.xid = XidState::default(),
            _ => {}
        }
    }

    pub(super) fn gpu(&self, uuid: &GpuUuid) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.at.uuid == *uuid)
    }
}

/// A job, as long as it holds a GPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) kind: JobKind,
    pub(super) started_at: Timestamp,
    /// GPUs that it holds.
    pub(super) members: BTreeMap<GpuUuid, NodeId>,
    /// GPUs that it holds or held, and their nodes: a cause on one of them concerns it.
    pub(super) touched: BTreeSet<(NodeId, GpuUuid)>,
    pub(super) watch: JobWatch,
    pub(super) xid: XidState,
    /// The rules that hold for it.
    #[serde(skip)]
    pub(super) rules: SetId,
}

impl Job {
    /// Forgets what a rule remembered: it was switched off.
    pub(super) fn reset(&mut self, kind: Kind) {
        match kind {
            Kind::Xid => self.xid = XidState::default(),
            other => self.watch.reset(other),
        }
    }
}

/// How a job gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// At least one of its GPUs works.
    Working,
    /// None works at the moment: a start, a checkpoint, or the beginning of trouble.
    Waiting,
    /// It gets nothing done any more, and an incident says so.
    Hung,
    /// It has idle GPUs for so long that an incident is open.
    Idle,
    /// None of its GPUs is heard of.
    Unknown,
}

impl JobState {
    /// The word in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Waiting => "waiting",
            Self::Hung => "hung",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        }
    }
}

/// A job as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobView {
    pub job: String,
    pub kind: JobKind,
    pub gpus: Vec<GpuAt>,
    pub started_at: Timestamp,
    pub state: JobState,
}

/// Nodes, GPUs, jobs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Fleet {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) jobs: BTreeMap<String, Job>,
    /// When inferred jobs were last compared.
    #[serde(default)]
    pub(super) joined_at: Option<Timestamp>,
    /// On which node a GPU is. Only looked up, never walked: its order is not the same twice.
    #[serde(skip)]
    places: HashMap<GpuUuid, NodeId>,
}

/// A GPU that is no longer where it was.
pub(super) struct Leaver {
    pub(super) at: GpuAt,
    /// Its going is trouble, rather than a repair or a new partition.
    pub(super) is_missed: bool,
}

impl Fleet {
    /// What can be found again from the rest, after a restart.
    pub(super) fn index(&mut self) {
        for (id, node) in &self.nodes {
            for gpu in node.gpus.iter().chain(&node.absent) {
                self.places.insert(gpu.at.uuid.clone(), id.clone());
            }
        }
    }

    /// The node on which a GPU is, or was when it was last listed.
    pub(super) fn node_of(&self, uuid: &GpuUuid) -> Option<&NodeId> {
        self.places.get(uuid)
    }

    pub(super) fn gpu(&self, uuid: &GpuUuid) -> Option<&Gpu> {
        self.nodes.get(self.node_of(uuid)?)?.gpu(uuid)
    }

    pub(super) fn gpu_mut(&mut self, uuid: &GpuUuid) -> Option<&mut Gpu> {
        let node = self.nodes.get_mut(self.places.get(uuid)?)?;
        let mut gpus = node.gpus.iter_mut().chain(&mut node.absent);
        gpus.find(|gpu| gpu.at.uuid == *uuid)
    }

    /// Whether people work on what a scope names; of a job, on any of the nodes that it holds.
    pub(super) fn is_in_maintenance(&self, scope: &Scope) -> bool {
        let is_worked_on = |node: &NodeId| self.nodes.get(node).is_some_and(|n| n.maintenance);
        match scope {
            Scope::Fleet => false,
            Scope::Node { node } => is_worked_on(node),
            Scope::Gpu { gpu } => is_worked_on(&gpu.node),
            Scope::Job { job, .. } => {
                let job = self.jobs.get(job);
                job.is_some_and(|job| job.members.values().any(is_worked_on))
            }
            Scope::Nodes { group, nodes } if is_inferred(group) => nodes.iter().any(is_worked_on),
            Scope::Nodes { nodes, .. } => nodes.iter().all(is_worked_on),
        }
    }

    pub(super) fn label(&self, node: &NodeId, label: &str) -> Option<&str> {
        self.nodes.get(node)?.labels.get(label).map(String::as_str)
    }

    pub(super) fn job_of(&self, uuid: &GpuUuid) -> Option<&str> {
        Some(self.gpu(uuid)?.holder()?.job.as_str())
    }

    pub(super) fn job_has_gpu(&self, job: &str, uuid: &GpuUuid) -> bool {
        let job = self.jobs.get(job);
        job.is_some_and(|job| job.touched.iter().any(|(_, other)| other == uuid))
    }

    pub(super) fn job_has_node(&self, job: &str, node: &NodeId) -> bool {
        let first = (node.clone(), GpuUuid::from(""));
        let job = self.jobs.get(job);
        let touched = job.and_then(|job| job.touched.range(first..).next());
        touched.is_some_and(|(other, _)| other == node)
    }

    /// A node's GPUs are these from now on. Those that left are returned; the ones whose going is trouble are kept
    /// aside, in case they come back.
    pub(super) fn take_inventory(&mut self, id: &NodeId, inventory: &Inventory) -> Vec<Leaver> {
        let Some(node) = self.nodes.get_mut(id) else {
            return Vec::new();
        };
        let same = |(gpu, info): (&Gpu, &GpuInfo)| gpu.is(info);
        if node.gpus.len() == inventory.gpus.len()
            && node.gpus.iter().zip(&inventory.gpus).all(same)
        {
            return Vec::new();
        }
        let mut before = std::mem::take(&mut node.gpus);
        let mut absent = std::mem::take(&mut node.absent);
        let mut now = Vec::new();
        for info in &inventory.gpus {
            let known = take(&mut before, &info.uuid)
                .or_else(|| take(&mut absent, &info.uuid))
                .or_else(|| self.take_from_elsewhere(id, &info.uuid));
            self.places.insert(info.uuid.clone(), id.clone());
            now.push(known.map_or_else(|| Gpu::new(id, info), |gpu| gpu.at_place(id, info)));
        }
        let mut leavers = Vec::new();
        for gpu in before {
            // Another board in its slot: it was replaced.
            let replaced = now.iter().any(|other| other.at.device == gpu.at.device);
            let is_missed = !gpu.is_partition && !replaced;
            leavers.push(Leaver {
                at: gpu.at.clone(),
                is_missed,
            });
            if is_missed {
                absent.push(gpu);
            } else {
                self.drop_gpu(&gpu);
            }
        }
        while absent.len() > MOST_ABSENT {
            let gpu = absent.remove(0);
            self.drop_gpu(&gpu);
            leavers.push(Leaver {
                at: gpu.at,
                is_missed: false,
            });
        }
        if let Some(node) = self.nodes.get_mut(id) {
            (node.gpus, node.absent) = (now, absent);
        }
        leavers
    }

    fn take_from_elsewhere(&mut self, here: &NodeId, uuid: &GpuUuid) -> Option<Gpu> {
        let there = self.places.get(uuid).filter(|there| *there != here)?;
        take(&mut self.nodes.get_mut(there)?.gpus, uuid)
    }

    /// A GPU has this holder from now on. The job that it left may hold nothing any more.
    pub(super) fn take_holder(&mut self, at: Timestamp, uuid: &GpuUuid, holder: Option<Holder>) {
        let Some(gpu) = self.gpu_mut(uuid) else {
            return;
        };
        let job = holder
            .as_ref()
            .map(|holder| (holder.job.clone(), holder.kind));
        let place = (gpu.at.node.clone(), gpu.at.uuid.clone());
        if let Some(left) = gpu.take_holder(holder)
            && let Some(job) = self.jobs.get_mut(&left)
        {
            job.members.remove(uuid);
        }
        if let Some((name, kind)) = job {
            let job = self.jobs.entry(name).or_insert_with(|| Job {
                kind,
                started_at: at,
                members: BTreeMap::new(),
                touched: BTreeSet::new(),
                watch: JobWatch::default(),
                xid: XidState::default(),
                rules: SetId::default(),
            });
            job.kind = kind;
            job.started_at = job.started_at.min(at);
            job.members.insert(place.1.clone(), place.0.clone());
            if job.touched.len() < MOST_TOUCHED {
                job.touched.insert(place);
            }
        }
    }

    /// A GPU that is gone for good is held by nobody; its job remembers that it was.
    fn drop_gpu(&mut self, gpu: &Gpu) {
        self.places.remove(&gpu.at.uuid);
        if let Some(holder) = gpu.holder()
            && let Some(job) = self.jobs.get_mut(&holder.job)
        {
            job.members.remove(&gpu.at.uuid);
        }
    }

    /// Takes out the jobs that hold nothing any more.
    pub(super) fn take_ended_jobs(&mut self) -> Vec<String> {
        let ended = self.jobs.extract_if(.., |_, job| job.members.is_empty());
        ended.map(|(name, _)| name).collect()
    }

    /// A node is taken out of the fleet. Returns its GPUs.
    pub(super) fn forget(&mut self, id: &NodeId) -> Vec<GpuAt> {
        let Some(node) = self.nodes.remove(id) else {
            return Vec::new();
        };
        let gpus = node.gpus.into_iter().chain(node.absent);
        gpus.map(|gpu| {
            self.drop_gpu(&gpu);
            gpu.at
        })
        .collect()
    }

    /// The GPUs that a job holds, with what is remembered of each and of its node.
    pub(super) fn members<'a>(
        &'a self,
        job: &'a Job,
    ) -> impl Iterator<Item = (&'a Node, &'a Gpu)> + 'a {
        job.members.iter().filter_map(|(uuid, node)| {
            let node = self.nodes.get(node)?;
            Some((node, node.gpu(uuid)?))
        })
    }
}

fn take(gpus: &mut Vec<Gpu>, uuid: &GpuUuid) -> Option<Gpu> {
    let at = gpus.iter().position(|gpu| gpu.at.uuid == *uuid)?;
    Some(gpus.remove(at))
}
