//! The one task that writes. Decisions go before any waiting commit, and between the slices of a long one.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use entrenar::gpu::NodeId;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::decide;
use super::flush::{self, Memory};
use super::retain::{self, Old};
use crate::incident::Decision;
use crate::store::{Attempt, Durable, Flush, JournalPosition, SealedChunk, StoreResult};

type Answer<T> = oneshot::Sender<StoreResult<T>>;

/// What people wait for.
pub(super) enum Urgent {
    Decide(Decision, Answer<()>),
    Attempts(Vec<Attempt>, Answer<()>),
}

/// What may wait a little.
pub(super) enum Patient {
    Commit(Box<Flush>, Answer<Durable>),
    /// One slice; answers how many rows that count are gone, and whether there are more.
    Retain(Old, Answer<(u64, bool)>),
    ForgetNode(NodeId, Answer<()>),
    Close,
    #[cfg(test)]
    Execute(&'static str, Answer<()>),
}

/// Chunks in one transaction: with the bytes below, at most some 20 ms for the writer.
const SLICE_CHUNKS: usize = 32;
/// Blob bytes in one transaction of chunks, unless one alone is longer.
const SLICE_BYTES: usize = 1024 * 1024;

pub(super) struct Writer {
    connection: SqliteConnection,
    /// Held as long as the connection.
    _lock: File,
    urgent: mpsc::Receiver<Urgent>,
    patient: mpsc::Receiver<Patient>,
    memory: Memory,
    newest: JournalPosition,
    /// Journal rows up to this one are to be deleted when there is time.
    forget: Option<JournalPosition>,
}

impl Writer {
    pub(super) async fn new(
        mut connection: SqliteConnection,
        lock: File,
        urgent: mpsc::Receiver<Urgent>,
        patient: mpsc::Receiver<Patient>,
        n_chunks_lost: Arc<AtomicU64>,
    ) -> StoreResult<Self> {
        let newest = flush::newest_position(&mut connection).await?;
        Ok(Self {
            connection,
            _lock: lock,
            urgent,
            patient,
            memory: Memory {
                n_chunks_lost,
                ..Memory::default()
            },
            newest,
            forget: None,
        })
    }

    /// Until told to close, or nobody is left who could ask.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(job) = self.urgent.recv() => self.do_urgent(job).await,
                Some(job) = self.patient.recv() => match job {
                    Patient::Close => break,
                    job => self.do_patient(job).await,
                },
                () = std::future::ready(()), if self.forget.is_some() => self.forget_some().await,
                else => break,
            }
        }
        self.urgent_first().await;
        if let Err(error) = self.connection.close().await {
            warn!(%error, "could not close the database in good order");
        }
    }

    /// Does everything urgent that waits.
    async fn urgent_first(&mut self) {
        while let Ok(job) = self.urgent.try_recv() {
            self.do_urgent(job).await;
        }
    }

    /// Whoever asked may have gone away; the work is done all the same.
    async fn do_urgent(&mut self, job: Urgent) {
        match job {
            Urgent::Decide(decision, answer) => {
                let _ = answer.send(decide::decide(&mut self.connection, decision).await);
            }
            Urgent::Attempts(attempts, answer) => {
                let _ = answer.send(decide::record_attempts(&mut self.connection, attempts).await);
            }
        }
    }

    async fn do_patient(&mut self, job: Patient) {
        match job {
            Patient::Commit(flush, answer) => {
                let result = self.commit(*flush).await;
                if result.is_err() {
                    // A number may have been given out in what was rolled back.
                    self.memory.numbers.clear();
                }
                let _ = answer.send(result);
                if self.forget.is_some() {
                    self.forget_some().await;
                }
            }
            Patient::Retain(old, answer) => {
                let _ = answer.send(retain::drop_some(&mut self.connection, old).await);
            }
            Patient::ForgetNode(node, answer) => {
                let _ = answer.send(flush::forget_node(&mut self.connection, &node).await);
            }
            Patient::Close => {}
            #[cfg(test)]
            Patient::Execute(sql, answer) => {
                let done = sqlx::raw_sql(sql).execute(&mut self.connection).await;
                let _ = answer.send(done.map(|_| ()).map_err(Into::into));
            }
        }
    }

    /// Chunks first, in transactions of their own: they hold only samples that are durable in the journal, and keeping one
    /// twice is harmless, so a crash in between costs nothing. Then the rest in one transaction. Forgetting journal rows
    /// comes last and in slices: a row too many is harmless as well.
    async fn commit(&mut self, mut flush: Flush) -> StoreResult<Durable> {
        let mut sealed = std::mem::take(&mut flush.sealed);
        while !sealed.is_empty() {
            let rest = sealed.split_off(slice_length(&sealed));
            self.urgent_first().await;
            flush::keep_chunks(&mut self.connection, &mut self.memory, sealed).await?;
            sealed = rest;
        }
        let forget = flush.forget_journal.take();
        if flush != Flush::default() {
            self.urgent_first().await;
            let position = flush::keep(&mut self.connection, &mut self.memory, flush).await?;
            self.newest = position.unwrap_or(self.newest);
        }
        self.forget = self.forget.max(forget);
        Ok(Durable {
            position: self.newest,
        })
    }

    /// A slice of what is to be forgotten. A failure is tried again with the next flush that forgets.
    async fn forget_some(&mut self) {
        let Some(last) = self.forget else { return };
        match flush::forget_journal(&mut self.connection, last).await {
            Ok(true) => {}
            Ok(false) => self.forget = None,
            Err(error) => {
                warn!(%error, "could not forget old journal rows");
                self.forget = None;
            }
        }
    }
}

/// Begins a transaction that writes; [`finish`] ends it. Not sqlx's own: SQLite rolls back by itself when the disk is full,
/// and sqlx then counts a transaction that is no longer there.
pub(super) async fn begin(db: &mut SqliteConnection) -> StoreResult<()> {
    sqlx::query("BEGIN IMMEDIATE").execute(db).await?;
    Ok(())
}

/// Commits what went well, and undoes the rest.
pub(super) async fn finish<T>(db: &mut SqliteConnection, done: StoreResult<T>) -> StoreResult<T> {
    let done = match done {
        Ok(value) => match sqlx::query("COMMIT").execute(&mut *db).await {
            Ok(_) => return Ok(value),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error),
    };
    // Fails where SQLite rolled back by itself: then there is nothing to undo.
    let _ = sqlx::query("ROLLBACK").execute(db).await;
    done
}

/// How many chunks, at least one, go into the next transaction.
fn slice_length(sealed: &[SealedChunk]) -> usize {
    let mut bytes = 0;
    let fitting = sealed.iter().take(SLICE_CHUNKS).take_while(|chunk| {
        bytes += chunk.blob.len();
        bytes <= SLICE_BYTES
    });
    fitting.count().max(1)
}
