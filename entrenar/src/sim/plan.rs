//! Jobs and faults worked out for each GPU: what it does at any instant, and until when. *(pure)*

use std::sync::Arc;

use super::activity::{Activity, Memory, Rank};
use super::job::{JobSpec, Pause, SimMillis, Timeline, Workload, pause_of};
use super::noise::{between, hash};
use super::physics::Board;
use super::strike::strike;
use super::{SimConfig, SimError, node_name};
use crate::metric::clock_reason;
use crate::report::Holder;

/// When it never ends.
pub(crate) const FOREVER: SimMillis = SimMillis::MAX;
/// Checkpoints are not written more often than this.
const SHORTEST_CHECKPOINT_PERIOD_MS: SimMillis = 60_000;
/// Process ids of the simulation lie above what Linux gives out, so that none is a real process's.
const FIRST_PID: u32 = 5_000_000;

/// What one GPU will live through.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) seed: u64,
    pub(crate) board: &'static Board,
    pub(crate) work: Option<Work>,
    pub(crate) effects: Vec<Effect>,
}

#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) rank: Rank,
    pub(crate) holder: Holder,
}

/// What a fault does to one GPU, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effect {
    pub(crate) from: SimMillis,
    pub(crate) to: SimMillis,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    CoolingLost,
    Memory { rise_ms: SimMillis },
    Spin,
    Stuck,
    Pause,
    Brake,
    Lost,
    Silent,
    Gone,
    RemapPending,
    Uncorrected,
}

/// Whether a GPU answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    Lost,
    /// The call does not come back before this time.
    NotBefore(SimMillis),
}

/// An XID that is due on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DueXid {
    pub(crate) at: SimMillis,
    pub(crate) gpu: u32,
    pub(crate) code: u64,
}

/// Time in which a node's agent does not report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    pub(crate) from: SimMillis,
    pub(crate) to: SimMillis,
    pub(crate) planned: bool,
}

/// What one node will live through.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodePlan {
    pub(crate) slots: Vec<Slot>,
    pub(crate) xids: Vec<DueXid>,
    pub(crate) outages: Vec<Outage>,
}

/// Works out every node's plan. `start`: when the simulation starts, on its own clock.
pub(crate) fn plan(config: &SimConfig, start: SimMillis) -> Result<Vec<NodePlan>, SimError> {
    let mut nodes = empty_nodes(config);
    for job in &config.jobs {
        place(config, job, start, &mut nodes)?;
    }
    for fault in &config.faults {
        strike(config, fault, start, &mut nodes)?;
    }
    for node in &mut nodes {
        node.xids.sort_by_key(|xid| xid.at);
    }
    Ok(nodes)
}

fn empty_nodes(config: &SimConfig) -> Vec<NodePlan> {
    let slot = |node, gpu| Slot {
        seed: hash(&[config.seed, 1, u64::from(node), u64::from(gpu)]),
        board: &super::physics::H100,
        work: None,
        effects: Vec::new(),
    };
    (0..config.nodes)
        .map(|node| NodePlan {
            slots: (0..config.gpus_per_node)
                .map(|gpu| slot(node, gpu))
                .collect(),
            ..NodePlan::default()
        })
        .collect()
}

/// Gives a job its GPUs.
fn place(
    config: &SimConfig,
    job: &JobSpec,
    start: SimMillis,
    nodes: &mut [NodePlan],
) -> Result<(), SimError> {
    let seed = job
        .job
        .bytes()
        .fold(config.seed, |h, b| hash(&[h, u64::from(b)]));
    let timeline = Arc::new(timeline_of(job, seed, start));
    for (number, &(node, gpu)) in job.gpus.iter().enumerate() {
        let slot = nodes
            .get_mut(node as usize)
            .and_then(|n| n.slots.get_mut(gpu as usize))
            .ok_or_else(|| SimError::JobOutside {
                job: job.job.clone(),
                node: node_name(node),
                gpu,
            })?;
        if slot.work.is_some() {
            return Err(SimError::GpuTakenTwice {
                job: job.job.clone(),
                node: node_name(node),
                gpu,
            });
        }
        let rank = Rank {
            seed: slot.seed,
            number: number as u32,
            ranks: job.gpus.len() as u32,
            spans_nodes: job.spans_nodes(),
            memory_bytes: memory_of(job.workload, slot, seed),
        };
        slot.work = Some(Work {
            timeline: Arc::clone(&timeline),
            rank,
            holder: holder_of(job, &rank, FIRST_PID + node * 1000 + gpu * 10),
        });
    }
    Ok(())
}

fn timeline_of(job: &JobSpec, seed: u64, start: SimMillis) -> Timeline {
    let every = job
        .checkpoint_every
        .map(|every| (every.as_millis() as SimMillis).max(SHORTEST_CHECKPOINT_PERIOD_MS));
    // A period ends with its checkpoint; the first after the start comes after at least half of one.
    let first_ends = between(hash(&[seed, 5]), 0.5, 1.0);
    Timeline {
        workload: job.workload,
        seed,
        checkpoint_every_ms: every,
        anchor_ms: every.map_or(0, |every| {
            start - every + (first_ends * every as f64) as SimMillis
        }),
    }
}

/// What a rank of the job holds, in whole 2 MiB pages.
fn memory_of(workload: Workload, slot: &Slot, job_seed: u64) -> f64 {
    const PAGE: f64 = 2.0 * 1024.0 * 1024.0;
    let total = slot.board.memory_total_bytes as f64;
    let own = hash(&[slot.seed, 6]);
    let share = match workload {
        Workload::Inference => 0.9,
        Workload::Notebook => between(own, 0.01, 0.22),
        // The job decides, and ranks differ a little.
        _ => between(hash(&[job_seed, 6]), 0.68, 0.80) + between(own, 0.0, 0.004),
    };
    (total * share / PAGE).floor() * PAGE
}

