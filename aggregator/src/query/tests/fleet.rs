//! A small fleet, whatever the order of arrival, doubles, restarts and maintenance: every answer is what a map of all that
//! was delivered gives, and in the end every stored byte is what it is when all came once and in order.

use std::collections::BTreeSet;

use entrenar::metric::{ENERGY, Metric};

use super::*;
use crate::chunk::stretch;
use crate::query::aggregate::Aggregate;
use crate::query::bucket::Bucket;
use crate::query::gather::Gathering;
use crate::rollup::{STEPS, Sums};
use crate::store::postgres::Address;
use crate::store::{PostgresStore, Retention, SealedChunk, StoreError, StoredRollup};

const GPUS: u8 = 3;
/// History of each.
const SECONDS: i64 = 2400;

fn uuid(gpu: u8) -> GpuUuid {
    format!("GPU-{gpu}").into()
}

/// One GPU at one second; how often it is sampled then follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tick {
    gpu: u8,
    second: i64,
}

impl Tick {
    /// The first is fast, the second slow; the third becomes slow, and fast again.
    fn interval(self) -> i64 {
        match (self.gpu, self.second / 800) {
            (0, _) | (2, 0 | 2) => 1,
            _ => 10,
        }
    }

    fn at(self) -> Timestamp {
        Timestamp::from_secs(BASE + self.second)
    }

    fn values(self) -> Values {
        let at = self.at();
        Values::default()
            .with(POWER, level(at))
            .with(ENERGY, counted(at))
            .with(PROCESSES, (self.second % 10 == 0).then_some(8))
    }
}

fn level(at: Timestamp) -> i64 {
    at.0 * 7 % 1000
}

/// What an agent sends at once.
type Batch = Vec<Tick>;

/// All that there is to say, in order, in batches of a GPU's next minutes.
fn history() -> Vec<Batch> {
    let tick = |second| (0..GPUS).map(move |gpu| Tick { gpu, second });
    let ticks = (0..SECONDS).flat_map(tick);
    let ticks: Vec<Tick> = ticks
        .filter(|tick| tick.second % tick.interval() == 0)
        .collect();
    let batch = |(gpu, from): (u8, i64)| {
        let of_batch = |tick: &&Tick| tick.gpu == gpu && (from..from + 150).contains(&tick.second);
        ticks.iter().filter(of_batch).copied().collect()
    };
    let starts = (0..SECONDS).step_by(150);
    starts
        .flat_map(|from| (0..GPUS).map(move |gpu| (gpu, from)))
        .map(batch)
        .collect()
}

/// What happens after a batch.
#[derive(Clone, Copy, Debug)]
enum Then {
    Nothing,
    Commit,
    Wait(i64),
    Maintain,
    Restart,
}

/// Every batch once, some twice or three times, in any order, with anything in between.
fn arrivals() -> impl Strategy<Value = Vec<(Batch, Then)>> {
    let then = prop_oneof![
        3 => Just(Then::Nothing),
        4 => Just(Then::Commit),
        3 => (10..900i64).prop_map(Then::Wait),
        1 => Just(Then::Maintain),
        1 => Just(Then::Restart),
    ];
    let history = history();
    let again = proptest::collection::vec(proptest::sample::select(history.clone()), 0..12);
    let order = again.prop_flat_map(move |again| {
        let all = [history.clone(), again].concat();
        Just(all).prop_shuffle()
    });
    order.prop_flat_map(move |order| {
        let thens = proptest::collection::vec(then.clone(), order.len());
        thens.prop_map(move |thens| order.iter().cloned().zip(thens).collect())
    })
}

/// Where the fleet reports to.
struct Center<S> {
    store: S,
    head: Head,
    group: Group,
    pending: Vec<JournalEntry>,
    now: i64,
}

impl<S: Store> Center<S> {
    fn new(store: S) -> Self {
        Self {
            store,
            head: Head::default(),
            group: Group(1),
            pending: Vec::new(),
            now: BASE,
        }
    }

    fn deliver(&mut self, batch: &[Tick]) {
        for tick in batch {
            let entry = JournalEntry::Record {
                received_at: Timestamp::from_secs(self.now),
                sent_at: tick.at(),
                stream: StreamId([0; 16]),
                bytes: vec![tick.gpu],
            };
            self.push(&entry);
            self.pending.push(entry);
        }
    }

