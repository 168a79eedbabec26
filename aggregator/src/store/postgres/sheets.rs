//! Sums of many GPUs, laid together metric by metric: the rows.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::partition::sheets_of;
use crate::rollup::sheet::{Key, Sheets};
use crate::store::StoreResult;
use crate::store::compact::Group;
use crate::store::sums::{Found, SheetRow, group_of, open};

/// Sheets of times in which some stretches belong: these stretches were over long ago.
pub(super) struct There {
    step: Duration,
    /// `None`: it is damaged, and nobody knows of what it tells; what is new is kept.
    sheets: HashMap<Group, Option<Sheets>>,
}

/// Those that there are for stretches by number of their GPU and start.
pub(super) async fn find(
    tx: &mut PgConnection,
    step: Duration,
    keys: impl Iterator<Item = (i64, i64)>,
) -> StoreResult<There> {
    let groups: BTreeSet<Group> = keys.map(|key| group_of(step, key)).collect();
    let found = rows(
        tx,
        step,
        &groups,
        &[0],
        (Timestamp(i64::MIN), Timestamp(i64::MAX)),
    )
    .await?;
    let sheet = |(window, cohort, _, _, blob): SheetRow| {
        let window = Timestamp(window);
        let sheets = blob.and_then(|blob| Sheets::open(step, &blob).ok());
        (Group { window, cohort }, sheets)
    };
    let sheets = found.into_iter().map(sheet).collect();
    Ok(There { step, sheets })
}

impl There {
    /// Whether there are sums of this stretch.
    pub(super) fn knows(&self, gpu: i64, stretch: i64) -> bool {
        let sheets = self.sheets.get(&group_of(self.step, (gpu, stretch)));
        let key = Key {
            gpu,
            stretch: Timestamp(stretch),
        };
        matches!(sheets, Some(Some(sheets)) if sheets.knows(key))
    }

    /// Sums of these stretches lie beside their sheets, and must be looked for.
    pub(super) async fn tell_of_late(
        &self,
        tx: &mut PgConnection,
        keys: impl Iterator<Item = (i64, i64)>,
    ) -> StoreResult<()> {
        let groups = keys.map(|key| group_of(self.step, key));
        let late: BTreeSet<Group> = groups.filter(|g| self.sheets.contains_key(g)).collect();
        if late.is_empty() {
            return Ok(());
        }
        // The name of the table is ours, here and below.
        let sql = AssertSqlSafe(format!(
            "UPDATE {} SET has_late = 1 FROM unnest($1::bigint[], $2::bigint[]) AS late (began, of)
             WHERE window_ms = began AND cohort = of AND metric = 0 AND has_late = 0",
            sheets_of(self.step).name()
        ));
        let (windows, cohorts) = columns(&late);
        sqlx::query(sql)
            .bind(windows)
            .bind(cohorts)
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Sheets of these groups and metrics, opened where they have samples between two instants.
pub(super) async fn read(
    tx: &mut PgConnection,
    step: Duration,
    groups: &BTreeSet<Group>,
    metrics: &[i64],
    extent: (Timestamp, Timestamp),
) -> StoreResult<HashMap<Group, Found>> {
    open(step, rows(tx, step, groups, metrics, extent).await?)
}

async fn rows(
    tx: &mut PgConnection,
    step: Duration,
    groups: &BTreeSet<Group>,
    metrics: &[i64],
    (from, to): (Timestamp, Timestamp),
) -> StoreResult<Vec<SheetRow>> {
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else {
        return Ok(Vec::new());
    };
    let sql = AssertSqlSafe(format!(
        "SELECT window_ms, cohort, metric, has_late, CASE WHEN from_ms <= $4 AND $5 <= to_ms THEN blob END
         FROM unnest($1::bigint[], $2::bigint[]) AS asked (began, of)
             JOIN {} ON window_ms = began AND cohort = of
         WHERE metric = ANY ($3) AND window_ms BETWEEN $6 AND $7",
        sheets_of(step).name()
    ));
    let (windows, cohorts) = columns(groups);
    let rows = sqlx::query_as(sql)
        .bind(windows)
        .bind(cohorts)
        .bind(metrics)
        .bind(to.0)
        .bind(from.0)
        .bind(first.window.0)
        .bind(last.window.0)
        .fetch_all(tx)
        .await?;
    Ok(rows)
}

/// Windows and cohorts.
fn columns(groups: &BTreeSet<Group>) -> (Vec<i64>, Vec<i64>) {
    groups.iter().map(|g| (g.window.0, g.cohort)).unzip()
}
