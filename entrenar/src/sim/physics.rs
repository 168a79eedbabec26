//! What a board does with a load: power, energy and temperature in closed form. *(pure)*
//!
//! Between two changes of load everything is a sum of exponentials and sine waves, so that a reading costs the same
//! whether one second or one day has passed, and energy is exactly the integral of power at any step.

use super::board::Board;
use super::noise::Wobble;

/// Seconds in which the die follows its power.
const DIE_LAG_S: f64 = 1.0;
/// Seconds in which the heat sink follows.
const SINK_LAG_S: f64 = 40.0;
/// Kelvin of the die over the heat sink, a watt.
const DIE_KELVIN_PER_WATT: f64 = 0.032;
/// Kelvin of the heat sink over the inlet, a watt.
const SINK_KELVIN_PER_WATT: f64 = 0.023;
/// Seconds in which a board without cooling heats up.
const UNCOOLED_LAG_S: f64 = 12.0;
/// Seconds in which it recovers.
const RECOVERY_LAG_S: f64 = 30.0;
/// Seconds in which the clocks find the temperature that they hold.
const HOLD_LAG_S: f64 = 4.0;
/// Kelvin that a watt adds without cooling.
const UNCOOLED_KELVIN_PER_WATT: f64 = 0.12;
/// What slot a board sits in decides how warm its air is: 12–14 K between the first and the last at equal power.
const SLOT_WARMTH: [f64; 8] = [1.0, 0.97, 1.14, 1.24, 1.02, 0.98, 1.16, 1.26];

/// The load that a board is driven with from one instant on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Drive {
    /// Power that it settles at, in watts.
    pub(crate) watts: f64,
    /// Standard deviation around it, in watts.
    pub(crate) jitter_watts: f64,
    /// Heat that does not come from the load alone.
    pub(crate) extra: Extra,
}

/// Kelvin over what the load and a healthy cooler make.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Extra {
    /// None; what there was goes.
    #[default]
    None,
    /// The cooling is lost: the heat grows with the load.
    Uncooled,
    /// The cooling is lost, and the hardware has cut the clocks so far that it holds the slowdown temperature.
    HeldByHardware,
    /// So many kelvin in the end: warm air, a tired cooler.
    Kelvin {
        /// How many.
        kelvin: f64,
        /// Seconds in which they come.
        lag_s: f64,
    },
    /// Clocks are cut so that the board stays at this temperature.
    HoldAt {
        /// Which.
        celsius: f64,
    },
}

/// Power, heat and energy of a board since its load last changed.
#[derive(Clone, Debug)]
pub(crate) struct Heat {
    board: &'static Board,
    wobble: Wobble,
    /// Kelvin a watt, as a multiple of the coolest slot's.
    warmth: f64,
    inlet_celsius: f64,
    drive: Drive,
    /// When the drive began, in seconds.
    since: f64,
    /// Integral of the wobble then.
    wobble_integral: f64,
    /// Power without jitter, die and sink lags in watts, extra heat in kelvin, energy in joules: all then.
    power: f64,
    die: f64,
    sink: f64,
    extra: f64,
    /// Core temperature then.
    celsius: f64,
    energy: f64,
}

/// What a board feels at an instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Feel {
    /// Board power in watts.
    pub(crate) watts: f64,
    /// Energy since the driver was loaded, in joules.
    pub(crate) joules: f64,
    /// Core temperature.
    pub(crate) celsius: f64,
    /// Seconds since the drive began, stretched and squeezed a little by the wobble: what counters run on.
    pub(crate) busy_secs: f64,
    inside: Inside,
}

/// What no sensor shows, and the next load starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Inside {
    wobble: f64,
    /// Integral of the wobble.
    integral: f64,
    /// Power without jitter, die and sink lags, in watts.
    power: f64,
    die: f64,
    sink: f64,
}

