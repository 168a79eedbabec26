//! Nothing is acknowledged before its commit survived: the task that owns the line, over a store that holds back or
//! fails, in virtual time.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use entrenar::clock::{Clock, SystemClock};
use entrenar::unit::Timestamp;
use entrenar_aggregator::andon::RuleBook;
use entrenar_aggregator::line::driver::Driver;
use entrenar_aggregator::line::handle::{FromAgent, LineHandle};
use entrenar_aggregator::line::keep::Progress;
use entrenar_aggregator::line::replay::Replay;
use entrenar_aggregator::line::{ConnectionId, Line, LineConfig};
use entrenar_aggregator::notify::decider::Decider;
use entrenar_aggregator::notify::message::Context;
use entrenar_aggregator::notify::outbox::Outbox;
use entrenar_aggregator::notify::post::Poster;
use entrenar_aggregator::notify::route::Routes;
use entrenar_aggregator::status::Vitals;
use entrenar_aggregator::store::memory::{Failure, MemoryStore};
use entrenar_aggregator::store::{JournalEntry, JournalPosition, Store};
use entrenar_aggregator::web::Live;
use entrenar_proto::{decode_record, encode_hello, encode_record};
use entrenar_tests::process::eventually;
use entrenar_tests::talker::Node;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything that the driver waits for by itself.
const LONG: Duration = Duration::from_mins(10);

/// One life of an aggregator's line.
struct Life {
    line: LineHandle,
    vitals: Arc<Vitals>,
    driver: tokio::task::JoinHandle<()>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

/// The machine's clock, so many milliseconds later.
#[derive(Default)]
struct Later(AtomicI64);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0.load(Relaxed))
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

async fn begin(store: &Arc<MemoryStore>) -> Life {
    begin_at(store, Arc::new(SystemClock)).await
}

async fn begin_at(store: &Arc<MemoryStore>, clock: Arc<dyn Clock>) -> Life {
    entrenar_tests::choose_cryptography();
    let config = LineConfig {
        profile: entrenar_aggregator::chunk::Profile::Exact,
        cluster: "test".into(),
        rules: RuleBook::default(),
        routes: Routes::default(),
    };
    let recovered = store.recover().await.expect("recovered");
    let mut line = Line::recover(config, recovered, clock.now());
    let rows = store.journal(JournalPosition(0), usize::MAX).await;
    for (position, entries) in rows.expect("read") {
        line.replay(Replay::of(position, entries));
    }
    line.start(clock.now());
    let store: Arc<dyn Store> = store.clone();
    let (outbox, _) = Outbox::new(
        Arc::clone(&store),
        &[],
        Poster::new(None).expect("a client"),
        Context::new("test", "http://localhost"),
        Arc::clone(&clock),
    );
    let (decider, deciding) = Decider::new(Arc::clone(&store), outbox);
    tokio::spawn(deciding.run(CancellationToken::new()));
    let vitals = Arc::new(Vitals::default());
    let (driver, line) = Driver::new(
        line,
        store,
        Arc::clone(&clock),
        decider,
        Arc::new(Live::default()),
        Arc::clone(&vitals),
    );
    let stop = CancellationToken::new();
    Life {
        line,
        vitals,
        driver: tokio::spawn(driver.run(stop.clone())),
        clock,
        stop,
    }
}

impl Life {
    async fn hello(&self, node: &Node) -> watch::Receiver<Progress> {
        let (reply, answer) = oneshot::channel();
        let hello = node.hello();
        let message = FromAgent::Hello {
            connection: ConnectionId(1),
            bytes: encode_hello(&hello),
            hello: Box::new(hello),
            reply,
        };
        let now = self.clock.now();
        self.line.tell(now, message).await.expect("the line lives");
        answer.await.expect("an answer").expect("the name is free")
    }

    async fn samples(&self, node: &Node, seqs: std::ops::RangeInclusive<u64>) {
        for seq in seqs {
            let now = self.clock.now();
            let at = now - Duration::from_hours(1) + Duration::from_secs(seq);
            let record = node.sample(seq, at);
            let message = FromAgent::Record {
                stream: node.stream,
                sent_at: now,
                n_unknown: 0,
                bytes: encode_record(&record),
                record: Box::new(record),
            };
            self.line.tell(now, message).await.expect("the line lives");
        }
    }

    /// In good order.
    async fn stop(self) {
        self.stop.cancel();
        self.driver.await.expect("it ends well");
    }

    /// As by a power cut.
    async fn end(self) {
        self.driver.abort();
        // Aborted is how it ends.
        let _ = self.driver.await;
    }
}

