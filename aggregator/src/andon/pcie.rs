//! PcieDegraded: a GPU's link to its host is narrower or slower than it was, or must send too much again. *(pure)*
//!
//! The width never changes by design. The generation drops at idle, so it is judged under load only. A healthy link
//! sends little again: the bound goes by lanes and generation.

use std::time::Duration;

use entrenar::andon::{Cord, CordChange, Patience, Verdict};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::counter::{Counter, Tally};
use super::finding::{finding, gpu_on_node};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding, Severity};

rule! {
    /// A GPU's link to its host is narrower or slower than it was, or must send too much again.
    PcieDegradedRule: PcieDegraded, named "pcie_degraded", Warning, true;
    /// How much a narrow link matters while the GPU works.
    narrow_severity: Severity = Severity::Critical;
    /// How long the link must be narrow.
    width_hold: Span = Span::secs(5);
    /// How long the link must be slow while the GPU works.
    gen_hold: Span = Span::secs(10);
    /// Minutes in a row with more replays than a healthy link has.
    replay_minutes: u32 = 3;
    /// How many times what a healthy link may have is too much.
    replay_bounds: f64 = 1.0;
    /// How long the link must be as it was.
    settle: Span = Span::secs(60);
    => |this| {
        require((1..=9).contains(&this.replay_minutes), "replay_minutes", "write a number from 1 to 9")?;
        require(this.replay_bounds > 0.0, "replay_bounds", "write a number above 0")
    }
}

const MINUTE_MS: i64 = 60_000;

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    Narrow,
    Slow,
    Replays,
}

/// What is remembered of a GPU's PCIe link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PcieState {
    cord: Cord,
    /// Lanes: now, and most that were seen.
    width: Option<(i16, i16)>,
    /// Generation: now, and highest that was seen.
    generation: Option<(i16, i16)>,
    replay: Counter,
    replay_by_minute: Tally,
    why: Option<Why>,
    grave: bool,
}

impl Watch for PcieState {
    type Rule = PcieDegradedRule;

    fn observe(&mut self, look: &Look<'_>, rule: &PcieDegradedRule) -> Option<Change> {
        let sample = look.sample;
        note(&mut self.width, sample.pcie_width, look.peers.pcie_width);
        note(&mut self.generation, sample.pcie_gen, look.peers.pcie_gen);
        let rise = self.replay.rise(sample.pcie_replay);
        if rise > 0 || !self.replay_by_minute.is_empty() {
            self.replay_by_minute.add(look.at, MINUTE_MS, rise);
        }
        let why = self.why_now(look, rule);
        if why.is_none() && self.cord.since().is_none() {
            return None;
        }
        let verdict = match why {
            Some(_) => Verdict::Unwelcome,
            // At idle the generation says nothing.
            None if self.why == Some(Why::Slow) && !look.is_working => Verdict::Between,
            None => Verdict::Fine,
        };
        self.why = why.or(self.why);
        let patience = Patience {
            hold: match self.why {
                Some(Why::Narrow) => rule.width_hold.0.max(look.interval / 2),
                Some(Why::Slow) => rule.gen_hold.0.max(look.interval),
                Some(Why::Replays) | None => Duration::ZERO,
            },
            settle: rule.settle.0,
        };
        let change = self.cord.observe(look.at, verdict, patience, look.interval);
        if change == Some(CordChange::Cleared) {
            (self.why, self.grave) = (None, false);
        }
        let worse = why == Some(Why::Narrow) && look.is_working && !self.grave;
        if worse && self.cord.is_raised() {
            self.grave = true;
            return change.map(Change::from).or(Some(Change::Updated));
        }
        change.map(Change::from)
    }

