//! A real agent over real gRPC against a toy aggregator that can cut, forget and confuse.

#![allow(clippy::unwrap_used, reason = "a test ends where its world breaks")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use entrenar::mock::MockGpuBackend;
use entrenar::report::{Body, Hello};
use entrenar_agent::config::Config;
use entrenar_agent::{Seams, run};
use entrenar_proto::wire::telemetry_server::{Telemetry, TelemetryServer};
use entrenar_proto::wire::{
    Ack, AgentMessage, AggregatorMessage, agent_message, aggregator_message,
};
use entrenar_proto::{RangeSet, convert, decode_record};
use futures_util::Stream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the toy has and how it behaves.
#[derive(Default)]
struct State {
    hellos: Vec<Hello>,
    tokens: Vec<Option<String>>,
    /// Records by stream and number; each arrival is compared with the first.
    records: BTreeMap<([u8; 16], u64), Vec<u8>>,
    received: RangeSet,
    durable: RangeSet,
    /// Numbers in the order of their arrival, by connection.
    arrivals: Vec<Vec<u64>>,
    goodbyes: usize,
    /// Whether nothing becomes durable.
    withholds: bool,
    /// Ends the connections that are there.
    cut: CancellationToken,
}

#[derive(Clone)]
struct Toy {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl Toy {
    async fn start() -> (Self, SocketAddr) {
        Self::serve(tonic::transport::Server::builder()).await
    }

    async fn serve(mut server: tonic::transport::Server) -> (Self, SocketAddr) {
        let toy = Self {
            state: Arc::default(),
            changed: watch::Sender::new(()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TelemetryServer::new(toy.clone());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
        (toy, address)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.send_replace(());
        result
    }

    /// Waits until something is so.
    async fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !is_so(&self.state.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "it never came to pass that {what}");
    }

    fn cut(&self) {
        let old = self.with(|state| std::mem::take(&mut state.cut));
        old.cancel();
    }
}

impl State {
    fn hear(&mut self, message: AgentMessage, connection: usize) -> Ack {
        match message.what {
            Some(agent_message::What::Hello(hello)) => {
                let hello = convert::hello_from_wire(hello).unwrap();
                // What was only received is gone with the connection.
                self.received = self.durable.clone();
                self.hellos.push(hello);
            }
            Some(agent_message::What::Record(bytes)) => {
                let record = decode_record(&bytes).unwrap().record;
                let stream = self.hellos.last().unwrap().stream.0;
                let known = self
                    .records
                    .entry((stream, record.seq))
                    .or_insert_with(|| bytes.to_vec());
                assert_eq!(known[..], bytes[..], "record {} changed", record.seq);
                self.arrivals[connection].push(record.seq);
                self.received.insert(record.seq);
            }
            Some(agent_message::What::Goodbye(_)) => {
                self.goodbyes += 1;
                self.durable = self.received.clone();
            }
            None => panic!("an empty message"),
        }
        if !self.withholds {
            self.durable = self.received.clone();
        }
        Ack {
            received: self.received.to_wire(),
            durable: self.durable.to_wire(),
        }
    }
}

#[tonic::async_trait]
impl Telemetry for Toy {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<AggregatorMessage, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let token = request.metadata().get("authorization");
        let token = token.map(|value| value.to_str().unwrap().to_owned());
        let (connection, cut) = self.with(|state| {
            state.tokens.push(token);
            state.arrivals.push(Vec::new());
            (state.arrivals.len() - 1, state.cut.clone())
        });
        let mut inbound = request.into_inner();
        let (outbound, acks) = mpsc::channel(4);
        let toy = self.clone();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    () = cut.cancelled() => return,
                    message = inbound.next() => message,
                };
                let Some(Ok(message)) = message else { return };
                let ack = toy.with(|state| state.hear(message, connection));
                let what = Some(aggregator_message::What::Ack(ack));
                if outbound.send(Ok(AggregatorMessage { what })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(acks))))
    }
}

/// An agent with eight mocked GPUs and ten ticks a second.
struct Agent {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Agent {
    fn start(aggregator: SocketAddr, spool: &Path) -> Self {
        Self::with(aggregator, spool, |_| {})
    }

    fn with(aggregator: SocketAddr, spool: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::local(format!("http://{aggregator}"), "n1".into(), spool.into());
        config.interval = Duration::from_millis(100);
        change(&mut config);
        let stop = CancellationToken::new();
        let backend = Arc::new(MockGpuBackend::demo(8));
        let task = tokio::spawn(run(config, backend, Seams::default(), stop.clone(), |_| {}));
        Self { stop, task }
    }

