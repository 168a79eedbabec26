//! The one task that writes to a database, and the way to it. Decisions go before any waiting commit, and between the
//! slices of a long one. What writing means is the database's own: [`Hand`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use entrenar::clock::{Clock as _, SystemClock};
use entrenar::gpu::NodeId;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use super::{
    Attempt, Durable, Flush, Hold, JournalPosition, Retention, SealedChunk, StoreError,
    StoreResult,
    compact::{Change, Compacted},
    hold::Holds,
    retain::{Old, Pace, Slice},
};
use crate::incident::Decision;

/// Decisions and attempts that wait for the writer. When it is full, whoever decides waits: nothing is dropped.
const URGENT_QUEUE: usize = 256;

/// Commits and slices of retention that wait for the writer. When it is full, the line waits, stops reading its streams, and
/// the agents' spools absorb.
const PATIENT_QUEUE: usize = 16;

/// Chunks in one transaction: with the bytes below, at most some 20 ms for the writer.
const SLICE_CHUNKS: usize = 32;
/// Blob bytes in one transaction of chunks, unless one alone is longer.
const SLICE_BYTES: usize = 1024 * 1024;

/// One connection that writes. Each method is one transaction, or a few where it says so.
pub(super) trait Hand: Send + 'static {
    /// See [`super::Store::decide`].
    fn decide(&mut self, decision: Decision) -> impl Future<Output = StoreResult<()>> + Send;

    /// See [`super::Store::record_attempts`].
    fn record_attempts(
        &mut self,
        attempts: Vec<Attempt>,
    ) -> impl Future<Output = StoreResult<()>> + Send;

    /// Keeps some chunks; a stretch that is there already is merged with what is new.
    fn keep_chunks(
        &mut self,
        sealed: Vec<SealedChunk>,
    ) -> impl Future<Output = StoreResult<()>> + Send;

    /// Everything of a flush but its chunks and what it forgets. `newest`: the newest journal row so far. Answers the
    /// position of its journal.
    fn keep(
        &mut self,
        flush: Flush,
        newest: JournalPosition,
    ) -> impl Future<Output = StoreResult<Option<JournalPosition>>> + Send;

    /// Deletes at most `rows` journal rows up to `last`; answers whether there are more.
    fn forget_journal(
        &mut self,
        last: JournalPosition,
        rows: i64,
    ) -> impl Future<Output = StoreResult<bool>> + Send;

    /// See [`super::Store::forget_node`].
    fn forget_node(&mut self, node: NodeId) -> impl Future<Output = StoreResult<()>> + Send;

    /// Drops one slice of what is old, of at most `rows` rows.
    fn drop_some(&mut self, old: Old, rows: i64)
    -> impl Future<Output = StoreResult<Slice>> + Send;

    /// One step from rows of sums to sheets; answers how many rows went.
    fn compact(&mut self, change: Change) -> impl Future<Output = StoreResult<u64>> + Send;

    /// Runs statements, for tests.
    #[cfg(test)]
    fn execute(&mut self, sql: &'static str) -> impl Future<Output = StoreResult<()>> + Send;

    /// Lets go of the database in good order.
    fn close(self) -> impl Future<Output = StoreResult<()>> + Send;
}

type Answer<T> = oneshot::Sender<StoreResult<T>>;

/// What people wait for.
enum Urgent {
    Decide(Decision, Answer<()>),
    Attempts(Vec<Attempt>, Answer<()>),
}

/// What may wait a little.
enum Patient {
    Commit(Box<Flush>, Answer<Durable>),
    /// One slice of so many rows; answered with how long it took.
    Retain(Old, i64, Answer<(Slice, Duration)>),
    ForgetNode(NodeId, Answer<()>),
    /// Answered with how many rows went, and how long it took.
    Compact(Box<Change>, Answer<(u64, Duration)>),
    Close,
    #[cfg(test)]
    Execute(&'static str, Answer<()>),
}

/// The way to the task that writes.
pub(super) struct Writer {
    urgent: mpsc::Sender<Urgent>,
    patient: mpsc::Sender<Patient>,
    task: Mutex<Option<JoinHandle<()>>>,
    holds: Arc<Holds>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the task. `newest`: the newest journal row ever, even if it is forgotten by now.
    pub(super) fn start(hand: impl Hand, newest: JournalPosition) -> Self {
        let (urgent, urgent_jobs) = mpsc::channel(URGENT_QUEUE);
        let (patient, patient_jobs) = mpsc::channel(PATIENT_QUEUE);
        let holds = Arc::<Holds>::default();
        let work = Work {
            hand,
            urgent: urgent_jobs,
            patient: patient_jobs,
            newest,
            forget: None,
            forget_pace: Pace::default(),
            holds: Arc::clone(&holds),
        };
        Self {
            urgent,
            patient,
            task: Mutex::new(Some(tokio::spawn(work.run()))),
            holds,
        }
    }

    pub(super) async fn commit(&self, flush: Flush) -> StoreResult<Durable> {
        self.patiently(|answer| Patient::Commit(Box::new(flush), answer))
            .await
    }

    pub(super) async fn decide(&self, decision: Decision) -> StoreResult<()> {
        self.urgently(|answer| Urgent::Decide(decision, answer))
            .await
    }

    pub(super) async fn record_attempts(&self, attempts: Vec<Attempt>) -> StoreResult<()> {
        self.urgently(|answer| Urgent::Attempts(attempts, answer))
            .await
    }

