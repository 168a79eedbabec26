//! The agents of a fleet in one process: as many real gRPC connections as are asked for, each with its own stream.
//!
//! It is cheap so that it does not disturb what is measured: values are packed before the start, and only times and
//! numbers are filled in when a message is sent. It takes orders on standard input, a line each, and answers on
//! standard output: [`crate::generator`] is the other end.

mod agent;

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Endpoint;

use self::agent::{Agent, Reel};
use crate::fleet::{self, NodeTicks};
use crate::process::raise_file_limit;

/// The argument that makes a bench a fleet.
pub const SUBCOMMAND: &str = "load";

/// Connections that are being made at the same time.
const CONNECTING: usize = 64;

/// How long a stop waits for the last acknowledgements; they come every few seconds.
const LAST_ACKS: Duration = Duration::from_secs(20);

/// What the fleet is, and where it reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Address of the aggregator's gRPC, `127.0.0.1:PORT`.
    pub grpc: String,
    /// Agents, each with 8 GPUs and a connection of its own.
    pub agents: u32,
    pub interval_ms: u32,
    pub batch_ticks: u32,
    /// Different nodes that are simulated; agents beyond them report the same at another time.
    pub nodes: u32,
    /// Ticks that are simulated of each; then it begins again.
    pub ticks: u32,
}

/// What agents have in their spools when they connect, as after a time away.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// Records of it, each with as many ticks as a live one; they lie before what is live.
    pub records: u32,
    /// Of each agent, at most: beside what it reports live.
    pub records_a_second: u32,
    /// The end of the backlog, in ms since the Unix epoch, where nothing is reported after it; `None`: live ticks
    /// follow it.
    pub end_ms: Option<i64>,
}

impl Backlog {
    /// As many records, delivered in about as many seconds; live ticks follow them.
    pub fn within(records: u32, seconds: u32) -> Self {
        Self {
            records,
            records_a_second: records.div_ceil(seconds),
            end_ms: None,
        }
    }
}

/// What was sent, and what of it is safe.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    pub series: u64,
    pub records: u64,
    pub samples: u64,
    /// Bytes of the messages, without HTTP/2.
    pub bytes: u64,
    /// Records that the aggregator says are durable.
    pub durable_records: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Messages that waited because the aggregator did not read.
    pub held_back: u64,
    /// Records of the backlog that are not sent yet.
    pub owed: u64,
}

/// The same, counted by many.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    series: AtomicU64,
    records: AtomicU64,
    samples: AtomicU64,
    bytes: AtomicU64,
    durable_records: AtomicU64,
    broken: AtomicU64,
    held_back: AtomicU64,
    owed: AtomicU64,
    /// Of each agent, what [`Generator::acknowledged`](crate::generator::Generator::acknowledged) tells.
    acknowledged: Vec<AtomicU64>,
}

impl Counters {
    fn of(agents: u32) -> Self {
        Self {
            acknowledged: (0..agents).map(|_| AtomicU64::default()).collect(),
            ..Self::default()
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            series: self.series.load(Relaxed),
            records: self.records.load(Relaxed),
            samples: self.samples.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            durable_records: self.durable_records.load(Relaxed),
            broken: self.broken.load(Relaxed),
            held_back: self.held_back.load(Relaxed),
            owed: self.owed.load(Relaxed),
        }
    }
}

/// Lives as this fleet until it is told to stop.
pub fn run(plan: &Plan) -> Result<()> {
    let interval = Duration::from_millis(plan.interval_ms.into());
    let nodes = fleet::simulate(plan.nodes, plan.ticks, interval)?;
    play(plan, nodes, Backlog::default())
}

/// Lives as a fleet of these nodes until it is told to stop.
pub fn play(plan: &Plan, nodes: Vec<NodeTicks>, backlog: Backlog) -> Result<()> {
    raise_file_limit()?;
    let reels = reels(plan, nodes)?;
    let runtime = Runtime::new()?;
    let counters = Arc::new(Counters::of(plan.agents));
    let (stop, stopped) = watch::channel(false);
    let mut agents = runtime.block_on(connect(plan, backlog, &reels, &counters, &stopped))?;
    answer("connected")?;
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "tally" => answer(&serde_json::to_string(&counters.tally())?)?,
            "acknowledged" => answer(&serde_json::to_string(&counters.acknowledged)?)?,
            _ => break,
        }
    }
    stop.send(true).context("an agent ended early")?;
    runtime.block_on(async { while agents.join_next().await.is_some() {} });
    answer(&serde_json::to_string(&counters.tally())?)
}

/// Says a line to whoever gave the orders.
pub(crate) fn answer(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// The messages of each simulated node, packed.
fn reels(plan: &Plan, nodes: Vec<NodeTicks>) -> Result<Vec<Arc<Reel>>> {
    let interval = Duration::from_millis(plan.interval_ms.into());
    let reel = |node| Reel::new(node, plan.batch_ticks, interval).map(Arc::new);
    nodes.into_iter().map(reel).collect()
}

type Agents = tokio::task::JoinSet<()>;

async fn connect(
    plan: &Plan,
    backlog: Backlog,
    reels: &[Arc<Reel>],
    counters: &Arc<Counters>,
    stopped: &watch::Receiver<bool>,
) -> Result<Agents> {
    let endpoint = Endpoint::from_shared(format!("http://{}", plan.grpc))?.tcp_nodelay(true);
    let turn = Arc::new(Semaphore::new(CONNECTING));
    let mut dialing = tokio::task::JoinSet::new();
    for number in 0..plan.agents {
        let agent = Agent::new(
            plan,
            backlog,
            number,
            reels,
            Arc::clone(counters),
            stopped.clone(),
        );
        let (endpoint, turn) = (endpoint.clone(), Arc::clone(&turn));
        dialing.spawn(async move {
            let _turn = turn.acquire().await?;
            agent.connect(&endpoint).await
        });
    }
    let mut agents = Agents::new();
    while let Some(connected) = dialing.join_next().await {
        agents.spawn(connected??.report());
    }
    Ok(agents)
}
