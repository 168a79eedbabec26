//! Jobs of the simulated fleet: what each does, and when. A timeline can be asked about any instant. *(pure)*

use std::time::Duration;

use super::activity::{Activity, Rank};
use super::board::Board;
use super::cycle::work_at;
use super::noise::{between, hash};
use crate::report::JobKind;

/// What kind of load a job puts on its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Large synchronous data-parallel training at the power cap.
    DataParallel,
    /// Pipeline-parallel training: stages differ by 15 % for good.
    Pipeline,
    /// Data-parallel training with small steps: 77–90 % busy.
    SmallSteps,
    /// An inference server: 90 % of the memory held from the start, bursts of work, quiet nights.
    Inference,
    /// A person's notebook: little memory, long pauses, short bursts.
    Notebook,
    /// Mixture of experts: ranks differ by a quarter by routing, and the hot ones change every few minutes.
    Experts,
    /// Fully sharded data parallel, with tensor parallelism inside a node.
    Sharded,
    /// Data-parallel training with many micro-steps before each exchange: at the power cap all the time.
    Accumulated,
    /// Sharded training with its optimiser on the host: 2.8 s of every 3.5 s without a kernel, for ever.
    Offload,
    /// Training that its data loader cannot feed: works for 1–3 s, waits for 2–8 s.
    LoaderBound,
    /// Reinforcement learning: trainers and rollout workers take turns within a step of two minutes.
    Reinforcement,
    /// Fluid or molecular dynamics: no NVLink, and dumps of results every ten minutes.
    Simulation,
    /// A burn-in: full power for as long as it lasts.
    Benchmark,
    /// Several processes share each GPU.
    Shared,
    /// Serving of long prompts: minutes of full power without a word, then light decoding.
    Prefill,
}

impl Workload {
    /// What a scheduler would say of it.
    pub fn kind(self) -> JobKind {
        match self {
            Self::Inference | Self::Prefill => JobKind::Inference,
            Self::Notebook => JobKind::Interactive,
            _ => JobKind::Train,
        }
    }

    /// Whether its ranks wait for each other.
    pub fn is_synchronous(self) -> bool {
        self.kind() == JobKind::Train && !matches!(self, Self::Benchmark | Self::Shared)
    }
}

/// A job: who holds which GPUs, and for what. It has run for hours when the simulation starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The scheduler's id.
    pub job: String,
    /// What it does.
    pub workload: Workload,
    /// Who owns it.
    pub user: String,
    /// Its GPUs in the order of ranks: index of the node in the fleet, index of the GPU on the node.
    pub gpus: Vec<(u32, u32)>,
    /// Time between checkpoints; `None`: it writes none.
    pub checkpoint_every: Option<Duration>,
}

impl JobSpec {
    /// Whether it has ranks on more than one node.
    pub fn spans_nodes(&self) -> bool {
        self.gpus
            .first()
            .is_some_and(|(first, _)| self.gpus.iter().any(|(node, _)| node != first))
    }
}

/// Milliseconds of simulated time since the simulation's own origin, hours before its start.
pub(crate) type SimMillis = i64;

/// The longest that a timeline goes without being asked again.
const ASK_AGAIN_MS: SimMillis = 600_000;

/// A job's timeline: a function of the instant, so that every node may be at its own.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    pub(crate) workload: Workload,
    pub(crate) seed: u64,
    pub(crate) checkpoint_every_ms: Option<SimMillis>,
    /// When the first checkpoint's period begins; any sign.
    pub(crate) anchor_ms: SimMillis,
}

impl Timeline {
    /// What a rank does at an instant, and until when at most.
    pub(crate) fn at(&self, board: &Board, rank: &Rank, now: SimMillis) -> (Activity, SimMillis) {
        if self.workload.is_synchronous() {
            self.training(board, rank, now)
        } else {
            self.work(board, rank, now)
        }
    }

    fn work(&self, board: &Board, rank: &Rank, now: SimMillis) -> (Activity, SimMillis) {
        let (activity, until) = work_at(self.workload, self.seed, board, rank, now, 1.0);
        (activity, until.min(now + ASK_AGAIN_MS))
    }

    fn training(&self, board: &Board, rank: &Rank, now: SimMillis) -> (Activity, SimMillis) {
        let work = |ends: SimMillis| {
            let (activity, until) = self.work(board, rank, now);
            (activity, until.min(ends))
        };
        let Some(every) = self.checkpoint_every_ms else {
            return work(SimMillis::MAX);
        };
        let n = (now - self.anchor_ms).div_euclid(every);
        let period_ends = self.anchor_ms + (n + 1) * every;
        let pause = self.checkpoint(n, every);
        if now < pause.begins {
            work(pause.begins)
        } else if now < pause.ends {
            pause_of(board, rank, &pause, now)
        } else {
            work(period_ends)
        }
    }

    /// The n-th checkpoint: at the end of its period, 15–60 s long.
    fn checkpoint(&self, n: i64, every: SimMillis) -> Pause {
        let h = hash(&[self.seed, 21, n as u64]);
        let lasts = between(h, 15_000.0, 60_000.0) as SimMillis;
        let lasts = lasts.min(every / 3);
        let slack = between(hash(&[h, 1]), 0.0, 0.04 * every as f64) as SimMillis;
        let ends = self.anchor_ms + (n + 1) * every - slack;
        Pause::new(ends - lasts, ends)
    }
}

/// A pause in which rank 0 writes and the others wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) begins: SimMillis,
    pub(crate) ends: SimMillis,
}

impl Pause {
    pub(crate) fn new(begins: SimMillis, ends: SimMillis) -> Self {
        Self { begins, ends }
    }

    /// When the copy to the host is done and the host writes: after 2–10 s.
    fn copied(self) -> SimMillis {
        self.begins + ((self.ends - self.begins) / 4).clamp(2_000, 10_000)
    }
}

/// What a rank does during a pause.
pub(crate) fn pause_of(
    board: &Board,
    rank: &Rank,
    pause: &Pause,
    now: SimMillis,
) -> (Activity, SimMillis) {
    let copied = pause.copied();
    if rank.number != 0 {
        (Activity::spin(board, rank.memory_bytes), pause.ends)
    } else if now < copied {
        (
            Activity::copy_to_host(board, rank.memory_bytes, 9e9),
            copied,
        )
    } else {
        (
            Activity::write_out(board, rank.memory_bytes, 1.6e9),
            pause.ends,
        )
    }
}
