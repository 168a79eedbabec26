//! Jobs of the simulated fleet: what each does, and when. A timeline can be asked about any instant. *(pure)*

use std::time::Duration;

use super::activity::{Activity, Rank};
use super::noise::{between, hash, unit};
use super::physics::Board;
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
}

impl Workload {
    /// What a scheduler would say of it.
    pub fn kind(self) -> JobKind {
        match self {
            Self::DataParallel | Self::Pipeline | Self::SmallSteps => JobKind::Train,
            Self::Inference => JobKind::Inference,
            Self::Notebook => JobKind::Interactive,
        }
    }

    /// Whether its ranks wait for each other.
    pub fn is_synchronous(self) -> bool {
        self.kind() == JobKind::Train
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
        match self.workload {
            Workload::Inference => self.serving(board, rank, now),
            Workload::Notebook => self.notebook(board, rank, now),
            _ => self.training(board, rank, now),
        }
    }

    fn training(&self, board: &Board, rank: &Rank, now: SimMillis) -> (Activity, SimMillis) {
        let work = Activity::work(board, self.workload, rank);
        let Some(every) = self.checkpoint_every_ms else {
            return (work, now + ASK_AGAIN_MS);
        };
        let n = (now - self.anchor_ms).div_euclid(every);
        let period_ends = self.anchor_ms + (n + 1) * every;
        let pause = self.checkpoint(n, every);
        if now < pause.begins {
            (work, pause.begins)
        } else if now < pause.ends {
            pause_of(board, rank, &pause, now)
        } else {
            (work, period_ends)
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

    fn serving(&self, board: &Board, rank: &Rank, now: SimMillis) -> (Activity, SimMillis) {
        // The day's traffic: quiet in the night, never quite silent.
        let day = (now as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
        let traffic = 0.55 + 0.4 * day;
        self.bursts(
            board,
            rank,
            now,
            30_000,
            0.05 + 0.9 * traffic,
            (1_000.0, 20_000.0),
        )
    }

    fn notebook(&self, board: &Board, rank: &Rank, now: SimMillis) -> (Activity, SimMillis) {
        self.bursts(board, rank, now, 600_000, 0.6, (5_000.0, 300_000.0))
    }

    /// At most one burst in each slot of time.
    fn bursts(
        &self,
        board: &Board,
        rank: &Rank,
        now: SimMillis,
        slot_ms: SimMillis,
        chance: f64,
        lasts_ms: (f64, f64),
    ) -> (Activity, SimMillis) {
        let own = (hash(&[rank.seed, 31]) % slot_ms as u64) as SimMillis;
        let n = (now + own).div_euclid(slot_ms);
        let slot_begins = n * slot_ms - own;
        let slot_ends = slot_begins + slot_ms;
        let h = hash(&[rank.seed, self.seed, n as u64]);
        let lasts = between(hash(&[h, 2]), lasts_ms.0, lasts_ms.1) as SimMillis;
        let begins = slot_begins + (unit(hash(&[h, 3])) * (slot_ms - lasts) as f64) as SimMillis;
        let ends = begins + lasts;
        let idle = Activity::idle(board, rank.memory_bytes);
        if unit(h) >= chance {
            (idle, slot_ends)
        } else if now < begins {
            (idle, begins)
        } else if now < ends {
            (
                Activity::burst(board, rank.memory_bytes, unit(hash(&[h, 4]))),
                ends,
            )
        } else {
            (idle, slot_ends)
        }
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
        (Activity::copy_to_host(board, rank.memory_bytes), copied)
    } else {
        (Activity::write_out(board, rank.memory_bytes), pause.ends)
    }
}
