//! Chunks of some GPUs, and what they come to.

use std::collections::HashMap;
use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;
use sqlx::{SqliteConnection, SqlitePool};

use crate::store::history::{self, ChunkRow, RollupRow, chunk, possible_starts};
use crate::store::{SealedChunk, StoreResult, StoredRollup};

/// The number of its GPU, and a [`ChunkRow`].
type NumberedChunk = (i64, i64, i64, i64, i64, i64, Vec<u8>);

/// The number of its GPU, and a [`RollupRow`].
type NumberedRollup = (i64, i64, i64, i64, Option<Vec<u8>>);

/// Each possible key is looked up.
pub(super) async fn chunks(
    readers: &SqlitePool,
    gpus: &[GpuUuid],
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<Vec<SealedChunk>>> {
    let mut found: Vec<Vec<SealedChunk>> = gpus.iter().map(|_| Vec::new()).collect();
    let mut tx = readers.begin().await?;
    let ends: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk)",
    )
    .fetch_one(&mut *tx)
    .await?;
    let Some(ends) = ends.0.zip(ends.1) else {
        return Ok(found);
    };
    let asked = Asked::of(&mut tx, gpus, ends, (from, to)).await?;
    let rows: Vec<NumberedChunk> = sqlx::query_as(
        "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS number, value ->> 1 AS start FROM json_each($1))
         SELECT number, stretch_ms, length_ms, from_ms, to_ms, n_samples, blob FROM asked
             CROSS JOIN chunk ON stretch_ms = start AND gpu_id = number
             WHERE from_ms <= $2 AND $3 <= to_ms",
    )
    .bind(asked.keys())
    .bind(to.0)
    .bind(from.0)
    .fetch_all(&mut *tx)
    .await?;
    for (number, stretch, length, first, last, n_samples, blob) in rows {
        if let Some(place) = asked.place(number) {
            let row: ChunkRow = (stretch, length, first, last, n_samples, blob);
            found[place].push(chunk(&gpus[place], row));
        }
    }
    for of_gpu in &mut found {
        of_gpu.sort_by_key(|chunk| chunk.from);
    }
    Ok(found)
}

/// The same with sums, and without them where there are none.
pub(super) async fn rollups(
    readers: &SqlitePool,
    gpus: &[GpuUuid],
    step: Duration,
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<Vec<StoredRollup>>> {
    let mut found: Vec<Vec<RollupRow>> = gpus.iter().map(|_| Vec::new()).collect();
    let mut tx = readers.begin().await?;
    let step_s = step.as_secs() as i64;
    // One end a question: SQLite looks up the first or the last key for it, and walks over all of them for two at once.
    let ends: [Option<i64>; 4] = sqlx::query_as(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk),
            (SELECT min(stretch_ms) FROM rollup WHERE step_s = $1),
            (SELECT max(stretch_ms) FROM rollup WHERE step_s = $1)",
    )
    .bind(step_s)
    .fetch_one(&mut *tx)
    .await
    .map(|(a, b, c, d)| [a, b, c, d])?;
    let ends = || ends.into_iter().flatten();
    if let Some(ends) = ends().min().zip(ends().max()) {
        let asked = Asked::of(&mut tx, gpus, ends, (from, to)).await?;
        let rows: Vec<NumberedRollup> = sqlx::query_as(
            "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS number, value ->> 1 AS start FROM json_each($1))
             SELECT number, stretch_ms, from_ms, to_ms, blob FROM asked
                 CROSS JOIN rollup ON step_s = $4 AND stretch_ms = start AND gpu_id = number
                 WHERE from_ms <= $2 AND $3 <= to_ms
             UNION ALL
             SELECT number, stretch_ms, from_ms, to_ms, NULL FROM asked
                 CROSS JOIN chunk ON stretch_ms = start AND gpu_id = number
                 WHERE from_ms <= $2 AND $3 <= to_ms AND NOT EXISTS
                     (SELECT 1 FROM rollup WHERE step_s = $4 AND stretch_ms = start AND gpu_id = number)",
        )
        .bind(asked.keys())
        .bind(to.0)
        .bind(from.0)
        .bind(step_s)
        .fetch_all(&mut *tx)
        .await?;
        for (number, stretch, first, last, blob) in rows {
            if let Some(place) = asked.place(number) {
                found[place].push((stretch, first, last, blob));
            }
        }
    }
    let in_order = |mut rows: Vec<RollupRow>| {
        rows.sort_by_key(|(_, first, ..)| *first);
        history::rollups(rows)
    };
    Ok(found.into_iter().map(in_order).collect())
}

/// Where the stretches of some GPUs may lie.
struct Asked {
    /// Number of a GPU and start of a stretch.
    keys: Vec<(i64, i64)>,
    places: HashMap<i64, usize>,
}

impl Asked {
    /// `ends`: the first and the last start of anybody.
    async fn of(
        tx: &mut SqliteConnection,
        gpus: &[GpuUuid],
        ends: (i64, i64),
        (from, to): (Timestamp, Timestamp),
    ) -> StoreResult<Self> {
        let uuids: Vec<&str> = gpus.iter().map(GpuUuid::as_str).collect();
        let lengths: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT asked.key, gpu_id, length_ms FROM json_each($1) AS asked
                 CROSS JOIN gpu ON uuid = asked.value
                 CROSS JOIN gpu_stretch ON gpu_id = gpu.id",
        )
        .bind(serde_json::Value::from(uuids).to_string())
        .fetch_all(tx)
        .await?;
        let mut of_gpu: HashMap<i64, Vec<i64>> = HashMap::new();
        let mut places = HashMap::new();
        for (place, number, length_ms) in lengths {
            of_gpu.entry(number).or_default().push(length_ms);
            places.insert(number, place as usize);
        }
        let (first, last) = (Timestamp(ends.0.max(from.0)), Timestamp(ends.1.min(to.0)));
        let keys = of_gpu.into_iter().flat_map(|(number, lengths)| {
            let starts = possible_starts(&gpus[places[&number]], lengths, first, last);
            starts.into_iter().map(move |start| (number, start))
        });
        let keys = keys.collect();
        Ok(Self { keys, places })
    }

    fn place(&self, number: i64) -> Option<usize> {
        self.places.get(&number).copied()
    }

    fn keys(&self) -> String {
        serde_json::json!(self.keys).to_string()
    }
}
