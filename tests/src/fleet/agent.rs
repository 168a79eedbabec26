//! One node's agent in virtual time: the simulator samples, the agent's own session says what goes out when.

use std::time::Duration;

use entrenar::backend::Depth;
use entrenar::gpu::{GpuUuid, NodeId, Values};
use entrenar::metric::{MetricId, NVML_STATUS, NvmlStatus};
use entrenar::report::{
    Batch, Body, Hello, Holder, HolderChange, Inventory, Record, StreamId, Tick,
};
use entrenar::sim::{NodeState, SimNode};
use entrenar::unit::Timestamp;
use entrenar_agent::uplink::session::{Session, Verdict};
use entrenar_aggregator::line::{ConnectionId, HelloRefused, Line};
use entrenar_aggregator::query::Point;
use entrenar_proto::{RangeSet, decode_record, encode_hello, encode_record};

/// How often slow metrics are read.
const SLOW_EVERY: Duration = Duration::from_secs(10);

/// What a node has said so far, and what of it went out.
pub(super) struct Agent {
    pub(super) stream: StreamId,
    inventory: Inventory,
    /// Every record by its number, from 1: a spool without a bound.
    spool: Vec<Vec<u8>>,
    session: Session,
    pub(super) connection: Option<ConnectionId>,
    /// Records up to here were offered to the present connection when they were new.
    offered: u64,
    holders: Vec<Option<Holder>>,
    sampled_at: Timestamp,
    /// Whether the node has power.
    pub(super) is_on: bool,
    /// Whether the network is there.
    pub(super) is_linked: bool,
    /// Its clock minus the true one, in milliseconds.
    pub(super) clock_ms: i64,
}

