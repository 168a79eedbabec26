//! ThermalThrottling: a GPU slows down for heat. *(pure)*
//!
//! Temperature alone is no alarm: slots differ by 14 °C at equal load. What counts is that the hardware cut its clocks
//! (a bit in the clock event reasons, or no margin left), or that software holds them down for heat much of the time.
//! 80 °C is a yellow lamp without an incident.

use std::time::Duration;

use entrenar::andon::{Cord, CordChange, Patience, Verdict};
use entrenar::metric::clock_reason;
use entrenar::unit::Timestamp;
use entrenar::window::ShareWindow;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node, lasting};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding, Severity};

rule! {
    /// A GPU slows down for heat.
    ThermalThrottlingRule: ThermalThrottling, named "thermal_throttling", Warning, true;
    /// Window in which hardware slowdown is counted; at least three samples long.
    hw_window: Span = Span::secs(10);
    /// Share of that window with hardware slowdown that raises the cord; never a single sample.
    hw_share: f64 = 0.3;
    /// At and below this margin to the slowdown point, the hardware is taken to slow down.
    margin_celsius: i64 = -2;
    /// Window in which software slowdown is counted.
    sw_window: Span = Span::secs(60);
    /// Share of that window with software slowdown that raises the cord.
    sw_share: f64 = 0.5;
    /// Hardware slowdown that lasts this long is critical.
    critical_after: Span = Span::secs(60);
    /// How long it must be clean before the cord is cleared.
    settle: Span = Span::secs(300);
    /// A GPU this warm has a yellow lamp.
    lamp_celsius: i64 = 80;
    => |this| {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        require(share(this.hw_share), "hw_share", "write a share above 0 and up to 1")?;
        require(share(this.sw_share), "sw_share", "write a share above 0 and up to 1")?;
        require(this.hw_window.millis() > 0, "hw_window", "a window must be longer than 0s")?;
        require(this.sw_window.millis() > 0, "sw_window", "a window must be longer than 0s")?;
        let can_be = (20..=150).contains(&this.lamp_celsius);
        require(can_be, "lamp_celsius", "write a temperature from 20 to 150")?;
        let can_be = (-50..=MARGIN_CLEAR_CELSIUS).contains(&this.margin_celsius);
        require(can_be, "margin_celsius", "write a margin from -50 to 3")
    }
}

/// A margin of this much is clean again.
const MARGIN_CLEAR_CELSIUS: i64 = 3;
/// Less software slowdown than this is clean.
const SW_CLEAN_SHARE: f64 = 0.1;
/// The margin is read at a slower pace: how long a reading stands.
const MARGIN_STANDS_MS: i64 = 25_000;

/// What is remembered of a GPU's heat.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct ThermalState {
    cord: Cord,
    hw: ShareWindow,
    sw: ShareWindow,
    margin: Option<(Timestamp, i64)>,
    /// Since when there has been slowdown without a clean window.
    bad_since: Option<Timestamp>,
    /// Since when the hardware has slowed down without a clean window.
    hw_since: Option<Timestamp>,
    critical: bool,
    celsius: Option<i64>,
}

/// A window cut into slots.
#[derive(Clone, Copy)]
struct Slots {
    ms: i64,
    count: u32,
}

impl Slots {
    fn of(window: Span, interval_ms: i64, at_least: u32) -> Self {
        let finest = window.millis() / i64::from(ShareWindow::SLOTS - 4);
        let ms = interval_ms
            .max(finest)
            .max(1000.min(window.millis()))
            .max(1);
        let count = (window.millis() / ms) as u32;
        Self {
            ms,
            count: count.clamp(at_least, ShareWindow::SLOTS),
        }
    }
}

impl Watch for ThermalState {
    type Rule = ThermalThrottlingRule;

    fn observe(&mut self, look: &Look<'_>, rule: &ThermalThrottlingRule) -> Option<Change> {
        let (at, sample) = (look.at, look.sample);
        self.celsius = sample.celsius;
        let interval_ms = look.interval_ms();
        let hw_slots = Slots::of(rule.hw_window, interval_ms, 3);
        let sw_slots = Slots::of(rule.sw_window, interval_ms, 3);
        if let Some(margin) = sample.margin_celsius {
            self.margin = Some((at, margin));
        }
        let margin = self.margin_at(at);
        let cut = sample.has_reason(clock_reason::HW_THERMAL);
        let spent = margin.map(|margin| margin <= rule.margin_celsius);
        // A GPU that reports neither reasons nor margin says nothing about its heat.
        let hw = match (cut, spent) {
            (None, None) => return None,
            (cut, spent) => cut.unwrap_or(false) || spent.unwrap_or(false),
        };
        let sw = sample.has_reason(clock_reason::SW_THERMAL).unwrap_or(false);
        self.hw.push(at, hw_slots.ms, hw);
        self.sw.push(at, sw_slots.ms, sw);

        let hw_seen = self.hw.yes(hw_slots.count);
        let sw_share = f64::from(self.sw.yes(sw_slots.count)) / f64::from(sw_slots.count);
        let hw_hot = hw_seen >= hw_needed(hw_slots, rule);
        self.note_since(at, hw_seen > 0, self.sw.yes(sw_slots.count) > 0);
        let verdict = if hw_hot || sw_share >= rule.sw_share {
            Verdict::Unwelcome
        } else if hw_seen == 0
            && sw_share < SW_CLEAN_SHARE
            && margin.is_none_or(|margin| margin >= MARGIN_CLEAR_CELSIUS)
        {
            Verdict::Fine
        } else {
            Verdict::Between
        };
        let patience = Patience {
            hold: Duration::ZERO,
            settle: rule.settle.0,
        };
        let change = self.cord.observe(at, verdict, patience, look.interval);
        if change == Some(CordChange::Cleared) {
            self.critical = false;
        }
        change.map(Change::from).or_else(|| self.worse(at, rule))
    }

