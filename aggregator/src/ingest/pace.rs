//! Letting messages come together.
//!
//! Each connection says a little, at a time of its own. Where hundreds of messages come in a second, reading them one by
//! one as they come costs a wake each, and what reads them has to come back into the caches. A thread that reads what
//! twenty milliseconds brought does the same work in four fifths of the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// What comes within this time of a turn waits for the next.
const TURN: Duration = Duration::from_millis(20);

/// Messages a second from which on turns are taken. Of fewer, each is read as it comes.
const BUSY: u32 = 200;

/// How often it is looked whether that many come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Times that the others on the thread are let go on without a message being read, until it is believed that none is left.
/// Each lets some sixty of them go on: a connection reads, its session is woken, what it answers is written.
const WAVES: usize = 16;

/// How busy the thread is.
#[derive(Debug, Default)]
pub(super) struct Pace {
    n_heard: AtomicU32,
    begins: Notify,
    is_on: AtomicBool,
}

impl Pace {
    /// A message was read.
    pub(super) fn heard(&self) {
        let n = self.n_heard.fetch_add(1, Relaxed) + 1;
        if n == BUSY && !self.is_on.load(Relaxed) {
            self.begins.notify_one();
        }
    }
}

/// Keeps the pace of a thread that does nothing else than reading messages, for ever. It must run on that thread, which it
/// holds up.
pub(super) async fn keep(pace: Arc<Pace>) {
    loop {
        tokio::select! {
            () = pace.begins.notified() => take_turns(&pace).await,
            () = sleep(LOOK_EVERY) => pace.n_heard.store(0, Relaxed),
        }
    }
}

/// Takes turns as long as enough comes.
async fn take_turns(pace: &Pace) {
    pace.is_on.store(true, Relaxed);
    let mut look = Instant::now() + LOOK_EVERY;
    let mut turn = Instant::now();
    loop {
        read_all(pace).await;
        let now = Instant::now();
        if now >= look {
            look = now + LOOK_EVERY;
            if pace.n_heard.swap(0, Relaxed) < BUSY {
                break;
            }
        }
        // A thread that has more to do than it can does not wait.
        turn = (turn + TURN).max(now);
        thread::sleep(turn - now);
    }
    pace.is_on.store(false, Relaxed);
}

/// Lets the others go on until they have read everything that has come.
async fn read_all(pace: &Pace) {
    let mut n_heard = pace.n_heard.load(Relaxed);
    let mut n_quiet = 0;
    while n_quiet < WAVES {
        yield_now().await;
        let now = pace.n_heard.load(Relaxed);
        n_quiet = if now == n_heard { n_quiet + 1 } else { 0 };
        n_heard = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_left_unread_when_the_thread_sleeps() {
        // Twice what 12,500 connections bring in a turn.
        let pace = Arc::new(Pace::default());
        for _ in 0..500 {
            let pace = Arc::clone(&pace);
            tokio::spawn(async move {
                // As a connection wakes its session, which reads.
                let session = tokio::spawn(async move { pace.heard() });
                session.await.expect("it ends well");
            });
        }
        read_all(&pace).await;
        assert_eq!(pace.n_heard.load(Relaxed), 500);
    }
}
