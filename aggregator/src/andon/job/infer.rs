//! Jobs without a scheduler: GPUs of a node that programs use and that nobody claims are taken to be one job. *(pure)*
//!
//! Their programs began together and wait for each other, which is what a job is: they work since the same moment, or
//! wait busily for a start. What spans nodes is not joined: when several such nodes stop at the same moment, their
//! findings are one by that. A node on which any GPU has ever had a holder has a scheduler that knows better.

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::report::Holder;
use entrenar::unit::Timestamp;

use crate::andon::Scope;
use crate::andon::fleet::{Fleet, Node};
use crate::andon::gpu::Gpu;
use crate::andon::job::JobWatch;
use crate::andon::pulse::Activity;

/// What the name of an inferred job begins with; no scheduler's id does.
const PREFIX: &str = "inferred on ";
/// A GPU must have worked so long without a holder to be taken for part of a job, in milliseconds.
const WORKED_MS: i64 = 30_000;
/// … and have no program for so long to have left it.
const LEFT_MS: i64 = 60_000;
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

/// An inferred job is known by its node: that is what its findings are about.
pub(in crate::andon) fn scope_of(scope: Scope) -> Scope {
    match scope {
        Scope::Job { job, gpus } => match job.strip_prefix(PREFIX) {
            Some(node) => Scope::Node { node: node.into() },
            None => Scope::Job { job, gpus },
        },
        other => other,
    }
}

fn is_ours(gpu: &Gpu) -> bool {
    gpu.holder().is_some_and(|holder| is_inferred(&holder.job))
}

/// It works, and nobody claims it.
fn is_unclaimed(gpu: &Gpu) -> bool {
    gpu.holder().is_none()
        && gpu.pulse.worked_ms >= WORKED_MS
        && gpu
            .pulse
            .activity
            .is_some_and(|activity| activity != Activity::Off)
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
    let these = |of: &dyn Fn(&Gpu) -> bool| -> Vec<usize> {
        let all = node.gpus.iter().enumerate();
        all.filter(|(_, gpu)| of(gpu)).map(|(i, _)| i).collect()
    };
    let mut joining = these(&is_unclaimed);
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
                changes.extend(joining.map(|gpu| (gpu.at.uuid.clone(), Some(holder_on(id)))));
            }
        }
        for (uuid, holder) in changes {
            self.take_holder(now, &uuid, holder);
        }
    }
}

fn holder_on(node: &NodeId) -> Holder {
    Holder {
        job: format!("{PREFIX}{node}"),
        ..Holder::default()
    }
}
