//! SensorFault: what a GPU reports of itself is no longer to be believed. *(pure)*
//!
//! Power that was reported and is not any more; or a reading that stays the same to the last digit while the GPU works
//! or while its energy counter moves at another rate. Real power never stands still under load.

use std::time::Duration;

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node, lasting};
use super::recent::last;
use super::rules::{Span, require, rule};
use super::sample::Sample;
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// What a GPU reports of itself is no longer to be believed.
    SensorFaultRule: SensorFault, named "sensor_fault", Warning, true;
    /// How long power must be missing, or readings stand still.
    hold: Span = Span::secs(60);
    /// How many readings must be the same, however long the interval.
    readings: u32 = 6;
    /// How long readings must be there and move.
    settle: Span = Span::secs(60);
    => |this| {
        require(this.hold >= Span::secs(10), "hold", "write at least 10s: a steady load stands still for a moment")?;
        require((3..=1000).contains(&this.readings), "readings", "write a number from 3 to 1000")
    }
}

/// Readings with power, or that moved, before their absence means anything.
const ENOUGH: u32 = 10;
/// Between a reading that stands still and the energy counter's mean: so many milliwatts, and this share.
const APART_MW: i64 = 15_000;
const APART_SHARE: i64 = 10;
/// A GPU whose memory is this busy works, whatever its power says.
const BUSY_PERCENT: i64 = 3;

/// What is remembered of a GPU's readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SensorState {
    cord: Cord,
    with_power: u32,
    power_gone: Option<Timestamp>,
    /// What the reading that stands still is known by.
    reading: u64,
    /// How often readings have moved, and for how many they have stood still since.
    moves: u32,
    same: u32,
    since: Option<Timestamp>,
    /// Energy when the reading began to stand still.
    energy_mj: Option<i64>,
    frozen: bool,
}

/// What does not stand still under load, mixed into one number.
fn fingerprint(sample: &Sample) -> u64 {
    [
        sample.celsius,
        sample.busy_percent,
        sample.memory_busy_percent,
        sample.power_mw,
        sample.clock_mhz,
    ]
    .into_iter()
    .fold(0, |mixed: u64, value| {
        let value = value.map_or(u64::MAX, i64::cast_unsigned);
        (mixed ^ value)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}

impl Watch for SensorState {
    type Rule = SensorFaultRule;

    fn observe(&mut self, look: &Look<'_>, rule: &SensorFaultRule) -> Option<Change> {
        self.note_power(look);
        self.note_reading(look);
        let gone = self
            .power_gone
            .is_some_and(|since| look.at.since(since) >= rule.hold.0);
        self.frozen =
            self.same >= rule.readings && self.moves >= ENOUGH && self.is_frozen(look, rule);
        let is_bad = gone || self.frozen;
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
        let change = self.cord.observe(look.at, verdict, patience, look.interval);
        change.map(Change::from)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        let since = if self.frozen {
            self.since
        } else {
            self.power_gone
        };
        since.or(self.cord.since()).unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &SensorFaultRule) -> Finding {
        let gpu = gpu_on_node(tell.gpu);
        let lasts = lasting(tell.at.0 - self.started_at(tell.at).0);
        let summary = if self.frozen {
            format!("Readings of {gpu} have stood still for {lasts} while it works")
        } else {
            format!("{gpu} has not reported its power for {lasts}")
        };
        let action = "Do not trust this GPU's numbers. Restart the agent; if that does not help, reload the driver or reset the \
                      GPU when its job has ended.";
        let watts = tell.recent.watts();
        let power =
            last(&watts).map(|w| Evidence::new("power", format!("{w:.0} W")).over(watts.clone()));
        let mut found = finding(rule, tell.labels, summary, action)
            .with(Evidence::new("for", lasts).against(rule.hold.to_string()))
            .with_some(power)
            .missing_if(!self.frozen, "power");
        found.culprits.push(tell.gpu.clone());
        found
    }
}

impl SensorState {
    fn note_power(&mut self, look: &Look<'_>) {
        if look.sample.power_mw.is_some() {
            self.with_power = self.with_power.saturating_add(1);
            self.power_gone = None;
        } else if self.with_power >= ENOUGH && look.sample.busy_percent.is_some() {
            self.power_gone.get_or_insert(look.at);
        }
    }

    fn note_reading(&mut self, look: &Look<'_>) {
        let reading = fingerprint(look.sample);
        if reading == self.reading {
            self.same = self.same.saturating_add(1);
            return;
        }
        self.moves = self.moves.saturating_add(1);
        (self.reading, self.same) = (reading, 0);
        (self.since, self.energy_mj) = (Some(look.at), look.sample.energy_mj);
    }

    /// Whether readings that are the same can not be true.
    fn is_frozen(&self, look: &Look<'_>, rule: &SensorFaultRule) -> bool {
        let (Some(since), Some(power_mw)) = (self.since, look.sample.power_mw) else {
            return false;
        };
        let ms = look.at.0 - since.0;
        if ms < rule.hold.millis() {
            return false;
        }
        let busy = look.sample.memory_busy_percent >= Some(BUSY_PERCENT)
            && look.sample.busy_percent >= Some(BUSY_PERCENT);
        match (self.energy_mj, look.sample.energy_mj) {
            (Some(before), Some(after)) if after > before => {
                let mean_mw = ((i128::from(after) - i128::from(before)) * 1000
                    / i128::from(ms.max(1))) as i64;
                let apart = (mean_mw - power_mw).abs();
                busy || (apart > APART_MW && apart * APART_SHARE > power_mw)
            }
            // The whole device stands still: its driver hangs, and its sensors may be well.
            (Some(_), Some(_)) => false,
            _ => busy,
        }
    }
}
