//! What goes wrong with one GPU, beside whatever its job does: kinds of effects and how they act. *(pure)*

use super::activity::{Activity, Memory};
use super::board::Board;
use super::job::SimMillis;
use super::noise::{between, hash};
use super::physics::Extra;
use crate::metric::{self, MetricId, clock_reason};

/// What a fault does to one GPU, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effect {
    pub(crate) from: SimMillis,
    pub(crate) to: SimMillis,
    pub(crate) what: What,
}

impl Effect {
    /// Whether it acts at an instant.
    pub(crate) fn acts(&self, now: SimMillis) -> bool {
        self.from <= now && now < self.to
    }

    fn secs_after(&self, now: SimMillis) -> f64 {
        (now.clamp(self.from, self.to) - self.from) as f64 / 1e3
    }
}

/// Kinds of effects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// Its cooling is lost; the hardware takes care of itself.
    CoolingLost,
    /// Its memory fills up.
    Memory {
        /// How long it takes.
        rise_ms: SimMillis,
    },
    /// Its rank waits busily.
    Spin,
    /// Its rank is stuck on the host.
    Stuck,
    /// Its job writes a checkpoint.
    Pause,
    /// The power supply asks for a brake: half the clock.
    Brake,
    /// It has fallen off the bus.
    Lost,
    /// Calls for it do not come back.
    Silent,
    /// Its job is gone.
    Gone,
    /// A row remap waits for a reset.
    RemapPending,
    /// A row remap failed.
    RemapFailed,
    /// A memory error that could not be corrected; it stays counted.
    Uncorrected,
    /// Warmer than its load explains.
    Warm {
        /// Kelvin, once it has come.
        kelvin: f64,
        /// Time in which it comes, evenly; 0: at once.
        ramp_ms: SimMillis,
    },
    /// The clocks are cut to stay at a temperature.
    Throttled {
        /// The temperature that is held.
        celsius: f64,
        /// Share of the clock that is left.
        share: f64,
        /// Whether the hardware does it; otherwise software.
        by_hardware: bool,
    },
    /// A lower power limit is set.
    Capped {
        /// The limit.
        watts: f64,
    },
    /// Slower than it should be, for no reason that it gives.
    Slow {
        /// Share of the clock that is left.
        share: f64,
    },
    /// Its host cannot feed it for a share of the time.
    Starved {
        /// That share.
        share: f64,
    },
    /// No longer enumerated.
    Missing,
    /// Every reading stays what it was, but for the energy.
    Frozen,
    /// Power cannot be read.
    NoPower,
    /// It is shared out in slices: no utilisation is reported.
    Sliced,
    /// A counter of errors grows, evenly faster; it keeps what it reached.
    Counts {
        /// Which.
        counter: MetricId,
        /// Errors a second at the beginning.
        from_rate: f64,
        /// Errors a second at the end.
        to_rate: f64,
    },
    /// The PCIe link is narrower or slower than it was.
    PcieLink {
        /// Lanes.
        width: i64,
        /// Generation.
        generation: i64,
    },
    /// NVLinks are down.
    NvlinksDown {
        /// How many.
        links: i64,
    },
    /// Memory in use grows from what the job holds.
    Grows {
        /// Bytes a second.
        bytes_per_second: f64,
        /// Share of the memory at which it stays.
        most: f64,
        /// Share of the memory that it starts from; 0: what the job holds.
        least: f64,
    },
    /// Kernels run on although no process is left.
    Zombie,
    /// The driver is loaded anew at the beginning: running totals start from 0.
    Reset,
}

/// While something changes slowly, it is looked at this often.
const SLOW_STEP_MS: SimMillis = 10_000;

