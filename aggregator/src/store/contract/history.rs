//! Clauses about commits: journal, chunks, marks, holders, snapshots.

use super::*;

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
    let gpus = ["GPU-1", "GPU-2", "GPU-3"].map(GpuUuid::from);
    let held = async |from, to| {
        let mut held = store.holders(&gpus, at(from), at(to)).await.unwrap();
        held.sort_by_key(|change| (change.gpu.clone(), change.at));
        held
    };
    let (train, nobody) = (holder("GPU-1", 5, Some("train")), holder("GPU-1", 8, None));
    let other = holder("GPU-2", 1, Some("x"));
    assert_eq!(held(6, 7).await, [train.clone(), other.clone()]);
    assert_eq!(held(0, 9).await, [train, nobody.clone(), other.clone()]);
    assert_eq!(held(8, 9).await, [nobody, other]);
    assert_eq!(held(0, 0).await, []);
    assert_eq!(store.holders(&gpus[2..], at(0), at(9)).await.unwrap(), []);
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

pub(crate) async fn what_a_chunk_comes_to_stands_beside_it_and_outlives_it(store: &dyn Store) {
    let base = stretch_second("GPU-1");
    let minute = Duration::from_mins(1);
    let sums = async |step: Duration, from: i64, to: i64| {
        let gpu = [GpuUuid::from("GPU-1")];
        let asked = store.rollups(&gpu, &[POWER], step, at(from), at(to));
        let found = asked.await.unwrap().concat();
        let buckets = |stored: &StoredRollup| match &stored.sums {
            Some(sums) => sums.metric(POWER).unwrap(),
            None => Vec::new(),
        };
        let told = |stored: &StoredRollup| {
            let buckets = buckets(stored);
            let count: u64 = buckets.iter().map(|bucket| bucket.count).sum();
            let sum: i128 = buckets.iter().map(|bucket| bucket.sum).sum();
            (stored.from, stored.to, count, sum)
        };
        found.iter().map(told).collect::<Vec<_>>()
    };
    let first = sealed("GPU-1", base..base + 100, 3);
    let next = sealed("GPU-1", base + 720..base + 730, 5);
    let other = sealed(
        "GPU-2",
        stretch_second("GPU-2")..stretch_second("GPU-2") + 9,
        1,
    );
    store.commit(seal(vec![next, first, other])).await.unwrap();
    let both = [
        (at(base), at(base + 99), 100, 300),
        (at(base + 720), at(base + 729), 10, 50),
    ];
    for step in rollup::STEPS {
        assert_eq!(sums(step, base, base + 1440).await, both);
    }
    assert_eq!(sums(minute, base + 100, base + 720).await, both[1..]);

    // Late samples are in the sums as well.
    let late = sealed("GPU-1", base + 90..base + 110, 7);
    store.commit(seal(vec![late])).await.unwrap();
    let merged = (at(base), at(base + 109), 110, 370);
    assert_eq!(sums(minute, base, base + 700).await, [merged]);

    // Where a sampling interval is too long for a minute, there are samples and no sums of it.
    let mut slow = sealed("GPU-1", [base + 7200], 4);
    let length = Duration::from_hours(2);
    slow.stretch = stretch::start(&slow.gpu, length, slow.from);
    slow.length_ms = length.as_millis() as u32;
    let slow_at = slow.from;
    store.commit(seal(vec![slow])).await.unwrap();
    let hour = Duration::from_hours(1);
    assert_eq!(
        sums(minute, base + 7200, base + 7200).await,
        [(slow_at, slow_at, 0, 0)]
    );
    assert_eq!(
        sums(hour, base + 7200, base + 7200).await,
        [(slow_at, slow_at, 1, 4)]
    );

    // Each is kept for a time of its own; a store that keeps partitions keeps them longer.
    let far = at(base) + Duration::from_hours(24 * 400);
    let keep_hours = Retention {
        hours_before: at(base),
        ..until(far, at(0))
    };
    store.retain(keep_hours).await.unwrap();
    let gpu = GpuUuid::from("GPU-1");
    let chunks = store.chunks(&gpu, at(base), at(base + 9000)).await.unwrap();
    assert_eq!(chunks, []);
    assert_eq!(sums(minute, base, base + 1440).await, []);
    assert_eq!(sums(hour, base, base + 1440).await, [merged, both[1]]);

    // What comes later still is in no sum: those that are there know more than it.
    let forgotten = sealed("GPU-1", base + 300..base + 310, 9);
    // Where days are parts of a table, one that is gone is said, and made again once the writer has connected anew.
    while let Err(error) = store.commit(seal(vec![forgotten.clone()])).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        tokio::task::yield_now().await;
    }
    assert_eq!(sums(hour, base, base + 700).await, [merged]);
}

