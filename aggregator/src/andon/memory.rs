//! MemoryPressure: a GPU's memory is almost full and still fills. *(pure)*
//!
//! Frameworks allocate most of the memory at their start and keep it: high and constant is normal. What counts is a
//! level near the top that still rises, such that it will be full within minutes. A long, steady climb from a level that
//! was held before is told while there is still time to save a checkpoint. Once raised, the cord stays raised until the
//! memory is given back, or no longer climbs.

use entrenar::andon::{Cord, CordChange, Patience, Threshold, Verdict};
use entrenar::unit::Timestamp;
use entrenar::window::{Trend, TrendWindow};
use serde::{Deserialize, Serialize};

use super::finding::{finding, gibibytes, gpu_on_node, lasting, percent};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// A GPU's memory is almost full and still fills.
    MemoryPressureRule: MemoryPressure, named "memory_pressure", Warning, true;
    /// Share of the memory that counts as almost full.
    raise_share: f64 = 0.97;
    /// Below this share the cord is cleared.
    clear_share: f64 = 0.93;
    /// How long it must be almost full.
    hold: Span = Span::secs(60);
    /// How long it must be below the clear level.
    settle: Span = Span::secs(30);
    /// Time over which the rise is measured.
    slope_window: Span = Span::secs(60);
    /// The rise must fill the memory within this time.
    full_within: Span = Span::secs(600);
    /// Time over which a steady climb is measured.
    climb_window: Span = Span::secs(360);
    /// Share of the memory that must have been in use all that time: a load begins below.
    climb_from: f64 = 0.6;
    /// Share of the memory that the climb must have reached.
    climb_to: f64 = 0.85;
    /// How long its holder must have had the GPU: at the start, memory fills by right.
    held: Span = Span::secs(900);
    => |this| {
        let can_be = this.raise_share > 0.0 && this.raise_share < 1.0;
        require(can_be, "raise_share", "write a share between 0 and 1: a level of 1 is never exceeded")?;
        let can_be = this.clear_share > 0.0 && this.clear_share < this.raise_share;
        require(can_be, "clear_share", "write a share above 0 and below raise_share, or it would never settle")?;
        let can_be = this.slope_window >= Span::secs(5);
        require(can_be, "slope_window", "a rise needs at least 5s to be measured")?;
        require(this.full_within.millis() > 0, "full_within", "write a time longer than 0s")?;
        let can_be = this.climb_window >= Span::secs(60);
        require(can_be, "climb_window", "a climb needs at least 60s to be told from a load")?;
        let can_be = this.climb_from > 0.0 && this.climb_from < this.climb_to;
        require(can_be, "climb_from", "write a share above 0 and below climb_to")?;
        require(this.climb_to < 1.0, "climb_to", "write a share below 1")
    }
}

/// A new high must be above the old one by this share: allocators breathe.
const NEW_HIGH: f32 = 0.001;
/// A rise that has come to rest at the top counts if nothing was given back meanwhile, if it was at least this high,
/// and if it was seen in this many steps.
const RISE: f32 = 0.01;
const RISE_STEPS: u32 = 3;

/// What is remembered of a GPU's memory.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct MemoryState {
    cord: Cord,
    /// Shares, only while almost full.
    trend: TrendWindow,
    highs: Highs,
    /// Shares over the climb's window, only while above where a climb may begin.
    climb: TrendWindow,
    climb_slot: Option<Timestamp>,
    /// The share when its last slot was over.
    climb_share: f32,
    /// A climb that raised the cord has come to rest.
    at_rest: bool,
    /// The share at which a climb raised the cord.
    climbed_to: Option<f32>,
    share: Option<f64>,
    total: Option<i64>,
}

/// Highest share of the present slope window, of the one before, and of all before those.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Highs {
    begun: Option<Timestamp>,
    now: f32,
    before: f32,
    long_ago: f32,
}

impl Highs {
    fn push(&mut self, at: Timestamp, window: Span, share: f32) {
        let begun = *self.begun.get_or_insert(at);
        if at.0 - begun.0 >= window.millis() {
            self.long_ago = self.long_ago.max(self.before);
            (self.before, self.now, self.begun) = (self.now, 0.0, Some(at));
        }
        self.now = self.now.max(share);
    }

    fn is_new(&self, share: f32) -> bool {
        share > self.long_ago + NEW_HIGH
    }
}

impl Watch for MemoryState {
    type Rule = MemoryPressureRule;

    fn observe(&mut self, look: &Look<'_>, rule: &MemoryPressureRule) -> Option<Change> {
        let (at, sample) = (look.at, look.sample);
        let share = sample.memory_share()?;
        (self.share, self.total) = (Some(share), sample.memory_total);
        let climbs = self.note_climb(look, share as f32, rule);
        if climbs == Some(true) && !self.cord.is_raised() {
            let since = Timestamp(at.0 - rule.climb_window.millis());
            self.cord = Cord::raised(since);
            self.climbed_to = Some(share as f32);
            return Some(Change::Raised);
        }
        let clear_below = self.climbed_to.map_or(rule.clear_share, |to| {
            rule.clear_share.min(f64::from(to - GIVEN_BACK))
        });
        let level = Threshold {
            raise_at: rule.raise_share,
            clear_below,
        };
        if share >= rule.raise_share {
            self.trend.push(at, slot_ms(rule), share as f32);
            self.highs.push(at, rule.slope_window, share as f32);
        } else if self.highs.begun.is_some() {
            self.trend.clear();
            self.highs = Highs::default();
        }
        let patience = Patience {
            hold: rule.hold.0,
            settle: rule.settle.0,
        };
        let (trend, highs) = (self.trend, self.highs);
        let fills = || {
            trend.trend(slot_ms(rule)).is_some_and(|trend| {
                highs.is_new(share as f32) && fills_soon(trend, share as f32, rule)
            })
        };
        if climbs.is_some() {
            self.at_rest = self.climbed_to.is_some() && self.is_flat(rule);
        }
        let verdict = match level.judge(share) {
            Verdict::Between if self.at_rest => Verdict::Fine,
            verdict => verdict,
        };
        let change = self
            .cord
            .observe_if(at, verdict, patience, look.interval, fills);
        if change == Some(CordChange::Cleared) {
            (self.climbed_to, self.at_rest) = (None, false);
        }
        change.map(Change::from)
    }

