//! RowRemap: a memory row was replaced by a spare one, or could not be. *(pure)*
//!
//! A remap that waits for a reset is for working hours: the error is contained. One that failed is a call: the GPU has
//! no spare left where it needs one.

use std::time::Duration;

use entrenar::andon::{Cord, CordChange, Patience, Verdict};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node};
use super::rules::{Span, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding, Severity};

rule! {
    /// A memory row was replaced by a spare one, or could not be.
    RowRemapRule: RowRemap, named "row_remap", Warning, true;
    /// How much a remap that failed matters.
    failure_severity: Severity = Severity::Critical;
    /// How long no remap must wait or have failed.
    settle: Span = Span::secs(60);
}

/// What is remembered of a GPU's remapped rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RemapState {
    cord: Cord,
    pending: bool,
    failed: bool,
}

impl Watch for RemapState {
    type Rule = RowRemapRule;

    fn observe(&mut self, look: &Look<'_>, rule: &RowRemapRule) -> Option<Change> {
        let is_set = |flag: Option<i64>, before: bool| flag.map_or(before, |flag| flag > 0);
        let had_failed = self.failed;
        self.pending = is_set(look.sample.remap_pending, self.pending);
        self.failed = is_set(look.sample.remap_failed, self.failed);
        let is_bad = self.pending || self.failed;
        if !is_bad && !self.cord.is_raised() {
            return None;
        }
        let verdict = if is_bad {
            Verdict::Unwelcome
        } else {
            Verdict::Fine
        };
        let patience = Patience {
            hold: Duration::ZERO,
            settle: rule.settle.0,
        };
        let was_up = self.cord.is_raised();
        let change = self.cord.observe(look.at, verdict, patience, look.interval);
        match change {
            None if was_up && self.failed && !had_failed => Some(Change::Updated),
            Some(CordChange::Cleared) => {
                *self = Self::default();
                change.map(Change::from)
            }
            change => change.map(Change::from),
        }
    }

    fn hear(&mut self, at: Timestamp, xid: u64, _: &RowRemapRule) -> Option<Change> {
        let had_failed = self.failed;
        match xid {
            63 => self.pending = true,
            64 => self.failed = true,
            _ => return None,
        }
        if self.cord.is_raised() {
            return (self.failed && !had_failed).then_some(Change::Updated);
        }
        self.cord = Cord::raised(at);
        Some(Change::Raised)
    }

    fn severity(&self, rule: &RowRemapRule) -> Severity {
        if self.failed {
            rule.failure_severity
        } else {
            rule.severity
        }
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &RowRemapRule) -> Finding {
        let gpu = gpu_on_node(tell.gpu);
        let (summary, action) = if self.failed {
            (
                format!("A memory row of {gpu} could not be remapped"),
                "Drain the GPU, run the field diagnostic and have the board replaced.",
            )
        } else {
            (
                format!("A remapped memory row of {gpu} waits for a reset"),
                "The job may go on. Reset the GPU when it is next idle.",
            )
        };
        let flag = |set: bool| if set { "yes" } else { "no" };
        let mut found = finding(rule, tell.labels, summary, action)
            .with(Evidence::new("remap pending", flag(self.pending)))
            .with(Evidence::new("remap failed", flag(self.failed)));
        found.culprits.push(tell.gpu.clone());
        found
    }
}
