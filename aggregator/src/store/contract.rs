//! What every store must hold to, whatever it is made of. Each function is one clause, given an empty store.

use entrenar::gpu::{GpuUuid, Values};
use entrenar::metric::POWER;
use entrenar::report::{Hello, Holder, HolderChange, Inventory, StreamId};
use entrenar::unit::Timestamp;

use super::*;
use crate::andon::{Kind, Severity};
use crate::chunk::{self, stretch};
use crate::incident::testing::incident;
use crate::incident::{Notice, NoticeEvent, State};

/// Makes a test of each clause, for a store that `$fresh` gives with whatever must live as long.
macro_rules! contract {
    ($fresh:expr) => {
        contract!($fresh;
            what_is_committed_is_found_again
            positions_rise_even_when_everything_is_forgotten
            the_journal_is_read_in_pages_from_after_a_position
            sealing_the_same_stretch_again_merges
            chunks_are_found_by_gpu_and_overlap_oldest_first
            an_older_snapshot_does_not_replace_a_newer_one
            deciding_twice_is_harmless_and_old_news_are_ignored
            a_cord_has_one_open_incident_and_a_refused_decision_leaves_no_trace
            incidents_are_filtered_and_paged_newest_first
            attempts_are_counted_and_a_settled_notice_is_no_longer_pending
            retention_drops_what_is_old_and_keeps_what_is_open_or_current
            a_forgotten_node_is_no_longer_expected
        );
    };
    ($fresh:expr; $($clause:ident)*) => {$(
        #[tokio::test]
        async fn $clause() {
            let (store, _alive) = $fresh.await;
            $crate::store::contract::$clause(&store).await;
        }
    )*};
}
pub(crate) use contract;

const BASE: Timestamp = Timestamp::from_secs(1_700_000_000);

fn at(secs: i64) -> Timestamp {
    Timestamp(BASE.0 + secs * 1000)
}

fn stream(n: u8) -> StreamId {
    StreamId([n; 16])
}

fn entry(n: u8) -> JournalEntry {
    JournalEntry::Record {
        received_at: at(n.into()),
        sent_at: at(0),
        stream: stream(1),
        bytes: vec![n; 5],
    }
}

fn journal(n: u8) -> Flush {
    Flush {
        journal: vec![entry(n), JournalEntry::Advance { to: at(n.into()) }],
        ..Flush::default()
    }
}

fn mark(n: u8, node: &str) -> StreamMark {
    StreamMark {
        hello: Hello {
            stream: stream(n),
            node: node.into(),
            labels: [("rack".to_owned(), "r1".to_owned())].into(),
            inventories: vec![Inventory::default()],
            agent_version: "1.0".into(),
            driver_version: None,
            interval_ms: 1000,
            batch_ticks: 1,
            first_seq: 1,
            next_seq: 9,
        },
        durable: vec![(1, 5), (7, u64::MAX)],
        last_received_at: at(n.into()),
        gone: n % 2 == 0,
    }
}

fn holder(gpu: &str, secs: i64, job: Option<&str>) -> HolderChange {
    HolderChange {
        at: at(secs),
        gpu: gpu.into(),
        holder: job.map(|job| Holder {
            job: job.into(),
            pids: vec![7],
            ..Holder::default()
        }),
    }
}

/// A chunk with a sample at each of these seconds, whose power is `value`.
fn sealed(gpu: &str, secs: impl IntoIterator<Item = i64>, value: i64) -> SealedChunk {
    let gpu = GpuUuid::from(gpu);
    let samples: Vec<_> = secs
        .into_iter()
        .map(|s| (at(s), Values::default().with(POWER, value)))
        .collect();
    let length = std::time::Duration::from_secs(720);
    SealedChunk {
        stretch: stretch::start(&gpu, length, samples[0].0),
        length_ms: length.as_millis() as u32,
        from: samples[0].0,
        to: samples[samples.len() - 1].0,
        n_samples: samples.len() as u32,
        blob: chunk::encode(&samples).unwrap(),
        gpu,
    }
}

fn seal(sealed: Vec<SealedChunk>) -> Flush {
    Flush {
        sealed,
        ..Flush::default()
    }
}

/// First second after `BASE` at which a stretch of this GPU begins.
fn stretch_second(gpu: &str) -> i64 {
    let length = std::time::Duration::from_secs(720);
    let start = stretch::start(&gpu.into(), length, at(720));
    (start.0 - BASE.0).div_euclid(1000) + 1
}

