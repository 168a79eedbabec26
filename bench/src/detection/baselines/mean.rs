//! A job's mean utilisation under 20 % for five minutes: the usual alert about waste, and about hangs that look idle.

use super::Baseline;
use super::sight::{OfGroup, Sight, of_group};
use crate::detection::finding::Finding;

const BUCKET_MS: i64 = 10_000;
const BUCKETS: usize = 30;
const LEAST_PERCENT: f32 = 20.0;
const KINDS: &[&str] = &[
    "GpuIdle",
    "PartialUse",
    "JobHang",
    "JobStall",
    "StartupStuck",
    "StorageStall",
    "JobSlow",
    "ZombieGpu",
];

#[derive(Default)]
pub(super) struct Mean {
    groups: Vec<OfGroup<State>>,
}

#[derive(Default)]
struct State {
    /// Of each ten seconds: which, the sum, and of how many.
    buckets: [(i64, f32, f32); BUCKETS],
    looked: i64,
    raised: bool,
}

impl Baseline for Mean {
    fn row(&mut self, sight: &Sight, gpu: usize, now_ms: i64) {
        let Some(group) = sight.gpus[gpu].group else {
            return;
        };
        let Some(utilization) = sight.gpus[gpu].seen.utilization else {
            return;
        };
        let state = of_group(&mut self.groups, sight, group);
        let number = now_ms / BUCKET_MS;
        let bucket = &mut state.buckets[number as usize % BUCKETS];
        if bucket.0 != number {
            *bucket = (number, 0.0, 0.0);
        }
        bucket.1 += utilization;
        bucket.2 += 1.0;
    }

    fn look(&mut self, sight: &Sight, now_ms: i64, found: &mut Vec<Finding>) {
        let number = now_ms / BUCKET_MS;
        for (OfGroup { state, since_ms }, group) in self.groups.iter_mut().zip(&sight.groups) {
            let is_old = now_ms - *since_ms >= BUCKETS as i64 * BUCKET_MS;
            if state.looked == number || !is_old {
                continue;
            }
            state.looked = number;
            let oldest = number - BUCKETS as i64;
            let recent = state.buckets.iter().filter(|bucket| bucket.0 > oldest);
            let (sum, count) = recent.fold((0.0, 0.0), |all, b| (all.0 + b.1, all.1 + b.2));
            if count == 0.0 {
                continue;
            }
            let is_low = sum / count < LEAST_PERCENT;
            if is_low && !state.raised && sight.is_held(group) {
                found.push(sight.about_group(group, now_ms, KINDS, "under 20 % for 5 min"));
            }
            state.raised = is_low;
        }
    }
}
