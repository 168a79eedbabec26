//! How far an agent's clock is from ours.
//!
//! Each message says when it was sent. Arrival minus sending = delay + offset, and the delay is never negative: so the
//! minimum over a minute is the best guess that needs no second message.

use entrenar::unit::Timestamp;

/// Beyond this the ticks are corrected, because comparing them with others' would be wrong.
pub(super) const CORRECT_BEYOND_MS: i64 = 30_000;

/// How long a minimum counts.
const WINDOW_MS: i64 = 60_000;

/// The smallest of (arrived - sent) in the present and in the previous window.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockOffset {
    window_start: Option<Timestamp>,
    current: Option<i64>,
    previous: Option<i64>,
}

impl ClockOffset {
    /// Takes in one message; both times in their own clocks.
    pub(crate) fn observe(&mut self, received_at: Timestamp, sent_at: Timestamp) {
        let lag = received_at.0.saturating_sub(sent_at.0);
        let start = *self.window_start.get_or_insert(received_at);
        let age = received_at.0.saturating_sub(start.0);
        // Our own clock may step back: begin again rather than wait for it to catch up.
        if !(0..WINDOW_MS).contains(&age) {
            self.previous = if (0..2 * WINDOW_MS).contains(&age) {
                self.current
            } else {
                None
            };
            self.current = None;
            self.window_start = Some(received_at);
        }
        self.current = Some(self.current.map_or(lag, |least| least.min(lag)));
    }

    /// Agent's clock minus ours; `None` before the first message.
    pub(crate) fn offset_ms(&self) -> Option<i64> {
        let least = match (self.current, self.previous) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return None,
        };
        Some(-least)
    }

    /// What to add to a tick's time to have it in our clock; 0 while the two agree well enough.
    pub(crate) fn correction_ms(&self) -> i64 {
        self.offset_ms()
            .filter(|ms| ms.abs() > CORRECT_BEYOND_MS)
            .map_or(0, |ms| -ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(messages: &[(i64, i64)]) -> ClockOffset {
        let mut offset = ClockOffset::default();
        for (received, sent) in messages {
            offset.observe(Timestamp(*received), Timestamp(*sent));
        }
        offset
    }

    #[test]
    fn a_delay_is_not_taken_for_a_wrong_clock() {
        assert_eq!(
            after(&[(1000, 990), (9000, 2000), (9100, 9095)]).offset_ms(),
            Some(-5)
        );
        assert_eq!(after(&[(1000, 990), (9000, 2000)]).correction_ms(), 0);
    }

    #[test]
    fn a_clock_an_hour_off_is_corrected_in_either_direction() {
        assert_eq!(after(&[(3_600_000, 10)]).correction_ms(), 3_599_990);
        assert_eq!(after(&[(10, 3_600_000)]).correction_ms(), -3_599_990);
    }

    #[test]
    fn a_clock_that_was_set_right_is_believed_within_two_minutes() {
        let messages: Vec<_> = (0..180)
            .map(|s| {
                (
                    s * 1000,
                    if s < 30 {
                        s * 1000 + 3_600_000
                    } else {
                        s * 1000
                    },
                )
            })
            .collect();
        assert_eq!(after(&messages[..29]).correction_ms(), -3_600_000);
        assert_eq!(after(&messages).correction_ms(), 0);
    }
}
