//! Group commits: chunks, journal rows, marks, holders, snapshots.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::report::HolderChange;
use entrenar::unit::Timestamp;
use entrenar_proto::encode_hello;
use serde_json::json;
use sqlx::sqlite::SqliteConnection;

use super::events;
use super::sheets;
use super::transaction::{begin, finish};
use crate::chunk;
use crate::store::error::bad_json;
use crate::store::fresh::Written;
use crate::store::merge::{Merged, length_of_both, merge, sums};
use crate::store::{
    Flush, JournalPosition, SealedChunk, Snapshot, StoreResult, StreamMark, journal,
};

/// What the writer remembers from commit to commit.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Numbers of GPUs, as the table has them. As many as there are GPUs.
    pub(super) numbers: HashMap<GpuUuid, i64>,
    /// Chunks given up because they could not be merged.
    pub(super) n_chunks_lost: Arc<AtomicU64>,
    /// A stretch of a new length came, which readers do not know of.
    pub(super) has_new_length: bool,
    /// Sums that were written in rows of their own.
    pub(super) written: Vec<Written>,
}

/// The newest journal row ever, even if it is forgotten by now.
pub(super) async fn newest_position(db: &mut SqliteConnection) -> StoreResult<JournalPosition> {
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'journal'")
            .fetch_optional(db)
            .await?;
    Ok(JournalPosition(newest.unwrap_or(0)))
}

/// Keeps chunks in one transaction; a stretch that is there already is merged with what is new.
pub(super) async fn keep_chunks(
    db: &mut SqliteConnection,
    memory: &mut Memory,
    sealed: Vec<SealedChunk>,
) -> StoreResult<()> {
    begin(db).await?;
    let done = keep_each(db, memory, sealed).await;
    finish(db, done).await
}

async fn keep_each(
    tx: &mut SqliteConnection,
    memory: &mut Memory,
    sealed: Vec<SealedChunk>,
) -> StoreResult<()> {
    for chunk in sealed {
        keep_chunk(tx, memory, chunk).await?;
    }
    Ok(())
}

