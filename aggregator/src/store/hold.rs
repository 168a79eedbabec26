//! How long the writer was held by each kind of work: nothing else is written meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Parts of a doubling, so that a percentile is told to a fifth.
const PARTS: f64 = 4.0;

/// One kind of work since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub work: &'static str,
    /// How many times.
    pub n: u64,
    /// At most a fifth above what it was.
    pub p99: Duration,
    pub max: Duration,
}

/// All kinds.
#[derive(Debug, Default)]
pub(super) struct Holds {
    by_work: Mutex<BTreeMap<&'static str, Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    n: u64,
    max: Duration,
    /// How many were about so long.
    classes: BTreeMap<u32, u64>,
}

impl Holds {
    pub(super) fn took(&self, work: &'static str, took: Duration) {
        let mut all = self.by_work.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = all.entry(work).or_default();
        tally.n += 1;
        tally.max = tally.max.max(took);
        *tally.classes.entry(class(took)).or_default() += 1;
    }

    pub(super) fn all(&self) -> Vec<Hold> {
        let all = self.by_work.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = |(work, tally): (&&'static str, &Tally)| Hold {
            work,
            n: tally.n,
            p99: tally.p99(),
            max: tally.max,
        };
        all.iter().map(hold).collect()
    }
}

impl Tally {
    fn p99(&self) -> Duration {
        let mut left = self.n - self.n / 100;
        let reached = self.classes.iter().find(|(_, n)| {
            left = left.saturating_sub(**n);
            left == 0
        });
        reached.map_or(self.max, |(class, _)| longest_of(*class).min(self.max))
    }
}

fn class(took: Duration) -> u32 {
    ((took.as_micros() as f64 + 1.0).log2() * PARTS) as u32
}

fn longest_of(class: u32) -> Duration {
    let micros = (f64::from(class + 1) / PARTS).exp2() - 1.0;
    Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_is_above_the_percentile_and_the_longest_is_exact() {
        let holds = Holds::default();
        for n in 1..=1000 {
            holds.took("commit", Duration::from_micros(n));
        }
        holds.took("decide", Duration::from_micros(777));
        let [commit, decide] = holds.all()[..] else {
            panic!("two kinds");
        };
        assert_eq!((commit.n, commit.max.as_micros()), (1000, 1000));
        assert!((990..=1000).contains(&commit.p99.as_micros()), "{commit:?}");
        assert_eq!((decide.max, decide.p99), (decide.max, decide.max));
    }
}
