//! A job of which nothing comes for a while, after it has begun: two rules that differ in what they look at.
//!
//! Zero utilisation for a minute is the hang alert of many an in-house dashboard; nothing over NVLink, PCIe or the network
//! for ten minutes is the time-out of collective libraries, seen from outside, where "nothing" is 100 kB/s a GPU, since
//! counters of idle links still move. Both wait for a job's first sign of life, which is kind to them: a start is no alarm.

use super::Baseline;
use super::sight::{OfGroup, Reading, Sight, of_group};
use crate::detection::finding::Finding;

const NOTHING_BYTES_PER_S: f32 = 1e5;
const KINDS: &[&str] = &[
    "JobHang",
    "JobStall",
    "StorageStall",
    "NetworkFault",
    "GpuIdle",
    "PartialUse",
];

/// No sign of life of a group for so long.
pub(super) struct Silence {
    /// Whether a reading is one; `None`: it does not say.
    is_life: fn(&Reading) -> Option<bool>,
    for_ms: i64,
    words: &'static str,
    groups: Vec<OfGroup<State>>,
}

#[derive(Default)]
struct State {
    lived_ms: Option<i64>,
    seen_ms: i64,
    raised: bool,
}

impl Silence {
    /// All GPUs at zero utilisation for a minute.
    pub(super) fn of_work() -> Self {
        Self {
            is_life: |seen| seen.utilization.map(|percent| percent > 0.0),
            for_ms: 60_000,
            words: "no GPU has worked for 60 s",
            groups: Vec::new(),
        }
    }

    /// No bytes over any link for ten minutes.
    pub(super) fn of_links() -> Self {
        Self {
            is_life: |seen| seen.bytes_per_s.map(|rate| rate > NOTHING_BYTES_PER_S),
            for_ms: 600_000,
            words: "no bytes for 600 s",
            groups: Vec::new(),
        }
    }
}

impl Baseline for Silence {
    fn row(&mut self, sight: &Sight, gpu: usize, now_ms: i64) {
        let Some(group) = sight.gpus[gpu].group else {
            return;
        };
        let Some(lives) = (self.is_life)(&sight.gpus[gpu].seen) else {
            return;
        };
        let state = of_group(&mut self.groups, sight, group);
        state.seen_ms = now_ms;
        if lives {
            (state.lived_ms, state.raised) = (Some(now_ms), false);
        }
    }

    fn look(&mut self, sight: &Sight, now_ms: i64, found: &mut Vec<Finding>) {
        for (OfGroup { state, .. }, group) in self.groups.iter_mut().zip(&sight.groups) {
            let silent = |lived_ms: i64| state.seen_ms - lived_ms >= self.for_ms;
            if state.lived_ms.is_some_and(silent) && !state.raised && sight.is_held(group) {
                state.raised = true;
                found.push(sight.about_group(group, now_ms, KINDS, self.words));
            }
        }
    }
}
