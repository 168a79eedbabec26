//! Running totals, read as differences. *(pure)*
//!
//! A total that falls began anew: the driver was reloaded or the GPU reset. That is no error, and nothing is counted
//! for it.

use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

/// A running total as it was last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Counter(Option<i64>);

impl Counter {
    /// How much it rose since it was last read; 0 when it was not read, for the first time, or anew.
    pub(super) fn rise(&mut self, value: Option<i64>) -> i64 {
        let Some(value) = value else {
            return 0;
        };
        let before = self.0.replace(value);
        before.map_or(0, |before| (value - before).max(0))
    }
}

/// Slots of a tally.
const SLOTS: usize = 10;

/// How much was counted in each of the last ten slots of time, the present one included; a slot counts to 65,535.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    slot: i64,
    /// Newest first.
    counts: [u16; SLOTS],
}

impl Tally {
    /// Counts `n` more. `slot_ms`: length of a slot.
    pub(super) fn add(&mut self, at: Timestamp, slot_ms: i64, n: i64) {
        let slot = at.0.div_euclid(slot_ms.max(1));
        let steps = usize::try_from(slot - self.slot).unwrap_or(0).min(SLOTS);
        if steps > 0 {
            self.counts.rotate_right(steps);
            self.counts[..steps].fill(0);
            self.slot = slot;
        }
        let n = u16::try_from(n).unwrap_or(u16::MAX);
        self.counts[0] = self.counts[0].saturating_add(n);
    }

    /// The sum of the newest slots.
    pub(super) fn sum(&self, slots: usize) -> u64 {
        let newest = self.counts.iter().take(slots);
        newest.map(|n| u64::from(*n)).sum()
    }

    /// The least of the newest slots.
    pub(super) fn least(&self, slots: usize) -> u32 {
        u32::from(self.counts.iter().take(slots).copied().min().unwrap_or(0))
    }

    /// The last slot that is over.
    pub(super) fn last_whole(&self) -> u32 {
        u32::from(self.counts[1])
    }

    /// The most of the newest slots.
    pub(super) fn most(&self, slots: usize) -> u32 {
        u32::from(self.counts.iter().take(slots).copied().max().unwrap_or(0))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.iter().all(|n| *n == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_begins_anew_counts_nothing() {
        let mut counter = Counter::default();
        let rises = [Some(5), Some(7), None, Some(8), Some(0), Some(2)].map(|v| counter.rise(v));
        assert_eq!(rises, [0, 2, 0, 1, 0, 2]);
    }

    #[test]
    fn a_tally_forgets_what_is_older_than_its_slots() {
        let mut tally = Tally::default();
        for second in 0..600 {
            tally.add(Timestamp::from_secs(second), 60_000, 1);
        }
        assert_eq!(
            (tally.sum(10), tally.sum(2), tally.least(10)),
            (600, 120, 60)
        );
        tally.add(Timestamp::from_secs(700), 60_000, 0);
        assert_eq!((tally.sum(10), tally.least(2)), (480, 0));
        tally.add(Timestamp::from_secs(10_000), 60_000, 3);
        assert_eq!(tally.sum(10), 3);
    }
}
