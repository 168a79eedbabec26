//! How a stretch of time is cut into steps. *(pure)*
//!
//! Steps are aligned to the epoch and always whole, so that what a step says depends neither on `from` and `to` nor on
//! who asks, and so that an hour is sixty minutes that were summed up before.

use std::time::Duration;

use entrenar::unit::Timestamp;

use crate::rollup;

/// Steps that a person would choose, in seconds.
const USUAL_SECS: [u64; 18] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
];

/// A window that is so many minutes or hours long begins with a whole one: it is then longer by a thirtieth at most.
const WHOLE_IN_WINDOW: u32 = 30;

/// Equal steps, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    start: Timestamp,
    length_ms: i64,
    n: usize,
}

impl Steps {
    /// The steps that overlap `from..=to`, whole, counted from the epoch.
    pub fn covering(from: Timestamp, to: Timestamp, length: Duration) -> Self {
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
        let (first, last) = (from.0.div_euclid(length_ms), to.0.div_euclid(length_ms));
        Self {
            start: Timestamp(first * length_ms),
            length_ms,
            n: usize::try_from(last - first + 1).unwrap_or(0),
        }
    }

    /// One step: the window that ends with `end`, which is included. One of half an hour or more begins with the minute in
    /// which it would, one of thirty hours or more with the hour, and ends before a whole minute or hour rather than with its
    /// first millisecond: so most of it was summed up before.
    pub fn window(end: Timestamp, length: Duration) -> Self {
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
        let is_short_beside = |whole: &&Duration| **whole * WHOLE_IN_WINDOW <= length;
        let whole = rollup::STEPS.iter().rev().find(is_short_beside);
        let over_whole_ms = |at: i64| whole.map(|whole| at.rem_euclid(whole.as_millis() as i64));
        let last = if over_whole_ms(end.0) == Some(0) {
            end.0.saturating_sub(1)
        } else {
            end.0
        };
        let start = last.saturating_sub(length_ms).saturating_add(1);
        let early_ms = over_whole_ms(start).unwrap_or(0);
        Self {
            start: Timestamp(start.saturating_sub(early_ms)),
            length_ms: length_ms.saturating_add(early_ms),
            n: 1,
        }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.n
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// How long each is.
    pub const fn length(&self) -> Duration {
        Duration::from_millis(self.length_ms as u64)
    }

    /// When the first begins.
    pub const fn from(&self) -> Timestamp {
        self.start
    }

    /// The last millisecond of the last.
    pub fn to(&self) -> Timestamp {
        let whole = self.length_ms.saturating_mul(self.n as i64);
        Timestamp(self.start.0.saturating_add(whole).saturating_sub(1))
    }

    /// When one begins.
    pub fn start_of(&self, place: usize) -> Timestamp {
        let before = self.length_ms.saturating_mul(place as i64);
        Timestamp(self.start.0.saturating_add(before))
    }

    /// The end of the step that an instant falls in, which is not included; outside of all, the instant.
    pub fn end_at(&self, at: Timestamp) -> Timestamp {
        self.place(at).map_or(at, |place| self.start_of(place + 1))
    }

    /// Which step an instant falls in; `None` outside of all.
    pub fn place(&self, at: Timestamp) -> Option<usize> {
        let place = usize::try_from(at.0.checked_sub(self.start.0)?.div_euclid(self.length_ms));
        place.ok().filter(|place| *place < self.n)
    }
}

/// The shortest usual step of which a stretch of time has at most this many.
pub fn usual(from: Timestamp, to: Timestamp, most: usize) -> Duration {
    let span = to.since(from).as_secs_f64();
    let enough = |secs: &&u64| span / **secs as f64 <= most.max(1) as f64;
    let whole_days = || (span / most.max(1) as f64 / 86_400.0).ceil() as u64 * 86_400;
    let secs = USUAL_SECS.iter().find(enough).copied();
    Duration::from_secs(secs.unwrap_or_else(whole_days))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_and_counted_from_the_epoch() {
        let check = |from: i64, to: i64, length: u64, expected: (i64, i64, usize)| {
            let at = Timestamp::from_secs;
            let steps = Steps::covering(at(from), at(to), Duration::from_secs(length));
            let found = (
                steps.from().0 / 1000,
                (steps.to().0 + 1) / 1000,
                steps.len(),
            );
            assert_eq!(found, expected, "{from}..={to} by {length}");
        };
        check(0, 0, 60, (0, 60, 1));
        check(59, 60, 60, (0, 120, 2));
        check(60, 119, 60, (60, 120, 1));
        check(-1, 1, 60, (-60, 60, 2));
        check(7, 8, 5, (5, 10, 1));
    }

    #[test]
    fn an_instant_falls_in_one_step_and_an_edge_in_the_later() {
        let steps = Steps::covering(Timestamp(0), Timestamp(2999), Duration::from_secs(1));
        let place = |ms| steps.place(Timestamp(ms));
        assert_eq!(
            [-1, 0, 999, 1000, 2999, 3000].map(place),
            [None, Some(0), Some(0), Some(1), Some(2), None]
        );
        assert_eq!(steps.start_of(2), Timestamp(2000));
    }

    #[test]
    fn a_window_ends_with_its_instant() {
        let window = Steps::window(Timestamp(10_000), Duration::from_secs(5));
        assert_eq!(
            (window.from(), window.to()),
            (Timestamp(5001), Timestamp(10_000))
        );
    }

    #[test]
    fn a_long_window_begins_with_a_whole_minute_or_hour() {
        let window = |minutes| {
            let end = Timestamp::from_secs(100 * 3600 + 125);
            let window = Steps::window(end, Duration::from_mins(minutes));
            assert_eq!(window.to(), end);
            (end.0 + 1 - window.from().0) / 1000
        };
        let end = Timestamp::from_secs(100 * 3600 + 120);
        let whole = Steps::window(end, Duration::from_hours(1));
        assert_eq!(
            (whole.from().0, whole.to().0),
            (end.0 - 3_600_000, end.0 - 1)
        );
        assert_eq!(window(29), 29 * 60);
        assert_eq!(window(30), 30 * 60 + 5);
        assert_eq!(window(60), 3600 + 5);
        assert_eq!(window(30 * 60), 30 * 3600 + 125);
    }

    #[test]
    fn a_step_of_itself_gives_about_as_many_points_as_were_asked_for() {
        let step = |span: u64, most| {
            let to = Timestamp(0) + Duration::from_secs(span);
            usual(Timestamp(0), to, most).as_secs()
        };
        assert_eq!(step(300, 500), 1);
        assert_eq!(step(3600, 500), 10);
        assert_eq!(step(86_400, 500), 300);
        assert_eq!(step(7 * 86_400, 500), 1800);
        assert_eq!(step(3000 * 86_400, 500), 6 * 86_400);
        assert_eq!(step(0, 0), 1);
    }
}