    fn push(&mut self, entry: &JournalEntry) {
        let JournalEntry::Record {
            received_at,
            sent_at,
            bytes,
            ..
        } = entry
        else {
            return;
        };
        let tick = Tick {
            gpu: bytes[0],
            second: sent_at.0 / 1000 - BASE,
        };
        let arrival = Arrival {
            at: *sent_at,
            received_at: *received_at,
            group: self.group,
            interval: Duration::from_secs(tick.interval() as u64),
        };
        self.head.push(&uuid(tick.gpu), arrival, &tick.values());
    }

    async fn commit(&mut self) {
        let flush = Flush {
            journal: std::mem::take(&mut self.pending),
            sealed: self.head.take_sealable(Timestamp::from_secs(self.now)),
            forget_journal: self.head.forgettable(),
            ..Flush::default()
        };
        let keys = flush.sealed.iter().map(|c| (c.gpu.clone(), c.stretch));
        let keys: Vec<_> = keys.collect();
        let durable = self.store.commit(flush).await.unwrap();
        self.head.committed(self.group, durable.position);
        let keys = keys.iter().map(|(gpu, start)| (gpu, *start));
        self.head.sealed(keys);
        self.group.0 += 1;
    }

    /// Sums are laid together, also those of which more will come; what is old enough goes, and there is nothing that old;
    /// space is given back.
    async fn maintain(&self) {
        let far = Timestamp::from_secs(self.now + 1_000_000);
        self.store.compact(far).await.unwrap();
        let before = Timestamp::from_secs(BASE - 1);
        let retention = Retention {
            chunks_before: before,
            minutes_before: before,
            hours_before: before,
            incidents_before: before,
        };
        assert_eq!(self.store.retain(retention).await.unwrap(), 0);
    }

    /// What was in memory is gone; what was not acknowledged comes again.
    async fn restart(self, reopen: &impl AsyncFn(S) -> StoreResult<S>) -> Self {
        let mut again = Self::new(reopen(self.store).await.unwrap());
        (again.group, again.now) = (self.group, self.now);
        let mut after = JournalPosition(0);
        loop {
            let rows = again.store.journal(after, 5).await.unwrap();
            let Some((last, _)) = rows.last() else { break };
            after = *last;
            for (position, entries) in rows {
                for entry in &entries {
                    again.push(entry);
                }
                again.head.committed(again.group, position);
                again.group.0 += 1;
            }
        }
        for entry in &self.pending {
            again.push(entry);
        }
        again.pending = self.pending;
        again
    }

    /// Long after: all is sealed.
    async fn settle(&mut self) {
        self.now += 1_000_000;
        while self.head.size().stretches > 0 || !self.pending.is_empty() {
            self.commit().await;
            self.now += 10;
        }
        self.maintain().await;
    }

