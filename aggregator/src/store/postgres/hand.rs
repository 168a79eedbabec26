//! The connection that writes, and what becomes of it when it is lost.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use entrenar::gpu::NodeId;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::flush::Memory;
use super::session::{self, Found, Opened, Token};
use super::{Address, chunks, decide, flush, loose, retain};
use crate::incident::Decision;
use crate::store::compact::Change;
use crate::store::fresh::{Dropped, Fresh};
use crate::store::retain::{Old, Slice};
use crate::store::writer::Hand;
use crate::store::{Attempt, Flush, JournalPosition, SealedChunk, StoreError, StoreResult};

/// How long one transaction may take. A server that is silent for longer is taken to be away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits between attempts to connect: the first, and the longest, to which it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct PostgresHand {
    address: Address,
    token: Token,
    link: Link,
    memory: Memory,
    /// The newest journal row that is kept, unless it was forgotten since.
    last: Option<JournalPosition>,
    superseded: CancellationToken,
    fresh: Arc<Fresh>,
}

enum Link {
    Up(Box<PgConnection>),
    Down {
        why: String,
        pause: Duration,
        try_at: Instant,
    },
}

impl PostgresHand {
    pub(super) fn new(
        opened: Opened,
        n_chunks_lost: Arc<AtomicU64>,
        superseded: CancellationToken,
        fresh: Arc<Fresh>,
    ) -> Self {
        Self {
            address: opened.address,
            token: opened.token,
            link: Link::Up(Box::new(opened.connection)),
            memory: Memory {
                n_chunks_lost,
                ..Memory::default()
            },
            last: None,
            superseded,
            fresh,
        }
    }

    /// The connection, made anew if it was lost and it is time to try, and what is remembered.
    async fn up(&mut self) -> StoreResult<(&mut PgConnection, &mut Memory)> {
        if let Link::Down { why, pause, try_at } = &self.link {
            if self.superseded.is_cancelled() || Instant::now() < *try_at {
                return Err(StoreError::Unavailable(why.clone()));
            }
            let pause = *pause;
            match self.connect().await {
                Ok(connection) => {
                    info!(database = %self.address, "connected to the database again");
                    self.link = Link::Up(Box::new(connection));
                    self.fresh.found_again();
                }
                Err(why) => {
                    let pause = (pause * 2).min(LONGEST_PAUSE);
                    self.link = down(why.clone(), pause);
                    return Err(StoreError::Unavailable(why));
                }
            }
        }
        match &mut self.link {
            Link::Up(connection) => Ok((connection, &mut self.memory)),
            Link::Down { why, .. } => Err(StoreError::Unavailable(why.clone())),
        }
    }

    /// Whatever is in the way passes, or is put right while we wait: a password that was changed on the server too.
    async fn connect(&mut self) -> Result<PgConnection, String> {
        let why = match session::reopen(&self.address, self.token, self.last).await {
            Ok(Found::Same(connection)) => return Ok(connection),
            Ok(Found::Taken) => "another aggregator took the database meanwhile",
            Ok(Found::Older) => {
                "the database is older than it was: a standby took over, or a backup was restored"
            }
            Err(StoreError::Unavailable(why)) => return Err(why),
            Err(other) => return Err(other.to_string()),
        };
        self.superseded.cancel();
        Err(format!("{why}: restart this aggregator"))
    }

    /// Lets go of a connection that can't be trusted any more. What was remembered may have been rolled back.
    fn settle<T>(&mut self, done: Result<StoreResult<T>, Elapsed>) -> StoreResult<T> {
        let done = done.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!(
                "no answer within {} s",
                PATIENCE.as_secs()
            )))
        });
        if done.is_err() {
            self.memory.forget();
        }
        if let Err(StoreError::Unavailable(why)) = &done {
            warn!(
                error = why,
                "lost the database, or it is busy: connecting anew"
            );
            self.memory.in_doubt = true;
            self.fresh.lost();
            self.link = down(why.clone(), FIRST_PAUSE);
        }
        done
    }
}

fn down(why: String, pause: Duration) -> Link {
    Link::Down {
        why,
        pause,
        try_at: Instant::now() + pause,
    }
}

impl Hand for PostgresHand {
    async fn decide(&mut self, decision: Decision) -> StoreResult<()> {
        let (db, _) = self.up().await?;
        let done = timeout(PATIENCE, decide::decide(db, decision)).await;
        self.settle(done)
    }

    async fn record_attempts(&mut self, attempts: Vec<Attempt>) -> StoreResult<()> {
        let (db, _) = self.up().await?;
        let done = timeout(PATIENCE, decide::record_attempts(db, attempts)).await;
        self.settle(done)
    }

    async fn keep_chunks(&mut self, sealed: Vec<SealedChunk>) -> StoreResult<()> {
        let (db, memory) = self.up().await?;
        let done = timeout(PATIENCE, chunks::keep(db, memory, sealed)).await;
        let written = std::mem::take(&mut self.memory.written);
        let done = self.settle(done);
        self.fresh.wrote(&written, done.is_ok());
        done
    }

    async fn keep(
        &mut self,
        flush: Flush,
        newest: JournalPosition,
    ) -> StoreResult<Option<JournalPosition>> {
        let (db, memory) = self.up().await?;
        let done = timeout(PATIENCE, flush::keep(db, memory, flush, newest)).await;
        let position = self.settle(done)?;
        self.last = position.or(self.last);
        Ok(position)
    }

    async fn forget_journal(&mut self, last: JournalPosition, rows: i64) -> StoreResult<bool> {
        let (db, _) = self.up().await?;
        let done = timeout(PATIENCE, flush::forget_journal(db, last, rows)).await;
        self.last = self.last.filter(|kept| last < *kept);
        self.settle(done)
    }

    async fn forget_node(&mut self, node: NodeId) -> StoreResult<()> {
        let (db, _) = self.up().await?;
        let done = timeout(PATIENCE, flush::forget_node(db, &node)).await;
        self.settle(done)
    }

    async fn drop_some(&mut self, old: Old, rows: i64) -> StoreResult<Slice> {
        let (db, _) = self.up().await?;
        let done = timeout(PATIENCE, retain::drop_some(db, old, rows)).await;
        let done = self.settle(done);
        self.fresh.after_retention(old, &done);
        done
    }

    async fn compact(&mut self, change: Change) -> StoreResult<u64> {
        let (db, memory) = self.up().await?;
        let dropped = Dropped::of(&change);
        let done = timeout(PATIENCE, loose::change(db, memory, change)).await;
        let done = self.settle(done);
        self.fresh.after_change(dropped, done.is_ok());
        done
    }

    #[cfg(test)]
    async fn execute(&mut self, sql: &'static str) -> StoreResult<()> {
        let (db, _) = self.up().await?;
        let done = timeout(PATIENCE, async {
            sqlx::raw_sql(sql).execute(db).await?;
            Ok(())
        })
        .await;
        self.settle(done)
    }

    async fn close(self) -> StoreResult<()> {
        match self.link {
            Link::Up(connection) => Ok(connection.close().await?),
            Link::Down { .. } => Ok(()),
        }
    }
}
