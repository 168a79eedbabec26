//! A 32-bit counter of the driver, made into one that does not go round.

use std::sync::atomic::{AtomicU64, Ordering};

/// Follows a counter of 32 bits. Between two readings less than one turn is assumed: of more, the rest is not seen.
#[derive(Default)]
pub(super) struct Odometer {
    /// Its lowest 32 bits are the driver's last reading.
    total: AtomicU64,
}

impl Odometer {
    /// The total after a reading. A driver whose counter is wider is taken at its word.
    pub(super) fn read(&self, reading: i64) -> i64 {
        let Ok(reading) = u32::try_from(reading) else {
            return reading;
        };
        let before = self.total.load(Ordering::Relaxed);
        let after = before + u64::from(reading.wrapping_sub(before as u32));
        // One thread at a time reads a GPU; one that came back late from a hang only counts a little less.
        self.total.store(after, Ordering::Relaxed);
        after as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_goes_on_where_the_counter_goes_round() {
        let odometer = Odometer::default();
        let readings = [4_294_967_000, 4_294_967_295, 0, 704, 703];
        let totals = readings.map(|reading| odometer.read(reading));
        let round = 1 << 32;
        assert_eq!(
            totals,
            [
                4_294_967_000,
                4_294_967_295,
                round,
                round + 704,
                2 * round + 703
            ]
        );
    }

    #[test]
    fn a_wider_counter_is_taken_at_its_word() {
        assert_eq!(Odometer::default().read(5_000_000_000), 5_000_000_000);
    }
}
