//! A new database of what is readable in a damaged one, row by row, and the names of what is not. The damaged one is left
//! as it is.

mod walk;

use std::fs;
use std::path::Path;

use entrenar::unit::Timestamp;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Connection as _};

use super::backup::{check_place, keep, partial};
use super::open::{self, migrate_up, read_options, write_options};
use crate::store::{StoreError, StoreResult, journal};
use crate::{chunk, rollup};

/// Every table, those that others refer to first, and how it is walked through.
const TABLES: [(&str, By); 13] = [
    ("gpu", By::Number),
    ("gpu_stretch", By::Key("gpu_id, length_ms")),
    ("chunk", By::Number),
    ("rollup", By::Number),
    ("journal", By::Number),
    ("agent_stream", By::Number),
    ("stream_mark", By::Key("stream")),
    ("holder_change", By::Key("gpu_id, at_ms")),
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
            drop_blobs(new, salvaged, sql, |blob| rollup::profile_of(blob).is_ok()).await?;
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
    let gone = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(new).await?;
    if gone.rows_affected() > 0 {
        salvaged.n_kept -= gone.rows_affected();
        let n = gone.rows_affected();
        salvaged
            .lost
            .push(format!("{n} rows of something whose own row is lost"));
    }
    Ok(())
}

/// `sql` gives a rowid, what it is of, a time or number, and the blob.
async fn drop_blobs(
    new: &mut SqliteConnection,
    salvaged: &mut Salvaged,
    sql: &'static str,
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
        let sql = sqlx::AssertSqlSafe(delete.clone());
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
