//! How many questions about the past are worked on at a time: the rest of the process goes on meanwhile.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// The way in to what is stored.
#[derive(Debug)]
pub struct Gate {
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

impl Default for Gate {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            present: Arc::new(Semaphore::new(MAX_RUNNING + MAX_WAITING)),
            exports: Arc::new(Semaphore::new(MAX_EXPORTS)),
        }
    }
}

impl Gate {
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
    pub(super) fn export(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.exports).try_acquire_owned().map_err(|_| {
            Problem::unavailable(format!(
                "{MAX_EXPORTS} exports are on their way: ask again when one of them is over"
            ))
            .retry_after(RETRY_EXPORT_AFTER_S)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn questions_wait_for_their_turn_and_too_many_are_told_to_come_back() {
        let gate = Gate::default();
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

    #[test]
    fn exports_do_not_wait() {
        let gate = Gate::default();
        let exports: Vec<_> = (0..MAX_EXPORTS).map(|_| gate.export().unwrap()).collect();
        assert!(gate.export().is_err());
        drop(exports);
        assert!(gate.export().is_ok());
    }
}
