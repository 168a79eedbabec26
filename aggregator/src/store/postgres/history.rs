//! Chunks of one GPU, and what they come to.

use std::collections::HashMap;

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

use super::dialect::text;
use super::partition;
use super::sheets;
use crate::rollup::STEPS;
use crate::store::compact::cohort;
use crate::store::fresh::Fresh;
use crate::store::history::{ChunkRow, chunk};
use crate::store::sums::{
    Asked, Ends, Gathering, Known, NumberedRollup, StretchKey, keys, of_anybody,
};
use crate::store::{SealedChunk, StoreResult, StoredRollup};

/// Each possible key is looked up; partitions that have none of them are left alone, and with the node key the question
/// goes to one shard.
pub(super) async fn chunks(
    readers: &PgPool,
    gpu: GpuUuid,
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<SealedChunk>> {
    let mut tx = readers.begin().await?;
    let ends: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk)",
    )
    .fetch_one(&mut *tx)
    .await?;
    let Some(ends) = ends.0.zip(ends.1) else {
        return Ok(Vec::new());
    };
    let gpus = std::slice::from_ref(&gpu);
    let (known, nodes) = known(&mut tx, gpus).await?;
    let Some((number, node)) = nodes.into_iter().next() else {
        return Ok(Vec::new());
    };
    let keys = keys(gpus, &known, ends, (from, to), |_| true);
    let starts: Vec<i64> = keys.into_iter().map(|(_, start)| start).collect();
    let rows: Vec<ChunkRow> = sqlx::query_as(
        "SELECT stretch_ms, length_ms, from_ms, to_ms, n_samples, blob FROM chunk
         WHERE stretch_ms = ANY ($1) AND gpu_id = $2 AND node_id = $3 AND from_ms <= $4 AND $5 <= to_ms
         ORDER BY from_ms",
    )
    .bind(starts)
    .bind(number)
    .bind(node)
    .bind(to.0)
    .bind(from.0)
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows.into_iter().map(|row| chunk(&gpu, row)).collect())
}

/// Number of a GPU, its node key, and a length of its stretches.
type Length = (i64, i64, Option<i64>);

/// What is known of these GPUs; and their node keys by number.
async fn known(
    db: &mut PgConnection,
    gpus: &[GpuUuid],
) -> StoreResult<(Vec<Option<Known>>, HashMap<i64, i64>)> {
    let uuids: Vec<String> = gpus.iter().map(|gpu| text(gpu.as_str())).collect();
    let rows: Vec<(i64, i64, i64, Option<i64>)> = sqlx::query_as(
        "SELECT asked.place, gpu.id, node_id, length_ms
         FROM unnest($1::text[]) WITH ORDINALITY AS asked (uuid, place)
             JOIN gpu ON gpu.uuid = asked.uuid LEFT JOIN gpu_stretch ON gpu_id = gpu.id",
    )
    .bind(uuids)
    .fetch_all(db)
    .await?;
    let mut of_place: HashMap<i64, Vec<Length>> = HashMap::new();
    for (place, number, node, length_ms) in rows {
        let lengths = of_place.entry(place).or_default();
        lengths.push((number, node, length_ms));
    }
    let nodes = of_place.values().flatten();
    let nodes = nodes.map(|(number, node, _)| (*number, *node)).collect();
    let known = |place: usize| {
        let lengths = of_place.get(&(place as i64 + 1))?;
        Some(Known {
            number: lengths.first()?.0,
            lengths: lengths
                .iter()
                .filter_map(|(_, _, length)| *length)
                .collect(),
        })
    };
    Ok(((0..gpus.len()).map(known).collect(), nodes))
}

/// The cohort of each; of one that the database does not know, none that there is.
pub(super) async fn cohorts(readers: &PgPool, gpus: &[GpuUuid]) -> StoreResult<Vec<i64>> {
    let (known, _) = known(&mut *readers.acquire().await?, gpus).await?;
    let of = |known: &Option<Known>| known.as_ref().map_or(-1, |known| cohort(known.number));
    Ok(known.iter().map(of).collect())
}

