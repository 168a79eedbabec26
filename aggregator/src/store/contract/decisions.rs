//! Clauses about decisions, notices and retention.

use super::*;

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

pub(crate) async fn what_a_person_closed_is_recovered_until_its_cord_has_cleared(
    store: &dyn Store,
) {
    let mut closed = fired("a", 10);
    closed.state = State::Closed;
    closed.resolution = Some(Resolution::Closed);
    store.decide(decision(&closed, 10)).await.unwrap();
    let kept = store.recover().await.unwrap().open_incidents;
    assert_eq!(kept, [closed.clone()]);

    closed.ordinal += 1;
    closed.resolution = Some(Resolution::Recovered);
    store.decide(decision(&closed, 10)).await.unwrap();
    assert_eq!(store.recover().await.unwrap().open_incidents, []);
}

pub(crate) async fn incidents_are_filtered_and_paged_newest_first(store: &dyn Store) {
    let mut all: Vec<Incident> = (0..4i64)
        .map(|i| fired(&format!("n{i}"), 10 - i / 2))
        .collect();
    all[2].state = State::Resolved;
    all[3].severity = Severity::Critical;
    all[3].job = None;
    all[3].flags.shadow = true;
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
            shadow: Some(true),
            ..any()
        },
        &["n3"],
    )
    .await;
    check(
        IncidentFilter {
            shadow: Some(false),
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
    // Days older: a store may drop whole days.
    let days_ago = base - 3 * 24 * 3600;
    let sealed = vec![
        sealed("GPU-1", days_ago..days_ago + 10, 1),
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

    let gone = store.retain(until(at(base + 725), at(1000))).await.unwrap();
    // One chunk, one incident, and the four settled notices of second 10.
    assert_eq!(gone, 6);
    let left = store
        .chunks(&"GPU-1".into(), at(days_ago), at(9999))
        .await
        .unwrap();
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
    assert_eq!(
        store.retain(until(at(base + 725), at(1000))).await.unwrap(),
        0
    );
}
