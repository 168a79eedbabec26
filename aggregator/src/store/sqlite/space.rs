//! Dropping old chunks, and giving the space back.

use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::sheets;
use crate::store::StoreResult;
use crate::store::retain::{Old, Place, Slice};

/// Rows that are looked at in one slice, whether they go or not: a stretch that began before a time may end after it, and
/// there is one of each GPU.
const LOOK_ROWS: i64 = 512;

/// Pages that are moved in the time in which a row is dropped.
const PAGES_A_ROW: i64 = 4;

/// Free pages that are always kept.
const PAGES_KEPT: i64 = 16;

/// A stretch that began before a time: rowid, place, and last sample.
type Found = (i64, i64, i64, i64);

/// Drops a slice of the chunks that ended before this, beginning after a place.
pub(super) async fn drop_chunks(
    db: &mut SqliteConnection,
    before: Timestamp,
    after: Place,
    rows: i64,
) -> StoreResult<Slice> {
    let found: Vec<Found> = sqlx::query_as(
        "SELECT id, stretch_ms, gpu_id, to_ms FROM chunk
         WHERE (stretch_ms, gpu_id) > ($1, $2) AND stretch_ms < $3 ORDER BY stretch_ms, gpu_id LIMIT $4",
    )
    .bind(after.0)
    .bind(after.1)
    .bind(before.0)
    .bind(LOOK_ROWS)
    .fetch_all(&mut *db)
    .await?;
    let (ids, next) = over(&found, before, rows);
    let gone = delete(
        db,
        "DELETE FROM chunk WHERE id IN (SELECT value FROM json_each($1))",
        ids,
    );
    Ok(Slice {
        gone: gone.await?,
        next: next.map(|place| Old::Chunks(before, place)),
    })
}

/// The same for sums by a step, which nobody counts.
pub(super) async fn drop_rollups(
    db: &mut SqliteConnection,
    step: Duration,
    before: Timestamp,
    after: Place,
    rows: i64,
) -> StoreResult<Slice> {
    let found: Vec<Found> = sqlx::query_as(
        "SELECT id, stretch_ms, gpu_id, to_ms FROM rollup
         WHERE step_s = $1 AND (stretch_ms, gpu_id) > ($2, $3) AND stretch_ms < $4
         ORDER BY stretch_ms, gpu_id LIMIT $5",
    )
    .bind(step.as_secs() as i64)
    .bind(after.0)
    .bind(after.1)
    .bind(before.0)
    .bind(LOOK_ROWS)
    .fetch_all(&mut *db)
    .await?;
    let (ids, next) = over(&found, before, rows);
    let sql = "DELETE FROM rollup WHERE id IN (SELECT value FROM json_each($1))";
    delete(db, sql, ids).await?;
    Ok(Slice {
        gone: 0,
        next: next.map(|place| Old::Rollups(step, before, place)),
    })
}

/// The same for sheets, all of whose stretches began before.
pub(super) async fn drop_sheets(
    db: &mut SqliteConnection,
    step: Duration,
    before: Timestamp,
    rows: i64,
) -> StoreResult<Slice> {
    let table = sheets::table_of(step);
    // The name of the table is ours.
    let sql = sqlx::AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE id IN
             (SELECT id FROM {table} WHERE window_ms < $1 ORDER BY window_ms LIMIT $2)"
    ));
    let gone = sqlx::query(sql)
        .bind(before.0)
        .bind(rows)
        .execute(db)
        .await?;
    let is_full = gone.rows_affected() == rows as u64;
    Ok(Slice {
        gone: 0,
        next: is_full.then_some(Old::Sheets(step, before)),
    })
}

/// Of what was found at most so many that are over, and where to look on.
fn over(found: &[Found], before: Timestamp, rows: i64) -> (Vec<i64>, Option<Place>) {
    let mut ids = Vec::new();
    for (id, stretch, gpu, to) in found {
        if *to < before.0 {
            ids.push(*id);
        }
        if ids.len() as i64 == rows {
            return (ids, Some((*stretch, *gpu)));
        }
    }
    let is_full = found.len() as i64 == LOOK_ROWS;
    let last = found.last().filter(|_| is_full);
    (ids, last.map(|(_, stretch, gpu, _)| (*stretch, *gpu)))
}

async fn delete(db: &mut SqliteConnection, sql: &'static str, ids: Vec<i64>) -> StoreResult<u64> {
    if ids.is_empty() {
        return Ok(0);
    }
    let ids = serde_json::Value::from(ids).to_string();
    let gone = sqlx::query(sql).bind(ids).execute(db).await?;
    Ok(gone.rows_affected())
}

/// Shrinks the file while more than an eighth of it is free: what is free is used again soon, and moving pages costs.
pub(super) async fn give_back(db: &mut SqliteConnection, rows: i64) -> StoreResult<Slice> {
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
        .fetch_one(&mut *db)
        .await?;
    let all: i64 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&mut *db)
        .await?;
    let enough = free <= all / 8 + PAGES_KEPT;
    if !enough {
        // A number of ours.
        let sql = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({})", rows * PAGES_A_ROW));
        sqlx::query(sql).execute(db).await?;
    }
    Ok(Slice {
        gone: 0,
        next: (!enough).then_some(Old::Space),
    })
}
