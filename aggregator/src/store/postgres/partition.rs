//! The days of `chunk`: made when their first chunk comes, and the next day with them; dropped whole.

use std::collections::BTreeSet;

use entrenar::unit::Timestamp;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Executor as _};
use tracing::{debug, info};

use super::transaction::{begin, finish};
use crate::chunk::stretch::MAX_LENGTH;
use crate::store::{StoreError, StoreResult};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How long readers may be kept waiting while a day is dropped. A longer question, or a dump, makes it be tried again
/// later.
const DROP_PATIENCE: &str = "SET TRANSACTION READ WRITE; SET LOCAL lock_timeout = 200";

/// Days since 1970 that are there; `None`: not looked yet.
pub(super) type Days = Option<BTreeSet<i64>>;

/// The day that a stretch belongs to.
pub(super) fn day_of(stretch: Timestamp) -> i64 {
    stretch.0.div_euclid(DAY_MS)
}

/// Makes sure that these days and the ones after them are there.
pub(super) async fn make(
    db: &mut PgConnection,
    days: &mut Days,
    wanted: impl IntoIterator<Item = i64>,
) -> StoreResult<()> {
    let known = match days {
        Some(known) => known,
        None => days.insert(existing(db).await?.iter().map(|part| part.day).collect()),
    };
    let ahead: BTreeSet<i64> = wanted.into_iter().flat_map(|day| [day, day + 1]).collect();
    for day in ahead {
        if !known.contains(&day) {
            begin(db).await?;
            let done = make_one(db, day).await;
            finish(db, done).await?;
            known.insert(day);
        }
    }
    Ok(())
}

/// Made beside its parent and then attached, which locks out neither readers nor a dump.
async fn make_one(tx: &mut PgConnection, day: i64) -> StoreResult<()> {
    let (name, from, to) = (name(day), day * DAY_MS, (day + 1) * DAY_MS);
    let sql = format!(
        "CREATE TABLE {name} (LIKE chunk INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE);
         ALTER TABLE chunk ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"
    );
    // Made of digits alone.
    tx.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    info!(name, "made a partition");
    Ok(())
}

/// `chunk_20261126`.
fn name(day: i64) -> String {
    let date = Timestamp(day * DAY_MS).rfc3339();
    let digits = date.chars().take_while(|c| *c != 'T');
    let digits: String = digits.filter(char::is_ascii_digit).collect();
    format!("chunk_{digits}")
}

struct Partition {
    name: String,
    day: i64,
}

async fn existing(db: &mut PgConnection) -> StoreResult<Vec<Partition>> {
    // The name is quoted where it needs to be, and has its schema where that is not the current one.
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT inhrelid::regclass::text,
             substring(pg_get_expr(relpartbound, pg_class.oid) FROM 'FROM \\(''?(-?[0-9]+)')::bigint
         FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = 'chunk'::regclass AND pg_get_expr(relpartbound, pg_class.oid) LIKE 'FOR VALUES FROM%'",
    )
    .fetch_all(db)
    .await?;
    let partition = |(name, from): (String, i64)| Partition {
        name,
        day: from.div_euclid(DAY_MS),
    };
    Ok(rows.into_iter().map(partition).collect())
}

/// Drops the days of which every sample is older than this; answers how many chunks went. Not by the writer: the files
/// of a day may take a while to go.
pub(super) async fn drop_old(pool: &PgPool, before: Timestamp) -> StoreResult<u64> {
    let mut connection = pool.acquire().await?;
    let mut gone = 0;
    for Partition { name, day } in existing(&mut connection).await? {
        let last_sample = (day + 1) * DAY_MS + MAX_LENGTH.as_millis() as i64;
        if before.0 < last_sample {
            continue;
        }
        match drop_one(&mut connection, &name).await {
            Ok(n_chunks) => {
                info!(
                    name,
                    n_chunks, "dropped a partition older than the retention"
                );
                gone += n_chunks;
            }
            Err(StoreError::Unavailable(why)) => {
                debug!(name, why, "could not drop a partition yet");
                return Ok(gone);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}

async fn drop_one(db: &mut PgConnection, name: &str) -> StoreResult<u64> {
    begin(db).await?;
    let done = drop_in(db, name).await;
    finish(db, done).await
}

async fn drop_in(tx: &mut PgConnection, name: &str) -> StoreResult<u64> {
    tx.execute(sqlx::raw_sql(DROP_PATIENCE)).await?;
    // As the server itself wrote it.
    let count = AssertSqlSafe(format!("SELECT count(*) FROM {name}"));
    let n_chunks: i64 = sqlx::query_scalar(count).fetch_one(&mut *tx).await?;
    let drop = AssertSqlSafe(format!("DROP TABLE {name}"));
    tx.execute(sqlx::raw_sql(drop)).await?;
    Ok(n_chunks as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_named_by_its_date() {
        assert_eq!(
            name(day_of(Timestamp::from_secs(1_700_000_000))),
            "chunk_20231114"
        );
        assert_eq!(name(0), "chunk_19700101");
        assert_eq!(day_of(Timestamp(-1)), -1);
        assert_eq!(day_of(Timestamp(DAY_MS)), 1);
    }
}
