//! The aggregator is killed twenty times under load, and its Postgres with it now and then; no sample between the first and
//! the last durable one is missing, doubled or changed.

use entrenar::gpu::{GpuInfo, GpuUuid, Values};
use entrenar::metric::{self, METRIC_COUNT};
use entrenar::report::{Batch, Body, Hello, Inventory, Record, StreamId, Tick};
use entrenar::unit::Timestamp;
use entrenar_aggregator::query::{self, Budget, Question};
use entrenar_aggregator::store::postgres::Address;
use entrenar_aggregator::store::{
    JournalEntry, JournalPosition, PostgresStore, SqliteStore, Store, StoreError,
};
use entrenar_proto::wire::agent_message::What;
use entrenar_proto::wire::aggregator_message::What as Answer;
use entrenar_proto::wire::telemetry_client::TelemetryClient;
use entrenar_proto::wire::{AgentMessage, AggregatorMessage};
use entrenar_proto::{RangeSet, convert, decode_record, encode_record};
use entrenar_tests::process::Server;
use private_postgres::Cluster;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const KILLS: usize = 20;
const STREAMS: u64 = 4;
const GPUS: u32 = 8;
/// Records of each stream between two kills.
const RECORDS_PER_LIFE: u64 = 30;
/// Records sent again after each start although they are known.
const REDELIVERED: u64 = 5;
/// With fewer the run proves nothing.
const ENOUGH_SAMPLES: usize = 100_000;

/// One agent's view: what it has sent, and what it was told.
struct Sender {
    stream: u64,
    next: u64,
    durable: RangeSet,
}

/// A stream that stays open while this lives.
struct Conversation {
    answers: tonic::Streaming<AggregatorMessage>,
    _asks: mpsc::Sender<AgentMessage>,
}

fn uuid(stream: u64, gpu: u32) -> GpuUuid {
    GpuUuid::from(format!("GPU-{stream:04}-{gpu:04}"))
}

fn start() -> Timestamp {
    // In the past, so that nothing is later than its own message, and inside the retention.
    static START: std::sync::OnceLock<Timestamp> = std::sync::OnceLock::new();
    *START.get_or_init(|| entrenar::clock::now() - std::time::Duration::from_hours(2))
}

fn time_of(seq: u64) -> Timestamp {
    start() + std::time::Duration::from_secs(seq)
}

/// The payload follows from where it belongs, so that a change shows.
fn payload(stream: u64, gpu: u32, seq: u64, metric: usize) -> i64 {
    let mixed = (stream << 48 ^ u64::from(gpu) << 32 ^ seq << 8 ^ metric as u64)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as i64
}

fn record(stream: u64, seq: u64) -> Record {
    let row = |gpu| {
        let mut values = Values::default();
        for (n, metric) in metric::CATALOGUE.iter().enumerate() {
            values.set(metric.id, payload(stream, gpu, seq, n));
        }
        values
    };
    let tick = Tick {
        at: time_of(seq),
        monotonic_ms: seq * 1000,
    };
    let rows = (0..GPUS).map(row).collect();
    Record {
        seq,
        body: Body::Batch(Batch {
            generation: 1,
            gpus: GPUS,
            n_lost: 0,
            ticks: vec![tick],
            rows,
        }),
    }
}

fn hello(stream: u64, next_seq: u64) -> Hello {
    let gpu = |index| GpuInfo {
        uuid: uuid(stream, index),
        index,
        ..GpuInfo::default()
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&stream.to_be_bytes());
    Hello {
        stream: StreamId(id),
        node: format!("n{stream}").into(),
        labels: BTreeMap::new(),
        inventories: vec![Inventory {
            generation: 1,
            gpus: (0..GPUS).map(gpu).collect(),
        }],
        agent_version: "test".into(),
        driver_version: None,
        interval_ms: 1000,
        batch_ticks: 1,
        first_seq: 1,
        next_seq,
    }
}

impl Sender {
    /// One life of the aggregator: connect, send some again, then what is missing and what is new, until it dies.
    /// Returns when it has sent all, with the acknowledgements still to be read.
    async fn speak(&mut self, url: &str) -> Option<Conversation> {
        let mut client = TelemetryClient::connect(url.to_owned()).await.ok()?;
        let (tx, rx) = mpsc::channel(1024);
        let message = |what| AgentMessage {
            sent_at_ms: entrenar::clock::now().as_millis(),
            what: Some(what),
        };
        let hello = hello(self.stream, self.next);
        tx.send(message(What::Hello(convert::hello_to_wire(&hello))))
            .await
            .ok()?;
        let mut answers = client
            .report(ReceiverStream::new(rx))
            .await
            .ok()?
            .into_inner();
        self.listen(&mut answers).await?;
        let last = self.next + RECORDS_PER_LIFE;
        let missing: Vec<u64> = self
            .durable
            .gaps(1, last - 1)
            .flat_map(|(a, b)| a..=b)
            .collect();
        let known = self.durable.last().unwrap_or(0);
        let again = known.saturating_sub(REDELIVERED) + 1..=known;
        for seq in again.filter(|s| *s > 0).chain(missing) {
            let bytes = encode_record(&record(self.stream, seq));
            tx.send(message(What::Record(bytes.into()))).await.ok()?;
        }
        self.next = last;
        Some(Conversation { answers, _asks: tx })
    }

    /// Takes in one acknowledgement; `None` when the stream has broken.
    async fn hear(&mut self, conversation: &mut Conversation) -> Option<()> {
        self.listen(&mut conversation.answers).await
    }

