//! A new database of what is readable in a damaged one, row by row, and the names of what is not. The damaged one is left
//! as it is.

mod walk;

use std::fs;
use std::path::Path;

use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqlSafeStr};

use super::backup::{check_place, keep, partial};
use super::open::{self, migrate_up, read_options, write_options};
use super::sheets;
use crate::chunk;
use crate::rollup::sheet::{self, Sheets};
use crate::rollup::{self, STEPS};
use crate::store::{StoreError, StoreResult, journal};

/// Every table, those that others refer to first, and how it is walked through.
const TABLES: [(&str, By); 16] = [
    ("gpu", By::Number),
    ("gpu_stretch", By::Key("gpu_id, length_ms")),
    ("chunk", By::Number),
    ("rollup", By::Number),
    ("rollup_sheet_1m", By::Number),
    ("rollup_sheet_1h", By::Number),
    ("journal", By::Number),
    ("agent_stream", By::Number),
    ("stream_mark", By::Key("stream")),
    ("holder_change", By::Key("gpu_id, at_ms")),
    ("gpu_event", By::Key("at_ms, node, gpu, xid")),
    ("engine_snapshot", By::Number),
    ("incident", By::Number),
    ("incident_timeline", By::Number),
    ("cord", By::Key("rule, scope")),
    ("notice", By::Number),
];

/// What tells the rows of a table apart.
#[derive(Clone, Copy, Debug)]
enum By {
    Number,
    Key(&'static str),
}

/// What came of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    pub table: &'static str,
    pub n_kept: u64,
    /// What is not readable, in words.
    pub lost: Vec<String>,
}

/// Copies what is readable of the database at `database`, which no aggregator may have open, into the new file `out`.
pub async fn recover(database: &Path, out: &Path) -> StoreResult<Vec<Salvaged>> {
    check_place(database, out)?;
    let _lock = open::lock(database)?;
    let partial = partial(out);
    // Left by one that was killed.
    let _ = fs::remove_file(&partial);
    let salvaged = salvage(database, &partial).await.and_then(|salvaged| {
        keep(&partial, out).map_err(|error| {
            StoreError::Unavailable(format!("could not write {}: {error}", out.display()))
        })?;
        Ok(salvaged)
    });
    if salvaged.is_err() {
        // There may be nothing to remove, and the first failure is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    salvaged
}

async fn salvage(database: &Path, partial: &Path) -> StoreResult<Vec<Salvaged>> {
    let mut new = write_options(partial).foreign_keys(false).connect().await?;
    migrate_up(&mut new).await?;
    let mut old = read_options(database).connect().await?;
    open::check_ours(&mut old).await?;
    let mut all = Vec::new();
    for (table, by) in TABLES {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut new).await?;
        let mut salvaged = walk::copy(&mut old, &mut new, table, by).await?;
        drop_damaged(&mut new, &mut salvaged).await?;
        sqlx::query("COMMIT").execute(&mut new).await?;
        all.push(salvaged);
    }
    keep_unsummed(&mut new).await?;
    keep_positions(&mut new).await?;
    old.close().await?;
    new.close().await?;
    Ok(all)
}

/// Takes out what was copied and still can't be read, or belongs to nothing.
async fn drop_damaged(new: &mut SqliteConnection, salvaged: &mut Salvaged) -> StoreResult<()> {
    match salvaged.table {
        "chunk" => {
            let sql = "SELECT chunk.id, coalesce(uuid, '?'), stretch_ms, blob FROM chunk LEFT JOIN gpu ON gpu.id = gpu_id";
            let is_sound = |blob: &[u8]| chunk::decode_all(blob).is_ok();
            drop_blobs(new, salvaged, sql, is_sound).await?;
        }
        "rollup" => {
            let sql = "SELECT rollup.id, coalesce(uuid, '?'), stretch_ms, blob FROM rollup LEFT JOIN gpu ON gpu.id = gpu_id";
            // Empty: of a chunk that has none.
            let is_sound = |blob: &[u8]| blob.is_empty() || rollup::profile_of(blob).is_ok();
            drop_blobs(new, salvaged, sql, is_sound).await?;
        }
        "rollup_sheet_1m" | "rollup_sheet_1h" => {
            let sql = AssertSqlSafe(format!(
                "SELECT id, 'metric ' || metric || ' of cohort ' || cohort, window_ms, blob FROM {}",
                salvaged.table
            ));
            drop_blobs(new, salvaged, sql, |blob| sheet::check(blob).is_ok()).await?;
            drop_incomplete(new, salvaged).await?;
        }
        "journal" => {
            let sql = "SELECT position, 'row', position, entries FROM journal";
            drop_blobs(new, salvaged, sql, |row| journal::decode(row).is_ok()).await?;
        }
        _ => {}
    }
    let parent = match salvaged.table {
        "gpu_stretch" | "chunk" | "rollup" | "holder_change" => {
            "gpu_id NOT IN (SELECT id FROM gpu)"
        }
        "stream_mark" => "stream NOT IN (SELECT stream FROM agent_stream)",
        _ => return Ok(()),
    };
    let sql = format!("DELETE FROM {} WHERE {parent}", salvaged.table);
    // Names of our own alone.
    let gone = sqlx::query(AssertSqlSafe(sql)).execute(new).await?;
    if gone.rows_affected() > 0 {
        salvaged.n_kept -= gone.rows_affected();
        let n = gone.rows_affected();
        salvaged
            .lost
            .push(format!("{n} rows of something whose own row is lost"));
    }
    Ok(())
}

