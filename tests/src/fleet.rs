//! A fleet and its aggregator, moved second by second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use entrenar::backend::Depth;
use entrenar::gpu::{NodeId, Values};
use entrenar::metric::{NVML_STATUS, NvmlStatus};
use entrenar::report::{Batch, Body, Hello, HolderChange, Inventory, Record, StreamId, Tick};
use entrenar::sim::{NodeState, SimConfig, SimFleet, SimNode};
use entrenar::unit::Timestamp;
use entrenar_aggregator::andon::{Kind, RuleSet, Severity};
use entrenar_aggregator::incident::{Decision, Incident, Notice, NoticeEvent};
use entrenar_aggregator::line::{ConnectionId, Line, LineConfig};
use entrenar_aggregator::notify::route::{Route, Routes};
use entrenar_aggregator::store::memory::MemoryStore;
use entrenar_aggregator::store::{JournalPosition, Store};
use entrenar_proto::{encode_hello, encode_record};

/// Records that an agent sends of its past in one second, beside what is live.
const CATCH_UP_PER_S: usize = 64;

/// A message that went out.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub at: Timestamp,
    pub event: NoticeEvent,
    pub incident: Incident,
}

/// One node's agent: what it has said so far, and what of it arrived.
struct Agent {
    stream: StreamId,
    inventory: Inventory,
    /// All records, by number from 1: a spool without a bound.
    spool: Vec<Record>,
    durable: BTreeSet<u64>,
    /// Sent on this connection.
    sent: BTreeSet<u64>,
    connection: Option<ConnectionId>,
    holders: BTreeMap<u32, Option<String>>,
    events_upto: Timestamp,
    runs: bool,
    linked: bool,
    /// Its clock minus the true one.
    clock_ms: i64,
}

/// A simulated fleet, its agents, and a line.
pub struct Fleet {
    sim: SimFleet,
    agents: Vec<Agent>,
    line: Option<Line>,
    store: Arc<MemoryStore>,
    config: LineConfig,
    now: Timestamp,
    step: Duration,
    connections: u64,
    told: Vec<Told>,
}

impl Fleet {
    /// A fleet with the built-in rules, and one receiver that takes warnings and worse.
    pub fn of(sim: &SimConfig) -> Self {
        Self::with_rules(sim, RuleSet::default())
    }

    pub fn with_rules(sim: &SimConfig, rules: RuleSet) -> Self {
        let config = LineConfig {
            cluster: "test".into(),
            rules: Arc::new(rules),
            routes: Routes(vec![Route::to("on-call", Severity::Warning)]),
        };
        let fleet = SimFleet::new(sim).expect("a fleet that can be");
        let now = fleet.start();
        let agents = fleet
            .nodes()
            .iter()
            .enumerate()
            .map(|(n, node)| Agent::new(n, node, now))
            .collect();
        let mut line = Line::new(config.clone());
        line.start(now);
        Self {
            sim: fleet,
            agents,
            line: Some(line),
            store: Arc::new(MemoryStore::default()),
            config,
            now,
            step: Duration::from_secs(1),
            connections: 0,
            told: Vec::new(),
        }
    }

