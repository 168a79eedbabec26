//! One agent of the load: a hello, who holds its GPUs, then ticks at its own phase of the interval.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use entrenar::clock;
use entrenar::gpu::{GpuInfo, GpuUuid, NodeId};
use entrenar::report::{Body, Hello, Holder, HolderChange, Inventory, Labels, Record, StreamId};
use entrenar::unit::Timestamp;
use entrenar_proto::convert::hello_to_wire;
use entrenar_proto::encode_record;
use entrenar_proto::wire::telemetry_client::TelemetryClient;
use entrenar_proto::wire::{self, AgentMessage, AggregatorMessage};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::{Backlog, Counters, LAST_ACKS, Plan};
use crate::fleet::{NodeTicks, n_samples, record};

/// Messages on their way to the connection. When it is full the agent waits, as a real one does.
const OUTBOX: usize = 16;

/// What a node reports, packed once and played again and again.
pub(super) struct Reel {
    gpus: Vec<GpuInfo>,
    holders: Vec<Option<Holder>>,
    n_series: u64,
    frames: Vec<Frame>,
}

/// A batch whose times are filled in when it is sent.
struct Frame {
    batch: wire::Batch,
    n_samples: u64,
}

impl Reel {
    pub(super) fn new(node: NodeTicks, batch_ticks: u32, interval: Duration) -> Result<Self> {
        let batches = node.ticks.chunks(batch_ticks as usize);
        let frames: Result<_> = batches.map(|ticks| Frame::new(ticks, interval)).collect();
        Ok(Self {
            n_series: node.n_series() as u64,
            frames: frames?,
            gpus: node.gpus,
            holders: node.holders,
        })
    }
}

impl Frame {
    fn new(ticks: &[Vec<entrenar::gpu::Values>], interval: Duration) -> Result<Self> {
        let bytes = encode_record(&record(1, Timestamp(0), interval, ticks));
        let body = wire::Record::decode(bytes.as_slice())?.body;
        let Some(wire::record::Body::Batch(batch)) = body else {
            bail!("a batch is encoded as something else");
        };
        Ok(Self {
            batch,
            n_samples: n_samples(ticks) as u64,
        })
    }

    /// The record of this batch; its last tick is now.
    fn record(&self, seq: u64, now: Timestamp, monotonic: Duration, span_ms: i64) -> wire::Record {
        let mut batch = self.batch.clone();
        if let Some(first) = batch.tick_at_ms.first_mut() {
            *first = now.0 - span_ms;
        }
        if let Some(first) = batch.tick_monotonic_ms.first_mut() {
            *first = monotonic.as_millis() as i64 - span_ms;
        }
        wire::Record {
            seq,
            body: Some(wire::record::Body::Batch(batch)),
        }
    }
}

/// An agent that is not connected yet.
pub(super) struct Agent {
    number: u32,
    reel: Arc<Reel>,
    /// Frames that this agent is ahead of others with the same reel, so that no two send the same at one time.
    ahead: usize,
    hello: Hello,
    phase: Duration,
    period: Duration,
    interval_ms: i64,
    backlog: Backlog,
    counters: Arc<Counters>,
    stopped: watch::Receiver<bool>,
}

impl Agent {
    pub(super) fn new(
        plan: &Plan,
        backlog: Backlog,
        number: u32,
        reels: &[Arc<Reel>],
        counters: Arc<Counters>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let reel = Arc::clone(&reels[number as usize % reels.len()]);
        let copy = number as usize / reels.len();
        let period = Duration::from_millis((plan.interval_ms * plan.batch_ticks).into());
        counters.series.fetch_add(reel.n_series, Relaxed);
        counters.owed.fetch_add(backlog.records.into(), Relaxed);
        let mut hello = hello(plan, number, copy, &reel.gpus);
        hello.next_seq += u64::from(backlog.records);
        Self {
            number,
            ahead: copy * 37,
            backlog,
            hello,
            phase: period * number / plan.agents.max(1),
            period,
            interval_ms: plan.interval_ms.into(),
            reel,
            counters,
            stopped,
        }
    }

