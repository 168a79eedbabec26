//! Group commits but for their chunks: journal rows, marks, holders, snapshots.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use entrenar::gpu::NodeId;
use entrenar::report::{Hello, HolderChange};
use entrenar_proto::{decode_hello, encode_hello};
use sqlx::postgres::PgConnection;

use super::dialect::text;
use super::events;
use super::partition::Parts;
use super::place::{self, Places};
use super::transaction::{begin, begin_lightly, finish};
use crate::store::error::bad_json;
use crate::store::fresh::Written;
use crate::store::{
    Flush, JournalEntry, JournalPosition, Snapshot, StoreResult, StreamMark, journal,
};

/// What the writer remembers from commit to commit.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) places: Places,
    /// GPUs, by their numbers, and lengths of stretches that are known to be in `gpu_stretch`.
    pub(super) lengths: HashSet<(i64, i64)>,
    pub(super) parts: Parts,
    /// Sums that were written in rows of their own.
    pub(super) written: Vec<Written>,
    /// The connection was lost since the last commit that was answered: one that was not may have survived.
    pub(super) in_doubt: bool,
    /// Chunks given up because they could not be merged.
    pub(super) n_chunks_lost: Arc<AtomicU64>,
}

impl Memory {
    /// Forgets what may have been rolled back.
    pub(super) fn forget(&mut self) {
        self.places.clear();
        self.lengths.clear();
        self.parts.clear();
    }
}

/// Everything of a flush but its chunks and what it forgets, in one transaction. Answers the position of its journal.
pub(super) async fn keep(
    db: &mut PgConnection,
    memory: &mut Memory,
    flush: Flush,
    newest: JournalPosition,
) -> StoreResult<Option<JournalPosition>> {
    begin(db).await?;
    let done = keep_rows(db, memory, flush, newest).await;
    let position = finish(db, done).await?;
    memory.in_doubt = false;
    Ok(position)
}

async fn keep_rows(
    tx: &mut PgConnection,
    memory: &mut Memory,
    flush: Flush,
    newest: JournalPosition,
) -> StoreResult<Option<JournalPosition>> {
    let mut position = None;
    if !flush.journal.is_empty() {
        let row = journal::encode(&flush.journal)?;
        if memory.in_doubt {
            position = survivor(tx, &row, newest).await?;
        }
        if position.is_none() {
            position = Some(insert(tx, row).await?);
        }
    }
    keep_marks(tx, &flush.marks).await?;
    place_gpus(tx, memory, &flush).await?;
    keep_holders(tx, memory, &flush.holders).await?;
    events::keep(tx, &flush.events).await?;
    if let Some(mut snapshot) = flush.snapshot {
        snapshot.position = position.unwrap_or(newest);
        keep_snapshot(tx, snapshot).await?;
    }
    Ok(position)
}

/// This very row, where its commit survived a lost connection and only the answer did not. Nobody else can have written
/// it: the lock ended with the transaction that did.
async fn survivor(
    tx: &mut PgConnection,
    row: &[u8],
    newest: JournalPosition,
) -> StoreResult<Option<JournalPosition>> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT position FROM journal WHERE position > $1 AND entries = $2")
            .bind(newest.0)
            .bind(row)
            .fetch_optional(tx)
            .await?;
    Ok(found.map(JournalPosition))
}

async fn insert(tx: &mut PgConnection, row: Vec<u8>) -> StoreResult<JournalPosition> {
    let position =
        sqlx::query_scalar("INSERT INTO journal (entries) VALUES ($1) RETURNING position")
            .bind(row)
            .fetch_one(tx)
            .await?;
    Ok(JournalPosition(position))
}

/// One statement for all, because there is a mark for every agent that spoke.
async fn keep_marks(tx: &mut PgConnection, marks: &[StreamMark]) -> StoreResult<()> {
    if marks.is_empty() {
        return Ok(());
    }
    // A statement may not change a row twice: the last word counts.
    let marks: BTreeMap<_, &StreamMark> = marks.iter().map(|m| (m.hello.stream.0, m)).collect();
    let streams: Vec<&[u8]> = marks.keys().map(<[u8; 16]>::as_slice).collect();
    let column = |value: fn(&StreamMark) -> String| -> Vec<String> {
        marks.values().map(|mark| value(mark)).collect()
    };
    let hellos: Vec<Vec<u8>> = marks.values().map(|m| encode_hello(&m.hello)).collect();
    sqlx::query(
        "INSERT INTO agent_stream (stream, node, hello) SELECT * FROM unnest($1::bytea[], $2::text[], $3::bytea[])
         ON CONFLICT (stream) DO UPDATE SET node = excluded.node, hello = excluded.hello
         WHERE agent_stream.hello <> excluded.hello",
    )
    .bind(&streams)
    .bind(column(|mark| text(mark.hello.node.as_str())))
    .bind(hellos)
    .execute(&mut *tx)
    .await?;
    let received: Vec<i64> = marks.values().map(|m| m.last_received_at.0).collect();
    let gone: Vec<bool> = marks.values().map(|m| m.gone).collect();
    sqlx::query(
        "INSERT INTO stream_mark (stream, durable, last_received_at_ms, gone)
         SELECT * FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::boolean[])
         ON CONFLICT (stream) DO UPDATE SET durable = excluded.durable,
             last_received_at_ms = excluded.last_received_at_ms, gone = excluded.gone",
    )
    .bind(&streams)
    .bind(column(|mark| {
        serde_json::to_string(&mark.durable).unwrap_or_default()
    }))
    .bind(received)
    .bind(gone)
    .execute(tx)
    .await?;
    Ok(())
}

