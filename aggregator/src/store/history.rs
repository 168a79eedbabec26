//! Where the chunks of one GPU lie. *(pure)*

use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;

use super::{SealedChunk, StoredRollup};
use crate::chunk::stretch;
use crate::rollup::Sums;

/// A row of `chunk` without its GPU: stretch, length, first and last sample, number of samples, blob.
pub(super) type ChunkRow = (i64, i64, i64, i64, i64, Vec<u8>);

/// The key is time first, so a range of time would touch every GPU. But a GPU's stretches begin where its UUID and their
/// length say: these are all starts that overlap a range, for all lengths that it ever had, ascending.
pub(super) fn possible_starts(
    gpu: &GpuUuid,
    lengths: impl IntoIterator<Item = i64>,
    first: Timestamp,
    last: Timestamp,
) -> Vec<i64> {
    let mut starts: Vec<i64> = lengths
        .into_iter()
        .flat_map(|length_ms| {
            let length_ms = length_ms.max(1) as u64;
            let start = stretch::start(gpu, Duration::from_millis(length_ms), first);
            (start.0..=last.0).step_by(length_ms as usize)
        })
        .collect();
    // A short and a long stretch may begin together: one row holds both.
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// A row as a chunk.
pub(super) fn chunk(gpu: &GpuUuid, row: ChunkRow) -> SealedChunk {
    let (stretch, length_ms, from, to, n_samples, blob) = row;
    SealedChunk {
        gpu: gpu.clone(),
        stretch: Timestamp(stretch),
        length_ms: length_ms as u32,
        from: Timestamp(from),
        to: Timestamp(to),
        n_samples: n_samples as u32,
        blob,
    }
}

/// Stretch, first and last sample, and the sums where they are stored.
pub(super) type RollupRow<'a> = (i64, i64, i64, Option<&'a [u8]>);

/// A row as a summed-up stretch. A chunk that could not be summed up has empty sums.
pub(super) fn rollup((stretch, from, to, blob): RollupRow<'_>) -> StoredRollup {
    StoredRollup {
        stretch: Timestamp(stretch),
        from: Timestamp(from),
        to: Timestamp(to),
        sums: blob.filter(|blob| !blob.is_empty()).map(Sums::alone),
    }
}
