//! How fast a receiver may be told things: a bucket of tokens.

use std::time::Duration;

use entrenar::unit::Timestamp;

/// Messages that may go out at once. With [`REFILL`], no minute holds more than 20.
pub const BURST: u32 = 10;
/// One more message each.
pub const REFILL: Duration = Duration::from_secs(6);

/// One receiver's bucket.
#[derive(Clone, Debug)]
pub struct Pace {
    tokens: u32,
    /// When the last token that counts fell in.
    refilled_at: Timestamp,
    /// Least time between two messages.
    spacing: Duration,
    /// Nothing goes out before: the spacing, or what the receiver asked for.
    not_before: Timestamp,
}

impl Pace {
    /// A full bucket.
    pub fn new(spacing: Duration, now: Timestamp) -> Self {
        Self {
            tokens: BURST,
            refilled_at: now,
            spacing,
            not_before: now,
        }
    }

    /// How many messages may go out now.
    pub fn room(&mut self, now: Timestamp) -> u32 {
        self.refill(now);
        if now < self.not_before {
            0
        } else {
            self.tokens
        }
    }

    /// Takes a token for a message that goes out now.
    pub fn take(&mut self, now: Timestamp) {
        self.tokens = self.tokens.saturating_sub(1);
        self.not_before = self.not_before.max(now + self.spacing);
    }

    /// Nothing goes out for a while: the receiver asked.
    pub fn pause(&mut self, until: Timestamp) {
        self.not_before = self.not_before.max(until);
    }

    /// When the next message may go out.
    pub fn next_at(&self) -> Timestamp {
        match self.tokens {
            0 => self.not_before.max(self.refilled_at + REFILL),
            _ => self.not_before,
        }
    }

    /// The wall clock was set back: waits that were short must not become long ones.
    pub fn clock_went_back(&mut self, now: Timestamp) {
        self.refilled_at = self.refilled_at.min(now);
        self.not_before = self.not_before.min(now);
    }

    fn refill(&mut self, now: Timestamp) {
        let fallen = now.since(self.refilled_at).as_millis() / REFILL.as_millis();
        let fallen = u32::try_from(fallen).unwrap_or(u32::MAX);
        self.refilled_at = self.refilled_at + REFILL * fallen.min(BURST);
        self.tokens = self.tokens.saturating_add(fallen).min(BURST);
        if self.tokens == BURST {
            self.refilled_at = now.max(self.refilled_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: i64) -> Timestamp {
        Timestamp::from_secs(n)
    }

    /// Sends whenever it may, and returns the times.
    fn greedy(mut pace: Pace, seconds: i64) -> Vec<i64> {
        let mut sent = Vec::new();
        for at in 0..seconds * 10 {
            let now = Timestamp(at * 100);
            while pace.room(now) > 0 {
                pace.take(now);
                sent.push(now.0);
            }
        }
        sent
    }

    #[test]
    fn no_minute_holds_more_than_twenty_messages() {
        let sent = greedy(Pace::new(Duration::ZERO, second(0)), 600);
        for first in &sent {
            let minute = first..&(first + 60_000);
            assert!(sent.iter().filter(|at| minute.contains(at)).count() <= 20);
        }
        assert_eq!(sent.len(), 10 + 99);
    }

    #[test]
    fn a_rest_fills_the_bucket_and_no_further() {
        let mut pace = Pace::new(Duration::ZERO, second(0));
        while pace.room(second(0)) > 0 {
            pace.take(second(0));
        }
        assert_eq!(pace.next_at(), second(6));
        assert_eq!((pace.room(second(5)), pace.room(second(6))), (0, 1));
        assert_eq!(pace.room(second(9000)), BURST);
        pace.take(second(9000));
        assert_eq!((pace.room(second(9005)), pace.room(second(9006))), (9, 10));
    }

    #[test]
    fn messages_keep_their_distance_and_a_pause_is_kept() {
        let mut pace = Pace::new(Duration::from_secs(1), second(0));
        pace.take(second(0));
        assert_eq!((pace.room(second(0)), pace.room(second(1))), (0, 9));
        pace.pause(second(30));
        assert_eq!((pace.room(second(29)), pace.next_at()), (0, second(30)));
        pace.clock_went_back(second(10));
        assert!(pace.room(second(10)) > 0);
    }
}
