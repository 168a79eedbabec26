//! The page's Andon: thresholds on one node's GPUs, checked whenever the caller has new metrics.
//!
//! It says at every check what is wrong at that moment; it does not smooth, hold or group. The fleet's rules, with hold
//! times and causes, are another thing and live with the aggregator.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::alert::{AlertConfig, AlertLevel, GpuAlert};
use super::line::{AlertAction, LevelActions, StopFlag};
use super::metrics::{GpuMetrics, GpuReading, Vitals};
use crate::clock;

/// Checks GPUs against thresholds and, where asked to, acts on what it finds.
///
/// Being idle is measured on the monotonic clock from the first check that saw 0 %, so that a single check of a new
/// system can never report it (unless the timeout is 0). A GPU that is busy, or that is missing from a check, starts
/// anew. The timers belong to this value, which for that reason cannot be cloned.
#[derive(Default)]
pub struct AndonSystem {
    config: AlertConfig,
    actions: LevelActions,
    line: StopFlag,
    notifier: Option<Notifier>,
    memory: Mutex<Memory>,
}

type Notifier = Box<dyn Fn(&GpuAlert) + Send + Sync>;

/// What the system remembers between checks.
#[derive(Debug, Default)]
struct Memory {
    /// By device: since when it has done nothing.
    idle_since: HashMap<u32, Instant>,
    /// By device and kind: the level at which it was last told. Gone when the alert is over.
    told: HashMap<(u32, &'static str), AlertLevel>,
}

impl AndonSystem {
    /// The default thresholds: 80 °C, 90 % of memory, 95 % of power, 5 idle minutes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Thresholds of one's own.
    pub fn with_config(config: AlertConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// What [`act`](Self::act) does at each level.
    #[must_use]
    pub fn with_level_actions(mut self, actions: LevelActions) -> Self {
        self.actions = actions;
        self
    }

    /// Whom [`act`](Self::act) tells.
    #[must_use]
    pub fn with_notifier(mut self, notifier: impl Fn(&GpuAlert) + Send + Sync + 'static) -> Self {
        self.notifier = Some(Box::new(notifier));
        self
    }

    /// The flag that [`act`](Self::act) pulls, instead of one of its own.
    #[must_use]
    pub fn with_stop_flag(mut self, line: StopFlag) -> Self {
        self.line = line;
        self
    }

    /// The thresholds.
    pub fn config(&self) -> &AlertConfig {
        &self.config
    }

    /// What is wrong now: per GPU heat, memory, power, idleness, in this order.
    ///
    /// A standing problem is reported at every check. [`GpuMetrics`] cannot say "unknown": a GPU that does not report
    /// its utilization (a MIG parent) reads 0 % there. [`check_readings`](Self::check_readings) tells them apart.
    pub fn check(&self, metrics: &[GpuMetrics]) -> Vec<GpuAlert> {
        self.check_at(metrics, clock::instant())
    }

    /// The same at a given instant: for tests and replays.
    pub fn check_at(&self, metrics: &[GpuMetrics], now: Instant) -> Vec<GpuAlert> {
        let vitals: Vec<_> = metrics.iter().map(Vitals::from).collect();
        self.check_vitals(&vitals, now)
    }

    /// The same for readings: what a GPU does not report is judged by no threshold.
    pub fn check_readings(&self, readings: &[GpuReading]) -> Vec<GpuAlert> {
        self.check_readings_at(readings, clock::instant())
    }

    /// The same at a given instant: for tests and replays.
    pub fn check_readings_at(&self, readings: &[GpuReading], now: Instant) -> Vec<GpuAlert> {
        let vitals: Vec<_> = readings.iter().filter_map(Vitals::of).collect();
        self.check_vitals(&vitals, now)
    }

    /// Carries out what the alerts' levels ask for, and returns the strongest wish about the work.
    ///
    /// Hand it all alerts of a check, an empty list too: a pause ends with its alert, a stop stays until
    /// [`reset`](Self::reset). A standing alert is logged and told once, and again only when its level rises.
    pub fn act(&self, alerts: &[GpuAlert]) -> AlertAction {
        self.act_with(alerts, AlertAction::Continue)
    }

    /// The same where someone else, too, has a wish about the work.
    pub(crate) fn act_with(&self, alerts: &[GpuAlert], other_wish: AlertAction) -> AlertAction {
        for alert in self.news(alerts) {
            let action = self.actions.of(alert.level());
            if action.log {
                eprintln!("entrenar: {}: {alert}", alert.level());
            }
            if let (true, Some(notify)) = (action.notify, &self.notifier) {
                notify(&alert);
            }
        }
        let wish = alerts
            .iter()
            .map(|alert| self.actions.of(alert.level()).work)
            .fold(other_wish, AlertAction::max);
        self.line.follow(wish);
        wish
    }

    /// The flag that [`act`](Self::act) pulls: hand a clone to whatever should stop.
    pub fn stop_flag(&self) -> StopFlag {
        self.line.clone()
    }

    /// Whether the line is stopped.
    pub fn should_stop(&self) -> bool {
        self.line.is_stopped()
    }

    /// Lets the line run again. An alert that still stands stops it at the next [`act`](Self::act).
    pub fn reset(&self) {
        self.line.reset();
    }

    fn check_vitals(&self, vitals: &[Vitals], now: Instant) -> Vec<GpuAlert> {
        let mut memory = self.memory();
        memory
            .idle_since
            .retain(|device, _| vitals.iter().any(|v| v.device == *device));
        let mut alerts = Vec::new();
        for gpu in vitals {
            let idle = memory.idle_for(gpu, now);
            alerts.extend(self.config.judge(gpu, idle));
        }
        alerts
    }

    /// The alerts that were not told yet at their level; remembers that they are.
    fn news(&self, alerts: &[GpuAlert]) -> Vec<GpuAlert> {
        let mut memory = self.memory();
        let key = |alert: &GpuAlert| (alert.device(), alert.kind());
        memory
            .told
            .retain(|told, _| alerts.iter().any(|alert| key(alert) == *told));
        let mut news = Vec::new();
        for alert in alerts {
            let told = memory.told.get(&key(alert)).copied();
            if told < Some(alert.level()) {
                memory.told.insert(key(alert), alert.level());
                news.push(*alert);
            }
        }
        news
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // No user code runs under the lock.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// For how long the GPU has been at 0 %; `None` while it works or does not say.
    fn idle_for(&mut self, gpu: &Vitals, now: Instant) -> Option<Duration> {
        if gpu.utilization_percent != Some(0) {
            self.idle_since.remove(&gpu.device);
            return None;
        }
        let since = *self.idle_since.entry(gpu.device).or_insert(now);
        Some(now.saturating_duration_since(since))
    }
}

impl AlertConfig {
    /// What is wrong with one GPU.
    fn judge(&self, gpu: &Vitals, idle: Option<Duration>) -> impl Iterator<Item = GpuAlert> {
        let device = gpu.device;
        let reached = |value: Option<u32>, threshold| value.filter(|v| *v >= threshold);
        let threshold = self.thermal_threshold;
        let thermal =
            reached(gpu.temperature_celsius, threshold).map(|temp| GpuAlert::ThermalThrottling {
                device,
                temp,
                threshold,
            });
        let threshold = self.memory_threshold;
        let memory =
            reached(gpu.memory_percent, threshold).map(|used_percent| GpuAlert::MemoryPressure {
                device,
                used_percent,
                threshold,
            });
        let threshold = self.power_threshold;
        let power =
            reached(gpu.power_percent, threshold).map(|power_percent| GpuAlert::PowerLimit {
                device,
                power_percent,
                threshold,
            });
        let idle_secs = idle.map(|d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
        let idle =
            reached(idle_secs, self.idle_timeout_secs).map(|duration_secs| GpuAlert::GpuIdle {
                device,
                duration_secs,
            });
        [thermal, memory, power, idle].into_iter().flatten()
    }
}

impl fmt::Debug for AndonSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AndonSystem")
            .field("config", &self.config)
            .field("actions", &self.actions)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gpu::{GpuInfo, Values};
    use crate::metric::{TEMPERATURE, UTILIZATION};

    /// A working GPU, well within all thresholds.
    fn fine(device_id: u32) -> GpuMetrics {
        GpuMetrics {
            device_id,
            temperature_celsius: 60,
            utilization_percent: 80,
            memory_used_bytes: 10,
            memory_total_bytes: 100,
            power_watts: 100.0,
            power_limit_watts: 400.0,
            ..GpuMetrics::default()
        }
    }

    /// Plays checks `SECOND:UTILIZATION…` of one GPU, `_` where it is missing; tells the seconds idle at each alert.
    fn check_idle(device: u32, story: &str, idle_at: &str) {
        let andon = AndonSystem::default();
        let start = clock::instant();
        let mut alerts = Vec::new();
        for step in story.split_whitespace() {
            let (second, utilization) = step.split_once(':').expect("SECOND:UTILIZATION");
            let gpus = utilization.parse().map(|utilization_percent| {
                vec![GpuMetrics {
                    utilization_percent,
                    ..fine(device)
                }]
            });
            let now = start + Duration::from_secs(second.parse().expect("a second"));
            for alert in andon.check_at(&gpus.unwrap_or_default(), now) {
                let GpuAlert::GpuIdle {
                    device: alerted,
                    duration_secs,
                } = alert
                else {
                    panic!("unexpected {alert}");
                };
                assert_eq!(alerted, device);
                alerts.push(format!("{second}:{duration_secs}"));
            }
        }
        assert_eq!(alerts.join(" "), idle_at, "{story}");
    }

    #[test]
    fn idleness_is_time_not_the_number_of_checks() {
        check_idle(0, "0:0 299:0", "");
        check_idle(0, "0:0 300:0 310:0", "300:300 310:310");
        check_idle(0, "10:0 310:0", "310:300");
        check_idle(5, "0:0 300:0", "300:300"); // not only device 0
        check_idle(0, "0:0 200:1 300:0 599:0 600:0", "600:300"); // work starts it anew
        check_idle(0, "0:0 200:_ 300:0 599:0 600:0", "600:300"); // so does absence
    }

    #[test]
    fn thresholds_are_reached_at_their_value_and_alerts_come_in_order() {
        let at_all = GpuMetrics {
            temperature_celsius: 80,
            memory_used_bytes: 90,
            power_watts: 380.0,
            ..fine(1)
        };
        let just_below = GpuMetrics {
            temperature_celsius: 79,
            memory_used_bytes: 8999,
            memory_total_bytes: 10_000,
            power_watts: 379.9,
            ..fine(0)
        };
        let alerts = AndonSystem::default().check(&[just_below, at_all]);
        assert_eq!(
            alerts,
            [
                GpuAlert::ThermalThrottling {
                    device: 1,
                    temp: 80,
                    threshold: 80
                },
                GpuAlert::MemoryPressure {
                    device: 1,
                    used_percent: 90,
                    threshold: 90
                },
                GpuAlert::PowerLimit {
                    device: 1,
                    power_percent: 95,
                    threshold: 95
                },
            ]
        );
    }

    #[test]
    fn a_gpu_that_does_not_say_how_busy_it_is_is_not_idle() {
        let andon = AndonSystem::with_config(AlertConfig {
            idle_timeout_secs: 0,
            ..AlertConfig::default()
        });
        let reading = |values| GpuReading {
            info: GpuInfo::default(),
            values,
        };
        let silent = reading(Ok(Values::default().with(TEMPERATURE, 40)));
        let idle = reading(Ok(Values::default().with(UTILIZATION, 0)));
        let lost = reading(Err(crate::backend::GpuError::Lost { device: 0 }));
        let n_alerts = |r: &GpuReading| andon.check_readings(std::slice::from_ref(r)).len();
        assert_eq!([&silent, &idle, &lost].map(n_alerts), [0, 1, 0]);
    }

    fn hot(temp: u32) -> GpuAlert {
        GpuAlert::ThermalThrottling {
            device: 0,
            temp,
            threshold: 80,
        }
    }

    #[test]
    fn a_warning_is_told_an_error_pauses_and_a_critical_alert_stops_until_reset() {
        let andon = AndonSystem::default();
        let flag = andon.stop_flag();
        let act = |alerts: &[GpuAlert]| (andon.act(alerts), flag.is_paused(), flag.is_stopped());
        assert_eq!(act(&[hot(80)]), (AlertAction::Continue, false, false));
        assert_eq!(act(&[hot(95)]), (AlertAction::Pause, true, false));
        assert_eq!(act(&[]), (AlertAction::Continue, false, false));
        assert_eq!(act(&[hot(95), hot(120)]), (AlertAction::Stop, false, true));
        assert_eq!(act(&[]), (AlertAction::Continue, false, true));
        andon.reset();
        assert!(!andon.should_stop());
    }

    #[test]
    fn a_standing_alert_is_told_once_and_again_when_it_gets_worse_or_returns() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let andon = AndonSystem::default().with_notifier({
            let told = told.clone();
            move |alert| told.lock().unwrap().push(alert.severity())
        });
        for alerts in [
            &[hot(80)][..],
            &[hot(85)],
            &[hot(90)],
            &[hot(85)],
            &[hot(91)],
            &[],
            &[hot(80)],
        ] {
            andon.act(alerts);
        }
        assert_eq!(*told.lock().unwrap(), [50, 60, 50]);
    }
}
