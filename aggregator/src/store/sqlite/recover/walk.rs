//! Through a damaged table, around what cannot be read.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, TypeInfo as _, ValueRef as _};

use super::{By, Salvaged};
use crate::store::StoreResult;

/// Rows that are read at once where nothing is in the way.
const PAGE: i64 = 64;

/// Looks into places that cannot be read, in one table: what lies between them is given up after so many.
const MOST_MISSES: u32 = 4096;

/// A value as SQLite has it.
enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

struct Walk<'a> {
    old: &'a mut SqliteConnection,
    new: &'a mut SqliteConnection,
    /// Names of the columns that both have.
    columns: Vec<String>,
    salvaged: Salvaged,
    /// Numbers of rows that may be lost, ascending.
    gaps: Vec<(i64, i64)>,
    n_misses: u32,
}

/// Copies a table as far as it can be read. Fails only where the new database does.
pub(super) async fn copy(
    old: &mut SqliteConnection,
    new: &mut SqliteConnection,
    table: &'static str,
    by: By,
) -> StoreResult<Salvaged> {
    let known = columns(old, table).await.unwrap_or_default();
    let mut columns = columns(new, table).await?;
    columns.retain(|column| known.contains(column));
    let mut walk = Walk {
        old,
        new,
        columns,
        salvaged: Salvaged {
            table,
            n_kept: 0,
            lost: Vec::new(),
        },
        gaps: Vec::new(),
        n_misses: 0,
    };
    if walk.columns.is_empty() {
        // A table that the damaged database is too old to have.
        return Ok(walk.salvaged);
    }
    match by {
        By::Number => walk.by_number().await?,
        By::Key(key) => walk.by_key(key).await?,
    }
    Ok(walk.salvaged)
}

async fn columns(db: &mut SqliteConnection, table: &str) -> StoreResult<Vec<String>> {
    let names = sqlx::query_scalar("SELECT name FROM pragma_table_info($1)").bind(table);
    Ok(names.fetch_all(db).await?)
}