fn holder_of(job: &JobSpec, rank: &Rank, pid: u32) -> Holder {
    Holder {
        job: job.job.clone(),
        kind: job.workload.kind(),
        rank_group: (job.workload == Workload::Pipeline).then(|| format!("stage{}", rank.stage())),
        user: Some(job.user.clone()),
        pids: vec![pid],
        ..Holder::default()
    }
}

impl NodePlan {
    /// The outage that a node is in, if any.
    pub(crate) fn outage(&self, now: SimMillis) -> Option<Outage> {
        self.outages
            .iter()
            .copied()
            .find(|outage| outage.from <= now && now < outage.to)
    }
}

impl Slot {
    /// What the GPU does, and until when at most.
    pub(crate) fn activity(&self, now: SimMillis) -> (Activity, SimMillis) {
        let (mut activity, mut until) = self.undisturbed(now);
        for effect in &self.effects {
            if now < effect.from {
                until = until.min(effect.from);
            } else if now < effect.to {
                until = until.min(effect.to);
                (activity, until) = self.disturbed(effect, activity, until, now);
            }
        }
        (activity, until)
    }

    fn undisturbed(&self, now: SimMillis) -> (Activity, SimMillis) {
        match &self.work {
            Some(work) => work.timeline.at(self.board, &work.rank, now),
            None => (Activity::off(self.board), FOREVER),
        }
    }

    fn disturbed(
        &self,
        effect: &Effect,
        was: Activity,
        until: SimMillis,
        now: SimMillis,
    ) -> (Activity, SimMillis) {
        let board = self.board;
        match (effect.what, &self.work) {
            (What::Gone | What::Lost, _) => (Activity::off(board), until),
            (What::Spin, Some(work)) => (Activity::spin(board, work.rank.memory_bytes), until),
            (What::Stuck, Some(work)) => (Activity::idle(board, work.rank.memory_bytes), until),
            (What::Pause, Some(work)) => {
                let pause = Pause::new(effect.from, effect.to);
                let (activity, ends) = pause_of(board, &work.rank, &pause, now);
                (activity, until.min(ends))
            }
            (What::Memory { rise_ms }, Some(work)) => {
                let (memory, ends) =
                    filling(board, work.rank.memory_bytes, effect.from, rise_ms, now);
                (Activity { memory, ..was }, until.min(ends))
            }
            (What::Brake, _) => {
                let reasons = clock_reason::HW_SLOWDOWN | clock_reason::HW_POWER_BRAKE;
                (was.slowed(board, 0.5, reasons), until)
            }
            _ => (was, until),
        }
    }

    /// Whether a fault of this kind acts now.
    fn suffers(&self, what: What, now: SimMillis) -> Option<&Effect> {
        self.effects
            .iter()
            .find(|e| e.what == what && e.from <= now && now < e.to)
    }

    /// Whether its cooling is lost.
    pub(crate) fn is_uncooled(&self, now: SimMillis) -> bool {
        self.suffers(What::CoolingLost, now).is_some()
    }

    /// Whether a row remap waits for a reset.
    pub(crate) fn has_remap_pending(&self, now: SimMillis) -> bool {
        self.suffers(What::RemapPending, now).is_some()
    }

    /// Memory errors that could not be corrected.
    pub(crate) fn uncorrected(&self, now: SimMillis) -> i64 {
        let struck = |e: &&Effect| e.what == What::Uncorrected && e.from <= now;
        self.effects.iter().filter(struck).count() as i64
    }

    /// Whether the GPU answers.
    pub(crate) fn answer(&self, now: SimMillis) -> Answer {
        if self.suffers(What::Lost, now).is_some() {
            return Answer::Lost;
        }
        match self.suffers(What::Silent, now) {
            Some(effect) => Answer::NotBefore(effect.to),
            None => Answer::Yes,
        }
    }

    /// Whether it ever does not answer at all.
    pub(crate) fn may_fall_silent(&self) -> bool {
        self.effects.iter().any(|e| e.what == What::Silent)
    }

    /// Who holds it.
    pub(crate) fn holder(&self, now: SimMillis) -> Option<&Holder> {
        let work = self.work.as_ref()?;
        self.suffers(What::Gone, now)
            .is_none()
            .then_some(&work.holder)
    }
}

/// Memory of a GPU that fills up: to 97.5 % within the rise, then on by a quarter of a percent a minute, to 99.7 %.
fn filling(
    board: &Board,
    held: f64,
    from: SimMillis,
    rise_ms: SimMillis,
    now: SimMillis,
) -> (Memory, SimMillis) {
    const HIGH: f64 = 0.975;
    const FULL: f64 = 0.997;
    const CREEP_PER_SECOND: f64 = 0.0025 / 60.0;
    let total = board.memory_total_bytes as f64;
    let risen = from + rise_ms;
    let full = risen + ((FULL - HIGH) / CREEP_PER_SECOND * 1e3) as SimMillis;
    let line = |level: f64, per_second: f64, since: SimMillis| Memory {
        bytes: level + per_second * (now - since) as f64 / 1e3,
        bytes_per_second: per_second,
    };
    if now < risen {
        let slope = (HIGH * total - held) / (rise_ms as f64 / 1e3);
        (line(held, slope, from), risen)
    } else if now < full {
        (line(HIGH * total, CREEP_PER_SECOND * total, risen), full)
    } else {
        (line(FULL * total, 0.0, full), FOREVER)
    }
}