pub(crate) async fn sums_that_are_laid_together_come_to_the_same(store: &dyn Store) {
    let base = stretch_second("GPU-1");
    let gpus = ["GPU-1", "GPU-2", "GPU-3"].map(GpuUuid::from);
    let stretch_of = |gpu: &str, n: i64, value| {
        let base = stretch_second(gpu) + 720 * n;
        sealed(gpu, base..base + 700, value)
    };
    let told = async |step: Duration| {
        let asked = store.rollups(&gpus, &[POWER], step, at(base - 9000), at(base + 9000));
        let found = asked.await.unwrap();
        let of_gpu = |stored: &Vec<StoredRollup>| {
            let buckets = |stored: &StoredRollup| {
                let sums = stored.sums.as_ref().unwrap();
                (
                    stored.stretch,
                    stored.from,
                    stored.to,
                    sums.metric(POWER).unwrap(),
                )
            };
            stored.iter().map(buckets).collect::<Vec<_>>()
        };
        found.iter().map(of_gpu).collect::<Vec<_>>()
    };
    let far = at(base) + Duration::from_hours(24 * 400);
    let first = (0..6).map(|n| stretch_of("GPU-1", n, 3));
    let second = (0..6).map(|n| stretch_of("GPU-2", n, 4));
    store
        .commit(seal(first.chain(second).collect()))
        .await
        .unwrap();
    let before = [told(rollup::STEPS[0]).await, told(rollup::STEPS[1]).await];
    assert_eq!(
        before[0].iter().map(Vec::len).collect::<Vec<_>>(),
        [6, 6, 0]
    );
    // Nothing is over yet; then everything; then there is nothing left to do.
    assert_eq!(store.compact(at(base + 700)).await.unwrap(), 0);
    store.compact(far).await.unwrap();
    for (n, step) in rollup::STEPS.into_iter().enumerate() {
        assert_eq!(told(step).await, before[n]);
    }
    assert_eq!(store.compact(far).await.unwrap(), 0);

    // Late samples, a late stretch, and a late GPU are seen at once, and the same when they are laid together as well.
    let late_base = base + 720;
    let late = sealed("GPU-1", late_base + 690..late_base + 710, 9);
    let late_gpu = stretch_of("GPU-3", 1, 5);
    store
        .commit(seal(vec![late, late_gpu, stretch_of("GPU-2", 6, 4)]))
        .await
        .unwrap();
    let with_late = [told(rollup::STEPS[0]).await, told(rollup::STEPS[1]).await];
    assert_eq!(
        with_late[0].iter().map(Vec::len).collect::<Vec<_>>(),
        [6, 7, 1]
    );
    let late_count = |of_gpu: &[(Timestamp, Timestamp, Timestamp, Vec<Bucket>)]| {
        let buckets = of_gpu.iter().flat_map(|(.., buckets)| buckets);
        buckets.map(|bucket| bucket.count).sum::<u64>()
    };
    assert_eq!(late_count(&with_late[0][0]), 6 * 700 + 10);
    store.compact(far).await.unwrap();
    for (n, step) in rollup::STEPS.into_iter().enumerate() {
        assert_eq!(told(step).await, with_late[n]);
    }

    // What comes of a chunk that was dropped knows less than they do.
    let chunks_only = Retention {
        minutes_before: at(base - 9000),
        hours_before: at(base - 9000),
        ..until(far, at(0))
    };
    store.retain(chunks_only).await.unwrap();
    let forgotten = sealed("GPU-1", base + 300..base + 310, 9);
    while let Err(error) = store.commit(seal(vec![forgotten.clone()])).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        tokio::task::yield_now().await;
    }
    assert_eq!(told(rollup::STEPS[0]).await, with_late[0]);

    // They go when their time is over.
    store.retain(until(far, at(0))).await.unwrap();
    for step in rollup::STEPS {
        assert_eq!(told(step).await.concat(), []);
    }
}

pub(crate) async fn a_stretch_in_which_a_longer_one_begins_is_summed_up_by_every_step(
    store: &dyn Store,
) {
    let long = LENGTH * 10;
    let gpu = GpuUuid::from("GPU-1");
    let from = stretch::start(&gpu, long, at(20_000));
    let second = (from.0 - BASE.0).div_euclid(1000) + 1;
    let short = sealed("GPU-1", second..second + 9, 1);
    let mut longer = sealed("GPU-1", [second + 3000, second + 3600], 2);
    (longer.stretch, longer.length_ms) = (from, long.as_millis() as u32);
    assert_eq!(short.stretch, longer.stretch);
    for sealed in [short, longer] {
        store.commit(seal(vec![sealed])).await.unwrap();
    }
    for step in rollup::STEPS {
        let gpus = [gpu.clone()];
        let asked = store.rollups(&gpus, &[POWER], step, from, from + long);
        let found = asked.await.unwrap().concat();
        let buckets = |stored: &StoredRollup| stored.sums.as_ref().unwrap().metric(POWER).unwrap();
        let counts = found.iter().flat_map(buckets).map(|bucket| bucket.count);
        assert_eq!(counts.sum::<u64>(), 11, "{step:?}");
    }
}

