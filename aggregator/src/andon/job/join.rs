//! Jobs that span nodes and that nobody names: parts that pause and go on together, again, are one job. *(pure)*
//!
//! Each node's GPUs are a job by themselves at first. Parts of one job wait for each other: they cannot but pause and go
//! on in the same moment, while jobs that have nothing to do with each other do so once, by chance. Two parts that have
//! done it twice in a row, on boards of one model and with the same share of their memory in use, are one from then on,
//! under a name that does not change. A node that stands still for minutes while the others work, or works while they
//! stand still, is judged by itself again, as if it had never been joined.

use std::collections::VecDeque;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::infer::{holder_of, is_inferred, job_on, memory_of, same_memory};
use super::{JobWatch, Pause};
use crate::andon::fleet::{Fleet, Job};
use crate::andon::gpu::Gpu;
use crate::andon::pulse::Activity;

/// What the name of a job on several nodes ends with; it begins with the first that was joined.
pub(in crate::andon) const OTHERS: &str = " and others";
/// Parts are compared this often, in milliseconds.
const JOIN_MS: i64 = 10_000;
/// So many pauses in a row must agree.
const N_MOVES: usize = 2;
/// A shorter pause tells nothing, in milliseconds; nor does one of a few sampling intervals.
const LEAST_PAUSE_MS: i64 = 15_000;
const LEAST_PAUSE_INTERVALS: i64 = 3;
/// Parts of one job pause, and go on, this close to each other, in milliseconds and beside two sampling intervals.
const SAME_MOMENT_MS: i64 = 2_000;
/// How long after a pause parts are compared, in milliseconds: by then all have been looked at.
const SETTLED_MS: i64 = 30_000;
/// A node that stands still for so long while others work is no part of their job, in milliseconds.
const APART_MS: i64 = 180_000;

/// When a job last paused and went on, the newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::andon) struct Moves([Option<(Timestamp, Timestamp)>; N_MOVES]);

impl Moves {
    pub(super) fn note(&mut self, paused: Timestamp, resumed: Timestamp, interval_ms: i64) {
        let least_ms = LEAST_PAUSE_MS.max(LEAST_PAUSE_INTERVALS * interval_ms);
        if resumed.0 - paused.0 >= least_ms {
            self.0.rotate_right(1);
            self.0[0] = Some((paused, resumed));
        }
    }

    /// When the newest of them ended; `None`: too few are known.
    fn known_since(&self) -> Option<Timestamp> {
        self.0[N_MOVES - 1]?;
        self.0[0].map(|(_, resumed)| resumed)
    }

    fn agree(&self, other: &Self, within_ms: i64) -> bool {
        let near = |a: Timestamp, b: Timestamp| (a.0 - b.0).abs() <= within_ms;
        self.0.iter().zip(&other.0).all(|pair| match pair {
            (Some(a), Some(b)) => near(a.0, b.0) && near(a.1, b.1),
            _ => false,
        })
    }
}

/// An inferred job that may be part of another.
struct Part {
    name: String,
    resumed: Timestamp,
    moves: Moves,
    interval_ms: i64,
    model: String,
    memory: u16,
}

impl Part {
    fn of(fleet: &Fleet, name: &str, job: &Job, now: Timestamp) -> Option<Self> {
        let resumed = job.watch.moves.known_since()?;
        if !is_inferred(name) || !job.watch.is_calm() || now.0 - resumed.0 < SETTLED_MS {
            return None;
        }
        let (node, gpu) = fleet.members(job).next()?;
        Some(Self {
            name: name.to_owned(),
            resumed,
            moves: job.watch.moves,
            interval_ms: node.interval_ms,
            model: gpu.model().to_owned(),
            memory: memory_of(fleet.members(job).map(|(_, gpu)| gpu)),
        })
    }

    fn within_ms(&self, other: &Self) -> i64 {
        SAME_MOMENT_MS + 2 * self.interval_ms.max(other.interval_ms)
    }

    fn moves_with(&self, other: &Self) -> bool {
        self.model == other.model
            && same_memory(self.memory, other.memory)
            && self.moves.agree(&other.moves, self.within_ms(other))
    }
}

impl Fleet {
    /// Joins what moves together and parts what does not any more; now and then.
    pub(in crate::andon) fn join_jobs(&mut self, now: Timestamp) {
        let since = self.joined_at.map(|at| now.0 - at.0);
        if since.is_some_and(|ms| (0..JOIN_MS).contains(&ms)) {
            return;
        }
        self.joined_at = Some(now);
        self.part_jobs(now);
        let parts = self.jobs.iter();
        let mut parts: Vec<Part> = parts
            .filter_map(|(name, job)| Part::of(self, name, job, now))
            .collect();
        parts.sort_by(|a, b| (a.resumed, &a.name).cmp(&(b.resumed, &b.name)));
        let mut parts = VecDeque::from(parts);
        while let Some(first) = parts.pop_front() {
            let near = parts
                .iter()
                .take_while(|part| part.resumed.0 - first.resumed.0 <= first.within_ms(part));
            let n_near = near.count();
            let (joining, rest): (Vec<_>, Vec<_>) = parts
                .drain(..n_near)
                .partition(|part| first.moves_with(part));
            rest.into_iter()
                .rev()
                .for_each(|part| parts.push_front(part));
            if !joining.is_empty() {
                let names = std::iter::once(&first).chain(&joining);
                self.join(now, names.map(|part| part.name.clone()).collect());
            }
        }
    }

