//! Dropping old chunks, and giving the space back.

use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::retain::delete;
use crate::store::StoreResult;

/// Chunks in one slice: a chunk is some pages.
const SLICE_CHUNKS: i64 = 64;

/// Sums in one slice: each is a part of a page.
const SLICE_ROLLUPS: i64 = 256;

/// Free pages given back to the file system in one slice.
const SLICE_PAGES: i64 = 256;

/// Drops a slice of the chunks that ended before this; answers how many, and whether there may be more.
pub(super) async fn drop_chunks(
    db: &mut SqliteConnection,
    before: Timestamp,
) -> StoreResult<(u64, bool)> {
    let sql = "DELETE FROM chunk WHERE id IN
        (SELECT id FROM chunk WHERE stretch_ms < $1 AND to_ms < $1 ORDER BY stretch_ms LIMIT $2)";
    delete(db, sql, before, SLICE_CHUNKS).await
}

/// The same for sums by a step.
pub(super) async fn drop_rollups(
    db: &mut SqliteConnection,
    step: Duration,
    before: Timestamp,
) -> StoreResult<(u64, bool)> {
    let gone = sqlx::query(
        "DELETE FROM rollup WHERE id IN (SELECT id FROM rollup
            WHERE step_s = $1 AND stretch_ms < $2 AND to_ms < $2 ORDER BY stretch_ms LIMIT $3)",
    )
    .bind(step.as_secs() as i64)
    .bind(before.0)
    .bind(SLICE_ROLLUPS)
    .execute(db)
    .await?
    .rows_affected();
    Ok((0, gone == SLICE_ROLLUPS as u64))
}

/// Shrinks the file while more than an eighth of it is free: what is free is used again soon, and moving pages costs.
pub(super) async fn give_back(db: &mut SqliteConnection) -> StoreResult<(u64, bool)> {
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
        .fetch_one(&mut *db)
        .await?;
    let all: i64 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&mut *db)
        .await?;
    if free <= all / 8 + SLICE_PAGES {
        return Ok((0, false));
    }
    sqlx::query("PRAGMA incremental_vacuum(256)")
        .execute(db)
        .await?;
    Ok((0, true))
}
