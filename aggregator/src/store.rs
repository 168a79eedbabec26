//! Where everything that must survive a crash rests.
//!
//! One seam, `Store`, kept by SQLite, by Postgres, and by memory in tests; one contract test runs on all.
//! `decide` goes before any waiting `commit`.

pub mod journal;
pub mod memory;
pub mod postgres;
pub mod sqlite;

mod compact;
mod error;
mod filter;
mod fresh;
mod history;
mod hold;
mod merge;
mod migrate;
mod retain;
mod sums;
mod writer;

#[cfg(test)]
mod contract;

pub use hold::Hold;
pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

use std::time::Duration;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::metric::MetricId;
use entrenar::report::{GpuEvent, Hello, HolderChange, StreamId};
use entrenar::unit::Timestamp;
use futures_util::future::BoxFuture;

use crate::andon::CordKey;
use crate::incident::{Decision, Incident, NoticeState, NoticeStatus, TimelineEntry};
use crate::rollup::Sums;

/// Number of a journal row; rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalPosition(pub i64);

/// What the journal keeps, in the order in which it reached the line: enough to do everything again.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalEntry {
    /// An agent introduced itself. `bytes`: the encoded hello.
    Hello {
        received_at: Timestamp,
        stream: StreamId,
        bytes: Vec<u8>,
    },
    /// An accepted record. `bytes`: the encoded record, as it came.
    Record {
        received_at: Timestamp,
        sent_at: Timestamp,
        stream: StreamId,
        bytes: Vec<u8>,
    },
    /// An agent left in good order.
    Goodbye {
        received_at: Timestamp,
        stream: StreamId,
    },
    /// The engine's clock was moved.
    Advance { to: Timestamp },
}

/// A sealed stretch of one GPU: a blob of `chunk`.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedChunk {
    pub gpu: GpuUuid,
    /// Start of the stretch; with the GPU the key. Sealing the same stretch again merges with what is stored.
    pub stretch: Timestamp,
    /// Length of the stretch: from it and the UUID all starts follow, which is how a reader finds its chunks.
    pub length_ms: u32,
    /// First and last sample.
    pub from: Timestamp,
    pub to: Timestamp,
    pub n_samples: u32,
    pub blob: Vec<u8>,
}

/// A stored stretch of one GPU, summed up.
#[derive(Clone, Debug)]
pub struct StoredRollup {
    pub stretch: Timestamp,
    /// First and last sample.
    pub from: Timestamp,
    pub to: Timestamp,
    /// `None`: only its samples are stored.
    pub sums: Option<Sums>,
}

/// How long what is kept: everything before these instants may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub chunks_before: Timestamp,
    /// Sums by the minute and by the hour.
    pub minutes_before: Timestamp,
    pub hours_before: Timestamp,
    /// Resolved incidents and settled notices.
    pub incidents_before: Timestamp,
}

impl Retention {
    /// Before when sums of this step may go.
    pub fn before(&self, step: Duration) -> Timestamp {
        if step < Duration::from_hours(1) {
            self.minutes_before
        } else {
            self.hours_before
        }
    }
}

/// What a node's agent reported of a GPU at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    pub node: NodeId,
    /// Its time is corrected by the agent's clock.
    pub event: GpuEvent,
}

/// How far a stream is durable, with what is needed to know it again after a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamMark {
    pub hello: Hello,
    /// Inclusive ranges of sequence numbers, ascending.
    pub durable: Vec<(u64, u64)>,
    pub last_received_at: Timestamp,
    /// Whether the agent said goodbye last.
    pub gone: bool,
}

/// The engine's memory, and the journal row up to which it is contained.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// On commit the store puts in the row that the same flush becomes (the newest row, if it has no journal).
    pub position: JournalPosition,
    pub taken_at: Timestamp,
    pub bytes: Vec<u8>,
}

