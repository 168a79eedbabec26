use entrenar::gpu::Values;
use entrenar::metric::{POWER, PROCESSES, by_name};
use entrenar::report::StreamId;
use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::head::{Arrival, Group, Head};
use crate::store::{Flush, JournalEntry, JournalPosition, MemoryStore, SqliteStore, StoreResult};

const BASE: i64 = 1_700_000_000;

fn points(secs: impl IntoIterator<Item = i64>) -> Vec<Point> {
    secs.into_iter()
        .map(|s| (Timestamp::from_secs(s), s))
        .collect()
}

fn seconds(points: &[Point]) -> Vec<i64> {
    points.iter().map(|(at, _)| at.0 / 1000).collect()
}

#[test]
fn fewer_points_are_the_last_of_each_step() {
    let check = |secs: &[i64], step: u64, expected: &[i64]| {
        let kept = last_per_step(&points(secs.to_vec()), Duration::from_secs(step));
        assert_eq!(seconds(&kept), expected);
    };
    check(&[0, 1, 2, 9, 10, 11, 35], 10, &[9, 11, 35]);
    check(&[-11, -10, -1, 0], 10, &[-11, -1, 0]);
    check(&[3, 4], 1, &[3, 4]);
    check(&[], 10, &[]);
}

#[test]
fn a_missing_sample_breaks_the_line_and_a_slow_metric_is_not_missing() {
    let shape = |metric: &str, secs: &[i64]| -> String {
        let metric = by_name(metric).unwrap();
        let shown = display(&points(secs.to_vec()), metric, Duration::from_secs(1));
        shown
            .iter()
            .map(|(_, v)| if v.is_some() { 'x' } else { '_' })
            .collect()
    };
    assert_eq!(shape("power_watts", &[0, 1, 2, 4, 7, 8]), "xxxx_xx");
    assert_eq!(shape("processes", &[0, 10, 30, 60]), "xxx_x");
    let watts = display(
        &points([5]),
        by_name("power_watts").unwrap(),
        Duration::from_secs(1),
    );
    assert_eq!(watts, [(Timestamp::from_secs(5), Some(0.005))]);
}

/// A line reduced to what keeping is about: head, journal and chunks, and an agent that sends again what was not
/// acknowledged.
struct Line<S> {
    store: S,
    head: Head,
    group: Group,
    pending: Vec<JournalEntry>,
    now: i64,
}

impl<S: Store> Line<S> {
    fn new(store: S) -> Self {
        Self {
            store,
            head: Head::default(),
            group: Group(1),
            pending: Vec::new(),
            now: BASE,
        }
    }

    fn deliver(&mut self, second: i64) {
        let entry = JournalEntry::Record {
            received_at: Timestamp::from_secs(self.now),
            sent_at: Timestamp::from_secs(BASE + second),
            stream: StreamId([0; 16]),
            bytes: Vec::new(),
        };
        self.push(&entry);
        self.pending.push(entry);
    }

    fn push(&mut self, entry: &JournalEntry) {
        let JournalEntry::Record {
            received_at,
            sent_at,
            ..
        } = entry
        else {
            return;
        };
        let arrival = Arrival {
            at: *sent_at,
            received_at: *received_at,
            group: self.group,
            interval: Duration::from_secs(1),
        };
        let slow = (sent_at.0 % 10_000 == 0).then_some(8);
        let values = Values::default()
            .with(POWER, sent_at.0 * 7 % 1000)
            .with(PROCESSES, slow);
        self.head.push(&gpu(), arrival, &values);
    }

    async fn commit(&mut self) {
        let flush = Flush {
            journal: std::mem::take(&mut self.pending),
            sealed: self.head.take_sealable(Timestamp::from_secs(self.now)),
            forget_journal: self.head.forgettable(),
            ..Flush::default()
        };
        let keys: Vec<_> = flush
            .sealed
            .iter()
            .map(|c| (c.gpu.clone(), c.stretch))
            .collect();
        let durable = self.store.commit(flush).await.unwrap();
        self.head.committed(self.group, durable.position);
        self.head
            .sealed(keys.iter().map(|(gpu, start)| (gpu, *start)));
        self.group.0 += 1;
    }

    /// A crash: what is in memory is gone. The journal is read again, and what was not acknowledged comes again.
    async fn restart(&mut self) {
        let unacknowledged = std::mem::take(&mut self.pending);
        self.head = Head::default();
        let mut after = JournalPosition(0);
        loop {
            let rows = self.store.journal(after, 3).await.unwrap();
            let Some((last, _)) = rows.last() else { break };
            after = *last;
            for (position, entries) in &rows {
                for entry in entries {
                    self.push(entry);
                }
                self.head.committed(self.group, *position);
                self.group.0 += 1;
            }
        }
        for entry in unacknowledged {
            self.push(&entry);
            self.pending.push(entry);
        }
    }