async fn keep_chunk(
    tx: &mut SqliteConnection,
    memory: &mut Memory,
    new: SealedChunk,
) -> StoreResult<()> {
    let gpu = number(tx, memory, &new.gpu).await?;
    let found: Option<(i64, u32, Vec<u8>)> = sqlx::query_as(
        "SELECT id, length_ms, blob FROM chunk WHERE stretch_ms = $1 AND gpu_id = $2",
    )
    .bind(new.stretch.0)
    .bind(gpu)
    .fetch_optional(&mut *tx)
    .await?;
    let new_length = sqlx::query(
        "INSERT INTO gpu_stretch (gpu_id, length_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(gpu)
    .bind(new.length_ms)
    .execute(&mut *tx)
    .await?;
    memory.has_new_length |= new_length.rows_affected() > 0;
    let mut key = StretchKey {
        gpu,
        stretch: new.stretch,
        length_ms: new.length_ms,
    };
    let Some((id, length_ms, old)) = found else {
        keep_rollups(tx, memory, &key, &new.blob, (new.from, new.to), KEEP_OLD).await?;
        return insert_chunk(tx, gpu, new).await;
    };
    key.length_ms = length_of_both(length_ms, new.length_ms);
    let merged = match merge(old, new) {
        Merged::Same => return Ok(()),
        Merged::Whole(merged) => merged,
        Merged::Lost(left) => {
            memory.n_chunks_lost.fetch_add(1, Ordering::Relaxed);
            left
        }
    };
    let (n_samples, from, to) = chunk::extent(&merged)?;
    keep_rollups(tx, memory, &key, &merged, (from, to), KEEP_NEW).await?;
    sqlx::query(
        "UPDATE chunk SET from_ms = $1, to_ms = $2, n_samples = $3, blob = $4, length_ms = $5
         WHERE id = $6",
    )
    .bind(from.0)
    .bind(to.0)
    .bind(n_samples as i64)
    .bind(merged)
    .bind(key.length_ms)
    .bind(id)
    .execute(tx)
    .await?;
    Ok(())
}

/// Where sums belong.
struct StretchKey {
    gpu: i64,
    stretch: Timestamp,
    length_ms: u32,
}

/// In the place of what a chunk came to before.
const KEEP_NEW: &str = "INSERT INTO rollup (step_s, stretch_ms, gpu_id, from_ms, to_ms, blob)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (step_s, stretch_ms, gpu_id)
     DO UPDATE SET from_ms = excluded.from_ms, to_ms = excluded.to_ms, blob = excluded.blob";

/// Unless there is something: the sums of a chunk that was dropped by now, of which a few late samples know nothing.
const KEEP_OLD: &str = "INSERT INTO rollup (step_s, stretch_ms, gpu_id, from_ms, to_ms, blob)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (step_s, stretch_ms, gpu_id) DO NOTHING";

/// Keeps what a chunk comes to.
async fn keep_rollups(
    tx: &mut SqliteConnection,
    memory: &mut Memory,
    key: &StretchKey,
    blob: &[u8],
    (from, to): (Timestamp, Timestamp),
    insert: &'static str,
) -> StoreResult<()> {
    for (step, packed) in sums(blob, key.length_ms) {
        let there = sheets::find(tx, step, key.gpu, key.stretch).await?;
        if insert == KEEP_OLD && there.as_ref().is_some_and(|there| there.knows) {
            continue;
        }
        let kept = sqlx::query(insert)
            .bind(step.as_secs() as i64)
            .bind(key.stretch.0)
            .bind(key.gpu)
            .bind(from.0)
            .bind(to.0)
            .bind(&packed)
            .execute(&mut *tx)
            .await?;
        if kept.rows_affected() > 0 {
            memory.written.push(Written {
                step,
                key: (key.gpu, key.stretch.0),
                from,
                to,
                blob: packed,
            });
        }
        if let Some(there) = there {
            sheets::tell_of_late(tx, step, there.id).await?;
        }
    }
    Ok(())
}

async fn insert_chunk(tx: &mut SqliteConnection, gpu: i64, new: SealedChunk) -> StoreResult<()> {
    sqlx::query(
        "INSERT INTO chunk (stretch_ms, gpu_id, length_ms, from_ms, to_ms, n_samples, blob)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(new.stretch.0)
    .bind(gpu)
    .bind(new.length_ms)
    .bind(new.from.0)
    .bind(new.to.0)
    .bind(new.n_samples)
    .bind(new.blob)
    .execute(tx)
    .await?;
    Ok(())
}

/// Everything of a flush but its chunks and what it forgets, in one transaction. Answers the position of its journal.
pub(super) async fn keep(
    db: &mut SqliteConnection,
    memory: &mut Memory,
    flush: Flush,
    newest: JournalPosition,
) -> StoreResult<Option<JournalPosition>> {
    begin(db).await?;
    let done = keep_rows(db, memory, flush, newest).await;
    finish(db, done).await
}

async fn keep_rows(
    tx: &mut SqliteConnection,
    memory: &mut Memory,
    flush: Flush,
    newest: JournalPosition,
) -> StoreResult<Option<JournalPosition>> {
    let mut position = None;
    if !flush.journal.is_empty() {
        let row = journal::encode(&flush.journal)?;
        let inserted = sqlx::query("INSERT INTO journal (entries) VALUES ($1)")
            .bind(row)
            .execute(&mut *tx)
            .await?;
        position = Some(JournalPosition(inserted.last_insert_rowid()));
    }
    keep_marks(tx, &flush.marks).await?;
    for change in &flush.holders {
        keep_holder(tx, memory, change).await?;
    }
    events::keep(tx, &flush.events).await?;
    if let Some(mut snapshot) = flush.snapshot {
        snapshot.position = position.unwrap_or(newest);
        keep_snapshot(tx, snapshot).await?;
    }
    Ok(position)
}

/// One statement for all, because there is a mark for every agent that spoke.
async fn keep_marks(tx: &mut SqliteConnection, marks: &[StreamMark]) -> StoreResult<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = marks
        .iter()
        .map(|mark| {
            json!([
                hex::encode(mark.hello.stream.0),
                mark.hello.node.as_str(),
                hex::encode(encode_hello(&mark.hello)),
                serde_json::to_string(&mark.durable).unwrap_or_default(),
                mark.last_received_at.0,
                mark.gone,
            ])
        })
        .collect();
    let rows = serde_json::Value::from(rows).to_string();
    sqlx::query(
        "INSERT INTO agent_stream (stream, node, hello)
         SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2) FROM json_each($1) WHERE true
         ON CONFLICT (stream) DO UPDATE SET node = excluded.node, hello = excluded.hello
         WHERE hello <> excluded.hello",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO stream_mark (stream, durable, last_received_at_ms, gone)
         SELECT unhex(value ->> 0), value ->> 3, value ->> 4, value ->> 5 FROM json_each($1) WHERE true
         ON CONFLICT (stream) DO UPDATE SET durable = excluded.durable,
             last_received_at_ms = excluded.last_received_at_ms, gone = excluded.gone",
    )
    .bind(&rows)
    .execute(tx)
    .await?;
    Ok(())
}

