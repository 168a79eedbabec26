//! A job's score: what the whole job does from when on, and what that means for each of its ranks. *(pure)*
//!
//! A score is written before the simulation starts and shared by all ranks. Whatever goes wrong with a job as a whole
//! (a hang, a pause that does not end, a slow network) is an edit of its score.

use super::activity::{Activity, BLOCKED, Memory, Rank, SLEEPING, STOPPED};
use super::board::Board;
use super::cycle::work_at;
use super::job::{SimMillis, Workload};
use super::noise::{between, hash, unit};
use super::plan::FOREVER;

/// What a job does for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Beat {
    /// It has not started, or is gone: nobody holds the GPUs.
    Nobody,
    /// It holds the GPUs and has no process on them: images are pulled.
    Pull,
    /// Weights come in: the memory fills from nothing over the whole beat.
    Load,
    /// Contexts are there and hosts compile, tokenise, or open files.
    HostBusy,
    /// Processes are there and nothing happens.
    Idle,
    /// Processes have opened their GPUs, and never used them.
    Untouched,
    /// Ranks come in over `window_ms`; whoever is there waits for the last. One may never come.
    Barrier {
        /// In which all but an absent one arrive.
        window_ms: SimMillis,
        /// Who never comes.
        absent: Option<u32>,
        /// Whether those who wait spin; otherwise their hosts sleep.
        spins: bool,
    },
    /// Useful work, by the cycle of its kind.
    Work,
    /// Useful work that something holds up.
    Slowed {
        /// Share of the usual speed.
        speed: f64,
        /// Ranks for which the others wait: from, to. Empty: all wait for the network.
        late: (u32, u32),
    },
    /// Writers copy their state to the host and write it out; the others wait for them.
    Checkpoint {
        /// How long the copy takes.
        copy_ms: SimMillis,
        /// Every how many ranks there is a writer; `u32::MAX`: the first alone.
        writer_every: u32,
        /// Bytes a second that a writer gets out; 0: the storage does not answer.
        write_rate: f64,
    },
    /// State is copied to the host beside the work.
    Snapshot,
    /// A look at held-out data: lighter work.
    Evaluate,
    /// All ranks wait in a collective: the end of an evaluation, or a hang.
    Spin,
    /// The loader starts again at the end of an epoch.
    Reload,
    /// One rank is held by its host and the others spin.
    Held {
        /// Which rank.
        culprit: u32,
        /// State of its process.
        state: i64,
    },
    /// One rank runs a kernel without end and the others spin.
    Loops {
        /// Which rank.
        culprit: u32,
    },
    /// All ranks are held by their hosts.
    Cold {
        /// State of their processes.
        state: i64,
    },
    /// Some ranks are stuck waiting for one of them; the rest of the job goes on, slower.
    Partly {
        /// The ranks that are stuck: from, to.
        stuck: (u32, u32),
        /// Which of them the others wait for.
        culprit: u32,
        /// Speed of the rest.
        speed: f64,
    },
    /// The scheduler has stopped all ranks.
    Suspended,
}

/// A job's beats, in order; the first lasts from the beginning of time, the last for ever.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Score {
    pub(crate) workload: Workload,
    pub(crate) seed: u64,
    /// Each beat and when it begins.
    beats: Vec<(SimMillis, Beat)>,
}

/// A beat and when it is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) from: SimMillis,
    pub(crate) to: SimMillis,
    pub(crate) beat: Beat,
}

impl Score {
    /// A job that works from the beginning of time.
    pub(crate) fn new(workload: Workload, seed: u64) -> Self {
        Self {
            workload,
            seed,
            beats: vec![(SimMillis::MIN, Beat::Work)],
        }
    }