pub(crate) async fn what_is_committed_is_found_again(store: &dyn Store) {
    let empty = store.recover().await.unwrap();
    assert_eq!((empty.streams.len(), empty.journal), (0, None));

    let snapshot = Snapshot {
        position: JournalPosition(1),
        taken_at: at(9),
        bytes: vec![1, 2, 3],
    };
    let flush = Flush {
        marks: vec![mark(1, "a"), mark(2, "b")],
        holders: vec![
            holder("GPU-1", 5, Some("train")),
            holder("GPU-1", 8, None),
            holder("GPU-2", 1, Some("x")),
        ],
        snapshot: Some(snapshot.clone()),
        ..journal(1)
    };
    let first = store.commit(flush.clone()).await.unwrap();
    let found = store.recover().await.unwrap();
    assert_eq!(found.streams, [mark(1, "a"), mark(2, "b")]);
    assert_eq!(
        found.holders,
        [holder("GPU-1", 8, None), holder("GPU-2", 1, Some("x"))]
    );
    assert_eq!(found.snapshot, Some(snapshot));
    assert_eq!(found.journal, Some((first.position, first.position)));

    let again = store.commit(flush).await.unwrap();
    assert!(first.position < again.position);
    let moved = StreamMark {
        durable: vec![(1, 9)],
        gone: true,
        ..mark(1, "a")
    };
    let only_mark = Flush {
        marks: vec![moved.clone()],
        ..Flush::default()
    };
    assert_eq!(store.commit(only_mark).await.unwrap(), again);
    assert_eq!(
        store.recover().await.unwrap().streams,
        [moved, mark(2, "b")]
    );
}

pub(crate) async fn positions_rise_even_when_everything_is_forgotten(store: &dyn Store) {
    let first = store.commit(journal(1)).await.unwrap().position;
    let forget = Flush {
        forget_journal: Some(first),
        ..Flush::default()
    };
    assert_eq!(store.commit(forget).await.unwrap().position, first);
    let second = store.commit(journal(2)).await.unwrap().position;
    assert!(first < second);
    let rows = store.journal(JournalPosition(0), 9).await.unwrap();
    assert_eq!(rows, [(second, journal(2).journal)]);
}

pub(crate) async fn the_journal_is_read_in_pages_from_after_a_position(store: &dyn Store) {
    for n in 0..5 {
        store.commit(journal(n)).await.unwrap();
    }
    let first = store.journal(JournalPosition(0), 2).await.unwrap();
    let rest = store.journal(first[1].0, 9).await.unwrap();
    let read: Vec<_> = first
        .iter()
        .chain(&rest)
        .map(|(_, entries)| entries[0].clone())
        .collect();
    assert_eq!(read, (0..5).map(entry).collect::<Vec<_>>());
    assert!(rest.is_sorted_by(|a, b| a.0 < b.0));
}

pub(crate) async fn sealing_the_same_stretch_again_merges(store: &dyn Store) {
    let base = stretch_second("GPU-1");
    let early = sealed("GPU-1", base..base + 10, 1);
    let late = sealed("GPU-1", base + 5..base + 15, 2);
    store.commit(seal(vec![early.clone()])).await.unwrap();
    store
        .commit(seal(vec![early.clone(), late.clone(), late]))
        .await
        .unwrap();
    let found = store.chunks(&early.gpu, at(base), at(base)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].n_samples, found[0].from, found[0].to),
        (15, at(base), at(base + 14))
    );
    let values = chunk::decode_metric(&found[0].blob, POWER).unwrap();
    let expected: Vec<_> = (0..15)
        .map(|i| (at(base + i), if i < 10 { 1 } else { 2 }))
        .collect();
    assert_eq!(values, expected);
}

