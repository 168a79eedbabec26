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
use super::slots::Slots;
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
    /// Window in which software slowdown is counted: for heat, and with clocks far down.
    sw_window: Span = Span::secs(20);
    /// Share of that window with software slowdown that raises the cord.
    sw_share: f64 = 0.5;
    /// Clocks below this share of the highest count as software slowdown.
    sw_clock_share: f64 = 0.85;
    /// Hardware slowdown that lasts this long is critical.
    critical_after: Span = Span::secs(60);
    /// It is critical at once where the hardware takes the clocks below this share of the highest,
    critical_clock_share: f64 = 0.8;
    /// in this share of the window.
    critical_share: f64 = 0.5;
    /// How long it must be clean before the cord is cleared.
    settle: Span = Span::secs(300);
    /// A GPU this warm has a yellow lamp.
    lamp_celsius: i64 = 80;
    => |this| {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        require(share(this.hw_share), "hw_share", "write a share above 0 and up to 1")?;
        require(share(this.sw_share), "sw_share", "write a share above 0 and up to 1")?;
        require(share(this.sw_clock_share), "sw_clock_share", "write a share above 0 and up to 1")?;
        require(share(this.critical_clock_share), "critical_clock_share", "write a share above 0 and up to 1")?;
        require(share(this.critical_share), "critical_share", "write a share above 0 and up to 1")?;
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
    /// Hardware slowdown that took the clocks far down.
    cut: ShareWindow,
    /// When the hardware last said that it slows down for heat.
    word_at: Option<Timestamp>,
    /// Highest clock that it was seen at.
    top_mhz: Option<i64>,
    margin: Option<(Timestamp, i64)>,
    /// Since when there has been slowdown without a clean window.
    bad_since: Option<Timestamp>,
    /// Since when the hardware has slowed down without a clean window.
    hw_since: Option<Timestamp>,
    critical: bool,
    celsius: Option<i64>,
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
        let cut_by_bit = sample.has_reason(clock_reason::HW_THERMAL);
        let spent = margin.map(|margin| margin <= rule.margin_celsius);
        // A GPU that reports neither reasons nor margin says nothing about its heat.
        let hw = match (cut_by_bit, spent) {
            (None, None) => return None,
            (cut, spent) => cut.unwrap_or(false) || spent.unwrap_or(false),
        };
        self.top_mhz = self.top_mhz.max(sample.clock_mhz);
        let sw = sample.has_reason(clock_reason::SW_THERMAL).unwrap_or(false)
            && self.is_below(look, rule.sw_clock_share).unwrap_or(true);
        // The quiet path: nothing to count, and nothing was.
        if !hw && !sw && self.bad_since.is_none() && !self.cord.is_raised() {
            return None;
        }
        let cut = hw
            && cut_by_bit.unwrap_or(true)
            && self
                .is_below(look, rule.critical_clock_share)
                .unwrap_or(false);
        self.hw.push(at, hw_slots.ms, hw);
        self.sw.push(at, sw_slots.ms, sw);
        self.cut.push(at, hw_slots.ms, cut);

        let hw_seen = self.hw.yes(hw_slots.count);
        let sw_share = f64::from(self.sw.yes(sw_slots.count)) / f64::from(sw_slots.count);
        let hw_hot = hw_seen >= hw_slots.needed(rule.hw_share);
        // A spent margin alone is a sign, not the hardware's own word, where its word can be heard.
        if hw && cut_by_bit.unwrap_or(true) {
            self.word_at = Some(at);
        }
        let window_ms = hw_slots.ms * i64::from(hw_slots.count);
        let goes_on = self.word_at.is_some_and(|word| at.0 - word.0 < window_ms);
        self.note_since(at, goes_on, hw_seen > 0 || self.sw.yes(sw_slots.count) > 0);
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
        change
            .map(Change::from)
            .or_else(|| self.worse(at, hw_slots, rule))
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
        let hardware = Evidence::new("hardware slowdown", hw_slots.told(hw))
            .against(hw_slots.told(hw_slots.needed(rule.hw_share)));
        let software = Evidence::new(
            "software slowdown",
            sw_slots.told(self.sw.yes(sw_slots.count)),
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
    fn note_since(&mut self, at: Timestamp, hw_goes_on: bool, goes_on: bool) {
        if hw_goes_on {
            self.hw_since.get_or_insert(at);
        } else {
            self.hw_since = None;
        }
        if hw_goes_on || goes_on {
            self.bad_since.get_or_insert(at);
        } else if !self.cord.is_raised() {
            self.bad_since = None;
        }
    }

    fn worse(
        &mut self,
        at: Timestamp,
        hw_slots: Slots,
        rule: &ThermalThrottlingRule,
    ) -> Option<Change> {
        let lasts = self
            .hw_since
            .is_some_and(|since| at.since(since) >= rule.critical_after.0);
        let is_cut = self.cut.yes(hw_slots.count) >= hw_slots.needed(rule.critical_share);
        if !(lasts || is_cut) || self.critical || !self.cord.is_raised() {
            return None;
        }
        self.critical = true;
        Some(Change::Updated)
    }

    /// Whether its clock is below a share of the highest that it, or one like it, was seen at; `None`: not known.
    fn is_below(&self, look: &Look<'_>, share: f64) -> Option<bool> {
        let top = self.top_mhz.max(look.peers.top_mhz)?;
        Some((look.sample.clock_mhz? as f64) <= top as f64 * share)
    }

    pub(super) fn top_mhz(&self) -> Option<i64> {
        self.top_mhz
    }

    fn margin_at(&self, at: Timestamp) -> Option<i64> {
        let fresh = |(seen, _): &(Timestamp, i64)| at.0 - seen.0 <= MARGIN_STANDS_MS;
        self.margin.filter(fresh).map(|(_, margin)| margin)
    }
}
