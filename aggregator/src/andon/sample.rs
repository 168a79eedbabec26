//! One GPU's row as the detectors look at it, and what it says about the GPU's work. *(pure)*

use entrenar::gpu::Values;
use entrenar::metric::{self, NvmlStatus};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

/// What the detectors look at, in the catalogue's integer units; `None`: not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) celsius: Option<i64>,
    pub(super) margin_celsius: Option<i64>,
    pub(super) busy_percent: Option<i64>,
    pub(super) memory_busy_percent: Option<i64>,
    pub(super) memory_used: Option<i64>,
    pub(super) memory_total: Option<i64>,
    pub(super) power_mw: Option<i64>,
    pub(super) power_limit_mw: Option<i64>,
    pub(super) energy_mj: Option<i64>,
    pub(super) clock_mhz: Option<i64>,
    pub(super) clock_reasons: Option<i64>,
}

impl Sample {
    pub(super) fn new(row: &Values) -> Self {
        Self {
            celsius: row.get(metric::TEMPERATURE),
            margin_celsius: row.get(metric::THERMAL_MARGIN),
            busy_percent: row.get(metric::UTILIZATION),
            memory_busy_percent: row.get(metric::MEMORY_UTILIZATION),
            memory_used: row.get(metric::MEMORY_USED),
            memory_total: row.get(metric::MEMORY_TOTAL),
            power_mw: row.get(metric::POWER),
            power_limit_mw: row.get(metric::POWER_LIMIT),
            energy_mj: row.get(metric::ENERGY),
            clock_mhz: row.get(metric::SM_CLOCK),
            clock_reasons: row.get(metric::CLOCK_EVENT_REASONS),
        }
    }

    /// Memory used, as a share of all; `None` when either is unknown.
    pub(super) fn memory_share(&self) -> Option<f64> {
        let total = self.memory_total.filter(|total| *total > 0)?;
        Some(self.memory_used? as f64 / total as f64)
    }

    /// Whether a bit of the clock event reasons is set; `None` when they are unknown.
    pub(super) fn has_reason(&self, bit: i64) -> Option<bool> {
        self.clock_reasons.map(|reasons| reasons & bit != 0)
    }
}

/// How the device calls of a row ended. A row without a status is one in which all went well.
pub(super) fn status_of(row: &Values) -> NvmlStatus {
    row.get(metric::NVML_STATUS).map_or(NvmlStatus::Ok, |code| {
        NvmlStatus::from_code(code).unwrap_or(NvmlStatus::Unknown)
    })
}

/// Mean power over the last five to ten seconds, from the energy counter: what happens between two samples counts too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EnergyMeter {
    older: Option<(Timestamp, i64)>,
    newer: Option<(Timestamp, i64)>,
    latest: Option<(Timestamp, i64)>,
}

/// How long a meter waits before it moves its marks on.
const METER_STEP_MS: i64 = 5000;

impl EnergyMeter {
    /// Takes in a counter. True when it went back: the driver was reloaded, or the GPU reset.
    pub(super) fn push(&mut self, at: Timestamp, energy_mj: i64) -> bool {
        let went_back = self.latest.is_some_and(|(_, before)| energy_mj < before);
        if went_back {
            *self = Self::default();
        }
        self.latest = Some((at, energy_mj));
        let is_due = |(mark, _): (Timestamp, i64)| at.0 - mark.0 >= METER_STEP_MS;
        if self.newer.is_none_or(is_due) {
            self.older = self.newer;
            self.newer = self.latest;
        }
        went_back
    }

    /// Milliwatts; `None` until there are two marks.
    pub(super) fn mean_mw(&self) -> Option<i64> {
        let ((from, before), (to, after)) = (self.older?, self.latest?);
        let ms = to.0 - from.0;
        (ms > 0).then(|| ((i128::from(after) - i128::from(before)) * 1000 / i128::from(ms)) as i64)
    }
}

/// What a GPU does for its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Activity {
    /// It gets something done.
    Work,
    /// Nothing runs.
    Idle,
    /// It waits busily: a kernel is resident, memory is untouched, power is hardly above idle.
    Spin,
}

/// Power levels of a GPU model, in milliwatts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PowerLevels {
    /// A context is loaded and nothing runs.
    pub(super) idle_mw: i64,
    /// Most that the board may draw.
    pub(super) limit_mw: i64,
}

