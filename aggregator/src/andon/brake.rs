//! PowerBrake: the power supply or the chassis makes a GPU slow down. *(pure)*
//!
//! The hardware says so with a bit of its own; on some boards only with that of a slowdown which is not for heat. All
//! GPUs of a node, rack or feed that brake together are one finding.

use std::time::Duration;

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::metric::clock_reason;
use entrenar::unit::Timestamp;
use entrenar::window::ShareWindow;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node, lasting};
use super::recent::last;
use super::rules::{Span, require, rule};
use super::slots::Slots;
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// The power supply or the chassis makes a GPU slow down.
    PowerBrakeRule: PowerBrake, named "power_brake", Critical, true;
    /// Window in which braking is counted; at least three samples long.
    window: Span = Span::secs(10);
    /// Share of that window with braking that raises the cord; never a single sample.
    share: f64 = 0.3;
    /// How long it must be clean.
    settle: Span = Span::secs(300);
    => |this| {
        require(this.share > 0.0 && this.share <= 1.0, "share", "write a share above 0 and up to 1")?;
        require(this.window.millis() > 0, "window", "a window must be longer than 0s")
    }
}

/// What is remembered of a GPU's braking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct BrakeState {
    cord: Cord,
    braking: ShareWindow,
    since: Option<Timestamp>,
}

impl Watch for BrakeState {
    type Rule = PowerBrakeRule;

    fn observe(&mut self, look: &Look<'_>, rule: &PowerBrakeRule) -> Option<Change> {
        let reasons = look.sample.clock_reasons?;
        let brakes = is_brake(reasons);
        if !brakes && self.since.is_none() && !self.cord.is_raised() {
            return None;
        }
        let slots = Slots::of(rule.window, look.interval_ms(), 3);
        self.braking.push(look.at, slots.ms, brakes);
        let seen = self.braking.yes(slots.count);
        if seen > 0 {
            self.since.get_or_insert(look.at);
        } else {
            self.since = None;
        }
        let verdict = if seen >= slots.needed(rule.share) {
            Verdict::Unwelcome
        } else if seen == 0 {
            Verdict::Fine
        } else {
            Verdict::Between
        };
        let patience = Patience {
            hold: Duration::ZERO,
            settle: rule.settle.0,
        };
        let change = self.cord.observe(look.at, verdict, patience, look.interval);
        change.map(Change::from)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.since.or(self.cord.since()).unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &PowerBrakeRule) -> Finding {
        let slots = Slots::of(rule.window, tell.interval.as_millis() as i64, 3);
        let lasts = lasting(tell.at.0 - self.started_at(tell.at).0);
        let summary = format!(
            "{} is braked by its power supply for {lasts}",
            gpu_on_node(tell.gpu)
        );
        let action = "Look at the node's power supplies and its feed: redundancy is lost or the feed is overloaded. Move \
                      the job if the brake lasts: it runs at half its speed.";
        let braking = Evidence::new("braking", slots.told(self.braking.yes(slots.count)))
            .against(slots.told(slots.needed(rule.share)));
        let clocks = tell.recent.clock_mhz();
        let clock = last(&clocks)
            .map(|mhz| Evidence::new("SM clock", format!("{mhz:.0} MHz")).over(clocks.clone()));
        let watts = tell.recent.watts();
        let power =
            last(&watts).map(|w| Evidence::new("power", format!("{w:.0} W")).over(watts.clone()));
        let mut found = finding(rule, tell.labels, summary, action)
            .with(braking)
            .with_some(clock)
            .with_some(power);
        found.culprits.push(tell.gpu.clone());
        found
    }
}

/// Whether the clock event reasons tell of a power brake: by its own bit, or by a hardware slowdown that is not for heat.
fn is_brake(reasons: i64) -> bool {
    let has = |bit| reasons & bit != 0;
    has(clock_reason::HW_POWER_BRAKE)
        || (has(clock_reason::HW_SLOWDOWN)
            && !has(clock_reason::HW_THERMAL)
            && !has(clock_reason::SW_THERMAL))
}
