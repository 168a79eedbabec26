//! Jobs without a scheduler: GPUs of a node that programs use and that nobody claims are taken to be one job. *(pure)*
//!
//! Their programs began together and wait for each other, which is what a job is: they work since the same moment, or
//! wait busily for a start. What spans nodes is joined once it has shown that it moves together (`join`); until then
//! findings on several nodes that stop at the same moment are one by that. A node on which any GPU has ever had a
//! holder has a scheduler that knows better.

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::report::Holder;
use entrenar::unit::Timestamp;

use crate::andon::fleet::{Fleet, Node};
use crate::andon::gpu::Gpu;
use crate::andon::job::JobWatch;
use crate::andon::job::join::OTHERS;
use crate::andon::pulse::Activity;
use crate::andon::{Kind, Scope};

/// What the name of an inferred job begins with; no scheduler's id does.
const PREFIX: &str = "inferred on ";
/// A GPU must have worked so long without a longer rest to be taken for part of a job, in milliseconds …
const WORKED_MS: i64 = 30_000;
/// … and have no program for so long to have left it.
const LEFT_MS: i64 = 60_000;
/// GPUs of one job begin to work this close to each other, in milliseconds and beside two sampling intervals.
const BEGAN_WITHIN_MS: i64 = 20_000;
/// One that has not begun to work must have waited for so long, in milliseconds.
const WAITED_MS: i64 = 60_000;
/// Of those that wait busily, at most this share idles beside them, as a divisor.
const LATE_SHARE: usize = 4;
/// A job has more than one GPU.
const LEAST_GPUS: usize = 2;

/// Whether a job was made up here.
pub(in crate::andon) fn is_inferred(job: &str) -> bool {
    job.starts_with(PREFIX)
}

/// GPUs of one node are taken for a job: they may be several people's. What has moved together on several nodes may not.
pub(in crate::andon) fn is_guess(job: &str) -> bool {
    is_inferred(job) && !job.ends_with(OTHERS)
}

/// What is found of a whole job, rather than of a node or a GPU.
pub(in crate::andon) const fn is_of_job(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::JobHang
            | Kind::JobStall
            | Kind::StartupStuck
            | Kind::GpuIdle
            | Kind::PartialUse
            | Kind::JobSlow
    )
}

/// An inferred job is known by its nodes: that is what its findings are about.
pub(in crate::andon) fn scope_of(scope: Scope) -> Scope {
    match scope {
        Scope::Job { job, gpus } if job.ends_with(OTHERS) => {
            let mut nodes: Vec<NodeId> = gpus.into_iter().map(|gpu| gpu.node).collect();
            nodes.sort();
            nodes.dedup();
            Scope::Nodes { group: job, nodes }
        }
        Scope::Job { job, gpus } => match job.strip_prefix(PREFIX) {
            Some(node) => Scope::Node { node: node.into() },
            None => Scope::Job { job, gpus },
        },
        other => other,
    }
}

/// Shares of memory this close, by their own measure, may be one job's.
const SAME_MEMORY: f32 = 0.01;

/// Whether shares of memory, in thousandths, may be those of one job.
pub(super) fn same_memory(one: u16, other: u16) -> bool {
    let (one, other) = (f32::from(one), f32::from(other));
    (one - other).abs() <= SAME_MEMORY * one.max(other) + 1.0
}

/// Memory that these GPUs hold, in thousandths of all, as a median.
pub(in crate::andon) fn memory_of<'a>(gpus: impl Iterator<Item = &'a Gpu>) -> u16 {
    let mut held: Vec<u16> = gpus.filter_map(Gpu::memory_held).collect();
    held.sort_unstable();
    held.get(held.len() / 2).copied().unwrap_or(0)
}

fn is_ours(gpu: &Gpu) -> bool {
    gpu.holder().is_some_and(|holder| is_inferred(&holder.job))
}

/// Since when it works without a longer rest; `None`: it does not, or not for long.
fn works_since(gpu: &Gpu, now: Timestamp, interval_ms: i64) -> Option<Timestamp> {
    let streak = gpu.pulse.streak(now, interval_ms)?;
    (streak.lasts_ms() >= WORKED_MS).then_some(streak.since())
}

/// Unclaimed GPUs that have begun to work in one moment: when those of the node's job have, if there is one, else when
/// most have. Programs of several people begin when they like.
fn workers(node: &Node, now: Timestamp) -> Vec<usize> {
    let interval_ms = node.interval_ms;
    let since = |gpu: &Gpu| works_since(gpu, now, interval_ms);
    let ours = node.gpus.iter().filter(|gpu| is_ours(gpu)).find_map(since);
    let free = node.gpus.iter().enumerate();
    let free = free.filter(|(_, gpu)| gpu.holder().is_none());
    let free: Vec<(usize, Timestamp)> =
        free.filter_map(|(i, gpu)| Some((i, since(gpu)?))).collect();
    let began_at = |moment: Timestamp| -> Vec<usize> {
        let near = |at: Timestamp| (at.0 - moment.0).abs() <= BEGAN_WITHIN_MS + 2 * interval_ms;
        let these = free.iter().filter(|(_, since)| near(*since));
        these.map(|(i, _)| *i).collect()
    };
    if let Some(moment) = ours {
        return began_at(moment);
    }
    let groups = free.iter().map(|(_, since)| began_at(*since));
    groups.max_by_key(Vec::len).unwrap_or_default()
}

