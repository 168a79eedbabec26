//! Dropping what is older than the retention, in slices that hold the writer shortly.
//!
//! One text for all databases: compiled once as a module of each.

use entrenar::unit::Timestamp;

use super::dialect::{self, Connection};
use super::space;
use super::transaction::{begin, finish};
use crate::store::StoreResult;
use crate::store::retain::Old;

/// Incidents, or small rows, in one slice: an incident has several lines.
const SLICE_INCIDENTS: i64 = 64;
const SLICE_ROWS: i64 = 500;

/// Drops one slice. Answers how many chunks, incidents or notices went, and whether there may be more.
pub(super) async fn drop_some(db: &mut Connection, old: Old) -> StoreResult<(u64, bool)> {
    match old {
        Old::Chunks(before) => space::drop_chunks(db, before).await,
        Old::Rollups(step, before) => space::drop_rollups(db, step, before).await,
        Old::Incidents(before) => drop_incidents(db, before).await,
        Old::Notices(before) => {
            let sql = "DELETE FROM notice WHERE delivery_id IN
                (SELECT delivery_id FROM notice WHERE created_at_ms < $1 AND state <> 'pending' LIMIT $2)";
            delete(db, sql, before, SLICE_ROWS).await
        }
        Old::Holders(before) => delete(db, dialect::DROP_HOLDERS, before, SLICE_ROWS)
            .await
            .map(uncounted),
        Old::Cords(before) => {
            let sql = "DELETE FROM cord WHERE (rule, scope) IN
                (SELECT rule, scope FROM cord AS old WHERE last_transition_at_ms < $1 AND NOT EXISTS
                    (SELECT 1 FROM incident WHERE open = 1 AND rule = old.rule AND scope = old.scope) LIMIT $2)";
            delete(db, sql, before, SLICE_ROWS).await.map(uncounted)
        }
        Old::Space => space::give_back(db).await,
    }
}

pub(super) async fn delete(
    db: &mut Connection,
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

async fn drop_incidents(db: &mut Connection, before: Timestamp) -> StoreResult<(u64, bool)> {
    begin(db).await?;
    let done = drop_with_lines(db, before).await;
    finish(db, done).await
}

async fn drop_with_lines(tx: &mut Connection, before: Timestamp) -> StoreResult<(u64, bool)> {
    // Both statements choose the same incidents: nothing else writes in between.
    let lines = "DELETE FROM incident_timeline WHERE incident_id IN
        (SELECT id FROM incident WHERE open = 0 AND last_transition_at_ms < $1 ORDER BY id LIMIT $2)";
    delete(tx, lines, before, SLICE_INCIDENTS).await?;
    let incidents = "DELETE FROM incident WHERE id IN
        (SELECT id FROM incident WHERE open = 0 AND last_transition_at_ms < $1 ORDER BY id LIMIT $2)";
    delete(tx, incidents, before, SLICE_INCIDENTS).await
}
