//! ThermalDrift: a GPU runs hotter than it used to at the same power. *(pure)*
//!
//! Slots differ by 14 °C at equal load, so a GPU is held against itself: how warm it was at each level of power when it
//! was first seen to work. What its neighbours have grown warmer by in the same time is the room's, and is taken off.

use std::time::Duration;

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node};
use super::recent::last;
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// A GPU runs hotter than it used to at the same power.
    ThermalDriftRule: ThermalDrift, named "thermal_drift", Warning, true;
    /// So many degrees hotter than it used to be.
    raise_celsius: i64 = 8;
    /// Below this it is over.
    clear_celsius: i64 = 4;
    /// How long it must be hotter.
    hold: Span = Span::secs(1800);
    /// How long it must be over.
    settle: Span = Span::secs(600);
    /// Minutes of work at a level of power from which it is known how warm it is.
    learn_minutes: u32 = 10;
    => |this| {
        require(this.raise_celsius > this.clear_celsius, "raise_celsius", "write more than clear_celsius")?;
        require(this.clear_celsius > 0, "clear_celsius", "write more than 0")?;
        require((1..=1000).contains(&this.learn_minutes), "learn_minutes", "write a number from 1 to 1000")
    }
}

/// Levels of power, up to the limit.
const LEVELS: usize = 6;
const MINUTE_MS: i64 = 60_000;
/// Hundredths of a degree: what is learned and compared.
const HUNDREDTHS: i64 = 100;
/// Temperature lags behind power: a minute in which power changed by more than a quarter is not looked at.
const STEADY_SHARE: i64 = 4;
/// Degrees between no power and all of it: by this, what was learned holds for a little more or less power too.
const CELSIUS_OF_LIMIT: i64 = 35;

/// What is remembered of how warm a GPU is at its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DriftState {
    cord: Cord,
    minute: Minute,
    /// Highest power limit that was seen.
    limit_mw: i64,
    learned: [Level; LEVELS],
    /// Above what was learned, in hundredths of a degree, smoothed over minutes.
    excess: Option<i64>,
    /// The same without the neighbours'.
    own: i64,
}

/// Sums over the present minute of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Minute {
    begun: Option<Timestamp>,
    n: i64,
    celsius: i64,
    power_mw: i64,
    least_mw: i64,
    most_mw: i64,
}

/// How warm the GPU is at a level of power, in hundredths of a degree, and from how many minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Level {
    celsius: i32,
    power_mw: i32,
    minutes: u32,
}

impl Watch for DriftState {
    type Rule = ThermalDriftRule;

    fn observe(&mut self, look: &Look<'_>, rule: &ThermalDriftRule) -> Option<Change> {
        let (celsius, power_mw) = (look.sample.celsius?, look.power_mw?);
        if !look.is_working {
            self.minute = Minute::default();
            return None;
        }
        let begun = *self.minute.begun.get_or_insert(look.at);
        let ms = look.at.0 - begun.0;
        if ms < MINUTE_MS {
            self.minute.add(celsius, power_mw);
            return None;
        }
        let minute = std::mem::take(&mut self.minute);
        self.minute.begun = Some(look.at);
        self.minute.add(celsius, power_mw);
        // A minute with a hole in it is as good as none.
        if ms > 2 * MINUTE_MS || !minute.is_steady() {
            return None;
        }
        self.judge(&minute, look, rule)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &ThermalDriftRule) -> Finding {
        let degrees = |hundredths: i64| format!("{:.1} °C", hundredths as f64 / HUNDREDTHS as f64);
        let summary = format!(
            "{} runs {} hotter than it used to at the same power",
            gpu_on_node(tell.gpu),
            degrees(self.own)
        );
        let action = "Plan a service: its fan, its cooler's contact (thermal paste) or the coolant's flow. It will throttle \
                      when the room gets warmer.";
        let degrees_now = tell.recent.celsius();
        let celsius = last(&degrees_now)
            .map(|c| Evidence::new("temperature", format!("{c:.0} °C")).over(degrees_now.clone()));
        let own = Evidence::new(
            "above its usual, without its neighbours'",
            degrees(self.own),
        )
        .against(format!("{} °C", rule.raise_celsius));
        let excess = self
            .excess
            .map(|excess| Evidence::new("above its usual", degrees(excess)));
        let mut found = finding(rule, tell.labels, summary, action)
            .with_some(celsius)
            .with(own)
            .with_some(excess);
        found.culprits.push(tell.gpu.clone());
        found
    }
}