async fn keep_holder(
    tx: &mut SqliteConnection,
    memory: &mut Memory,
    change: &HolderChange,
) -> StoreResult<()> {
    let doc = change
        .holder
        .as_ref()
        .map(serde_json::to_string)
        .transpose();
    let gpu = number(tx, memory, &change.gpu).await?;
    sqlx::query(
        "INSERT INTO holder_change (gpu_id, at_ms, job, doc) VALUES ($1, $2, $3, $4)
         ON CONFLICT (gpu_id, at_ms) DO UPDATE SET job = excluded.job, doc = excluded.doc",
    )
    .bind(gpu)
    .bind(change.at.0)
    .bind(change.holder.as_ref().map(|holder| &holder.job))
    .bind(doc.map_err(|error| bad_json(&error))?)
    .execute(tx)
    .await?;
    Ok(())
}

async fn keep_snapshot(tx: &mut SqliteConnection, snapshot: Snapshot) -> StoreResult<()> {
    sqlx::query(
        "INSERT INTO engine_snapshot (id, position, taken_at_ms, bytes) VALUES (1, $1, $2, $3)
         ON CONFLICT (id) DO UPDATE SET position = excluded.position, taken_at_ms = excluded.taken_at_ms,
             bytes = excluded.bytes WHERE position <= excluded.position",
    )
    .bind(snapshot.position.0)
    .bind(snapshot.taken_at.0)
    .bind(snapshot.bytes)
    .execute(tx)
    .await?;
    Ok(())
}

/// The number of a GPU, given out at its first appearance.
async fn number(tx: &mut SqliteConnection, memory: &mut Memory, gpu: &GpuUuid) -> StoreResult<i64> {
    if let Some(number) = memory.numbers.get(gpu) {
        return Ok(*number);
    }
    let known: Option<i64> = sqlx::query_scalar("SELECT id FROM gpu WHERE uuid = $1")
        .bind(gpu.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let number = match known {
        Some(number) => number,
        None => sqlx::query("INSERT INTO gpu (uuid) VALUES ($1)")
            .bind(gpu.as_str())
            .execute(tx)
            .await?
            .last_insert_rowid(),
    };
    memory.numbers.insert(gpu.clone(), number);
    Ok(number)
}

/// Deletes some journal rows up to `last`, whose blobs are long, and each page of them is touched; answers whether there
/// are more.
pub(super) async fn forget_journal(
    db: &mut SqliteConnection,
    last: JournalPosition,
    rows: i64,
) -> StoreResult<bool> {
    let gone = sqlx::query(
        "DELETE FROM journal WHERE position IN
             (SELECT position FROM journal WHERE position <= $1 ORDER BY position LIMIT $2)",
    )
    .bind(last.0)
    .bind(rows)
    .execute(db)
    .await?;
    Ok(gone.rows_affected() == rows as u64)
}

pub(super) async fn forget_node(db: &mut SqliteConnection, node: &NodeId) -> StoreResult<()> {
    // Marks go with their streams.
    sqlx::query("DELETE FROM agent_stream WHERE node = $1")
        .bind(node.as_str())
        .execute(db)
        .await?;
    Ok(())
}
