//! The connection that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entrenar::gpu::NodeId;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::watch;

use super::flush::{self, Memory};
use super::open::Lock;
use super::{decide, loose, retain};
use crate::incident::Decision;
use crate::store::compact::Change;
use crate::store::fresh::{Dropped, Fresh};
use crate::store::retain::{Old, Slice};
use crate::store::writer::Hand;
use crate::store::{Attempt, Flush, JournalPosition, SealedChunk, StoreResult};

pub(super) struct SqliteHand {
    connection: SqliteConnection,
    /// Held as long as the connection.
    _lock: Lock,
    memory: Memory,
    /// Changes with every write.
    written: watch::Sender<u64>,
    /// Rises when a stretch of a new length was committed.
    new_lengths: Arc<AtomicU64>,
    fresh: Arc<Fresh>,
}

impl SqliteHand {
    pub(super) fn new(
        connection: SqliteConnection,
        lock: Lock,
        n_chunks_lost: Arc<AtomicU64>,
        fresh: Arc<Fresh>,
    ) -> Self {
        Self {
            connection,
            _lock: lock,
            memory: Memory {
                n_chunks_lost,
                ..Memory::default()
            },
            written: watch::Sender::new(0),
            new_lengths: Arc::default(),
            fresh,
        }
    }

    /// Rises when a stretch of a new length was committed.
    pub(super) fn new_lengths(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.new_lengths)
    }

    /// Changes with every write.
    pub(super) fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// The newest journal row ever, even if it is forgotten by now.
    pub(super) async fn newest_position(&mut self) -> StoreResult<JournalPosition> {
        flush::newest_position(&mut self.connection).await
    }

    fn after<T>(&mut self, done: StoreResult<T>) -> StoreResult<T> {
        self.written.send_modify(|n| *n += 1);
        if std::mem::take(&mut self.memory.has_new_length) {
            self.new_lengths.fetch_add(1, Ordering::Release);
        }
        if done.is_err() {
            // A number may have been given out in what was rolled back.
            self.memory.numbers.clear();
        }
        done
    }
}

impl Hand for SqliteHand {
    async fn decide(&mut self, decision: Decision) -> StoreResult<()> {
        let done = decide::decide(&mut self.connection, decision).await;
        self.after(done)
    }

    async fn record_attempts(&mut self, attempts: Vec<Attempt>) -> StoreResult<()> {
        let done = decide::record_attempts(&mut self.connection, attempts).await;
        self.after(done)
    }

    async fn keep_chunks(&mut self, sealed: Vec<SealedChunk>) -> StoreResult<()> {
        let done = flush::keep_chunks(&mut self.connection, &mut self.memory, sealed).await;
        let written = std::mem::take(&mut self.memory.written);
        self.fresh.wrote(&written, done.is_ok());
        self.after(done)
    }

    async fn keep(
        &mut self,
        flush: Flush,
        newest: JournalPosition,
    ) -> StoreResult<Option<JournalPosition>> {
        let done = flush::keep(&mut self.connection, &mut self.memory, flush, newest).await;
        self.after(done)
    }

    async fn forget_journal(&mut self, last: JournalPosition, rows: i64) -> StoreResult<bool> {
        let done = flush::forget_journal(&mut self.connection, last, rows).await;
        self.after(done)
    }

    async fn forget_node(&mut self, node: NodeId) -> StoreResult<()> {
        flush::forget_node(&mut self.connection, &node).await
    }

    async fn drop_some(&mut self, old: Old, rows: i64) -> StoreResult<Slice> {
        let done = retain::drop_some(&mut self.connection, old, rows).await;
        self.fresh.after_retention(old, &done);
        self.after(done)
    }

    async fn compact(&mut self, change: Change) -> StoreResult<u64> {
        let dropped = Dropped::of(&change);
        let done = loose::change(&mut self.connection, change).await;
        self.fresh.after_change(dropped, done.is_ok());
        self.after(done)
    }

    #[cfg(test)]
    async fn execute(&mut self, sql: &'static str) -> StoreResult<()> {
        sqlx::raw_sql(sql).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn close(self) -> StoreResult<()> {
        Ok(self.connection.close().await?)
    }
}