impl DriftState {
    /// Above what was learned, in hundredths of a degree; `None` until something was.
    pub(super) fn excess(&self) -> Option<i64> {
        self.excess
    }

    fn judge(
        &mut self,
        minute: &Minute,
        look: &Look<'_>,
        rule: &ThermalDriftRule,
    ) -> Option<Change> {
        // By the board's own limit: one that is lowered for a while does not move the levels.
        let limit_mw = look.sample.power_limit_mw.max(look.peers.limit_mw);
        self.limit_mw = self.limit_mw.max(limit_mw.unwrap_or(0));
        let limit_mw = Some(self.limit_mw).filter(|mw| *mw > 0)?;
        let level = (minute.mean_mw() * LEVELS as i64 / limit_mw).clamp(0, LEVELS as i64 - 1);
        let level = &mut self.learned[level as usize];
        let celsius = minute.mean_celsius();
        if level.minutes < rule.learn_minutes {
            level.learn(celsius, minute.mean_mw());
            return None;
        }
        let more_mw = minute.mean_mw() - i64::from(level.power_mw);
        let for_power = CELSIUS_OF_LIMIT * HUNDREDTHS * more_mw / limit_mw;
        let above = celsius - i64::from(level.celsius) - for_power;
        // Half of the new, half of the old: one odd minute neither begins nor ends anything.
        let excess = self
            .excess
            .map_or(above, |before| i64::midpoint(before, above));
        self.excess = Some(excess);
        self.own = excess - look.peers.others_excess(Some(excess)).unwrap_or(0).max(0);
        let verdict = if self.own >= rule.raise_celsius * HUNDREDTHS {
            Verdict::Unwelcome
        } else if self.own < rule.clear_celsius * HUNDREDTHS {
            Verdict::Fine
        } else {
            Verdict::Between
        };
        let patience = Patience {
            hold: rule.hold.0,
            settle: rule.settle.0,
        };
        let pace = Duration::from_millis(MINUTE_MS as u64).max(look.interval);
        let change = self.cord.observe(look.at, verdict, patience, pace);
        change.map(Change::from)
    }
}

impl Minute {
    fn add(&mut self, celsius: i64, power_mw: i64) {
        if self.n == 0 {
            (self.least_mw, self.most_mw) = (power_mw, power_mw);
        }
        self.n += 1;
        self.celsius += celsius;
        self.power_mw += power_mw;
        self.least_mw = self.least_mw.min(power_mw);
        self.most_mw = self.most_mw.max(power_mw);
    }

    fn mean_mw(&self) -> i64 {
        self.power_mw / self.n.max(1)
    }

    fn mean_celsius(&self) -> i64 {
        self.celsius * HUNDREDTHS / self.n.max(1)
    }

    fn is_steady(&self) -> bool {
        self.n >= 3 && (self.most_mw - self.least_mw) * STEADY_SHARE <= self.mean_mw()
    }
}

impl Level {
    fn learn(&mut self, celsius: i64, power_mw: i64) {
        let n = i64::from(self.minutes);
        let mean = |before: i32, value: i64| ((i64::from(before) * n + value) / (n + 1)) as i32;
        self.celsius = mean(self.celsius, celsius);
        self.power_mw = mean(self.power_mw, power_mw);
        self.minutes += 1;
    }
}
