//! Watches the GPUs while a training runs, from a thread of its own: a step that hangs is seen as well.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{CallbackAction, CallbackContext, TrainerCallback};
use crate::monitor::gpu::{
    AlertAction, AlertConfig, AndonSystem, GpuAlert, GpuError, GpuMonitor, GpuReading,
    LevelActions, StopFlag,
};

/// The shortest interval: GPUs do not refresh their sensors faster.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// How long training waits for the first sample, so that even a short one is looked at.
const FIRST_SAMPLE_WAIT: Duration = Duration::from_secs(3);

/// How long the end of training waits for the sampling thread. One that hangs in a driver is left behind.
const END_WAIT: Duration = Duration::from_secs(3);

type OnAlert = Arc<Mutex<dyn FnMut(&GpuAlert) -> AlertAction + Send>>;
type Open = Arc<dyn Fn() -> Result<GpuMonitor, GpuError> + Send + Sync>;

/// Samples the GPUs during a training and can pause or stop it.
///
/// Without GPUs, or without a driver, it says so once and the training goes on unwatched.
///
/// ```
/// use entrenar::monitor::gpu::{AlertAction, GpuMonitor, MockGpuBackend};
/// use entrenar::train::callback::GpuMonitorCallback;
/// use entrenar::train::{Trainer, TrainerConfig};
///
/// let too_hot = MockGpuBackend::new().with_device(0, "Mock GPU").with_temperature(97);
/// let mut trainer = Trainer::new(TrainerConfig::default());
/// trainer.add_callback(GpuMonitorCallback::new()
///     .with_monitor(GpuMonitor::with_backend(too_hot))
///     .on_alert(|alert| {
///         if alert.severity() >= 60 { AlertAction::Stop } else { AlertAction::Continue }
///     }));
/// let report = trainer.fit(&|batch: &f32| *batch, &vec![1.0])?;
/// assert_eq!(report.stopped_by.as_deref(), Some("gpu-monitor"));
/// # Ok::<(), entrenar::train::TrainError>(())
/// ```
pub struct GpuMonitorCallback {
    interval: Duration,
    config: AlertConfig,
    actions: Option<LevelActions>,
    on_alert: Option<OnAlert>,
    open: Open,
    line: StopFlag,
    watch: Option<Arc<Watch>>,
}

impl Default for GpuMonitorCallback {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            config: AlertConfig::default(),
            actions: None,
            on_alert: None,
            open: Arc::new(GpuMonitor::new),
            line: StopFlag::new(),
            watch: None,
        }
    }
}

impl GpuMonitorCallback {
    /// Every 10 seconds, with the default thresholds. The GPUs are opened when a training begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Seconds between samples, at least 1.
    #[must_use]
    pub fn with_interval_secs(self, secs: u64) -> Self {
        self.with_interval(Duration::from_secs(secs.max(1)))
    }

    /// Time between samples, at least 10 ms.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(MIN_INTERVAL);
        self
    }

    /// Alerts from this temperature on, in °C.
    #[must_use]
    pub fn with_thermal_threshold(mut self, celsius: u32) -> Self {
        self.config.thermal_threshold = celsius;
        self
    }

    /// All thresholds.
    #[must_use]
    pub fn with_config(mut self, config: AlertConfig) -> Self {
        self.config = config;
        self
    }

    /// A monitor that is open already, instead of [`GpuMonitor::new`].
    #[must_use]
    pub fn with_monitor(mut self, monitor: GpuMonitor) -> Self {
        self.open = Arc::new(move || Ok(monitor.clone()));
        self
    }

    /// What follows from alerts by their level: [`LevelActions::default`] pauses at Error and stops at Critical.
    ///
    /// Without this nothing follows but the call of [`on_alert`](Self::on_alert), or a line of log if that is not set:
    /// a full memory, for one, is critical and quite normal in training.
    #[must_use]
    pub fn with_level_actions(mut self, actions: LevelActions) -> Self {
        self.actions = Some(actions);
        self
    }

    /// A flag shared with others, instead of one of its own.
    #[must_use]
    pub fn with_stop_flag(mut self, line: StopFlag) -> Self {
        self.line = line;
        self
    }

    /// Called for each alert that stands at a sample, from the sampling thread. It may return nothing, or an
    /// [`AlertAction`]: a pause lasts until a sample at which no call asks for it, a stop until the flag is reset.
    #[must_use]
    pub fn on_alert<F, R>(mut self, mut on_alert: F) -> Self
    where
        F: FnMut(&GpuAlert) -> R + Send + 'static,
        R: Into<AlertAction>,
    {
        self.on_alert = Some(Arc::new(Mutex::new(move |alert: &GpuAlert| {
            on_alert(alert).into()
        })));
        self
    }

    /// The flag that pauses and stops the training: by hand, from any thread.
    pub fn stop_flag(&self) -> StopFlag {
        self.line.clone()
    }

    fn start(&self) -> io::Result<Arc<Watch>> {
        let watch = Arc::new(Watch::default());
        let default_actions = match self.on_alert {
            Some(_) => LevelActions::none(),
            None => LevelActions::log_only(),
        };
        let sampler = Sampler {
            andon: AndonSystem::with_config(self.config)
                .with_level_actions(self.actions.unwrap_or(default_actions))
                .with_stop_flag(self.line.clone()),
            on_alert: self.on_alert.clone(),
            interval: self.interval,
            watch: watch.clone(),
            unreadable: HashSet::new(),
        };
        let open = self.open.clone();
        thread::Builder::new()
            .name("gpu-monitor".to_owned())
            .spawn(move || sampler.run(open.as_ref()))?;
        Ok(watch)
    }

    fn finish(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.finish();
        }
    }

    fn verdict(&self) -> CallbackAction {
        if self.line.is_stopped() {
            CallbackAction::Stop
        } else {
            CallbackAction::Continue
        }
    }
}