pub(crate) async fn chunks_are_found_by_gpu_and_overlap_oldest_first(store: &dyn Store) {
    let base = stretch_second("GPU-1");
    let mut hourly = sealed("GPU-1", [base + 1440], 4);
    let length = std::time::Duration::from_hours(1);
    hourly.stretch = stretch::start(&hourly.gpu, length, hourly.from);
    hourly.length_ms = length.as_millis() as u32;
    let chunks = vec![
        sealed("GPU-1", base + 720..base + 730, 2),
        sealed("GPU-1", base..base + 700, 1),
        hourly,
        sealed("GPU-2", base..base + 1, 3),
    ];
    store.commit(seal(chunks)).await.unwrap();
    let starts = async |from: i64, to: i64| -> Vec<i64> {
        let found = store
            .chunks(&"GPU-1".into(), at(from), at(to))
            .await
            .unwrap();
        found
            .iter()
            .map(|c| (c.from.0 - BASE.0) / 1000 - base)
            .collect()
    };
    assert_eq!(starts(base, base + 2000).await, [0, 720, 1440]);
    assert_eq!(starts(base + 699, base + 719).await, [0]);
    assert_eq!(starts(base + 700, base + 719).await, [] as [i64; 0]);
    assert_eq!(starts(base + 729, base + 1439).await, [720]);
    let everything = store
        .chunks(&"GPU-1".into(), Timestamp(i64::MIN), Timestamp(i64::MAX))
        .await;
    assert_eq!(everything.unwrap().len(), 3);
    assert_eq!(
        store.chunks(&"GPU-9".into(), BASE, at(9999)).await.unwrap(),
        []
    );
}

pub(crate) async fn an_older_snapshot_does_not_replace_a_newer_one(store: &dyn Store) {
    for position in [5, 7, 6] {
        let snapshot = Snapshot {
            position: JournalPosition(position),
            taken_at: BASE,
            bytes: vec![position as u8],
        };
        let flush = Flush {
            snapshot: Some(snapshot),
            ..Flush::default()
        };
        store.commit(flush).await.unwrap();
    }
    let snapshot = store.recover().await.unwrap().snapshot.unwrap();
    assert_eq!((snapshot.position.0, snapshot.bytes), (7, vec![7]));
}

fn line(secs: i64, what: &str) -> TimelineEntry {
    TimelineEntry {
        at: at(secs),
        what: what.into(),
        who: "engine".into(),
        note: None,
    }
}

fn notice(incident: &Incident, secs: i64, receiver: &str) -> Notice {
    Notice {
        delivery_id: crate::incident::id::delivery_id(&incident.id, incident.ordinal, receiver),
        receiver: receiver.into(),
        event: NoticeEvent::Trigger,
        created_at: at(secs),
        incident: incident.clone(),
    }
}

/// An open incident on a GPU of `node`, fired this many seconds after `BASE`.
fn fired(node: &str, secs: i64) -> Incident {
    Incident {
        fired_at: at(secs),
        last_transition_at: at(secs),
        ..incident(node, Kind::ThermalThrottling, Severity::Warning)
    }
}

fn decision(incident: &Incident, secs: i64) -> Decision {
    Decision {
        incidents: vec![incident.clone()],
        timeline: vec![(incident.id.clone(), line(secs, "raised"))],
        notices: vec![
            notice(incident, secs, "chat"),
            notice(incident, secs + 1, "pager"),
        ],
        cords: vec![(incident.cord(), at(secs))],
    }
}

pub(crate) async fn deciding_twice_is_harmless_and_old_news_are_ignored(store: &dyn Store) {
    let old = fired("a", 10);
    let new = Incident {
        state: State::Resolved,
        resolved_at: Some(at(20)),
        last_transition_at: at(20),
        ordinal: 2,
        ..old.clone()
    };
    for decided in [
        decision(&old, 10),
        decision(&old, 10),
        decision(&new, 20),
        decision(&old, 10),
    ] {
        store.decide(decided).await.unwrap();
    }
    let (found, lines, notices) = store.incident(&old.id).await.unwrap().unwrap();
    assert_eq!(found, new);
    assert_eq!(lines, [line(10, "raised"), line(20, "raised")]);
    let told: Vec<_> = notices
        .iter()
        .map(|s| (s.notice.created_at, s.notice.incident.ordinal))
        .collect();
    assert_eq!(told, [(at(10), 1), (at(11), 1), (at(20), 2), (at(21), 2)]);
    let recovered = store.recover().await.unwrap();
    assert_eq!(recovered.open_incidents, []);
    assert_eq!(recovered.cords, [(old.cord(), at(20))]);

    let acknowledged = Incident {
        acknowledged_by: Some("ann".into()),
        ordinal: 3,
        ..new
    };
    store.decide(decision(&acknowledged, 20)).await.unwrap();
    assert_eq!(
        store.incident(&old.id).await.unwrap().unwrap().0,
        acknowledged
    );
    assert!(store.incident("no such").await.unwrap().is_none());
}

