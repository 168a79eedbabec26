//! What a GPU does for its holder, from tick to tick: work, a busy wait, or nothing; and what its host does meanwhile.
//! *(pure)*
//!
//! Utilisation alone cannot tell: a busy wait shows 100 %, and a job that rests between bursts shows 0 % at most
//! instants. Counters can: energy gives the exact mean power between two ticks, whatever happened in between, and
//! traffic, CPU time and file bytes say whether anybody still makes progress. Levels of working ticks are remembered
//! as short and long means, so that a GPU is held against itself.

use entrenar::gpu::Values;
use entrenar::metric::{self, MetricId, clock_reason};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::power_levels::PowerLevels;

/// What a GPU does for its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Activity {
    /// It gets something done.
    Work,
    /// Nothing runs; a program has it open.
    Idle,
    /// It waits busily: a kernel is resident, memory is untouched, power is hardly above idle.
    Spin,
    /// No program has it open.
    Off,
}

impl Activity {
    pub(super) const fn is_work(self) -> bool {
        matches!(self, Self::Work)
    }
}

/// A kernel is resident at least this share of the time in a busy wait.
const BUSY_PERCENT: i64 = 50;
/// Memory is touched at most so much while nothing gets done.
const QUIET_MEMORY_PERCENT: i64 = 2;
/// Tensor pipes or memory bandwidth used more than this is work, in millionths.
const TENSOR_WORK_PPM: i64 = 5_000;
const DRAM_WORK_PPM: i64 = 20_000;
/// Less memory in use than this, without a process: no program has the GPU open.
const NO_CONTEXT_BYTES: i64 = 600 << 20;

/// Traffic of a waiting GPU stays below this, in bytes a second: above it somebody copies.
const PCIE_PROGRESS: f32 = 30e6;
/// GPUs that wait for each other exchange nothing, in bytes a second: above this steps are still taken.
const LINK_PROGRESS: f32 = 20e6;
/// RDMA ports of a node whose job hangs carry less than this: above it somebody writes to network storage.
const NETWORK_PROGRESS: f32 = 50e6;
/// Files of a waiting program: above this somebody reads or writes, in bytes a second and GPU.
const FILE_PROGRESS: f32 = 2e6;
/// A program that waits uses a core or so; one that loads or compiles uses more. In cores a GPU.
const CPU_PROGRESS: f32 = 1.9;

/// Working ticks over which the short and the long mean run, in milliseconds.
const SHORT_MS: f32 = 45_000.0;
const LONG_MS: f32 = 1_800_000.0;

/// A gap up to this, in milliseconds, is a late or lost sample and not blindness.
const LEAST_UNSEEN_MS: i64 = 30_000;

/// What counts as work above rest, in watts; below so much work, power is no measure of pace.
const WORK_ABOVE_REST: f32 = 15.0;
const LEAST_WATTS: f32 = 40.0;

/// Between samples this far apart, in milliseconds, a step may hide.
const LEAST_HIDING_MS: i64 = 5_000;

/// A rest up to this, in milliseconds, is part of work: a loader that lags, a step that waits.
const LONGEST_REST_MS: i64 = 20_000;

/// Shorter steps than this are added to the next: counters move in steps of their own.
const SHORTEST_MS: i64 = 800;

/// Mean power since so many ticks before the last one says what was, and not what is: agents that sample often read
/// energy seldom.
const MISSED_TICKS: i64 = 3;

/// Counters at an instant.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counter {
    at: Timestamp,
    value: Option<i64>,
}

impl Counter {
    /// Whether it was last read at most so long ago.
    fn is_younger(&self, at: Timestamp, ms: i64) -> bool {
        self.value.is_some() && at.0 - self.at.0 <= ms
    }

    /// Per second since the last reading; `None`: not known, or the counter went back.
    fn rate(&mut self, at: Timestamp, value: Option<i64>, scale: f32) -> Option<f32> {
        let value = value?;
        let Some(before) = self.value else {
            *self = Self {
                at,
                value: Some(value),
            };
            return None;
        };
        let ms = at.0 - self.at.0;
        if ms < SHORTEST_MS {
            return None;
        }
        *self = Self {
            at,
            value: Some(value),
        };
        let moved = value.checked_sub(before).filter(|moved| *moved >= 0)?;
        Some(moved as f32 / scale * 1e3 / ms as f32)
    }
}