    /// When it became almost full.
    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &MemoryPressureRule) -> Finding {
        let (gpu, recent) = (tell.gpu, tell.recent);
        let share = self.share.unwrap_or_default();
        let near = self.trend.trend(slot_ms(rule));
        let far = self.climb.trend(climb_slot_ms(rule));
        let slope = near
            .filter(|near| near.seen > 2)
            .or(far)
            .map_or(0.0, |trend| trend.slope_per_second);
        let full_in = (slope > 0.0).then(|| (1.0 - share) / f64::from(slope) * 1e3);
        let soon = full_in
            .filter(|ms| *ms <= rule.full_within.millis() as f64)
            .map(|ms| format!(", full in about {}", lasting(ms as i64)))
            .unwrap_or_default();
        let summary = format!(
            "Memory of {} is {} full{soon}",
            gpu_on_node(gpu),
            percent(share)
        );
        let action = "The job is about to run out of device memory. Tell its owner: save a checkpoint, then lower \
                      the batch size or look for a leak.";
        let level = Evidence::new("memory used", percent(share))
            .against(percent(rule.raise_share))
            .over(recent.memory_percent());
        let bytes = self.total.map(|total| {
            let used = (share * total as f64).round() as i64;
            Evidence::new(
                "bytes",
                format!("{} of {}", gibibytes(used), gibibytes(total)),
            )
        });
        let rise = Evidence::new("rise", format!("{:+.2} % a minute", f64::from(slope) * 6e3))
            .against(format!("full within {}", rule.full_within));
        let mut found = finding(rule, tell.labels, summary, action)
            .with(level)
            .with_some(bytes)
            .with(rise);
        found.culprits.push(gpu.clone());
        found
    }
}

impl MemoryState {
    /// Takes note of a steady climb. `Some`: a slot of its window is over, and whether memory climbs.
    fn note_climb(
        &mut self,
        look: &Look<'_>,
        share: f32,
        rule: &MemoryPressureRule,
    ) -> Option<bool> {
        if f64::from(share) < rule.climb_from {
            if self.climb_slot.take().is_some() {
                self.climb.clear();
            }
            return None;
        }
        self.climb.push(look.at, climb_slot_ms(rule), share);
        let slot_at = *self.climb_slot.get_or_insert(look.at);
        if look.at.0 - slot_at.0 < climb_slot_ms(rule) {
            return None;
        }
        self.climb_slot = Some(look.at);
        let before = std::mem::replace(&mut self.climb_share, share);
        if f64::from(share) < rule.climb_to && !self.cord.is_raised() {
            return None;
        }
        let settled = look
            .held_since
            .is_none_or(|since| look.at.since(since) >= rule.held.0);
        let trend = self.climb.trend(climb_slot_ms(rule))?;
        let within_s = rule.full_within.millis() as f32 / 1e3;
        let is_whole = trend.seen as usize >= TrendWindow::SLOTS;
        let is_steady = trend.falls <= 1 && trend.rises * 10 >= trend.seen * 7 && trend.halves_rise;
        let reaches = share + trend.slope_per_second * within_s >= 1.0;
        // What was a load a moment ago stands still now.
        let slot_s = climb_slot_ms(rule) as f32 / 1e3;
        let goes_on = share - before >= trend.slope_per_second * slot_s * STILL;
        Some(
            goes_on
                && settled
                && is_whole
                && is_steady
                && reaches
                && trend.max - trend.min >= CLIMB,
        )
    }

    /// Whether the climb's window shows no climb any more.
    fn is_flat(&self, rule: &MemoryPressureRule) -> bool {
        let trend = self.climb.trend(climb_slot_ms(rule));
        trend.is_none_or(|trend| trend.max - trend.min < NEW_HIGH * 2.0)
    }
}

/// A climb is at least this high, and given back when it has lost this much.
const CLIMB: f32 = 0.02;
/// Its last slot has at least this share of its mean rise.
const STILL: f32 = 0.5;
const GIVEN_BACK: f32 = 0.03;

fn climb_slot_ms(rule: &MemoryPressureRule) -> i64 {
    rule.climb_window.millis() / (TrendWindow::SLOTS as i64 - 1)
}

fn slot_ms(rule: &MemoryPressureRule) -> i64 {
    rule.slope_window.millis() / (TrendWindow::SLOTS as i64 - 1)
}

/// Whether the memory will be full soon if it goes on like this, and whether this is a rise rather than noise or the
/// last moment of a quick allocation.
fn fills_soon(trend: Trend, share: f32, rule: &MemoryPressureRule) -> bool {
    let within_s = rule.full_within.millis() as f32 / 1e3;
    let reaches = trend.slope_per_second > 0.0 && share + trend.slope_per_second * within_s >= 1.0;
    let rose = trend.falls == 0 && trend.rises >= RISE_STEPS && trend.max - trend.min >= RISE;
    reaches && (trend.halves_rise || rose)
}
