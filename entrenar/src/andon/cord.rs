//! One rule watching one thing: quiet, arming, raised or settling. It reads no clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rule::{Patience, Verdict};
use crate::unit::Timestamp;

/// Share of a hold or settle time that may be without samples. More, and it starts anew: what was not seen proves
/// nothing.
const MOST_MISSING: f64 = 0.2;

/// What a sample did to a cord.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CordChange {
    /// The trouble is real.
    Raised,
    /// It is fine, and the settle time runs.
    Recovering,
    /// It came back before it had settled.
    Relapsed,
    /// It is over.
    Cleared,
}

/// One rule watching one thing.
///
/// Samples come in the order of their time. A gap counts toward a hold or settle time only while at least 80 % of the
/// samples that were due in it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cord {
    state: State,
    last: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    #[default]
    Quiet,
    Arming(Wait),
    Raised {
        since: Timestamp,
    },
    Settling {
        since: Timestamp,
        wait: Wait,
    },
}

/// A hold or settle time that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wait {
    from: Timestamp,
    missing_ms: i64,
}

impl Wait {
    fn new(from: Timestamp) -> Self {
        Self {
            from,
            missing_ms: 0,
        }
    }

    /// Takes note of what was not seen between two samples.
    fn skip(&mut self, missing_ms: i64, at: Timestamp, needed: Duration) {
        if missing_ms as f64 > MOST_MISSING * needed.as_millis() as f64 {
            *self = Self::new(at);
        } else {
            self.missing_ms += missing_ms;
        }
    }

    fn is_over(self, at: Timestamp, needed: Duration) -> bool {
        let waited = at.since(self.from);
        waited >= needed && self.missing_ms as f64 <= MOST_MISSING * waited.as_millis() as f64
    }
}

impl Cord {
    /// A cord that is raised since an instant: for trouble that is known at once, not by samples.
    pub fn raised(since: Timestamp) -> Self {
        Self {
            state: State::Raised { since },
            last: None,
        }
    }

    /// Takes in one sample's verdict. `interval`: the time between samples, by which gaps are known.
    pub fn observe(
        &mut self,
        at: Timestamp,
        verdict: Verdict,
        patience: Patience,
        interval: Duration,
    ) -> Option<CordChange> {
        self.observe_if(at, verdict, patience, interval, || true)
    }

    /// The same, where an arming cord is raised only once `ready` says so too; it is asked when the hold time is over.
    pub fn observe_if(
        &mut self,
        at: Timestamp,
        verdict: Verdict,
        patience: Patience,
        interval: Duration,
        ready: impl FnOnce() -> bool,
    ) -> Option<CordChange> {
        self.skip_gap(at, patience, interval);
        match self.state {
            State::Quiet | State::Arming(_) if verdict != Verdict::Unwelcome => {
                self.state = State::Quiet;
                None
            }
            State::Quiet => self.arm(Wait::new(at), at, patience, ready),
            State::Arming(wait) => self.arm(wait, at, patience, ready),
            State::Raised { since } if verdict == Verdict::Fine => {
                self.state = State::Settling {
                    since,
                    wait: Wait::new(at),
                };
                Some(self.settle(at, patience).unwrap_or(CordChange::Recovering))
            }
            State::Raised { .. } => None,
            State::Settling { .. } if verdict == Verdict::Fine => self.settle(at, patience),
            State::Settling { since, .. } => {
                self.state = State::Raised { since };
                Some(CordChange::Relapsed)
            }
        }
    }

    /// Whether it is raised, settling included.
    pub fn is_raised(&self) -> bool {
        matches!(self.state, State::Raised { .. } | State::Settling { .. })
    }

    /// When the trouble began that it is arming or raised for.
    pub fn since(&self) -> Option<Timestamp> {
        match self.state {
            State::Quiet => None,
            State::Arming(wait) => Some(wait.from),
            State::Raised { since } | State::Settling { since, .. } => Some(since),
        }
    }

    fn arm(
        &mut self,
        wait: Wait,
        at: Timestamp,
        patience: Patience,
        ready: impl FnOnce() -> bool,
    ) -> Option<CordChange> {
        if wait.is_over(at, patience.hold) && ready() {
            self.state = State::Raised { since: wait.from };
            return Some(CordChange::Raised);
        }
        self.state = State::Arming(wait);
        None
    }

    fn settle(&mut self, at: Timestamp, patience: Patience) -> Option<CordChange> {
        let State::Settling { wait, .. } = self.state else {
            return None;
        };
        if !wait.is_over(at, patience.settle) {
            return None;
        }
        self.state = State::Quiet;
        Some(CordChange::Cleared)
    }