pub(crate) async fn a_chunk_that_cannot_be_summed_up_holds_up_nobody(store: &dyn Store) {
    let base = stretch_second("GPU-1");
    let good = sealed("GPU-1", base..base + 10, 3);
    let mut bad = sealed(
        "GPU-2",
        stretch_second("GPU-2")..stretch_second("GPU-2") + 9,
        1,
    );
    bad.blob = vec![9; 30];
    store
        .commit(seal(vec![bad.clone(), good.clone()]))
        .await
        .unwrap();
    let minute = Duration::from_mins(1);
    let sums = async |of: &SealedChunk| {
        let gpus = [of.gpu.clone()];
        let asked = store.rollups(&gpus, &[POWER], minute, of.from, of.to);
        let found = asked.await.unwrap().concat();
        found
            .iter()
            .map(|stored| stored.sums.is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(sums(&good).await, [true]);
    // It is there, to be read sample by sample: whoever does is told that it is damaged.
    assert_eq!(sums(&bad).await, [false]);
}

pub(crate) async fn chunks_are_found_by_gpu_and_overlap_oldest_first(store: &dyn Store) {
    let base = stretch_second("GPU-1");
    let mut hourly = sealed("GPU-1", [base + 1440], 4);
    let length = Duration::from_hours(1);
    hourly.stretch = stretch::start(&hourly.gpu, length, hourly.from);
    hourly.length_ms = length.as_millis() as u32;
    let chunks = vec![
        sealed("GPU-1", base + 720..base + 730, 2),
        sealed("GPU-1", base..base + 700, 1),
        hourly,
        sealed("GPU-2", [base], 3),
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

pub(crate) async fn a_snapshot_stands_at_the_journal_row_of_its_own_flush(store: &dyn Store) {
    let flush = |byte: u8, journal: Vec<JournalEntry>| Flush {
        journal,
        snapshot: Some(Snapshot {
            position: JournalPosition::default(),
            taken_at: BASE,
            bytes: vec![byte],
        }),
        ..Flush::default()
    };
    let advance = || vec![JournalEntry::Advance { to: BASE }];
    let kept = async || store.recover().await.unwrap().snapshot.unwrap();
    for byte in 1..=2 {
        let durable = store.commit(flush(byte, advance())).await.unwrap();
        let kept = kept().await;
        assert_eq!((kept.position, kept.bytes), (durable.position, vec![byte]));
    }
    let newest = kept().await.position;
    store.commit(flush(3, vec![])).await.unwrap();
    let kept = kept().await;
    assert_eq!((kept.position, kept.bytes), (newest, vec![3]));
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

pub(crate) async fn what_was_reported_is_found_by_node_and_time(store: &dyn Store) {
    let event = |secs, node: &str, gpu: Option<&str>, xid| NodeEvent {
        node: node.into(),
        event: GpuEvent {
            at: at(secs),
            gpu: gpu.map(Into::into),
            what: GpuEventKind::Xid(xid),
        },
    };
    let first = event(1, "n1", Some("GPU-1"), 31);
    let whole_node = event(5, "n1", None, 79);
    let other = event(5, "n2", Some("GPU-2"), 13);
    let old = event(-9 * 24 * 3600, "n1", Some("GPU-1"), 48);
    let flush = Flush {
        events: vec![
            whole_node.clone(),
            first.clone(),
            other.clone(),
            old.clone(),
        ],
        ..Flush::default()
    };
    store.commit(flush.clone()).await.unwrap();
    store.commit(flush).await.unwrap();
    let found = async |nodes: &[&str], from, to| {
        let nodes: Vec<_> = nodes.iter().map(|node| (*node).into()).collect();
        store.events(&nodes, at(from), at(to)).await.unwrap()
    };
    assert_eq!(
        found(&["n1"], 0, 9).await,
        [first.clone(), whole_node.clone()]
    );
    assert_eq!(found(&["n1", "n2"], 1, 5).await.len(), 3);
    assert_eq!(found(&["n2"], 5, 5).await, [other]);
    assert_eq!(found(&["n3"], 0, 9).await, []);
    assert_eq!(found(&["n1"], 2, 4).await, []);
    let long_ago = -20 * 24 * 3600;
    assert_eq!(found(&["n1"], long_ago, 0).await, [old]);
    assert_eq!(store.retain(until(at(0), at(0))).await.unwrap(), 0);
    assert_eq!(found(&["n1"], long_ago, 9).await, [first, whole_node]);
}