impl TrainerCallback for GpuMonitorCallback {
    fn on_train_begin(&mut self, _: &CallbackContext) -> CallbackAction {
        self.finish();
        match self.start() {
            Ok(watch) => {
                watch.wait_for_first_sample();
                self.watch = Some(watch);
            }
            Err(error) => warn(&format!("the training is not watched: no thread: {error}")),
        }
        self.verdict()
    }

    fn on_step_begin(&mut self, _: &CallbackContext) -> CallbackAction {
        self.line.wait_while_paused();
        self.verdict()
    }

    fn on_step_end(&mut self, _: &CallbackContext) -> CallbackAction {
        self.verdict()
    }

    fn on_train_end(&mut self, _: &CallbackContext) {
        self.finish();
    }

    fn name(&self) -> &'static str {
        "gpu-monitor"
    }
}

impl Drop for GpuMonitorCallback {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for GpuMonitorCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuMonitorCallback")
            .field("interval", &self.interval)
            .field("config", &self.config)
            .field("actions", &self.actions)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What the training and its sampling thread know of each other.
#[derive(Debug, Default)]
struct Watch {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    /// The first sample was taken and acted on, or will never be.
    sampled: bool,
    /// The training wants no more samples.
    finish: bool,
    /// The thread is at its end.
    finished: bool,
}

impl Watch {
    fn wait_for_first_sample(&self) {
        self.wait(FIRST_SAMPLE_WAIT, |progress| progress.sampled);
    }

    fn finish(&self) {
        self.change(|progress| progress.finish = true);
        self.wait(END_WAIT, |progress| progress.finished);
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress());
        self.changed.notify_all();
    }