/// A sheet, and all that belong to its times: without one of them questions would find less than there was.
async fn drop_incomplete(new: &mut SqliteConnection, salvaged: &mut Salvaged) -> StoreResult<()> {
    let (table, step) = (salvaged.table, sheets::step_of(salvaged.table));
    // The name of the table is our own, here and below.
    let groups = AssertSqlSafe(format!("SELECT DISTINCT window_ms, cohort FROM {table}"));
    let groups: Vec<(i64, i64)> = sqlx::query_as(groups).fetch_all(&mut *new).await?;
    for (window, cohort) in groups {
        let rows = AssertSqlSafe(format!(
            "SELECT metric, CASE metric WHEN 0 THEN blob END FROM {table} WHERE window_ms = $1 AND cohort = $2"
        ));
        let rows: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(rows)
            .bind(window)
            .bind(cohort)
            .fetch_all(&mut *new)
            .await?;
        let has = |metric: &MetricId| rows.iter().any(|(of, _)| *of == i64::from(metric.0));
        let times = rows.iter().find_map(|(_, blob)| blob.as_deref());
        let times = times.and_then(|blob| Sheets::open(step, blob).ok());
        if times.is_some_and(|times| times.listed().iter().all(has)) {
            continue;
        }
        let sql = AssertSqlSafe(format!(
            "DELETE FROM {table} WHERE window_ms = $1 AND cohort = $2"
        ));
        let gone = sqlx::query(sql)
            .bind(window)
            .bind(cohort)
            .execute(&mut *new)
            .await?;
        salvaged.n_kept -= gone.rows_affected();
        let from = Timestamp(window);
        let n = gone.rows_affected();
        salvaged.lost.push(format!(
            "{n} sheets from {from} on that belong to a lost one"
        ));
    }
    // Sums may lie beside what was late, or what was lost: whoever asks looks for them.
    let sql = AssertSqlSafe(format!("UPDATE {table} SET has_late = 1 WHERE metric = 0"));
    sqlx::query(sql).execute(new).await?;
    Ok(())
}

/// Chunks whose sums are lost say so, and are read sample by sample.
async fn keep_unsummed(new: &mut SqliteConnection) -> StoreResult<()> {
    for step in STEPS {
        let sql = AssertSqlSafe(format!(
            "INSERT OR IGNORE INTO rollup (step_s, stretch_ms, gpu_id, from_ms, to_ms, blob)
             SELECT $1, stretch_ms, gpu_id, from_ms, to_ms, x'' FROM chunk
             WHERE length_ms <= $2 AND NOT EXISTS (SELECT 1 FROM {} WHERE metric = 0
                 AND window_ms = stretch_ms - stretch_ms % $3 AND cohort = gpu_id / $4)",
            sheets::table_of(step)
        ));
        sqlx::query(sql)
            .bind(step.as_secs() as i64)
            .bind(sheet::longest(step).as_millis() as i64)
            .bind(sheet::window(step).as_millis() as i64)
            .bind(sheet::GPUS)
            .execute(&mut *new)
            .await?;
    }
    Ok(())
}

/// `sql` gives a rowid, what it is of, a time or number, and the blob.
async fn drop_blobs(
    new: &mut SqliteConnection,
    salvaged: &mut Salvaged,
    sql: impl SqlSafeStr,
    is_sound: impl Fn(&[u8]) -> bool,
) -> StoreResult<()> {
    let mut bad: Vec<(i64, String)> = Vec::new();
    {
        let mut rows = sqlx::query_as::<_, (i64, String, i64, Vec<u8>)>(sql).fetch(&mut *new);
        while let Some((id, of, at, blob)) = rows.try_next().await? {
            if !is_sound(&blob) {
                let at = match salvaged.table {
                    "journal" => at.to_string(),
                    _ => format!("from {}", Timestamp(at)),
                };
                bad.push((id, format!("{of} {at}")));
            }
        }
    }
    let delete = format!("DELETE FROM {} WHERE rowid = $1", salvaged.table);
    for (id, what) in bad {
        let sql = AssertSqlSafe(delete.clone());
        sqlx::query(sql).bind(id).execute(&mut *new).await?;
        salvaged.n_kept -= 1;
        salvaged.lost.push(what);
    }
    Ok(())
}

/// New journal rows come after all that the engine's memory names, also where none is left.
async fn keep_positions(new: &mut SqliteConnection) -> StoreResult<()> {
    let newest: i64 = sqlx::query_scalar(
        "SELECT max(coalesce((SELECT max(position) FROM engine_snapshot), 0),
             coalesce((SELECT max(position) FROM journal), 0)) + 1",
    )
    .fetch_one(&mut *new)
    .await?;
    sqlx::query("INSERT INTO journal (position, entries) VALUES ($1, x'')")
        .bind(newest)
        .execute(&mut *new)
        .await?;
    sqlx::query("DELETE FROM journal WHERE position = $1")
        .bind(newest)
        .execute(new)
        .await?;
    Ok(())
}
