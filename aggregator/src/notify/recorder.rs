//! Writes down what became of attempts, in order, without ever holding up the sending. Fetches what is pending after
//! everything that was handed over before is written, so that nothing delivered looks pending.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::incident::NoticeStatus;
use crate::store::{Attempt, Store};

/// Pieces of work that wait. When reached, an outcome is not recorded and counted; its notice may be sent again after
/// a restart.
const MAX_WORK: usize = 4096;
/// How long to wait before the store is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the end waits for what is not yet written.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

enum Work {
    Record(Vec<Attempt>),
    Fetch(oneshot::Sender<Vec<NoticeStatus>>),
}

/// The task that writes, and the way to it.
#[derive(Debug)]
pub(super) struct Recorder {
    work: mpsc::Sender<Work>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Starts the task.
    pub(super) fn start(store: Arc<dyn Store>) -> Self {
        let (work, to_do) = mpsc::channel(MAX_WORK);
        let task = tokio::spawn(run(store, to_do));
        Self { work, task }
    }

    /// Hands outcomes over. False: there is no room, they are lost.
    #[must_use]
    pub(super) fn record(&self, attempts: Vec<Attempt>) -> bool {
        attempts.is_empty() || self.work.try_send(Work::Record(attempts)).is_ok()
    }

    /// Asks for what is pending. The answer never comes if there is no room; ask again.
    pub(super) fn fetch(&self) -> oneshot::Receiver<Vec<NoticeStatus>> {
        let (answer, found) = oneshot::channel();
        // Without room the sender of the answer is dropped, and the receiver learns that.
        let _ = self.work.try_send(Work::Fetch(answer));
        found
    }

    /// Writes what is left, for a while.
    pub(super) async fn leave(self) {
        drop(self.work);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(LEAVE_WITHIN, self.task).await.is_err() {
            abort.abort();
        }
    }
}

async fn run(store: Arc<dyn Store>, mut to_do: mpsc::Receiver<Work>) {
    while let Some(work) = to_do.recv().await {
        match work {
            Work::Record(attempts) => record(&*store, attempts).await,
            Work::Fetch(answer) => {
                let found = fetch(&*store, &answer).await;
                // Whoever asked may have left.
                let _ = answer.send(found);
            }
        }
    }
}

async fn record(store: &dyn Store, attempts: Vec<Attempt>) {
    while let Err(error) = store.record_attempts(attempts.clone()).await {
        warn!(%error, n = attempts.len(), "could not record what became of messages, trying again");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn fetch(
    store: &dyn Store,
    answer: &oneshot::Sender<Vec<NoticeStatus>>,
) -> Vec<NoticeStatus> {
    while !answer.is_closed() {
        match store.pending_notices().await {
            Ok(found) => return found,
            Err(error) => warn!(%error, "could not fetch what is still to be told, trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Vec::new()
}
