//! Bringing a schema up to date: the same rules for every database.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

use super::{StoreError, StoreResult};

/// Where sqlx remembers what it did.
const TABLE: &str = "_sqlx_migrations";

/// Does what is still to be done. `numbered`: every migration there is, the first has number 1.
pub(super) async fn migrate<C: Migrate>(
    connection: &mut C,
    numbered: &[(&'static str, &'static str)],
) -> StoreResult<()> {
    let known = numbered.len() as i64;
    connection
        .ensure_migrations_table(TABLE)
        .await
        .map_err(refused)?;
    let applied = connection
        .list_applied_migrations(TABLE)
        .await
        .map_err(refused)?;
    match applied.iter().map(|migration| migration.version).max() {
        Some(found) if found > known => Err(StoreError::NewerSchema { found, known }),
        _ => Migrator::with_migrations(migrations(numbered))
            .run_direct(None, connection, false)
            .await
            .map_err(refused),
    }
}

fn migrations(numbered: &[(&'static str, &'static str)]) -> Vec<Migration> {
    let migration = |(number, (name, sql)): (i64, &(&'static str, &'static str))| {
        let forward = MigrationType::Simple;
        Migration::new(number, (*name).into(), forward, sql.into_sql_str(), false)
    };
    (1..).zip(numbered).map(migration).collect()
}

fn refused(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::Refused(format!("could not bring the schema up to date: {other}")),
    }
}