/// Numbers of the samples that the journal holds, in its order.
async fn journalled(store: &MemoryStore) -> Vec<u64> {
    let rows = store.journal(JournalPosition(0), usize::MAX).await;
    let entries = rows.expect("read").into_iter().flat_map(|(_, e)| e);
    let seq = |entry| match entry {
        JournalEntry::Record { bytes, .. } => Some(decode_record(&bytes).expect("ours").record.seq),
        _ => None,
    };
    entries.filter_map(seq).collect()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_withholds_its_answer_withholds_every_acknowledgement() {
    let store = Arc::new(MemoryStore::default());
    let life = begin(&store).await;
    let node = Node::named("n1");
    let mut progress = life.hello(&node).await;
    life.samples(&node, 1..=3).await;
    while progress.borrow().durable != [(1, 3)] {
        progress.changed().await.expect("the line lives");
    }

    store.withhold(true);
    life.samples(&node, 4..=5).await;
    let early = timeout(LONG, progress.changed()).await;
    assert!(
        early.is_err(),
        "acknowledged without a commit: {progress:?}"
    );
    // The commit is on its way, and what comes meanwhile is the next one.
    assert_eq!(journalled(&store).await, [1, 2, 3, 4, 5]);
    life.samples(&node, 6..=9).await;
    let early = timeout(LONG, progress.changed()).await;
    assert!(
        early.is_err(),
        "acknowledged without a commit: {progress:?}"
    );
    assert_eq!(progress.borrow().durable, [(1, 3)]);
    let n_nodes = life.line.ask(|line| line.nodes().len()).await;
    assert_eq!(
        n_nodes.expect("the line lives"),
        1,
        "questions are answered all the while"
    );

    store.withhold(false);
    progress.changed().await.expect("the line lives");
    assert_eq!(progress.borrow_and_update().durable, [(1, 5)]);
    progress.changed().await.expect("the line lives");
    assert_eq!(progress.borrow_and_update().durable, [(1, 9)]);
    assert_eq!(journalled(&store).await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn what_a_full_store_did_not_keep_is_not_acknowledged_and_kept_once_there_is_room() {
    let store = Arc::new(MemoryStore::default());
    let life = begin(&store).await;
    let node = Node::named("n1");
    let mut progress = life.hello(&node).await;
    store.fail(Some(Failure::Full));
    life.samples(&node, 1..=5).await;
    assert!(
        timeout(LONG, progress.changed()).await.is_err(),
        "{progress:?}"
    );
    let trouble = life
        .vitals
        .not_ready()
        .expect("it says that it cannot keep data");
    assert!(trouble.contains("free space"), "{trouble}");

    store.fail(None);
    while progress.borrow().durable != [(1, 5)] {
        progress.changed().await.expect("the line lives");
    }
    assert_eq!(life.vitals.not_ready(), None);
    assert_eq!(journalled(&store).await, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_an_hour_costs_nothing_of_what_was_said_meanwhile() {
    let store = Arc::new(MemoryStore::default());
    let life = begin(&store).await;
    let node = Node::named("n1");
    let mut progress = life.hello(&node).await;
    store.fail(Some(Failure::Unavailable));
    for minute in 0..60 {
        life.samples(&node, minute * 60 + 1..=minute * 60 + 60)
            .await;
        let early = timeout(Duration::from_mins(1), progress.changed()).await;
        assert!(early.is_err(), "acknowledged: {progress:?}");
    }
    assert_eq!(progress.borrow().durable, []);

    store.fail(None);
    while progress.borrow().durable != [(1, 3600)] {
        progress.changed().await.expect("the line lives");
    }
    assert_eq!(journalled(&store).await, (1..=3600).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_kept_when_the_power_went_is_asked_for_again() {
    let store = Arc::new(MemoryStore::default());
    let life = begin(&store).await;
    let node = Node::named("n1");
    let mut progress = life.hello(&node).await;
    life.samples(&node, 1..=3).await;
    while progress.borrow().durable != [(1, 3)] {
        progress.changed().await.expect("the line lives");
    }
    store.fail(Some(Failure::Unavailable));
    life.samples(&node, 4..=5).await;
    assert!(
        timeout(LONG, progress.changed()).await.is_err(),
        "{progress:?}"
    );
    life.end().await;

    store.fail(None);
    let life = begin(&store).await;
    let mut progress = life.hello(&node).await;
    assert_eq!(
        progress.borrow().durable,
        [(1, 3)],
        "and so it is sent again"
    );
    life.samples(&node, 4..=5).await;
    while progress.borrow().durable != [(1, 5)] {
        progress.changed().await.expect("the line lives");
    }
    assert_eq!(journalled(&store).await, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_forgets_the_journal_of_what_is_sealed_and_keeps_the_rest() {
    let store = Arc::new(MemoryStore::default());
    let clock = Arc::<Later>::default();
    let life = begin_at(&store, clock.clone()).await;
    let node = Node::named("n1");
    let mut progress = life.hello(&node).await;
    let mut said = async |seqs: std::ops::RangeInclusive<u64>| {
        let last = *seqs.end();
        life.samples(&node, seqs).await;
        while progress.borrow().durable != [(1, last)] {
            progress.changed().await.expect("the line lives");
        }
    };
    // The first row comes with a snapshot; until a stop the second is too young for one.
    said(1..=2).await;
    said(3..=4).await;
    clock.0.store(60_000, Relaxed);
    eventually("sealed chunk", async || {
        let chunks = store.chunks(&node.gpu(), Timestamp(0), Timestamp(i64::MAX));
        let chunks = chunks.await.expect("read");
        (chunks.first()?.n_samples == 4).then_some(())
    })
    .await;
    said(5..=5).await;
    assert!(journalled(&store).await.ends_with(&[3, 4, 5]));

    life.stop().await;
    assert_eq!(journalled(&store).await, [5]);
    let life = begin(&store).await;
    assert_eq!(life.hello(&node).await.borrow().durable, [(1, 5)]);
}