    fn severity(&self, rule: &ThermalThrottlingRule) -> Severity {
        if self.critical {
            Severity::Critical
        } else {
            rule.severity
        }
    }

    /// When the slowdown began.
    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.bad_since.or(self.cord.since()).unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &ThermalThrottlingRule) -> Finding {
        let (at, gpu, recent) = (tell.at, tell.gpu, tell.recent);
        let interval_ms = tell.interval.as_millis() as i64;
        let hw_slots = Slots::of(rule.hw_window, interval_ms, 3);
        let sw_slots = Slots::of(rule.sw_window, interval_ms, 3);
        let hw = self.hw.yes(hw_slots.count);
        let warmth = self
            .celsius
            .map_or("at unknown temperature".into(), |c| format!("at {c} °C"));
        let how = if self.hw_since.is_some() {
            "the hardware cut its clocks for heat"
        } else {
            "its clocks are held down for heat"
        };
        let lasts = at.0 - self.started_at(at).0;
        let summary = format!(
            "{} throttles {warmth}: {how}, for {}",
            gpu_on_node(gpu),
            lasting(lasts)
        );
        let action = "Check the fans, the coolant and the airflow of the node. Drain the node if the slowdown \
                      lasts: at the shutdown temperature the GPU stops and its job with it.";
        let celsius = self.celsius.map(|celsius| {
            Evidence::new("temperature", format!("{celsius} °C")).over(recent.celsius())
        });
        let margin = self.margin_at(at).map(|margin| {
            Evidence::new("margin to the slowdown point", format!("{margin} °C"))
                .against(format!("{} °C", rule.margin_celsius))
        });
        let hardware = Evidence::new("hardware slowdown", of_slots(hw, hw_slots))
            .against(of_slots(hw_needed(hw_slots, rule), hw_slots));
        let software = Evidence::new(
            "software slowdown",
            of_slots(self.sw.yes(sw_slots.count), sw_slots),
        )
        .against(format!("{:.0} %", rule.sw_share * 100.0));
        let clocks = recent.clock_mhz();
        let clock = clocks
            .iter()
            .rev()
            .find_map(|mhz| *mhz)
            .map(|mhz| Evidence::new("SM clock", format!("{mhz:.0} MHz")).over(clocks.clone()));
        let mut found = finding(rule, tell.labels, summary, action)
            .with_some(celsius)
            .with_some(margin)
            .with(hardware)
            .with(software)
            .with_some(clock)
            .missing_if(self.celsius.is_none(), "temperature")
            .missing_if(self.margin_at(at).is_none(), "margin to the slowdown point");
        found.culprits.push(gpu.clone());
        found
    }
}

impl ThermalState {
    /// Whether the GPU is warm enough for a yellow lamp.
    pub(super) fn is_warm(&self, rule: &ThermalThrottlingRule) -> bool {
        rule.enabled
            && self
                .celsius
                .is_some_and(|celsius| celsius >= rule.lamp_celsius)
    }

    /// Slowdown goes on as long as its window holds some of it.
    fn note_since(&mut self, at: Timestamp, hw_goes_on: bool, sw_goes_on: bool) {
        if hw_goes_on {
            self.hw_since.get_or_insert(at);
        } else {
            self.hw_since = None;
        }
        if hw_goes_on || sw_goes_on {
            self.bad_since.get_or_insert(at);
        } else if !self.cord.is_raised() {
            self.bad_since = None;
        }
    }

    fn worse(&mut self, at: Timestamp, rule: &ThermalThrottlingRule) -> Option<Change> {
        let lasts = self
            .hw_since
            .is_some_and(|since| at.since(since) >= rule.critical_after.0);
        if !lasts || self.critical || !self.cord.is_raised() {
            return None;
        }
        self.critical = true;
        Some(Change::Updated)
    }

    fn margin_at(&self, at: Timestamp) -> Option<i64> {
        let fresh = |(seen, _): &(Timestamp, i64)| at.0 - seen.0 <= MARGIN_STANDS_MS;
        self.margin.filter(fresh).map(|(_, margin)| margin)
    }
}

/// How many slots must show hardware slowdown: the share, and never one alone.
fn hw_needed(slots: Slots, rule: &ThermalThrottlingRule) -> u32 {
    ((f64::from(slots.count) * rule.hw_share).ceil() as u32).max(2)
}

fn of_slots(n: u32, slots: Slots) -> String {
    let seconds = |n: u32| f64::from(n) * slots.ms as f64 / 1e3;
    format!("{:.0} of {:.0} s", seconds(n), seconds(slots.count))
}