/// Means of what is reported while a GPU works. NaN: not reported yet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Levels {
    #[serde(with = "as_bits")]
    pub(super) busy: f32,
    #[serde(with = "as_bits")]
    pub(super) memory_busy: f32,
    #[serde(with = "as_bits")]
    pub(super) clock_mhz: f32,
    #[serde(with = "as_bits")]
    pub(super) watts: f32,
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            busy: f32::NAN,
            memory_busy: f32::NAN,
            clock_mhz: f32::NAN,
            watts: f32::NAN,
        }
    }
}

impl Levels {
    fn mix(&mut self, other: Self, share: f32) {
        let mix = |mean: &mut f32, value: f32| {
            if mean.is_nan() {
                *mean = value;
            } else if !value.is_nan() {
                *mean += (value - *mean) * share;
            }
        };
        mix(&mut self.busy, other.busy);
        mix(&mut self.memory_busy, other.memory_busy);
        mix(&mut self.clock_mhz, other.clock_mhz);
        mix(&mut self.watts, other.watts);
    }
}

/// JSON has no NaN: means travel as their bits.
mod as_bits {
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn serialize<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(value.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
        Ok(f32::from_bits(u32::deserialize(from)?))
    }
}

/// Work without a longer rest, whoever holds the GPU; in whole seconds, to be small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Streak {
    /// The first working tick, and the last so far; 0: never.
    since_s: u32,
    last_s: u32,
}

impl Streak {
    fn note(&mut self, at: Timestamp, interval_ms: i64) {
        let goes_on = self.is_on(at, interval_ms);
        self.last_s = (at.0 / 1000).clamp(0, i64::from(u32::MAX)) as u32;
        if !goes_on {
            self.since_s = self.last_s;
        }
    }

    fn is_on(self, now: Timestamp, interval_ms: i64) -> bool {
        now.0 - i64::from(self.last_s) * 1000 <= LONGEST_REST_MS.max(3 * interval_ms)
    }

    pub(super) fn since(self) -> Timestamp {
        Timestamp::from_secs(i64::from(self.since_s))
    }

    pub(super) fn lasts_ms(self) -> i64 {
        (i64::from(self.last_s) - i64::from(self.since_s)) * 1000
    }
}

/// What a GPU does, from tick to tick.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Pulse {
    energy: Counter,
    link: Counter,
    pcie: Counter,
    network: Counter,
    cpu: Counter,
    files: Counter,
    /// Whether its programs' CPU time and file bytes are reported.
    pub(super) sees_host: bool,
    /// Cores that its programs used, last time that was seen.
    pub(super) cores: Option<f32>,
    /// Bytes a second over its node's RDMA ports, last time that was seen.
    pub(super) network_rate: Option<f32>,
    /// The last tick at which its node's RDMA ports carried more than a hung job's leftovers.
    pub(super) network_moved_at: Option<Timestamp>,
    /// Bytes a second over NVLink, last time that was seen.
    pub(super) link_rate: Option<f32>,
    /// Worst state of its programs: 2 blocked on input or output, 3 stopped.
    pub(super) program_state: Option<u8>,
    /// Programs that have it open.
    pub(super) n_programs: Option<u32>,
    /// Programs were counted on it at least once: that none is there means something.
    #[serde(default)]
    pub(super) counts_programs: bool,
    /// Exact mean power since the tick before, or the gauge.
    pub(super) watts: Option<f32>,
    /// What the last row said.
    pub(super) activity: Option<Activity>,
    /// The last tick with work; of this holder.
    pub(super) worked_at: Option<Timestamp>,
    /// First tick without work since.
    pub(super) quiet_since: Option<Timestamp>,
    /// The last tick at which its host made progress: files, copies, CPU.
    pub(super) progress_at: Option<Timestamp>,
    /// Since when this holder has it; the first tick that was seen.
    pub(super) held_since: Option<Timestamp>,
    /// How long it has worked for this holder, in milliseconds.
    pub(super) worked_ms: i64,
    #[serde(default)]
    streak: Streak,
    last_at: Option<Timestamp>,
    pub(super) short: Levels,
    pub(super) long: Levels,
    /// Means of working ticks stand still meanwhile: the job is known to be slow.
    pub(super) frozen: bool,
    levels: PowerLevels,
}

impl Pulse {
    /// Of a GPU with another holder: what it has learned of the device stays.
    pub(super) fn of_new_holder(&mut self) {
        *self = Self {
            levels: self.levels,
            energy: self.energy,
            link: self.link,
            pcie: self.pcie,
            network: self.network,
            counts_programs: self.counts_programs,
            streak: self.streak,
            ..Self::default()
        };
    }

