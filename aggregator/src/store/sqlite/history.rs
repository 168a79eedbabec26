//! Chunks of some GPUs, and what they come to.

use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;
use sqlx::{Connection as _, SqliteConnection, SqlitePool};

use super::directory::Directory;
use super::sheets;
use crate::rollup::STEPS;
use crate::store::compact::cohort;
use crate::store::fresh::Fresh;
use crate::store::history::{ChunkRow, chunk};
use crate::store::sums::{
    Asked, Ends, Gathering, Known, NumberedRollup, StretchKey, keys, of_anybody, places,
};
use crate::store::{SealedChunk, StoreResult, StoredRollup};

/// The number of its GPU, and a [`ChunkRow`].
type NumberedChunk = (i64, i64, i64, i64, i64, i64, Vec<u8>);

/// Each possible key is looked up.
pub(super) async fn chunks(
    readers: &SqlitePool,
    directory: &Directory,
    gpus: &[GpuUuid],
    (from, to): (Timestamp, Timestamp),
) -> StoreResult<Vec<Vec<SealedChunk>>> {
    let mut found: Vec<Vec<SealedChunk>> = gpus.iter().map(|_| Vec::new()).collect();
    // Who asks has asked the head before: what is sealed between these questions is known already.
    let mut reader = readers.acquire().await?;
    // One end a question: SQLite looks up the first or the last key for it, and walks over all of them for two at once.
    let ends: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk)",
    )
    .fetch_one(&mut *reader)
    .await?;
    let Some(ends) = ends.0.zip(ends.1) else {
        return Ok(found);
    };
    let known = directory.find(&mut reader, gpus).await?;
    let places = places(&known);
    let keys = keys(gpus, &known, ends, (from, to), |_| true);
    let rows: Vec<NumberedChunk> = sqlx::query_as(
        "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS number, value ->> 1 AS start FROM json_each($1))
         SELECT number, stretch_ms, length_ms, from_ms, to_ms, n_samples, blob FROM asked
             CROSS JOIN chunk ON stretch_ms = start AND gpu_id = number
             WHERE from_ms <= $2 AND $3 <= to_ms",
    )
    .bind(serde_json::json!(keys).to_string())
    .bind(to.0)
    .bind(from.0)
    .fetch_all(&mut *reader)
    .await?;
    for (number, stretch, length, first, last, n_samples, blob) in rows {
        if let Some(place) = places.get(&number) {
            let row: ChunkRow = (stretch, length, first, last, n_samples, blob);
            found[*place].push(chunk(&gpus[*place], row));
        }
    }
    for of_gpu in &mut found {
        of_gpu.sort_by_key(|chunk| chunk.from);
    }
    Ok(found)
}

/// The cohort of each; of one that the database does not know, none that there is.
pub(super) async fn cohorts(
    readers: &SqlitePool,
    directory: &Directory,
    gpus: &[GpuUuid],
) -> StoreResult<Vec<i64>> {
    let known = directory.find(&mut *readers.acquire().await?, gpus).await?;
    let of = |known: &Option<Known>| known.as_ref().map_or(-1, |known| cohort(known.number));
    Ok(known.iter().map(of).collect())
}

/// Sums of stretches: those in sheets, those that lie alone, and stretches that have none.
pub(super) async fn rollups(
    readers: &SqlitePool,
    directory: &Directory,
    fresh: &Fresh,
    asked: Asked<'_>,
) -> StoreResult<Vec<Vec<StoredRollup>>> {
    let mut reader = readers.acquire().await?;
    let Some(ends) = ends(&mut reader, asked.step).await? else {
        return Ok(asked.gpus.iter().map(|_| Vec::new()).collect());
    };
    let known = directory.find(&mut reader, asked.gpus).await?;
    let mut gathering = Gathering::new(asked, &known, ends, fresh);
    let mut tx = reader.begin().await?;
    let (groups, extent) = (gathering.groups(), (asked.from, asked.to));
    let there = sheets::read(&mut tx, asked.step, &groups, &asked.sheets(), extent).await?;
    gathering.sheets(&there);
    if let Some(left) = gathering.left() {
        let rows = alone(&mut tx, asked, left).await?;
        gathering.rows(rows);
    }
    Ok(gathering.finish())
}

/// Sums in rows of their own where they are expected, and chunks where none are.
async fn alone(
    tx: &mut SqliteConnection,
    asked: Asked<'_>,
    (summed, unsummed): (&[StretchKey], &[StretchKey]),
) -> StoreResult<Vec<NumberedRollup>> {
    let rows = sqlx::query_as(
        "WITH summed AS MATERIALIZED (SELECT value ->> 0 AS number, value ->> 1 AS start FROM json_each($1)),
             unsummed AS MATERIALIZED (SELECT value ->> 0 AS number, value ->> 1 AS start FROM json_each($2))
         SELECT number, stretch_ms, from_ms, to_ms, blob FROM summed
             CROSS JOIN rollup ON step_s = $5 AND stretch_ms = start AND gpu_id = number
             WHERE from_ms <= $3 AND $4 <= to_ms
         UNION ALL
         SELECT number, stretch_ms, from_ms, to_ms, NULL FROM unsummed
             CROSS JOIN chunk ON stretch_ms = start AND gpu_id = number
             WHERE from_ms <= $3 AND $4 <= to_ms",
    )
    .bind(serde_json::json!(summed).to_string())
    .bind(serde_json::json!(unsummed).to_string())
    .bind(asked.to.0)
    .bind(asked.from.0)
    .bind(asked.step.as_secs() as i64)
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// The first and the last start of a stretch of anybody that may have sums.
async fn ends(tx: &mut SqliteConnection, step: Duration) -> StoreResult<Option<(i64, i64)>> {
    let table = sheets::table_of(step);
    // The name of the table is ours. One end a question, as for chunks.
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk),
             (SELECT min(stretch_ms) FROM rollup WHERE step_s = $1),
             (SELECT max(stretch_ms) FROM rollup WHERE step_s = $1),
             (SELECT min(window_ms) FROM {table}), (SELECT max(window_ms) FROM {table})"
    ));
    let ends: Ends = sqlx::query_as(sql)
        .bind(step.as_secs() as i64)
        .fetch_one(tx)
        .await?;
    Ok(of_anybody(step, ends))
}

/// Of each step, where the newest stretch begins whose sums lie alone.
pub(super) async fn newest_alone(
    db: &mut SqliteConnection,
) -> StoreResult<[Option<i64>; STEPS.len()]> {
    let mut newest = [None; STEPS.len()];
    for (newest, step) in newest.iter_mut().zip(STEPS) {
        *newest = sqlx::query_scalar("SELECT max(stretch_ms) FROM rollup WHERE step_s = $1")
            .bind(step.as_secs() as i64)
            .fetch_one(&mut *db)
            .await?;
    }
    Ok(newest)
}
