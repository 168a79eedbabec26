//! When a node is sampled: every interval, at a phase of its own, so that a fleet does not speak in one instant. Pure.

use std::time::Duration;

use entrenar::backend::Depth;
use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

/// How often slow metrics and processes are read; every tick where the interval is longer.
pub const SLOW_EVERY: Duration = Duration::from_secs(10);

/// The ticks of one node on its monotonic clock.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: Duration,
    due: Duration,
    slow_due: Duration,
}

/// A tick that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many were due before it and are missed.
    pub missed: u64,
    /// What is read.
    pub depth: Depth,
}

impl Schedule {
    /// Ticks whose wall time is a whole number of intervals and the node's phase; the first at the next such time.
    /// When the wall clock is set later, the ticks stay where they are.
    pub fn start(node: &NodeId, interval: Duration, wall: Timestamp, monotonic: Duration) -> Self {
        let interval_ms = (interval.as_millis() as i64).max(1);
        let phase_ms = (hash(node) % interval_ms as u64) as i64;
        let wait_ms = (phase_ms - wall.as_millis()).rem_euclid(interval_ms) as u64;
        let first = monotonic + Duration::from_millis(wait_ms);
        Self {
            interval: Duration::from_millis(interval_ms as u64),
            due: first,
            slow_due: first,
        }
    }

    /// Monotonic time of the next tick.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// The tick that is due is taken now. When slow metrics are read again goes by when ticks were due, not by when they
    /// were taken: one that comes a millisecond early would else put them off for a whole interval.
    pub fn take(&mut self, now: Duration) -> Taken {
        let late = now.saturating_sub(self.due).as_nanos() / self.interval.as_nanos();
        let missed = u32::try_from(late).unwrap_or(u32::MAX);
        let was_due = self.due + self.interval.saturating_mul(missed);
        self.due = was_due + self.interval;
        let depth = if was_due < self.slow_due {
            Depth::Fast
        } else {
            self.slow_due = was_due + SLOW_EVERY;
            Depth::Full
        };
        Taken {
            missed: u64::from(missed),
            depth,
        }
    }
}

/// Spreads names evenly (FNV-1a, and a mix, because its low bits are poor).
fn hash(node: &NodeId) -> u64 {
    let fnv = node
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Ticks are taken this many ms after the first was due; what comes out: missed ticks of each, and when, after
    /// the first was due, the next one is.
    fn check(taken_ms: &[u64], expected: &[(u64, u64)]) {
        let mut schedule = Schedule::start(&"n1".into(), SECOND, Timestamp(0), Duration::ZERO);
        let first = schedule.due();
        let outcome: Vec<(u64, u64)> = taken_ms
            .iter()
            .map(|ms| {
                let missed = schedule.take(first + Duration::from_millis(*ms)).missed;
                (
                    missed,
                    (schedule.due().saturating_sub(first)).as_millis() as u64,
                )
            })
            .collect();
        assert_eq!(outcome, expected);
    }

    #[test]
    fn a_tick_that_is_late_moves_no_other() {
        check(&[0, 1004, 2900], &[(0, 1000), (0, 2000), (0, 3000)]);
    }

    #[test]
    fn ticks_that_were_slept_through_are_counted() {
        check(&[0, 3500, 4001], &[(0, 1000), (2, 4000), (0, 5000)]);
    }

    #[test]
    fn a_tick_that_comes_early_is_the_one_that_was_due() {
        let mut schedule = Schedule::start(&"n1".into(), SECOND, Timestamp(0), SECOND);
        let due = schedule.due();
        let early = due.saturating_sub(Duration::from_millis(1));
        assert_eq!(schedule.take(early).missed, 0);
        assert_eq!(schedule.due(), due + SECOND);
    }

    /// At this interval, each tick as many ms off as its turn among these says: the seconds at which all is read.
    fn slow_ticks(interval_secs: u64, off_ms: &[i64], expected: &[u64]) {
        let interval = Duration::from_secs(interval_secs);
        let mut schedule = Schedule::start(&"n1".into(), interval, Timestamp(0), SECOND);
        let first = schedule.due();
        let mut secs = Vec::new();
        for (n, off) in (0..=30 / interval_secs).zip(off_ms.iter().cycle()) {
            let due = first + interval * n as u32;
            let now = Duration::from_millis((due.as_millis() as i64 + off) as u64);
            if schedule.take(now).depth == Depth::Full {
                secs.push(n * interval_secs);
            }
        }
        assert_eq!(secs, expected);
    }

    #[test]
    fn slow_metrics_keep_their_pace_however_ticks_jitter() {
        slow_ticks(1, &[0], &[0, 10, 20, 30]);
        slow_ticks(1, &[1, -1, 0, 2, -1, -1, 3], &[0, 10, 20, 30]);
        slow_ticks(4, &[2, -1, 0], &[0, 12, 24]);
        slow_ticks(15, &[0, -1], &[0, 15, 30]);
    }

    #[test]
    fn phases_are_the_nodes_own_and_spread_over_the_interval() {
        let phase = |node: &str, wall: i64| {
            let now = Duration::from_secs(77);
            let schedule = Schedule::start(&node.into(), SECOND, Timestamp(wall), now);
            (wall + (schedule.due().saturating_sub(now)).as_millis() as i64).rem_euclid(1000)
        };
        assert_eq!(phase("n1", 123_456), phase("n1", 9_999_999));
        let mut tenths = [0; 10];
        for node in 0..1000 {
            tenths[(phase(&format!("node-{node:04}"), 0) / 100) as usize] += 1;
        }
        assert!(tenths.iter().all(|n| (60..140).contains(n)), "{tenths:?}");
    }
}