    fn skip_gap(&mut self, at: Timestamp, patience: Patience, interval: Duration) {
        let Some(last) = self.last.replace(at) else {
            return;
        };
        let (gap, interval) = (at.since(last), interval.as_millis() as i64);
        let missing_ms = gap.as_millis() as i64 - interval;
        // Half an interval is jitter, not a gap.
        if missing_ms * 2 <= interval {
            return;
        }
        match &mut self.state {
            State::Arming(wait) => wait.skip(missing_ms, at, patience.hold),
            State::Settling { wait, .. } => wait.skip(missing_ms, at, patience.settle),
            State::Quiet | State::Raised { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::andon::Threshold;
    use crate::testing::{series, story};

    /// One token per 10 s, raised at 90, cleared below 80, held and settled for 30 s.
    fn check(samples: &str, expected: &str) {
        let hot = Threshold {
            raise_at: 90.0,
            clear_below: 80.0,
        };
        let patience = Patience {
            hold: Duration::from_secs(30),
            settle: Duration::from_secs(30),
        };
        let mut cord = Cord::default();
        let mut happened = Vec::new();
        for (at, value) in series(samples, Duration::from_secs(10)) {
            // Whatever it remembers survives a restart.
            let text = serde_json::to_string(&cord).expect("a cord is written");
            cord = serde_json::from_str(&text).expect("and read");
            let Some(value) = value else { continue };
            let verdict = hot.judge(value);
            if let Some(change) = cord.observe(at, verdict, patience, Duration::from_secs(10)) {
                happened.push((at, format!("{change:?}")));
            }
        }
        assert_eq!(story(&happened), expected, "{samples}");
    }

    #[test]
    fn trouble_that_lasts_is_raised_and_cleared_after_it_has_settled() {
        check("70 90x4 70x4", "40s Raised, 50s Recovering, 80s Cleared");
    }

    #[test]
    fn a_spike_is_not_an_alarm() {
        check("70 95x3 70x9", "");
        check("95x3 85 95x3 85 95x3", "");
    }

    #[test]
    fn between_the_levels_it_stays_raised() {
        check("90x4 85x9", "30s Raised");
        check(
            "90x4 70 85x3 70x4",
            "30s Raised, 40s Recovering, 50s Relapsed, 80s Recovering, 110s Cleared",
        );
    }

    #[test]
    fn a_gap_proves_nothing_in_either_direction() {
        check("90 _x5 90x3", "");
        check("90 _x5 90x4", "90s Raised");
        check(
            "90x4 70 _x5 70x4",
            "30s Raised, 40s Recovering, 130s Cleared",
        );
    }

    #[test]
    fn one_lost_sample_in_five_does_not_matter() {
        let patience = Patience {
            hold: Duration::from_secs(100),
            settle: Duration::ZERO,
        };
        let mut cord = Cord::default();
        let samples = series("95x5 _ 95x3 _ 95", Duration::from_secs(10));
        let raised = samples.into_iter().filter(|(at, value)| {
            value.is_some()
                && cord.observe(*at, Verdict::Unwelcome, patience, Duration::from_secs(10))
                    == Some(CordChange::Raised)
        });
        assert_eq!(
            raised.map(|(at, _)| at).collect::<Vec<_>>(),
            [Timestamp(100_000)]
        );
    }

    #[test]
    fn without_patience_it_answers_at_once() {
        let none = Patience {
            hold: Duration::ZERO,
            settle: Duration::ZERO,
        };
        let mut cord = Cord::default();
        let mut at = |s, verdict| {
            cord.observe(
                Timestamp::from_secs(s),
                verdict,
                none,
                Duration::from_secs(1),
            )
        };
        assert_eq!(at(0, Verdict::Unwelcome), Some(CordChange::Raised));
        assert_eq!(at(1, Verdict::Fine), Some(CordChange::Cleared));
    }

    #[test]
    fn a_cord_that_is_not_ready_is_raised_when_it_becomes_so() {
        let patience = Patience {
            hold: Duration::from_secs(2),
            settle: Duration::ZERO,
        };
        let mut cord = Cord::default();
        let mut at = |s, ready: bool| {
            let (at, step) = (Timestamp::from_secs(s), Duration::from_secs(1));
            cord.observe_if(at, Verdict::Unwelcome, patience, step, || ready)
        };
        assert_eq!(
            [at(0, true), at(1, true), at(2, false), at(3, false)],
            [None; 4]
        );
        assert_eq!(at(4, true), Some(CordChange::Raised));
    }
}