    fn severity(&self, rule: &PcieDegradedRule) -> Severity {
        if self.grave {
            rule.narrow_severity
        } else {
            rule.severity
        }
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &PcieDegradedRule) -> Finding {
        let gpu = gpu_on_node(tell.gpu);
        let (lanes, most) = self.width.unwrap_or_default();
        let (generation, highest) = self.generation.unwrap_or_default();
        let replays = self.replay_by_minute.sum(rule.replay_minutes as usize);
        let summary = match self.why {
            Some(Why::Narrow) => format!("The PCIe link of {gpu} has {lanes} of its {most} lanes"),
            Some(Why::Slow) => format!(
                "The PCIe link of {gpu} runs at generation {generation} under load, it can {highest}"
            ),
            Some(Why::Replays) | None => format!(
                "The PCIe link of {gpu} sends too much again: {replays} replays in {} minutes",
                rule.replay_minutes
            ),
        };
        let action = "Look at the node's kernel log for PCIe errors (AER). Reseat the riser or the board, and reboot the node \
                      when its job has ended.";
        let width = self
            .width
            .map(|(now, most)| Evidence::new("lanes", now.to_string()).against(most.to_string()));
        let pace = self.generation.map(|(now, highest)| {
            Evidence::new("generation", now.to_string()).against(highest.to_string())
        });
        let bound = bound_per_minute(most, generation) * f64::from(rule.replay_minutes);
        let again = Evidence::new("replays", replays.to_string())
            .against(format!("{:.0}", bound * rule.replay_bounds));
        let mut found = finding(rule, tell.labels, summary, action)
            .with_some(width)
            .with_some(pace)
            .with(again);
        found.culprits.push(tell.gpu.clone());
        found
    }
}

impl PcieState {
    /// Most lanes that were seen.
    pub(super) fn most_lanes(&self) -> Option<i64> {
        self.width.map(|(_, most)| i64::from(most))
    }

    /// Highest generation that was seen.
    pub(super) fn highest_gen(&self) -> Option<i64> {
        self.generation.map(|(_, highest)| i64::from(highest))
    }

    fn why_now(&self, look: &Look<'_>, rule: &PcieDegradedRule) -> Option<Why> {
        let is_less = |of: Option<(i16, i16)>| of.is_some_and(|(now, most)| now < most);
        if is_less(self.width) {
            Some(Why::Narrow)
        } else if is_less(self.generation) && look.is_working {
            Some(Why::Slow)
        } else if self.replays_too_much(rule) {
            Some(Why::Replays)
        } else {
            None
        }
    }

    fn replays_too_much(&self, rule: &PcieDegradedRule) -> bool {
        if self.replay_by_minute.is_empty() {
            return false;
        }
        let (_, lanes) = self.width.unwrap_or((16, 16));
        let (_, generation) = self.generation.unwrap_or((4, 4));
        let bound = bound_per_minute(lanes, generation) * rule.replay_bounds;
        let goes_on = self.why == Some(Why::Replays) && self.cord.is_raised();
        // The present minute is not over: it can raise, and does not end anything.
        f64::from(self.replay_by_minute.least(rule.replay_minutes as usize)) > bound
            || (goes_on && f64::from(self.replay_by_minute.last_whole()) > bound)
    }
}

/// Keeps what is read at a slower pace, and the most that this GPU or one like it has shown.
fn note(kept: &mut Option<(i16, i16)>, now: Option<i64>, peers: Option<i64>) {
    let small = |value: i64| value.clamp(0, i64::from(i16::MAX)) as i16;
    let Some(now) = now.map(small).or(kept.map(|(now, _)| now)) else {
        return;
    };
    let most = kept.map_or(now, |(_, most)| most.max(now));
    *kept = Some((now, most.max(peers.map_or(0, small))));
}

/// Replays a minute that a healthy link of so many lanes may have at a generation.
fn bound_per_minute(lanes: i16, generation: i16) -> f64 {
    let per_lane = match generation {
        ..=1 => 0.15,
        2 => 0.3,
        3 => 0.48,
        4 => 0.96,
        5 => 1.92,
        6.. => 3.84,
    };
    f64::from(lanes.max(1)) * per_lane
}
