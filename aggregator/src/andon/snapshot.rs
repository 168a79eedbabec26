//! The engine's memory as bytes, for a restart. *(pure)*
//!
//! MessagePack with names under zstd, and a version: an engine that does not know the version starts anew from the journal
//! instead of guessing. Nothing else is done meanwhile, so writing it has to be quick: it is packed on another thread.

use std::io::{BufWriter, IntoInnerError};

use rmp_serde::Serializer;
use serde::{Deserialize, Serialize};

use super::engine::{Engine, Memory};
use super::rules::RuleBook;

/// Rises when a memory of before could not be read any more.
const VERSION: u32 = 2;
/// Enough for a quick snapshot; higher levels cost more than they save.
const ZSTD_LEVEL: i32 = 3;
/// What the first version, which was JSON, begins with.
const JSON: u8 = b'{';
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
    let mut packer = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).expect("packing needs only memory");
    let packs_aside = packer.multithread(1);
    packs_aside.expect("our zstd is built with threads");
    let mut plain = BufWriter::new(packer);
    let mut named = Serializer::new(&mut plain).with_struct_map();
    let written = snapshot.serialize(&mut named);
    written.expect("the engine's memory is plain data, and memory takes every byte");
    let packer = plain.into_inner().map_err(IntoInnerError::into_error);
    let packer = packer.expect("memory can be written to");
    packer.finish().expect("memory can be written to")
}

pub(super) fn read(rules: RuleBook, bytes: &[u8]) -> Result<Engine, SnapshotError> {
    let plain = unfold(bytes).map_err(|wrong| SnapshotError::Damaged(wrong.into()))?;
    if plain.first() == Some(&JSON) {
        return Err(SnapshotError::Version { found: 1 });
    }
    let damaged = |wrong: rmp_serde::decode::Error| SnapshotError::Damaged(wrong.into());
    let header: Header = rmp_serde::from_slice(&plain).map_err(damaged)?;
    if header.version != VERSION {
        return Err(SnapshotError::Version {
            found: header.version,
        });
    }
    let snapshot: Snapshot<Memory> = rmp_serde::from_slice(&plain).map_err(damaged)?;
    Ok(Engine::with_memory(rules, snapshot.memory))
}

fn unfold(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut plain = Vec::new();
    let decoder = zstd::Decoder::new(bytes)?;
    decoder.take(MOST_BYTES).read_to_end(&mut plain)?;
    Ok(plain)
}
