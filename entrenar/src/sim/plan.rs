//! Jobs and faults worked out for each GPU: what it does at any instant, and until when. *(pure)*

use std::sync::Arc;

use super::activity::{Activity, Memory, Rank};
use super::board::{Board, H100};
use super::effect::{self, Effect, What};
use super::job::{JobSpec, Pause, SimMillis, Timeline, Workload, pause_of};
use super::noise::{between, hash};
use super::physics::Extra;
use super::score::{Beat, Score};
use super::strike::strike;
use super::{SimConfig, SimError, node_name};
use crate::gpu::Values;
use crate::metric::{self, MetricId};
use crate::report::{Holder, Labels};
use crate::trace::TraceEvent;

/// When it never ends.
pub(crate) const FOREVER: SimMillis = SimMillis::MAX;
/// Checkpoints are not written more often than this.
const SHORTEST_CHECKPOINT_PERIOD_MS: SimMillis = 60_000;
const FIRST_PID: u32 = 5_000_000;

/// What one GPU will live through.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) seed: u64,
    pub(crate) board: &'static Board,
    /// The jobs that hold it, one after the other.
    pub(crate) works: Vec<Work>,
    pub(crate) effects: Vec<Effect>,
}

/// A rank of a job on a GPU.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// From when on the GPU is its job's.
    pub(crate) from: SimMillis,
    /// Until when.
    pub(crate) to: SimMillis,
    pub(crate) play: Play,
    pub(crate) rank: Rank,
    /// What a scheduler says of it; `None` where none is.
    pub(crate) holder: Option<Arc<Holder>>,
}

/// Where it stands what a job does.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// It goes on for ever.
    Endless(Arc<Timeline>),
    /// It is written down.
    Scored(Arc<Score>),
}

impl Play {
    fn at(&self, board: &Board, rank: &Rank, now: SimMillis) -> (Activity, SimMillis) {
        match self {
            Self::Endless(timeline) => timeline.at(board, rank, now),
            Self::Scored(score) => score.at(board, rank, now),
        }
    }

    /// Whether its ranks wait for each other.
    pub(crate) fn is_synchronous(&self) -> bool {
        match self {
            Self::Endless(timeline) => timeline.workload.is_synchronous(),
            Self::Scored(score) => score.workload.is_synchronous(),
        }
    }
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
    /// Whether it is another process that speaks afterwards; otherwise only the way to it was cut.
    pub(crate) restarts: bool,
}

/// Time in which what a node's agent says does not arrive; it arrives when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay {
    pub(crate) from: SimMillis,
    pub(crate) to: SimMillis,
}

/// What people say of a node, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) at: SimMillis,
    pub(crate) event: TraceEvent,
}

