//! The outbox over a real store in memory and real receivers.

use entrenar::clock::SystemClock;

use super::*;
use crate::incident::book::IncidentBook;
use crate::incident::{Decision, Incident, NoticeEvent};
use crate::notify::route::{Route, Routes};
use crate::notify::testing::server::{Reply, Server, receivers_at};
use crate::notify::testing::{context, notice};
use crate::store::memory::{Failure, MemoryStore};

/// One process: an outbox over a store that outlives it.
struct Process {
    outbox: OutboxHandle,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _secrets: tempfile::TempDir,
}

fn start(store: &Arc<MemoryStore>, url: &str) -> Process {
    let folder = tempfile::tempdir().expect("a folder");
    let receivers = receivers_at(folder.path(), url);
    let poster = Poster::new(None).expect("a client");
    let (handle, outbox) = Outbox::new(
        store.clone(),
        &receivers,
        poster,
        context(),
        Arc::new(SystemClock),
    );
    let stop = CancellationToken::new();
    Process {
        outbox: handle,
        task: tokio::spawn(outbox.run(stop.clone())),
        stop,
        _secrets: folder,
    }
}

impl Process {
    /// Ends in good order: what was answered is recorded.
    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("no panic");
    }

    /// Ends as by a power cut.
    async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A notice of an incident of its own for the webhook receiver, decided now.
fn page(name: &str) -> Notice {
    let mut page = notice(NoticeEvent::Trigger, |i| rename(i, name));
    page.receiver = "webhook".into();
    page.created_at = SystemClock.now();
    page
}

fn rename(incident: &mut Incident, name: &str) {
    *incident = crate::incident::testing::incident(name, incident.kind, incident.severity);
}

async fn decide(store: &MemoryStore, notices: &[Notice]) {
    let decision = Decision {
        incidents: notices.iter().map(|n| n.incident.clone()).collect(),
        notices: notices.to_vec(),
        ..Decision::default()
    };
    store.decide(decision).await.expect("kept");
}

async fn states(store: &MemoryStore) -> Vec<NoticeState> {
    let all = store.notices(None, None, 1000).await.expect("readable");
    all.into_iter().map(|status| status.state).collect()
}

#[tokio::test]
async fn a_notice_is_sent_as_soon_as_it_is_fed_and_marked_delivered() {
    let store = Arc::new(MemoryStore::default());
    let mut server = Server::start([]).await;
    let process = start(&store, &server.url);
    let page = page("a");
    decide(&store, std::slice::from_ref(&page)).await;
    process.outbox.feed(vec![page.clone()]);
    assert_eq!(
        server.next().await.header("x-entrenar-delivery"),
        page.delivery_id
    );
    process.end().await;
    assert_eq!(states(&store).await, [NoticeState::Delivered]);
}

#[tokio::test]
async fn a_retry_has_the_same_delivery_id_and_counts_up() {
    let store = Arc::new(MemoryStore::default());
    let busy = Reply::With(429, ("retry-after", "0".into()), String::new());
    let mut server = Server::start([busy]).await;
    let process = start(&store, &server.url);
    let page = page("a");
    decide(&store, std::slice::from_ref(&page)).await;
    process.outbox.feed(vec![page.clone()]);
    for attempt in ["1", "2"] {
        let seen = server.next().await;
        assert_eq!(seen.header("x-entrenar-delivery"), page.delivery_id);
        assert_eq!(seen.header("x-entrenar-attempt"), attempt);
    }
    let stats = process.outbox.clone();
    process.end().await;
    assert_eq!(states(&store).await, [NoticeState::Delivered]);
    assert_eq!(stats.stats().receivers["webhook"].n_retries, 1);
}

#[tokio::test]
async fn what_is_refused_is_dead_and_shown_with_its_reason() {
    let store = Arc::new(MemoryStore::default());
    let mut server = Server::start([Reply::Says(400, "no such bridge".into())]).await;
    let process = start(&store, &server.url);
    let page = page("a");
    decide(&store, std::slice::from_ref(&page)).await;
    process.outbox.feed(vec![page]);
    server.next().await;
    let stats = process.outbox.clone();
    process.end().await;
    let dead = store
        .notices(Some(NoticeState::Dead), None, 10)
        .await
        .expect("readable");
    assert!(
        dead[0]
            .last_error
            .as_deref()
            .expect("a reason")
            .contains("no such bridge")
    );
    assert_eq!(stats.stats().receivers["webhook"].n_dead, 1);
}

/// The last step that a process took before it was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Observed,
    Decided,
    Sent,
    Marked,
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_the_same_incident_and_at_most_one_duplicate() {
    for crash in [Crash::Observed, Crash::Decided, Crash::Sent, Crash::Marked] {
        let (ids, sent) = crash_and_restart(crash).await;
        assert_eq!(ids.len(), 1, "{crash:?}");
        let (incident, delivery) = &ids[0];
        assert_eq!((incident.len(), delivery.len()), (16, 32));
        let n_sent = if crash == Crash::Sent { 2 } else { 1 };
        assert_eq!(sent, vec![delivery.clone(); n_sent], "{crash:?}");
    }
}

