//! Chunks of one GPU, and what they come to.

use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;
use sqlx::SqlitePool;

use super::stretches::starts;
use crate::store::history::{self, ChunkRow, RollupRow, chunk};
use crate::store::{SealedChunk, StoreResult, StoredRollup};

/// Each possible key is looked up.
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
    let (Some(number), Some(ends)) = (number, ends.0.zip(ends.1)) else {
        return Ok(Vec::new());
    };
    let starts = starts(&mut tx, &gpu, number, ends, (from, to)).await?;
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
    Ok(rows.into_iter().map(|row| chunk(&gpu, row)).collect())
}

/// The same with sums, and without them where there are none.
pub(super) async fn rollups(
    readers: &SqlitePool,
    gpu: GpuUuid,
    step: Duration,
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<StoredRollup>> {
    let mut tx = readers.begin().await?;
    let number: Option<i64> = sqlx::query_scalar("SELECT id FROM gpu WHERE uuid = $1")
        .bind(gpu.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let step_s = step.as_secs() as i64;
    // One end a question: SQLite looks up the first or the last key for it, and walks over all of them for two at once.
    let ends: [Option<i64>; 4] = sqlx::query_as(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk),
            (SELECT min(stretch_ms) FROM rollup WHERE step_s = $1),
            (SELECT max(stretch_ms) FROM rollup WHERE step_s = $1)",
    )
    .bind(step_s)
    .fetch_one(&mut *tx)
    .await
    .map(|(a, b, c, d)| [a, b, c, d])?;
    let ends = || ends.into_iter().flatten();
    let (Some(number), Some(ends)) = (number, ends().min().zip(ends().max())) else {
        return Ok(Vec::new());
    };
    let starts = starts(&mut tx, &gpu, number, ends, (from, to)).await?;
    let rows: Vec<RollupRow> = sqlx::query_as(
        "WITH start AS MATERIALIZED (SELECT value FROM json_each($1))
         SELECT stretch_ms, from_ms, to_ms, blob FROM start
             CROSS JOIN rollup ON step_s = $5 AND stretch_ms = start.value AND gpu_id = $2
             WHERE from_ms <= $3 AND $4 <= to_ms
         UNION ALL
         SELECT stretch_ms, from_ms, to_ms, NULL FROM start
             CROSS JOIN chunk ON stretch_ms = start.value AND gpu_id = $2
             WHERE from_ms <= $3 AND $4 <= to_ms AND NOT EXISTS
                 (SELECT 1 FROM rollup WHERE step_s = $5 AND stretch_ms = start.value AND gpu_id = $2)
         ORDER BY 2",
    )
    .bind(serde_json::Value::from(starts).to_string())
    .bind(number)
    .bind(to.0)
    .bind(from.0)
    .bind(step_s)
    .fetch_all(&mut *tx)
    .await?;
    Ok(history::rollups(rows))
}
