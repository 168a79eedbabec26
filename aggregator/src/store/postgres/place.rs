//! Numbers of GPUs and nodes, and which node key a GPU has.

use std::collections::{BTreeMap, HashMap};

use entrenar::gpu::GpuUuid;
use entrenar::report::Hello;
use sqlx::postgres::PgConnection;

use super::dialect::text;
use crate::store::StoreResult;

/// Of a GPU whose node was not known when its first row came.
const NOWHERE: i64 = 0;

/// Under which numbers a GPU's rows stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) gpu: i64,
    pub(super) node: i64,
}

/// Those that were asked for since the connection was made: as many as there are GPUs.
pub(super) type Places = HashMap<GpuUuid, Place>;

/// Makes sure that `places` has these GPUs; gives numbers to those that are new.
pub(super) async fn find(
    tx: &mut PgConnection,
    places: &mut Places,
    gpus: impl Iterator<Item = &GpuUuid>,
) -> StoreResult<()> {
    let unknown: BTreeMap<String, &GpuUuid> = gpus
        .filter(|gpu| !places.contains_key(*gpu))
        .map(|gpu| (text(gpu.as_str()), gpu))
        .collect();
    place(tx, places, unknown, NOWHERE).await
}

/// Makes sure that the GPUs of these agents have numbers, and their nodes as node keys where they are new.
pub(super) async fn settle(
    tx: &mut PgConnection,
    places: &mut Places,
    hellos: &[&Hello],
) -> StoreResult<()> {
    for hello in hellos {
        let gpus = hello.inventories.iter().flat_map(|i| &i.gpus);
        let unknown: BTreeMap<String, &GpuUuid> = gpus
            .map(|gpu| &gpu.uuid)
            .filter(|gpu| !places.contains_key(*gpu))
            .map(|gpu| (text(gpu.as_str()), gpu))
            .collect();
        if !unknown.is_empty() {
            let node = number_of(tx, &text(hello.node.as_str())).await?;
            place(tx, places, unknown, node).await?;
        }
    }
    Ok(())
}

async fn number_of(tx: &mut PgConnection, node: &str) -> StoreResult<i64> {
    sqlx::query(
        "INSERT INTO node (name) SELECT $1 WHERE NOT EXISTS (SELECT FROM node WHERE name = $1)",
    )
    .bind(node)
    .execute(&mut *tx)
    .await?;
    let number = sqlx::query_scalar("SELECT id FROM node WHERE name = $1")
        .bind(node)
        .fetch_one(tx)
        .await?;
    Ok(number)
}

async fn place(
    tx: &mut PgConnection,
    places: &mut Places,
    unknown: BTreeMap<String, &GpuUuid>,
    node: i64,
) -> StoreResult<()> {
    if unknown.is_empty() {
        return Ok(());
    }
    let uuids: Vec<&str> = unknown.keys().map(String::as_str).collect();
    sqlx::query(
        "INSERT INTO gpu (uuid, node_id) SELECT new.uuid, $2 FROM unnest($1::text[]) AS new (uuid)
         WHERE NOT EXISTS (SELECT FROM gpu WHERE gpu.uuid = new.uuid)",
    )
    .bind(&uuids)
    .bind(node)
    .execute(&mut *tx)
    .await?;
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT uuid, id, node_id FROM gpu WHERE uuid = ANY ($1)")
            .bind(&uuids)
            .fetch_all(tx)
            .await?;
    for (uuid, gpu, node) in rows {
        if let Some(known) = unknown.get(&uuid) {
            places.insert((*known).clone(), Place { gpu, node });
        }
    }
    Ok(())
}
