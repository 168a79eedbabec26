//! Trials on gRPC streams of our own: a node that is well, and then is not.

use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::clock::{instant, now};
use entrenar::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use entrenar::metric::{NVML_STATUS, NvmlStatus};
use entrenar::report::{Body, GpuEvent, GpuEventKind, Hello, Inventory, Labels, Record, StreamId};
use entrenar_proto::convert::hello_to_wire;
use entrenar_proto::encode_record;
use entrenar_proto::wire::agent_message::What;
use entrenar_proto::wire::telemetry_client::TelemetryClient;
use entrenar_proto::wire::{AgentMessage, Goodbye};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::center::{Center, prefix};
use super::{RECEIVERS, TRIALS, pause};
use crate::fleet::{self, NodeTicks};

const INTERVAL: Duration = Duration::from_secs(1);

/// Messages on their way; a trial has fewer.
const OUTBOX: usize = 16;

/// A double bit error: critical, and told at once.
pub(super) const XID: u64 = 48;

/// What befalls a GPU.
#[derive(Clone, Copy)]
pub(super) enum Trouble {
    /// Its row of a tick says that it is lost.
    Lost,
    /// An event.
    Xid,
}

/// From writing a message to the stream to the request that tells of it.
pub(super) fn trials(center: &Center, trouble: Trouble) -> Result<Vec<Duration>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let well = fleet::simulate(1, 1, INTERVAL)?.remove(0);
    let mut times = Vec::new();
    for trial in 0..TRIALS {
        let node = Node::new(trial, &well);
        let stream = runtime.block_on(node.connect(&center.grpc()?))?;
        stream.send(What::Record(Node::tick(1, &well.ticks[0]).into()))?;
        pause(trial);
        let sick = &node.gpus[trial % node.gpus.len()].uuid;
        let record = match trouble {
            Trouble::Lost => Node::tick(2, &lose(sick, &node.gpus, &well.ticks[0])),
            Trouble::Xid => xid(2, sick),
        };
        let began = instant();
        stream.send(What::Record(record.into()))?;
        let told = center.sink.await_post(sick.as_str())?;
        times.push(told.saturating_duration_since(began));
        let reason = "the trial is over".to_owned();
        stream.send(What::Goodbye(Goodbye { reason }))?;
    }
    Ok(times)
}

fn xid(seq: u64, sick: &GpuUuid) -> Vec<u8> {
    let body = Body::Event(GpuEvent {
        at: now(),
        gpu: Some(sick.clone()),
        what: GpuEventKind::Xid(XID),
    });
    encode_record(&Record { seq, body })
}

/// The rows of a tick, but one GPU says only that it is lost.
fn lose(sick: &GpuUuid, gpus: &[GpuInfo], rows: &[Values]) -> Vec<Values> {
    let row = |(gpu, row): (&GpuInfo, &Values)| {
        if gpu.uuid == *sick {
            Values::default().with(NVML_STATUS, NvmlStatus::GpuIsLost as i64)
        } else {
            row.clone()
        }
    };
    gpus.iter().zip(rows).map(row).collect()
}

/// A node of its own for each trial: what befell another explains nothing here.
struct Node {
    trial: usize,
    gpus: Vec<GpuInfo>,
}

impl Node {
    fn new(trial: usize, like: &NodeTicks) -> Self {
        let own = |gpu: &GpuInfo| GpuInfo {
            uuid: GpuUuid::from(format!("GPU-trial-{trial:04}-{}", gpu.index)),
            ..gpu.clone()
        };
        let gpus = like.gpus.iter().map(own).collect();
        Self { trial, gpus }
    }

    fn tick(seq: u64, rows: &[Values]) -> Vec<u8> {
        encode_record(&fleet::record(seq, now(), INTERVAL, &[rows.to_vec()]))
    }

    async fn connect(&self, url: &str) -> Result<Stream> {
        let mut client = TelemetryClient::connect(url.to_owned()).await?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let stream = Stream(outbox);
        stream.send(What::Hello(hello_to_wire(&self.hello())))?;
        let mut answers = client
            .report(ReceiverStream::new(messages))
            .await?
            .into_inner();
        answers.message().await?;
        tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
        Ok(stream)
    }

    fn hello(&self) -> Hello {
        let mut stream = [2; 16];
        stream[..8].copy_from_slice(&(self.trial as u64).to_le_bytes());
        Hello {
            stream: StreamId(stream),
            node: NodeId::from(format!("{}{}", prefix(self.trial % RECEIVERS), self.trial)),
            labels: Labels::new(),
            inventories: vec![Inventory {
                generation: 1,
                gpus: self.gpus.clone(),
            }],
            agent_version: "bench".into(),
            driver_version: None,
            interval_ms: INTERVAL.as_millis() as u32,
            batch_ticks: 1,
            first_seq: 1,
            next_seq: 1,
        }
    }
}

/// What a node says. Its end is the end of the stream.
struct Stream(mpsc::Sender<AgentMessage>);

impl Stream {
    fn send(&self, what: What) -> Result<()> {
        let message = AgentMessage {
            sent_at_ms: now().as_millis(),
            what: Some(what),
        };
        self.0.try_send(message).context("the stream is closed")
    }
}
