//! Sums that lie alone, all metrics of a stretch in a row, and their way into sheets.

use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgPool};

use super::flush::Memory;
use super::partition::{self, sheets_of, table_of};
use super::transaction::{begin, finish};
use crate::store::StoreResult;
use crate::store::compact::{
    Change, Group, Loose, NewSheets, OldRow, ROWS_A_ROUND, Row, TELLING_BYTES,
};

/// Rows of stretches that began before this, by their node keys: the first of them.
pub(super) async fn before(
    readers: &PgPool,
    step: Duration,
    before: Timestamp,
) -> StoreResult<Vec<Row>> {
    // The names of tables are ours, here and below.
    let sql = AssertSqlSafe(format!(
        "SELECT node_id, stretch_ms, gpu_id FROM {}
         WHERE stretch_ms >= 0 AND stretch_ms < $1 ORDER BY stretch_ms LIMIT $2",
        table_of(step)
    ));
    let rows = sqlx::query_as(sql)
        .bind(before.0)
        .bind(ROWS_A_ROUND)
        .fetch_all(readers)
        .await?;
    Ok(rows)
}

/// These rows of a group with their sums.
pub(super) async fn read(
    tx: &mut PgConnection,
    step: Duration,
    group: Group,
    rows: &[Row],
) -> StoreResult<Vec<Loose>> {
    let (nodes, stretches, gpus) = columns(rows.iter());
    let sql = AssertSqlSafe(format!(
        "SELECT node_id, stretch_ms, gpu_id, from_ms, to_ms, blob
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS due (node, start, number)
             JOIN {} ON stretch_ms = start AND gpu_id = number AND node_id = node
         WHERE stretch_ms >= $4 AND stretch_ms < $5",
        table_of(step)
    ));
    let (began, ended) = group.stretches(step);
    let loose = sqlx::query_as(sql)
        .bind(nodes)
        .bind(stretches)
        .bind(gpus)
        .bind(began)
        .bind(ended)
        .fetch_all(tx)
        .await?;
    Ok(loose)
}

/// One step from rows to sheets, in a transaction of its own; answers how many rows went.
pub(super) async fn change(
    db: &mut PgConnection,
    memory: &mut Memory,
    change: Change,
) -> StoreResult<u64> {
    if let Change::Put(new) = &change {
        let table = sheets_of(new.step);
        partition::make(db, &mut memory.parts, table, [new.group.window]).await?;
    }
    begin(db).await?;
    let done = match change {
        Change::Put(sheets) => put(db, sheets).await,
        Change::Drop(step, group, rows) => drop_rows(db, step, group, &rows).await,
        Change::Settle(step, group) => settle(db, step, group).await,
    };
    finish(db, done).await
}

async fn put(tx: &mut PgConnection, new: NewSheets) -> StoreResult<u64> {
    let (table, group) = (sheets_of(new.step).name(), new.group);
    let drop_old = AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE window_ms = $1 AND cohort = $2"
    ));
    sqlx::query(drop_old)
        .bind(group.window.0)
        .bind(group.cohort)
        .execute(&mut *tx)
        .await?;
    let insert = AssertSqlSafe(format!(
        "INSERT INTO {table} (window_ms, cohort, metric, from_ms, to_ms, has_late, blob)
         SELECT $1, $2, metric, $3, $4, 1, blob FROM unnest($5::bigint[], $6::bytea[]) AS new (metric, blob)"
    ));
    let metrics = new.sheets.iter().map(|(metric, _)| i64::from(metric.0));
    let blobs = new.sheets.iter().map(|(_, blob)| blob.as_slice());
    sqlx::query(insert)
        .bind(group.window.0)
        .bind(group.cohort)
        .bind(new.from.0)
        .bind(new.to.0)
        .bind(metrics.collect::<Vec<_>>())
        .bind(blobs.collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(0)
}

async fn drop_rows(
    tx: &mut PgConnection,
    step: Duration,
    group: Group,
    rows: &[OldRow],
) -> StoreResult<u64> {
    let (began, ended) = group.stretches(step);
    let (nodes, stretches, gpus) = columns(rows.iter().map(|(row, _)| row));
    let telling: Vec<&[u8]> = rows.iter().map(|(_, telling)| telling.as_slice()).collect();
    let sql = AssertSqlSafe(format!(
        "DELETE FROM {} USING unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[])
             AS old (node, start, number, telling)
         WHERE stretch_ms = start AND gpu_id = number AND node_id = node
             AND stretch_ms >= $5 AND stretch_ms < $6 AND substring(blob FROM 1 FOR $7) = telling",
        table_of(step)
    ));
    let gone = sqlx::query(sql)
        .bind(nodes)
        .bind(stretches)
        .bind(gpus)
        .bind(telling)
        .bind(began)
        .bind(ended)
        .bind(TELLING_BYTES as i32)
        .execute(tx)
        .await?;
    Ok(gone.rows_affected())
}

async fn settle(tx: &mut PgConnection, step: Duration, group: Group) -> StoreResult<u64> {
    let (began, ended) = group.stretches(step);
    let (first, last) = group.gpus();
    // With a column, which plain Postgres needs not: Citus carries what it finds from one shard to another.
    let sql = AssertSqlSafe(format!(
        "UPDATE {} SET has_late = 0 WHERE window_ms = $1 AND cohort = $2 AND metric = 0 AND NOT EXISTS
             (SELECT 1 FROM {} WHERE stretch_ms >= $3 AND stretch_ms < $4 AND gpu_id BETWEEN $5 AND $6)",
        sheets_of(step).name(),
        table_of(step)
    ));
    sqlx::query(sql)
        .bind(group.window.0)
        .bind(group.cohort)
        .bind(began)
        .bind(ended)
        .bind(first)
        .bind(last)
        .execute(tx)
        .await?;
    Ok(0)
}

/// Node keys, stretches and GPUs.
fn columns<'a>(rows: impl Iterator<Item = &'a Row>) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    let (mut nodes, mut stretches, mut gpus) = (Vec::new(), Vec::new(), Vec::new());
    for (node, stretch, gpu) in rows {
        nodes.push(*node);
        stretches.push(*stretch);
        gpus.push(*gpu);
    }
    (nodes, stretches, gpus)
}