    fn source(&self, gpu: u8, metric: MetricId, (from, to): (Timestamp, Timestamp)) -> Source<'_> {
        let question = Question {
            gpu: uuid(gpu),
            metric,
            from,
            to,
        };
        let asked = &question;
        let head = self.head.range(&asked.gpu, metric, asked.from, asked.to);
        Source::new(&self.store, question, head)
    }

    /// Every sample of a metric.
    async fn raw(&self, gpu: u8, metric: MetricId, extent: (i64, i64)) -> Vec<Point> {
        let at = |second| Timestamp::from_secs(BASE + second);
        let source = self.source(gpu, metric, (at(extent.0), at(extent.1)));
        let mut budget = Budget::default();
        let found = super::super::points(vec![source], &mut budget).await;
        found.unwrap().concat()
    }

    /// A function over steps.
    async fn stepped(&self, gpu: u8, (metric, function): Asked, steps: Steps) -> Told {
        let source = self.source(gpu, metric.id, (steps.from(), steps.to()));
        let mut told = vec![None; steps.len()];
        let over = |_, step: &Closed| told[step.place] = function.value(metric, step);
        fold(vec![source], steps, &mut Budget::default(), over)
            .await
            .unwrap();
        told
    }

    /// A function over a window, of all GPUs at once.
    async fn at_an_instant(&self, (metric, function): Asked, window: Steps) -> Vec<Told> {
        let extent = (window.from(), window.to());
        let gpus: Vec<_> = (0..GPUS).map(uuid).collect();
        let fleet = super::Fleet {
            gpus: &gpus,
            metric: metric.id,
            extent,
            steps: &window,
            is_whole: true,
        };
        let mut all = Vec::new();
        for source in many(&self.store, &self.head, fleet).await {
            let mut told = vec![None];
            let over = |_, step: &Closed| told[step.place] = function.value(metric, step);
            fold(vec![source], window, &mut Budget::default(), over)
                .await
                .unwrap();
            all.push(told);
        }
        all
    }

    /// Everything that rests in the store.
    async fn stored(&self) -> Vec<(SealedChunk, [Vec<Summed>; 2])> {
        let (from, to) = (Timestamp(0), Timestamp::from_secs(BASE * 2));
        let gpus: Vec<_> = (0..GPUS).map(uuid).collect();
        let of_step = async |step| {
            let asked = self.store.rollups(&gpus, &METRICS, step, from, to);
            asked.await.unwrap()
        };
        let (minutes, hours) = (of_step(STEPS[0]).await, of_step(STEPS[1]).await);
        let mut stored = Vec::new();
        for (place, gpu) in gpus.iter().enumerate() {
            for chunk in self.store.chunks(gpu, from, to).await.unwrap() {
                let of = |sums: &[Vec<StoredRollup>]| -> Vec<Summed> {
                    let sums = sums[place].iter();
                    let sums = sums.filter(|sums| sums.stretch == chunk.stretch);
                    sums.map(summed).collect()
                };
                let sums = [of(&minutes), of(&hours)];
                stored.push((chunk, sums));
            }
        }
        stored
    }
}

const METRICS: [MetricId; 3] = [POWER, ENERGY, PROCESSES];

/// First and last sample of a stretch, and its sums.
type Summed = (Timestamp, Timestamp, Option<[Vec<Bucket>; 3]>);

fn summed(stored: &StoredRollup) -> Summed {
    let sums = |sums: &Sums| METRICS.map(|metric| sums.metric(metric).unwrap());
    (stored.from, stored.to, stored.sums.as_ref().map(sums))
}

