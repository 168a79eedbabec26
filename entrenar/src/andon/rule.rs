//! What is unwelcome: a threshold with its own way back, and how long it takes to believe it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How one sample stands against a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Bad enough to raise a cord.
    Unwelcome,
    /// Neither bad enough to raise it nor good enough to clear it.
    Between,
    /// Good enough to clear it.
    Fine,
}

/// A level that raises, and a lower one that clears: a value that dances on one line does not ring twice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// This and above is unwelcome.
    pub raise_at: f64,
    /// Below this is fine; at most `raise_at`.
    pub clear_below: f64,
}

impl Threshold {
    /// How a value stands. What is not a number is neither.
    pub fn judge(&self, value: f64) -> Verdict {
        if value >= self.raise_at {
            Verdict::Unwelcome
        } else if value < self.clear_below {
            Verdict::Fine
        } else {
            Verdict::Between
        }
    }
}

/// How long trouble must last before it counts, and how long it must be gone before it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// From the first unwelcome sample to the raise; zero: at once.
    pub hold: Duration,
    /// From the first fine sample to the clear; zero: at once.
    pub settle: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_between_the_levels_neither_raises_nor_clears() {
        let hot = Threshold {
            raise_at: 90.0,
            clear_below: 80.0,
        };
        let check = |value, verdict| assert_eq!(hot.judge(value), verdict, "{value}");
        check(90.0, Verdict::Unwelcome);
        check(89.9, Verdict::Between);
        check(80.0, Verdict::Between);
        check(79.9, Verdict::Fine);
        check(f64::NAN, Verdict::Between);
    }
}
