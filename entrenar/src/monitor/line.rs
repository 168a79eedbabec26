//! The line that an alert can hold up: what follows from an alert's level, and the flag that work looks at.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::alert::AlertLevel;

/// What work should do about an alert. Of several answers the strongest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertAction {
    /// Go on.
    #[default]
    Continue,
    /// Wait until the alert is over.
    Pause,
    /// Stop, until a person resets the line.
    Stop,
}

impl From<()> for AlertAction {
    /// A closure that returns nothing wants nothing to happen.
    fn from((): ()) -> Self {
        Self::Continue
    }
}

/// What follows from an alert of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelAction {
    /// A line on standard error.
    pub log: bool,
    /// A call of the notifier, where one is set.
    pub notify: bool,
    /// What work should do.
    pub work: AlertAction,
}

/// What follows from an alert, by its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelActions {
    /// For [`AlertLevel::Info`].
    pub info: LevelAction,
    /// For [`AlertLevel::Warning`].
    pub warning: LevelAction,
    /// For [`AlertLevel::Error`].
    pub error: LevelAction,
    /// For [`AlertLevel::Critical`].
    pub critical: LevelAction,
}

impl Default for LevelActions {
    /// Info is logged; Warning is also told; Error also pauses; Critical stops.
    fn default() -> Self {
        let told = |work| LevelAction {
            log: true,
            notify: true,
            work,
        };
        Self {
            info: LevelAction {
                notify: false,
                ..told(AlertAction::Continue)
            },
            warning: told(AlertAction::Continue),
            error: told(AlertAction::Pause),
            critical: told(AlertAction::Stop),
        }
    }
}

impl LevelActions {
    /// Every alert is logged and nothing else happens.
    pub const fn log_only() -> Self {
        Self::all(LevelAction {
            log: true,
            notify: false,
            work: AlertAction::Continue,
        })
    }

    /// Nothing follows from any alert.
    pub const fn none() -> Self {
        Self::all(LevelAction {
            log: false,
            notify: false,
            work: AlertAction::Continue,
        })
    }

    /// The same for all levels.
    pub const fn all(action: LevelAction) -> Self {
        Self {
            info: action,
            warning: action,
            error: action,
            critical: action,
        }
    }

    /// What follows from an alert of this level.
    pub const fn of(&self, level: AlertLevel) -> LevelAction {
        match level {
            AlertLevel::Info => self.info,
            AlertLevel::Warning => self.warning,
            AlertLevel::Error => self.error,
            AlertLevel::Critical => self.critical,
        }
    }
}

/// Says whether work may go on. Clones are the same flag: one hand pulls it, all others see it.
///
/// A stop stays until [`reset`](Self::reset). A pause ends by [`resume`](Self::resume), or, if an alert made it, when
/// the alert is over.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    stopped: bool,
    paused_by_hand: bool,
    paused_by_alert: bool,
}

impl StopFlag {
    /// A flag that lets work go on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the line until someone resets it.
    pub fn stop(&self) {
        self.change(|line| line.stopped = true);
    }

    /// Pauses the line until someone resumes or resets it.
    pub fn pause(&self) {
        self.change(|line| line.paused_by_hand = true);
    }

    /// Ends a pause, whoever made it. A standing alert pauses again when it is next looked at.
    pub fn resume(&self) {
        self.change(|line| {
            line.paused_by_hand = false;
            line.paused_by_alert = false;
        });
    }

    /// Ends stop and pause alike.
    pub fn reset(&self) {
        self.change(|line| *line = Line::default());
    }

    /// Whether work should stop.
    pub fn is_stopped(&self) -> bool {
        self.line().stopped
    }

    /// Whether work should wait. A line that is stopped is not also paused.
    pub fn is_paused(&self) -> bool {
        self.line().is_paused()
    }

    /// Blocks while the line is paused. Returns whether work may go on: `false` when the line is stopped.
    pub fn wait_while_paused(&self) -> bool {
        let line = self
            .shared
            .changed
            .wait_while(self.line(), |line| line.is_paused())
            .unwrap_or_else(PoisonError::into_inner);
        !line.stopped
    }

    /// Does what the alerts of this moment ask for: a pause lasts only as long as they ask for it.
    pub(crate) fn follow(&self, action: AlertAction) {
        self.change(|line| {
            line.paused_by_alert = action == AlertAction::Pause;
            line.stopped |= action == AlertAction::Stop;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Line)) {
        change(&mut self.line());
        self.shared.changed.notify_all();
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Each change is one assignment: a panic elsewhere leaves nothing half done.
        self.shared
            .line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn is_paused(&self) -> bool {
        !self.stopped && (self.paused_by_hand || self.paused_by_alert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_stays_until_the_line_is_reset() {
        let flag = StopFlag::new();
        flag.follow(AlertAction::Stop);
        flag.follow(AlertAction::Continue);
        assert!(flag.clone().is_stopped() && !flag.wait_while_paused());
        flag.reset();
        assert!(flag.wait_while_paused());
    }

    #[test]
    fn an_alert_s_pause_ends_with_the_alert_and_a_person_s_does_not() {
        let flag = StopFlag::new();
        flag.follow(AlertAction::Pause);
        assert!(flag.is_paused());
        flag.follow(AlertAction::Continue);
        assert!(!flag.is_paused());
        flag.pause();
        flag.follow(AlertAction::Continue);
        assert!(flag.is_paused());
        flag.resume();
        assert!(!flag.is_paused());
    }

    #[test]
    fn a_waiting_worker_goes_on_when_another_thread_resumes() {
        let flag = StopFlag::new();
        flag.pause();
        let worker = std::thread::spawn({
            let flag = flag.clone();
            move || flag.wait_while_paused()
        });
        flag.resume();
        assert!(worker.join().expect("the worker did not panic"));
    }
}
