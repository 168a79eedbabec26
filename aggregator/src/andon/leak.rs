//! MemoryLeak: a GPU's memory fills slowly and never gives back. *(pure)*
//!
//! Allocators breathe, caches fill fast at first and then ever more slowly. A leak goes on: the least that was used in
//! ten minutes is more each time, for an hour, and at the end as fast as at the beginning.

use entrenar::report::JobKind;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gibibytes, gpu_on_node, lasting, percent};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding, Resolution};

rule! {
    /// A GPU's memory fills slowly and never gives back.
    MemoryLeakRule: MemoryLeak, named "memory_leak", Warning, true;
    /// Windows in which the least that was used is looked at; six in a row must rise.
    window: Span = Span::secs(600);
    /// Share of the memory that must be lost in an hour.
    per_hour: f64 = 0.03;
    /// Share of the memory by which each window must be above the one before.
    step: f64 = 0.001;
    /// The second half of the rise must be at least this share of the first.
    steady_share: f64 = 0.5;
    /// Kinds of jobs that fill their memory by right.
    except: Vec<JobKind> = vec![JobKind::Inference];
    => |this| {
        require(this.window >= Span::secs(10), "window", "write at least 10s")?;
        let can_be = this.per_hour > 0.0 && this.per_hour < 1.0;
        require(can_be, "per_hour", "write a share between 0 and 1")?;
        require(this.step > 0.0 && this.step < 1.0, "step", "write a share between 0 and 1")?;
        let can_be = (0.0..=1.0).contains(&this.steady_share);
        require(can_be, "steady_share", "write a share from 0 to 1")
    }
}

/// Windows that are held against each other.
const WINDOWS: usize = 6;
/// Windows without a rise after which a leak is over.
const FLAT: u32 = 3;

/// What is remembered of a GPU's memory over an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LeakState {
    begun: Option<Timestamp>,
    least: i64,
    /// Least of each whole window, newest last, in bytes.
    windows: [i64; WINDOWS],
    n: usize,
    last_at: Option<Timestamp>,
    total: i64,
    since: Option<Timestamp>,
    flat: u32,
    tenancy: Option<Timestamp>,
}

impl Watch for LeakState {
    type Rule = MemoryLeakRule;

    fn observe(&mut self, look: &Look<'_>, rule: &MemoryLeakRule) -> Option<Change> {
        let (used, total) = (look.sample.memory_used?, look.sample.memory_total?);
        let last_at = self.last_at.replace(look.at);
        let has_hole = last_at.is_some_and(|last| look.at.0 - last.0 > rule.window.millis());
        if has_hole || self.tenancy != look.held_since || total != self.total {
            return self.begin_anew(look, used, total);
        }
        let begun = self.begun?;
        if look.at.0 - begun.0 < rule.window.millis() {
            self.least = self.least.min(used);
            return None;
        }
        let is_watched = look.kind.is_none_or(|kind| !rule.except.contains(&kind));
        self.end_window(look.at, used);
        if is_watched {
            self.judge(look.at, rule)
        } else {
            None
        }
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.since.unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &MemoryLeakRule) -> Finding {
        let newest = self.windows[WINDOWS - 1];
        let rise = newest - self.windows[0];
        let over_ms = rule.window.millis() * (WINDOWS as i64 - 1);
        let per_hour = rise as f64 / self.total.max(1) as f64 * 3_600_000.0 / over_ms as f64;
        let left_ms = (self.total - newest) as f64 / rise.max(1) as f64 * over_ms as f64;
        let summary = format!(
            "Memory of {} grows by {} in {} and is never given back: full in about {}",
            gpu_on_node(tell.gpu),
            gibibytes(rise),
            lasting(over_ms),
            lasting(left_ms as i64)
        );
        let action = "Tell the job's owner: something keeps tensors or graphs alive. A checkpoint and a restart give the memory \
                      back for now.";
        let level =
            Evidence::new("memory used", gibibytes(newest)).over(tell.recent.memory_percent());
        let pace = Evidence::new("rise an hour", percent(per_hour)).against(percent(rule.per_hour));
        let mut found = finding(rule, tell.labels, summary, action)
            .with(level)
            .with(pace);
        found.culprits.push(tell.gpu.clone());
        found
    }
}

impl LeakState {
    fn begin_anew(&mut self, look: &Look<'_>, used: i64, total: i64) -> Option<Change> {
        let was_up = self.since.is_some();
        *self = Self {
            begun: Some(look.at),
            least: used,
            total,
            last_at: self.last_at,
            tenancy: look.held_since,
            ..Self::default()
        };
        was_up.then_some(CLEARED)
    }

    fn end_window(&mut self, at: Timestamp, used: i64) {
        self.windows.rotate_left(1);
        self.windows[WINDOWS - 1] = self.least;
        self.n = (self.n + 1).min(WINDOWS);
        (self.begun, self.least) = (Some(at), used);
    }

    fn judge(&mut self, at: Timestamp, rule: &MemoryLeakRule) -> Option<Change> {
        let step = (self.total as f64 * rule.step) as i64;
        let rose = self.n >= 2 && self.windows[WINDOWS - 1] - self.windows[WINDOWS - 2] > step;
        if self.since.is_some() {
            self.flat = if rose { 0 } else { self.flat + 1 };
            if self.flat < FLAT {
                return None;
            }
            (self.since, self.flat) = (None, 0);
            return Some(CLEARED);
        }
        if self.n < WINDOWS || !self.windows.is_sorted_by(|a, b| b - a > step) {
            return None;
        }
        let half = WINDOWS / 2;
        let first = self.windows[half - 1] - self.windows[0];
        let second = self.windows[WINDOWS - 1] - self.windows[half];
        let goes_on = second as f64 >= first as f64 * rule.steady_share;
        let hours = rule.window.millis() as f64 * (WINDOWS - 1) as f64 / 3_600_000.0;
        let rise = (self.windows[WINDOWS - 1] - self.windows[0]) as f64 / self.total.max(1) as f64;
        if !goes_on || rise < rule.per_hour * hours {
            return None;
        }
        self.since = Some(Timestamp(at.0 - rule.window.millis() * WINDOWS as i64));
        Some(Change::Raised)
    }
}

const CLEARED: Change = Change::Cleared {
    why: Resolution::Recovered,
};
