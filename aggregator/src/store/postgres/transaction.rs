//! Transactions of the writer.

use sqlx::postgres::PgConnection;

use crate::store::StoreResult;

/// Begins a transaction; [`finish`] ends it.
pub(super) async fn begin(db: &mut PgConnection) -> StoreResult<()> {
    sqlx::query("BEGIN").execute(db).await?;
    Ok(())
}

/// Begins one whose loss in a crash of the server would be harmless: its commit waits for no disk.
pub(super) async fn begin_lightly(db: &mut PgConnection) -> StoreResult<()> {
    sqlx::raw_sql("BEGIN; SET LOCAL synchronous_commit = off")
        .execute(db)
        .await?;
    Ok(())
}

/// Commits what went well, and undoes the rest.
pub(super) async fn finish<T>(db: &mut PgConnection, done: StoreResult<T>) -> StoreResult<T> {
    match done {
        Ok(value) => {
            sqlx::query("COMMIT").execute(db).await?;
            Ok(value)
        }
        Err(error) => {
            // Fails where the connection is lost: then there is nothing to undo.
            let _ = sqlx::query("ROLLBACK").execute(db).await;
            Err(error)
        }
    }
}
