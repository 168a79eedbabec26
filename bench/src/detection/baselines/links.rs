//! Nothing over NVLink, PCIe or the network for ten minutes: the time-out of collective libraries, seen from outside.
//!
//! "Nothing" is 100 kB/s a GPU, since counters of idle links still move. It waits for a job's first traffic.

use super::Baseline;
use super::sight::{Sight, state_of};
use crate::detection::finding::Finding;

const FOR_MS: i64 = 600_000;
const NOTHING_BYTES_PER_S: f32 = 1e5;
const KINDS: &[&str] = &[
    "JobHang",
    "JobStall",
    "StorageStall",
    "NetworkFault",
    "GpuIdle",
    "PartialUse",
];

#[derive(Default)]
pub(super) struct Links {
    groups: Vec<State>,
}

#[derive(Default)]
struct State {
    since_ms: i64,
    moved_ms: i64,
    seen_ms: i64,
    has_moved: bool,
    raised: bool,
}

impl Baseline for Links {
    fn row(&mut self, sight: &Sight, gpu: usize, now_ms: i64) {
        let Some(group) = sight.gpus[gpu].group else {
            return;
        };
        let Some(rate) = sight.gpus[gpu].seen.bytes_per_s else {
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
        if rate > NOTHING_BYTES_PER_S {
            (state.moved_ms, state.has_moved, state.raised) = (now_ms, true, false);
        }
    }

    fn look(&mut self, sight: &Sight, now_ms: i64, found: &mut Vec<Finding>) {
        for (state, group) in self.groups.iter_mut().zip(&sight.groups) {
            let is_still = state.has_moved && state.seen_ms - state.moved_ms >= FOR_MS;
            if is_still && !state.raised && sight.is_held(group) {
                state.raised = true;
                found.push(sight.about_group(group, now_ms, KINDS, "no bytes for 600 s"));
            }
        }
    }
}
