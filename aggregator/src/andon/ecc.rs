//! EccUncorrectable and EccStorm: a GPU's memory gives wrong bits. *(pure)*
//!
//! One error that could not be corrected is enough for a call: data was lost. Corrected errors are normal one by one; a
//! steady rain of them comes before one that is not. Counters begin anew with the driver, and only their rise counts.

use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::counter::{Counter, Tally};
use super::finding::{finding, gpu_on_node};
use super::latch::Latch;
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// Memory errors that could not be corrected.
    EccUncorrectableRule: EccUncorrectable, named "ecc_uncorrectable", Critical, true;
    /// How long it must be quiet after a reset of the GPU.
    settle: Span = Span::secs(600);
    /// How long it must be quiet without a reset.
    quiet: Span = Span::secs(86_400);
    => |this| {
        require(this.quiet >= this.settle, "quiet", "write at least as long as settle")
    }
}

rule! {
    /// Corrected memory errors, many and for long.
    EccStormRule: EccStorm, named "ecc_storm", Warning, true;
    /// Errors a minute, on average over the hold time.
    per_minute: u32 = 10;
    /// For how many minutes.
    minutes: u32 = 5;
    /// How long it must be quiet.
    settle: Span = Span::secs(1800);
    => |this| {
        require((2..=9).contains(&this.minutes), "minutes", "write a number from 2 to 9")?;
        require(this.per_minute >= 1, "per_minute", "write at least 1")
    }
}

/// What is remembered of errors that could not be corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EccState {
    latch: Latch,
    errors: Counter,
    count: u32,
    /// The worst code of the driver for it.
    xid: Option<u16>,
    was_reset: bool,
}

/// Codes of the driver for a memory error that could not be corrected, and for its details. What the error does to
/// programs (94, 95, 140) has codes of its own.
const XIDS: [u64; 3] = [48, 171, 172];
/// The driver's own word for many corrected errors.
const STORM_XID: u64 = 92;

impl Watch for EccState {
    type Rule = EccUncorrectableRule;

    fn observe(&mut self, look: &Look<'_>, rule: &EccUncorrectableRule) -> Option<Change> {
        let rise = self.errors.rise(look.sample.ecc_uncorrected);
        if rise > 0 {
            self.count = self.count.saturating_add(rise as u32);
            self.was_reset = false;
            return self.latch.strike(look.at);
        }
        self.was_reset |= look.was_reset;
        let wait = if self.was_reset {
            rule.settle
        } else {
            rule.quiet
        };
        let change = self.latch.settle(look.at, wait.0);
        if change.is_some() {
            (self.count, self.xid) = (0, None);
        }
        change
    }

    fn hear(&mut self, at: Timestamp, xid: u64, _: &EccUncorrectableRule) -> Option<Change> {
        if !XIDS.contains(&xid) {
            return None;
        }
        self.xid = self.xid.or(u16::try_from(xid).ok());
        self.was_reset = false;
        self.latch.strike(at)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.latch.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &EccUncorrectableRule) -> Finding {
        let gpu = gpu_on_node(tell.gpu);
        let summary = match (self.count, self.xid) {
            (0, Some(xid)) => {
                format!("Memory of {gpu} gave wrong bits: the driver logged XID {xid}")
            }
            (1, _) => format!("Memory of {gpu} had an error that could not be corrected"),
            (n, _) => format!("Memory of {gpu} had {n} errors that could not be corrected"),
        };
        let action = "Drain the node and reset the GPU. A second time within a week: run the field diagnostic and have \
                      the board replaced.";
        let count = (self.count > 0)
            .then(|| Evidence::new("uncorrected errors", format!("+{}", self.count)).against("0"));
        let xid = self.xid.map(|xid| Evidence::new("XID", xid.to_string()));
        let mut found = finding(rule, tell.labels, summary, action)
            .with_some(count)
            .with_some(xid);
        found.culprits.push(tell.gpu.clone());
        found
    }
}

/// What is remembered of corrected errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EccStormState {
    latch: Latch,
    errors: Counter,
    by_minute: Tally,
}

const MINUTE_MS: i64 = 60_000;

impl Watch for EccStormState {
    type Rule = EccStormRule;

    fn observe(&mut self, look: &Look<'_>, rule: &EccStormRule) -> Option<Change> {
        let rise = self.errors.rise(look.sample.ecc_corrected);
        if rise > 0 {
            self.by_minute.add(look.at, MINUTE_MS, rise);
        } else if !self.latch.is_up() {
            return None;
        }
        let minutes = rule.minutes as usize;
        // The present minute is not over; with it there is one more, so that each of the others is whole.
        let goes_on = self.by_minute.sum(minutes + 1) >= u64::from(rule.per_minute * rule.minutes)
            && self.by_minute.least(minutes) >= 1;
        if rise > 0 && goes_on {
            return self.latch.strike(look.at);
        }
        self.latch.settle(look.at, rule.settle.0)
    }

    fn hear(&mut self, at: Timestamp, xid: u64, _: &EccStormRule) -> Option<Change> {
        if xid == STORM_XID {
            self.latch.strike(at)
        } else {
            None
        }
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.latch.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &EccStormRule) -> Finding {
        let n = self.by_minute.sum(rule.minutes as usize + 1);
        let summary = format!(
            "Memory of {} corrected {n} errors in {} minutes",
            gpu_on_node(tell.gpu),
            rule.minutes
        );
        let action = "The job may go on. Save checkpoints more often, and run the field diagnostic when the GPU is next idle: \
                      an error that cannot be corrected may follow.";
        let count = Evidence::new("corrected errors", n.to_string())
            .against((rule.per_minute * rule.minutes).to_string());
        let mut found = finding(rule, tell.labels, summary, action).with(count);
        found.culprits.push(tell.gpu.clone());
        found
    }
}
