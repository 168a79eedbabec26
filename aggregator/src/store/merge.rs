//! A stretch that is sealed, or sealed again.

use std::time::Duration;

use tracing::warn;

use super::SealedChunk;
use crate::chunk::stretch::TICKS;
use crate::{chunk, rollup};

/// What becomes of the blob that is stored.
pub(super) enum Merged {
    /// It stays as it is.
    Same,
    /// This replaces it.
    Whole(Vec<u8>),
    /// One of the two is damaged and given up; this is the other.
    Lost(Vec<u8>),
}

/// Joins what is stored with what is new. One damaged stretch must not keep the fleet from being committed: what is
/// readable stays or comes in.
pub(super) fn merge(old: Vec<u8>, new: SealedChunk) -> Merged {
    match chunk::merge(&old, &new.blob) {
        Ok(merged) if merged == old => Merged::Same,
        Ok(merged) => Merged::Whole(merged),
        Err(error) => {
            warn!(gpu = %new.gpu, stretch = %new.stretch, %error, "could not merge a chunk");
            Merged::Lost(if chunk::extent(&old).is_ok() {
                old
            } else {
                new.blob
            })
        }
    }
}

/// The length of a stretch in which one of another length begins, after the sampling interval was changed: the shorter, so
/// that it is summed up by every step that either was summed up by.
pub(super) fn length_of_both(one_ms: u32, other_ms: u32) -> u32 {
    one_ms.min(other_ms)
}

/// What a chunk comes to, by step. One that cannot be read comes to nothing, told by empty sums, and is kept as it is: it
/// must not keep the fleet from being committed, and whoever reads it is told.
pub(super) fn sums(blob: &[u8], length_ms: u32) -> Vec<(Duration, Vec<u8>)> {
    let length = Duration::from_millis(length_ms.into());
    rollup::of_chunk(blob, length).unwrap_or_else(|error| {
        warn!(%error, "could not sum up a chunk");
        let steps = rollup::steps_for(length / TICKS);
        steps.map(|step| (step, Vec::new())).collect()
    })
}
