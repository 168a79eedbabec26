//! The patterns inside useful work: what a rank does within a job's own cycle at an instant. *(pure)*
//!
//! A cycle is a function of the instant, of the job's seed and of the rank, so that nothing need be remembered.

use super::activity::{Activity, Rank};
use super::board::Board;
use super::job::{SimMillis, Workload};
use super::level::Level;
use super::noise::{between, hash, unit};

/// The longest that work goes on without being asked again.
const LONG_MS: SimMillis = 3_600_000;

/// Useful work of a rank at an instant, and until when at most. `speed`: 1 as usual, less when something holds the
/// job up; cycles stretch by it.
pub(crate) fn work_at(
    workload: Workload,
    seed: u64,
    board: &Board,
    rank: &Rank,
    now: SimMillis,
    speed: f64,
) -> (Activity, SimMillis) {
    let cycle = Cycle {
        workload,
        seed,
        board,
        rank,
        now,
        speed: speed.clamp(0.02, 1.0),
    };
    match workload {
        Workload::Inference => cycle.serving(),
        Workload::Prefill => cycle.prefill(),
        Workload::Notebook => cycle.bursts(600_000, 0.6, (5_000.0, 300_000.0)),
        Workload::Experts => cycle.experts(),
        Workload::Offload => cycle.offload(),
        Workload::LoaderBound => cycle.loader_bound(),
        Workload::Reinforcement => cycle.reinforcement(),
        Workload::Simulation => cycle.simulation(),
        Workload::Shared => cycle.shared(),
        _ => (cycle.level().activity(board, rank), now + LONG_MS),
    }
}

struct Cycle<'a> {
    workload: Workload,
    seed: u64,
    board: &'a Board,
    rank: &'a Rank,
    now: SimMillis,
    speed: f64,
}

/// One turn of a cycle.
struct Turn {
    /// Decides what chance decides in it.
    hash: u64,
    begins: SimMillis,
    ends: SimMillis,
}

impl Turn {
    /// An instant so many milliseconds into the turn, and never behind its end.
    fn after(&self, ms: f64) -> SimMillis {
        self.ends.min(self.begins + (ms as SimMillis).max(1))
    }
}

