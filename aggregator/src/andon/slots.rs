//! A window of time cut into slots, at whatever pace samples come. *(pure)*

use entrenar::window::ShareWindow;

use super::rules::Span;

/// A window cut into slots.
#[derive(Clone, Copy)]
pub(super) struct Slots {
    pub(super) ms: i64,
    pub(super) count: u32,
}

impl Slots {
    /// Slots of a second, or of the sampling interval if that is longer; never fewer than `at_least`.
    pub(super) fn of(window: Span, interval_ms: i64, at_least: u32) -> Self {
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

    /// How many slots a share of the window is: never one alone, for a single sample proves nothing.
    pub(super) fn needed(self, share: f64) -> u32 {
        ((f64::from(self.count) * share).ceil() as u32).max(2)
    }

    /// `3 of 10 s`.
    pub(super) fn told(self, n: u32) -> String {
        let seconds = |n: u32| f64::from(n) * self.ms as f64 / 1e3;
        format!("{:.0} of {:.0} s", seconds(n), seconds(self.count))
    }
}