    /// Waits at most `time` until `is_there`; says whether it is.
    fn wait(&self, time: Duration, is_there: impl Fn(&Progress) -> bool) -> bool {
        let (progress, waited) = self
            .changed
            .wait_timeout_while(self.progress(), time, |progress| !is_there(progress))
            .unwrap_or_else(PoisonError::into_inner);
        drop(progress);
        !waited.timed_out()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sampling thread.
struct Sampler {
    andon: AndonSystem,
    on_alert: Option<OnAlert>,
    interval: Duration,
    watch: Arc<Watch>,
    /// GPUs whose silence was told; one entry for each GPU, `None` for all of them together.
    unreadable: HashSet<Option<u32>>,
}

impl Sampler {
    fn run(mut self, open: &dyn Fn() -> Result<GpuMonitor, GpuError>) {
        let monitor = match open() {
            Ok(monitor) => monitor,
            Err(error) => return warn(&format!("the training is not watched: {error}")),
        };
        loop {
            match monitor.collect_readings() {
                Ok(readings) => self.look(&readings),
                Err(error) => self.tell_of_silence(None, &error),
            }
            self.watch.change(|progress| progress.sampled = true);
            if self.watch.wait(self.interval, |progress| progress.finish) {
                return;
            }
        }
    }

    fn look(&mut self, readings: &[GpuReading]) {
        self.unreadable.remove(&None);
        for reading in readings {
            match &reading.values {
                Ok(_) => _ = self.unreadable.remove(&Some(reading.info.index)),
                Err(error) => self.tell_of_silence(Some(reading.info.index), error),
            }
        }
        let alerts = self.andon.check_readings(readings);
        let wish = self.ask_user(&alerts);
        self.andon.act_with(&alerts, wish);
    }

    fn ask_user(&self, alerts: &[GpuAlert]) -> AlertAction {
        let Some(on_alert) = &self.on_alert else {
            return AlertAction::Continue;
        };
        let mut on_alert = on_alert.lock().unwrap_or_else(PoisonError::into_inner);
        alerts.iter().map(&mut *on_alert).max().unwrap_or_default()
    }

    /// Once, until it is over: what cannot be seen is neither well nor ill, and a pause stays a pause.
    fn tell_of_silence(&mut self, device: Option<u32>, error: &GpuError) {
        if self.unreadable.insert(device) {
            warn(&error.to_string());
        }
    }
}

impl Drop for Sampler {
    /// Also when the user's code panics: nobody else would end the pause.
    fn drop(&mut self) {
        self.andon.stop_flag().follow(AlertAction::Continue);
        self.watch.change(|progress| {
            progress.sampled = true;
            progress.finished = true;
        });
    }
}

fn warn(text: &str) {
    eprintln!("entrenar: warning: {text}");
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::gpu::Values;
    use crate::metric::{TEMPERATURE, UTILIZATION};
    use crate::mock::MockGpuBackend;
    use crate::train::{TrainReport, Trainer, TrainerConfig};

    fn hot_then(celsius: impl IntoIterator<Item = i64>) -> GpuMonitorCallback {
        let script = celsius
            .into_iter()
            .map(|t| Ok(Values::default().with(TEMPERATURE, t)));
        watching(MockGpuBackend::new().with_script(script))
    }

    fn watching(mock: MockGpuBackend) -> GpuMonitorCallback {
        GpuMonitorCallback::new()
            .with_monitor(GpuMonitor::with_backend(mock))
            .with_interval(Duration::ZERO)
    }

    /// Trains for three steps.
    fn train(callback: GpuMonitorCallback) -> TrainReport {
        let mut trainer = Trainer::new(TrainerConfig::default());
        trainer.add_callback(callback);
        trainer
            .fit(&|batch: &f32| *batch, &vec![3.0, 2.0, 1.0])
            .expect("no step fails")
    }

    #[test]
    fn an_alert_at_the_first_sample_can_stop_a_training_before_its_first_step() {
        let report = train(hot_then([85]).on_alert(|_| AlertAction::Stop));
        assert_eq!(
            (report.steps, report.stopped_by.as_deref()),
            (0, Some("gpu-monitor"))
        );
    }

    #[test]
    fn a_closure_that_returns_nothing_hears_alerts_and_stops_nothing() {
        let (heard, alerts) = sync_channel(100);
        let report = train(hot_then([85]).on_alert(move |alert| {
            let _ = heard.try_send(alert.message());
        }));
        assert_eq!((report.steps, report.stopped_by), (3, None));
        assert!(alerts.try_recv().expect("it heard one").contains("85°C"));
    }

    #[test]
    fn a_paused_training_goes_on_when_the_alert_is_over() {
        // Hot for five samples, then cool for longer than the test.
        let script = std::iter::repeat_n(95, 5).chain(std::iter::repeat_n(60, 10_000));
        let (heard, alerts) = sync_channel(100);
        let report = train(hot_then(script).on_alert(move |alert| {
            let _ = heard.try_send(alert.severity());
            AlertAction::Pause
        }));
        assert_eq!((report.steps, report.stopped_by), (3, None));
        assert_eq!(
            alerts.try_iter().count(),
            5,
            "it waited through all hot samples"
        );
    }

    #[test]
    fn levels_pause_and_stop_only_where_they_are_asked_to() {
        assert_eq!(train(hot_then([120])).steps, 3);
        let report = train(hot_then([120]).with_level_actions(LevelActions::default()));
        assert_eq!(report.steps, 0);
    }

    #[test]
    fn a_step_that_hangs_is_seen_while_it_hangs() {
        let busy = Values::default().with(UTILIZATION, 90);
        let idle = Values::default().with(UTILIZATION, 0);
        let script = std::iter::once(busy)
            .chain(std::iter::repeat_n(idle, 10_000))
            .map(Ok);
        // Without room in the channel, a word passes only while the step waits for it.
        let (release, hang) = sync_channel(0);
        let callback = watching(MockGpuBackend::new().with_script(script))
            .with_config(AlertConfig {
                idle_timeout_secs: 0,
                ..AlertConfig::default()
            })
            .on_alert(move |_| {
                let _ = release.try_send(());
            });
        let mut trainer = Trainer::new(TrainerConfig::default());
        trainer.add_callback(callback);
        let hangs = |batch: &f32| {
            hang.recv().expect("an alert comes while the step hangs");
            *batch
        };
        let report = trainer.fit(&hangs, &vec![1.0, 2.0]).expect("no step fails");
        assert_eq!(report.steps, 2);
    }

    #[test]
    fn a_stop_by_hand_holds_until_it_is_reset() {
        let callback = hot_then([60]);
        let flag = callback.stop_flag();
        let mut trainer = Trainer::new(TrainerConfig::default());
        trainer.add_callback(callback);
        let mut steps = || {
            trainer
                .fit(&|batch: &f32| *batch, &vec![1.0])
                .expect("no step fails")
                .steps
        };
        flag.stop();
        assert_eq!([steps(), steps()], [0, 0]);
        flag.reset();
        assert_eq!(steps(), 1);
    }

    #[test]
    fn without_a_driver_or_with_a_closure_that_panics_the_training_goes_on() {
        let mut blind = GpuMonitorCallback::new();
        blind.open = Arc::new(|| Err(GpuError::DriverMismatch));
        assert_eq!(train(blind).steps, 3);
        let panics = hot_then([85]).on_alert(|_| -> AlertAction { panic!("on purpose") });
        assert_eq!(train(panics).steps, 3);
    }
}
