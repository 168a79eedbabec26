//! Keeping what chunks come to, by the minute and by the hour.

use std::collections::HashSet;
use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::flush::Memory;
use super::partition::SUMS;
use super::place::Place;
use super::sheets;
use crate::store::fresh::Written;
use crate::store::merge::sums;
use crate::store::{SealedChunk, StoreResult};

/// A stretch that was summed up.
pub(super) struct Summed {
    place: Place,
    stretch: i64,
    from: i64,
    to: i64,
    /// By step; none where a step is too short for the sampling interval.
    sums: Vec<(Duration, Vec<u8>)>,
}

impl Summed {
    pub(super) fn of(place: Place, chunk: &SealedChunk) -> Self {
        Self {
            place,
            stretch: chunk.stretch.0,
            from: chunk.from.0,
            to: chunk.to.0,
            sums: sums(&chunk.blob, chunk.length_ms),
        }
    }
}

/// Which stays where sums meet those of the same stretch.
pub(super) enum Meeting {
    New,
    /// Of a chunk that was dropped by now, of which a few late samples know nothing.
    Old,
}

/// Keeps them, each stretch at most once: a statement a step.
pub(super) async fn keep(
    tx: &mut PgConnection,
    memory: &mut Memory,
    summed: Vec<Summed>,
    meeting: &Meeting,
) -> StoreResult<()> {
    let what = match meeting {
        Meeting::Old => "NOTHING",
        Meeting::New => {
            "UPDATE SET from_ms = excluded.from_ms, to_ms = excluded.to_ms, blob = excluded.blob"
        }
    };
    for kind in SUMS {
        let of_step =
            |summed: &'_ Summed| summed.sums.iter().position(|(step, _)| *step == kind.step);
        let keys = summed.iter().map(|one| (one.place.gpu, one.stretch));
        let there = sheets::find(tx, kind.step, keys).await?;
        let is_kept = |one: &&Summed| match meeting {
            Meeting::New => true,
            Meeting::Old => !there.knows(one.place.gpu, one.stretch),
        };
        let rows: Vec<(&Summed, &[u8])> = summed
            .iter()
            .filter(is_kept)
            .filter_map(|one| Some((one, one.sums[of_step(one)?].1.as_slice())))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let column = |value: fn(&Summed) -> i64| -> Vec<i64> {
            rows.iter().map(|(one, _)| value(one)).collect()
        };
        let blobs: Vec<&[u8]> = rows.iter().map(|(_, blob)| *blob).collect();
        // The name of the table is ours.
        let sql = AssertSqlSafe(format!(
            "INSERT INTO {} (stretch_ms, gpu_id, node_id, from_ms, to_ms, blob)
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])
             ON CONFLICT (stretch_ms, gpu_id, node_id) DO {what} RETURNING stretch_ms, gpu_id",
            super::partition::table_of(kind.step)
        ));
        let kept: Vec<(i64, i64)> = sqlx::query_as(sql)
            .bind(column(|one| one.stretch))
            .bind(column(|one| one.place.gpu))
            .bind(column(|one| one.place.node))
            .bind(column(|one| one.from))
            .bind(column(|one| one.to))
            .bind(blobs)
            .fetch_all(&mut *tx)
            .await?;
        let kept: HashSet<(i64, i64)> = kept.into_iter().collect();
        let is_kept = |(one, _): &&(&Summed, &[u8])| kept.contains(&(one.stretch, one.place.gpu));
        let written = |(one, blob): &(&Summed, &[u8])| Written {
            step: kind.step,
            key: (one.place.gpu, one.stretch),
            from: Timestamp(one.from),
            to: Timestamp(one.to),
            blob: blob.to_vec(),
        };
        memory
            .written
            .extend(rows.iter().filter(is_kept).map(written));
        let keys = rows.iter().map(|(one, _)| (one.place.gpu, one.stretch));
        there.tell_of_late(tx, keys).await?;
    }
    Ok(())
}
