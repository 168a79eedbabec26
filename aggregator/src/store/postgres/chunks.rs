//! Keeping sealed chunks and what they come to: all new ones in one statement, and one by one what must be merged.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use sqlx::postgres::PgConnection;

use super::flush::Memory;
use super::partition::{self, CHUNKS, SUMS};
use super::place::{self, Place};
use super::sums::{self, Meeting, Summed};
use super::transaction::{begin, finish};
use crate::chunk;
use crate::store::merge::{Merged, length_of_both, merge};
use crate::store::{SealedChunk, StoreResult};

/// Keeps chunks in one transaction; a stretch that is there already is merged with what is new.
pub(super) async fn keep(
    db: &mut PgConnection,
    memory: &mut Memory,
    sealed: Vec<SealedChunk>,
) -> StoreResult<()> {
    let stretches = || sealed.iter().map(|chunk| chunk.stretch);
    partition::make(db, &mut memory.parts, &CHUNKS, stretches()).await?;
    for sums in SUMS {
        partition::make(db, &mut memory.parts, &sums.table, stretches()).await?;
    }
    begin(db).await?;
    let done = keep_all(db, memory, sealed).await;
    finish(db, done).await
}

async fn keep_all(
    tx: &mut PgConnection,
    memory: &mut Memory,
    sealed: Vec<SealedChunk>,
) -> StoreResult<()> {
    place::find(tx, &mut memory.places, sealed.iter().map(|c| &c.gpu)).await?;
    let placed: Vec<(Place, SealedChunk)> = sealed
        .into_iter()
        .filter_map(|chunk| Some((*memory.places.get(&chunk.gpu)?, chunk)))
        .collect();
    keep_lengths(tx, memory, &placed).await?;
    // Of the same stretch twice, the second finds the first there.
    let mut inserted = insert(tx, &placed).await?;
    let mut summed = Vec::new();
    for (place, chunk) in placed {
        if inserted.remove(&(chunk.stretch.0, place.gpu)) {
            summed.push(Summed::of(place, &chunk));
        } else if let Some(merged) = merge_in(tx, memory, place, chunk).await? {
            sums::keep(tx, memory, std::mem::take(&mut summed), &Meeting::Old).await?;
            sums::keep(tx, memory, vec![merged], &Meeting::New).await?;
        }
    }
    sums::keep(tx, memory, summed, &Meeting::Old).await
}

/// Lengths of stretches that a GPU had not had before.
async fn keep_lengths(
    tx: &mut PgConnection,
    memory: &mut Memory,
    placed: &[(Place, SealedChunk)],
) -> StoreResult<()> {
    let lengths = placed
        .iter()
        .map(|(place, chunk)| (place.gpu, i64::from(chunk.length_ms)));
    let new: HashSet<(i64, i64)> = lengths.filter(|l| !memory.lengths.contains(l)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let (gpus, lengths): (Vec<i64>, Vec<i64>) = new.iter().copied().unzip();
    sqlx::query(
        "INSERT INTO gpu_stretch (gpu_id, length_ms) SELECT * FROM unnest($1::bigint[], $2::bigint[])
         ON CONFLICT DO NOTHING",
    )
    .bind(gpus)
    .bind(lengths)
    .execute(tx)
    .await?;
    memory.lengths.extend(new);
    Ok(())
}

/// Inserts those whose stretch is not there; answers their keys.
async fn insert(
    tx: &mut PgConnection,
    placed: &[(Place, SealedChunk)],
) -> StoreResult<HashSet<(i64, i64)>> {
    let column = |value: fn(&Place, &SealedChunk) -> i64| -> Vec<i64> {
        placed.iter().map(|(place, c)| value(place, c)).collect()
    };
    let blobs: Vec<&[u8]> = placed.iter().map(|(_, c)| c.blob.as_slice()).collect();
    let keys: Vec<(i64, i64)> = sqlx::query_as(
        "INSERT INTO chunk (stretch_ms, gpu_id, node_id, length_ms, from_ms, to_ms, n_samples, blob)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
             $7::bigint[], $8::bytea[])
         ON CONFLICT DO NOTHING RETURNING stretch_ms, gpu_id",
    )
    .bind(column(|_, c| c.stretch.0))
    .bind(column(|place, _| place.gpu))
    .bind(column(|place, _| place.node))
    .bind(column(|_, c| c.length_ms.into()))
    .bind(column(|_, c| c.from.0))
    .bind(column(|_, c| c.to.0))
    .bind(column(|_, c| c.n_samples.into()))
    .bind(blobs)
    .fetch_all(tx)
    .await?;
    Ok(keys.into_iter().collect())
}

async fn merge_in(
    tx: &mut PgConnection,
    memory: &mut Memory,
    place: Place,
    new: SealedChunk,
) -> StoreResult<Option<Summed>> {
    let (length_ms, old): (i64, Vec<u8>) = sqlx::query_as(
        "SELECT length_ms, blob FROM chunk WHERE stretch_ms = $1 AND gpu_id = $2 AND node_id = $3",
    )
    .bind(new.stretch.0)
    .bind(place.gpu)
    .bind(place.node)
    .fetch_one(&mut *tx)
    .await?;
    let mut whole = SealedChunk {
        blob: Vec::new(),
        length_ms: length_of_both(length_ms as u32, new.length_ms),
        ..new.clone()
    };
    let merged = match merge(old, new) {
        Merged::Same => return Ok(None),
        Merged::Whole(merged) => merged,
        Merged::Lost(left) => {
            memory.n_chunks_lost.fetch_add(1, Ordering::Relaxed);
            left
        }
    };
    let (n_samples, from, to) = chunk::extent(&merged)?;
    (whole.from, whole.to, whole.blob) = (from, to, merged);
    sqlx::query(
        "UPDATE chunk SET from_ms = $1, to_ms = $2, n_samples = $3, blob = $4, length_ms = $5
         WHERE stretch_ms = $6 AND gpu_id = $7 AND node_id = $8",
    )
    .bind(from.0)
    .bind(to.0)
    .bind(n_samples as i64)
    .bind(&whole.blob)
    .bind(i64::from(whole.length_ms))
    .bind(whole.stretch.0)
    .bind(place.gpu)
    .bind(place.node)
    .execute(tx)
    .await?;
    Ok(Some(Summed::of(place, &whole)))
}
