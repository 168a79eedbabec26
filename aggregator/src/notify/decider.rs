//! Brings decisions into the store, in order, and their notices from there to the outbox.
//!
//! A store that does not answer must not keep a page from people: after 5 s the critical ones go out from memory, and
//! the decision is tried on until the store takes it. What the store refuses as a defect of ours is told and dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::incident::Decision;
use crate::notify::outbox::OutboxHandle;
use crate::store::{Store, StoreError, StoreResult};

/// Decisions that wait for the store. When reached, whoever decides waits, and so does the line.
const MAX_DECISIONS: usize = 1024;
/// How long a critical page waits for the store.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before a store that failed is asked again.
const PAUSE: Duration = Duration::from_millis(500);

struct Waiting {
    decision: Decision,
    tell_at: Instant,
    told: bool,
    answer: oneshot::Sender<StoreResult<()>>,
}

/// The way to the decider. Cheap to clone.
#[derive(Clone)]
pub struct DeciderHandle(mpsc::Sender<Waiting>);

impl DeciderHandle {
    /// Hands a decision over, in order; waits only while too many are waiting. The answer comes when the store has
    /// it; whoever does not care drops it.
    pub async fn put(&self, decision: Decision) -> oneshot::Receiver<StoreResult<()>> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            decision,
            tell_at: Instant::now() + PATIENCE,
            told: false,
            answer,
        };
        // At the end of the process nobody takes it; the receiver of the answer learns that.
        let _ = self.0.send(waiting).await;
        answered
    }
}

/// The task that decides.
pub struct Decider {
    store: Arc<dyn Store>,
    outbox: OutboxHandle,
    decisions: mpsc::Receiver<Waiting>,
    queue: VecDeque<Waiting>,
}

impl Decider {
    /// A decider, and the way to it.
    pub fn new(store: Arc<dyn Store>, outbox: OutboxHandle) -> (DeciderHandle, Self) {
        let (sender, decisions) = mpsc::channel(MAX_DECISIONS);
        let decider = Self {
            store,
            outbox,
            decisions,
            queue: VecDeque::new(),
        };
        (DeciderHandle(sender), decider)
    }

    /// Runs until every handle is dropped and everything is decided, or until it is stopped. What is not decided by
    /// then is decided again by the replay after the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            if self.queue.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    waiting = self.decisions.recv() => match waiting {
                        Some(waiting) => self.queue.push_back(waiting),
                        None => return,
                    },
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.decide_first() => {}
            }
        }
    }

    /// Brings the oldest decision into the store, while others come in and time passes.
    async fn decide_first(&mut self) {
        let Some(first) = self.queue.front() else {
            return;
        };
        let store = self.store.clone();
        let decision = first.decision.clone();
        let attempt = async move { try_until_taken(&*store, decision).await };
        tokio::pin!(attempt);
        let result = loop {
            let tell_at = self.queue.iter().find(|w| !w.told).map(|w| w.tell_at);
            tokio::select! {
                biased;
                result = &mut attempt => break result,
                () = sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => self.tell_overdue(),
                Some(waiting) = self.decisions.recv(), if self.queue.len() < MAX_DECISIONS => {
                    self.queue.push_back(waiting);
                }
            }
        };
        let first = self.queue.pop_front().expect("it was the first");
        if result.is_ok() {
            self.outbox.feed(first.decision.notices);
        } else if !first.told {
            self.outbox.send_unrecorded(&first.decision.notices);
        }
        // Whoever decided may not care.
        let _ = first.answer.send(result);
    }

    fn tell_overdue(&mut self) {
        let now = Instant::now();
        let overdue = |w: &&mut Waiting| !w.told && w.tell_at <= now;
        for waiting in self.queue.iter_mut().filter(overdue) {
            waiting.told = true;
            self.outbox.send_unrecorded(&waiting.decision.notices);
        }
    }
}

