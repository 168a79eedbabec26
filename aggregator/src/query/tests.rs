use entrenar::gpu::Values;
use entrenar::metric::{PCIE_TX, POWER, PROCESSES, by_name};
use entrenar::report::StreamId;
use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::fleet::{Fleet, of_many};
use super::function::Function;
use super::source::side_by_side;
use super::*;
use crate::head::{Arrival, Group, Head};
use crate::store::{Flush, JournalEntry, JournalPosition, MemoryStore, SqliteStore, StoreResult};

mod fleet;

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
            .with(PCIE_TX, counted(*sent_at))
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

    /// Some metrics side by side, a minute each, from the beginning of time to 5000 s.
    async fn ask_steps(&self, asked: &[(&str, &str)]) -> Vec<Vec<Option<f64>>> {
        let metric = |(metric, function): &(&str, &str)| {
            let metric = by_name(metric).unwrap();
            (metric, Function::parse(function, metric).unwrap())
        };
        let asked: Vec<_> = asked.iter().map(metric).collect();
        let metrics: Vec<_> = asked.iter().map(|(metric, _)| metric.id).collect();
        let steps = minutes();
        let extent = (steps.from(), steps.to());
        let recent = self.head.samples(&gpu(), extent.0, extent.1);
        let sources = side_by_side(&self.store, &gpu(), &metrics, extent, &recent);
        let mut values = vec![vec![None; steps.len()]; asked.len()];
        let over = |of: usize, step: &Closed| {
            let (metric, function) = asked[of];
            values[of][step.place] = function.value(metric, step);
        };
        fold(sources, steps, &mut Budget::default(), over)
            .await
            .unwrap();
        values
    }
}

/// Some GPUs, as the web side asks for them.
async fn many<'a>(store: &'a impl Store, head: &Head, fleet: Fleet<'_>) -> Vec<Source<'a>> {
    let (metric, extent) = (fleet.metric, fleet.extent);
    let recent = async |gpus: Vec<GpuUuid>, steps: Option<Steps>| {
        let of_gpu = |gpu| head.recent(gpu, metric, extent, steps.as_ref());
        Ok::<_, QueryError>(gpus.iter().map(of_gpu).collect())
    };
    of_many(store, fleet, recent).await.unwrap()
}

impl<S: Store> Line<S> {
    /// The mean and the number of samples in the hour up to an instant; `None`: there are none.
    async fn ask_window(&self, end: Timestamp) -> Option<(f64, u64)> {
        let metric = by_name("power_watts").unwrap();
        let window = Steps::window(end, Duration::from_hours(1));
        let extent = (window.from(), window.to());
        let fleet = Fleet {
            gpus: &["GPU-0".into(), gpu()],
            metric: metric.id,
            extent,
            steps: &window,
            is_whole: true,
        };
        let mut found = Vec::new();
        for source in many(&self.store, &self.head, fleet).await {
            let mut told = None;
            let over = |_, step: &Closed| {
                let mean = Function::Mean.value(metric, step).unwrap();
                told = Some((mean, step.bucket.count));
            };
            fold(vec![source], window, &mut Budget::default(), over)
                .await
                .unwrap();
            found.push(told);
        }
        assert_eq!(found[0], None, "nobody has heard of it");
        found[1]
    }
}

/// A counter that is reset again and again.
fn counted(at: Timestamp) -> i64 {
    at.0 / 1000 % 700 * 13
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
        let naive = Naive::of(&delivered);
        let (mean, increase) = (("power_watts", "mean"), ("pcie_tx_bytes_total", "increase"));
        let alone = line.ask_steps(&[mean]).await;
        assert_eq!(alone, std::slice::from_ref(&naive.mean));
        let both = line.ask_steps(&[increase, mean]).await;
        assert_eq!(both, [naive.increase, naive.mean]);
        for end in [3999, 4321, 5000].map(|secs| Timestamp::from_secs(BASE + secs)) {
            let window = Steps::window(end, Duration::from_hours(1));
            let seconds = (window.from().0.div_euclid(1000) - BASE)..=(end.0 / 1000 - BASE);
            let values = delivered
                .range(seconds)
                .map(|s| (BASE + s) * 1000 * 7 % 1000);
            let (count, sum) =
                values.fold((0_u64, 0), |(count, sum), value| (count + 1, sum + value));
            let mean = (count > 0).then(|| (sum as f64 / 1e3 / count as f64, count));
            assert_eq!(line.ask_window(end).await, mean);
        }
        let slow = line.ask(PROCESSES, 0, 5000).await;
        assert_eq!(
            slow.len(),
            delivered.iter().filter(|s| (BASE + **s) % 10 == 0).count()
        );
    }
}