    /// A tick without an answer of the device: what it does is not known.
    pub(super) fn observe_nothing(&mut self) {
        self.activity = None;
    }

    /// Takes in a row that is news. `interval_ms`: between ticks. True when the energy counter went back: the driver
    /// was reloaded, or the GPU reset.
    pub(super) fn observe(
        &mut self,
        at: Timestamp,
        interval_ms: i64,
        row: &Values,
        model: &str,
    ) -> bool {
        let was_reset =
            row.get(metric::ENERGY) < self.energy.value && row.get(metric::ENERGY).is_some();
        let get = |id: MetricId| row.get(id);
        let sum = |a: MetricId, b: MetricId| match (row.get(a), row.get(b)) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).wrapping_add(b.unwrap_or(0))),
        };
        self.held_since.get_or_insert(at);
        let since_last_ms = self.last_at.map_or(0, |last| at.0 - last.0);
        let mean_ms = since_last_ms + MISSED_TICKS * interval_ms.max(SHORTEST_MS);
        let is_of_this_tick = self.energy.is_younger(at, mean_ms);
        let mean = self.energy.rate(at, get(metric::ENERGY), 1e3);
        let gauge = get(metric::POWER).map(|mw| mw as f32 / 1e3);
        self.watts = mean.filter(|_| is_of_this_tick).or(gauge);
        let link = self
            .link
            .rate(at, sum(metric::NVLINK_TX, metric::NVLINK_RX), 1.0);
        self.link_rate = link.or(self.link_rate);
        let pcie = self
            .pcie
            .rate(at, sum(metric::PCIE_TX, metric::PCIE_RX), 1.0);
        let network = self.network.rate(at, get(metric::NETWORK), 1.0);
        self.network_rate = network.or(self.network_rate);
        if network.is_some_and(|rate| rate > NETWORK_PROGRESS) {
            self.network_moved_at = Some(at);
        }
        self.note_host(at, row, sum(metric::PROCESS_READ, metric::PROCESS_WRITE));
        if pcie.is_some_and(|rate| rate > PCIE_PROGRESS)
            || link.is_some_and(|rate| rate > LINK_PROGRESS)
        {
            self.progress_at = Some(at);
        }
        self.levels
            .learn(model, row, gauge, self.watts, self.n_programs);
        self.activity = self.judge(interval_ms, row);
        self.note_work(at, interval_ms, row);
        was_reset
    }

    fn note_host(&mut self, at: Timestamp, row: &Values, file_bytes: Option<i64>) {
        let n_programs = row.get(metric::PROCESSES);
        self.n_programs = n_programs.map(|n| n as u32).or(self.n_programs);
        self.counts_programs |= self.n_programs > Some(0);
        let state = row.get(metric::PROCESS_STATE);
        self.program_state = state.map(|state| state as u8).or(self.program_state);
        let cpu = row.get(metric::PROCESS_CPU);
        self.sees_host |= cpu.is_some() || file_bytes.is_some();
        let cores = self.cpu.rate(at, cpu, 1e3);
        let files = self.files.rate(at, file_bytes, 1.0);
        self.cores = cores.or(self.cores);
        if files.is_some_and(|rate| rate > FILE_PROGRESS)
            || cores.is_some_and(|cores| cores > CPU_PROGRESS)
        {
            self.progress_at = Some(at);
        }
    }

    fn judge(&self, interval_ms: i64, row: &Values) -> Option<Activity> {
        let busy = row.get(metric::UTILIZATION)?;
        let memory_busy = row.get(metric::MEMORY_UTILIZATION)?;
        let over = |id, limit| row.get(id).is_some_and(|ppm| ppm > limit);
        if memory_busy > QUIET_MEMORY_PERCENT
            || over(metric::TENSOR_ACTIVE, TENSOR_WORK_PPM)
            || over(metric::DRAM_ACTIVE, DRAM_WORK_PPM)
        {
            return Some(Activity::Work);
        }
        let Some(watts) = self.watts else {
            // Without any power only rest is certain.
            return (busy == 0 && memory_busy == 0).then(|| self.resting(row));
        };
        let spins = busy >= BUSY_PERCENT;
        let limit = if spins {
            self.levels.spin_watts()
        } else {
            self.levels.rest_watts()
        };
        Some(
            if watts > limit || (!spins && self.worked_between(interval_ms, row)) {
                Activity::Work
            } else if spins && self.has_lost_programs() {
                // What a killed program has left waits for nobody.
                Activity::Off
            } else if spins {
                Activity::Spin
            } else {
                self.resting(row)
            },
        )
    }

    /// It rests at the instant that was looked at, and has drawn more than at rest since the one before: steps that keep
    /// time with the sampling are never seen themselves.
    fn worked_between(&self, interval_ms: i64, row: &Values) -> bool {
        let now_watts = row.get(metric::POWER).map(|mw| mw as f32 / 1e3);
        let drew_more = |(mean, now): (f32, f32)| mean > now + WORK_ABOVE_REST;
        interval_ms >= LEAST_HIDING_MS && self.watts.zip(now_watts).is_some_and(drew_more)
    }

    /// Programs were on it, and none is any more.
    fn has_lost_programs(&self) -> bool {
        self.counts_programs && self.n_programs == Some(0)
    }

    /// Nothing runs: with or without a program that has it open.
    fn resting(&self, row: &Values) -> Activity {
        let open = self.n_programs.map_or_else(
            || {
                row.get(metric::MEMORY_USED)
                    .is_none_or(|bytes| bytes >= NO_CONTEXT_BYTES)
            },
            |n| n > 0,
        );
        let sleeps = row
            .get(metric::CLOCK_EVENT_REASONS)
            .is_some_and(|reasons| reasons & clock_reason::GPU_IDLE != 0);
        if open && !sleeps {
            Activity::Idle
        } else {
            Activity::Off
        }
    }

    fn note_work(&mut self, at: Timestamp, interval_ms: i64, row: &Values) {
        let unseen_ms = self
            .last_at
            .replace(at)
            .map_or(interval_ms, |last| at.0 - last.0);
        let step_ms = unseen_ms.clamp(0, 2 * interval_ms);
        match self.activity {
            Some(Activity::Work) => {
                // The first working tick after a pause is half a pause, and so is the last one before.
                let went_on = self.quiet_since.take().is_none();
                self.worked_ms += step_ms;
                self.worked_at = Some(at);
                self.streak.note(at, interval_ms);
                if went_on {
                    self.note_levels(step_ms, row);
                }
            }
            Some(_) if step_ms >= 2 * interval_ms && unseen_ms > LEAST_UNSEEN_MS => {
                // What was not seen proves no rest.
                self.quiet_since = Some(at);
            }
            Some(_) => {
                self.quiet_since.get_or_insert(at);
            }
            None => {}
        }
    }

    /// Its work without a longer rest, if it goes on.
    pub(super) fn streak(&self, now: Timestamp, interval_ms: i64) -> Option<Streak> {
        self.streak.is_on(now, interval_ms).then_some(self.streak)
    }

    fn note_levels(&mut self, step_ms: i64, row: &Values) {
        let value = |id| row.get(id).map_or(f32::NAN, |value| value as f32);
        let seen = Levels {
            busy: value(metric::UTILIZATION),
            memory_busy: value(metric::MEMORY_UTILIZATION),
            clock_mhz: value(metric::SM_CLOCK),
            watts: self.watts.unwrap_or(f32::NAN),
        };
        let step_ms = step_ms as f32;
        self.short.mix(seen, (step_ms / SHORT_MS).min(1.0));
        if !self.frozen {
            // A plain mean until the window is full.
            let window_ms = LONG_MS.min(self.worked_ms as f32);
            self.long.mix(seen, (step_ms / window_ms).min(1.0));
        }
    }

    /// Power above rest while it works, as a share of its own: exact over any time, so that no rhythm of looking
    /// deceives. `None`: not known, or too little to be a measure.
    pub(super) fn energy_pace(&self) -> Option<f32> {
        let rest = self.levels.rest_watts() - WORK_ABOVE_REST;
        let (short, long) = (self.short.watts - rest, self.long.watts - rest);
        (long >= LEAST_WATTS && short.is_finite()).then(|| (short / long).max(0.0))
    }

    /// The last sign of its host's life while it waits itself: files, copies, CPU, or what its node's ports carry.
    pub(super) fn host_life(&self) -> Option<Timestamp> {
        self.quiet_since
            .and(self.progress_at.max(self.network_moved_at))
    }

    /// The last sign of life before `at`: work, or its host's progress.
    pub(super) fn last_life(&self) -> Option<Timestamp> {
        self.worked_at.max(self.progress_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: &str = "NVIDIA H100 80GB HBM3";

    fn row(busy: i64, memory_busy: i64, watts: i64) -> Values {
        Values::default()
            .with(metric::UTILIZATION, busy)
            .with(metric::MEMORY_UTILIZATION, memory_busy)
            .with(metric::POWER, (watts > 0).then_some(watts * 1000))
            .with(metric::POWER_LIMIT, 700_000)
            .with(metric::MEMORY_USED, 60 << 30)
    }

    #[test]
    fn power_and_utilisation_together_tell_work_from_waiting() {
        let check = |busy, memory_busy, watts, expected: Option<Activity>| {
            let mut pulse = Pulse::default();
            let row = row(busy, memory_busy, watts);
            pulse.observe(Timestamp::from_secs(0), 1000, &row, H100);
            assert_eq!(
                pulse.activity, expected,
                "{busy} % {memory_busy} % {watts} W"
            );
        };
        check(0, 0, 122, Some(Activity::Idle));
        // Between two bursts of an offloading job.
        check(0, 0, 186, Some(Activity::Work));
        // A busy wait in a collective.
        check(100, 0, 128, Some(Activity::Spin));
        check(100, 45, 690, Some(Activity::Work));
        // Compute that lives in registers.
        check(100, 1, 480, Some(Activity::Work));
        // Light inference.
        check(6, 4, 130, Some(Activity::Work));
        check(100, 0, 0, None);
        check(0, 0, 0, Some(Activity::Idle));
    }

    #[test]
    fn energy_sees_the_bursts_that_instants_miss() {
        let mut pulse = Pulse::default();
        for tick in 0..6 {
            // 186 W on average; every instant that we look at shows rest.
            let row = row(0, 0, 120).with(metric::ENERGY, 5_000_000 + tick * 1_860_000);
            let reset = pulse.observe(Timestamp::from_secs(tick * 10), 10_000, &row, H100);
            assert!(!reset);
        }
        assert_eq!(pulse.activity, Some(Activity::Work));
        let row = row(0, 0, 120).with(metric::ENERGY, 1_000);
        assert!(pulse.observe(Timestamp::from_secs(60), 10_000, &row, H100));
        assert_eq!(pulse.activity, Some(Activity::Idle));
    }

    #[test]
    fn energy_that_is_read_seldom_does_not_keep_a_gpu_at_work_that_rests_by_now() {
        let mut pulse = Pulse::default();
        for second in 0..=20 {
            // It stops at 15 s; energy is read at 0, 10 and 20 s.
            let watts = if second < 15 { 600 } else { 120 };
            let memory_busy = if second < 15 { 40 } else { 0 };
            let mut row = row(memory_busy, memory_busy, watts);
            if second % 10 == 0 {
                row.set(
                    metric::ENERGY,
                    Some(second.min(15) * 600_000 + (second - 15).max(0) * 120_000),
                );
            }
            pulse.observe(Timestamp::from_secs(second), 1000, &row, H100);
        }
        assert_eq!(pulse.activity, Some(Activity::Idle));
        assert_eq!(pulse.quiet_since, Some(Timestamp::from_secs(15)));
    }

    #[test]
    fn files_copies_and_cores_are_life() {
        let check = |metric, step: i64, lives: bool| {
            let mut pulse = Pulse::default();
            for tick in 0..3 {
                let row = row(100, 0, 128).with(metric, 1 + tick * step);
                pulse.observe(Timestamp::from_secs(tick), 1000, &row, H100);
            }
            assert_eq!(pulse.last_life().is_some(), lives, "{metric:?} {step}");
        };
        check(metric::PROCESS_WRITE, 600_000_000, true);
        check(metric::PROCESS_READ, 0, false);
        check(metric::PCIE_TX, 4_000_000_000, true);
        // What a driver and a waiting program exchange anyway.
        check(metric::PCIE_RX, 1_300_000, false);
        check(metric::PROCESS_CPU, 4_000, true);
        check(metric::PROCESS_CPU, 1_040, false);
    }

    #[test]
    fn a_pause_does_not_move_the_levels_of_work() {
        let mut pulse = Pulse::default();
        for tick in 0..400 {
            let row = if tick % 100 < 80 {
                row(99, 45, 690)
            } else {
                row(100, 0, 128)
            };
            pulse.observe(Timestamp::from_secs(tick), 1000, &row, H100);
        }
        assert!(
            (44.0..=45.0).contains(&pulse.long.memory_busy),
            "{:?}",
            pulse.long
        );
        assert!(
            (44.0..=45.0).contains(&pulse.short.memory_busy),
            "{:?}",
            pulse.short
        );
    }
}