    /// Samples this often.
    #[must_use]
    pub fn every(mut self, step: Duration) -> Self {
        self.step = step;
        self
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn line(&self) -> &Line {
        self.line.as_ref().expect("the aggregator runs")
    }

    /// Everything that went out so far.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Kinds of the incidents that people were told of, in order.
    pub fn triggers(&self) -> Vec<Kind> {
        let begins = self.told.iter().filter(|t| t.event == NoticeEvent::Trigger);
        begins.map(|t| t.incident.kind).collect()
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    /// Cuts or mends the network of some agents.
    pub fn link(&mut self, up: bool, which: impl Fn(usize) -> bool) {
        for (_, agent) in self
            .agents
            .iter_mut()
            .enumerate()
            .filter(|(n, _)| which(*n))
        {
            agent.linked = up;
            if !up {
                agent.hang_up(self.line.as_mut());
            }
        }
    }

    /// Kills or starts some nodes: a dead one neither samples nor says goodbye.
    pub fn power(&mut self, on: bool, which: impl Fn(usize) -> bool) {
        for (_, agent) in self
            .agents
            .iter_mut()
            .enumerate()
            .filter(|(n, _)| which(*n))
        {
            agent.runs = on;
            if !on {
                agent.hang_up(self.line.as_mut());
            }
        }
    }

    /// Says goodbye for some agents and stops them.
    pub fn goodbye(&mut self, which: impl Fn(usize) -> bool) {
        for (_, agent) in self
            .agents
            .iter_mut()
            .enumerate()
            .filter(|(n, _)| which(*n))
        {
            if let Some(line) = &mut self.line {
                line.goodbye(self.now, agent.stream);
            }
            agent.hang_up(self.line.as_mut());
            agent.runs = false;
        }
        self.settle();
    }

    /// Sets the clocks of some agents wrong.
    pub fn clock(&mut self, off_by_ms: i64, which: impl Fn(usize) -> bool) {
        for (_, agent) in self
            .agents
            .iter_mut()
            .enumerate()
            .filter(|(n, _)| which(*n))
        {
            agent.clock_ms = off_by_ms;
        }
    }

    /// The aggregator dies as by kill -9: what is not committed is gone, all connections break.
    pub fn kill_aggregator(&mut self) {
        self.line = None;
        for agent in &mut self.agents {
            agent.hang_up(None);
        }
    }

    /// It comes back from what the store remembers.
    pub fn start_aggregator(&mut self) {
        let recovered = now(self.store.recover()).expect("recovered");
        let mut line = Line::recover(self.config.clone(), recovered, self.now);
        let mut after = JournalPosition(0);
        loop {
            let rows = now(self.store.journal(after, 64)).expect("read");
            let Some((last, _)) = rows.last() else { break };
            after = *last;
            for (position, entries) in rows {
                line.replay(position, entries);
            }
        }
        line.start(self.now);
        self.line = Some(line);
        self.settle();
    }

    fn tick(&mut self) {
        self.now = self.now + self.step;
        self.sim.advance_to(self.now);
        for (agent, node) in self.agents.iter_mut().zip(self.sim.nodes()) {
            if agent.runs && (node.state_at(self.now) == NodeState::Up) {
                agent.sample(self.now, node, self.step);
            }
            let can_speak =
                agent.runs && agent.linked && (node.state_at(self.now) == NodeState::Up);
            if let Some(line) = self.line.as_mut().filter(|_| can_speak) {
                agent.speak(self.now, node, line, &mut self.connections, self.step);
            } else if !(node.state_at(self.now) == NodeState::Up) {
                agent.hang_up(self.line.as_mut());
            }
        }
        if let Some(line) = &mut self.line {
            line.advance(self.now);
        }
        self.settle();
    }

    /// Decides, tells, and commits.
    fn settle(&mut self) {
        let Some(line) = &mut self.line else { return };
        for decision in line.take_effects().decisions {
            self.told.extend(decide(&self.store, decision, self.now));
        }
        let Some((flush, in_flight)) = line.take_flush(self.now, true) else {
            return;
        };
        let durable = now(self.store.commit(flush)).expect("committed");
        for stream in line.committed(in_flight, durable) {
            let progress = line.progress(stream).expect("a stream that spoke");
            if let Some(agent) = self.agents.iter_mut().find(|a| a.stream == stream) {
                agent.durable = progress
                    .durable
                    .iter()
                    .flat_map(|&(first, last)| first..=last)
                    .collect();
            }
        }
    }
}

fn decide(store: &MemoryStore, decision: Decision, at: Timestamp) -> Vec<Told> {
    now(store.decide(decision.clone())).expect("decided");
    let told = |notice: Notice| Told {
        at,
        event: notice.event,
        incident: notice.incident,
    };
    decision.notices.into_iter().map(told).collect()
}

/// The in-memory store answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// What the probe would make of a GPU.
fn reported(node: &SimNode, gpu: u32, depth: Depth) -> Values {
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

impl Agent {
    fn new(n: usize, node: &SimNode, start: Timestamp) -> Self {
        let mut stream = [0; 16];
        stream[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
        Self {
            stream: StreamId(stream),
            inventory: Inventory {
                generation: 1,
                gpus: node.gpus().to_vec(),
            },
            spool: Vec::new(),
            durable: BTreeSet::new(),
            sent: BTreeSet::new(),
            connection: None,
            holders: BTreeMap::new(),
            events_upto: start,
            runs: true,
            linked: true,
            clock_ms: 0,
        }
    }

    fn say(&mut self, body: Body) {
        let seq = self.spool.len() as u64 + 1;
        self.spool.push(Record { seq, body });
    }

    fn wall(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0 + self.clock_ms)
    }

    fn sample(&mut self, now: Timestamp, node: &SimNode, step: Duration) {
        let wall = self.wall(now);
        for gpu in 0..self.inventory.gpus.len() as u32 {
            let holder = node.holder(gpu).cloned();
            let job = holder.as_ref().map(|h| h.job.clone());
            if self.holders.get(&gpu) != Some(&job) {
                self.holders.insert(gpu, job);
                let uuid = self.inventory.gpus[gpu as usize].uuid.clone();
                self.say(Body::Holder(HolderChange {
                    at: wall,
                    gpu: uuid,
                    holder,
                }));
            }
        }
        for mut event in node.events_between(self.events_upto, now) {
            event.at = self.wall(event.at);
            self.say(Body::Event(event));
        }
        self.events_upto = now;
        let slow = now.as_millis() % 10_000 < step.as_millis() as i64;
        let depth = if slow { Depth::Full } else { Depth::Fast };
        let gpus = self.inventory.gpus.len() as u32;
        let rows = (0..gpus).map(|gpu| reported(node, gpu, depth)).collect();
        let tick = Tick {
            at: wall,
            monotonic_ms: now.as_millis() as u64,
        };
        self.say(Body::Batch(Batch {
            generation: 1,
            gpus,
            n_lost: 0,
            ticks: vec![tick],
            rows,
        }));
    }

    /// Connects if need be; then the newest, and some of the past.
    fn speak(
        &mut self,
        now: Timestamp,
        node: &SimNode,
        line: &mut Line,
        connections: &mut u64,
        step: Duration,
    ) {
        if self.connection.is_none() {
            *connections += 1;
            let connection = ConnectionId(*connections);
            let hello = self.hello(node, step);
            let bytes = encode_hello(&hello);
            if line.hello(now, connection, hello, bytes).is_err() {
                return;
            }
            self.connection = Some(connection);
            let progress = line.progress(self.stream).unwrap_or_default();
            self.durable = progress.durable.iter().flat_map(|&(a, b)| a..=b).collect();
            self.sent = self.durable.clone();
        }
        let unsent: Vec<u64> = (1..=self.spool.len() as u64)
            .filter(|s| !self.sent.contains(s))
            .collect();
        let newest = unsent.iter().rev().take(1);
        for seq in newest
            .chain(unsent.iter().take(CATCH_UP_PER_S))
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .rev()
        {
            let record = self.spool[seq as usize - 1].clone();
            let bytes = encode_record(&record);
            line.record(now, self.wall(now), self.stream, record, 0, bytes);
            self.sent.insert(seq);
        }
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
            next_seq: self.spool.len() as u64 + 1,
        }
    }

    fn hang_up(&mut self, line: Option<&mut Line>) {
        if let (Some(connection), Some(line)) = (self.connection.take(), line) {
            line.disconnected(self.stream, connection);
        }
        self.connection = None;
    }
}