pub(crate) async fn a_cord_has_one_open_incident_and_a_refused_decision_leaves_no_trace(
    store: &dyn Store,
) {
    let first = fired("a", 10);
    let second = Incident {
        id: "second".into(),
        ..fired("a", 20)
    };
    store.decide(decision(&first, 10)).await.unwrap();
    let refused = store.decide(decision(&second, 20)).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert!(store.incident("second").await.unwrap().is_none());
    assert_eq!(store.pending_notices().await.unwrap().len(), 2);
    assert_eq!(
        store.recover().await.unwrap().cords,
        [(first.cord(), at(10))]
    );

    // In one decision the first may make room for the second, in whatever order they stand.
    let closed = Incident {
        state: State::Closed,
        ordinal: 2,
        ..first
    };
    let mut both = decision(&second, 20);
    both.incidents.push(closed);
    store.decide(both).await.unwrap();
    assert_eq!(store.recover().await.unwrap().open_incidents, [second]);
}

pub(crate) async fn incidents_are_filtered_and_paged_newest_first(store: &dyn Store) {
    let mut all: Vec<Incident> = (0..4i64)
        .map(|i| fired(&format!("n{i}"), 10 - i / 2))
        .collect();
    all[2].state = State::Resolved;
    all[3].severity = Severity::Critical;
    all[3].job = None;
    for incident in &all {
        store.decide(decision(incident, 10)).await.unwrap();
    }
    all.sort_by(|a, b| (b.fired_at, &b.id).cmp(&(a.fired_at, &a.id)));
    let ask = async |filter: IncidentFilter| store.incidents(filter).await.unwrap();
    let any = || IncidentFilter {
        limit: 9,
        ..IncidentFilter::default()
    };
    assert_eq!(ask(any()).await, all);
    let page = ask(IncidentFilter { limit: 2, ..any() }).await;
    assert_eq!(page, all[..2]);
    let before = Some((page[1].fired_at, page[1].id.clone()));
    assert_eq!(ask(IncidentFilter { before, ..any() }).await, all[2..]);

    let check = async |filter: IncidentFilter, nodes: &[&str]| {
        let mut found: Vec<String> = ask(filter)
            .await
            .iter()
            .map(|i| filter::nodes_of(i).into_iter().collect())
            .collect();
        found.sort();
        assert_eq!(found, nodes);
    };
    check(
        IncidentFilter {
            open: Some(true),
            ..any()
        },
        &["n0", "n1", "n3"],
    )
    .await;
    check(
        IncidentFilter {
            open: Some(false),
            ..any()
        },
        &["n2"],
    )
    .await;
    check(
        IncidentFilter {
            severity: Some("critical".into()),
            ..any()
        },
        &["n3"],
    )
    .await;
    check(
        IncidentFilter {
            node: Some("n1".into()),
            ..any()
        },
        &["n1"],
    )
    .await;
    check(
        IncidentFilter {
            job: Some("train-1".into()),
            ..any()
        },
        &["n0", "n1", "n2"],
    )
    .await;
    check(
        IncidentFilter {
            kind: Some("Xid".into()),
            ..any()
        },
        &[],
    )
    .await;
}

