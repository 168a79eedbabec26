//! The engine's memory as bytes, for a restart. *(pure)*
//!
//! JSON under zstd, with a version: an engine that does not know the version starts anew from the journal instead of
//! guessing.

use std::io::{BufWriter, IntoInnerError};

use serde::{Deserialize, Serialize};

use super::engine::{Engine, Memory};
use super::rules::RuleBook;

/// Rises when a memory of before could not be read any more.
const VERSION: u32 = 1;
/// Enough for a quick snapshot; higher levels cost more than they save.
const ZSTD_LEVEL: i32 = 3;
/// Most bytes that a snapshot may unfold to: about 4 KB for each of 250,000 GPUs.
const MOST_BYTES: u64 = 1 << 30;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Written by another version: replay the journal instead.
    #[error("the engine's snapshot has version {found}, this build knows {VERSION}")]
    Version { found: u32 },
    /// Not a snapshot, or damaged.
    #[error("the engine's snapshot cannot be read")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Deserialize)]
struct Header {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Snapshot<M> {
    version: u32,
    memory: M,
}

pub(super) fn write(memory: &Memory) -> Vec<u8> {
    let snapshot = Snapshot {
        version: VERSION,
        memory,
    };
    // Packed as it is written: unpacked it is larger than the memory that it describes.
    let packer = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).expect("packing needs only memory");
    let mut json = BufWriter::new(packer);
    serde_json::to_writer(&mut json, &snapshot).expect("the engine's memory has text keys only");
    let packer = json.into_inner().map_err(IntoInnerError::into_error);
    let packer = packer.expect("memory can be written to");
    packer.finish().expect("memory can be written to")
}

pub(super) fn read(rules: RuleBook, bytes: &[u8]) -> Result<Engine, SnapshotError> {
    let json = unfold(bytes).map_err(|wrong| SnapshotError::Damaged(wrong.into()))?;
    let damaged = |wrong: serde_json::Error| SnapshotError::Damaged(wrong.into());
    let header: Header = serde_json::from_slice(&json).map_err(damaged)?;
    if header.version != VERSION {
        return Err(SnapshotError::Version {
            found: header.version,
        });
    }
    let snapshot: Snapshot<Memory> = serde_json::from_slice(&json).map_err(damaged)?;
    Ok(Engine::with_memory(rules, snapshot.memory))
}

fn unfold(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut json = Vec::new();
    let decoder = zstd::Decoder::new(bytes)?;
    decoder.take(MOST_BYTES).read_to_end(&mut json)?;
    Ok(json)
}