type Asked = (&'static Metric, Function);
type Told = Vec<Option<f64>>;

fn asked(metric: &str, function: &str) -> Asked {
    let metric = by_name(metric).unwrap();
    (metric, Function::parse(function, metric).unwrap())
}

/// By the minute, by the hour, and at the end over all of it.
fn all_steps() -> [Steps; 3] {
    let at = |secs| Timestamp::from_secs(BASE + secs);
    [
        Steps::covering(at(0), at(SECONDS), Duration::from_mins(1)),
        Steps::covering(at(0), at(SECONDS), Duration::from_hours(1)),
        Steps::window(at(SECONDS), Duration::from_secs(SECONDS as u64)),
    ]
}

/// What was delivered, and what is to be said of it, by hand.
#[derive(Default)]
struct Model(BTreeSet<Tick>);

impl Model {
    fn points(&self, gpu: u8, metric: MetricId, (from, to): (i64, i64)) -> Vec<Point> {
        let of = |second| Tick { gpu, second };
        let ticks = self.0.range(of(from)..=of(to));
        ticks
            .filter_map(|tick| Some((tick.at(), tick.values().get(metric)?)))
            .collect()
    }

    fn stepped(&self, gpu: u8, (metric, function): Asked, steps: Steps) -> Told {
        let points = self.points(gpu, metric.id, (0, SECONDS));
        let mut fold = Fold::new(steps);
        let mut told = vec![None; steps.len()];
        let mut over = |step: &Closed| told[step.place] = function.value(metric, step);
        // A counter's gain is told from the last sample before; nothing before a question is asked for.
        let asked = points
            .into_iter()
            .filter(|(at, _)| steps.from() <= *at && *at <= steps.to());
        asked.for_each(|point| fold.points(&[point], &mut over));
        fold.finish(over);
        told
    }
}

/// One value of all GPUs, as a question at an instant gathers it.
fn gathered(told: impl IntoIterator<Item = Option<f64>>, aggregate: Aggregate) -> Option<f64> {
    let mut gathering = Gathering::new(aggregate, Timestamp(0));
    for value in told {
        gathering.shared(Some("all"), value.map(|value| (Timestamp(1), value)));
    }
    gathering.finish()[0].value
}

async fn compare<S: Store>(center: &Center<S>, model: &Model) {
    let everything = (-10, SECONDS + 10);
    for gpu in 0..GPUS {
        for metric in [POWER, ENERGY, PROCESSES] {
            for extent in [everything, (300, 1500)] {
                let found = center.raw(gpu, metric, extent).await;
                assert_eq!(found, model.points(gpu, metric, extent));
            }
        }
    }
    for steps in all_steps() {
        for asked in [
            asked("power_watts", "mean"),
            asked("power_watts", "max"),
            asked("energy_joules_total", "increase"),
            asked("processes", "last"),
        ] {
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            for gpu in 0..GPUS {
                found.push(center.stepped(gpu, asked, steps).await);
                expected.push(model.stepped(gpu, asked, steps));
            }
            assert_eq!(found, expected, "{asked:?} in {steps:?}");
            if steps.len() == 1 {
                assert_eq!(center.at_an_instant(asked, steps).await, expected);
            }
            for aggregate in [Aggregate::Mean, Aggregate::Max, Aggregate::Count] {
                let last = |told: &[Told]| {
                    let of_gpu = told.iter().map(|told| told.last().copied().flatten());
                    gathered(of_gpu, aggregate)
                };
                assert_eq!(last(&found), last(&expected));
            }
        }
    }
}

async fn check<S: Store>(
    store: S,
    arrivals: Vec<(Batch, Then)>,
    reopen: impl AsyncFn(S) -> StoreResult<S>,
) {
    let mut center = Center::new(store);
    let mut model = Model::default();
    for (n, (batch, then)) in arrivals.into_iter().enumerate() {
        center.deliver(&batch);
        model.0.extend(batch);
        match then {
            Then::Nothing => {}
            Then::Commit => center.commit().await,
            Then::Wait(secs) => {
                center.commit().await;
                center.now += secs;
                center.commit().await;
            }
            Then::Maintain => center.maintain().await,
            Then::Restart => center = center.restart(&reopen).await,
        }
        if n % 16 == 15 {
            compare(&center, &model).await;
        }
    }
    compare(&center, &model).await;
    center.settle().await;
    compare(&center, &model).await;
    let mut in_order = Center::new(MemoryStore::default());
    for batch in history() {
        in_order.deliver(&batch);
    }
    in_order.settle().await;
    assert_eq!(center.stored().await, in_order.stored().await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_fleets_answers_do_not_depend_on_order_doubles_restarts_or_maintenance(arrivals in arrivals()) {
        block_on(check(MemoryStore::default(), arrivals, async |store| Ok(store)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn a_fleets_answers_from_sqlite_do_not_depend_on_order_doubles_restarts_or_maintenance(arrivals in arrivals()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("entrenar.db");
        block_on(async {
            let store = SqliteStore::open(&path).await.unwrap();
            check(store, arrivals, async |store: SqliteStore| {
                store.close().await;
                SqliteStore::open(&path).await
            })
            .await;
        });
    }
}

/// Opens it once the server has let go of the lock of a connection that ended a moment ago.
async fn open(database: &private_postgres::Database) -> StoreResult<PostgresStore> {
    let address = Address::parse(&database.url).unwrap();
    loop {
        match PostgresStore::open(&address).await {
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            opened => return opened,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2))]

    #[test]
    fn a_fleets_answers_from_postgres_do_not_depend_on_order_doubles_restarts_or_maintenance(arrivals in arrivals()) {
        block_on(async {
            // Skipped where there is none, and said so.
            let Some(database) = private_postgres::database().await else { return };
            let store = open(&database).await.unwrap();
            check(store, arrivals, async |store: PostgresStore| {
                store.close().await;
                open(&database).await
            })
            .await;
        });
    }
}

#[test]
fn stretches_of_two_lengths_begin_together_in_this_history() {
    let lengths = [1, 10].map(|secs| stretch::length(Duration::from_secs(secs)));
    let start = |second, length| {
        let at = Timestamp::from_secs(BASE + second);
        stretch::start(&uuid(2), length, at)
    };
    let met = (0..SECONDS).any(|second| start(second, lengths[0]) == start(second, lengths[1]));
    assert!(met, "choose another BASE: nothing is proved about them");
}
