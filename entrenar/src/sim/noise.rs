//! Deterministic noise: a hash for choices, and a smooth wobble with a closed integral for physics.

use std::f64::consts::TAU;

/// SplitMix64's finaliser: a good hash of one word. Source: Steele et al., "Fast Splittable Pseudorandom Number
/// Generators", 2014.
pub(crate) const fn mix(word: u64) -> u64 {
    let z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash of several words; order matters.
pub(crate) fn hash(words: &[u64]) -> u64 {
    words.iter().fold(0, |h, w| mix(h ^ *w))
}

/// A hash as a number from 0 (included) to 1 (excluded).
pub(crate) fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// A hash as a number between two bounds.
pub(crate) fn between(hash: u64, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(hash)
}

/// Two slow sine waves of periods that do not fit each other: looks like load noise, has mean 0 and unit variance,
/// stays within ±2, and can be integrated exactly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wobble {
    waves: [Wave; 2],
}

#[derive(Clone, Copy, Debug)]
struct Wave {
    /// Radians a second.
    speed: f64,
    phase: f64,
}

impl Wobble {
    pub(crate) fn new(seed: u64) -> Self {
        let wave = |salt: u64, shortest_s: f64, longest_s: f64| Wave {
            speed: TAU / between(hash(&[seed, salt]), shortest_s, longest_s),
            phase: between(hash(&[seed, salt, 1]), 0.0, TAU),
        };
        Self {
            waves: [wave(1, 5.0, 11.0), wave(2, 60.0, 100.0)],
        }
    }

    /// The wobble at an instant, and its integral since second 0, up to a constant.
    pub(crate) fn at(&self, secs: f64) -> (f64, f64) {
        let mut value = 0.0;
        let mut integral = 0.0;
        for wave in &self.waves {
            let (sin, cos) = (wave.speed * secs + wave.phase).sin_cos();
            value += sin;
            integral -= cos / wave.speed;
        }
        (value, integral)
    }
}