/// What an effect makes of a GPU's activity, and until when at most.
pub(crate) fn disturb(
    effect: &Effect,
    board: &Board,
    was: Activity,
    now: SimMillis,
) -> (Activity, SimMillis) {
    let until = effect.to;
    match effect.what {
        What::Lost | What::Missing => (Activity::off(board), until),
        What::Brake => {
            let reasons = clock_reason::HW_SLOWDOWN | clock_reason::HW_POWER_BRAKE;
            (was.slowed(board, 0.5, reasons), until)
        }
        // A board that waits is not hot enough to be slowed down.
        What::Throttled {
            share, by_hardware, ..
        } if is_busy(board, &was) => throttled(effect, board, was, share, by_hardware, now),
        What::Capped { watts } => (was.capped(board, watts), until),
        What::Slow { share } => (was.slowed(board, share, 0), until),
        What::Starved { share } if is_busy(board, &was) => (was.starved(board, share), until),
        What::Grows {
            bytes_per_second,
            most,
            least,
        } if was.processes > 0 => {
            let total = board.memory_total_bytes as f64;
            let start = if least > 0.0 {
                least * total
            } else {
                was.memory.bytes
            };
            let full_s = (most * total - start).max(0.0) / bytes_per_second;
            let full = effect.from + (full_s * 1e3) as SimMillis;
            let memory = if now < full {
                Memory {
                    bytes: start + bytes_per_second * effect.secs_after(now),
                    bytes_per_second,
                }
            } else {
                Memory {
                    bytes: most * total,
                    bytes_per_second: 0.0,
                }
            };
            let ends = if now < full { until.min(full) } else { until };
            (Activity { memory, ..was }, ends)
        }
        What::Zombie => {
            let spin = Activity::spin(board, 0.31 * board.memory_total_bytes as f64);
            let zombie = Activity {
                processes: 0,
                ..spin
            };
            (zombie, until)
        }
        _ => (was, until),
    }
}

/// Whether a GPU does more than wait.
pub(crate) fn is_busy(board: &Board, activity: &Activity) -> bool {
    1.3 * board.spin_watts < activity.watts
}

/// Software slows down at the maximum operating temperature; hardware cuts in above, and lets go for a while when it
/// has cooled enough.
fn throttled(
    effect: &Effect,
    board: &Board,
    was: Activity,
    share: f64,
    by_hardware: bool,
    now: SimMillis,
) -> (Activity, SimMillis) {
    const TURN_MS: SimMillis = 5_000;
    let turn = (now - effect.from) / TURN_MS;
    let ends = effect.to.min(effect.from + (turn + 1) * TURN_MS);
    let chance = hash(&[effect.from as u64, turn as u64]);
    let hardware = clock_reason::HW_SLOWDOWN | clock_reason::HW_THERMAL;
    let reasons = match (by_hardware, chance % 8) {
        (false, _) | (true, 0) => clock_reason::SW_THERMAL,
        (true, 1) => hardware | clock_reason::SW_THERMAL,
        (true, _) => hardware,
    };
    let share = share * between(hash(&[chance, 1]), 0.97, 1.03);
    (was.slowed(board, share, reasons), ends)
}

/// The heat that an effect adds, and until when at most; `None` when it adds none.
pub(crate) fn heat(effect: &Effect, now: SimMillis) -> Option<(Extra, SimMillis)> {
    match effect.what {
        What::Warm { kelvin, ramp_ms } => {
            let risen = effect.from + ramp_ms;
            let share = if ramp_ms == 0 {
                1.0
            } else {
                ((now - effect.from) as f64 / ramp_ms as f64).min(1.0)
            };
            let until = if now < risen {
                effect.to.min(now + SLOW_STEP_MS)
            } else {
                effect.to
            };
            let extra = Extra::Kelvin {
                kelvin: kelvin * share,
                lag_s: 12.0,
            };
            Some((extra, until))
        }
        What::Throttled { celsius, .. } => Some((Extra::HoldAt { celsius }, effect.to)),
        _ => None,
    }
}

/// Errors that effects have added to a counter by an instant.
pub(crate) fn counted(effects: &[Effect], counter: MetricId, now: SimMillis) -> i64 {
    let errors = |effect: &Effect| match effect.what {
        What::Counts {
            counter: own,
            from_rate,
            to_rate,
        } if own == counter && effect.from <= now => {
            let lasts = ((effect.to - effect.from) as f64 / 1e3).max(1.0);
            let secs = effect.secs_after(now);
            let sum = from_rate * secs + (to_rate - from_rate) * secs * secs / (2.0 * lasts);
            // Errors come unevenly: the count runs ahead of its mean and falls behind it, and never goes back.
            let unit = (now / 1000).clamp(effect.from / 1000, effect.to / 1000);
            let ahead = between(hash(&[effect.from as u64, unit as u64]), 0.0, 0.9);
            let rate = from_rate + (to_rate - from_rate) * secs / lasts;
            (sum + ahead * rate.min(1.0)) as i64
        }
        What::Uncorrected if counter == metric::ECC_UNCORRECTED && effect.from <= now => 1,
        _ => 0,
    };
    effects.iter().map(errors).sum()
}