impl Walk<'_> {
    async fn by_number(&mut self) -> StoreResult<()> {
        let last = self.number("max(rowid)", (i64::MIN, i64::MAX)).await;
        // Where the end is in the way, it is looked for among all that a table of ours can reach.
        let last = last.map_or(1 << 40, |last| last.unwrap_or(0));
        let mut ranges = vec![(-1, last)];
        while let Some((after, upto)) = ranges.pop() {
            if let Some(stuck) = self.range(after, upto).await? {
                self.n_misses += 1;
                if upto - stuck <= 1 || self.n_misses >= MOST_MISSES {
                    self.gaps.push((stuck + 1, upto));
                } else {
                    let middle = stuck + (upto - stuck) / 2;
                    ranges.extend([(middle, upto), (stuck, middle)]);
                }
            }
        }
        self.name_gaps();
        Ok(())
    }

    /// Copies rows after one up to another; answers the row after which nothing can be found any more.
    async fn range(&mut self, mut after: i64, upto: i64) -> StoreResult<Option<i64>> {
        while after < upto {
            if let Ok(rows) = self.read((after, upto), PAGE).await {
                self.write(&rows).await?;
                match rows.last().filter(|_| rows.len() as i64 == PAGE) {
                    Some(row) => after = row.get(0),
                    None => return Ok(None),
                }
                continue;
            }
            let Ok(next) = self.number("min(rowid)", (after, upto)).await else {
                return Ok(Some(after));
            };
            let Some(next) = next else { return Ok(None) };
            match self.read((next - 1, next), 1).await {
                Ok(row) => self.write(&row).await?,
                Err(_) => self.gaps.push((next, next)),
            }
            after = next;
        }
        Ok(None)
    }

    /// Forwards from the beginning, and back from the end.
    async fn by_key(&mut self, key: &str) -> StoreResult<()> {
        let backwards = key.replace(',', " DESC,") + " DESC";
        let mut n_stuck = 0;
        for order in [key, backwards.as_str()] {
            let sql = format!(
                "SELECT 0, {} FROM {} ORDER BY {order}",
                self.list(),
                self.salvaged.table
            );
            let mut offset = 0;
            loop {
                let page = AssertSqlSafe(format!("{sql} LIMIT {PAGE} OFFSET {offset}"));
                let Ok(rows) = sqlx::query(page).fetch_all(&mut *self.old).await else {
                    n_stuck += 1;
                    break;
                };
                self.write(&rows).await?;
                offset += PAGE;
                if (rows.len() as i64) < PAGE {
                    return Ok(());
                }
            }
        }
        if n_stuck > 0 {
            let lost = "rows in the middle: how many is not known";
            self.salvaged.lost.push(lost.to_owned());
        }
        Ok(())
    }

    fn list(&self) -> String {
        self.columns.join(", ")
    }

    async fn read(&mut self, (after, upto): (i64, i64), n: i64) -> StoreResult<Vec<SqliteRow>> {
        let sql = format!(
            "SELECT rowid, {} FROM {} WHERE rowid > $1 AND rowid <= $2 ORDER BY rowid LIMIT $3",
            self.list(),
            self.salvaged.table
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(after)
            .bind(upto)
            .bind(n);
        Ok(rows.fetch_all(&mut *self.old).await?)
    }

    /// The least or the largest number in a range.
    async fn number(&mut self, which: &str, (after, upto): (i64, i64)) -> StoreResult<Option<i64>> {
        let table = self.salvaged.table;
        let sql = format!("SELECT {which} FROM {table} WHERE rowid > $1 AND rowid <= $2");
        let number = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(after)
            .bind(upto);
        Ok(number.fetch_one(&mut *self.old).await?)
    }

    async fn write(&mut self, rows: &[SqliteRow]) -> StoreResult<()> {
        let places: Vec<String> = (1..=self.columns.len()).map(|n| format!("${n}")).collect();
        let sql = format!(
            "INSERT OR IGNORE INTO {} ({}) VALUES ({})",
            self.salvaged.table,
            self.list(),
            places.join(", ")
        );
        for row in rows {
            let mut insert = sqlx::query(AssertSqlSafe(sql.clone()));
            for n in 0..self.columns.len() {
                // The first is the row's number.
                insert = match cell(row, n + 1) {
                    Cell::Null => insert.bind(None::<i64>),
                    Cell::Integer(value) => insert.bind(value),
                    Cell::Real(value) => insert.bind(value),
                    Cell::Text(value) => insert.bind(value),
                    Cell::Blob(value) => insert.bind(value),
                };
            }
            self.salvaged.n_kept += insert.execute(&mut *self.new).await?.rows_affected();
        }
        Ok(())
    }

    /// Neighbours are named together.
    fn name_gaps(&mut self) {
        self.gaps.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::new();
        for (first, last) in self.gaps.drain(..) {
            match joined.last_mut() {
                Some(gap) if first <= gap.1 + 1 => gap.1 = gap.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        let name = |(first, last)| {
            if first == last {
                format!("row {first}")
            } else {
                format!("whatever was in rows {first} to {last}")
            }
        };
        self.salvaged.lost.extend(joined.into_iter().map(name));
    }
}

/// A value that is no text although its column is one becomes none, which the new table refuses.
fn cell(row: &SqliteRow, n: usize) -> Cell {
    let Ok(value) = row.try_get_raw(n) else {
        return Cell::Null;
    };
    let name = value.type_info().name().to_owned();
    let read = match name.as_str() {
        _ if value.is_null() => Ok(Cell::Null),
        "INTEGER" => row.try_get_unchecked(n).map(Cell::Integer),
        "REAL" => row.try_get_unchecked(n).map(Cell::Real),
        "TEXT" => row.try_get_unchecked(n).map(Cell::Text),
        _ => row.try_get_unchecked(n).map(Cell::Blob),
    };
    read.unwrap_or(Cell::Null)
}
