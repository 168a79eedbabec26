//! The bounded recent past of a value. *(pure)*
//!
//! Time is cut into slots; a window keeps a fixed number of them, however fast samples come. [`ShareWindow`]
//! remembers yes or no, [`TrendWindow`] remembers a level and can say how it moves.

use serde::{Deserialize, Serialize};

use crate::unit::Timestamp;

/// Slots of a [`ShareWindow`]: a bit each.
const SHARE_SLOTS: u32 = 64;

/// Slots of a [`TrendWindow`].
const TREND_SLOTS: usize = 16;

/// By how many slots time has moved. Slots follow the samples' own rhythm, so that jitter of less than half a slot
/// neither skips one nor fills one twice.
fn steps(slot_at: &mut Option<Timestamp>, at: Timestamp, slot_ms: i64) -> i64 {
    let begun = *slot_at.get_or_insert(at);
    let steps = (at.0 - begun.0 + slot_ms / 2).div_euclid(slot_ms).max(0);
    *slot_at = Some(Timestamp(begun.0 + steps * slot_ms));
    steps
}

/// In how many of the last slots something was seen to be so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareWindow {
    slot_at: Option<Timestamp>,
    seen: u64,
    yes: u64,
}

impl ShareWindow {
    /// Most slots that can be asked about.
    pub const SLOTS: u32 = SHARE_SLOTS;

    /// Takes in a sample. `slot_ms`: length of a slot, at least the sampling interval.
    pub fn push(&mut self, at: Timestamp, slot_ms: i64, yes: bool) {
        let steps = steps(&mut self.slot_at, at, slot_ms.max(1));
        let shift = u32::try_from(steps).unwrap_or(SHARE_SLOTS);
        self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
        self.yes = self.yes.checked_shl(shift).unwrap_or(0) | u64::from(yes);
    }

    /// How many of the last `slots` slots had a sample that was so.
    pub fn yes(&self, slots: u32) -> u32 {
        (self.yes & newest(slots)).count_ones()
    }

    /// How many of the last `slots` slots had a sample.
    pub fn seen(&self, slots: u32) -> u32 {
        (self.seen & newest(slots)).count_ones()
    }
}

/// A mask of the newest slots.
fn newest(slots: u32) -> u64 {
    match slots {
        0 => 0,
        SHARE_SLOTS.. => u64::MAX,
        _ => (1 << slots) - 1,
    }
}

/// The last value of each of the last 16 slots.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrendWindow {
    slot_at: Option<Timestamp>,
    /// Newest last.
    values: [Option<f32>; TREND_SLOTS],
}

impl Default for TrendWindow {
    fn default() -> Self {
        Self {
            slot_at: None,
            values: [None; TREND_SLOTS],
        }
    }
}

/// What a [`TrendWindow`] says of its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Smallest.
    pub min: f32,
    /// Largest.
    pub max: f32,
    /// Arithmetic mean.
    pub mean: f32,
    /// Change a second, by least squares; 0 for a single value.
    pub slope_per_second: f32,
    /// Whether every value of the newer half lies above every value of the older half.
    pub halves_rise: bool,
    /// How many values lie above the one before them.
    pub rises: u32,
    /// How many lie below it.
    pub falls: u32,
    /// Slots with a value.
    pub seen: u32,
}

impl TrendWindow {
    /// How many slots there are.
    pub const SLOTS: usize = TREND_SLOTS;

