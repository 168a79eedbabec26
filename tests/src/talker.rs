//! An agent over a real connection that says word for word what a story wants, and one that sends any bytes at all.

use std::collections::BTreeMap;

use entrenar::gpu::{GpuInfo, GpuUuid, Values};
use entrenar::metric::{NVML_STATUS, NvmlStatus, POWER};
use entrenar::report::{
    Batch, Body, GpuEvent, GpuEventKind, Hello, Inventory, Record, StreamId, Tick,
};
use entrenar::unit::Timestamp;
use entrenar_proto::wire::agent_message::What;
use entrenar_proto::wire::aggregator_message::What as Answer;
use entrenar_proto::wire::telemetry_client::TelemetryClient;
use entrenar_proto::wire::{AgentMessage, AggregatorMessage};
use entrenar_proto::{RangeSet, convert, encode_record};
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// The one method of the service.
const REPORT: &str = "/entrenar.fleet.v1.Telemetry/Report";

/// Messages that a story may say before they are sent.
const QUEUE: usize = 1024;

/// A node with one GPU, whose agent says what it is told to.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub stream: StreamId,
    /// Its clock minus the true one, in milliseconds.
    pub clock_ms: i64,
}

impl Node {
    /// The stream follows from the name.
    pub fn named(name: &str) -> Self {
        let mut stream = [0; 16];
        for (n, byte) in name.bytes().enumerate() {
            stream[n % 16] ^= byte;
        }
        Self {
            name: name.to_owned(),
            stream: StreamId(stream),
            clock_ms: 0,
        }
    }

    pub fn gpu(&self) -> GpuUuid {
        GpuUuid::from(format!("GPU-{}", self.name))
    }

    /// Now, by its clock.
    pub fn now(&self) -> Timestamp {
        Timestamp(entrenar::clock::now().0 + self.clock_ms)
    }

    pub fn hello(&self) -> Hello {
        let gpu = GpuInfo {
            uuid: self.gpu(),
            ..GpuInfo::default()
        };
        Hello {
            stream: self.stream,
            node: self.name.as_str().into(),
            labels: BTreeMap::new(),
            inventories: vec![Inventory {
                generation: 1,
                gpus: vec![gpu],
            }],
            agent_version: "test".into(),
            driver_version: None,
            interval_ms: 1000,
            batch_ticks: 1,
            first_seq: 1,
            next_seq: 1,
        }
    }

    /// A sample of its GPU at an instant of its clock.
    pub fn sample(&self, seq: u64, at: Timestamp) -> Record {
        let values = Values::default()
            .with(NVML_STATUS, NvmlStatus::Ok as i64)
            .with(POWER, 100_000 + seq as i64);
        let tick = Tick {
            at,
            monotonic_ms: seq * 1000,
        };
        Record {
            seq,
            body: Body::Batch(Batch {
                generation: 1,
                gpus: 1,
                n_lost: 0,
                ticks: vec![tick],
                rows: vec![values],
            }),
        }
    }

    /// The driver's error code, now.
    pub fn xid(&self, seq: u64, code: u64) -> Record {
        Record {
            seq,
            body: Body::Event(GpuEvent {
                at: self.now(),
                gpu: Some(self.gpu()),
                what: GpuEventKind::Xid(code),
            }),
        }
    }
}

/// A conversation that stays open while this lives.
pub struct Talker {
    node: Node,
    asks: mpsc::Sender<AgentMessage>,
    answers: Streaming<AggregatorMessage>,
    /// What the aggregator said last to be durable.
    pub durable: RangeSet,
}

impl Talker {
    /// Introduces a node and hears what the aggregator has of it.
    pub async fn connect(grpc: &str, node: &Node) -> Result<Self, Status> {
        let client = TelemetryClient::connect(format!("http://{grpc}")).await;
        let mut client = client.map_err(|e| Status::unavailable(e.to_string()))?;
        let (asks, queue) = mpsc::channel(QUEUE);
        let hello = What::Hello(convert::hello_to_wire(&node.hello()));
        let message = AgentMessage {
            sent_at_ms: node.now().as_millis(),
            what: Some(hello),
        };
        asks.try_send(message).expect("the queue is new");
        let answers = client.report(ReceiverStream::new(queue)).await?;
        let mut talker = Self {
            node: node.clone(),
            asks,
            answers: answers.into_inner(),
            durable: RangeSet::new(),
        };
        talker.hear().await?;
        Ok(talker)
    }

    pub async fn say(&self, record: &Record) {
        self.say_bytes(encode_record(record)).await;
    }

    /// Bytes in the place of a record.
    pub async fn say_bytes(&self, record: Vec<u8>) {
        let message = AgentMessage {
            sent_at_ms: self.node.now().as_millis(),
            what: Some(What::Record(record.into())),
        };
        // Refused meanwhile: the story hears why.
        let _ = self.asks.send(message).await;
    }

    /// Waits for one acknowledgement.
    pub async fn hear(&mut self) -> Result<(), Status> {
        let message = self.answers.message().await?;
        let message = message.ok_or_else(|| Status::cancelled("the stream has ended"))?;
        if let Some(Answer::Ack(ack)) = message.what {
            self.durable = RangeSet::from_wire(&ack.durable);
        }
        Ok(())
    }

    /// Waits until everything from 1 to here is durable.
    pub async fn hear_up_to(&mut self, last: u64) -> Result<(), Status> {
        while self.durable.gaps(1, last).next().is_some() {
            self.hear().await?;
        }
        Ok(())
    }
}

/// An encoded message of an agent.
pub fn message(what: What) -> Vec<u8> {
    let message = AgentMessage {
        sent_at_ms: entrenar::clock::now().as_millis(),
        what: Some(what),
    };
    message.encode_to_vec()
}

/// Sends these bytes as messages and keeps the stream open; what the server says in the end.
pub async fn send_raw(grpc: &str, messages: Vec<Vec<u8>>) -> Status {
    match converse_raw(grpc, messages).await {
        Ok(()) => Status::ok("the stream ended well"),
        Err(status) => status,
    }
}

async fn converse_raw(grpc: &str, messages: Vec<Vec<u8>>) -> Result<(), Status> {
    let unavailable = |e: tonic::transport::Error| Status::unavailable(e.to_string());
    let endpoint = Channel::from_shared(format!("http://{grpc}")).expect("a URL");
    let channel = endpoint.connect().await.map_err(unavailable)?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(unavailable)?;
    let (asks, queue) = mpsc::channel(QUEUE);
    for message in messages {
        asks.try_send(message).expect("a story says little");
    }
    let path = PathAndQuery::from_static(REPORT);
    let request = Request::new(ReceiverStream::new(queue));
    let answered = client.streaming(request, path, Verbatim).await?;
    let mut answers: Streaming<Vec<u8>> = answered.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Verbatim;

impl Codec for Verbatim {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Verbatim {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Verbatim {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
