//! How long to wait before the next attempt to connect: doubling, with full jitter, so that a fleet that lost its
//! aggregator does not come back in one instant. Pure.

use std::time::Duration;

/// Bound of the first wait.
pub const FIRST: Duration = Duration::from_millis(500);

/// Bound of every later wait: an aggregator that returns sees the whole fleet within this.
pub const LONGEST: Duration = Duration::from_secs(10);

/// Longest that an aggregator may send an agent away for.
pub const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// Waits between attempts.
#[derive(Debug)]
pub struct Backoff {
    bound: Duration,
    chance: u64,
}

impl Backoff {
    /// With a seed of its own, so that agents differ.
    pub fn new(seed: u64) -> Self {
        Self {
            bound: FIRST,
            // xorshift stands still at zero.
            chance: seed | 1,
        }
    }

    /// The wait before the next attempt, never shorter than the aggregator asked for.
    pub fn next(&mut self, asked: Duration) -> Duration {
        let wait = self.bound.mul_f64(self.uniform());
        self.bound = (self.bound * 2).min(LONGEST);
        asked.min(LONGEST_ASKED) + wait
    }

    /// A connection worked.
    pub fn reset(&mut self) {
        self.bound = FIRST;
    }

    /// From 0 to 1 (xorshift64*).
    fn uniform(&mut self) -> f64 {
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        let high = self.chance.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        high as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_agents_spread_over_them() {
        let seventh_wait = |seed: u64| {
            let mut backoff = Backoff::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            (0..6).for_each(|n| {
                let wait = backoff.next(Duration::ZERO);
                assert!(wait <= (FIRST * 2u32.pow(n)).min(LONGEST), "{wait:?}");
            });
            backoff.next(Duration::ZERO)
        };
        let waits: Vec<Duration> = (1..1000).map(seventh_wait).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        let early = waits.iter().filter(|wait| **wait < LONGEST / 2).count();
        assert!(
            (400..600).contains(&early),
            "{early} of 999 in the first half"
        );
    }

    #[test]
    fn an_aggregator_that_asks_for_time_gets_it() {
        let mut backoff = Backoff::new(7);
        assert!(backoff.next(Duration::from_secs(30)) >= Duration::from_secs(30));
        assert!(backoff.next(Duration::from_hours(9)) <= LONGEST_ASKED + LONGEST);
        backoff.reset();
        assert!(backoff.next(Duration::ZERO) <= FIRST);
    }
}
