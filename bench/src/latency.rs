//! From an event to the message: an XID that NVML reports, through agent, wire, rules, database and outbox to a webhook.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use entrenar::clock::{instant, now};
use entrenar::gpu::{GpuInfo, GpuUuid};
use entrenar::report::{Body, GpuEvent, GpuEventKind, Hello, Inventory, Labels, Record, StreamId};
use entrenar_proto::convert::hello_to_wire;
use entrenar_proto::encode_record;
use entrenar_proto::wire::AgentMessage;
use entrenar_proto::wire::agent_message::What;
use entrenar_proto::wire::telemetry_client::TelemetryClient;
use fake_nvml::harness::FakeNvml;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::measure::quantile;
use crate::process::{Server, aggregator, program};
use crate::report::Section;

const TRIALS: usize = 100;
/// GPUs of one node: each may have an incident of its own.
const GPUS: u32 = 50;
/// Receivers are told at most 20 messages a minute: enough of them that none waits for its turn.
const RECEIVERS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(20);

/// Both ways.
pub fn run() -> Result<()> {
    let inside = aggregator_alone()?;
    let whole = through_an_agent()?;
    let mut section = Section::default();
    section.say(format!(
        "{TRIALS} trials each, one at a time, to a local webhook. In the aggregator: a message with an XID is written \
         to the gRPC stream → the webhook's POST is read. Whole way: the driver library reports an XID → POST, through a \
         real agent. The decision is recorded (`synchronous=FULL`) before it is told."
    ));
    let ms = |d: Option<Duration>| {
        d.map_or("–".to_owned(), |d| {
            format!("{:.1} ms", d.as_secs_f64() * 1e3)
        })
    };
    let row = |what: &str, times: &[Duration], goal: &str| {
        [
            what.to_owned(),
            times.len().to_string(),
            ms(quantile(times, 0.5)),
            ms(quantile(times, 0.99)),
            ms(quantile(times, 1.0)),
            goal.to_owned(),
        ]
    };
    section.table(
        ["from", "trials", "median", "p99", "max", "goal"],
        &[
            row(
                "the aggregator's gRPC stream",
                &inside,
                "median < 50 ms, p99 < 200 ms",
            ),
            row("NVML's event, through the agent", &whole, "< 500 ms"),
        ],
    );
    section.publish("latency")
}

/// A webhook that says when something was posted.
struct Sink {
    port: u16,
    posted: Receiver<(Instant, String)>,
}

impl Sink {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (tx, posted) = sync_channel(1024);
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let tx = tx.clone();
                std::thread::spawn(move || serve(tcp, &tx));
            }
        });
        Ok(Self { port, posted })
    }

    fn await_post(&self, word: &str) -> Result<Instant> {
        loop {
            let (at, body) = self.posted.recv_timeout(PATIENCE).context("no POST came")?;
            if body.contains(word) {
                return Ok(at);
            }
        }
    }
}

/// Requests of one connection, until it is closed.
fn serve(tcp: TcpStream, posted: &SyncSender<(Instant, String)>) {
    let mut reader = BufReader::new(tcp);
    loop {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        let at = instant();
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        // A bench that has ended listens no more.
        let _ = posted.send((at, String::from_utf8_lossy(&body).into_owned()));
        if reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .is_err()
        {
            return;
        }
    }
}

/// An aggregator that tells the sink: receivers by node, so that each stays below its pace.
fn center(dir: &std::path::Path, sink: &Sink) -> Result<Server> {
    let mut receivers = String::from("receivers:\n");
    for n in 0..RECEIVERS {
        let port = sink.port;
        let _ = writeln!(
            receivers,
            "  - {{ name: sink-{n}, kind: webhook, url: \"http://127.0.0.1:{port}/{n}\", nodes: [\"node-{n}\"] }}"
        );
    }
    let file = dir.join("receivers.yaml");
    std::fs::write(&file, receivers)?;
    let mut command = aggregator(dir.join("data"))?;
    command.arg("--receivers").arg(file);
    Server::start(command)
}