    /// Takes in a sample. `slot_ms`: length of a slot.
    pub fn push(&mut self, at: Timestamp, slot_ms: i64, value: f32) {
        let steps = steps(&mut self.slot_at, at, slot_ms.max(1));
        let shift = usize::try_from(steps).map_or(TREND_SLOTS, |s| s.min(TREND_SLOTS));
        self.values.rotate_left(shift);
        self.values[TREND_SLOTS - shift..].fill(None);
        self.values[TREND_SLOTS - 1] = Some(value);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What the values say; `None` when there is none.
    pub fn trend(&self, slot_ms: i64) -> Option<Trend> {
        let points = || {
            let slots = self.values.iter().enumerate();
            slots.filter_map(|(slot, value)| Some((slot as f32, (*value)?)))
        };
        let n = points().count();
        if n == 0 {
            return None;
        }
        let values = || points().map(|(_, value)| value);
        let steps = || values().zip(values().skip(1));
        let mean = values().sum::<f32>() / n as f32;
        let mean_slot = points().map(|(slot, _)| slot).sum::<f32>() / n as f32;
        let (up, across) = points().fold((0.0, 0.0), |(up, across), (slot, value)| {
            let dx = slot - mean_slot;
            (up + dx * (value - mean), across + dx * dx)
        });
        let slot_s = slot_ms as f32 / 1e3;
        let older = values().take(n / 2).fold(f32::MIN, f32::max);
        let newer = values().skip(n / 2).fold(f32::MAX, f32::min);
        Some(Trend {
            min: values().fold(f32::MAX, f32::min),
            max: values().fold(f32::MIN, f32::max),
            mean,
            slope_per_second: if across > 0.0 {
                up / across / slot_s
            } else {
                0.0
            },
            halves_rise: n >= 2 && newer > older,
            rises: steps().filter(|(before, after)| after > before).count() as u32,
            falls: steps().filter(|(before, after)| after < before).count() as u32,
            seen: n as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::series;

    #[test]
    fn a_share_counts_slots_and_knows_gaps() {
        let check = |line: &str, yes: u32, seen: u32| {
            let mut window = ShareWindow::default();
            for (at, value) in series(line, Duration::from_secs(1)) {
                if let Some(value) = value {
                    window.push(at, 1000, value > 0.0);
                }
            }
            assert_eq!((window.yes(10), window.seen(10)), (yes, seen), "{line}");
        };
        check("1x3", 3, 3);
        check("1x3 0x7", 3, 10);
        check("1x3 0x8", 2, 10);
        check("1x5 _x4 0", 5, 6);
        check("1x30 _x100 0", 0, 1);
    }

    #[test]
    fn jitter_neither_skips_a_slot_nor_fills_one_twice() {
        let mut window = ShareWindow::default();
        for n in 0..60 {
            let jitter = [0, 180, -170, 90, -200][n % 5];
            window.push(Timestamp(n as i64 * 1000 + jitter), 1000, true);
        }
        assert_eq!(window.seen(60), 60);
    }

    #[test]
    fn samples_faster_than_slots_share_them() {
        let mut window = ShareWindow::default();
        for n in 0..=40 {
            window.push(Timestamp(n * 250), 1000, n % 4 == 0);
        }
        assert_eq!((window.yes(10), window.seen(10)), (10, 10));
    }

    #[test]
    fn a_trend_knows_its_slope() {
        let check = |line: &str, slope: f32, rises: bool| {
            let mut window = TrendWindow::default();
            for (at, value) in series(line, Duration::from_secs(5)) {
                if let Some(value) = value {
                    window.push(at, 5000, value as f32);
                }
            }
            let trend = window.trend(5000).expect("there are values");
            assert!(
                (trend.slope_per_second - slope).abs() < 1e-5,
                "{line}: {trend:?}"
            );
            assert_eq!(trend.halves_rise, rises, "{line}");
        };
        check("7", 0.0, false);
        check("7x20", 0.0, false);
        check("0 5 10 15", 1.0, true);
        check("0 5 _ 15 20", 1.0, true);
        check("100 _x40 0 5 10 15", 1.0, true);
        check("3 4 3 4 3 4 3 4", 0.009_523_8, false);
    }

    #[test]
    fn a_trend_keeps_the_newest_slots() {
        let mut window = TrendWindow::default();
        for n in 0..100 {
            window.push(Timestamp(n * 1000), 1000, n as f32);
        }
        let trend = window.trend(1000).expect("there are values");
        assert_eq!((trend.min, trend.max, trend.seen), (84.0, 99.0, 16));
        assert!((trend.mean - 91.5).abs() < 1e-6);
        window.clear();
        assert_eq!(window.trend(1000), None);
    }
}