impl Heat {
    /// A board that has been driven like this for hours.
    pub(crate) fn settled(
        board: &'static Board,
        seed: u64,
        slot: u32,
        drive: Drive,
        now: f64,
        joules: f64,
    ) -> Self {
        let wobble = Wobble::new(seed);
        let lag = super::noise::between(super::noise::hash(&[seed, 7]), 0.98, 1.02);
        let mut heat = Self {
            board,
            wobble,
            warmth: SLOT_WARMTH[slot as usize % SLOT_WARMTH.len()] * lag * board.warmth,
            inlet_celsius: super::noise::between(super::noise::hash(&[seed, 8]), 24.0, 27.0),
            drive,
            since: now,
            wobble_integral: wobble.at(now).1,
            power: drive.watts,
            die: drive.watts,
            sink: drive.watts,
            extra: 0.0,
            celsius: 0.0,
            energy: joules,
        };
        heat.celsius = heat.celsius(drive.watts, drive.watts);
        heat
    }

    /// Changes the load from an instant on. `feel`: what the board feels then.
    pub(crate) fn drive(&mut self, drive: Drive, now: f64, feel: &Feel) {
        let Inside {
            wobble,
            integral,
            power,
            die,
            sink,
        } = feel.inside;
        // The reading goes on from where it was; only what it settles at changes.
        self.power = power + (self.drive.jitter_watts - drive.jitter_watts) * wobble;
        self.die = die;
        self.sink = sink;
        self.extra = feel.celsius - self.celsius(die, sink);
        self.celsius = feel.celsius;
        self.energy = feel.joules;
        self.drive = drive;
        self.since = now;
        self.wobble_integral = integral;
    }

    /// What the board feels; `now` must not lie before the last change. `pace`: counted seconds a simulated second.
    pub(crate) fn feel(&self, now: f64, pace: f64) -> Feel {
        let dt = now - self.since;
        let (wobble, integral) = self.wobble.at(now);
        let wobbled = integral - self.wobble_integral;
        let (power, die, sink) = self.lags(dt);
        let smooth = self.drive.watts * dt
            + (self.power - self.drive.watts)
                * self.board.power_lag_s
                * (1.0 - (-dt / self.board.power_lag_s).exp());
        Feel {
            watts: power + self.drive.jitter_watts * wobble,
            joules: self.energy + (smooth + self.drive.jitter_watts * wobbled) * pace,
            celsius: self.core_celsius(die, sink, dt),
            busy_secs: dt + COUNTER_WOBBLE * wobbled,
            inside: Inside {
                wobble,
                integral,
                power,
                die,
                sink,
            },
        }
    }

    /// Where the temperature would end at this power without cooling.
    pub(crate) fn uncooled_celsius(&self, watts: f64) -> f64 {
        self.celsius(watts, watts) + UNCOOLED_KELVIN_PER_WATT * watts
    }

    fn celsius(&self, die: f64, sink: f64) -> f64 {
        self.inlet_celsius + self.warmth * (DIE_KELVIN_PER_WATT * die + SINK_KELVIN_PER_WATT * sink)
    }

    /// Core temperature, `dt` seconds after the drive began.
    fn core_celsius(&self, die: f64, sink: f64, dt: f64) -> f64 {
        match self.drive.extra {
            Extra::HoldAt { celsius } => {
                celsius + (self.celsius - celsius) * (-dt / HOLD_LAG_S).exp()
            }
            // What cools down, or is only warm, does not pass the slowdown temperature on its own.
            Extra::None | Extra::Kelvin { .. } => {
                let free = self.celsius(die, sink) + self.extra_after(dt);
                free.min((self.board.slowdown_celsius - 0.5).max(self.celsius))
            }
            _ => self.celsius(die, sink) + self.extra_after(dt),
        }
    }

    /// Power, die and sink, `dt` seconds after the drive began.
    fn lags(&self, dt: f64) -> (f64, f64, f64) {
        let goal = self.drive.watts;
        let step = self.power - goal;
        let power_lag = self.board.power_lag_s;
        let decay = (-dt / power_lag).exp();
        // A first-order lag behind an exponential: the forced part decays with the power, the rest with the lag.
        let lagged = |was: f64, lag: f64| {
            let forced = step / (1.0 - lag / power_lag);
            goal + forced * decay + (was - goal - forced) * (-dt / lag).exp()
        };
        (
            goal + step * decay,
            lagged(self.die, DIE_LAG_S),
            lagged(self.sink, SINK_LAG_S),
        )
    }