/// Idle power with a context, by model, in watts: measured. Elsewhere it is taken as a share of the limit.
const IDLE_WATTS: [(&str, i64); 6] = [
    ("H100", 120),
    ("H200", 120),
    ("A100", 115),
    ("B200", 190),
    ("V100", 65),
    ("L40", 90),
];

/// Idle power as a share of the limit, where the model is not known.
const IDLE_SHARE: (i64, i64) = (3, 10);

/// The limit where a board does not say.
const TYPICAL_LIMIT_MW: i64 = 400_000;

/// More than idle by this is work.
const WORK_ABOVE_IDLE_MW: i64 = 15_000;

impl PowerLevels {
    pub(super) fn of(model: &str, limit_mw: Option<i64>) -> Self {
        let limit_mw = limit_mw.filter(|mw| *mw > 0).unwrap_or(TYPICAL_LIMIT_MW);
        let known = IDLE_WATTS.iter().find(|(name, _)| model.contains(name));
        let idle_mw = known.map_or(limit_mw * IDLE_SHARE.0 / IDLE_SHARE.1, |(_, watts)| {
            watts * 1000
        });
        Self { idle_mw, limit_mw }
    }

    /// A busy wait draws at most this: 15 % of the way from idle to the limit.
    fn spin_mw(self) -> i64 {
        self.idle_mw + (self.limit_mw - self.idle_mw).max(0) * 15 / 100
    }
}

/// What a GPU does, by its utilisation and its mean power; `None` when too little is known.
///
/// Utilisation alone cannot tell: a busy wait shows 100 %, and a job that rests between bursts shows 0 % at most
/// instants. Power averaged by the energy counter tells both.
pub(super) fn activity(
    sample: &Sample,
    mean_mw: Option<i64>,
    levels: PowerLevels,
) -> Option<Activity> {
    let (busy, memory_busy) = (sample.busy_percent?, sample.memory_busy_percent?);
    let mw = mean_mw.or(sample.power_mw);
    let quiet = busy <= 1 && memory_busy <= 1;
    let waiting = busy >= 90 && memory_busy <= 2;
    match mw {
        _ if !quiet && !waiting => Some(Activity::Work),
        Some(mw) if quiet && mw > levels.idle_mw + WORK_ABOVE_IDLE_MW => Some(Activity::Work),
        Some(mw) if waiting && mw > levels.spin_mw() => Some(Activity::Work),
        Some(_) if waiting => Some(Activity::Spin),
        None if waiting => None,
        _ => Some(Activity::Idle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_and_utilisation_together_tell_work_from_waiting() {
        let h100 = PowerLevels::of("NVIDIA H100 80GB HBM3", Some(700_000));
        let check = |busy: i64, memory_busy: i64, watts: i64, expected: Option<Activity>| {
            let sample = Sample {
                busy_percent: Some(busy),
                memory_busy_percent: Some(memory_busy),
                power_mw: (watts > 0).then_some(watts * 1000),
                ..Sample::default()
            };
            let found = activity(&sample, None, h100);
            assert_eq!(found, expected, "{busy} % {memory_busy} % {watts} W");
        };
        check(0, 0, 70, Some(Activity::Idle));
        check(0, 0, 122, Some(Activity::Idle));
        // Between two bursts of an offloading job.
        check(0, 0, 186, Some(Activity::Work));
        // A busy wait in a collective.
        check(100, 0, 128, Some(Activity::Spin));
        check(100, 45, 690, Some(Activity::Work));
        // Compute that lives in registers.
        check(100, 1, 480, Some(Activity::Work));
        // Light inference.
        check(6, 1, 130, Some(Activity::Work));
        check(100, 0, 0, None);
        check(0, 0, 0, Some(Activity::Idle));
    }

    #[test]
    fn energy_sees_what_instants_miss() {
        let mut meter = EnergyMeter::default();
        let mut energy = 5_000_000;
        for second in 0..30 {
            // 345 W for one second in three, 120 W else.
            energy += if second % 3 == 0 { 345_000 } else { 120_000 };
            assert!(!meter.push(Timestamp::from_secs(second), energy));
        }
        let mean = meter.mean_mw().expect("two marks");
        assert!((180_000..215_000).contains(&mean), "{mean}");
        assert!(
            meter.push(Timestamp::from_secs(30), 1000),
            "a reset is noticed"
        );
        assert_eq!(meter.mean_mw(), None);
    }
}