    async fn ask(&self, metric: MetricId, from: i64, to: i64) -> Vec<Point> {
        let question = Question {
            gpu: gpu(),
            metric,
            from: Timestamp::from_secs(BASE + from),
            to: Timestamp::from_secs(BASE + to),
        };
        let head = self
            .head
            .range(&question.gpu, metric, question.from, question.to);
        series(&self.store, &question, head, &mut Budget::default())
            .await
            .unwrap()
    }
}

fn gpu() -> GpuUuid {
    "GPU-1".into()
}

#[derive(Clone, Debug)]
enum Step {
    /// Some seconds of samples, in order, reversed, or again.
    Deliver {
        from: i64,
        n: i64,
        reversed: bool,
    },
    Commit,
    Wait {
        secs: i64,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4000i64, 1..80i64, any::<bool>())
            .prop_map(|(from, n, reversed)| Step::Deliver { from, n, reversed }),
        5 => Just(Step::Commit),
        3 => (1..400i64).prop_map(|secs| Step::Wait { secs }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Whatever the order of arrival, what is sealed when, and however often it starts again: an answer holds each sample that
/// was delivered, once, and with its own value.
async fn check<S: Store>(store: S, steps: Vec<Step>, reopen: impl AsyncFn(S) -> StoreResult<S>) {
    let mut line = Line::new(store);
    let mut delivered = std::collections::BTreeSet::new();
    for step in steps {
        match step {
            Step::Deliver { from, n, reversed } => {
                for i in 0..n {
                    let second = if reversed { from + n - 1 - i } else { from + i };
                    line.deliver(second);
                    delivered.insert(second);
                }
            }
            Step::Commit => line.commit().await,
            Step::Wait { secs } => line.now += secs,
            Step::Restart => {
                let Line {
                    store,
                    head,
                    group,
                    pending,
                    now,
                } = line;
                let store = reopen(store).await.unwrap();
                line = Line {
                    store,
                    head,
                    group,
                    pending,
                    now,
                };
                line.restart().await;
            }
        }
        let expected = |from: i64, to: i64| -> Vec<i64> {
            delivered.range(from..=to).map(|s| BASE + s).collect()
        };
        let all = line.ask(POWER, -10, 5000).await;
        assert_eq!(seconds(&all), expected(-10, 5000));
        assert!(all.iter().all(|(at, value)| *value == at.0 * 7 % 1000));
        assert_eq!(
            seconds(&line.ask(POWER, 700, 1500).await),
            expected(700, 1500)
        );
        let slow = line.ask(PROCESSES, 0, 5000).await;
        assert_eq!(
            slow.len(),
            delivered.iter().filter(|s| (BASE + **s) % 10 == 0).count()
        );
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn answers_do_not_depend_on_order_sealing_or_restarts(steps in steps()) {
        block_on(check(MemoryStore::default(), steps, async |store| Ok(store)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn answers_from_sqlite_do_not_depend_on_order_sealing_or_restarts(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("entrenar.db");
        block_on(async {
            let store = SqliteStore::open(&path).await.unwrap();
            check(store, steps, async |store: SqliteStore| {
                store.close().await;
                SqliteStore::open(&path).await
            })
            .await;
        });
    }
}

#[test]
fn a_question_from_the_beginning_of_time_finds_what_is_there() {
    let mut line = Line::new(MemoryStore::default());
    line.deliver(5);
    block_on(async {
        line.commit().await;
        line.now += 1000;
        line.commit().await;
        assert_eq!(
            line.store
                .chunks(&gpu(), Timestamp(0), Timestamp(i64::MAX))
                .await
                .unwrap()
                .len(),
            1
        );
        let found = line.ask(POWER, -BASE, 1_000_000_000).await;
        assert_eq!(seconds(&found), [BASE + 5]);
    });
}

#[test]
fn an_answer_that_is_too_long_says_how_to_ask_for_less() {
    let question = Question {
        gpu: gpu(),
        metric: POWER,
        from: Timestamp(0),
        to: Timestamp::from_secs(100),
    };
    let store = MemoryStore::default();
    let mut budget = Budget::new(5);
    let mut ask = |n: i64| {
        let answer = series(&store, &question, points(0..n), &mut budget);
        answer
            .now_or_never()
            .unwrap()
            .map_err(|error| error.to_string())
    };
    assert_eq!(ask(3).unwrap().len(), 3);
    let told = ask(3).unwrap_err();
    assert!(
        told.contains("more than 5 points") && told.contains("`from`"),
        "{told}"
    );
}