    /// These jobs are one from now on. One that already spans nodes keeps its name and what it has learned.
    fn join(&mut self, now: Timestamp, mut names: Vec<String>) {
        names.sort_by_key(|name| (!name.ends_with(OTHERS), name.clone()));
        let joined = |name: &String| {
            let name = name.trim_end_matches(OTHERS);
            format!("{name}{OTHERS}")
        };
        // A node that has left a job since may have given it its name.
        let is_free =
            |name: &&String| name.ends_with(OTHERS) || !self.jobs.contains_key(&joined(name));
        let Some(known) = names.iter().find(is_free) else {
            return;
        };
        let name = joined(known);
        let Some(watch) = self.jobs.get(known).map(|job| job.watch.clone()) else {
            return;
        };
        for part in names.iter().filter(|part| **part != name) {
            let uuids = self.jobs.get(part).map(|job| job.members.clone());
            for uuid in uuids.unwrap_or_default().into_keys() {
                self.take_holder(now, &uuid, Some(holder_of(name.clone())));
            }
        }
        if let Some(job) = self.jobs.get_mut(&name) {
            job.watch = watch;
        }
    }

    /// Nodes that do not move with the rest of their job any more are jobs by themselves.
    fn part_jobs(&mut self, now: Timestamp) {
        let joined = self.jobs.iter().filter(|(name, _)| name.ends_with(OTHERS));
        let apart: Vec<(String, NodeId)> = joined
            .flat_map(|(name, job)| {
                let apart = self.apart(job, now).into_iter();
                apart.map(|node| (name.clone(), node)).collect::<Vec<_>>()
            })
            .collect();
        for (name, node) in apart {
            self.part(now, &name, &node);
        }
    }

    /// The nodes that stand still while at least half of the others of a job work.
    fn apart(&self, job: &Job, now: Timestamp) -> Vec<NodeId> {
        let (mut still, mut working) = (Vec::new(), 0);
        let mut nodes: Vec<&NodeId> = job.members.values().collect();
        nodes.sort_unstable();
        nodes.dedup();
        for id in &nodes {
            let Some(node) = self.nodes.get(*id) else {
                continue;
            };
            let mut ours = node
                .gpus
                .iter()
                .filter(|gpu| job.members.contains_key(&gpu.at.uuid));
            let works = |gpu: &Gpu| {
                let streak = gpu.pulse.streak(now, node.interval_ms);
                streak.is_some_and(|streak| streak.lasts_ms() >= APART_MS)
            };
            if ours.clone().all(|gpu| stands_still(gpu, now)) {
                still.push((*id).clone());
            } else if ours.any(works) {
                working += 1;
            }
        }
        let others = nodes.len() - still.len();
        if working > 0 && working * 2 >= others {
            still
        } else {
            Vec::new()
        }
    }

    /// A node's GPUs are a job by themselves again. It knows what the whole has learned, and has paused since they have.
    fn part(&mut self, now: Timestamp, name: &str, node: &NodeId) {
        let Some(job) = self.jobs.get(name) else {
            return;
        };
        let ours = || {
            let members = self.members(job).map(|(_, gpu)| gpu);
            members.filter(|gpu| gpu.at.node == *node)
        };
        let since = ours().filter_map(|gpu| gpu.pulse.quiet_since).max();
        let life = ours().filter_map(|gpu| gpu.pulse.last_life()).max();
        let uuids: Vec<GpuUuid> = ours().map(|gpu| gpu.at.uuid.clone()).collect();
        let watch = job.watch.of_part(since.map(|since| Pause {
            since,
            dead_since: life.unwrap_or(since),
            longest_dead_ms: 0,
        }));
        let alone = job_on(node);
        for uuid in uuids {
            self.take_holder(now, &uuid, Some(holder_of(alone.clone())));
        }
        if let Some(job) = self.jobs.get_mut(&alone) {
            job.watch = watch;
        }
    }
}

/// It is heard of, and has not worked for long.
fn stands_still(gpu: &Gpu, now: Timestamp) -> bool {
    let long = |since: Timestamp| now.0 - since.0 >= APART_MS;
    let rests = gpu
        .pulse
        .activity
        .is_some_and(|does| does != Activity::Work);
    rests && gpu.pulse.quiet_since.is_some_and(long)
}

impl JobWatch {
    /// Nothing is wrong with it, and it does not pause.
    fn is_calm(&self) -> bool {
        self.pause.is_none()
            && !self.hang.is_raised()
            && !self.stall.is_raised()
            && !self.startup.is_raised()
            && !self.idle.is_raised()
            && !self.partial.is_raised()
            && !self.slow.is_raised()
            && !self.straggler.is_raised()
    }

    /// What a part knows that is judged by itself from now on.
    fn of_part(&self, pause: Option<Pause>) -> Self {
        Self {
            judged_at: self.judged_at,
            productive_ms: self.productive_ms,
            density: self.density,
            is_coupled: self.is_coupled,
            gaps: self.gaps,
            pause,
            ..Self::default()
        }
    }
}