/// What one node will live through.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodePlan {
    /// Where it hangs.
    pub(crate) labels: Labels,
    pub(crate) slots: Vec<Slot>,
    pub(crate) xids: Vec<DueXid>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) delays: Vec<Delay>,
    pub(crate) notes: Vec<Note>,
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
        board: &H100,
        works: Vec::new(),
        effects: Vec::new(),
    };
    (0..config.nodes)
        .map(|node| NodePlan {
            labels: labels_of(node),
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
        if !slot.works.is_empty() {
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
        slot.works.push(Work {
            from: SimMillis::MIN,
            to: FOREVER,
            play: Play::Endless(Arc::clone(&timeline)),
            rank,
            holder: Some(Arc::new(holder_of(job, &rank, pid_of(node, gpu)))),
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
pub(crate) fn memory_of(workload: Workload, slot: &Slot, job_seed: u64) -> f64 {
    const PAGE: f64 = 2.0 * 1024.0 * 1024.0;
    let total = slot.board.memory_total_bytes as f64;
    let own = hash(&[slot.seed, 6]);
    let share = match workload {
        Workload::Inference => 0.9,
        Workload::Prefill => between(hash(&[job_seed, 6]), 0.8, 0.95),
        Workload::Notebook => between(own, 0.01, 0.22),
        Workload::Shared => between(own, 0.15, 0.5),
        Workload::SmallSteps | Workload::LoaderBound | Workload::Simulation => {
            between(hash(&[job_seed, 6]), 0.14, 0.45) + between(own, 0.0, 0.004)
        }
        // The job decides, and ranks differ a little.
        _ => between(hash(&[job_seed, 6]), 0.68, 0.80) + between(own, 0.0, 0.004),
    };
    (total * share / PAGE).floor() * PAGE
}

/// Process ids of the simulation lie above what Linux gives out, so that none is a real process's.
pub(crate) fn pid_of(node: u32, gpu: u32) -> u32 {
    FIRST_PID + node * 1000 + gpu * 10
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
    /// The job that holds it at an instant.
    pub(crate) fn work(&self, now: SimMillis) -> Option<&Work> {
        let next = self.works.partition_point(|work| work.from <= now);
        let work = &self.works[next.checked_sub(1)?];
        (now < work.to).then_some(work)
    }

    /// When that may change.
    fn work_changes(&self, now: SimMillis) -> SimMillis {
        let next = self.works.partition_point(|work| work.from <= now);
        let begins = self.works.get(next).map_or(FOREVER, |work| work.from);
        let ends = self.work(now).map_or(FOREVER, |work| work.to);
        begins.min(ends)
    }

    /// What the GPU does, and until when at most.
    pub(crate) fn activity(&self, now: SimMillis) -> (Activity, SimMillis) {
        let (mut activity, mut until) = self.undisturbed(now);
        for effect in &self.effects {
            if now < effect.from {
                until = until.min(effect.from);
            } else if now < effect.to {
                let ends;
                (activity, ends) = self.disturbed(effect, activity, now);
                until = until.min(ends);
            }
        }
        (activity, until)
    }

    fn undisturbed(&self, now: SimMillis) -> (Activity, SimMillis) {
        let changes = self.work_changes(now);
        match self.work(now) {
            Some(work) => {
                let (activity, until) = work.play.at(self.board, &work.rank, now);
                (activity, until.min(changes))
            }
            None => (Activity::off(self.board), changes),
        }
    }

    fn disturbed(&self, effect: &Effect, was: Activity, now: SimMillis) -> (Activity, SimMillis) {
        let board = self.board;
        match (effect.what, self.work(now)) {
            (What::Gone, _) => (Activity::off(board), effect.to),
            (What::Spin, Some(work)) => (Activity::spin(board, work.rank.memory_bytes), effect.to),
            (What::Stuck, Some(work)) => (Activity::idle(board, work.rank.memory_bytes), effect.to),
            (What::Pause, Some(work)) => {
                let pause = Pause::new(effect.from, effect.to);
                let (activity, ends) = pause_of(board, &work.rank, &pause, now);
                (activity, effect.to.min(ends))
            }
            (What::Memory { rise_ms }, Some(work)) => {
                let (memory, ends) =
                    filling(board, work.rank.memory_bytes, effect.from, rise_ms, now);
                (Activity { memory, ..was }, effect.to.min(ends))
            }
            _ => effect::disturb(effect, board, was, now),
        }
    }

    /// Whether an effect of this kind acts now.
    fn suffers(&self, what: What, now: SimMillis) -> Option<&Effect> {
        self.effects.iter().find(|e| e.what == what && e.acts(now))
    }

    fn acting(&self, now: SimMillis) -> impl Iterator<Item = &Effect> {
        self.effects.iter().filter(move |e| e.acts(now))
    }

    /// Whether its cooling is lost.
    pub(crate) fn is_uncooled(&self, now: SimMillis) -> bool {
        self.suffers(What::CoolingLost, now).is_some()
    }

    /// Heat that comes on top of the load's, and until when at most.
    pub(crate) fn extra_heat(&self, now: SimMillis) -> (Extra, SimMillis) {
        let heats = self.acting(now).filter_map(|e| effect::heat(e, now));
        heats.last().unwrap_or((Extra::None, FOREVER))
    }

    /// Whether its readings stay what they were.
    pub(crate) fn is_frozen(&self, now: SimMillis) -> bool {
        self.suffers(What::Frozen, now).is_some()
    }

    /// Whether it is no longer enumerated.
    pub(crate) fn is_missing(&self, now: SimMillis) -> bool {
        self.suffers(What::Missing, now).is_some()
    }

    /// Whether its running totals start from 0 at this instant.
    pub(crate) fn is_reset_at(&self, now: SimMillis) -> bool {
        let mut resets = self.effects.iter().filter(|e| e.what == What::Reset);
        resets.any(|e| e.from == now)
    }

    /// Errors that a counter shows.
    pub(crate) fn counted(&self, counter: MetricId, now: SimMillis) -> i64 {
        effect::counted(&self.effects, counter, now)
    }

    /// Readings that effects change: flags, links, limits.
    pub(crate) fn mark(&self, now: SimMillis, values: &mut Values) {
        for effect in self.acting(now) {
            match effect.what {
                What::RemapPending => values.set(metric::REMAPPED_ROWS_PENDING, 1),
                What::RemapFailed => values.set(metric::REMAPPED_ROWS_FAILURE, 1),
                What::Capped { watts } => {
                    values.set(metric::POWER_LIMIT, (watts * 1e3) as i64);
                }
                What::PcieLink { width, generation } => {
                    values.set(metric::PCIE_LINK_WIDTH, width);
                    let was = values.get(metric::PCIE_LINK_GEN);
                    let now = was.map_or(generation, |was| was.min(generation));
                    values.set(metric::PCIE_LINK_GEN, now);
                }
                What::NvlinksDown { links } => {
                    values.set(metric::NVLINK_ACTIVE_LINKS, self.board.nvlinks - links);
                }
                _ => {}
            }
        }
    }

    /// Takes away what cannot be read.
    pub(crate) fn withhold(&self, now: SimMillis, values: &mut Values) {
        for effect in self.acting(now) {
            match effect.what {
                What::NoPower => values.set(metric::POWER, None),
                What::Sliced => {
                    values.set(metric::UTILIZATION, None);
                    values.set(metric::MEMORY_UTILIZATION, None);
                }
                _ => {}
            }
        }
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
    pub(crate) fn holder(&self, now: SimMillis) -> Option<&Arc<Holder>> {
        let work = self.work(now)?;
        let is_gone = self.suffers(What::Gone, now).is_some();
        let is_there = match &work.play {
            Play::Endless(_) => true,
            Play::Scored(score) => score.holds(now),
        };
        (is_there && !is_gone).then_some(work.holder.as_ref()?)
    }

    /// Whether the scheduler has stopped the job that holds it.
    pub(crate) fn is_suspended(&self, now: SimMillis) -> bool {
        match self.work(now).map(|work| &work.play) {
            Some(Play::Scored(score)) => score.bar(now).beat == Beat::Suspended,
            _ => false,
        }
    }
}

/// Four nodes to a rack, two racks to a switch, two power feeds.
pub(crate) fn labels_of(node: u32) -> Labels {
    let rack = node / 4;
    [
        ("rack", format!("r{:02}", rack + 1)),
        ("switch", format!("s{:02}", rack / 2 + 1)),
        (
            "power_feed",
            if rack.is_multiple_of(2) { "a" } else { "b" }.to_owned(),
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
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