    /// Writes a beat over whatever stood between two instants.
    pub(crate) fn set(&mut self, from: SimMillis, to: SimMillis, beat: Beat) {
        if to <= from {
            return;
        }
        let after = self.bar(to.min(FOREVER - 1)).beat;
        let first = self.beats.partition_point(|(at, _)| *at < from);
        let last = self.beats.partition_point(|(at, _)| *at < to);
        let keeps_next = self.beats.get(last).is_some_and(|(at, _)| *at == to);
        let rest = (to != FOREVER && !keeps_next).then_some((to, after));
        self.beats
            .splice(first..last, [(from, beat)].into_iter().chain(rest));
    }

    /// The bar that is played at an instant.
    pub(crate) fn bar(&self, now: SimMillis) -> Bar {
        let next = self.beats.partition_point(|(at, _)| *at <= now).max(1);
        let (from, beat) = self.beats[next - 1];
        let to = self.beats.get(next).map_or(FOREVER, |(at, _)| *at);
        Bar { from, to, beat }
    }

    /// All bars, in order.
    pub(crate) fn bars(&self) -> impl Iterator<Item = Bar> + '_ {
        let ends = self.beats.iter().skip(1).map(|(at, _)| *at);
        let ends = ends.chain([FOREVER]);
        self.beats
            .iter()
            .zip(ends)
            .map(|(&(from, beat), to)| Bar { from, to, beat })
    }

    /// Whether the job holds its GPUs at an instant.
    pub(crate) fn holds(&self, now: SimMillis) -> bool {
        self.bar(now).beat != Beat::Nobody
    }

    /// What a rank does at an instant, and until when at most.
    pub(crate) fn at(&self, board: &Board, rank: &Rank, now: SimMillis) -> (Activity, SimMillis) {
        let bar = self.bar(now);
        let player = Player {
            score: self,
            board,
            rank,
            bar,
            now,
        };
        let (activity, until) = player.play();
        (activity, until.min(bar.to))
    }
}

/// Sensors average over about a second: the turns of a faster cycle cannot be told apart.
const SEEN_MS: f64 = 1_200.0;

/// How long a step of a job takes when nothing holds it up, in milliseconds.
fn step_of(workload: Workload, seed: u64) -> f64 {
    let (shortest, longest): (f64, f64) = match workload {
        Workload::SmallSteps => (150.0, 500.0),
        Workload::DataParallel => (350.0, 1_600.0),
        Workload::Experts => (800.0, 4_000.0),
        Workload::Sharded => (700.0, 6_000.0),
        Workload::Pipeline => (1_500.0, 9_000.0),
        Workload::Accumulated => (2_500.0, 10_000.0),
        _ => return 800.0,
    };
    let share = unit(hash(&[seed, 75]));
    shortest * (longest / shortest).powf(share)
}

/// Device memory of a process that has only a context.
const CONTEXT_BYTES: f64 = 520.0 * 1024.0 * 1024.0;

/// A rank at a bar.
struct Player<'a> {
    score: &'a Score,
    board: &'a Board,
    rank: &'a Rank,
    bar: Bar,
    now: SimMillis,
}

