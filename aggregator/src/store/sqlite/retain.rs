//! Dropping what is older than the retention, in slices that hold the writer shortly, and giving the space back.

use entrenar::unit::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::writer::{begin, finish};
use crate::store::StoreResult;

/// Chunks, or small rows, in one slice: a chunk is some pages, a row is a part of one.
const SLICE_CHUNKS: i64 = 64;
const SLICE_ROWS: i64 = 500;

/// Free pages given back to the file system in one slice.
const SLICE_PAGES: i64 = 256;

/// One kind of what grows old. Everything but `FreePages` is older than a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Old {
    Chunks(Timestamp),
    Incidents(Timestamp),
    Notices(Timestamp),
    Holders(Timestamp),
    Cords(Timestamp),
    FreePages,
}

impl Old {
    pub(super) fn all(chunks_before: Timestamp, incidents_before: Timestamp) -> [Self; 6] {
        [
            Self::Chunks(chunks_before),
            Self::Incidents(incidents_before),
            Self::Notices(incidents_before),
            Self::Holders(chunks_before),
            Self::Cords(incidents_before),
            Self::FreePages,
        ]
    }
}

/// Drops one slice. Answers how many chunks, incidents or notices went, and whether there may be more.
pub(super) async fn drop_some(db: &mut SqliteConnection, old: Old) -> StoreResult<(u64, bool)> {
    match old {
        Old::Chunks(before) => {
            let sql = "DELETE FROM chunk WHERE id IN
                (SELECT id FROM chunk WHERE stretch_ms < $1 AND to_ms < $1 ORDER BY stretch_ms LIMIT $2)";
            delete(db, sql, before, SLICE_CHUNKS).await
        }
        Old::Incidents(before) => drop_incidents(db, before).await,
        Old::Notices(before) => {
            let sql = "DELETE FROM notice WHERE delivery_id IN
                (SELECT delivery_id FROM notice WHERE created_at_ms < $1 AND state <> 'pending' LIMIT $2)";
            delete(db, sql, before, SLICE_ROWS).await
        }
        Old::Holders(before) => {
            // The newest change of a GPU still says who holds it.
            let sql = "DELETE FROM holder_change WHERE (gpu_id, at_ms) IN
                (SELECT gpu_id, at_ms FROM holder_change AS old WHERE at_ms < $1 AND EXISTS
                    (SELECT 1 FROM holder_change WHERE gpu_id = old.gpu_id AND at_ms > old.at_ms) LIMIT $2)";
            delete(db, sql, before, SLICE_ROWS).await.map(uncounted)
        }
        Old::Cords(before) => {
            let sql = "DELETE FROM cord WHERE (rule, scope) IN
                (SELECT rule, scope FROM cord AS old WHERE last_transition_at_ms < $1 AND NOT EXISTS
                    (SELECT 1 FROM incident WHERE open = 1 AND rule = old.rule AND scope = old.scope) LIMIT $2)";
            delete(db, sql, before, SLICE_ROWS).await.map(uncounted)
        }
        Old::FreePages => give_back(db).await,
    }
}

async fn delete(
    db: &mut SqliteConnection,
    sql: &'static str,
    before: Timestamp,
    limit: i64,
) -> StoreResult<(u64, bool)> {
    let gone = sqlx::query(sql)
        .bind(before.0)
        .bind(limit)
        .execute(db)
        .await?
        .rows_affected();
    Ok((gone, gone == limit as u64))
}

/// Rows that nobody counts.
fn uncounted((_, more): (u64, bool)) -> (u64, bool) {
    (0, more)
}

async fn drop_incidents(db: &mut SqliteConnection, before: Timestamp) -> StoreResult<(u64, bool)> {
    begin(db).await?;
    let done = drop_with_lines(db, before).await;
    finish(db, done).await
}

async fn drop_with_lines(tx: &mut SqliteConnection, before: Timestamp) -> StoreResult<(u64, bool)> {
    // Both statements choose the same incidents: nothing else writes in between.
    let lines = "DELETE FROM incident_timeline WHERE incident_id IN
        (SELECT id FROM incident WHERE open = 0 AND last_transition_at_ms < $1 ORDER BY id LIMIT $2)";
    delete(tx, lines, before, SLICE_CHUNKS).await?;
    let incidents = "DELETE FROM incident WHERE id IN
        (SELECT id FROM incident WHERE open = 0 AND last_transition_at_ms < $1 ORDER BY id LIMIT $2)";
    delete(tx, incidents, before, SLICE_CHUNKS).await
}

/// Shrinks the file while more than an eighth of it is free: what is free is used again soon, and moving pages costs.
async fn give_back(db: &mut SqliteConnection) -> StoreResult<(u64, bool)> {
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
