//! What a job has learned of its own pauses: how long it may show no life and yet go on. *(pure)*
//!
//! A histogram of lengths on a logarithmic scale; old pauses fade, so that a job that changes is learned anew.

use serde::{Deserialize, Serialize};

/// Two steps an octave from one second on: the last stands for an hour and a half and more.
const STEPS: usize = 26;
/// Pauses after which all counts are halved.
const FADE_AT: u32 = 4096;
/// Shorter than this is no pause, in milliseconds.
const LEAST_MS: i64 = 1000;

/// Lengths of a job's pauses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::andon) struct Gaps {
    counts: [u16; STEPS],
    n: u32,
}

impl Gaps {
    /// One more pause that ended by itself.
    pub(in crate::andon) fn note(&mut self, ms: i64) {
        if ms < LEAST_MS {
            return;
        }
        let step = ((ms as f64 / LEAST_MS as f64).log2() * 2.0).floor() as usize;
        let count = &mut self.counts[step.min(STEPS - 1)];
        *count = count.saturating_add(1);
        self.n += 1;
        if self.n >= FADE_AT {
            self.counts
                .iter_mut()
                .for_each(|count| *count = count.div_ceil(2));
            self.n = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
    }

    /// How many at least this long are known.
    pub(in crate::andon) fn n_longer(&self, ms: i64) -> u32 {
        let from = (0..STEPS)
            .find(|step| upper_ms(*step) > ms)
            .unwrap_or(STEPS);
        self.counts[from..].iter().map(|n| u32::from(*n)).sum()
    }

    /// A length that this share of the pauses does not exceed, in milliseconds; 0: none is known.
    pub(in crate::andon) fn quantile_ms(&self, share: f64) -> i64 {
        let mut left = (f64::from(self.n) * (1.0 - share)).floor() as u32;
        for step in (0..STEPS).rev() {
            let here = u32::from(self.counts[step]);
            if here > left {
                return upper_ms(step);
            }
            left -= here;
        }
        0
    }
}

/// What a step's pauses are shorter than.
fn upper_ms(step: usize) -> i64 {
    (LEAST_MS as f64 * 2_f64.powf(f64::midpoint(step as f64, 1.0))).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_half_an_octave() {
        let mut gaps = Gaps::default();
        (0..99).for_each(|_| gaps.note(3_000));
        gaps.note(60_000);
        assert!((3_000..4_300).contains(&gaps.quantile_ms(0.5)));
        assert!((60_000..86_000).contains(&gaps.quantile_ms(0.999)));
        assert_eq!(gaps.n_longer(30_000), 1);
        assert_eq!(Gaps::default().quantile_ms(0.5), 0);
    }

    #[test]
    fn a_flicker_is_no_pause_and_a_day_has_a_place() {
        let mut gaps = Gaps::default();
        gaps.note(500);
        assert_eq!(gaps.n, 0);
        gaps.note(86_400_000);
        assert_eq!(gaps.n, 1);
    }

    #[test]
    fn old_pauses_fade() {
        let mut gaps = Gaps::default();
        (0..FADE_AT).for_each(|_| gaps.note(100_000));
        (0..3 * FADE_AT).for_each(|_| gaps.note(2_000));
        assert!(gaps.n < FADE_AT);
        assert!(gaps.quantile_ms(0.5) < 3_000);
    }
}