    async fn listen(&mut self, answers: &mut tonic::Streaming<AggregatorMessage>) -> Option<()> {
        if let Some(Answer::Ack(ack)) = answers.message().await.ok()??.what {
            self.durable = RangeSet::from_wire(&ack.durable);
        }
        Some(())
    }
}

/// `place`: where it keeps its data, as its command line says it.
fn aggregator(place: &[&str]) -> Server {
    let addresses = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    Server::start("entrenar-aggregator", &[place, &addresses].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_load_lose_double_and_change_nothing_that_was_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().display().to_string();
    let senders = killed_again_and_again(&["--data-dir", &data], |_| {}).await;
    let store = SqliteStore::open(&dir.path().join("entrenar.db")).await;
    oracle(&store.expect("opens after kill -9"), &senders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_neither_twenty_kills_nor_crashes_of_the_database_lose_anything() {
    let Some(cluster) = Cluster::durable() else {
        return;
    };
    let database = cluster.database().await;
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().display().to_string();
    let place = ["--database-url", &database.url, "--data-dir", &data];
    let senders = killed_again_and_again(&place, |life| {
        if life % 4 == 3 {
            cluster.stop();
            cluster.start();
        }
    })
    .await;
    let address = Address::parse(&database.url).expect("our own URL");
    let store = loop {
        match PostgresStore::open(&address).await {
            Ok(store) => break store,
            // The server has not let go of the one that was killed yet.
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    oracle(&store, &senders).await;
    store.close().await;
}

/// Many short lives, each ended in the midst of it, and then one in which everything is delivered. `before`: what else
/// happens at the end of one.
async fn killed_again_and_again(place: &[&str], before: impl Fn(usize)) -> Vec<Sender> {
    let mut senders: Vec<Sender> = (1..=STREAMS)
        .map(|stream| Sender {
            stream,
            next: 1,
            durable: RangeSet::new(),
        })
        .collect();
    for life in 0..KILLS {
        let server = aggregator(place);
        let url = format!("http://{}", server.grpc);
        let mut lives = tokio::task::JoinSet::new();
        for mut sender in senders.drain(..) {
            let url = url.clone();
            lives.spawn(async move {
                let answers = sender.speak(&url).await;
                // Some lives end in the middle of the load, others after something became durable.
                if let (Some(mut answers), true) = (answers, life % 3 != 0) {
                    sender.hear(&mut answers).await;
                }
                sender
            });
        }
        senders = lives.join_all().await;
        before(life);
        kill(server);
    }

    // The last life: everything that is missing comes again, and is kept.
    let server = aggregator(place);
    let url = format!("http://{}", server.grpc);
    for sender in &mut senders {
        let mut answers = sender.speak(&url).await.expect("connected");
        while sender.durable.gaps(1, sender.next - 1).next().is_some() {
            sender.hear(&mut answers).await.expect("acknowledged");
        }
    }
    kill(server);
    senders
}

/// As `kill -9` does.
fn kill(server: Server) {
    drop(server);
}

/// Reads everything back from the database alone.
async fn oracle(store: &dyn Store, senders: &[Sender]) {
    let (journalled, n_repeated) = journal(store).await;
    assert_eq!(n_repeated, 0, "the journal holds a record twice");
    let mut n_samples = 0;
    for sender in senders {
        for gpu in 0..GPUS {
            for (n, metric) in metric::CATALOGUE.iter().enumerate() {
                let gpu_uuid = uuid(sender.stream, gpu);
                let unsealed = journalled.get(&sender.stream).into_iter().flatten();
                let head = unsealed
                    .map(|(seq, batch)| (time_of(*seq), batch[gpu as usize].get(metric.id)));
                let head = head.filter_map(|(at, value)| Some((at, value?))).collect();
                let question = Question {
                    gpu: gpu_uuid,
                    metric: metric.id,
                    from: start(),
                    to: time_of(sender.next),
                };
                let points = query::series(store, &question, head, &mut Budget::default())
                    .await
                    .expect("read");
                let expected: Vec<_> = (1..sender.next)
                    .map(|seq| (time_of(seq), payload(sender.stream, gpu, seq, n)))
                    .collect();
                assert_eq!(
                    points, expected,
                    "stream {} GPU {gpu} {}",
                    sender.stream, metric.name
                );
                n_samples += points.len();
            }
        }
    }
    assert!(
        n_samples >= ENOUGH_SAMPLES,
        "{n_samples} samples prove nothing"
    );
    assert_eq!(n_samples % METRIC_COUNT, 0);
    println!("{n_samples} samples survived {KILLS} kills");
}

type Rows = BTreeMap<u64, BTreeMap<u64, Vec<Values>>>;

/// What the journal still holds, by stream and number; and how many records it holds twice.
async fn journal(store: &dyn Store) -> (Rows, usize) {
    let mut rows = Rows::new();
    let (mut after, mut n_repeated) = (JournalPosition(0), 0);
    loop {
        let page = store.journal(after, 64).await.expect("read");
        let Some((last, _)) = page.last() else {
            return (rows, n_repeated);
        };
        after = *last;
        for entry in page.into_iter().flat_map(|(_, entries)| entries) {
            let JournalEntry::Record { stream, bytes, .. } = entry else {
                continue;
            };
            let record = decode_record(&bytes)
                .expect("what was journalled can be read")
                .record;
            let Body::Batch(batch) = record.body else {
                continue;
            };
            let stream = u64::from_be_bytes(stream.0[..8].try_into().expect("eight bytes"));
            let known = rows
                .entry(stream)
                .or_default()
                .insert(record.seq, batch.rows);
            n_repeated += usize::from(known.is_some());
        }
    }
}
