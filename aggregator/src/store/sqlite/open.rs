//! Opening: the lock, the checks, the schema, the connections.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};

use super::folding::WRITER_FOLDS_PAGES;
use crate::store::migrate::migrate;
use crate::store::{StoreError, StoreResult};

/// What stands in `application_id` of our files: "entr".
const APPLICATION_ID: i64 = 0x656e_7472;

/// Connections for reading. A question beyond them waits; the writer is never kept by readers.
const READERS: u32 = 4;

/// How long a reader waits for a connection before it is told that the database is busy.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long SQLite waits for a lock that another process holds, such as a backup's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Embedded, oldest first. To add one: a file with the next number, and a line here.
const MIGRATIONS: [(&str, &str); 5] = [
    (
        "line",
        include_str!("../../../../migrations/sqlite/0001_line.sql"),
    ),
    (
        "rollup",
        include_str!("../../../../migrations/sqlite/0002_rollup.sql"),
    ),
    (
        "settled",
        include_str!("../../../../migrations/sqlite/0003_settled.sql"),
    ),
    (
        "sheet",
        include_str!("../../../../migrations/sqlite/0004_sheet.sql"),
    ),
    (
        "event",
        include_str!("../../../../migrations/sqlite/0005_event.sql"),
    ),
];

/// Tables that are checked page by page at a start. Not `chunk` and `journal`, which are the bulk and carry their own
/// checksums, so that a start does not read the whole history.
const CHECKED: [&str; 6] = [
    "PRAGMA quick_check('agent_stream')",
    "PRAGMA quick_check('stream_mark')",
    "PRAGMA quick_check('incident')",
    "PRAGMA quick_check('incident_timeline')",
    "PRAGMA quick_check('cord')",
    "PRAGMA quick_check('notice')",
];

/// What to do about a damaged file.
pub(super) const MEND: &str =
    "restore a backup, or copy what is readable into a new file with `entrenar recover`";

/// What a store works with.
pub(super) struct Opened {
    pub(super) writer: SqliteConnection,
    pub(super) readers: SqlitePool,
    /// Locked until it is dropped.
    pub(super) lock: Lock,
}

pub(super) async fn open(path: &Path) -> StoreResult<Opened> {
    let lock = lock(path)?;
    check_writable(path)?;
    let mut writer = write_options(path).connect().await?;
    check_ours(&mut writer).await?;
    migrate_up(&mut writer).await?;
    for check in CHECKED {
        let found: String = sqlx::query_scalar(check).fetch_one(&mut writer).await?;
        if found != "ok" {
            return Err(StoreError::Corrupt(format!("{found}: {MEND}")));
        }
    }
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(read_options(path))
        .await?;
    Ok(Opened {
        writer,
        readers,
        lock,
    })
}

/// Rows that a reader puts ready before they are asked for.
const READ_AHEAD_ROWS: usize = 512;

/// Brings the schema up to date.
pub(super) async fn migrate_up(writer: &mut SqliteConnection) -> StoreResult<()> {
    migrate(writer, &MIGRATIONS).await
}

/// For the writer.
pub(super) fn write_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // Small pages: every commit rewrites a page of marks, and chunks of many pages lose little.
        .page_size(4096)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // What is written is not read again soon: a larger one would only keep the journal in memory twice.
        .pragma("cache_size", "-16384")
        .pragma("temp_store", "memory")
        .pragma("wal_autocheckpoint", WRITER_FOLDS_PAGES)
        .pragma("journal_size_limit", "67108864")
}

/// For a reader beside the writer.
pub(super) fn read_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        // A question about a fleet reads hundreds of rows, and waking for each fifty would cost more than the rows.
        .row_buffer_size(READ_AHEAD_ROWS)
        .pragma("cache_size", "-16384")
        .pragma("mmap_size", "268435456")
        .pragma("temp_store", "memory")
}

/// The file beside the database that says that it is in use.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Aloud: a process that is just being started beside has a copy of the handle, and closing ours would not free it.
        let _ = self.0.unlock();
    }
}

/// Takes the file beside the database that says that it is in use.
pub(super) fn lock(path: &Path) -> StoreResult<Lock> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
    }
    let beside = lock_path(path);
    let file = File::create(&beside).map_err(|error| at(&beside, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "another aggregator has {} open: stop it, or choose another --data-dir",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(at(&beside, &error)),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn at(path: &Path, error: &io::Error) -> StoreError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            StoreError::ReadOnly(format!(
                "{text}: let this user write there, or choose another --data-dir"
            ))
        }
        io::ErrorKind::StorageFull => StoreError::Full(text),
        _ => StoreError::Unavailable(text),
    }
}

/// A file without a write bit is meant to be left alone, even by root, who could.
fn check_writable(path: &Path) -> StoreResult<()> {
    match fs::metadata(path) {
        Ok(found) if found.permissions().readonly() => Err(StoreError::ReadOnly(format!(
            "{} may not be written: chmod u+w it, or choose another --data-dir",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// A database with tables that is not ours belongs to another program.
pub(super) async fn check_ours(connection: &mut SqliteConnection) -> StoreResult<()> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await?;
    if tables > 0 && id != APPLICATION_ID {
        return Err(StoreError::Refused(
            "the file is a database of another program: choose another --database-url".into(),
        ));
    }
    Ok(())
}