fn aggregator_alone() -> Result<Vec<Duration>> {
    let dir = tempfile::tempdir_in(".")?;
    let sink = Sink::start()?;
    let server = center(dir.path(), &sink)?;
    let url = format!("http://{}", server.address("grpc")?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut times = Vec::new();
    for n in 0..RECEIVERS {
        let (tx, mut answers) = runtime.block_on(connect(&url, n))?;
        runtime.spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
        for trial in 0..TRIALS / RECEIVERS {
            let gpu = uuid(n, trial as u32);
            let event = GpuEvent {
                at: now(),
                gpu: Some(gpu.clone()),
                what: GpuEventKind::Xid(48),
            };
            let record = Record {
                seq: trial as u64 + 1,
                body: Body::Event(event),
            };
            let what = What::Record(encode_record(&record).into());
            let began = instant();
            let message = AgentMessage {
                sent_at_ms: now().as_millis(),
                what: Some(what),
            };
            runtime
                .block_on(tx.send(message))
                .context("the stream is closed")?;
            times.push(
                sink.await_post(gpu.as_str())?
                    .saturating_duration_since(began),
            );
        }
    }
    Ok(times)
}

fn uuid(node: usize, gpu: u32) -> GpuUuid {
    GpuUuid::from(format!("GPU-bench-{node:02}-{gpu:04}"))
}

type Stream = (
    mpsc::Sender<AgentMessage>,
    tonic::Streaming<entrenar_proto::wire::AggregatorMessage>,
);

async fn connect(url: &str, n: usize) -> Result<Stream> {
    let mut client = TelemetryClient::connect(url.to_owned()).await?;
    let (tx, rx) = mpsc::channel(16);
    let gpu = |index| GpuInfo {
        uuid: uuid(n, index),
        index,
        ..GpuInfo::default()
    };
    let mut stream = [1; 16];
    stream[0] = n as u8;
    let hello = Hello {
        stream: StreamId(stream),
        node: format!("node-{n}").into(),
        labels: Labels::new(),
        inventories: vec![Inventory {
            generation: 1,
            gpus: (0..GPUS).map(gpu).collect(),
        }],
        agent_version: "bench".into(),
        driver_version: None,
        interval_ms: 1000,
        batch_ticks: 1,
        first_seq: 1,
        next_seq: 1,
    };
    let hello = AgentMessage {
        sent_at_ms: now().as_millis(),
        what: Some(What::Hello(hello_to_wire(&hello))),
    };
    tx.send(hello).await?;
    let mut answers = client.report(ReceiverStream::new(rx)).await?.into_inner();
    answers.message().await?;
    Ok((tx, answers))
}

/// Nodes with a few GPUs each, one after the other, so that no receiver is told more than its pace allows.
fn through_an_agent() -> Result<Vec<Duration>> {
    let dir = tempfile::tempdir_in(".")?;
    let sink = Sink::start()?;
    let server = center(dir.path(), &sink)?;
    let gpus = TRIALS / RECEIVERS;
    let mut times = Vec::new();
    for n in 0..RECEIVERS {
        let node = dir.path().join(format!("node-{n}"));
        std::fs::create_dir(&node)?;
        let mut scenario = format!("gpus {gpus}\nhost {n}\n");
        let fake = FakeNvml::install(&node, &scenario);
        let mut command = program("entrenar-agent")?;
        command
            .args([
                "--aggregator",
                &format!("http://{}", server.address("grpc")?),
            ])
            .args([
                "--node",
                &format!("node-{n}"),
                "--listen",
                "127.0.0.1:0",
                "--spool-dir",
            ])
            .arg(node.join("spool"))
            .arg("--nvml-lib")
            .arg(fake.library());
        let agent = Server::start(command)?;
        std::thread::sleep(Duration::from_secs(3));
        for gpu in 0..gpus {
            let _ = writeln!(scenario, "event {} gpu {gpu} xid 48", gpu + 1);
            let began = instant();
            fake.play(&scenario);
            let word = format!("\"device\":\"{gpu}\"");
            times.push(sink.await_post(&word)?.saturating_duration_since(began));
        }
        agent.stop()?;
    }
    Ok(times)
}
