//! The contract on a Citus cluster, where there is one: `deploy/postgres/citus.sql` is all that it takes.

use std::sync::OnceLock;

use private_postgres::{Citus, Database};

use super::*;

/// What people run once.
const SPREAD: &str = include_str!("../../../../../deploy/postgres/citus.sql");

contract!(spread());

/// A store whose history is spread over workers; `None`: skipped, and said so.
async fn spread() -> Option<(PostgresStore, Database)> {
    static SHARED: OnceLock<Option<Citus>> = OnceLock::new();
    let citus = SHARED.get_or_init(Citus::start).as_ref()?;
    let database = citus.database().await;
    // A first start makes the tables.
    drop(open(&database).await.unwrap());
    let mut connection = database.connect().await;
    sqlx::raw_sql(SPREAD)
        .execute(&mut connection)
        .await
        .unwrap();
    Some((open_once_free(&database).await, database))
}
