//! How far the engine is behind what agents have said, and what it leaves out meanwhile. *(pure)*
//!
//! While messages wait, the engine's clock stands where the last of them was received: an engine that is behind sees an
//! earlier moment, not a silent fleet. It leaves out work by [`Effort`], at once when it falls behind, and takes it up
//! again after it has kept up for a while.

use std::time::Duration;

use entrenar::unit::Timestamp;

use crate::andon::Effort;

/// Behind by this much, rules over minutes and hours are left out.
pub(super) const NO_TRENDS_FROM: Duration = Duration::from_secs(2);
/// Behind by this much, all are but those that may call somebody.
pub(super) const CALLS_ONLY_FROM: Duration = Duration::from_secs(5);
/// It keeps up while it is behind by no more than this …
const KEEPS_UP: Duration = Duration::from_millis(500);
/// … and must do so for this long before more is looked at again.
const KEEPS_UP_FOR: Duration = Duration::from_secs(10);
/// A step of the clock that counts as time of work left out: a longer one is a halt, or another clock.
const LONGEST_STEP: Duration = Duration::from_secs(10);

/// How far the engine is behind.
#[derive(Debug, Default)]
pub struct Lag {
    /// The latest reception of what was taken in.
    taken: Option<Timestamp>,
    /// Where the clock was last set, and the wall clock then.
    at: Option<(Timestamp, Timestamp)>,
    behind: Duration,
    effort: Effort,
    keeps_up_since: Option<Timestamp>,
    shed_ms: [u64; 2],
}

impl Lag {
    /// A message is taken in that was received then.
    pub(super) fn took(&mut self, received_at: Timestamp) {
        self.taken = self.taken.max(Some(received_at));
    }

    /// Where the engine's clock is now. `others_wait`: more was said than was taken in.
    pub(super) fn engine_time(&mut self, now: Timestamp, others_wait: bool) -> Timestamp {
        let before = self.at.map(|(to, _)| to);
        let to = match self.taken.max(before) {
            Some(taken) if others_wait => taken.min(now),
            _ => now,
        };
        self.behind = now.since(to);
        self.count(now);
        self.at = Some((to, now));
        self.weigh(now);
        to
    }

    fn count(&mut self, now: Timestamp) {
        let Some((_, before)) = self.at else { return };
        let step_ms = now.since(before).min(LONGEST_STEP).as_millis() as u64;
        if self.effort >= Effort::NoTrends {
            self.shed_ms[0] += step_ms;
        }
        if self.effort == Effort::CallsOnly {
            self.shed_ms[1] += step_ms;
        }
    }

    fn weigh(&mut self, now: Timestamp) {
        let needed = match self.behind {
            behind if behind >= CALLS_ONLY_FROM => Effort::CallsOnly,
            behind if behind >= NO_TRENDS_FROM => Effort::NoTrends,
            _ => Effort::All,
        };
        self.effort = self.effort.max(needed);
        if self.behind > KEEPS_UP {
            self.keeps_up_since = None;
            return;
        }
        let since = *self.keeps_up_since.get_or_insert(now);
        if self.effort != Effort::All && now.since(since) >= KEEPS_UP_FOR {
            self.effort = Effort::All;
        }
    }

    /// How far the engine's clock is behind.
    pub fn behind(&self) -> Duration {
        self.behind
    }

    /// How much is looked at.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// For how long trends, and warnings, were left out since the start.
    pub fn shed(&self) -> [Duration; 2] {
        self.shed_ms.map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn at(seconds: u64) -> Timestamp {
        BEGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn while_nothing_waits_the_clock_is_now() {
        let mut lag = Lag::default();
        lag.took(at(0));
        assert_eq!(lag.engine_time(at(60), false), at(60));
        assert_eq!((lag.behind(), lag.effort()), (Duration::ZERO, Effort::All));
    }

    #[test]
    fn while_messages_wait_the_clock_stands_where_they_came_and_never_goes_back() {
        let mut lag = Lag::default();
        assert_eq!(lag.engine_time(at(10), false), at(10));
        lag.took(at(8));
        assert_eq!(lag.engine_time(at(11), true), at(10));
        lag.took(at(12));
        assert_eq!(lag.engine_time(at(13), true), at(12));
        assert_eq!(lag.behind(), Duration::from_secs(1));
    }

    #[test]
    fn the_further_behind_the_less_is_looked_at_and_more_only_after_ten_seconds_of_keeping_up() {
        let mut lag = Lag::default();
        let mut story = String::new();
        for second in 0..40 {
            // Messages of the first second are taken in for seven; then it catches up.
            let waits = (1..8).contains(&second);
            lag.took(if waits { at(0) } else { at(second) });
            lag.engine_time(at(second), waits);
            story.push(match lag.effort() {
                Effort::All => 'a',
                Effort::NoTrends => 't',
                Effort::CallsOnly => 'c',
            });
        }
        let expected = ["a".repeat(2), "t".repeat(3), "c".repeat(13), "a".repeat(22)];
        assert_eq!(story, expected.concat());
        assert_eq!(lag.shed(), [16, 13].map(Duration::from_secs));
    }
}
