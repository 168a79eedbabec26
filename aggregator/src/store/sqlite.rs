//! The store on SQLite: one file, one writer, readers beside it.
//!
//! WAL with `synchronous=FULL`: what a commit answered survives a power cut. Writes go through one task (`writer`) in
//! which a decision goes before any waiting commit; reads have a pool of read-only connections. A file that stands beside
//! the database is locked for as long as it is open, so that two aggregators never share one.

mod backup;
mod dialect;
mod directory;
pub(super) mod error;
mod flush;
mod folding;
mod hand;
mod history;
mod loose;
mod open;
mod recover;
mod sheets;
mod space;
mod transaction;

#[path = "sql/compact.rs"]
mod compact;
#[path = "sql/decide.rs"]
mod decide;
#[path = "sql/events.rs"]
mod events;
#[path = "sql/read.rs"]
mod read;
#[path = "sql/retain.rs"]
mod retain;
#[path = "sql/stories.rs"]
mod stories;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::metric::MetricId;
use entrenar::report::HolderChange;
use entrenar::unit::Timestamp;
use futures_util::future::BoxFuture;
use sqlx::SqlitePool;

use self::directory::Directory;
use self::folding::Folding;
use self::hand::SqliteHand;
use super::fresh::Fresh;
use super::sums::Asked;
use super::writer::Writer;
use super::{
    Attempt, Durable, Flush, Hold, IncidentFilter, JournalPosition, JournalRow, NodeEvent,
    Recovered, Retention, SealedChunk, Store, StoreResult, StoredRollup,
};
use crate::incident::{Decision, Incident, NoticeState, NoticeStatus, TimelineEntry};

pub use self::backup::backup;
pub use self::recover::{Salvaged, recover};

/// An open database.
#[derive(Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    directory: Directory,
    fresh: Arc<Fresh>,
    writer: Writer,
    folding: Folding,
    n_chunks_lost: Arc<AtomicU64>,
}

impl SqliteStore {
    /// Opens the database, or makes it, with the folders above it; brings its schema up to date. Refuses a file that
    /// another process has open, that is read-only, damaged, another program's, or written by a newer version.
    pub async fn open(path: &Path) -> StoreResult<Self> {
        let opened = open::open(path).await?;
        let n_chunks_lost = Arc::<AtomicU64>::default();
        let mut writer = opened.writer;
        let fresh = Arc::new(Fresh::new(history::newest_alone(&mut writer).await?));
        let n_lost = Arc::clone(&n_chunks_lost);
        let mut hand = SqliteHand::new(writer, opened.lock, n_lost, Arc::clone(&fresh));
        let newest = hand.newest_position().await?;
        let folding = Folding::start(path, hand.written()).await?;
        Ok(Self {
            readers: opened.readers,
            directory: Directory::new(hand.new_lengths()),
            fresh,
            writer: Writer::start(hand, newest),
            folding,
            n_chunks_lost,
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
}

impl Store for SqliteStore {
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
        let gpu = gpu.clone();
        Box::pin(async move {
            let found = history::chunks(&self.readers, &self.directory, &[gpu], (from, to)).await?;
            Ok(found.into_iter().flatten().collect())
        })
    }

    fn chunks_of<'a>(
        &'a self,
        gpus: &'a [GpuUuid],
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<Vec<SealedChunk>>>> {
        Box::pin(history::chunks(
            &self.readers,
            &self.directory,
            gpus,
            (from, to),
        ))
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
        let (readers, directory) = (&self.readers, &self.directory);
        Box::pin(history::rollups(readers, directory, &self.fresh, asked))
    }

    fn cohorts<'a>(&'a self, gpus: &'a [GpuUuid]) -> BoxFuture<'a, StoreResult<Vec<i64>>> {
        Box::pin(history::cohorts(&self.readers, &self.directory, gpus))
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
        Box::pin(async move { self.writer.drop_old(&retention).await })
    }

    fn compact(&self, now: Timestamp) -> BoxFuture<'_, StoreResult<u64>> {
        Box::pin(compact::all(&self.readers, &self.writer, now))
    }

    fn forget_node(&self, node: &NodeId) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(self.writer.forget_node(node.clone()))
    }

    /// The write-ahead log is folded into the file.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Readers first: only the last connection folds the log into the file, and a read-only one cannot.
            self.readers.close().await;
            self.folding.stop().await;
            self.writer.close().await;
        })
    }
}
