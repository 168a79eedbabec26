//! The parts of the large tables, each some days of stretches: made when the first of them comes, and the next part with
//! it; dropped whole.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

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

/// A table that is kept in parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    name: &'static str,
    /// Of a part.
    days: i64,
}

/// Sealed stretches.
pub(super) const CHUNKS: Table = Table {
    name: "chunk",
    days: 1,
};

/// Stretches summed up by one step of `rollup::STEPS`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    pub(super) step: Duration,
    pub(super) table: Table,
    /// Laid together. Its windows are parts of days, so that no stretch of a part began after it.
    pub(super) sheets: Table,
}

/// Kept longer than chunks, and much smaller: larger parts.
pub(super) const SUMS: [Sums; 2] = [
    Sums {
        step: Duration::from_mins(1),
        table: Table {
            name: "rollup_1m",
            days: 7,
        },
        sheets: Table {
            name: "rollup_sheet_1m",
            days: 7,
        },
    },
    Sums {
        step: Duration::from_hours(1),
        table: Table {
            name: "rollup_1h",
            days: 56,
        },
        sheets: Table {
            name: "rollup_sheet_1h",
            days: 56,
        },
    },
];

/// Where sums by a step are.
pub(super) fn table_of(step: Duration) -> &'static str {
    sums_of(step).table.name
}

/// … and where those are that were laid together.
pub(super) fn sheets_of(step: Duration) -> &'static Table {
    &sums_of(step).sheets
}

fn sums_of(step: Duration) -> &'static Sums {
    let hourly = &SUMS[1];
    let found = SUMS.iter().find(|sums| sums.step == step);
    found.unwrap_or(hourly)
}

/// Parts that are known to be there, by the table's name and their number since 1970; a table is missing until it was
/// looked at.
pub(super) type Parts = HashMap<&'static str, BTreeSet<i64>>;

impl Table {
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// The part that a stretch belongs to.
    pub(super) fn part_of(&self, stretch: Timestamp) -> i64 {
        stretch.0.div_euclid(self.days * DAY_MS)
    }

    fn begin(&self, part: i64) -> Timestamp {
        Timestamp(part * self.days * DAY_MS)
    }

    /// `chunk_20261126`.
    fn part_name(&self, part: i64) -> String {
        let date = self.begin(part).rfc3339();
        let digits = date.chars().take_while(|c| *c != 'T');
        let digits: String = digits.filter(char::is_ascii_digit).collect();
        format!("{}_{digits}", self.name)
    }
}

/// Makes sure that the parts of these stretches and the ones after them are there.
pub(super) async fn make(
    db: &mut PgConnection,
    parts: &mut Parts,
    table: &Table,
    stretches: impl IntoIterator<Item = Timestamp>,
) -> StoreResult<()> {
    if !parts.contains_key(table.name) {
        let there = existing(db, table).await?;
        parts.insert(table.name, there.iter().map(|part| part.number).collect());
    }
    let known = parts.entry(table.name).or_default();
    let numbers = stretches.into_iter().map(|at| table.part_of(at));
    let ahead: BTreeSet<i64> = numbers.flat_map(|part| [part, part + 1]).collect();
    for part in ahead {
        if !known.contains(&part) {
            begin(db).await?;
            let done = make_one(db, table, part).await;
            finish(db, done).await?;
            known.insert(part);
        }
    }
    Ok(())
}

/// Made beside its parent and then attached, which locks out neither readers nor a dump.
async fn make_one(tx: &mut PgConnection, table: &Table, part: i64) -> StoreResult<()> {
    let (parent, name) = (table.name, table.part_name(part));
    let (from, to) = (table.begin(part).0, table.begin(part + 1).0);
    // Made of our own names and digits alone. One by one: Citus sends a statement on as it came.
    for sql in [
        format!(
            "CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
        ),
        format!("ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"),
    ] {
        tx.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    }
    info!(name, "made a partition");
    Ok(())
}

struct Partition {
    name: String,
    number: i64,
}

async fn existing(db: &mut PgConnection, table: &Table) -> StoreResult<Vec<Partition>> {
    // The name is quoted where it needs to be, and has its schema where that is not the current one.
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT inhrelid::regclass::text,
             substring(pg_get_expr(relpartbound, pg_class.oid) FROM 'FROM \\(''?(-?[0-9]+)')::bigint
         FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = $1::regclass AND pg_get_expr(relpartbound, pg_class.oid) LIKE 'FOR VALUES FROM%'",
    )
    .bind(table.name)
    .fetch_all(db)
    .await?;
    let partition = |(name, from): (String, i64)| Partition {
        name,
        number: table.part_of(Timestamp(from)),
    };
    Ok(rows.into_iter().map(partition).collect())
}

/// Drops the parts of which every sample is older than this; answers how many rows went. Not by the writer: the files
/// of a part may take a while to go.
pub(super) async fn drop_old(pool: &PgPool, table: &Table, before: Timestamp) -> StoreResult<u64> {
    let mut connection = pool.acquire().await?;
    let mut gone = 0;
    for Partition { name, number } in existing(&mut connection, table).await? {
        let last_sample = table.begin(number + 1) + MAX_LENGTH;
        if before < last_sample {
            continue;
        }
        match drop_one(&mut connection, &name).await {
            Ok(n_rows) => {
                info!(name, n_rows, "dropped a partition older than the retention");
                gone += n_rows;
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
    let n_rows: i64 = sqlx::query_scalar(count).fetch_one(&mut *tx).await?;
    let drop = AssertSqlSafe(format!("DROP TABLE {name}"));
    tx.execute(sqlx::raw_sql(drop)).await?;
    Ok(n_rows as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_named_by_the_date_on_which_it_begins() {
        let name = |table: &Table, at: Timestamp| table.part_name(table.part_of(at));
        let at = Timestamp::from_secs(1_700_000_000);
        assert_eq!(name(&CHUNKS, at), "chunk_20231114");
        assert_eq!(name(&SUMS[0].table, at), "rollup_1m_20231109");
        assert_eq!(CHUNKS.part_name(0), "chunk_19700101");
        assert_eq!(CHUNKS.part_of(Timestamp(-1)), -1);
        assert_eq!(CHUNKS.part_of(Timestamp(DAY_MS)), 1);
    }
}