/// One group commit: all of it or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flush {
    pub journal: Vec<JournalEntry>,
    pub sealed: Vec<SealedChunk>,
    pub marks: Vec<StreamMark>,
    pub holders: Vec<HolderChange>,
    pub events: Vec<NodeEvent>,
    pub snapshot: Option<Snapshot>,
    /// Journal rows up to and including this one are no longer needed.
    pub forget_journal: Option<JournalPosition>,
}

/// Proof that a flush survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The row that holds the flush's journal; the newest row if the flush had none.
    pub position: JournalPosition,
}

/// What a start needs besides the journal.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    pub streams: Vec<StreamMark>,
    pub snapshot: Option<Snapshot>,
    /// Open ones, and those that a person closed while their cord was still raised (`state` is `Closed`, `resolution`
    /// is `Closed`): such a cord opens nothing new until it has cleared.
    pub open_incidents: Vec<Incident>,
    pub cords: Vec<(CordKey, Timestamp)>,
    /// Holders at the moment: the newest change of each GPU.
    pub holders: Vec<HolderChange>,
    /// Oldest and newest journal row.
    pub journal: Option<(JournalPosition, JournalPosition)>,
}

/// Which incidents.
#[derive(Clone, Debug, Default)]
pub struct IncidentFilter {
    /// `Some(true)`: open ones; `Some(false)`: resolved or closed ones.
    pub open: Option<bool>,
    pub kind: Option<String>,
    pub severity: Option<String>,
    /// `Some(true)`: those of rules that are on trial; `Some(false)`: all others.
    pub shadow: Option<bool>,
    pub node: Option<String>,
    pub job: Option<String>,
    /// Newest first, strictly before this (`fired_at`, id).
    pub before: Option<(Timestamp, String)>,
    pub limit: usize,
}

/// What became of an attempt to deliver.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub delivery_id: String,
    pub at: Timestamp,
    pub state: NoticeState,
    pub next_attempt_at: Option<Timestamp>,
    pub error: Option<String>,
}

/// Why the store could not do it. A variant per different reaction.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Wait and try again; nothing was kept.
    #[error("the database is busy or away: {0}")]
    Unavailable(String),
    /// Free space, then it goes on by itself; nothing was kept.
    #[error(
        "the disk is full: free space on the volume of the database, it goes on by itself ({0})"
    )]
    Full(String),
    /// The operator must act.
    #[error("the database is read-only: {0}")]
    ReadOnly(String),
    /// The operator must act.
    #[error(
        "the database was written by a newer version of entrenar (schema {found}, this build knows {known}): install that version, or restore a backup"
    )]
    NewerSchema { found: i64, known: i64 },
    /// The operator must act.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// A defect of ours.
    #[error("the database refused: {0}")]
    Refused(String),
}

pub type StoreResult<T> = Result<T, StoreError>;

/// A row of the journal: one group commit.
pub type JournalRow = (JournalPosition, Vec<JournalEntry>);

