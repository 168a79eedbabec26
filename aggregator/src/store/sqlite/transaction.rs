//! Transactions of the writer.

use sqlx::sqlite::SqliteConnection;

use crate::store::StoreResult;

/// Begins a transaction that writes; [`finish`] ends it. Not sqlx's own: SQLite rolls back by itself when the disk is full,
/// and sqlx then counts a transaction that is no longer there.
pub(super) async fn begin(db: &mut SqliteConnection) -> StoreResult<()> {
    sqlx::query("BEGIN IMMEDIATE").execute(db).await?;
    Ok(())
}

/// Commits what went well, and undoes the rest.
pub(super) async fn finish<T>(db: &mut SqliteConnection, done: StoreResult<T>) -> StoreResult<T> {
    let done = match done {
        Ok(value) => match sqlx::query("COMMIT").execute(&mut *db).await {
            Ok(_) => return Ok(value),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error),
    };
    // Fails where SQLite rolled back by itself: then there is nothing to undo.
    let _ = sqlx::query("ROLLBACK").execute(db).await;
    done
}
