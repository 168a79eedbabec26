//! The store on SQLite: one file, one writer, readers beside it.
//!
//! WAL with `synchronous=FULL`: what a commit answered survives a power cut. Writes go through one task (`writer`) in
//! which a decision goes before any waiting commit; reads have a pool of read-only connections. A file that stands beside
//! the database is locked for as long as it is open, so that two aggregators never share one.

mod backup;
mod decide;
mod error;
mod flush;
mod open;
mod read;
mod retain;
mod stories;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::unit::Timestamp;
use futures_util::future::BoxFuture;
use sqlx::SqlitePool;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::retain::Old;
use self::writer::{Patient, Urgent, Writer};
use super::{
    Attempt, Durable, Flush, IncidentFilter, JournalPosition, JournalRow, Recovered, SealedChunk,
    Store, StoreError, StoreResult,
};
use crate::incident::{Decision, Incident, NoticeState, NoticeStatus, TimelineEntry};

pub use self::backup::backup;

/// Decisions and attempts that wait for the writer. When it is full, whoever decides waits: nothing is dropped.
const URGENT_QUEUE: usize = 256;

/// Commits and slices of retention that wait for the writer. When it is full, the line waits, stops reading its streams, and
/// the agents' spools absorb.
const PATIENT_QUEUE: usize = 16;

/// An open database.
#[derive(Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    urgent: mpsc::Sender<Urgent>,
    patient: mpsc::Sender<Patient>,
    writer: Mutex<Option<JoinHandle<()>>>,
    n_chunks_lost: Arc<AtomicU64>,
}

impl SqliteStore {
    /// Opens the database, or makes it, with the folders above it; brings its schema up to date. Refuses a file that
    /// another process has open, that is read-only, damaged, another program's, or written by a newer version.
    pub async fn open(path: &Path) -> StoreResult<Self> {
        let opened = open::open(path).await?;
        let (urgent, urgent_jobs) = mpsc::channel(URGENT_QUEUE);
        let (patient, patient_jobs) = mpsc::channel(PATIENT_QUEUE);
        let n_chunks_lost = Arc::<AtomicU64>::default();
        let lost = Arc::clone(&n_chunks_lost);
        let writer =
            Writer::new(opened.writer, opened.lock, urgent_jobs, patient_jobs, lost).await?;
        Ok(Self {
            readers: opened.readers,
            urgent,
            patient,
            writer: Mutex::new(Some(tokio::spawn(writer.run()))),
            n_chunks_lost,
        })
    }

    /// Finishes what is queued, folds the write-ahead log into the file and lets go of it. Later writes are refused as
    /// unavailable.
    pub async fn close(&self) {
        // Readers first: only the last connection folds the log into the file, and a read-only one cannot.
        self.readers.close().await;
        // A writer that is gone already has closed everything.
        let _ = self.patient.send(Patient::Close).await;
        if let Some(writer) = self.writer.lock().await.take() {
            let _ = writer.await;
        }
    }

    /// Sealed chunks that were given up since the start, because they or what was stored of their stretch is damaged.
    pub fn n_chunks_lost(&self) -> u64 {
        self.n_chunks_lost.load(Ordering::Relaxed)
    }

    async fn urgently<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<StoreResult<T>>) -> Urgent,
    ) -> StoreResult<T> {
        let (answer, answered) = oneshot::channel();
        self.urgent.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn patiently<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<StoreResult<T>>) -> Patient,
    ) -> StoreResult<T> {
        let (answer, answered) = oneshot::channel();
        self.patient.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Drops what is old slice by slice; commits go in between.
    async fn drop_old(
        &self,
        chunks_before: Timestamp,
        incidents_before: Timestamp,
    ) -> StoreResult<u64> {
        let mut total = 0;
        for old in Old::all(chunks_before, incidents_before) {
            loop {
                let (gone, more) = self
                    .patiently(|answer| Patient::Retain(old, answer))
                    .await?;
                total += gone;
                if !more {
                    break;
                }
            }
        }
        Ok(total)
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the database is closed".into())
}

impl Store for SqliteStore {
    fn commit(&self, flush: Flush) -> BoxFuture<'_, StoreResult<Durable>> {
        Box::pin(self.patiently(|answer| Patient::Commit(Box::new(flush), answer)))
    }

    fn decide(&self, decision: Decision) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(self.urgently(|answer| Urgent::Decide(decision, answer)))
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
        Box::pin(read::chunks(&self.readers, gpu.clone(), from, to))
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
        Box::pin(self.urgently(|answer| Urgent::Attempts(attempts, answer)))
    }

    fn retain(
        &self,
        chunks_before: Timestamp,
        incidents_before: Timestamp,
    ) -> BoxFuture<'_, StoreResult<u64>> {
        Box::pin(self.drop_old(chunks_before, incidents_before))
    }

    fn forget_node(&self, node: &NodeId) -> BoxFuture<'_, StoreResult<()>> {
        let node = node.clone();
        Box::pin(self.patiently(|answer| Patient::ForgetNode(node, answer)))
    }
}
