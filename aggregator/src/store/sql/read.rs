//! What a start needs, from a consistent view of what is committed.
//!
//! One text for all databases: compiled once as a module of each.

use std::collections::HashSet;

use entrenar::gpu::GpuUuid;
use entrenar::report::HolderChange;
use entrenar::unit::Timestamp;
use entrenar_proto::decode_hello;
use serde::de::DeserializeOwned;
use tracing::warn;

use super::dialect::{self, Connection, Pool};
use crate::andon::CordKey;
use crate::store::error::bad_json;
use crate::store::journal::{self, JournalError};
use crate::store::{JournalPosition, JournalRow, Recovered, Snapshot, StoreResult, StreamMark};

pub(super) async fn recover(readers: &Pool) -> StoreResult<Recovered> {
    let mut tx = readers.begin().await?;
    // Open, or held: see `Incident::is_held`.
    let incidents: Vec<(String,)> = sqlx::query_as(dialect::OPEN_OR_HELD)
        .fetch_all(&mut *tx)
        .await?;
    let cords: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT rule, scope, last_transition_at_ms FROM cord ORDER BY rule, scope")
            .fetch_all(&mut *tx)
            .await?;
    let ends: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT min(position) FROM journal), (SELECT max(position) FROM journal)",
    )
    .fetch_one(&mut *tx)
    .await?;
    let cord = |(rule, scope, at): (String, String, i64)| {
        let rule = rule.as_str().into();
        (CordKey { rule, scope }, Timestamp(at))
    };
    Ok(Recovered {
        streams: streams(&mut tx).await?,
        snapshot: snapshot(&mut tx).await?,
        open_incidents: incidents
            .iter()
            .map(|(doc,)| from_json(doc))
            .collect::<StoreResult<_>>()?,
        cords: cords.into_iter().map(cord).collect(),
        holders: holders(&mut tx).await?,
        journal: ends
            .0
            .zip(ends.1)
            .map(|(a, b)| (JournalPosition(a), JournalPosition(b))),
    })
}

type StreamRow = (Vec<u8>, Vec<u8>, String, i64, bool);

async fn streams(tx: &mut Connection) -> StoreResult<Vec<StreamMark>> {
    let rows: Vec<StreamRow> = sqlx::query_as(
        "SELECT stream, hello, durable, last_received_at_ms, gone
         FROM agent_stream JOIN stream_mark USING (stream) ORDER BY stream",
    )
    .fetch_all(tx)
    .await?;
    // An agent whose mark is damaged introduces itself anew, and sends again what it still has.
    let known = |row: StreamRow| {
        let stream = hex::encode(&row.0);
        let read = mark(row);
        if let Err(why) = &read {
            warn!(
                stream,
                why, "what is known of an agent is damaged: it begins anew"
            );
        }
        read.ok()
    };
    Ok(rows.into_iter().filter_map(known).collect())
}

fn mark(row: StreamRow) -> Result<StreamMark, &'static str> {
    let (stream, hello, durable, last_received_at, gone) = row;
    let hello = decode_hello(&hello).map_err(|_| "the hello cannot be read")?;
    if stream != hello.stream.0 {
        return Err("the hello is another's");
    }
    Ok(StreamMark {
        hello,
        durable: from_json(&durable).map_err(|_| "its marks cannot be read")?,
        last_received_at: Timestamp(last_received_at),
        gone,
    })
}

async fn snapshot(tx: &mut Connection) -> StoreResult<Option<Snapshot>> {
    let row: Option<(i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT position, taken_at_ms, bytes FROM engine_snapshot")
            .fetch_optional(tx)
            .await?;
    Ok(row.map(|(position, taken_at, bytes)| Snapshot {
        position: JournalPosition(position),
        taken_at: Timestamp(taken_at),
        bytes,
    }))
}

/// The newest change of each GPU.
async fn holders(tx: &mut Connection) -> StoreResult<Vec<HolderChange>> {
    let rows: Vec<(String, i64, Option<String>)> =
        sqlx::query_as(dialect::HOLDERS).fetch_all(tx).await?;
    rows.into_iter().map(change).collect()
}

/// Who held these GPUs between two instants: the change that holds at `from`, and those after it up to `to`.
pub(super) async fn holders_between(
    readers: &Pool,
    gpus: &[GpuUuid],
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<HolderChange>> {
    let rows: Vec<(String, i64, Option<String>)> = sqlx::query_as(
        "SELECT uuid, at_ms, doc FROM gpu CROSS JOIN holder_change
         WHERE gpu_id = gpu.id AND at_ms <= $2 AND at_ms >= coalesce(
             (SELECT max(at_ms) FROM holder_change AS held WHERE held.gpu_id = gpu.id AND held.at_ms <= $1), $1)",
    )
    .bind(from.0)
    .bind(to.0)
    .fetch_all(readers)
    .await?;
    let asked: HashSet<&str> = gpus.iter().map(GpuUuid::as_str).collect();
    let rows = rows
        .into_iter()
        .filter(|(gpu, _, _)| asked.contains(gpu.as_str()));
    rows.map(change).collect()
}

fn change((gpu, at, doc): (String, i64, Option<String>)) -> StoreResult<HolderChange> {
    Ok(HolderChange {
        at: Timestamp(at),
        gpu: gpu.into(),
        holder: doc.as_deref().map(from_json).transpose()?,
    })
}

pub(super) async fn journal(
    readers: &Pool,
    after: JournalPosition,
    limit: usize,
) -> StoreResult<Vec<JournalRow>> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT position, entries FROM journal WHERE position > $1 ORDER BY position LIMIT $2",
    )
    .bind(after.0)
    .bind(limit_of(limit))
    .fetch_all(readers)
    .await?;
    let row = |(position, entries): (i64, Vec<u8>)| {
        let entries = match journal::decode(&entries) {
            Ok(entries) => entries,
            Err(newer @ JournalError::Version(_)) => return Err(newer.into()),
            Err(error) => {
                warn!(position, %error, "a journal row is damaged: what it held is lost unless agents still have it");
                Vec::new()
            }
        };
        Ok((JournalPosition(position), entries))
    };
    rows.into_iter().map(row).collect()
}

pub(super) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|error| bad_json(&error))
}
