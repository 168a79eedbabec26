//! Bytes as they are damaged, dressed up, and taken as a recipe.

use entrenar::gpu::Values;
use entrenar::metric::{METRIC_COUNT, MetricId};
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk::Sample;

/// Where the checksum of a chunk, a rollup and a journal row stands.
const CHECKSUM: std::ops::Range<usize> = 1..5;

/// Rows that a recipe makes at most: enough for every way of writing a column, and quick.
const MAX_ROWS: usize = 300;

/// The same blob with the checksum that its content asks for.
pub fn dressed(blob: &[u8]) -> Vec<u8> {
    let mut dressed = blob.to_vec();
    if dressed.len() >= CHECKSUM.end {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&dressed[..CHECKSUM.start]);
        crc.update(&dressed[CHECKSUM.end..]);
        dressed[CHECKSUM].copy_from_slice(&crc.finalize().to_le_bytes());
    }
    dressed
}

/// Every truncation of a blob and every single flipped bit, each with what was done.
pub fn damaged(blob: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let cut = |length| (format!("cut at {length}"), blob[..length].to_vec());
    let flipped = |bit: usize| {
        let mut bent = blob.to_vec();
        bent[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {bit} flipped"), bent)
    };
    let cuts = (0..blob.len()).map(cut);
    cuts.chain((0..blob.len() * 8).map(flipped))
}

/// Bytes as a recipe: each call takes some off the front; zeros when there are none left.
pub(crate) struct Recipe<'a> {
    rest: &'a [u8],
}

impl<'a> Recipe<'a> {
    pub(crate) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let (byte, rest) = self.rest.split_first().unwrap_or((&0, &[]));
        self.rest = rest;
        *byte
    }

    /// Up to `n` bytes.
    pub(crate) fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// Small numbers in two bytes, and any number in nine.
    pub(crate) fn number(&mut self) -> i64 {
        match self.byte() {
            0..=99 => i64::from(self.byte()),
            100..=199 => i64::from(self.byte()) - 128,
            200..=209 => i64::MAX - i64::from(self.byte()),
            // The least of all stands for absence.
            210..=219 => i64::MIN + 1 + i64::from(self.byte()),
            _ => i64::from_le_bytes(self.array()),
        }
    }

    /// Samples of some metrics, ascending in time, with gaps and absent values; at least one.
    pub(crate) fn samples(&mut self) -> Vec<Sample> {
        let mut at = self.number();
        let metrics: [MetricId; 3] =
            std::array::from_fn(|_| MetricId(u16::from(self.byte()) % METRIC_COUNT as u16 + 1));
        let mut samples: Vec<Sample> = Vec::new();
        let mut row = Values::default();
        while samples.is_empty() || (!self.is_over() && samples.len() < MAX_ROWS) {
            let how = self.byte();
            let step = match how >> 6 {
                0 => 1000,
                1 => i64::from(self.byte()) + 1,
                2 => (i64::from(self.byte()) + 1) * 10_000,
                _ => self.number().unsigned_abs().max(1) as i64,
            };
            for (n, metric) in metrics.into_iter().enumerate() {
                match how >> (2 * n) & 3 {
                    0 | 1 => {}
                    2 => row.set(metric, self.number()),
                    _ => row.set(metric, None),
                }
            }
            samples.push((Timestamp(at), row.clone()));
            let Some(next) = at.checked_add(step) else {
                break;
            };
            at = next;
        }
        samples
    }
}