pub(crate) async fn attempts_are_counted_and_a_settled_notice_is_no_longer_pending(
    store: &dyn Store,
) {
    let about = fired("a", 10);
    store.decide(decision(&about, 10)).await.unwrap();
    let [chat, pager] = [notice(&about, 10, "chat"), notice(&about, 11, "pager")];
    let attempt = |notice: &Notice, state, error: Option<&str>| Attempt {
        delivery_id: notice.delivery_id.clone(),
        at: at(12),
        state,
        next_attempt_at: error.map(|_| at(30)),
        error: error.map(Into::into),
    };
    let pending = store.pending_notices().await.unwrap();
    assert_eq!(
        pending.iter().map(|s| &s.notice).collect::<Vec<_>>(),
        [&chat, &pager]
    );

    store
        .record_attempts(vec![
            attempt(&chat, NoticeState::Pending, Some("503")),
            attempt(&pager, NoticeState::Delivered, None),
        ])
        .await
        .unwrap();
    let waiting = NoticeStatus {
        notice: chat.clone(),
        state: NoticeState::Pending,
        attempts: 1,
        next_attempt_at: Some(at(30)),
        delivered_at: None,
        last_error: Some("503".into()),
    };
    let delivered = NoticeStatus {
        notice: pager,
        state: NoticeState::Delivered,
        attempts: 1,
        next_attempt_at: None,
        delivered_at: Some(at(12)),
        last_error: None,
    };
    assert_eq!(
        store.pending_notices().await.unwrap(),
        std::slice::from_ref(&waiting)
    );
    let all = store.notices(None, None, 9).await.unwrap();
    assert_eq!(all, [delivered.clone(), waiting.clone()]);
    let cursor = Some((all[0].notice.created_at, all[0].notice.delivery_id.clone()));
    assert_eq!(store.notices(None, cursor, 9).await.unwrap(), [waiting]);
    let found = store
        .notices(Some(NoticeState::Delivered), None, 9)
        .await
        .unwrap();
    assert_eq!(found, [delivered]);
    // The same decision again, as after a crash, does not make them pending again.
    store.decide(decision(&about, 10)).await.unwrap();
    assert_eq!(store.pending_notices().await.unwrap().len(), 1);
}

pub(crate) async fn retention_drops_what_is_old_and_keeps_what_is_open_or_current(
    store: &dyn Store,
) {
    let base = stretch_second("GPU-1");
    let sealed = vec![
        sealed("GPU-1", base..base + 10, 1),
        sealed("GPU-1", base + 720..base + 730, 1),
        sealed("GPU-1", base + 1440..base + 1450, 1),
    ];
    let flush = Flush {
        sealed,
        holders: vec![
            holder("GPU-1", base, Some("old")),
            holder("GPU-1", base + 1, Some("current")),
            holder("GPU-2", base + 1450, None),
        ],
        ..Flush::default()
    };
    store.commit(flush).await.unwrap();
    let open = fired("a", 10);
    let resolved = Incident {
        state: State::Resolved,
        ..fired("b", 10)
    };
    let recent = Incident {
        state: State::Resolved,
        ..fired("c", 5000)
    };
    for (decided, secs) in [(&open, 10), (&resolved, 10), (&recent, 5000)] {
        store.decide(decision(decided, secs)).await.unwrap();
    }
    let settled = store.notices(None, None, 9).await.unwrap();
    let delivered = settled.iter().map(|s| Attempt {
        delivery_id: s.notice.delivery_id.clone(),
        at: at(20),
        state: NoticeState::Delivered,
        next_attempt_at: None,
        error: None,
    });
    store
        .record_attempts(delivered.skip(1).collect())
        .await
        .unwrap();

    let gone = store.retain(at(base + 725), at(1000)).await.unwrap();
    // One chunk, one incident, and the four settled notices of second 10.
    assert_eq!(gone, 6);
    let left = store.chunks(&"GPU-1".into(), BASE, at(9999)).await.unwrap();
    let from: Vec<_> = left
        .iter()
        .map(|c| (c.from.0 - BASE.0) / 1000 - base)
        .collect();
    assert_eq!(from, [720, 1440]);
    let any = IncidentFilter {
        limit: 9,
        ..IncidentFilter::default()
    };
    assert_eq!(
        store.incidents(any).await.unwrap(),
        [recent.clone(), open.clone()]
    );
    assert_eq!(store.notices(None, None, 9).await.unwrap().len(), 2);
    let recovered = store.recover().await.unwrap();
    assert_eq!(
        recovered.holders,
        [
            holder("GPU-1", base + 1, Some("current")),
            holder("GPU-2", base + 1450, None)
        ]
    );
    let mut cords = vec![(open.cord(), at(10)), (recent.cord(), at(5000))];
    cords.sort();
    assert_eq!(recovered.cords, cords);
    assert_eq!(store.retain(at(base + 725), at(1000)).await.unwrap(), 0);
}

pub(crate) async fn a_forgotten_node_is_no_longer_expected(store: &dyn Store) {
    let flush = Flush {
        marks: vec![mark(1, "a"), mark(2, "b"), mark(3, "a")],
        ..Flush::default()
    };
    store.commit(flush).await.unwrap();
    store.forget_node(&"a".into()).await.unwrap();
    assert_eq!(store.recover().await.unwrap().streams, [mark(2, "b")]);
}
