//! RepeatOffender: the same GPU fails again within a day. *(pure)*
//!
//! A few boards cause most of the trouble of a fleet. A second failure within a day, after the first was dealt with, is
//! for the list of boards to replace; the failures themselves call people by their own rules.

use entrenar::metric::NvmlStatus;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node, listed, time_of_day};
use super::latch::Latch;
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::xid::table::row;
use super::{Change, Evidence, Finding, Severity};

rule! {
    /// The same GPU fails again within a day.
    RepeatOffenderRule: RepeatOffender, named "repeat_offender", Warning, true;
    /// How many failures make a repeat offender,
    failures: u32 = 2;
    /// within this time.
    within: Span = Span::secs(86_400);
    /// Signs of trouble closer together than this are one failure.
    apart: Span = Span::secs(300);
    => |this| {
        require((2..=4).contains(&this.failures), "failures", "write a number from 2 to 4")?;
        require(this.within > this.apart, "within", "write more than apart")
    }
}

/// Most failures that are remembered.
const MOST: usize = 4;

/// When a GPU failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RepeatState {
    latch: Latch,
    /// Newest last.
    failures: [Option<Timestamp>; MOST],
    last_sign: Option<Timestamp>,
    was_lost: bool,
}

impl Watch for RepeatState {
    type Rule = RepeatOffenderRule;
    const NEEDS_DATA: bool = false;

    fn observe(&mut self, look: &Look<'_>, rule: &RepeatOffenderRule) -> Option<Change> {
        let is_lost = matches!(
            look.status,
            NvmlStatus::GpuIsLost | NvmlStatus::ResetRequired
        );
        let falls = is_lost && !self.was_lost;
        self.was_lost = is_lost;
        if falls {
            return self.note(look.at, rule);
        }
        self.latch.settle(look.at, rule.within.0)
    }

    fn hear(&mut self, at: Timestamp, xid: u64, rule: &RepeatOffenderRule) -> Option<Change> {
        if row(xid).severity < Severity::Critical {
            return None;
        }
        self.note(at, rule)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.latch.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &RepeatOffenderRule) -> Finding {
        let times: Vec<String> = self.recent(tell.at, rule).map(time_of_day).collect();
        let summary = format!(
            "{} has failed {} times within {}",
            gpu_on_node(tell.gpu),
            times.len(),
            rule.within
        );
        let action = "Take the GPU out of service, run the field diagnostic and have the board replaced: a reset does not cure it.";
        let mut found = finding(rule, tell.labels, summary, action).with(
            Evidence::new("failures", times.len().to_string()).against(rule.failures.to_string()),
        );
        found = found.with(Evidence::new("at", listed(times.iter())));
        found.culprits.push(tell.gpu.clone());
        found
    }
}

impl RepeatState {
    /// A sign of trouble: a failure of its own, or one more of the last.
    fn note(&mut self, at: Timestamp, rule: &RepeatOffenderRule) -> Option<Change> {
        let before = self.last_sign.replace(at);
        if before.is_some_and(|before| at.since(before) < rule.apart.0) {
            return None;
        }
        self.failures.rotate_left(1);
        self.failures[MOST - 1] = Some(at);
        let enough = self.recent(at, rule).count() >= rule.failures as usize;
        if enough { self.latch.strike(at) } else { None }
    }

    fn recent(&self, at: Timestamp, rule: &RepeatOffenderRule) -> impl Iterator<Item = Timestamp> {
        let within = rule.within.0;
        let failures = self.failures.into_iter().flatten();
        failures.filter(move |failure| at.since(*failure) <= within)
    }
}