    /// Opens the stream and says hello.
    pub(super) async fn connect(self, endpoint: &Endpoint) -> Result<Connected> {
        let channel = endpoint
            .connect()
            .await
            .context("could not reach the aggregator")?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let hello = wire::agent_message::What::Hello(hello_to_wire(&self.hello));
        let hello = AgentMessage {
            sent_at_ms: clock::now().0,
            what: Some(hello),
        };
        outbox.send(hello).await.context("the outbox is closed")?;
        let answers = TelemetryClient::new(channel)
            .report(ReceiverStream::new(messages))
            .await
            .context("the aggregator does not take the stream")?
            .into_inner();
        let seq = u64::from(self.backlog.records);
        Ok(Connected {
            agent: self,
            outbox,
            answers,
            seq,
            played: seq,
            sent_of_backlog: 0,
            began_at: Timestamp(0),
            ticked_at: Timestamp(0),
            n_holders: 0,
            durable: 0,
        })
    }

    fn holder_changes(&self, now: Timestamp) -> Vec<HolderChange> {
        let gpus = self
            .hello
            .inventories
            .iter()
            .flat_map(|inventory| &inventory.gpus);
        let holders = gpus.zip(&self.reel.holders);
        let copy = self.ahead;
        holders
            .filter_map(|(gpu, holder)| {
                // The same simulated job on another set of nodes is another job.
                let mut holder = holder.clone()?;
                holder.job = format!("{}-{copy}", holder.job);
                Some(HolderChange {
                    at: now,
                    gpu: gpu.uuid.clone(),
                    holder: Some(holder),
                })
            })
            .collect()
    }
}

/// The rhythm of what is owed.
fn late(backlog: Backlog) -> Interval {
    let mut late = interval(Duration::from_secs(1) / backlog.records_a_second.max(1));
    late.set_missed_tick_behavior(MissedTickBehavior::Delay);
    late
}

/// Who this agent is: a node, a rack and GPUs of its own.
fn hello(plan: &Plan, number: u32, copy: usize, gpus: &[GpuInfo]) -> Hello {
    let mut stream = [0; 16];
    stream[..4].copy_from_slice(&number.to_le_bytes());
    stream[15] = 1;
    let own = |gpu: &GpuInfo| {
        let uuid = gpu.uuid.as_str();
        let kept = &uuid[..uuid.len().saturating_sub(4)];
        GpuInfo {
            uuid: GpuUuid::from(format!("{kept}{copy:04x}")),
            ..gpu.clone()
        }
    };
    let rack = number / 4;
    let place = [
        ("rack", rack),
        ("switch", rack / 2),
        ("power_feed", rack % 2),
    ];
    let labels: Labels = place
        .iter()
        .map(|(k, v)| ((*k).to_owned(), format!("{k}-{v}")))
        .collect();
    Hello {
        stream: StreamId(stream),
        node: NodeId::from(format!("node-{number:04}")),
        labels,
        inventories: vec![Inventory {
            generation: 1,
            gpus: gpus.iter().map(own).collect(),
        }],
        agent_version: "bench".into(),
        driver_version: None,
        interval_ms: plan.interval_ms,
        batch_ticks: plan.batch_ticks,
        first_seq: 1,
        next_seq: 1,
    }
}

/// An agent with its stream.
pub(super) struct Connected {
    agent: Agent,
    outbox: mpsc::Sender<AgentMessage>,
    answers: Streaming<AggregatorMessage>,
    /// Of the newest record; the backlog has the numbers before the live ones.
    seq: u64,
    /// Frames that lie before the next live one.
    played: u64,
    sent_of_backlog: u32,
    /// When the first live tick was, or would have been.
    began_at: Timestamp,
    /// Of the newest live tick.
    ticked_at: Timestamp,
    n_holders: u64,
    durable: u64,
}

impl Connected {
    /// Reports until it is told to stop, then waits until everything is safe.
    pub(super) async fn report(mut self) {
        if self.converse().await.is_none() {
            self.agent.counters.broken.fetch_add(1, Relaxed);
        }
    }

