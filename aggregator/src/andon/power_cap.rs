//! PowerCapLoss: a GPU may draw less than the others of its kind, or gets less out of what it may draw. *(pure)*
//!
//! A limit below that of the same boards in the node was set by somebody, or by a board that protects itself. A limit
//! that is lower on all of them is a decision, and no finding. Where the limits are equal, a GPU that is held by its
//! power cap far below the clocks of the others, without drawing what it may, has lost power on the way.

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::metric::clock_reason;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// A GPU may draw less power than the others of its kind, or gets less out of what it may draw.
    PowerCapLossRule: PowerCapLoss, named "power_cap_loss", Warning, true;
    /// A limit below this share of the highest on the node is too low.
    limit_share: f64 = 0.95;
    /// How long it must be too low: limits are changed one GPU after the other.
    limit_hold: Span = Span::secs(60);
    /// Clocks below this share of the others' mean are too low for a GPU at its power cap,
    clock_share: f64 = 0.85;
    /// if it draws less than this share of its limit,
    drawn_share: f64 = 0.9;
    /// for this long.
    clock_hold: Span = Span::secs(300);
    /// How long it must be as the others are.
    settle: Span = Span::secs(60);
    => |this| {
        let share = |value: f64| value > 0.0 && value < 1.0;
        require(share(this.limit_share), "limit_share", "write a share between 0 and 1")?;
        require(share(this.clock_share), "clock_share", "write a share between 0 and 1")?;
        require(share(this.drawn_share), "drawn_share", "write a share between 0 and 1")
    }
}

/// What is remembered of a GPU's power cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PowerCapState {
    cord: Cord,
    /// Milliwatts: its own limit, and the highest of the node.
    limits: Option<(i32, i32)>,
    /// Megahertz: its own clock, and the others' mean.
    clocks: Option<(i32, i32)>,
    by_limit: bool,
}

impl Watch for PowerCapState {
    type Rule = PowerCapLossRule;

    fn observe(&mut self, look: &Look<'_>, rule: &PowerCapLossRule) -> Option<Change> {
        let by_limit = self.is_limited(look, rule);
        let by_clock = !by_limit && self.is_starved(look, rule);
        if !by_limit && !by_clock && self.cord.since().is_none() {
            return None;
        }
        if by_limit || by_clock {
            self.by_limit = by_limit;
        }
        let verdict = if by_limit || by_clock {
            Verdict::Unwelcome
        } else if self.by_limit || look.is_working {
            Verdict::Fine
        } else {
            Verdict::Between
        };
        let hold = if self.by_limit {
            rule.limit_hold.0.max(look.interval)
        } else {
            rule.clock_hold.0
        };
        let patience = Patience {
            hold,
            settle: rule.settle.0,
        };
        let change = self.cord.observe(look.at, verdict, patience, look.interval);
        change.map(Change::from)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &PowerCapLossRule) -> Finding {
        let gpu = gpu_on_node(tell.gpu);
        let watts = |mw: i32| format!("{} W", mw / 1000);
        let limit = self
            .limits
            .map(|(own, highest)| Evidence::new("power limit", watts(own)).against(watts(highest)));
        let clock = self.clocks.map(|(own, others)| {
            Evidence::new("SM clock", format!("{own} MHz"))
                .against(format!("{others} MHz on the others"))
                .over(tell.recent.clock_mhz())
        });
        let summary = match (self.by_limit, self.limits, self.clocks) {
            (true, Some((own, highest)), _) => format!(
                "{gpu} may draw only {}, the others of its node {}",
                watts(own),
                watts(highest)
            ),
            (_, _, Some((own, others))) => format!(
                "{gpu} is held at {own} MHz by its power cap, the others of its node run at {others} MHz"
            ),
            _ => format!("{gpu} has lost power"),
        };
        let action = "If nobody lowered the limit on purpose (`nvidia-smi -q -d POWER`), set it back (`nvidia-smi -pl`). If \
                      it falls again or the limit is right, the board or its power supply is at fault.";
        let mut found = finding(rule, tell.labels, summary, action)
            .with_some(limit)
            .with_some(clock)
            .missing_if(self.limits.is_none(), "power limits of the node");
        found.culprits.push(tell.gpu.clone());
        found
    }
}

impl PowerCapState {
    fn is_limited(&mut self, look: &Look<'_>, rule: &PowerCapLossRule) -> bool {
        let (Some(own), Some(highest)) = (look.sample.power_limit_mw, look.peers.limit_mw) else {
            return false;
        };
        if own == highest {
            self.limits = None;
            return false;
        }
        self.limits = Some((small(own), small(highest)));
        (own as f64) < highest as f64 * rule.limit_share
    }

    /// Held by its cap, slower than the others, and without drawing what it may.
    fn is_starved(&mut self, look: &Look<'_>, rule: &PowerCapLossRule) -> bool {
        let capped = look.sample.has_reason(clock_reason::SW_POWER_CAP);
        if capped != Some(true) || !look.is_working {
            return false;
        }
        let others = look.peers.others_mhz(look.sample.clock_mhz);
        let (Some(own), Some(others)) = (look.sample.clock_mhz, others) else {
            return false;
        };
        self.clocks = Some((small(own), small(others)));
        let slow = (own as f64) < others as f64 * rule.clock_share;
        let drawn = look.sample.power_mw.zip(look.sample.power_limit_mw);
        slow && drawn.is_none_or(|(mw, limit)| (mw as f64) < limit as f64 * rule.drawn_share)
    }
}

/// Milliwatts and megahertz of any board fit.
fn small(value: i64) -> i32 {
    value.clamp(0, i64::from(i32::MAX)) as i32
}