    pub(super) async fn forget_node(&self, node: NodeId) -> StoreResult<()> {
        self.patiently(|answer| Patient::ForgetNode(node, answer))
            .await
    }

    /// Puts sheets in the place of rows of sums, slice by slice; answers how many went. Commits go in between.
    pub(super) async fn compact(&self, compacted: Compacted) -> StoreResult<u64> {
        let Compacted { put, mut rows } = compacted;
        let (step, group) = (put.step, put.group);
        self.change(Change::Put(put)).await?;
        let (mut gone, mut pace) = (0, Pace::default());
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(pace.rows() as usize));
            let (n_rows, took) = self.change(Change::Drop(step, group, rows)).await?;
            gone += n_rows;
            pace.took(took);
            rows = rest;
        }
        self.change(Change::Settle(step, group)).await?;
        Ok(gone)
    }

    async fn change(&self, change: Change) -> StoreResult<(u64, Duration)> {
        self.patiently(|answer| Patient::Compact(Box::new(change), answer))
            .await
    }

    /// Drops what is old slice by slice; commits go in between.
    pub(super) async fn drop_old(&self, retention: &Retention) -> StoreResult<u64> {
        let mut total = 0;
        for old in Old::all(retention) {
            let mut pace = Pace::default();
            let mut next = Some(old);
            while let Some(old) = next {
                let ask = |answer| Patient::Retain(old, pace.rows(), answer);
                let (slice, took) = self.patiently(ask).await?;
                pace.took(took);
                total += slice.gone;
                next = slice.next;
            }
        }
        Ok(total)
    }

    /// How long it was held by what since the start.
    pub(super) fn holds(&self) -> Vec<Hold> {
        self.holds.all()
    }

    #[cfg(test)]
    pub(super) async fn execute(&self, sql: &'static str) -> StoreResult<()> {
        self.patiently(|answer| Patient::Execute(sql, answer)).await
    }

    /// Finishes what is queued and lets go of the database. Later writes are refused as unavailable.
    pub(super) async fn close(&self) {
        // A writer that is gone already has closed everything.
        let _ = self.patient.send(Patient::Close).await;
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }

    async fn urgently<T>(&self, job: impl FnOnce(Answer<T>) -> Urgent) -> StoreResult<T> {
        let (answer, answered) = oneshot::channel();
        self.urgent.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn patiently<T>(&self, job: impl FnOnce(Answer<T>) -> Patient) -> StoreResult<T> {
        let (answer, answered) = oneshot::channel();
        self.patient.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the database is closed".into())
}

/// The task.
struct Work<H> {
    hand: H,
    urgent: mpsc::Receiver<Urgent>,
    patient: mpsc::Receiver<Patient>,
    newest: JournalPosition,
    /// Journal rows up to this one are to be deleted when there is time.
    forget: Option<JournalPosition>,
    forget_pace: Pace,
    holds: Arc<Holds>,
}

impl<H: Hand> Work<H> {
    /// Until told to close, or nobody is left who could ask.
    async fn run(mut self) {
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
        while self.forget.is_some() {
            self.forget_some().await;
        }
        if let Err(error) = self.hand.close().await {
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
        let began = SystemClock.monotonic();
        match job {
            Urgent::Decide(decision, answer) => {
                let _ = answer.send(self.hand.decide(decision).await);
            }
            Urgent::Attempts(attempts, answer) => {
                let _ = answer.send(self.hand.record_attempts(attempts).await);
            }
        }
        self.took("decide", began);
    }

    /// Notes how long the writer was held since then.
    fn took(&self, work: &'static str, began: Duration) -> Duration {
        let took = SystemClock.monotonic().saturating_sub(began);
        self.holds.took(work, took);
        took
    }

    async fn do_patient(&mut self, job: Patient) {
        match job {
            Patient::Commit(flush, answer) => {
                let _ = answer.send(self.commit(*flush).await);
                if self.forget.is_some() {
                    self.forget_some().await;
                }
            }
            Patient::Retain(old, rows, answer) => {
                let began = SystemClock.monotonic();
                let slice = self.hand.drop_some(old, rows).await;
                let took = self.took(old.name(), began);
                let _ = answer.send(slice.map(|slice| (slice, took)));
            }
            Patient::ForgetNode(node, answer) => {
                let _ = answer.send(self.hand.forget_node(node).await);
            }
            Patient::Compact(change, answer) => {
                let began = SystemClock.monotonic();
                let gone = self.hand.compact(*change).await;
                let took = self.took("compact sums", began);
                let _ = answer.send(gone.map(|gone| (gone, took)));
            }
            Patient::Close => {}
            #[cfg(test)]
            Patient::Execute(sql, answer) => {
                let _ = answer.send(self.hand.execute(sql).await);
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
            let began = SystemClock.monotonic();
            self.hand.keep_chunks(sealed).await?;
            self.took("seal", began);
            sealed = rest;
        }
        let forget = flush.forget_journal.take();
        if flush != Flush::default() {
            self.urgent_first().await;
            let began = SystemClock.monotonic();
            let position = self.hand.keep(flush, self.newest).await?;
            self.took("commit", began);
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
        let began = SystemClock.monotonic();
        let forgot = self
            .hand
            .forget_journal(last, self.forget_pace.rows())
            .await;
        let took = self.took("forget", began);
        self.forget_pace.took(took);
        match forgot {
            Ok(true) => {}
            Ok(false) => self.forget = None,
            Err(error) => {
                warn!(%error, "could not forget old journal rows");
                self.forget = None;
            }
        }
    }
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
