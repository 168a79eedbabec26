//! What a GPU draws when it does nothing: measured for known models, learned for each board. *(pure)*

use entrenar::gpu::Values;
use entrenar::metric;
use serde::{Deserialize, Serialize};

/// Power with a program that has the GPU open and runs nothing, in watts: measured, by model.
const IDLE_WATTS: [(&str, f32); 8] = [
    ("H100", 120.0),
    ("H200", 120.0),
    ("H800", 120.0),
    ("A100", 115.0),
    ("A800", 115.0),
    ("B200", 190.0),
    ("V100", 65.0),
    ("L40", 90.0),
];

/// Idle power as a share of the limit, where the model is not known.
const IDLE_SHARE: f32 = 0.25;
/// The limit where a board does not say, in watts.
const TYPICAL_LIMIT: f32 = 400.0;
/// More than idle by this is work, in watts, while nothing is resident.
const WORK_ABOVE_IDLE: f32 = 15.0;
/// A busy wait draws at most this share of the way from idle to the limit.
const SPIN_SHARE: f32 = 0.15;
/// Readings of rest before the board's own level counts.
const ENOUGH_RESTS: u8 = 10;
/// What is learned stays within these shares of what is known of the model.
const LEAST_SHARE: f32 = 0.5;
const MOST_SHARE: f32 = 1.15;

/// A board's levels, in watts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct PowerLevels {
    limit: f32,
    model_idle: f32,
    /// The model is in the table.
    is_known: bool,
    learned: f32,
    n_rests: u8,
}

impl PowerLevels {
    /// Takes in a row. `gauge`: power at the instant; `mean`: since the tick before.
    pub(super) fn learn(
        &mut self,
        model: &str,
        row: &Values,
        gauge: Option<f32>,
        mean: Option<f32>,
        n_programs: Option<u32>,
    ) {
        if let Some(mw) = row
            .get(metric::POWER_LIMIT_DEFAULT)
            .or(row.get(metric::POWER_LIMIT))
            && mw > 0
            && self.limit < mw as f32 / 1e3
        {
            self.limit = mw as f32 / 1e3;
            self.model_idle = 0.0;
        }
        if self.model_idle == 0.0 {
            let known = IDLE_WATTS.iter().find(|(name, _)| model.contains(name));
            self.is_known = known.is_some();
            self.model_idle = known.map_or(self.limit_or_typical() * IDLE_SHARE, |known| known.1);
        }
        let rests = row.get(metric::UTILIZATION) == Some(0)
            && row.get(metric::MEMORY_UTILIZATION) == Some(0)
            && n_programs.is_none_or(|n| n > 0);
        if let (true, Some(gauge), Some(mean)) = (rests, gauge, mean) {
            // Rest that lasted: what was drawn in between is what is drawn now.
            let steady = (gauge - mean).abs() <= 0.04 * mean;
            let floor = self.model_idle * LEAST_SHARE;
            if steady && gauge >= floor && gauge <= self.model_idle * MOST_SHARE {
                let share = 1.0 / f32::from(self.n_rests.saturating_add(1).min(60));
                self.learned += (gauge - self.learned) * share;
                self.n_rests = self.n_rests.saturating_add(1);
            }
        }
    }

    fn limit_or_typical(&self) -> f32 {
        if self.limit > 0.0 {
            self.limit
        } else {
            TYPICAL_LIMIT
        }
    }

    /// What is known of a model is a floor: rest at low clocks must not make a wait at high clocks look like work.
    fn idle(&self) -> f32 {
        match (self.n_rests >= ENOUGH_RESTS, self.is_known) {
            (true, true) => self.learned.max(self.model_idle),
            (true, false) => self.learned,
            (false, _) => self.model_idle,
        }
    }

    /// At most this, and nothing runs.
    pub(super) fn rest_watts(&self) -> f32 {
        self.idle() + WORK_ABOVE_IDLE
    }

    /// At most this, and a resident kernel only waits.
    pub(super) fn spin_watts(&self) -> f32 {
        let idle = self.idle();
        idle + (self.limit_or_typical() - idle).max(0.0) * SPIN_SHARE
    }
}
