//! How many questions about the past are worked on at a time: the rest of the process goes on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::error::Problem;

/// Questions that are worked on at once: reading and unpacking history keeps a core busy.
const MAX_RUNNING: usize = 4;

/// Questions that wait for their turn: what some people with many charts ask at once. Beyond it they are told to come back.
const MAX_WAITING: usize = 64;

/// Exports at once, beside the questions: each lasts as long as its reader takes. Beyond it they are told to come back.
const MAX_EXPORTS: usize = 2;

/// When to come back.
const RETRY_AFTER_S: u64 = 2;
const RETRY_EXPORT_AFTER_S: u64 = 60;

/// After a start, how long a question waits until what was not sealed before is read.
const PAST_PATIENCE: Duration = Duration::from_secs(30);

/// The way in to what is stored.
#[derive(Debug)]
pub struct Gate {
    /// Whether everything that is stored can be found.
    is_whole: watch::Receiver<bool>,
    running: Arc<Semaphore>,
    present: Arc<Semaphore>,
    exports: Arc<Semaphore>,
}

/// Held for as long as a question is worked on.
#[derive(Debug)]
pub(super) struct Turn {
    _running: OwnedSemaphorePermit,
    _present: OwnedSemaphorePermit,
}

impl Gate {
    /// `is_whole`: whether everything that is stored can be found. Before, questions wait.
    pub fn new(is_whole: watch::Receiver<bool>) -> Self {
        Self {
            is_whole,
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            present: Arc::new(Semaphore::new(MAX_RUNNING + MAX_WAITING)),
            exports: Arc::new(Semaphore::new(MAX_EXPORTS)),
        }
    }

    async fn whole(&self) -> Result<(), Problem> {
        let mut is_whole = self.is_whole.clone();
        let waited = timeout(PAST_PATIENCE, is_whole.wait_for(|whole| *whole)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            // Whoever reads it is gone: so is the rest soon.
            Ok(Err(_)) => Err(Problem::unavailable("the aggregator is shutting down")),
            Err(_) => Err(Problem::unavailable(
                "the aggregator has just started and still reads the journal of its last minutes: ask again in a moment",
            )
            .retry_after(RETRY_AFTER_S)),
        }
    }

    /// Waits for a turn. Giving the question up gives the place up.
    pub(super) async fn turn(&self) -> Result<Turn, Problem> {
        let busy = |_| {
            Problem::unavailable(format!(
                "{MAX_RUNNING} questions are being answered and {MAX_WAITING} wait: ask again in a moment, or for less at a time"
            ))
            .retry_after(RETRY_AFTER_S)
        };
        let present = Arc::clone(&self.present)
            .try_acquire_owned()
            .map_err(busy)?;
        self.whole().await?;
        // Nobody closes it.
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running =
            running.map_err(|_| Problem::unavailable("the aggregator is shutting down"))?;
        Ok(Turn {
            _running: running,
            _present: present,
        })
    }

    /// A place for an export, if there is one.
    pub(super) async fn export(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = Arc::clone(&self.exports).try_acquire_owned();
        let permit = permit.map_err(|_| {
            Problem::unavailable(format!(
                "{MAX_EXPORTS} exports are on their way: ask again when one of them is over"
            ))
            .retry_after(RETRY_EXPORT_AFTER_S)
        })?;
        self.whole().await?;
        Ok(permit)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// A gate through which everything is found, and the way to say that it is not.
    fn gate() -> (Gate, watch::Sender<bool>) {
        let (say, is_whole) = watch::channel(true);
        (Gate::new(is_whole), say)
    }

    #[tokio::test]
    async fn questions_wait_for_their_turn_and_too_many_are_told_to_come_back() {
        let (gate, _say) = gate();
        let mut turns: Vec<_> = (0..MAX_RUNNING)
            .map(|_| gate.turn().now_or_never())
            .collect();
        assert!(turns.iter().all(|turn| matches!(turn, Some(Ok(_)))));
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(gate.turn())).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        let refused = gate.turn().now_or_never().expect("at once").unwrap_err();
        assert!(
            refused.detail().contains("ask again"),
            "{}",
            refused.detail()
        );
        // One that is given up makes room, and one that is over lets the next in.
        waiting.pop();
        turns.pop();
        assert!(waiting.first_mut().expect("one").now_or_never().is_some());
    }

    #[tokio::test]
    async fn exports_do_not_wait() {
        let (gate, _say) = gate();
        let exports: Vec<_> = (0..MAX_EXPORTS)
            .map(|_| gate.export().now_or_never().expect("at once").unwrap())
            .collect();
        assert!(gate.export().await.is_err());
        drop(exports);
        assert!(gate.export().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_start_questions_wait_until_the_past_is_read_and_not_for_ever() {
        let (gate, say) = gate();
        say.send_replace(false);
        let mut turn = Box::pin(gate.turn());
        assert!((&mut turn).now_or_never().is_none());
        say.send_replace(true);
        assert!(turn.await.is_ok());
        say.send_replace(false);
        let refused = gate.turn().await.unwrap_err();
        assert!(
            refused.detail().contains("just started"),
            "{}",
            refused.detail()
        );
        assert!(gate.export().await.is_err());
    }
}