/// Sums of stretches: those in sheets, those that lie alone, and stretches that have none.
pub(super) async fn rollups(
    readers: &PgPool,
    fresh: &Fresh,
    asked: Asked<'_>,
) -> StoreResult<Vec<Vec<StoredRollup>>> {
    let mut reader = readers.acquire().await?;
    let (table, sheets) = (
        partition::table_of(asked.step),
        partition::sheets_of(asked.step).name(),
    );
    // The names of tables are ours, here and below.
    let ends = AssertSqlSafe(format!(
        "SELECT (SELECT min(stretch_ms) FROM chunk), (SELECT max(stretch_ms) FROM chunk),
             (SELECT min(stretch_ms) FROM {table}), (SELECT max(stretch_ms) FROM {table}),
             (SELECT min(window_ms) FROM {sheets}), (SELECT max(window_ms) FROM {sheets})"
    ));
    let ends: Ends = sqlx::query_as(ends).fetch_one(&mut *reader).await?;
    let Some(ends) = of_anybody(asked.step, ends) else {
        return Ok(asked.gpus.iter().map(|_| Vec::new()).collect());
    };
    let (known, nodes) = known(&mut reader, asked.gpus).await?;
    let mut gathering = Gathering::new(asked, &known, ends, fresh);
    let mut tx = reader.begin().await?;
    let (groups, extent) = (gathering.groups(), (asked.from, asked.to));
    let there = sheets::read(&mut tx, asked.step, &groups, &asked.sheets(), extent).await?;
    gathering.sheets(&there);
    if let Some((summed, unsummed)) = gathering.left() {
        let left = summed.iter().chain(unsummed);
        let rows = alone(&mut tx, asked, left.copied(), &nodes).await?;
        gathering.rows(rows);
    }
    Ok(gathering.finish())
}

/// Sums in rows of their own, and chunks that have none. With the node key the question goes to few shards.
async fn alone(
    tx: &mut PgConnection,
    asked: Asked<'_>,
    keys: impl Iterator<Item = StretchKey>,
    nodes: &HashMap<i64, i64>,
) -> StoreResult<Vec<NumberedRollup>> {
    let table = partition::table_of(asked.step);
    let (mut numbers, mut starts, mut of_nodes) = (Vec::new(), Vec::new(), Vec::new());
    for (number, start) in keys {
        numbers.push(number);
        starts.push(start);
        of_nodes.push(nodes.get(&number).copied().unwrap_or_default());
    }
    // Parts of the tables that have none of them are left alone. The two tables are compared by their own columns: so Citus sees
    // that rows of both lie on one shard.
    let first = starts.iter().min().copied().unwrap_or_default();
    let last = starts.iter().max().copied().unwrap_or_default();
    let sql = AssertSqlSafe(format!(
        "WITH asked AS MATERIALIZED
             (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS asked (number, start, node))
         SELECT number, stretch_ms, from_ms, to_ms, blob FROM asked
             JOIN {table} ON stretch_ms = start AND gpu_id = number AND node_id = node
             WHERE stretch_ms BETWEEN $6 AND $7 AND from_ms <= $4 AND $5 <= to_ms
         UNION ALL
         SELECT number, stretch_ms, from_ms, to_ms, NULL FROM asked
             JOIN chunk ON stretch_ms = start AND gpu_id = number AND node_id = node
             WHERE stretch_ms BETWEEN $6 AND $7 AND from_ms <= $4 AND $5 <= to_ms
                 AND NOT EXISTS (SELECT FROM {table} AS sums WHERE sums.stretch_ms = chunk.stretch_ms
                     AND sums.gpu_id = chunk.gpu_id AND sums.node_id = chunk.node_id)"
    ));
    let rows = sqlx::query_as(sql)
        .bind(numbers)
        .bind(starts)
        .bind(of_nodes)
        .bind(asked.to.0)
        .bind(asked.from.0)
        .bind(first)
        .bind(last)
        .fetch_all(tx)
        .await?;
    Ok(rows)
}

/// Of each step, where the newest stretch begins that there is, summed up or not.
pub(super) async fn newest_alone(db: &mut PgConnection) -> StoreResult<[Option<i64>; STEPS.len()]> {
    let mut newest = [None; STEPS.len()];
    for (newest, step) in newest.iter_mut().zip(STEPS) {
        let sql = AssertSqlSafe(format!(
            "SELECT greatest((SELECT max(stretch_ms) FROM {}), (SELECT max(stretch_ms) FROM chunk))",
            partition::table_of(step)
        ));
        *newest = sqlx::query_scalar(sql).fetch_one(&mut *db).await?;
    }
    Ok(newest)
}