/// Tells of one GPU lost, crashing on the way; the next process replays the journal, which is this one transition.
/// Returns the incidents with their delivery ids, and the delivery ids that arrived.
async fn crash_and_restart(crash: Crash) -> (Vec<(String, String)>, Vec<String>) {
    let store = Arc::new(MemoryStore::default());
    // A process that crashes after it sent has seen no answer.
    let first_reply = (crash == Crash::Sent).then_some(Reply::Never);
    let mut server = Server::start(first_reply).await;
    let mut sent = Vec::new();

    let first = start(&store, &server.url);
    let decision = observe(&store).await;
    if crash != Crash::Observed {
        let decision = decision.expect("nothing was decided before");
        store.decide(decision.clone()).await.expect("kept");
        if crash != Crash::Decided {
            first.outbox.feed(decision.notices);
            sent.push(server.next().await.header("x-entrenar-delivery"));
        }
    }
    match crash {
        Crash::Marked => first.end().await,
        _ => first.crash().await,
    }

    let second = start(&store, &server.url);
    if let Some(decision) = observe(&store).await {
        store.decide(decision.clone()).await.expect("kept");
        second.outbox.feed(decision.notices);
    }
    // Nothing goes out before what is pending was fetched, so what else there is to send is on its way with this.
    let last = page("last");
    decide(&store, std::slice::from_ref(&last)).await;
    second.outbox.feed(vec![last.clone()]);
    let mut arrived = vec![server.next().await.header("x-entrenar-delivery")];
    while !arrived.contains(&last.delivery_id) {
        arrived.push(server.next().await.header("x-entrenar-delivery"));
    }
    second.end().await;
    arrived.extend(
        server
            .rest()
            .iter()
            .map(|seen| seen.header("x-entrenar-delivery")),
    );
    sent.extend(arrived.into_iter().filter(|id| *id != last.delivery_id));

    let kept = store.notices(None, None, 10).await.expect("readable");
    let kept = kept.into_iter().map(|status| status.notice);
    let ours = kept.filter(|notice| notice.delivery_id != last.delivery_id);
    (ours.map(|n| (n.incident.id, n.delivery_id)).collect(), sent)
}

/// A new book on what the store remembers, told the one transition of the journal.
async fn observe(store: &MemoryStore) -> Option<Decision> {
    use crate::andon::{Change, Kind, Severity};
    let routes = Routes(vec![Route::to("webhook", Severity::Warning)]);
    let mut book = IncidentBook::new("c", routes);
    let recovered = store.recover().await.expect("readable");
    book.load(recovered.open_incidents, recovered.cords);
    let at = Timestamp::from_secs(1_700_000_000);
    let lost = crate::incident::testing::transition(
        "a",
        Kind::GpuLost,
        Severity::Critical,
        Change::Raised,
        at,
    );
    book.apply(&lost, SystemClock.now())
}

#[tokio::test]
async fn a_page_that_the_store_could_not_keep_goes_out_marked_and_only_once() {
    let store = Arc::new(MemoryStore::default());
    let mut server = Server::start([]).await;
    let process = start(&store, &server.url);
    let page = page("a");
    store.fail(Some(Failure::Unavailable));
    process.outbox.send_unrecorded(std::slice::from_ref(&page));
    let seen = server.next().await;
    assert_eq!(seen.header("x-entrenar-delivery"), page.delivery_id);
    let text = seen.body().to_string();
    assert!(text.contains("Not recorded"), "{text}");

    store.fail(None);
    decide(&store, std::slice::from_ref(&page)).await;
    let last = self::page("last");
    decide(&store, std::slice::from_ref(&last)).await;
    process.outbox.feed(vec![page, last.clone()]);
    assert_eq!(
        server.next().await.header("x-entrenar-delivery"),
        last.delivery_id
    );
    process.end().await;
    assert!(server.rest().is_empty());
    assert_eq!(states(&store).await, [NoticeState::Delivered; 2]);
}

#[tokio::test]
async fn a_storm_arrives_as_ten_requests_that_name_every_incident() {
    let store = Arc::new(MemoryStore::default());
    let mut server = Server::start([]).await;
    let process = start(&store, &server.url);
    let storm: Vec<Notice> = (0..40).map(|n| page(&format!("n{n}"))).collect();
    decide(&store, &storm).await;
    process.outbox.feed(storm);
    let mut n_alerts = 0;
    for _ in 0..10 {
        let body = server.next().await.body();
        crate::notify::testing::validate_webhook(&body);
        n_alerts += body["alerts"].as_array().map_or(0, Vec::len);
    }
    process.end().await;
    assert_eq!(n_alerts, 40);
    assert_eq!(states(&store).await, [NoticeState::Delivered; 40]);
}

#[tokio::test]
async fn a_notice_for_a_receiver_that_is_gone_is_put_aside_with_a_reason() {
    let store = Arc::new(MemoryStore::default());
    let mut orphan = page("a");
    orphan.receiver = "nobody".into();
    decide(&store, &[orphan]).await;
    let mut server = Server::start([]).await;
    let process = start(&store, &server.url);
    let last = page("last");
    decide(&store, std::slice::from_ref(&last)).await;
    process.outbox.feed(vec![last]);
    server.next().await;
    process.end().await;
    let dead = store
        .notices(Some(NoticeState::Dead), None, 10)
        .await
        .expect("readable");
    assert!(
        dead[0]
            .last_error
            .as_deref()
            .expect("a reason")
            .contains("no receiver is named nobody")
    );
}
