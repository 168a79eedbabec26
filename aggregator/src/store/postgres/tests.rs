use private_postgres::Database;

use super::*;
use crate::store::contract::contract;

contract!(fresh());

/// A store on an empty database; `None`: skipped, and said so.
async fn fresh() -> Option<(PostgresStore, Database)> {
    let database = private_postgres::database().await?;
    Some((open(&database).await.unwrap(), database))
}

async fn open(database: &Database) -> StoreResult<PostgresStore> {
    PostgresStore::open(&Address::parse(&database.url).unwrap()).await
}
