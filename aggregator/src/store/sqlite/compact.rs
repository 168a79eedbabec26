//! Laying together the sums of stretches that are over. Read and put together beside the writer, which then changes one
//! for the other in short transactions.

use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};
use tracing::warn;

use super::sheets;
use super::transaction::{begin, finish};
use crate::rollup::STEPS;
use crate::rollup::sheet;
use crate::store::StoreResult;
use crate::store::compact::{
    self, ALWAYS, Change, Compacted, Group, Loose, NewSheets, OldRow, ROWS_A_ROUND, TELLING_BYTES,
    all_sheets, put_together,
};
use crate::store::sums::Found;
use crate::store::writer::Writer;

/// Everything that is due; answers how many rows went.
pub(super) async fn all(readers: &SqlitePool, writer: &Writer, now: Timestamp) -> StoreResult<u64> {
    let mut gone = 0;
    for step in STEPS {
        let (rows, is_all) = due(readers, step, now).await?;
        for (group, rows) in compact::groups(step, rows, is_all) {
            if let Some(compacted) = gather(readers, step, group, &rows).await? {
                gone += writer.compact(compacted).await?;
            }
        }
    }
    Ok(gone)
}

/// Rows whose window is over for all GPUs, and whether that is all of them.
async fn due(
    readers: &SqlitePool,
    step: Duration,
    now: Timestamp,
) -> StoreResult<(Vec<compact::Row>, bool)> {
    let most = sheet::longest(step);
    let longest: Option<i64> =
        sqlx::query_scalar("SELECT max(length_ms) FROM gpu_stretch WHERE length_ms <= $1")
            .bind(most.as_millis() as i64)
            .fetch_one(readers)
            .await?;
    let longest = longest.map_or(most, |ms| Duration::from_millis(ms as u64));
    let before = compact::due_before(step, longest, now);
    // Answered from the index alone.
    let rows: Vec<compact::Row> = sqlx::query_as(
        "SELECT id, stretch_ms, gpu_id FROM rollup
         WHERE step_s = $1 AND stretch_ms >= 0 AND stretch_ms < $2 ORDER BY stretch_ms LIMIT $3",
    )
    .bind(step.as_secs() as i64)
    .bind(before.0)
    .bind(ROWS_A_ROUND)
    .fetch_all(readers)
    .await?;
    let is_all = (rows.len() as i64) < ROWS_A_ROUND;
    Ok((rows, is_all))
}

/// Sheets of some rows, and of what lies in sheets of their group already; `None` where nothing can be done.
async fn gather(
    readers: &SqlitePool,
    step: Duration,
    group: Group,
    rows: &[compact::Row],
) -> StoreResult<Option<Compacted>> {
    let ids: Vec<i64> = rows.iter().map(|(id, ..)| *id).collect();
    let mut tx = readers.begin().await?;
    let loose: Vec<Loose> = sqlx::query_as(
        "SELECT rollup.id, stretch_ms, gpu_id, from_ms, to_ms, blob
             FROM json_each($1) CROSS JOIN rollup ON rollup.id = value",
    )
    .bind(serde_json::json!(ids).to_string())
    .fetch_all(&mut *tx)
    .await?;
    let there = sheets::read(&mut tx, step, &[group].into(), &all_sheets(), ALWAYS).await;
    let old = there.map(|there| there.into_values().find_map(Found::into_sheets));
    let done = old.and_then(|old| Ok(put_together(step, group, loose, old.as_deref())?));
    // What is damaged stays as it is, for whoever asks for it to be told.
    Ok(done.unwrap_or_else(|error| {
        warn!(%error, window = %group.window, "could not lay sums together");
        None
    }))
}

/// One step from rows to sheets, in a transaction of its own; answers how many rows went.
pub(super) async fn change(db: &mut SqliteConnection, change: Change) -> StoreResult<u64> {
    begin(db).await?;
    let done = match change {
        Change::Put(sheets) => put(db, sheets).await,
        Change::Drop(_, _, rows) => drop_rows(db, rows).await,
        Change::Settle(step, group) => settle(db, step, group).await,
    };
    finish(db, done).await
}

async fn put(tx: &mut SqliteConnection, new: NewSheets) -> StoreResult<u64> {
    let (table, group) = (sheets::table_of(new.step), new.group);
    // The name of the table is ours, here and below.
    let drop_old = AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE window_ms = $1 AND cohort = $2"
    ));
    sqlx::query(drop_old)
        .bind(group.window.0)
        .bind(group.cohort)
        .execute(&mut *tx)
        .await?;
    let insert = format!(
        "INSERT INTO {table} (window_ms, cohort, metric, from_ms, to_ms, has_late, blob)
         VALUES ($1, $2, $3, $4, $5, 1, $6)"
    );
    for (metric, blob) in new.sheets {
        sqlx::query(AssertSqlSafe(insert.clone()))
            .bind(group.window.0)
            .bind(group.cohort)
            .bind(metric.0)
            .bind(new.from.0)
            .bind(new.to.0)
            .bind(blob)
            .execute(&mut *tx)
            .await?;
    }
    Ok(0)
}

async fn drop_rows(tx: &mut SqliteConnection, rows: Vec<OldRow>) -> StoreResult<u64> {
    let mut gone = 0;
    for ((id, ..), telling) in rows {
        let deleted = sqlx::query("DELETE FROM rollup WHERE id = $1 AND substr(blob, 1, $2) = $3")
            .bind(id)
            .bind(TELLING_BYTES as i64)
            .bind(telling)
            .execute(&mut *tx)
            .await?;
        gone += deleted.rows_affected();
    }
    Ok(gone)
}

async fn settle(tx: &mut SqliteConnection, step: Duration, group: Group) -> StoreResult<u64> {
    let (began, ended) = group.stretches(step);
    let (first, last) = group.gpus();
    let sql = AssertSqlSafe(format!(
        "UPDATE {} SET has_late = 0 WHERE window_ms = $1 AND cohort = $2 AND metric = 0 AND NOT EXISTS
             (SELECT 1 FROM rollup WHERE step_s = $3 AND stretch_ms >= $4 AND stretch_ms < $5 AND gpu_id BETWEEN $6 AND $7)",
        sheets::table_of(step)
    ));
    sqlx::query(sql)
        .bind(group.window.0)
        .bind(group.cohort)
        .bind(step.as_secs() as i64)
        .bind(began)
        .bind(ended)
        .bind(first)
        .bind(last)
        .execute(tx)
        .await?;
    Ok(0)
}
