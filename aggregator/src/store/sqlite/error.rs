//! SQLite's result codes as what the caller can do about them.

use crate::chunk::ChunkError;
use crate::store::StoreError;
use crate::store::journal::JournalError;

/// Primary result codes. Source: sqlite3.h.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match &error {
            sqlx::Error::Database(database) => {
                let extended = database.code().and_then(|code| code.parse::<i32>().ok());
                by_code(extended.map(|code| code & 0xff), text)
            }
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(text),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(text),
            _ => Self::Refused(text),
        }
    }
}

fn by_code(primary: Option<i32>, text: String) -> StoreError {
    match primary {
        Some(code::BUSY | code::LOCKED) => StoreError::Unavailable(text),
        Some(code::IOERR) => StoreError::Unavailable(format!(
            "{text}: look whether the volume of the database is full, beyond its quota, or failing; then it goes on by itself"
        )),
        Some(code::FULL) => StoreError::Full(text),
        Some(code::READONLY) => StoreError::ReadOnly(text),
        Some(code::CANTOPEN) => StoreError::Unavailable(format!(
            "{text}: check that the folder exists and that this user may write to it"
        )),
        Some(code::CORRUPT) => StoreError::Corrupt(format!("{text}: restore a backup")),
        Some(code::NOTADB) => {
            StoreError::Corrupt(format!("{text}: move the file away, or restore a backup"))
        }
        _ => StoreError::Refused(text),
    }
}

impl From<ChunkError> for StoreError {
    fn from(error: ChunkError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<JournalError> for StoreError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::TooLong(_) => Self::Refused(error.to_string()),
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

/// JSON that we wrote and cannot read.
pub(super) fn bad_json(error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("a stored document cannot be read: {error}"))
}