/// Who speaks for the first time says which GPUs its node has, long before the first chunk of them.
async fn place_gpus(tx: &mut PgConnection, memory: &mut Memory, flush: &Flush) -> StoreResult<()> {
    let spoken: Vec<Hello> = flush
        .journal
        .iter()
        .filter_map(|entry| match entry {
            JournalEntry::Hello { bytes, .. } => decode_hello(bytes).ok(),
            _ => None,
        })
        .collect();
    let marked = flush.marks.iter().map(|mark| &mark.hello);
    let hellos: Vec<&Hello> = spoken.iter().chain(marked).collect();
    place::settle(tx, &mut memory.places, &hellos).await
}

async fn keep_holders(
    tx: &mut PgConnection,
    memory: &mut Memory,
    holders: &[HolderChange],
) -> StoreResult<()> {
    if holders.is_empty() {
        return Ok(());
    }
    place::find(tx, &mut memory.places, holders.iter().map(|c| &c.gpu)).await?;
    let mut rows = BTreeMap::new();
    for change in holders {
        let Some(place) = memory.places.get(&change.gpu) else {
            continue;
        };
        let holder = change.holder.as_ref();
        let doc = holder.map(serde_json::to_string).transpose();
        let doc = doc.map_err(|error| bad_json(&error))?.map(text);
        let job = holder.map(|holder| text(holder.job.as_str()));
        rows.insert((place.gpu, change.at.0), (place.node, job, doc));
    }
    let keys = rows.keys().copied();
    let (gpus, times): (Vec<i64>, Vec<i64>) = keys.unzip();
    let nodes: Vec<i64> = rows.values().map(|(node, ..)| *node).collect();
    let (jobs, docs): (Vec<_>, Vec<_>) = rows.into_values().map(|(_, job, doc)| (job, doc)).unzip();
    sqlx::query(
        "INSERT INTO holder_change (gpu_id, at_ms, node_id, job, doc)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])
         ON CONFLICT (gpu_id, at_ms, node_id) DO UPDATE SET job = excluded.job, doc = excluded.doc",
    )
    .bind(gpus)
    .bind(times)
    .bind(nodes)
    .bind(jobs)
    .bind(docs)
    .execute(tx)
    .await?;
    Ok(())
}

async fn keep_snapshot(tx: &mut PgConnection, snapshot: Snapshot) -> StoreResult<()> {
    sqlx::query(
        "INSERT INTO engine_snapshot (id, position, taken_at_ms, bytes) VALUES (1, $1, $2, $3)
         ON CONFLICT (id) DO UPDATE SET position = excluded.position, taken_at_ms = excluded.taken_at_ms,
             bytes = excluded.bytes WHERE engine_snapshot.position <= excluded.position",
    )
    .bind(snapshot.position.0)
    .bind(snapshot.taken_at.0)
    .bind(snapshot.bytes)
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes some journal rows up to `last`; answers whether there are more.
pub(super) async fn forget_journal(
    db: &mut PgConnection,
    last: JournalPosition,
    rows: i64,
) -> StoreResult<bool> {
    begin_lightly(db).await?;
    let done = forget_rows(db, last, rows).await;
    finish(db, done).await
}

async fn forget_rows(tx: &mut PgConnection, last: JournalPosition, rows: i64) -> StoreResult<bool> {
    let gone = sqlx::query(
        "DELETE FROM journal WHERE position IN
             (SELECT position FROM journal WHERE position <= $1 ORDER BY position LIMIT $2)",
    )
    .bind(last.0)
    .bind(rows)
    .execute(tx)
    .await?;
    Ok(gone.rows_affected() == rows as u64)
}

pub(super) async fn forget_node(db: &mut PgConnection, node: &NodeId) -> StoreResult<()> {
    sqlx::query(
        "WITH gone AS (DELETE FROM agent_stream WHERE node = $1 RETURNING stream)
         DELETE FROM stream_mark WHERE stream IN (SELECT stream FROM gone)",
    )
    .bind(text(node.as_str()))
    .execute(db)
    .await?;
    Ok(())
}