    /// Says goodbye; five seconds are all that it has.
    async fn leave(self) {
        self.stop.cancel();
        let left = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        left.expect("an agent leaves within 5 s").unwrap().unwrap();
    }
}

fn batches(state: &State) -> Vec<entrenar::report::Batch> {
    let bodies = state
        .records
        .values()
        .map(|bytes| decode_record(bytes).unwrap().record.body);
    bodies
        .filter_map(|body| match body {
            Body::Batch(batch) => Some(batch),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_node_tells_its_story_without_a_gap_and_goes_on_after_a_restart() {
    let (toy, address) = Toy::start().await;
    let spool = tempfile::tempdir().unwrap();
    for round in 1..=2 {
        let agent = Agent::start(address, spool.path());
        let goal = 20 * round;
        toy.until("twenty more batches came", |state| {
            batches(state).len() >= goal
        })
        .await;
        agent.leave().await;
    }
    let state = toy.state.lock().unwrap();
    assert_eq!((state.hellos.len(), state.goodbyes), (2, 2));
    assert_eq!(state.hellos[0].stream, state.hellos[1].stream);
    assert_eq!(state.durable.n_ranges(), 1);
    assert_eq!(
        state.durable.range_of(1),
        Some((1, state.records.len() as u64))
    );
    let first = decode_record(state.records.values().next().unwrap())
        .unwrap()
        .record;
    let Body::Inventory(inventory) = first.body else {
        panic!("{first:?}")
    };
    assert_eq!(inventory.gpus.len(), 8);
    for batch in batches(&state) {
        assert_eq!((batch.gpus, batch.ticks.len(), batch.rows.len()), (8, 1, 8));
        assert!(
            batch
                .rows
                .iter()
                .all(|row| row.get(entrenar::metric::POWER).is_some())
        );
    }
}

#[tokio::test]
async fn a_cut_link_loses_nothing_and_the_newest_record_comes_back_first() {
    let (toy, address) = Toy::start().await;
    toy.with(|state| state.withholds = true);
    let spool = tempfile::tempdir().unwrap();
    let agent = Agent::start(address, spool.path());
    for n in 1..=3 {
        toy.until("a connection carries ten records", |state| {
            state.arrivals.len() == n && state.arrivals[n - 1].len() >= 10
        })
        .await;
        toy.cut();
    }
    toy.with(|state| state.withholds = false);
    toy.until("all gaps are filled", |state| {
        state.arrivals.len() == 4 && state.received.n_ranges() == 1 && state.arrivals[3].len() > 40
    })
    .await;
    agent.leave().await;
    let state = toy.state.lock().unwrap();
    let newest_before = state.arrivals[2].iter().max().unwrap();
    assert!(
        state.arrivals[3][0] > *newest_before,
        "{:?}",
        state.arrivals[3]
    );
    assert!(
        state.arrivals[3][1..5].contains(&1),
        "{:?}",
        state.arrivals[3]
    );
    assert_eq!(
        state.durable.range_of(1),
        Some((1, state.records.len() as u64))
    );
    assert_eq!(
        batches(&state)
            .iter()
            .map(|batch| batch.n_lost)
            .sum::<u64>(),
        0
    );
}

#[tokio::test]
async fn an_aggregator_that_was_set_back_gets_the_records_again() {
    let (toy, address) = Toy::start().await;
    let spool = tempfile::tempdir().unwrap();
    let agent = Agent::start(address, spool.path());
    toy.until("ten are durable", |state| state.durable.contains(20))
        .await;
    toy.with(|state| state.durable = [(1, 5)].into_iter().collect());
    toy.cut();
    toy.until("they came again", |state| {
        state
            .arrivals
            .get(1)
            .is_some_and(|again| (6..=20).all(|seq| again.contains(&seq)))
    })
    .await;
    agent.leave().await;
}

#[tokio::test]
async fn numbers_that_were_given_out_twice_lead_to_a_new_stream() {
    let (toy, address) = Toy::start().await;
    toy.with(|state| state.durable = [(1, 1000)].into_iter().collect());
    let spool = tempfile::tempdir().unwrap();
    let agent = Agent::start(address, spool.path());
    toy.until("a first hello came", |state| state.hellos.len() == 1)
        .await;
    toy.with(|state| state.durable = RangeSet::new());
    toy.until("records come under another name", |state| {
        state.records.len() > 10
    })
    .await;
    agent.leave().await;
    let state = toy.state.lock().unwrap();
    assert_ne!(state.hellos[0].stream, state.hellos[1].stream);
}

#[tokio::test]
async fn the_token_is_shown_and_labels_and_interval_are_told() {
    let (toy, address) = Toy::start().await;
    let spool = tempfile::tempdir().unwrap();
    let token = spool.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let agent = Agent::with(address, spool.path(), |config| {
        config.token_file = Some(token);
        config.labels = vec![("rack".into(), "r1".into())];
        config.batch_ticks = 3;
    });
    toy.until("a batch came", |state| !batches(state).is_empty())
        .await;
    agent.leave().await;
    let state = toy.state.lock().unwrap();
    assert_eq!(state.tokens[0].as_deref(), Some("Bearer s3cret"));
    let hello = &state.hellos[0];
    assert_eq!(
        (hello.node.as_str(), hello.interval_ms, hello.batch_ticks),
        ("n1", 100, 3)
    );
    assert_eq!(hello.labels["rack"], "r1");
    assert_eq!(batches(&state)[0].ticks.len(), 3);
}

#[tokio::test]
async fn an_agent_that_cannot_listen_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let agent = Agent::with(([127, 0, 0, 1], 1).into(), spool.path(), |config| {
        config.listen = taken.local_addr().unwrap();
    });
    let error = agent.task.await.unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("--listen"), "{error:#}");
}

/// A CA, and a certificate of it with its key, as PEM.
fn certificates(name: &str) -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf_pem = leaf.signed_by(&key, &issuer).unwrap().pem();
    (ca_pem, leaf_pem, key.serialize_pem())
}

#[tokio::test]
async fn over_tls_both_sides_show_a_certificate() {
    use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
    let (server_ca, server_cert, server_key) = certificates("localhost");
    let (client_ca, client_cert, client_key) = certificates("n1");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(server_cert, server_key))
        .client_ca_root(Certificate::from_pem(client_ca));
    let (toy, address) = Toy::serve(Server::builder().tls_config(tls).unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let agent = Agent::with(address, &dir.path().join("spool"), |config| {
        config.aggregator = format!("https://localhost:{}", address.port());
        config.tls_ca = file("ca.pem", &server_ca);
        config.tls_cert = file("cert.pem", &client_cert);
        config.tls_key = file("key.pem", &client_key);
    });
    toy.until("records came over TLS", |state| state.received.contains(5))
        .await;
    agent.leave().await;
}
