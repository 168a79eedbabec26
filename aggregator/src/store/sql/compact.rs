//! Laying together the sums of stretches that are over. Read and put together beside the writer, which then changes one
//! for the other in short transactions.
//!
//! One text for all databases: compiled once as a module of each.

use std::time::Duration;

use entrenar::unit::Timestamp;
use tracing::warn;

use super::dialect::Pool;
use super::{loose, sheets};
use crate::rollup::{STEPS, sheet};
use crate::store::StoreResult;
use crate::store::compact::{
    self, ALWAYS, Compacted, Group, ROWS_A_ROUND, all_sheets, put_together,
};
use crate::store::sums::Found;
use crate::store::writer::Writer;

/// Everything that is due; answers how many rows went.
pub(super) async fn all(readers: &Pool, writer: &Writer, now: Timestamp) -> StoreResult<u64> {
    let mut gone = 0;
    for step in STEPS {
        let before = compact::due_before(step, longest(readers, step).await?, now);
        let rows = loose::before(readers, step, before).await?;
        let is_all = (rows.len() as i64) < ROWS_A_ROUND;
        for (group, rows) in compact::groups(step, rows, is_all) {
            if let Some(compacted) = gather(readers, step, group, &rows).await? {
                gone += writer.compact(compacted).await?;
            }
        }
    }
    Ok(gone)
}

/// The longest stretch that there is and that may lie in a sheet.
async fn longest(readers: &Pool, step: Duration) -> StoreResult<Duration> {
    let most = sheet::longest(step);
    let longest: Option<i64> =
        sqlx::query_scalar("SELECT max(length_ms) FROM gpu_stretch WHERE length_ms <= $1")
            .bind(most.as_millis() as i64)
            .fetch_one(readers)
            .await?;
    Ok(longest.map_or(most, |ms| Duration::from_millis(ms as u64)))
}

/// Sheets of some rows, and of what lies in sheets of their group already; `None` where nothing can be done.
async fn gather(
    readers: &Pool,
    step: Duration,
    group: Group,
    rows: &[compact::Row],
) -> StoreResult<Option<Compacted>> {
    let mut tx = readers.begin().await?;
    let loose = loose::read(&mut tx, step, group, rows).await?;
    let there = sheets::read(&mut tx, step, &[group].into(), &all_sheets(), ALWAYS).await;
    let old = there.map(|there| there.into_values().find_map(Found::into_sheets));
    let done = old.and_then(|old| Ok(put_together(step, group, loose, old.as_deref())?));
    // What is damaged stays as it is, for whoever asks for it to be told.
    Ok(done.unwrap_or_else(|error| {
        warn!(%error, window = %group.window, "could not lay sums together");
        None
    }))
}
