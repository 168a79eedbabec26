//! What a start needs, and history, from a consistent view of what is committed.

use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::report::{HolderChange, StreamId};
use entrenar::unit::Timestamp;
use entrenar_proto::decode_hello;
use serde::de::DeserializeOwned;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnection;

use super::error::bad_json;
use crate::andon::CordKey;
use crate::chunk::stretch;
use crate::store::{
    JournalPosition, JournalRow, Recovered, SealedChunk, Snapshot, StoreError, StoreResult,
    StreamMark, journal,
};

pub(super) async fn recover(readers: &SqlitePool) -> StoreResult<Recovered> {
    let mut tx = readers.begin().await?;
    // Open, or held: see `Incident::is_held`.
    let incidents: Vec<(String,)> = sqlx::query_as(
        "SELECT doc FROM incident
         WHERE open = 1 OR (kind <> 'Manual' AND json_extract(doc, '$.state') = 'closed'
             AND json_extract(doc, '$.resolution') = 'closed')
         ORDER BY fired_at_ms, id",
    )
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

async fn streams(tx: &mut SqliteConnection) -> StoreResult<Vec<StreamMark>> {
    let rows: Vec<StreamRow> = sqlx::query_as(
        "SELECT stream, hello, durable, last_received_at_ms, gone
         FROM agent_stream JOIN stream_mark USING (stream) ORDER BY stream",
    )
    .fetch_all(tx)
    .await?;
    let mark = |(stream, hello, durable, last_received_at, gone): StreamRow| {
        let unreadable = |what: &str| {
            let stream = hex::encode(&stream);
            StoreError::Corrupt(format!("the {what} of stream {stream} cannot be read"))
        };
        let hello = decode_hello(&hello).map_err(|_| unreadable("hello"))?;
        if StreamId(stream.as_slice().try_into().map_err(|_| unreadable("id"))?) != hello.stream {
            return Err(unreadable("id"));
        }
        Ok(StreamMark {
            hello,
            durable: from_json(&durable)?,
            last_received_at: Timestamp(last_received_at),
            gone,
        })
    };
    rows.into_iter().map(mark).collect()
}

async fn snapshot(tx: &mut SqliteConnection) -> StoreResult<Option<Snapshot>> {
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
async fn holders(tx: &mut SqliteConnection) -> StoreResult<Vec<HolderChange>> {
    let rows: Vec<(String, i64, Option<String>)> = sqlx::query_as(
        "SELECT uuid, at_ms, doc FROM gpu CROSS JOIN holder_change ON gpu_id = gpu.id
         WHERE at_ms = (SELECT max(at_ms) FROM holder_change WHERE gpu_id = gpu.id) ORDER BY uuid",
    )
    .fetch_all(tx)
    .await?;
    let change = |(gpu, at, doc): (String, i64, Option<String>)| {
        Ok(HolderChange {
            at: Timestamp(at),
            gpu: gpu.into(),
            holder: doc.as_deref().map(from_json).transpose()?,
        })
    };
    rows.into_iter().map(change).collect()
}

pub(super) async fn journal(
    readers: &SqlitePool,
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
        Ok((JournalPosition(position), journal::decode(&entries)?))
    };
    rows.into_iter().map(row).collect()
}

type ChunkRow = (i64, u32, i64, i64, u32, Vec<u8>);

/// The key is time first, so a range of time would touch every GPU. But a GPU's stretches begin where its UUID and their
/// length say: each possible one is looked up.
pub(super) async fn chunks(
    readers: &SqlitePool,
    gpu: GpuUuid,
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<SealedChunk>> {
    let mut tx = readers.begin().await?;
    let number: Option<i64> = sqlx::query_scalar("SELECT id FROM gpu WHERE uuid = $1")
        .bind(gpu.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let ends: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk)",
    )
    .fetch_one(&mut *tx)
    .await?;
    let (Some(number), Some((first, last))) = (number, ends.0.zip(ends.1)) else {
        return Ok(Vec::new());
    };
    let lengths: Vec<i64> =
        sqlx::query_scalar("SELECT length_ms FROM gpu_stretch WHERE gpu_id = $1")
            .bind(number)
            .fetch_all(&mut *tx)
            .await?;
    let (first, last) = (Timestamp(first.max(from.0)), Timestamp(last.min(to.0)));
    let mut starts: Vec<i64> = lengths
        .into_iter()
        .flat_map(|length| starts(&gpu, length, first, last))
        .collect();
    // A short and a long stretch may begin together: one row holds both.
    starts.sort_unstable();
    starts.dedup();
    let rows: Vec<ChunkRow> = sqlx::query_as(
        "SELECT stretch_ms, length_ms, from_ms, to_ms, n_samples, blob
         FROM json_each($1) AS start CROSS JOIN chunk ON stretch_ms = start.value AND gpu_id = $2
         WHERE from_ms <= $3 AND $4 <= to_ms ORDER BY from_ms",
    )
    .bind(serde_json::Value::from(starts).to_string())
    .bind(number)
    .bind(to.0)
    .bind(from.0)
    .fetch_all(&mut *tx)
    .await?;
    let chunk = |(stretch, length_ms, from, to, n_samples, blob): ChunkRow| SealedChunk {
        gpu: gpu.clone(),
        stretch: Timestamp(stretch),
        length_ms,
        from: Timestamp(from),
        to: Timestamp(to),
        n_samples,
        blob,
    };
    Ok(rows.into_iter().map(chunk).collect())
}

/// Starts of the stretches of this length that overlap a range.
fn starts(
    gpu: &GpuUuid,
    length_ms: i64,
    first: Timestamp,
    last: Timestamp,
) -> impl Iterator<Item = i64> + use<> {
    let length = Duration::from_millis(length_ms.max(1) as u64);
    let start = stretch::start(gpu, length, first).0;
    (start..=last.0).step_by(length_ms.max(1) as usize)
}

pub(super) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|error| bad_json(&error))
}