    /// `None`: the stream broke.
    async fn converse(&mut self) -> Option<()> {
        let backlog = self.agent.backlog;
        let since = self.since();
        for change in self.agent.holder_changes(since) {
            self.seq += 1;
            self.n_holders += 1;
            let record = Record {
                seq: self.seq,
                body: Body::Holder(change),
            };
            self.send(encode_record(&record), 0).await?;
        }
        let mut due = self.due();
        let mut late = late(backlog);
        let mut stopped = self.agent.stopped.clone();
        let is_live = backlog.end_ms.is_none();
        while !*stopped.borrow() {
            // As an agent that comes back does it: a live tick first, then the oldest that is missing, live ones between.
            let owes = self.sent_of_backlog < backlog.records && self.began_at.0 != 0;
            tokio::select! {
                _ = stopped.changed() => break,
                _ = due.tick(), if is_live => self.tick().await?,
                _ = late.tick(), if owes => self.catch_up().await?,
                answer = self.answers.message() => self.note(answer.ok()??),
            }
        }
        timeout(LAST_ACKS, self.settle()).await.ok()?
    }

    fn due(&self) -> Interval {
        let first = Instant::from_std(clock::instant()) + self.agent.phase;
        let mut due = interval_at(first, self.agent.period);
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        due
    }

    /// When the first holders are said to have begun: with the first tick.
    fn since(&mut self) -> Timestamp {
        let backlog = self.agent.backlog;
        let Some(end_ms) = backlog.end_ms else {
            return clock::now();
        };
        // The last record of the backlog ends a period before.
        self.began_at = Timestamp(end_ms) + self.agent.period;
        self.began_at - self.agent.period * backlog.records
    }

    async fn tick(&mut self) -> Option<()> {
        self.seq += 1;
        let place = self.played;
        self.played += 1;
        // Of two samples of a GPU at one instant one is a repetition: on a busy machine several ticks are made at once.
        let now = clock::now().max(self.ticked_at + Duration::from_millis(1));
        self.ticked_at = now;
        if self.began_at.0 == 0 {
            self.began_at = now;
        }
        self.play(self.seq, place, now).await
    }

    /// The oldest record that is still owed.
    async fn catch_up(&mut self) -> Option<()> {
        let n = self.sent_of_backlog;
        let left = self.agent.backlog.records - n;
        self.sent_of_backlog += 1;
        self.agent.counters.owed.fetch_sub(1, Relaxed);
        let (seq, place) = (u64::from(n) + 1, u64::from(n));
        self.play(seq, place, self.began_at - self.agent.period * left)
            .await
    }

    /// Sends a frame whose last tick is at an instant.
    async fn play(&mut self, seq: u64, place: u64, at: Timestamp) -> Option<()> {
        let reel = Arc::clone(&self.agent.reel);
        let frame = &reel.frames[(place as usize + self.agent.ahead) % reel.frames.len()];
        let span_ms = self.agent.interval_ms * (frame.batch.tick_at_ms.len() as i64 - 1);
        let uptime = self.agent.period * place as u32 + Duration::from_hours(24);
        let record = frame.record(seq, at, uptime, span_ms);
        self.send(record.encode_to_vec(), frame.n_samples).await
    }

    async fn send(&mut self, record: Vec<u8>, n_samples: u64) -> Option<()> {
        let what = wire::agent_message::What::Record(record.into());
        let message = AgentMessage {
            sent_at_ms: clock::now().0,
            what: Some(what),
        };
        let counters = &self.agent.counters;
        counters
            .bytes
            .fetch_add(message.encoded_len() as u64, Relaxed);
        counters.samples.fetch_add(n_samples, Relaxed);
        counters.records.fetch_add(1, Relaxed);
        if self.outbox.capacity() == 0 {
            counters.held_back.fetch_add(1, Relaxed);
        }
        self.outbox.send(message).await.ok()
    }

    fn note(&mut self, answer: AggregatorMessage) {
        let Some(wire::aggregator_message::What::Ack(ack)) = answer.what else {
            return;
        };
        let durable = ack
            .durable
            .iter()
            .map(|range| range.last - range.first + 1)
            .sum();
        let more = durable - self.durable.min(durable);
        self.agent.counters.durable_records.fetch_add(more, Relaxed);
        self.durable += more;
        if let Some(own) = (self.agent.counters.acknowledged).get(self.agent.number as usize) {
            own.store(self.durable.saturating_sub(self.n_holders), Relaxed);
        }
    }

    async fn settle(&mut self) -> Option<()> {
        while self.durable < self.seq {
            let answer = self.answers.message().await.ok()??;
            self.note(answer);
        }
        Some(())
    }
}
