//! Fixed thresholds: the alert rules that come with dashboards for DCGM's exporter and Prometheus.
//!
//! A hot GPU and any XID page; full memory, power at the limit and an idle GPU that somebody holds warn.

use entrenar_aggregator::andon::Severity;

use super::Baseline;
use super::sight::{Reading, Sight, state_of};
use crate::detection::finding::Finding;

/// An XID of a GPU is told again after this time.
const XID_AGAIN_MS: i64 = 600_000;
const XID_KINDS: &[&str] = &[
    "Xid",
    "GpuLost",
    "EccUncorrectable",
    "EccStorm",
    "RowRemap",
    "NvlinkError",
    "GpuUnresponsive",
    "RepeatOffender",
];

/// A threshold: when it is crossed, for how long, and what that may mean.
struct Threshold {
    words: &'static str,
    is_over: fn(&Reading) -> bool,
    for_ms: i64,
    severity: Severity,
    kinds: &'static [&'static str],
}

const THRESHOLDS: [Threshold; 4] = [
    Threshold {
        words: "85 °C or more for a minute",
        is_over: |seen| seen.celsius.is_some_and(|celsius| celsius >= 85.0),
        for_ms: 60_000,
        severity: Severity::Critical,
        kinds: &["ThermalThrottling", "CoolingFailure", "ThermalDrift"],
    },
    Threshold {
        words: "memory over 95 % for 5 min",
        is_over: |seen| seen.memory_share.is_some_and(|share| share > 0.95),
        for_ms: 300_000,
        severity: Severity::Warning,
        kinds: &["MemoryPressure", "MemoryLeak"],
    },
    Threshold {
        words: "power over 95 % of the limit for 5 min",
        is_over: |seen| {
            let power = seen.watts.zip(seen.limit_watts);
            power.is_some_and(|(watts, limit)| watts > 0.95 * limit)
        },
        for_ms: 300_000,
        severity: Severity::Warning,
        kinds: &["PowerLimit", "PowerCapLoss", "PowerBrake"],
    },
    Threshold {
        words: "no use of a GPU for 10 min",
        is_over: |seen| seen.utilization == Some(0.0) && seen.processes != Some(0),
        for_ms: 600_000,
        severity: Severity::Warning,
        kinds: &["GpuIdle", "PartialUse", "ZombieGpu", "JobStall"],
    },
];

#[derive(Default)]
pub(super) struct Fixed {
    gpus: Vec<State>,
    /// What was crossed for long enough since the last look: the GPU and the threshold.
    due: Vec<(usize, usize)>,
}

#[derive(Default)]
struct State {
    /// Since when each threshold is crossed.
    since_ms: [Option<i64>; THRESHOLDS.len()],
    raised: [bool; THRESHOLDS.len()],
    xid_ms: Option<i64>,
}

impl Baseline for Fixed {
    fn row(&mut self, sight: &Sight, gpu: usize, now_ms: i64) {
        let seen = &sight.gpus[gpu].seen;
        let is_held = sight.gpus[gpu].group.is_some();
        let state = state_of(&mut self.gpus, gpu);
        for (n, threshold) in THRESHOLDS.iter().enumerate() {
            if !is_held || !(threshold.is_over)(seen) {
                (state.since_ms[n], state.raised[n]) = (None, false);
                continue;
            }
            let since = *state.since_ms[n].get_or_insert(now_ms);
            if !state.raised[n] && now_ms - since >= threshold.for_ms {
                state.raised[n] = true;
                self.due.push((gpu, n));
            }
        }
    }

    fn xid(&mut self, sight: &Sight, gpu: usize, now_ms: i64, found: &mut Vec<Finding>) {
        let state = state_of(&mut self.gpus, gpu);
        let is_new = state.xid_ms.is_none_or(|at| now_ms - at >= XID_AGAIN_MS);
        if is_new {
            state.xid_ms = Some(now_ms);
            let what = (Severity::Critical, "an XID");
            found.push(sight.about_device((gpu, false), now_ms, XID_KINDS, what));
        }
    }

    fn look(&mut self, sight: &Sight, now_ms: i64, found: &mut Vec<Finding>) {
        for (gpu, n) in self.due.drain(..) {
            let Threshold {
                words,
                severity,
                kinds,
                ..
            } = THRESHOLDS[n];
            found.push(sight.about_device((gpu, false), now_ms, kinds, (severity, words)));
        }
    }
}
