//! A counter's rate over a window, from a few marks instead of all samples. *(pure)*

use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

/// Marks of a window; one more is the newest value.
const MARKS: usize = 4;

/// A counter at a few instants of the recent past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    /// Oldest first.
    marks: [Option<(Timestamp, i64)>; MARKS],
    newest: Option<(Timestamp, i64)>,
}

impl Marks {
    /// Takes in a value. A counter that went back was reset: it begins anew.
    pub(super) fn push(&mut self, at: Timestamp, value: i64, window_ms: i64) {
        if self.newest.is_some_and(|(_, before)| value < before) {
            *self = Self::default();
        }
        self.newest = Some((at, value));
        for mark in &mut self.marks {
            // Beyond a window and a half lies another time.
            *mark = mark.filter(|(then, _)| (at.0 - then.0) * 2 <= window_ms * 3);
        }
        let last = self.marks.iter().flatten().last();
        if last.is_none_or(|(then, _)| (at.0 - then.0) * MARKS as i64 >= window_ms) {
            self.marks.rotate_left(1);
            self.marks[MARKS - 1] = self.newest;
        }
    }

    /// Units a second over the window; `None`: too little of it was seen.
    pub(super) fn per_second(&self, window_ms: i64) -> Option<f64> {
        let (to, after) = self.newest?;
        let (from, before) = *self.marks.iter().flatten().next()?;
        let ms = to.0 - from.0;
        let enough = ms > 0 && ms * 4 >= window_ms * 3;
        enough.then(|| (i128::from(after) - i128::from(before)) as f64 * 1e3 / ms as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_taken_over_the_window_and_not_over_a_reset_or_a_gap() {
        let mut marks = Marks::default();
        let mut rates = Vec::new();
        let seconds = (0..=30).chain(100..=115);
        for second in seconds {
            let value = if second < 20 {
                1000 + 5 * second
            } else {
                5 * second
            };
            marks.push(Timestamp::from_secs(second), value, 12_000);
            rates.push((second, marks.per_second(12_000)));
        }
        let of = |second: i64| {
            rates
                .iter()
                .find(|(at, _)| *at == second)
                .map(|(_, rate)| *rate)
        };
        assert_eq!(of(8), Some(None));
        assert_eq!(of(9), Some(Some(5.0)));
        assert_eq!(of(19), Some(Some(5.0)));
        assert_eq!(of(20), Some(None), "a reset");
        assert_eq!(of(30), Some(Some(5.0)));
        assert_eq!(of(100), Some(None), "a gap");
        assert_eq!(of(115), Some(Some(5.0)));
    }
}
