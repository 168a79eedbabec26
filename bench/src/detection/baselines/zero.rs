//! All GPUs of a job at zero utilisation for a minute: the hang alert of many an in-house dashboard.
//!
//! It waits for a job's first work, which is kind to it: a start is no alarm.

use super::Baseline;
use super::sight::{Sight, state_of};
use crate::detection::finding::Finding;

const FOR_MS: i64 = 60_000;
const KINDS: &[&str] = &[
    "JobHang",
    "JobStall",
    "StorageStall",
    "NetworkFault",
    "GpuIdle",
    "PartialUse",
];

#[derive(Default)]
pub(super) struct Zero {
    groups: Vec<State>,
}

#[derive(Default)]
struct State {
    since_ms: i64,
    busy_ms: i64,
    seen_ms: i64,
    has_worked: bool,
    raised: bool,
}

impl Baseline for Zero {
    fn row(&mut self, sight: &Sight, gpu: usize, now_ms: i64) {
        let Some(group) = sight.gpus[gpu].group else {
            return;
        };
        let Some(utilization) = sight.gpus[gpu].seen.utilization else {
            return;
        };
        let state = state_of(&mut self.groups, group);
        if state.since_ms != sight.groups[group].since_ms {
            *state = State {
                since_ms: sight.groups[group].since_ms,
                ..State::default()
            };
        }
        state.seen_ms = now_ms;
        if utilization > 0.0 {
            (state.busy_ms, state.has_worked, state.raised) = (now_ms, true, false);
        }
    }

    fn look(&mut self, sight: &Sight, now_ms: i64, found: &mut Vec<Finding>) {
        for (state, group) in self.groups.iter_mut().zip(&sight.groups) {
            let is_zero = state.has_worked && state.seen_ms - state.busy_ms >= FOR_MS;
            if is_zero && !state.raised && sight.is_held(group) {
                state.raised = true;
                found.push(sight.about_group(group, now_ms, KINDS, "no GPU has worked for 60 s"));
            }
        }
    }
}