/// It has not begun to work, nobody claims it, and its program waits.
fn waits(gpu: &Gpu, how: Activity, now: Timestamp) -> bool {
    let lasts = |since: Timestamp| now.0 - since.0 >= WAITED_MS;
    gpu.holder().is_none()
        && gpu.pulse.worked_ms < WORKED_MS
        && gpu.pulse.activity == Some(how)
        && gpu.pulse.quiet_since.is_some_and(lasts)
}

/// The GPUs of a node that become part of its job, by their place on it.
fn joining(node: &Node, now: Timestamp) -> Vec<usize> {
    if node.gpus.iter().all(|gpu| gpu.holder().is_some()) {
        return Vec::new();
    }
    let these = |of: &dyn Fn(&Gpu) -> bool| -> Vec<usize> {
        let all = node.gpus.iter().enumerate();
        all.filter(|(_, gpu)| of(gpu)).map(|(i, _)| i).collect()
    };
    let mut joining = workers(node, now);
    // Nobody waits busily but for others: their job begins.
    joining.extend(these(&|gpu| waits(gpu, Activity::Spin, now)));
    let n_ours = node.gpus.iter().filter(|gpu| is_ours(gpu)).count();
    if joining.len() + n_ours < LEAST_GPUS {
        return Vec::new();
    }
    // The few that idle beside them may be whom they wait for.
    let late = these(&|gpu| waits(gpu, Activity::Idle, now));
    let n_spin = node.gpus.iter().filter(|gpu| spins(gpu)).count();
    if late.len() * LATE_SHARE <= n_spin {
        joining.extend(late);
    }
    joining
}

fn spins(gpu: &Gpu) -> bool {
    gpu.pulse.activity == Some(Activity::Spin)
}

/// Its programs are gone.
fn has_left(gpu: &Gpu, now: Timestamp) -> bool {
    let off = gpu.pulse.activity == Some(Activity::Off);
    off && gpu
        .pulse
        .quiet_since
        .is_some_and(|since| now.0 - since.0 >= LEFT_MS)
}

fn has_scheduler(node: &Node) -> bool {
    node.gpus.iter().any(Gpu::was_claimed)
}

/// Nodes that pause within so many milliseconds may run one job, beside their sampling interval.
const SAME_MOMENT_MS: i64 = 25_000;

/// Inferred jobs that pause, by when they began to, and the last sign of life of each: those that pause together may be
/// one job, and whoever writes its checkpoint lives for all.
#[derive(Clone, Debug, Default)]
pub(in crate::andon) struct Kin(Vec<(Timestamp, Option<Timestamp>)>);

impl Kin {
    pub(in crate::andon) fn of(fleet: &Fleet) -> Self {
        let inferred = fleet.jobs.iter().filter(|(name, _)| is_inferred(name));
        let pausing = inferred.filter_map(|(_, job)| {
            let since = job.watch.pause?.since;
            let lives = fleet
                .members(job)
                .filter_map(|(_, gpu)| gpu.pulse.host_life());
            Some((since, lives.max()))
        });
        Self(pausing.collect())
    }

    /// The last sign of life of those that pause together with this one.
    pub(in crate::andon) fn life_of(&self, name: &str, watch: &JobWatch) -> Option<Timestamp> {
        let since = watch.pause.filter(|_| is_inferred(name))?.since;
        let near = |(other, _): &&(Timestamp, _)| (other.0 - since.0).abs() <= SAME_MOMENT_MS;
        self.0
            .iter()
            .filter(near)
            .filter_map(|(_, life)| *life)
            .max()
    }
}

impl Fleet {
    /// Takes GPUs that work for nobody together, and lets go of those whose programs are gone.
    pub(in crate::andon) fn infer_jobs(&mut self, now: Timestamp) {
        let mut changes: Vec<(GpuUuid, Option<Holder>)> = Vec::new();
        for (id, node) in &self.nodes {
            let scheduled = has_scheduler(node);
            let leaves = |gpu: &&Gpu| is_ours(gpu) && (scheduled || has_left(gpu, now));
            let leaving = node.gpus.iter().filter(leaves);
            changes.extend(leaving.map(|gpu| (gpu.at.uuid.clone(), None)));
            if !scheduled {
                let joining = joining(node, now).into_iter().map(|i| &node.gpus[i]);
                let ours = node.gpus.iter().find(|gpu| is_ours(gpu));
                let ours = ours.and_then(Gpu::holder);
                let holder = || Some(ours.cloned().unwrap_or_else(|| holder_of(job_on(id))));
                changes.extend(joining.map(|gpu| (gpu.at.uuid.clone(), holder())));
            }
        }
        for (uuid, holder) in changes {
            self.take_holder(now, &uuid, holder);
        }
    }
}

/// The job of a node's GPUs alone.
pub(super) fn job_on(node: &NodeId) -> String {
    format!("{PREFIX}{node}")
}

pub(super) fn holder_of(job: String) -> Holder {
    Holder {
        job,
        ..Holder::default()
    }
}