fn minutes() -> Steps {
    let at = |secs| Timestamp::from_secs(BASE + secs);
    Steps::covering(at(-10), at(5000), Duration::from_mins(1))
}

/// What steps must come to, from all that was delivered at once.
struct Naive {
    mean: Vec<Option<f64>>,
    increase: Vec<Option<f64>>,
}

impl Naive {
    fn of(delivered: &std::collections::BTreeSet<i64>) -> Self {
        let steps = minutes();
        let all: Vec<_> = delivered
            .iter()
            .map(|s| Timestamp::from_secs(BASE + s))
            .collect();
        let within = |place: usize| {
            let inside = |at: &&Timestamp| steps.place(**at) == Some(place);
            all.iter().filter(inside).copied().collect::<Vec<_>>()
        };
        let mean = |place| {
            let values = within(place).into_iter().map(|at| at.0 * 7 % 1000);
            let values: Vec<i64> = values.collect();
            let sum = values.iter().sum::<i64>() as f64;
            (!values.is_empty()).then(|| sum / 1000.0 / values.len() as f64)
        };
        let increase = |place| {
            let mut points = within(place);
            let first = *points.first()?;
            points.extend(all.iter().rev().find(|at| **at < first));
            points.sort();
            let gained = points.windows(2).map(|pair| {
                let (before, after) = (counted(pair[0]), counted(pair[1]));
                if after < before {
                    after
                } else {
                    after - before
                }
            });
            (points.len() > 1).then(|| gained.sum::<i64>() as f64)
        };
        Self {
            mean: (0..steps.len()).map(mean).collect(),
            increase: (0..steps.len()).map(increase).collect(),
        }
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

#[test]
fn an_answer_that_must_read_too_much_says_how_to_ask_for_less() {
    let mut line = Line::new(MemoryStore::default());
    (0..40).for_each(|second| line.deliver(second));
    let question = Question {
        gpu: gpu(),
        metric: POWER,
        from: Timestamp::from_secs(BASE),
        to: Timestamp::from_secs(BASE + 39),
    };
    let head = line
        .head
        .range(&question.gpu, POWER, question.from, question.to);
    let mut budget = Budget::default().reading(30);
    let answer = series(&line.store, &question, head, &mut budget);
    let told = answer.now_or_never().unwrap().unwrap_err().to_string();
    assert!(
        told.contains("more than 30 stored samples") && told.contains("fewer GPUs"),
        "{told}"
    );
}

#[test]
fn a_gap_between_two_holders_is_nobodys() {
    use entrenar::report::{Holder, HolderChange};
    let change = |secs: i64, job: Option<&str>| HolderChange {
        at: Timestamp::from_secs(secs),
        gpu: gpu(),
        holder: job.map(|job| Holder {
            job: job.into(),
            ..Holder::default()
        }),
    };
    let holding = Holding::of([
        change(0, Some("a")),
        change(10, Some("b")),
        change(20, Some("a")),
    ]);
    let steps = Steps::covering(
        Timestamp(0),
        Timestamp::from_secs(29),
        Duration::from_secs(30),
    );
    let question = Question {
        gpu: gpu(),
        metric: PCIE_TX,
        from: Timestamp(0),
        to: Timestamp::from_secs(29),
    };
    // One a second, and a hundred more whenever it changes hands.
    let head = (0..30).map(|s| (Timestamp::from_secs(s), s + s / 10 * 100));
    let store = MemoryStore::default();
    let source = Source::new(&store, question, head.collect());
    let mut told = Vec::new();
    let metric = by_name("pcie_tx_bytes_total").unwrap();
    let over = |_, job: Option<&str>, step: &Closed| {
        let gained = Function::Increase.value(metric, step);
        told.push((job.map(str::to_owned), step.bucket.count, gained));
    };
    fold_by_job(vec![source], steps, &holding, &mut Budget::default(), over)
        .now_or_never()
        .unwrap()
        .unwrap();
    let expected = [
        (Some("a".to_owned()), 20, Some(18.0)),
        (Some("b".to_owned()), 10, Some(9.0)),
    ];
    assert_eq!(told, expected);
}
