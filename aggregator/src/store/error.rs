//! What went wrong as what the caller can do about it.

use super::journal::JournalError;
use super::{StoreError, postgres, sqlite};
use crate::chunk::ChunkError;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match &error {
            sqlx::Error::Database(database) => {
                match database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                    // Its own words: the driver's text adds a line number of the server's source.
                    Some(postgres) => {
                        postgres::error::by_code(postgres.code(), postgres.message().to_owned())
                    }
                    None => sqlite::error::by_code(database.code().as_deref(), text),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(text),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(text),
            _ => Self::Refused(text),
        }
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
            JournalError::TooLong(_) | JournalError::TooMany => Self::Refused(error.to_string()),
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

/// JSON that we wrote and cannot read.
pub(super) fn bad_json(error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("a stored document cannot be read: {error}"))
}
