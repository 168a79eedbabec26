//! What GPUs reported beside their samples.
//!
//! One text for all databases: compiled once as a module of each.

use std::collections::HashSet;

use entrenar::gpu::NodeId;
use entrenar::report::{GpuEvent, GpuEventKind};
use entrenar::unit::Timestamp;

use super::dialect::{Connection, Pool, text};
use crate::store::{NodeEvent, StoreResult};

/// They are few: one by one.
pub(super) async fn keep(tx: &mut Connection, events: &[NodeEvent]) -> StoreResult<()> {
    for NodeEvent { node, event } in events {
        let GpuEventKind::Xid(xid) = event.what;
        sqlx::query(
            "INSERT INTO gpu_event (at_ms, node, gpu, xid) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(event.at.0)
        .bind(text(node.as_str()))
        .bind(text(event.gpu.as_ref().map_or("", |gpu| gpu.as_str())))
        .bind(xid as i64)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Those of some nodes between two instants, both included, ascending.
pub(super) async fn between(
    readers: &Pool,
    nodes: &[NodeId],
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<NodeEvent>> {
    let rows: Vec<(i64, String, String, i64)> = sqlx::query_as(
        "SELECT at_ms, node, gpu, xid FROM gpu_event WHERE at_ms BETWEEN $1 AND $2 ORDER BY at_ms, node, gpu, xid",
    )
    .bind(from.0)
    .bind(to.0)
    .fetch_all(readers)
    .await?;
    let asked: HashSet<&str> = nodes.iter().map(NodeId::as_str).collect();
    let event = |(at, node, gpu, xid): (i64, String, String, i64)| NodeEvent {
        node: node.as_str().into(),
        event: GpuEvent {
            at: Timestamp(at),
            gpu: (!gpu.is_empty()).then(|| gpu.into()),
            what: GpuEventKind::Xid(xid as u64),
        },
    };
    let rows = rows
        .into_iter()
        .filter(|row| asked.contains(row.1.as_str()));
    Ok(rows.map(event).collect())
}
