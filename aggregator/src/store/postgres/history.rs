//! Chunks of one GPU.

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;
use sqlx::PgPool;

use super::dialect::text;
use crate::store::history::{ChunkRow, chunk, possible_starts};
use crate::store::{SealedChunk, StoreResult};

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
    let (Some((number, node)), Some((first, last))) = (place, ends.0.zip(ends.1)) else {
        return Ok(Vec::new());
    };
    let lengths: Vec<i64> =
        sqlx::query_scalar("SELECT length_ms FROM gpu_stretch WHERE gpu_id = $1")
            .bind(number)
            .fetch_all(&mut *tx)
            .await?;
    let (first, last) = (Timestamp(first.max(from.0)), Timestamp(last.min(to.0)));
    let rows: Vec<ChunkRow> = sqlx::query_as(
        "SELECT stretch_ms, length_ms, from_ms, to_ms, n_samples, blob FROM chunk
         WHERE stretch_ms = ANY ($1) AND gpu_id = $2 AND node_id = $3 AND from_ms <= $4 AND $5 <= to_ms
         ORDER BY from_ms",
    )
    .bind(possible_starts(&gpu, lengths, first, last))
    .bind(number)
    .bind(node)
    .bind(to.0)
    .bind(from.0)
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows.into_iter().map(|row| chunk(&gpu, row)).collect())
}