/// The contract: every future may be called from any task; writes are serialised inside.
pub trait Store: Send + Sync + 'static {
    /// Keeps all of a flush or none, and answers only when it survives a crash. Keeping the same thing twice is
    /// harmless.
    fn commit(&self, flush: Flush) -> BoxFuture<'_, StoreResult<Durable>>;

    /// Incidents, their timeline and what is to be told, in one transaction, before any waiting `commit`.
    /// A row not newer than the stored one (`last_transition_at`, `ordinal`) is left as it is; at most one incident
    /// is open per cord.
    fn decide(&self, decision: Decision) -> BoxFuture<'_, StoreResult<()>>;

    /// What a start needs.
    fn recover(&self) -> BoxFuture<'_, StoreResult<Recovered>>;

    /// Up to `limit` journal rows after `after`, oldest first. One that is damaged is named in the log, and empty: it must
    /// not keep the fleet from being watched.
    fn journal(
        &self,
        after: JournalPosition,
        limit: usize,
    ) -> BoxFuture<'_, StoreResult<Vec<JournalRow>>>;

    /// Sealed chunks of a GPU that overlap `from..=to`, oldest first.
    fn chunks(
        &self,
        gpu: &GpuUuid,
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'_, StoreResult<Vec<SealedChunk>>>;

    /// The same stretches of several GPUs, in their order, summed up by one step of `rollup::STEPS`, oldest first; also those
    /// whose chunk is dropped by now. What is asked of the sums are these metrics; they may have others.
    fn rollups<'a>(
        &'a self,
        gpus: &'a [GpuUuid],
        metrics: &'a [MetricId],
        step: Duration,
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<Vec<StoredRollup>>>>;

    /// [`chunks`](Self::chunks) of several GPUs, in their order.
    fn chunks_of<'a>(
        &'a self,
        gpus: &'a [GpuUuid],
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<Vec<SealedChunk>>>> {
        Box::pin(async move {
            let mut found = Vec::with_capacity(gpus.len());
            for gpu in gpus {
                found.push(self.chunks(gpu, from, to).await?);
            }
            Ok(found)
        })
    }

    /// For each of these GPUs a number: sums of those that have the same are read together for little more than those of one.
    fn cohorts<'a>(&'a self, gpus: &'a [GpuUuid]) -> BoxFuture<'a, StoreResult<Vec<i64>>> {
        let none = vec![0; gpus.len()];
        Box::pin(std::future::ready(Ok(none)))
    }

    /// Changes of holder of these GPUs that say who held them between two instants: the one that holds at `from`, and those
    /// after it up to `to`; in any order.
    fn holders<'a>(
        &'a self,
        gpus: &'a [GpuUuid],
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<HolderChange>>>;

    /// What the agents of these nodes reported between two instants, both included, ascending by time.
    fn events<'a>(
        &'a self,
        nodes: &'a [NodeId],
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<NodeEvent>>>;

    /// Newest first, at most `filter.limit`.
    fn incidents(&self, filter: IncidentFilter) -> BoxFuture<'_, StoreResult<Vec<Incident>>>;

    /// One incident with its story and messages.
    #[allow(clippy::type_complexity)]
    fn incident(
        &self,
        id: &str,
    ) -> BoxFuture<'_, StoreResult<Option<(Incident, Vec<TimelineEntry>, Vec<NoticeStatus>)>>>;

    /// Notices, newest first, strictly before (`created_at`, delivery id); `state: None` for all.
    fn notices(
        &self,
        state: Option<NoticeState>,
        before: Option<(Timestamp, String)>,
        limit: usize,
    ) -> BoxFuture<'_, StoreResult<Vec<NoticeStatus>>>;

    /// Every pending notice, oldest first: what a start must still deliver.
    fn pending_notices(&self) -> BoxFuture<'_, StoreResult<Vec<NoticeStatus>>>;

    /// Records attempts and their outcome.
    fn record_attempts(&self, attempts: Vec<Attempt>) -> BoxFuture<'_, StoreResult<()>>;

    /// Drops what is older than the retention. Works in slices that hold the writer for at most 20 ms. A store that
    /// drops whole partitions keeps what is in them a partition longer: chunks a day.
    fn retain(&self, retention: Retention) -> BoxFuture<'_, StoreResult<u64>>;

    /// Lays together the sums of stretches that are over by now, so that there is less to store and to read. No answer
    /// changes. Answers how many rows went. Works in slices that hold the writer for at most 20 ms.
    fn compact(&self, _now: Timestamp) -> BoxFuture<'_, StoreResult<u64>> {
        Box::pin(std::future::ready(Ok(0)))
    }

    /// Forgets a node: its streams, so that it is no longer expected.
    fn forget_node(&self, node: &NodeId) -> BoxFuture<'_, StoreResult<()>>;

    /// Finishes what is queued and lets go of the database in good order: whoever opens it next finds nothing to put
    /// right. Later writes are refused as unavailable; a store in memory has nothing to let go of, and goes on.
    fn close(&self) -> BoxFuture<'_, ()>;
}
