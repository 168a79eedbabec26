//! A node that differs from the others of its job, for four minutes on end: after Minder (Deng et al., NSDI 2025).
//!
//! Minder denoises each metric with a learned model and takes the machine furthest from its peers when that is far
//! beyond the others' spread and stays so for four minutes. Here a mean over about half a minute stands for the learned
//! model, and median and median deviation for mean and deviation, for with four nodes one outlier hides in the latter.

use std::collections::BTreeMap;

use entrenar_aggregator::andon::Severity;

use super::Baseline;
use super::sight::{Sight, state_of};
use crate::detection::finding::Finding;

const CONTINUITY_MS: i64 = 240_000;
const LOOK_MS: i64 = 10_000;
const SMOOTH_S: f32 = 30.0;
/// Deviations of a normal distribution beyond which a node is an outlier.
const FAR: f32 = 3.0;
const LEAST_NODES: usize = 4;
/// Less than this share of the metric's full scale is no deviation.
const LEAST_SHARE: f32 = 0.05;
/// Utilisation, power, clock, temperature, memory, traffic: their full scales.
const SCALES: [f32; METRICS] = [100.0, 700.0, 1980.0, 90.0, 1.0, 2e10];
const METRICS: usize = 6;
const KINDS: &[&str] = &[
    "Straggler",
    "JobHang",
    "JobSlow",
    "JobStall",
    "PartialUse",
    "ThermalThrottling",
    "ThermalDrift",
    "CoolingFailure",
    "PowerBrake",
    "PowerCapLoss",
    "PcieDegraded",
    "NvlinkError",
    "NetworkFault",
    "GpuLost",
    "GpuUnresponsive",
    "MemoryLeak",
    "SensorFault",
];

#[derive(Default)]
pub(super) struct Outlier {
    gpus: Vec<Smooth>,
    /// By group and node: since when it is an outlier in each metric.
    far: BTreeMap<(usize, usize), Far>,
    looked_ms: i64,
}

#[derive(Default)]
struct Smooth {
    at_ms: i64,
    means: [Option<f32>; METRICS],
}

#[derive(Default)]
struct Far {
    since_ms: [Option<i64>; METRICS],
    raised: bool,
}

impl Baseline for Outlier {
    fn row(&mut self, sight: &Sight, gpu: usize, now_ms: i64) {
        let seen = &sight.gpus[gpu].seen;
        let says = [
            seen.utilization,
            seen.watts,
            seen.clock_mhz,
            seen.celsius,
            seen.memory_share,
            seen.bytes_per_s,
        ];
        let smooth = state_of(&mut self.gpus, gpu);
        let secs = (now_ms - smooth.at_ms).clamp(1, 60_000) as f32 / 1e3;
        let weight = secs / (SMOOTH_S + secs);
        smooth.at_ms = now_ms;
        for (mean, says) in smooth.means.iter_mut().zip(says) {
            *mean = match (*mean, says) {
                (Some(mean), Some(says)) => Some(mean + (says - mean) * weight),
                (mean, says) => says.or(mean),
            };
        }
    }

    fn look(&mut self, sight: &Sight, now_ms: i64, found: &mut Vec<Finding>) {
        if now_ms - self.looked_ms < LOOK_MS {
            return;
        }
        self.looked_ms = now_ms;
        for (group, members) in sight.groups.iter().enumerate() {
            let mut nodes: Vec<usize> = members
                .gpus
                .iter()
                .map(|gpu| sight.gpus[*gpu].node)
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            if nodes.len() >= LEAST_NODES && members.job.is_some() {
                self.compare(sight, (group, &nodes), now_ms, found);
            }
        }
    }
}

impl Outlier {
    fn compare(
        &mut self,
        sight: &Sight,
        (group, nodes): (usize, &[usize]),
        now_ms: i64,
        found: &mut Vec<Finding>,
    ) {
        let members = &sight.groups[group].gpus;
        for (metric, scale) in SCALES.into_iter().enumerate() {
            let means: Vec<f32> = nodes
                .iter()
                .map(|node| self.mean_of(sight, members, *node, metric))
                .collect();
            let middle = median(&means);
            let apart: Vec<f32> = means.iter().map(|mean| (mean - middle).abs()).collect();
            let spread = (1.4826 * median(&apart)).max(LEAST_SHARE * scale / FAR);
            for (node, apart) in nodes.iter().zip(&apart) {
                let state = self.far.entry((group, *node)).or_default();
                if apart / spread > FAR {
                    state.since_ms[metric].get_or_insert(now_ms);
                } else {
                    state.since_ms[metric] = None;
                }
            }
        }
        for node in nodes {
            let state = self.far.entry((group, *node)).or_default();
            let lasts = |since: &Option<i64>| since.is_some_and(|at| now_ms - at >= CONTINUITY_MS);
            let is_far = state.since_ms.iter().any(lasts);
            if is_far && !state.raised {
                let gpu = members.iter().find(|gpu| sight.gpus[**gpu].node == *node);
                let what = (Severity::Critical, "unlike its peers for 4 min");
                found.extend(gpu.map(|gpu| sight.about_device((*gpu, true), now_ms, KINDS, what)));
            }
            state.raised = is_far;
        }
    }

    /// Of the GPUs of a node that are in the group.
    fn mean_of(&self, sight: &Sight, members: &[usize], node: usize, metric: usize) -> f32 {
        let own = members.iter().filter(|gpu| sight.gpus[**gpu].node == node);
        let says = own.filter_map(|gpu| self.gpus.get(*gpu)?.means[metric]);
        let (sum, count) = says.fold((0.0, 0.0), |all, mean| (all.0 + mean, all.1 + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f32::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}
