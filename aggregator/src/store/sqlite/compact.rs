//! Laying together the sums of stretches that are over. Read and put together beside the writer, which then changes one
//! for the other in a transaction of its own.

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
    self, ALWAYS, Compacted, Group, Loose, ROWS_A_ROUND, TELLING_BYTES, all_sheets, put_together,
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

/// Changes rows for sheets, in one transaction; answers how many rows went.
pub(super) async fn keep(db: &mut SqliteConnection, compacted: Compacted) -> StoreResult<u64> {
    begin(db).await?;
    let done = change(db, compacted).await;
    finish(db, done).await
}

async fn change(tx: &mut SqliteConnection, compacted: Compacted) -> StoreResult<u64> {
    let Compacted { step, group, .. } = compacted;
    let table = sheets::table_of(step);
    // The name of the table is ours, here and below.
    let drop_old = AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE window_ms = $1 AND cohort = $2"
    ));
    sqlx::query(drop_old)
        .bind(group.window.0)
        .bind(group.cohort)
        .execute(&mut *tx)
        .await?;
    let mut gone = 0;
    for ((id, ..), telling) in compacted.rows {
        let deleted = sqlx::query("DELETE FROM rollup WHERE id = $1 AND substr(blob, 1, $2) = $3")
            .bind(id)
            .bind(TELLING_BYTES as i64)
            .bind(telling)
            .execute(&mut *tx)
            .await?;
        gone += deleted.rows_affected();
    }
    let (began, ended) = group.stretches(step);
    let (first, last) = group.gpus();
    let has_late: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM rollup WHERE step_s = $1 AND stretch_ms >= $2 AND stretch_ms < $3
             AND gpu_id BETWEEN $4 AND $5)",
    )
    .bind(step.as_secs() as i64)
    .bind(began)
    .bind(ended)
    .bind(first)
    .bind(last)
    .fetch_one(&mut *tx)
    .await?;
    let insert = format!(
        "INSERT INTO {table} (window_ms, cohort, metric, from_ms, to_ms, has_late, blob)
         VALUES ($1, $2, $3, $4, $5, $6, $7)"
    );
    for (metric, blob) in compacted.sheets {
        sqlx::query(AssertSqlSafe(insert.clone()))
            .bind(group.window.0)
            .bind(group.cohort)
            .bind(metric.0)
            .bind(compacted.from.0)
            .bind(compacted.to.0)
            .bind(has_late)
            .bind(blob)
            .execute(&mut *tx)
            .await?;
    }
    Ok(gone)
}