impl Cycle<'_> {
    /// The level of this job: jobs of a kind are not all alike.
    fn level(&self) -> Level {
        let level = Level::of(self.workload, self.rank);
        if matches!(self.workload, Workload::Benchmark) {
            return level;
        }
        level.times(between(hash(&[self.seed, 61]), 0.95, 1.03))
    }

    fn work(&self) -> Activity {
        self.level().activity(self.board, self.rank)
    }

    fn idle(&self) -> Activity {
        Activity::idle(self.board, self.rank.memory_bytes)
    }

    fn spin(&self) -> Activity {
        Activity::spin(self.board, self.rank.memory_bytes)
    }

    /// The turn of a period that all ranks of the job share.
    fn turn(&self, period_ms: f64) -> Turn {
        self.turn_of(period_ms, self.seed)
    }

    /// The turn of a period of whoever has this seed.
    fn turn_of(&self, period_ms: f64, seed: u64) -> Turn {
        let period = (period_ms / self.speed).max(100.0) as SimMillis;
        let own = (hash(&[seed, 31]) % period as u64) as SimMillis;
        let n = (self.now + own).div_euclid(period);
        let begins = n * period - own;
        Turn {
            hash: hash(&[seed, 32, n as u64]),
            begins,
            ends: begins + period,
        }
    }

    /// Kernels for 0.6–0.8 s, then nothing on the GPU while the host steps its optimiser.
    fn offload(&self) -> (Activity, SimMillis) {
        let period = between(hash(&[self.seed, 62]), 3_200.0, 4_200.0);
        let turn = self.turn(period);
        let busy = turn.after(period * between(turn.hash, 0.18, 0.24));
        if self.now < busy {
            (self.work(), busy)
        } else {
            let mut idle = self.idle();
            idle.rates.cpu = 8.0;
            idle.rates.pcie_tx = 1.5e9 * self.speed;
            idle.rates.pcie_rx = 2.0e9 * self.speed;
            (idle, turn.ends)
        }
    }

    /// Works while the loader's buffer lasts; one rank is late each time, and the others spin for it at the end.
    fn loader_bound(&self) -> (Activity, SimMillis) {
        let turn = self.turn(between(hash(&[self.seed, 63]), 4_000.0, 9_000.0));
        let busy = turn.after(between(turn.hash, 1_000.0, 3_000.0));
        let late = (hash(&[turn.hash, 1]) % u64::from(self.rank.ranks.max(1))) as u32;
        if self.now < busy {
            return (self.work(), busy);
        }
        let fed = busy
            + ((turn.ends - busy) as f64 * between(hash(&[turn.hash, 2]), 0.3, 0.8)) as SimMillis;
        if self.rank.number == late || self.now < fed {
            let ends = if self.rank.number == late {
                turn.ends
            } else {
                fed
            };
            let mut idle = self.idle();
            idle.rates.cpu = 3.0;
            idle.rates.read = 150e6;
            (idle, ends)
        } else {
            (self.spin(), turn.ends)
        }
    }

    /// Ranks with hot experts work more; which they are changes every 5–20 minutes.
    fn experts(&self) -> (Activity, SimMillis) {
        let turn = self.turn(between(hash(&[self.seed, 64]), 300_000.0, 1_200_000.0));
        let own = hash(&[turn.hash, u64::from(self.rank.number)]);
        let level = self.level().times(between(own, 0.78, 1.22));
        (level.activity(self.board, self.rank), turn.ends)
    }

    /// Half of the ranks train while the other half waits, then they change roles; each step takes about 116 s.
    fn reinforcement(&self) -> (Activity, SimMillis) {
        let period = 116_000.0 * between(hash(&[self.seed, 65]), 0.93, 1.07);
        let turn = self.turn(period);
        let is_trainer = self.rank.number * 2 < self.rank.ranks;
        let rollout = turn.after(period * between(turn.hash, 0.45, 0.62));
        let sync = turn.after(period - between(hash(&[turn.hash, 3]), 1_500.0, 4_000.0));
        match (self.now, is_trainer) {
            (now, true) if now < rollout => (self.idle(), rollout),
            (now, false) if now < rollout => (self.rollout(&turn), rollout),
            (now, true) if now < sync => (self.train(), sync),
            (now, false) if now < sync => (self.idle(), sync),
            _ => (self.spin(), turn.ends),
        }
    }

    fn train(&self) -> Activity {
        let level = Level::of(Workload::Sharded, self.rank).times(1.25);
        level.activity(self.board, self.rank)
    }

    /// Generation: memory-bound, lighter towards the end when few sequences are left.
    fn rollout(&self, turn: &Turn) -> Activity {
        let own = hash(&[turn.hash, 4, u64::from(self.rank.number)]);
        Activity::burst(self.board, self.rank.memory_bytes, between(own, 0.55, 1.0))
    }

    /// A dump of results every ten minutes, for 20–88 s.
    fn simulation(&self) -> (Activity, SimMillis) {
        let turn = self.turn(600_000.0);
        let dump = turn.after(600_000.0 / self.speed - between(turn.hash, 20_000.0, 88_000.0));
        if self.now < dump {
            return (self.work(), dump);
        }
        let copy = self.rank.number.is_multiple_of(2);
        let activity = if copy {
            Activity::write_out(self.board, self.rank.memory_bytes, 180e6)
        } else {
            self.idle()
        };
        (activity, turn.ends)
    }

    /// The day's traffic: quiet in the night, never quite silent.
    fn serving(&self) -> (Activity, SimMillis) {
        let day = (self.now as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
        let traffic = 0.55 + 0.4 * day;
        self.bursts(30_000, 0.05 + 0.9 * traffic, (1_000.0, 20_000.0))
    }

    /// Light decoding, and a long prompt now and then: 150–190 s at full power.
    fn prefill(&self) -> (Activity, SimMillis) {
        let turn = self.turn(between(hash(&[self.seed, 66]), 420_000.0, 900_000.0));
        let begins = turn.after(between(turn.hash, 30_000.0, 200_000.0));
        let ends = turn
            .ends
            .min(begins + between(hash(&[turn.hash, 5]), 150_000.0, 190_000.0) as SimMillis);
        if begins <= self.now && self.now < ends {
            let full = Level::of(Workload::Accumulated, self.rank);
            return (full.activity(self.board, self.rank), ends);
        }
        let next = if self.now < begins { begins } else { turn.ends };
        let breath = self.turn_of(10_000.0, self.rank.seed);
        let load = between(breath.hash, 0.15, 0.45);
        let mut decode = Activity::burst(self.board, self.rank.memory_bytes, load);
        decode.rates.nvlink = 3.0e9;
        (decode, next.min(breath.ends))
    }

    /// Several processes, whose sum changes every few seconds.
    fn shared(&self) -> (Activity, SimMillis) {
        let turn = self.turn_of(20_000.0, self.rank.seed);
        let level = self.level().times(between(turn.hash, 0.3, 1.25));
        let mut activity = level.activity(self.board, self.rank);
        activity.processes = 2 + (hash(&[self.rank.seed, 67]) % 5) as i64;
        (activity, turn.ends)
    }

    /// At most one burst in each slot of time.
    fn bursts(
        &self,
        slot_ms: SimMillis,
        chance: f64,
        lasts_ms: (f64, f64),
    ) -> (Activity, SimMillis) {
        let own = (hash(&[self.rank.seed, 31]) % slot_ms as u64) as SimMillis;
        let n = (self.now + own).div_euclid(slot_ms);
        let slot_begins = n * slot_ms - own;
        let slot_ends = slot_begins + slot_ms;
        let h = hash(&[self.rank.seed, self.seed, n as u64]);
        let lasts = between(hash(&[h, 2]), lasts_ms.0, lasts_ms.1) as SimMillis;
        let begins = slot_begins + (unit(hash(&[h, 3])) * (slot_ms - lasts) as f64) as SimMillis;
        let ends = begins + lasts;
        if unit(h) >= chance {
            (self.idle(), slot_ends)
        } else if self.now < begins {
            (self.idle(), begins)
        } else if self.now < ends {
            let load = unit(hash(&[h, 4]));
            (
                Activity::burst(self.board, self.rank.memory_bytes, load),
                ends,
            )
        } else {
            (self.idle(), slot_ends)
        }
    }
}