    fn extra_after(&self, dt: f64) -> f64 {
        let (goal, lag) = self.extra_goal();
        if goal == 0.0 && self.extra == 0.0 {
            return 0.0;
        }
        goal + (self.extra - goal) * (-dt / lag).exp()
    }

    /// Kelvin that come on top in the end, and the seconds in which they do.
    fn extra_goal(&self) -> (f64, f64) {
        let watts = self.drive.watts;
        let uncooled = UNCOOLED_KELVIN_PER_WATT * watts;
        match self.drive.extra {
            Extra::None => (0.0, RECOVERY_LAG_S),
            Extra::Uncooled => (uncooled, UNCOOLED_LAG_S),
            // The hardware's own loop: clocks go as low as it takes to stay at the slowdown temperature.
            Extra::HeldByHardware => {
                let held = self.board.slowdown_celsius + 0.6 - self.celsius(watts, watts);
                (held.min(uncooled), UNCOOLED_LAG_S)
            }
            // From the slowdown temperature on, the hardware would not let it get warmer.
            Extra::Kelvin { kelvin, lag_s } => {
                let most = self.board.slowdown_celsius - 0.5 - self.celsius(watts, watts);
                (kelvin.min(most.max(0.0)), lag_s)
            }
            // The temperature as a whole is held: see `core_celsius`.
            Extra::HoldAt { .. } => (0.0, HOLD_LAG_S),
        }
    }
}

/// How much of the wobble counters feel: small enough that they never run backwards.
const COUNTER_WOBBLE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::board::H100;

    fn drive(watts: f64) -> Drive {
        Drive {
            watts,
            jitter_watts: 9.0,
            extra: Extra::None,
        }
    }

    #[test]
    fn energy_is_the_integral_of_power() {
        let mut heat = Heat::settled(&H100, 3, 2, drive(690.0), 0.0, 1000.0);
        let mut summed = 1000.0;
        let step = 0.001;
        for i in 0..8000 {
            let now = f64::from(i) * step;
            if i == 2000 {
                let feel = heat.feel(now, 1.0);
                heat.drive(drive(128.0), now, &feel);
            }
            summed += heat.feel(now + step / 2.0, 1.0).watts * step;
        }
        let joules = heat.feel(8.0, 1.0).joules;
        assert!((joules - summed).abs() < 0.01, "{joules} and {summed}");
    }

    #[test]
    fn power_is_near_idle_two_seconds_after_work_stops_and_the_die_cools_at_once() {
        let quiet = |watts| Drive {
            jitter_watts: 0.0,
            ..drive(watts)
        };
        let mut heat = Heat::settled(&H100, 3, 0, quiet(690.0), 0.0, 0.0);
        let hot = heat.feel(0.0, 1.0).celsius;
        let feel = heat.feel(0.0, 1.0);
        heat.drive(quiet(128.0), 0.0, &feel);
        let watts = |at| heat.feel(at, 1.0).watts;
        assert!((300.0..450.0).contains(&watts(0.5)), "{}", watts(0.5));
        assert!((160.0..210.0).contains(&watts(1.0)), "{}", watts(1.0));
        assert!(watts(2.0) < 136.0, "{}", watts(2.0));
        let fallen = hot - heat.feel(5.5, 1.0).celsius;
        assert!((15.0..25.0).contains(&fallen), "{fallen}");
    }

    #[test]
    fn a_board_without_cooling_passes_the_slowdown_temperature_within_half_a_minute() {
        let mut heat = Heat::settled(&H100, 3, 0, drive(660.0), 0.0, 0.0);
        let lost = Drive {
            extra: Extra::Uncooled,
            ..drive(660.0)
        };
        let feel = heat.feel(0.0, 1.0);
        heat.drive(lost, 0.0, &feel);
        assert!(heat.feel(2.0, 1.0).celsius < H100.slowdown_celsius);
        assert!(heat.feel(30.0, 1.0).celsius > H100.slowdown_celsius);
        let feel = heat.feel(30.0, 1.0);
        let slowed = Drive {
            extra: Extra::HeldByHardware,
            watts: 360.0,
            ..lost
        };
        heat.drive(slowed, 30.0, &feel);
        let held = heat.feel(300.0, 1.0).celsius;
        assert!(
            (held - H100.slowdown_celsius).abs() < 1.0,
            "held at {held} °C"
        );
    }
}