impl Player<'_> {
    fn play(&self) -> (Activity, SimMillis) {
        let (board, memory) = (self.board, self.rank.memory_bytes);
        let is = |culprit: u32| self.rank.number == culprit;
        let for_ever = |activity: Activity| (activity, FOREVER);
        match self.bar.beat {
            Beat::Nobody | Beat::Pull => for_ever(Activity::off(board)),
            Beat::Load => self.load(),
            Beat::HostBusy => for_ever(Activity::host_busy(board, CONTEXT_BYTES, 6e6)),
            Beat::Idle => for_ever(Activity::idle(board, memory)),
            Beat::Untouched => for_ever(Activity::idle(board, CONTEXT_BYTES)),
            Beat::Barrier {
                window_ms,
                absent,
                spins,
            } => self.barrier(window_ms, absent, spins),
            Beat::Work => self.work(1.0),
            Beat::Slowed { speed, late } => self.slowed(speed, late),
            Beat::Checkpoint {
                copy_ms,
                writer_every,
                write_rate,
            } => self.checkpoint(copy_ms, writer_every, write_rate),
            Beat::Snapshot => {
                let (mut work, until) = self.work(0.88);
                work = work.starved(board, 0.1);
                work.rates.pcie_tx += 8e9;
                (work, until)
            }
            Beat::Evaluate => for_ever(self.evaluate()),
            Beat::Reload => for_ever(Activity::host_busy(board, memory, 220e6)),
            Beat::Held { culprit, state } if is(culprit) => {
                for_ever(Activity::held(board, memory, state))
            }
            Beat::Loops { culprit } if is(culprit) => for_ever(self.endless_kernel()),
            Beat::Spin | Beat::Held { .. } | Beat::Loops { .. } => {
                for_ever(Activity::spin(board, memory))
            }
            Beat::Cold { state } => for_ever(Activity::held(board, memory, state)),
            Beat::Partly {
                stuck,
                culprit,
                speed,
            } => self.partly(stuck, culprit, speed),
            Beat::Suspended => for_ever(Activity::held(board, memory, STOPPED)),
        }
    }

    fn work(&self, speed: f64) -> (Activity, SimMillis) {
        let score = self.score;
        work_at(
            score.workload,
            score.seed,
            self.board,
            self.rank,
            self.now,
            speed,
        )
    }

    /// Ranks that are late work all the time at their own pace; the others wait for them at the end of each step.
    fn slowed(&self, speed: f64, late: (u32, u32)) -> (Activity, SimMillis) {
        let (work, until) = self.work(speed);
        let is_late = late.0 <= self.rank.number && self.rank.number < late.1;
        let is_busy = work.watts > self.board.spin_watts * 1.2;
        if is_late || !is_busy || self.score.workload == Workload::Offload {
            return (work, until);
        }
        let step = step_of(self.score.workload, self.score.seed);
        let period = step / speed.max(0.01);
        if period < SEEN_MS {
            return (work.waiting(self.board, 1.0 - speed), until);
        }
        let own = self.score.seed % period as u64;
        let n = (self.now + own as SimMillis).div_euclid(period as SimMillis);
        let begins = n * period as SimMillis - own as SimMillis;
        let uneven = between(hash(&[self.score.seed, 74, n as u64]), 0.93, 1.07);
        let waits = begins + ((step * uneven) as SimMillis).min(period as SimMillis - 1);
        if self.now < waits {
            (work, until.min(waits))
        } else {
            let spin = Activity::spin(self.board, self.rank.memory_bytes);
            (spin, begins + period as SimMillis)
        }
    }

    fn load(&self) -> (Activity, SimMillis) {
        let lasts_s = (self.bar.to.min(self.now + 3_600_000) - self.bar.from) as f64 / 1e3;
        let per_second = self.rank.memory_bytes / lasts_s.max(1.0);
        let loaded = per_second * (self.now - self.bar.from) as f64 / 1e3;
        let idle = Activity::host_busy(self.board, loaded, per_second);
        let mut rates = idle.rates;
        rates.pcie_rx = per_second;
        let memory = Memory {
            bytes: loaded + CONTEXT_BYTES,
            bytes_per_second: per_second,
        };
        let activity = Activity {
            memory,
            rates,
            ..idle
        };
        (activity, FOREVER)
    }

    fn barrier(
        &self,
        window_ms: SimMillis,
        absent: Option<u32>,
        spins: bool,
    ) -> (Activity, SimMillis) {
        let (board, memory) = (self.board, self.rank.memory_bytes);
        let own = hash(&[self.score.seed, 71, u64::from(self.rank.number)]);
        let arrives = self.bar.from + between(own, 0.0, window_ms as f64) as SimMillis;
        if absent == Some(self.rank.number) {
            (Activity::held(board, memory, SLEEPING), FOREVER)
        } else if self.now < arrives {
            (Activity::host_busy(board, CONTEXT_BYTES, 40e6), arrives)
        } else if spins {
            (Activity::spin(board, memory), FOREVER)
        } else {
            let mut waits = Activity::held(board, memory, SLEEPING);
            waits.rates.cpu = 0.2;
            (waits, FOREVER)
        }
    }

    fn checkpoint(&self, copy_ms: SimMillis, every: u32, rate: f64) -> (Activity, SimMillis) {
        let (board, memory) = (self.board, self.rank.memory_bytes);
        let is_writer = self.rank.number.is_multiple_of(every.max(1));
        let copied = self.bar.from + copy_ms;
        if !is_writer {
            (Activity::spin(board, memory), FOREVER)
        } else if self.now < copied {
            let own = between(hash(&[self.score.seed, self.bar.from as u64]), 2e9, 16e9);
            (Activity::copy_to_host(board, memory, own), copied)
        } else if rate > 0.0 {
            (Activity::write_out(board, memory, rate), FOREVER)
        } else {
            (Activity::held(board, memory, BLOCKED), FOREVER)
        }
    }

    fn evaluate(&self) -> Activity {
        let own = hash(&[self.score.seed, 72, self.bar.from as u64]);
        let load = between(own, 0.35, 0.95);
        let mut activity = Activity::burst(self.board, self.rank.memory_bytes, load);
        activity.utilization = ((55.0 + 32.0 * load) as i64, (64.0 + 34.0 * load) as i64);
        activity.rates.nvlink = if self.rank.ranks > 1 { 2.5e9 } else { 0.0 };
        activity.rates.network = if self.rank.spans_nodes { 0.3e9 } else { 0.0 };
        activity
    }

    fn endless_kernel(&self) -> Activity {
        let own = hash(&[self.score.seed, 73]);
        let spin = Activity::spin(self.board, self.rank.memory_bytes);
        let memory = between(hash(&[own, 1]), 0.0, 30.0) as i64;
        let mut rates = spin.rates;
        rates.active = [between(own, 0.1, 0.9), 0.0, memory as f64 / 120.0];
        Activity {
            watts: self.board.watts(between(own, 165.0, 450.0)),
            jitter_watts: 1.5,
            utilization: (100, 100),
            memory_utilization: (memory, memory + 1),
            rates,
            ..spin
        }
    }

    fn partly(&self, stuck: (u32, u32), culprit: u32, speed: f64) -> (Activity, SimMillis) {
        let (board, memory) = (self.board, self.rank.memory_bytes);
        if self.rank.number == culprit {
            (Activity::held(board, memory, SLEEPING), FOREVER)
        } else if stuck.0 <= self.rank.number && self.rank.number < stuck.1 {
            (Activity::spin(board, memory), FOREVER)
        } else {
            self.slowed(speed, (0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(score: &Score) -> Vec<(SimMillis, SimMillis, Beat)> {
        score.bars().map(|b| (b.from, b.to, b.beat)).collect()
    }

    #[test]
    fn a_beat_replaces_what_stood_there_and_nothing_else() {
        let mut score = Score::new(Workload::DataParallel, 1);
        score.set(SimMillis::MIN, 10, Beat::Nobody);
        score.set(50, 60, Beat::Spin);
        score.set(55, 70, Beat::Idle);
        assert_eq!(
            told(&score),
            [
                (SimMillis::MIN, 10, Beat::Nobody),
                (10, 50, Beat::Work),
                (50, 55, Beat::Spin),
                (55, 70, Beat::Idle),
                (70, FOREVER, Beat::Work),
            ]
        );
        score.set(40, FOREVER, Beat::Nobody);
        assert_eq!(score.bar(39).beat, Beat::Work);
        assert_eq!(score.bar(40).to, FOREVER);
        assert!(!score.holds(1_000_000) && score.holds(20) && !score.holds(9));
        score.set(10, 40, Beat::Pull);
        assert_eq!(
            told(&score),
            [
                (SimMillis::MIN, 10, Beat::Nobody),
                (10, 40, Beat::Pull),
                (40, FOREVER, Beat::Nobody),
            ]
        );
    }
}
