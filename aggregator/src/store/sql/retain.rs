//! Dropping what is older than the retention, in slices that hold the writer shortly.
//!
//! One text for all databases: compiled once as a module of each.

use entrenar::unit::Timestamp;

use super::dialect::{self, Connection};
use super::space;
use super::transaction::{begin, finish};
use crate::store::StoreResult;
use crate::store::retain::{Old, Slice};

/// GPUs whose changes are looked through in the time in which a row is dropped.
const GPUS_A_ROW: i64 = 4;

/// Drops one slice of at most so many rows.
pub(super) async fn drop_some(db: &mut Connection, old: Old, rows: i64) -> StoreResult<Slice> {
    let gone = match old {
        Old::Chunks(before, after) => return space::drop_chunks(db, before, after, rows).await,
        Old::Rollups(step, before, after) => {
            return space::drop_rollups(db, step, before, after, rows).await;
        }
        Old::Sheets(step, before) => return space::drop_sheets(db, step, before, rows).await,
        Old::Holders(before, after) => return drop_holders(db, before, after, rows).await,
        Old::Space => return space::give_back(db, rows).await,
        Old::Incidents(before) => drop_incidents(db, before, rows).await?,
        Old::Notices(before) => {
            let sql = "DELETE FROM notice WHERE delivery_id IN
                (SELECT delivery_id FROM notice WHERE created_at_ms < $1 AND state <> 'pending' LIMIT $2)";
            delete(db, sql, before, rows).await?
        }
        Old::Events(before) => {
            let sql = "DELETE FROM gpu_event WHERE (at_ms, node, gpu, xid) IN
                (SELECT at_ms, node, gpu, xid FROM gpu_event WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)";
            delete(db, sql, before, rows).await?
        }
        Old::Cords(before) => {
            let sql = "DELETE FROM cord WHERE (rule, scope) IN
                (SELECT rule, scope FROM cord AS old WHERE last_transition_at_ms < $1 AND NOT EXISTS
                    (SELECT 1 FROM incident WHERE open = 1 AND rule = old.rule AND scope = old.scope) LIMIT $2)";
            delete(db, sql, before, rows).await?
        }
    };
    Ok(Slice {
        // Events and cords are not counted.
        gone: if matches!(old, Old::Events(_) | Old::Cords(_)) {
            0
        } else {
            gone
        },
        next: (gone == rows as u64).then_some(old),
    })
}

async fn delete(
    db: &mut Connection,
    sql: &'static str,
    before: Timestamp,
    rows: i64,
) -> StoreResult<u64> {
    let gone = sqlx::query(sql)
        .bind(before.0)
        .bind(rows)
        .execute(db)
        .await?;
    Ok(gone.rows_affected())
}

/// Of some GPUs after a number. Nobody counts them.
async fn drop_holders(
    db: &mut Connection,
    before: Timestamp,
    after: i64,
    rows: i64,
) -> StoreResult<Slice> {
    let n_gpus = rows * GPUS_A_ROW;
    let last: Option<i64> =
        sqlx::query_scalar("SELECT id FROM gpu WHERE id > $1 ORDER BY id LIMIT 1 OFFSET $2")
            .bind(after)
            .bind(n_gpus - 1)
            .fetch_optional(&mut *db)
            .await?;
    sqlx::query(dialect::DROP_HOLDERS)
        .bind(before.0)
        .bind(after)
        .bind(last.unwrap_or(i64::MAX))
        .execute(db)
        .await?;
    Ok(Slice {
        gone: 0,
        next: last.map(|last| Old::Holders(before, last)),
    })
}

async fn drop_incidents(db: &mut Connection, before: Timestamp, rows: i64) -> StoreResult<u64> {
    begin(db).await?;
    let done = drop_with_lines(db, before, rows).await;
    finish(db, done).await
}

async fn drop_with_lines(tx: &mut Connection, before: Timestamp, rows: i64) -> StoreResult<u64> {
    // Both statements choose the same incidents: nothing else writes in between.
    let lines = "DELETE FROM incident_timeline WHERE incident_id IN (SELECT id FROM incident
        WHERE open = 0 AND last_transition_at_ms < $1 ORDER BY last_transition_at_ms, id LIMIT $2)";
    delete(tx, lines, before, rows).await?;
    let incidents = "DELETE FROM incident WHERE id IN (SELECT id FROM incident
        WHERE open = 0 AND last_transition_at_ms < $1 ORDER BY last_transition_at_ms, id LIMIT $2)";
    delete(tx, incidents, before, rows).await
}