impl Agent {
    pub(super) fn new(n: usize, node: &SimNode, start: Timestamp) -> Self {
        let mut stream = [0; 16];
        stream[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
        Self {
            stream: StreamId(stream),
            inventory: Inventory {
                generation: 1,
                gpus: node.gpus().to_vec(),
            },
            spool: Vec::new(),
            session: Session::new(1),
            connection: None,
            offered: 0,
            holders: vec![None; node.gpus().len()],
            sampled_at: start,
            is_on: true,
            is_linked: true,
            clock_ms: 0,
        }
    }

    /// Whether it samples.
    pub(super) fn runs(&self, node: &SimNode, now: Timestamp) -> bool {
        self.is_on && node.state_at(now) == NodeState::Up
    }

    /// Takes a sample of every GPU, with what happened since the last one.
    pub(super) fn sample(&mut self, now: Timestamp, node: &SimNode, step: Duration) {
        self.note_holders(now, node);
        for mut event in node.events_between(self.sampled_at, now) {
            event.at = self.wall(event.at);
            self.say(Body::Event(event));
        }
        self.sampled_at = now;
        let slow = now.as_millis() % SLOW_EVERY.as_millis() as i64;
        let is_slow = slow < step.as_millis() as i64;
        let depth = if is_slow { Depth::Full } else { Depth::Fast };
        let gpus = self.inventory.gpus.len() as u32;
        self.say(Body::Batch(Batch {
            generation: 1,
            gpus,
            n_lost: 0,
            ticks: vec![Tick {
                at: self.wall(now),
                monotonic_ms: now.as_millis() as u64,
            }],
            rows: (0..gpus).map(|gpu| probed(node, gpu, depth)).collect(),
        }));
    }

    /// Introduces itself on a new connection and learns what the aggregator has.
    pub(super) fn connect(
        &mut self,
        now: Timestamp,
        node: &SimNode,
        step: Duration,
        connection: ConnectionId,
        line: &mut Line,
    ) -> Result<(), HelloRefused> {
        let hello = self.hello(node, step);
        let bytes = encode_hello(&hello);
        line.hello(now, connection, hello, bytes)?;
        self.connection = Some(connection);
        self.offered = self.newest();
        self.session.connected(1, self.newest() + 1);
        self.listen(line);
        Ok(())
    }

    /// Hears how far the aggregator is.
    pub(super) fn listen(&mut self, line: &Line) {
        let progress = line.progress(self.stream).unwrap_or_default();
        let set = |ranges: Vec<(u64, u64)>| ranges.into_iter().collect::<RangeSet>();
        let (received, durable) = (set(progress.received), set(progress.durable));
        let verdict = self.session.acknowledged(&received, &durable);
        assert_eq!(verdict, Verdict::Fine, "acknowledged what was never sent");
    }

    /// Sends what is new, and of the past what may be on its way.
    pub(super) fn speak(&mut self, now: Timestamp, line: &mut Line) {
        for seq in self.offered + 1..=self.newest() {
            self.session.grown_to(seq + 1);
            if self.session.wants_live(seq) {
                self.send(now, seq, line);
            }
        }
        self.offered = self.newest();
        while let Some((first, last)) = self.session.next_history() {
            for seq in first..=last {
                self.send(now, seq, line);
            }
        }
    }

    /// The connection ends without a word.
    pub(super) fn hang_up(&mut self, line: Option<&mut Line>) {
        if let (Some(connection), Some(line)) = (self.connection.take(), line) {
            line.disconnected(self.stream, connection);
        }
    }

    /// Every value of a metric that it ever sampled, by its own clock: what must be found again.
    pub(super) fn sampled(&self, gpu: &GpuUuid, metric: MetricId) -> Option<Vec<Point>> {
        let place = self.inventory.gpus.iter().position(|g| g.uuid == *gpu)?;
        let mut points = Vec::new();
        for bytes in &self.spool {
            let decoded = decode_record(bytes).expect("invariant: what was encoded is decoded");
            if let Body::Batch(batch) = decoded.record.body {
                let value = batch.tick_rows(0)[place].get(metric);
                points.extend(value.map(|value| (batch.ticks[0].at, value)));
            }
        }
        Some(points)
    }

    fn send(&mut self, now: Timestamp, seq: u64, line: &mut Line) {
        let bytes = self.spool[seq as usize - 1].clone();
        let decoded = decode_record(&bytes).expect("invariant: what was encoded is decoded");
        let (record, n_unknown) = (decoded.record, decoded.n_unknown_metrics);
        line.took(now);
        line.record(now, self.wall(now), self.stream, record, n_unknown, bytes);
        self.session.sent(seq);
    }

    fn note_holders(&mut self, now: Timestamp, node: &SimNode) {
        for gpu in 0..self.holders.len() {
            let holder = node.holder(gpu as u32);
            if self.holders[gpu].as_ref() != holder {
                self.holders[gpu] = holder.cloned();
                self.say(Body::Holder(HolderChange {
                    at: self.wall(now),
                    gpu: self.inventory.gpus[gpu].uuid.clone(),
                    holder: holder.cloned(),
                }));
            }
        }
    }

    fn say(&mut self, body: Body) {
        let seq = self.newest() + 1;
        self.spool.push(encode_record(&Record { seq, body }));
    }

    /// Number of the newest record.
    fn newest(&self) -> u64 {
        self.spool.len() as u64
    }

    fn wall(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0 + self.clock_ms)
    }

    fn hello(&self, node: &SimNode, step: Duration) -> Hello {
        Hello {
            stream: self.stream,
            node: NodeId::from(node.name().as_str()),
            labels: node.labels().clone(),
            inventories: vec![self.inventory.clone()],
            agent_version: "test".into(),
            driver_version: None,
            interval_ms: step.as_millis() as u32,
            batch_ticks: 1,
            first_seq: 1,
            next_seq: self.newest() + 1,
        }
    }
}

/// What the probe would make of a GPU.
fn probed(node: &SimNode, gpu: u32, depth: Depth) -> Values {
    let status = |status: NvmlStatus| Values::default().with(NVML_STATUS, status as i64);
    if node.is_lost(gpu) {
        return status(NvmlStatus::GpuIsLost);
    }
    if node.is_silent(gpu) {
        return status(NvmlStatus::Timeout);
    }
    match node.values(gpu, depth) {
        Some(values) => values.with(NVML_STATUS, NvmlStatus::Ok as i64),
        None => status(NvmlStatus::NotFound),
    }
}
