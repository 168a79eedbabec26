//! Chunks of one GPU, and what they come to.

use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;
use sqlx::{AssertSqlSafe, PgPool};

use super::dialect::text;
use super::partition;
use super::stretches::starts;
use crate::store::history::{self, ChunkRow, RollupRow, chunk};
use crate::store::{SealedChunk, StoreResult, StoredRollup};

/// Each possible key is looked up; partitions that have none of them are left alone, and with the node key the question
/// goes to one shard.
pub(super) async fn chunks(
    readers: &PgPool,
    gpu: GpuUuid,
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<SealedChunk>> {
    let mut tx = readers.begin().await?;
    let place: Option<(i64, i64)> = sqlx::query_as("SELECT id, node_id FROM gpu WHERE uuid = $1")
        .bind(text(gpu.as_str()))
        .fetch_optional(&mut *tx)
        .await?;
    let ends: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk)",
    )
    .fetch_one(&mut *tx)
    .await?;
    let (Some((number, node)), Some(ends)) = (place, ends.0.zip(ends.1)) else {
        return Ok(Vec::new());
    };
    let starts = starts(&mut tx, &gpu, number, ends, (from, to)).await?;
    let rows: Vec<ChunkRow> = sqlx::query_as(
        "SELECT stretch_ms, length_ms, from_ms, to_ms, n_samples, blob FROM chunk
         WHERE stretch_ms = ANY ($1) AND gpu_id = $2 AND node_id = $3 AND from_ms <= $4 AND $5 <= to_ms
         ORDER BY from_ms",
    )
    .bind(starts)
    .bind(number)
    .bind(node)
    .bind(to.0)
    .bind(from.0)
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows.into_iter().map(|row| chunk(&gpu, row)).collect())
}

/// The same with sums, and without them where there are none.
pub(super) async fn rollups(
    readers: &PgPool,
    gpu: GpuUuid,
    step: Duration,
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<StoredRollup>> {
    let table = partition::table_of(step);
    let mut tx = readers.begin().await?;
    let place: Option<(i64, i64)> = sqlx::query_as("SELECT id, node_id FROM gpu WHERE uuid = $1")
        .bind(text(gpu.as_str()))
        .fetch_optional(&mut *tx)
        .await?;
    // The name of a table is ours.
    let ends = AssertSqlSafe(format!(
        "SELECT least((SELECT min(stretch_ms) FROM chunk), (SELECT min(stretch_ms) FROM {table})),
             greatest((SELECT max(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM {table}))"
    ));
    let ends: (Option<i64>, Option<i64>) = sqlx::query_as(ends).fetch_one(&mut *tx).await?;
    let (Some((number, node)), Some(ends)) = (place, ends.0.zip(ends.1)) else {
        return Ok(Vec::new());
    };
    let starts = starts(&mut tx, &gpu, number, ends, (from, to)).await?;
    let rows = AssertSqlSafe(format!(
        "SELECT stretch_ms, from_ms, to_ms, blob FROM {table}
         WHERE stretch_ms = ANY ($1) AND gpu_id = $2 AND node_id = $3 AND from_ms <= $4 AND $5 <= to_ms
         UNION ALL
         SELECT stretch_ms, from_ms, to_ms, NULL FROM chunk
         WHERE stretch_ms = ANY ($1) AND gpu_id = $2 AND node_id = $3 AND from_ms <= $4 AND $5 <= to_ms
             AND NOT EXISTS (SELECT 1 FROM {table} AS sums WHERE sums.stretch_ms = chunk.stretch_ms
                 AND sums.gpu_id = $2 AND sums.node_id = $3)
         ORDER BY 2"
    ));
    let rows: Vec<RollupRow> = sqlx::query_as(rows)
        .bind(starts)
        .bind(number)
        .bind(node)
        .bind(to.0)
        .bind(from.0)
        .fetch_all(&mut *tx)
        .await?;
    Ok(history::rollups(rows))
}
