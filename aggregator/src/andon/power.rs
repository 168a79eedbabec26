//! PowerLimit: a GPU at its power cap runs far below its own clocks, for long. *(pure)*
//!
//! Healthy training sits at its power cap all day: this is a record for whoever tunes the fleet, never a call.

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::metric::clock_reason;
use entrenar::unit::Timestamp;
use entrenar::window::ShareWindow;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node, percent};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// A GPU at its power cap runs far below its own clocks, for long.
    PowerLimitRule: PowerLimit, named "power_limit", Info, true;
    /// Window in which capped samples are counted.
    window: Span = Span::secs(600);
    /// Share of that window that must be capped with low clocks.
    share: f64 = 0.95;
    /// Clocks below this share of the highest that the GPU was seen at count as low.
    clock_share: f64 = 0.75;
    /// How long it must last.
    hold: Span = Span::secs(1800);
    /// How long it must be over.
    settle: Span = Span::secs(600);
    => |this| {
        let share = |value: f64| value > CLEAN_SHARE && value <= 1.0;
        require(share(this.share), "share", "write a share above 0.5 and up to 1")?;
        let can_be = this.clock_share > 0.0 && this.clock_share < 1.0;
        require(can_be, "clock_share", "write a share between 0 and 1")?;
        require(this.window.millis() > 0, "window", "a window must be longer than 0s")
    }
}

/// Less than this share is over.
const CLEAN_SHARE: f64 = 0.5;
/// Slots of the window.
const SLOTS: u32 = 60;

/// What is remembered of a GPU's power.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct PowerState {
    cord: Cord,
    capped: ShareWindow,
    highest_mhz: i64,
    mhz: Option<i64>,
    power_mw: Option<i64>,
    limit_mw: Option<i64>,
}

impl Watch for PowerState {
    type Rule = PowerLimitRule;

    fn observe(&mut self, look: &Look<'_>, rule: &PowerLimitRule) -> Option<Change> {
        let (at, sample, interval) = (look.at, look.sample, look.interval);
        (self.power_mw, self.limit_mw) = (sample.power_mw, sample.power_limit_mw);
        let (mhz, capped) = (
            sample.clock_mhz?,
            sample.has_reason(clock_reason::SW_POWER_CAP)?,
        );
        self.mhz = Some(mhz);
        self.highest_mhz = self.highest_mhz.max(mhz);
        let slow = (mhz as f64) < self.highest_mhz as f64 * rule.clock_share;
        let slot_ms = (rule.window.millis() / i64::from(SLOTS)).max(interval.as_millis() as i64);
        self.capped.push(at, slot_ms, capped && slow);
        let share = self.share();
        let verdict = if share >= rule.share {
            Verdict::Unwelcome
        } else if share < CLEAN_SHARE {
            Verdict::Fine
        } else {
            Verdict::Between
        };
        let patience = Patience {
            hold: rule.hold.0,
            settle: rule.settle.0,
        };
        let change = self.cord.observe(at, verdict, patience, interval);
        change.map(Change::from)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &PowerLimitRule) -> Finding {
        let (gpu, recent) = (tell.gpu, tell.recent);
        let mhz = self.mhz.unwrap_or_default();
        let clock_share = mhz as f64 / self.highest_mhz.max(1) as f64;
        let summary = format!(
            "{} is held at {mhz} MHz by its power cap: {} of the highest it was seen at",
            gpu_on_node(gpu),
            percent(clock_share)
        );
        let action = "Normal for a heavy load. If other GPUs of the job run faster, compare their power limits.";
        let watts = |mw: Option<i64>| mw.map(|mw| format!("{} W", mw / 1000));
        let power = watts(self.power_mw).map(|value| {
            let power = Evidence::new("power", value).over(recent.watts());
            match watts(self.limit_mw) {
                Some(limit) => power.against(limit),
                None => power,
            }
        });
        let clock = Evidence::new("SM clock", format!("{mhz} MHz"))
            .against(format!(
                "{:.0} MHz",
                self.highest_mhz as f64 * rule.clock_share
            ))
            .over(recent.clock_mhz());
        finding(rule, tell.labels, summary, action)
            .with_some(power)
            .with(clock)
            .with(Evidence::new("capped", percent(self.share())).against(percent(rule.share)))
            .missing_if(self.limit_mw.is_none(), "power limit")
    }
}

impl PowerState {
    /// Capped slots of the window, as a share of all: what was not seen does not count.
    fn share(&self) -> f64 {
        f64::from(self.capped.yes(SLOTS)) / f64::from(SLOTS)
    }
}
