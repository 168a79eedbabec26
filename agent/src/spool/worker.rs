//! The spool's own thread: a disk may take its time, and nothing else waits for it.
//!
//! Commands come in by a bounded queue; each new record goes out at once to the uplink, before it is synced, and the
//! syncs follow by [`Spool::sync_due`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use entrenar::clock::Clock;
use entrenar::report::{Body, StreamId};
use entrenar_proto::RangeSet;
use tokio::sync::{mpsc, oneshot, watch};

use super::fs::Fs;
use super::{Facts, Now, Spool, SpoolStats, Stored};

/// Commands that wait for the disk. When there are as many, a new record is lost and counted: the disk has stood
/// still for minutes.
const COMMAND_QUEUE: usize = 256;

/// New records that wait for the uplink. When there are as many, the uplink finds the next ones on disk instead.
pub const LIVE_QUEUE: usize = 256;

/// How often durable segments are looked through, and the longest pause between two syncs that are due.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// How long a command that must get through waits before it tries a full queue again.
const QUEUE_RETRY: Duration = Duration::from_millis(20);

enum Command {
    Append(Body),
    Read {
        first: u64,
        last: u64,
        max_bytes: usize,
        reply: oneshot::Sender<Vec<Stored>>,
    },
    SetDurable(RangeSet),
    Facts(oneshot::Sender<Facts>),
    Rebirth(StreamId, oneshot::Sender<Facts>),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// The way to a spool on its thread. The thread ends, synced, when the last handle is gone.
#[derive(Clone)]
pub struct SpoolHandle {
    commands: SyncSender<Command>,
    stats: Arc<Mutex<SpoolStats>>,
    refused: Arc<AtomicU64>,
}

/// The spool's thread is gone: it panicked, or the process is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool's thread is gone")]
pub struct SpoolGone;

/// New records on their way to the uplink.
pub struct Live {
    /// Each new record; with gaps when the uplink was slow.
    pub records: mpsc::Receiver<Stored>,
    /// The number of the next new record.
    pub next_seq: watch::Receiver<u64>,
}

/// Puts a spool on a thread of its own.
pub fn start<F>(spool: Spool<F>, clock: Arc<dyn Clock>) -> std::io::Result<(SpoolHandle, Live)>
where
    F: Fs,
    F::File: 'static,
{
    let (commands, queue) = sync_channel(COMMAND_QUEUE);
    let (live, records) = mpsc::channel(LIVE_QUEUE);
    let (tail, next_seq) = watch::channel(spool.facts().next_seq);
    let stats = Arc::new(Mutex::new(spool.stats()));
    let worker = Worker {
        spool,
        clock,
        live,
        tail,
        stats: Arc::clone(&stats),
    };
    std::thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || worker.run(&queue))?;
    let handle = SpoolHandle {
        commands,
        stats,
        refused: Arc::default(),
    };
    Ok((handle, Live { records, next_seq }))
}

impl SpoolHandle {
    /// Puts a record in, without waiting. It comes back, and is counted, when the disk has stood still for so long
    /// that the queue is full.
    #[allow(
        clippy::result_large_err,
        reason = "it is moved on at once, or not at all"
    )]
    pub fn append(&self, body: Body) -> Result<(), Body> {
        let refused = match self.commands.try_send(Command::Append(body)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => command,
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        match refused {
            Command::Append(body) => Err(body),
            _ => unreachable!("invariant: what was sent comes back"),
        }
    }

    /// Records that were refused since the process began.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// See [`Spool::read`].
    pub async fn read(
        &self,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, SpoolGone> {
        self.ask(|reply| Command::Read {
            first,
            last,
            max_bytes,
            reply,
        })
        .await
    }

    /// See [`Spool::set_durable`]. When the queue is full this one is left out: the next says it all again.
    pub fn set_durable(&self, durable: RangeSet) {
        let _ = self.commands.try_send(Command::SetDurable(durable));
    }

    /// See [`Spool::facts`].
    pub async fn facts(&self) -> Result<Facts, SpoolGone> {
        self.ask(Command::Facts).await
    }

    /// See [`Spool::rebirth`]; the facts are those of the new stream.
    pub async fn rebirth(&self, born: StreamId) -> Result<Facts, SpoolGone> {
        self.ask(|reply| Command::Rebirth(born, reply)).await
    }

    /// Waits until all that was put in before is on disk, synced.
    pub async fn flush(&self) -> Result<(), SpoolGone> {
        self.ask(Command::Flush).await
    }

    /// Waits until the spool is synced and closed, so that another process may open it. What is asked of it then
    /// fails with [`SpoolGone`].
    pub async fn close(&self) -> Result<(), SpoolGone> {
        self.ask(Command::Close).await
    }

    /// What the spool says about itself.
    pub fn stats(&self) -> SpoolStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, SpoolGone> {
        let (reply, answer) = oneshot::channel();
        let mut command = command(reply);
        loop {
            command = match self.commands.try_send(command) {
                Ok(()) => break,
                Err(TrySendError::Full(command)) => command,
                Err(TrySendError::Disconnected(_)) => return Err(SpoolGone),
            };
            tokio::time::sleep(QUEUE_RETRY).await;
        }
        answer.await.map_err(|_| SpoolGone)
    }
}

struct Worker<F: Fs> {
    spool: Spool<F>,
    clock: Arc<dyn Clock>,
    live: mpsc::Sender<Stored>,
    tail: watch::Sender<u64>,
    stats: Arc<Mutex<SpoolStats>>,
}

impl<F: Fs> Worker<F> {
    fn run(mut self, queue: &Receiver<Command>) {
        let mut looked_at = Duration::ZERO;
        loop {
            let now = self.now();
            let due = self
                .spool
                .sync_due()
                .map(|due| due.saturating_sub(now.monotonic));
            match queue.recv_timeout(due.unwrap_or(HOUSEKEEPING).min(HOUSEKEEPING)) {
                Ok(Command::Close(reply)) => {
                    self.spool.sync(self.now());
                    drop(self);
                    let _ = reply.send(());
                    return;
                }
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.spool.sync(self.now()),
            }
            let now = self.now();
            if self
                .spool
                .sync_due()
                .is_some_and(|due| due <= now.monotonic)
            {
                self.spool.sync(now);
            }
            if looked_at + HOUSEKEEPING <= now.monotonic {
                looked_at = now.monotonic;
                self.spool.expire(now);
            }
            *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.spool.stats();
        }
    }

    fn obey(&mut self, command: Command) {
        let now = self.now();
        // A reply that nobody waits for any more is no loss.
        match command {
            Command::Append(body) => {
                if let Some(stored) = self.spool.append(body, now) {
                    let next_seq = stored.seq + 1;
                    let _ = self.live.try_send(stored);
                    self.tail.send_replace(next_seq);
                }
            }
            Command::Read {
                first,
                last,
                max_bytes,
                reply,
            } => {
                let _ = reply.send(self.spool.read(first, last, max_bytes));
            }
            Command::SetDurable(durable) => self.spool.set_durable(&durable, now),
            Command::Facts(reply) => {
                let _ = reply.send(self.spool.facts());
            }
            Command::Rebirth(born, reply) => {
                self.spool.rebirth(born, now);
                let _ = reply.send(self.spool.facts());
            }
            Command::Flush(reply) | Command::Close(reply) => {
                self.spool.sync(now);
                let _ = reply.send(());
            }
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: self.clock.now(),
            monotonic: self.clock.monotonic(),
        }
    }
}
