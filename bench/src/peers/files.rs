//! What lies on disk: whole folders, and what is inside a database of ours.

use std::path::Path;

use anyhow::{Context, Result};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

/// All files of a folder and of those in it, whose path from it is as wanted.
pub fn size_where(dir: &Path, wanted: impl Fn(&Path) -> bool + Copy) -> Result<u64> {
    let mut bytes = 0;
    let entries = std::fs::read_dir(dir).with_context(|| format!("no folder {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        bytes += if entry.file_type()?.is_dir() {
            size_where(&path, wanted)?
        } else if wanted(&path) {
            entry.metadata()?.len()
        } else {
            0
        };
    }
    Ok(bytes)
}

/// All files of a folder and of those in it.
pub fn size(dir: &Path) -> Result<u64> {
    size_where(dir, |_| true)
}

/// What a database of ours consists of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Database {
    /// The folder in full as it was left, with the write-ahead log.
    pub left_bytes: u64,
    /// The same once the write-ahead log is folded into the file.
    pub files_bytes: u64,
    /// Pages of summaries by minute and hour, with their index.
    pub rollup_bytes: u64,
    /// Pages of sealed chunks, with their index.
    pub chunk_bytes: u64,
    /// Pages that hold nothing now, and are used again before the file grows.
    pub free_bytes: u64,
    /// Rows that are sealed: all metrics of a GPU at an instant.
    pub sealed_rows: u64,
    /// Pages of the journal, where what is not sealed yet is.
    pub journal_bytes: u64,
}

impl Database {
    /// Everything that is there for samples as they were read.
    pub fn all_but_rollups(&self) -> u64 {
        self.files_bytes.saturating_sub(self.rollup_bytes)
    }

    /// The same without free pages, which do not grow with history.
    pub fn lasting(&self) -> u64 {
        self.all_but_rollups().saturating_sub(self.free_bytes)
    }
}

/// Looks into the database of an aggregator's data folder, which has ended, and folds its write-ahead log in.
pub fn inspect(dir: &Path) -> Result<Database> {
    let left_bytes = size(dir)?;
    let file = dir.join("entrenar.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        fold(&file).await?;
        look(&file).await
    })?;
    Ok(Database {
        left_bytes,
        files_bytes: size(dir)?,
        ..found
    })
}

/// What the last connection does that closes a database.
async fn fold(file: &Path) -> Result<()> {
    let mut db =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut db)
        .await?;
    Ok(db.close().await?)
}

async fn look(file: &Path) -> Result<Database> {
    let options = SqliteConnectOptions::new().filename(file);
    let mut db = SqliteConnection::connect_with(&options).await?;
    let pages_of = "SELECT coalesce(sum(pgsize), 0) FROM dbstat
        WHERE aggregate = 1 AND name IN (SELECT name FROM sqlite_schema WHERE tbl_name = $1)";
    let mut pages = async |table: &str| -> Result<u64> {
        let bytes: i64 = sqlx::query_scalar(pages_of)
            .bind(table)
            .fetch_one(&mut db)
            .await?;
        Ok(bytes as u64)
    };
    let mut rollup_bytes = 0;
    for table in ["rollup", "rollup_sheet_1m", "rollup_sheet_1h"] {
        rollup_bytes += pages(table).await?;
    }
    let chunk_bytes = pages("chunk").await?;
    let journal_bytes = pages("journal").await?;
    let mut count = async |sql: &'static str| -> Result<u64> {
        let n: i64 = sqlx::query_scalar(sql).fetch_one(&mut db).await?;
        Ok(n as u64)
    };
    let found = Database {
        rollup_bytes,
        chunk_bytes,
        free_bytes: count("PRAGMA freelist_count").await? * count("PRAGMA page_size").await?,
        sealed_rows: count("SELECT coalesce(sum(n_samples), 0) FROM chunk").await?,
        journal_bytes,
        ..Database::default()
    };
    db.close().await?;
    Ok(found)
}
