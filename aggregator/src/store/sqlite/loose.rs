//! Sums that lie alone, all metrics of a stretch in a row, and their way into sheets.

use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

use super::sheets;
use super::transaction::{begin, finish};
use crate::store::StoreResult;
use crate::store::compact::{
    Change, Group, Loose, NewSheets, OldRow, ROWS_A_ROUND, Row, TELLING_BYTES,
};

/// Rows of stretches that began before this, by their own numbers: the first of them, from the index alone.
pub(super) async fn before(
    readers: &SqlitePool,
    step: Duration,
    before: Timestamp,
) -> StoreResult<Vec<Row>> {
    let rows = sqlx::query_as(
        "SELECT id, stretch_ms, gpu_id FROM rollup
         WHERE step_s = $1 AND stretch_ms >= 0 AND stretch_ms < $2 ORDER BY stretch_ms LIMIT $3",
    )
    .bind(step.as_secs() as i64)
    .bind(before.0)
    .bind(ROWS_A_ROUND)
    .fetch_all(readers)
    .await?;
    Ok(rows)
}

/// These rows with their sums.
pub(super) async fn read(
    tx: &mut SqliteConnection,
    _: Duration,
    _: Group,
    rows: &[Row],
) -> StoreResult<Vec<Loose>> {
    let ids: Vec<i64> = rows.iter().map(|(id, ..)| *id).collect();
    let loose = sqlx::query_as(
        "SELECT rollup.id, stretch_ms, gpu_id, from_ms, to_ms, blob
             FROM json_each($1) CROSS JOIN rollup ON rollup.id = value",
    )
    .bind(serde_json::json!(ids).to_string())
    .fetch_all(tx)
    .await?;
    Ok(loose)
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
