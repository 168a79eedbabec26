//! Sums of many GPUs, laid together metric by metric: the rows.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::rollup::STEPS;
use crate::rollup::sheet::{Key, Sheets};
use crate::store::StoreResult;
use crate::store::compact::Group;
use crate::store::sums::{Found, SheetRow, open};

/// Where sheets of this step are.
pub(super) fn table_of(step: Duration) -> &'static str {
    if step < Duration::from_hours(1) {
        "rollup_sheet_1m"
    } else {
        "rollup_sheet_1h"
    }
}

/// The step of the sheets in a table.
pub(super) fn step_of(table: &str) -> Duration {
    let of = |step: &Duration| table_of(*step) == table;
    STEPS.into_iter().find(of).unwrap_or(STEPS[0])
}

/// What a sheet of times says of one stretch.
pub(super) struct There {
    pub(super) id: i64,
    /// Whether it has sums of this stretch.
    pub(super) knows: bool,
}

/// The sheet of times in which a stretch belongs, where there is one: the stretch was over long ago.
pub(super) async fn find(
    tx: &mut SqliteConnection,
    step: Duration,
    gpu: i64,
    stretch: Timestamp,
) -> StoreResult<Option<There>> {
    let group = Group::of(step, gpu, stretch);
    // The name of the table is ours, here and below.
    let sql = AssertSqlSafe(format!(
        "SELECT id, blob FROM {} WHERE window_ms = $1 AND cohort = $2 AND metric = 0",
        table_of(step)
    ));
    let found: Option<(i64, Vec<u8>)> = sqlx::query_as(sql)
        .bind(group.window.0)
        .bind(group.cohort)
        .fetch_optional(tx)
        .await?;
    Ok(found.map(|(id, blob)| {
        // Of one that is damaged nobody knows; what is new is kept.
        let sheets = Sheets::open(step, &blob).ok();
        let knows = sheets.is_some_and(|sheets| sheets.knows(Key { gpu, stretch }));
        There { id, knows }
    }))
}

/// Sums of stretches of a sheet lie beside it, and must be looked for.
pub(super) async fn tell_of_late(
    tx: &mut SqliteConnection,
    step: Duration,
    id: i64,
) -> StoreResult<()> {
    let sql = AssertSqlSafe(format!(
        "UPDATE {} SET has_late = 1 WHERE id = $1 AND has_late = 0",
        table_of(step)
    ));
    sqlx::query(sql).bind(id).execute(tx).await?;
    Ok(())
}

/// Sheets of these groups and metrics, opened where they have samples between two instants.
pub(super) async fn read(
    tx: &mut SqliteConnection,
    step: Duration,
    groups: &BTreeSet<Group>,
    metrics: &[i64],
    (from, to): (Timestamp, Timestamp),
) -> StoreResult<HashMap<Group, Found>> {
    let keys: Vec<(i64, i64)> = groups.iter().map(|g| (g.window.0, g.cohort)).collect();
    let sql = AssertSqlSafe(format!(
        "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS window, value ->> 1 AS of FROM json_each($1)),
             wanted AS MATERIALIZED (SELECT value AS number FROM json_each($2))
         SELECT window_ms, cohort, metric, has_late, CASE WHEN from_ms <= $3 AND $4 <= to_ms THEN blob END
         FROM asked CROSS JOIN wanted CROSS JOIN {} ON window_ms = window AND cohort = of AND metric = number",
        table_of(step)
    ));
    let rows: Vec<SheetRow> = sqlx::query_as(sql)
        .bind(serde_json::json!(keys).to_string())
        .bind(serde_json::json!(metrics).to_string())
        .bind(to.0)
        .bind(from.0)
        .fetch_all(tx)
        .await?;
    open(step, rows)
}
