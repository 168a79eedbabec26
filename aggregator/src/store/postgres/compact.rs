//! Laying together the sums of stretches that are over. Read and put together beside the writer, which then changes one
//! for the other in short transactions.

use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgPool};
use tracing::warn;

use super::flush::Memory;
use super::partition::{self, sheets_of, table_of};
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
pub(super) async fn all(readers: &PgPool, writer: &Writer, now: Timestamp) -> StoreResult<u64> {
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

/// Rows whose window is over for all GPUs, by node key, stretch and GPU; and whether that is all of them.
async fn due(
    readers: &PgPool,
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
    // The names of tables are ours, here and below.
    let sql = AssertSqlSafe(format!(
        "SELECT node_id, stretch_ms, gpu_id FROM {}
         WHERE stretch_ms >= 0 AND stretch_ms < $1 ORDER BY stretch_ms LIMIT $2",
        table_of(step)
    ));
    let rows: Vec<compact::Row> = sqlx::query_as(sql)
        .bind(before.0)
        .bind(ROWS_A_ROUND)
        .fetch_all(readers)
        .await?;
    let is_all = (rows.len() as i64) < ROWS_A_ROUND;
    Ok((rows, is_all))
}

/// Sheets of some rows, and of what lies in sheets of their group already; `None` where nothing can be done.
async fn gather(
    readers: &PgPool,
    step: Duration,
    group: Group,
    rows: &[compact::Row],
) -> StoreResult<Option<Compacted>> {
    let (nodes, stretches, gpus) = columns(rows.iter());
    let mut tx = readers.begin().await?;
    let sql = AssertSqlSafe(format!(
        "SELECT node_id, stretch_ms, gpu_id, from_ms, to_ms, blob
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS due (node, start, number)
             JOIN {} ON stretch_ms = start AND gpu_id = number AND node_id = node
         WHERE stretch_ms >= $4 AND stretch_ms < $5",
        table_of(step)
    ));
    let (began, ended) = group.stretches(step);
    let loose: Vec<Loose> = sqlx::query_as(sql)
        .bind(nodes)
        .bind(stretches)
        .bind(gpus)
        .bind(began)
        .bind(ended)
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
    let sql = AssertSqlSafe(format!(
        "UPDATE {} SET has_late = 0 WHERE window_ms = $1 AND cohort = $2 AND metric = 0 AND NOT EXISTS
             (SELECT FROM {} WHERE stretch_ms >= $3 AND stretch_ms < $4 AND gpu_id BETWEEN $5 AND $6)",
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
fn columns<'a>(rows: impl Iterator<Item = &'a compact::Row>) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    let (mut nodes, mut stretches, mut gpus) = (Vec::new(), Vec::new(), Vec::new());
    for (node, stretch, gpu) in rows {
        nodes.push(*node);
        stretches.push(*stretch);
        gpus.push(*gpu);
    }
    (nodes, stretches, gpus)
}
