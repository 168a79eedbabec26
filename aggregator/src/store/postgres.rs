//! The store on Postgres 14 or newer: one writer, readers beside it, and patience while the database is away.
//!
//! Writes go through one task (`writer`) and one connection, which holds an advisory lock: who does not hold it cannot
//! write, and a second aggregator waits. When the connection is lost, what was asked fails as unavailable and whoever
//! asked tries again; the writer connects anew, less and less often, up to every few seconds. It goes on only if nobody
//! else wrote meanwhile and nothing is missing. Chunks rest in a partition for each day; retention drops whole days.

mod address;
mod chunks;
mod dialect;
pub(super) mod error;
mod flush;
mod hand;
mod history;
mod loose;
mod partition;
mod place;
mod session;
mod sheets;
mod space;
mod sums;
mod transaction;

#[allow(
    clippy::duplicate_mod,
    reason = "one text for both databases, with types of each"
)]
#[path = "sql/compact.rs"]
mod compact;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "sql/decide.rs"]
mod decide;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "sql/events.rs"]
mod events;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "sql/read.rs"]
mod read;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "sql/retain.rs"]
mod retain;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "sql/stories.rs"]
mod stories;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::metric::MetricId;
use entrenar::report::HolderChange;
use entrenar::unit::Timestamp;
use futures_util::future::BoxFuture;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub use self::address::Address;
use self::hand::PostgresHand;
use self::partition::{CHUNKS, SUMS};
use super::fresh::Fresh;
use super::sums::Asked;
use super::writer::Writer;
use super::{
    Attempt, Durable, Flush, Hold, IncidentFilter, JournalPosition, JournalRow, NodeEvent,
    Recovered, Retention, SealedChunk, Store, StoreResult, StoredRollup,
};
use crate::incident::{Decision, Incident, NoticeState, NoticeStatus, TimelineEntry};

/// An open database.
#[derive(Debug)]
pub struct PostgresStore {
    readers: PgPool,
    fresh: Arc<Fresh>,
    writer: Writer,
    n_chunks_lost: Arc<AtomicU64>,
    superseded: CancellationToken,
}

impl PostgresStore {
    /// Opens the database and brings its schema up to date. `Unavailable`: it is away, or another aggregator has it;
    /// that passes, try again. Anything else is for the operator to put right.
    pub async fn open(address: &Address) -> StoreResult<Self> {
        let opened = session::open(address).await?;
        let n_chunks_lost = Arc::<AtomicU64>::default();
        let superseded = CancellationToken::new();
        let newest = opened.newest;
        let readers = session::readers(&opened.address);
        let fresh = Arc::new(Fresh::new(opened.newest_sums));
        let hand = PostgresHand::new(
            opened,
            Arc::clone(&n_chunks_lost),
            superseded.clone(),
            Arc::clone(&fresh),
        );
        Ok(Self {
            readers,
            fresh,
            writer: Writer::start(hand, newest),
            n_chunks_lost,
            superseded,
        })
    }

    /// How long the writer was held by each kind of work since the start: nothing else was written meanwhile.
    pub fn holds(&self) -> Vec<Hold> {
        self.writer.holds()
    }

    /// Sealed chunks that were given up since the start, because they or what was stored of their stretch is damaged.
    pub fn n_chunks_lost(&self) -> u64 {
        self.n_chunks_lost.load(Ordering::Relaxed)
    }

    /// Cancelled when another aggregator took the database while this one had lost it, or when the database came back
    /// without what it had. What this one knows is then out of date, and it writes nothing more: begin again.
    pub fn superseded(&self) -> CancellationToken {
        self.superseded.clone()
    }

    async fn drop_old(&self, retention: Retention) -> StoreResult<u64> {
        let before = retention.chunks_before;
        let chunks = partition::drop_old(&self.readers, &CHUNKS, before).await?;
        for sums in SUMS {
            let before = retention.before(sums.step);
            partition::drop_old(&self.readers, &sums.table, before).await?;
            partition::drop_old(&self.readers, &sums.sheets, before).await?;
        }
        let rest = self.writer.drop_old(&retention).await?;
        Ok(chunks + rest)
    }
}

impl Store for PostgresStore {
    fn commit(&self, flush: Flush) -> BoxFuture<'_, StoreResult<Durable>> {
        Box::pin(self.writer.commit(flush))
    }

    fn decide(&self, decision: Decision) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(self.writer.decide(decision))
    }

    fn recover(&self) -> BoxFuture<'_, StoreResult<Recovered>> {
        Box::pin(read::recover(&self.readers))
    }

    fn journal(
        &self,
        after: JournalPosition,
        limit: usize,
    ) -> BoxFuture<'_, StoreResult<Vec<JournalRow>>> {
        Box::pin(read::journal(&self.readers, after, limit))
    }

    fn chunks(
        &self,
        gpu: &GpuUuid,
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'_, StoreResult<Vec<SealedChunk>>> {
        Box::pin(history::chunks(&self.readers, gpu.clone(), from, to))
    }

    fn rollups<'a>(
        &'a self,
        gpus: &'a [GpuUuid],
        metrics: &'a [MetricId],
        step: Duration,
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<Vec<StoredRollup>>>> {
        let asked = Asked {
            gpus,
            metrics,
            step,
            from,
            to,
        };
        Box::pin(history::rollups(&self.readers, &self.fresh, asked))
    }

    fn cohorts<'a>(&'a self, gpus: &'a [GpuUuid]) -> BoxFuture<'a, StoreResult<Vec<i64>>> {
        Box::pin(history::cohorts(&self.readers, gpus))
    }

    fn holders<'a>(
        &'a self,
        gpus: &'a [GpuUuid],
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<HolderChange>>> {
        Box::pin(read::holders_between(&self.readers, gpus, from, to))
    }

    fn events<'a>(
        &'a self,
        nodes: &'a [NodeId],
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<NodeEvent>>> {
        Box::pin(events::between(&self.readers, nodes, from, to))
    }

    fn incidents(&self, filter: IncidentFilter) -> BoxFuture<'_, StoreResult<Vec<Incident>>> {
        Box::pin(stories::incidents(&self.readers, filter))
    }

    fn incident(
        &self,
        id: &str,
    ) -> BoxFuture<'_, StoreResult<Option<(Incident, Vec<TimelineEntry>, Vec<NoticeStatus>)>>> {
        Box::pin(stories::incident(&self.readers, id.to_owned()))
    }

    fn notices(
        &self,
        state: Option<NoticeState>,
        before: Option<(Timestamp, String)>,
        limit: usize,
    ) -> BoxFuture<'_, StoreResult<Vec<NoticeStatus>>> {
        Box::pin(stories::notices(&self.readers, state, before, limit))
    }

    fn pending_notices(&self) -> BoxFuture<'_, StoreResult<Vec<NoticeStatus>>> {
        Box::pin(stories::pending_notices(&self.readers))
    }

    fn record_attempts(&self, attempts: Vec<Attempt>) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(self.writer.record_attempts(attempts))
    }

    fn retain(&self, retention: Retention) -> BoxFuture<'_, StoreResult<u64>> {
        Box::pin(self.drop_old(retention))
    }

    fn compact(&self, now: Timestamp) -> BoxFuture<'_, StoreResult<u64>> {
        Box::pin(compact::all(&self.readers, &self.writer, now))
    }

    fn forget_node(&self, node: &NodeId) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(self.writer.forget_node(node.clone()))
    }

    /// Another aggregator may have the database.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.readers.close().await;
            self.writer.close().await;
        })
    }
}