/// `Err`: the store will never take it.
async fn try_until_taken(store: &dyn Store, decision: Decision) -> StoreResult<()> {
    loop {
        match store.decide(decision.clone()).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Refused(why)) => {
                error!(
                    error = why,
                    "a decision was refused: this is a defect, please report it"
                );
                return Err(StoreError::Refused(why));
            }
            Err(error) => warn!(%error, "a decision could not be stored, trying again"),
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Notice, NoticeEvent};
    use crate::notify::outbox::Fed;
    use crate::notify::testing::notice;
    use crate::store::memory::{Failure, MemoryStore};

    struct Bench {
        store: Arc<MemoryStore>,
        decider: DeciderHandle,
        fed: mpsc::Receiver<Fed>,
    }

    fn bench() -> Bench {
        let store = Arc::new(MemoryStore::default());
        let (outbox, fed) = OutboxHandle::with_nothing_behind();
        let (handle, decider) = Decider::new(store.clone(), outbox);
        tokio::spawn(decider.run(CancellationToken::new()));
        Bench {
            store,
            decider: handle,
            fed,
        }
    }

    fn decision(notice: &Notice) -> Decision {
        Decision {
            incidents: vec![notice.incident.clone()],
            notices: vec![notice.clone()],
            ..Decision::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn notices_reach_the_outbox_once_the_store_has_them() {
        let mut bench = bench();
        let page = notice(NoticeEvent::Trigger, |_| {});
        let answer = bench.decider.put(decision(&page)).await;
        answer.await.expect("an answer").expect("stored");
        let fed = bench.fed.recv().await.expect("fed");
        assert_eq!((fed.notices, fed.unrecorded), (vec![page], false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_delays_a_page_by_five_seconds_and_not_more() {
        let mut bench = bench();
        bench.store.fail(Some(Failure::Full));
        let began = Instant::now();
        let page = notice(NoticeEvent::Trigger, |_| {});
        let warning = notice(NoticeEvent::Trigger, |i| {
            i.id = "w".into();
            i.severity = crate::andon::Severity::Warning;
        });
        let mut both = decision(&page);
        both.notices.push(warning.clone());
        let answer = bench.decider.put(both).await;
        let fed = bench.fed.recv().await.expect("fed from memory");
        assert_eq!((fed.notices, fed.unrecorded), (vec![page.clone()], true));
        assert_eq!(began.elapsed().as_secs(), 5);

        bench.store.fail(None);
        answer.await.expect("an answer").expect("stored");
        let fed = bench.fed.recv().await.expect("fed from the store");
        assert_eq!((fed.notices, fed.unrecorded), (vec![page, warning], false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_keeps_no_later_page_from_people() {
        let mut bench = bench();
        bench.store.withhold(true);
        for name in ["a", "b"] {
            let page = notice(NoticeEvent::Trigger, |i| i.id = name.into());
            drop(bench.decider.put(decision(&page)).await);
            let fed = bench.fed.recv().await.expect("fed from memory");
            assert_eq!((fed.notices, fed.unrecorded), (vec![page], true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_decision_that_is_refused_is_told_and_holds_up_nothing() {
        let mut bench = bench();
        let first = notice(NoticeEvent::Trigger, |_| {});
        // The same cord, another incident: the store allows one open incident per cord.
        let twin = notice(NoticeEvent::Trigger, |i| i.id = "twin".into());
        bench
            .decider
            .put(decision(&first))
            .await
            .await
            .expect("an answer")
            .expect("stored");
        let refused = bench
            .decider
            .put(decision(&twin))
            .await
            .await
            .expect("an answer");
        assert!(matches!(refused, Err(StoreError::Refused(_))));
        assert!(!bench.fed.recv().await.expect("the first").unrecorded);
        assert_eq!(bench.fed.recv().await.expect("the twin").notices, [twin]);
        let mut end = first;
        end.incident.ordinal += 1;
        bench
            .decider
            .put(decision(&end))
            .await
            .await
            .expect("an answer")
            .expect("stored");
    }
}
