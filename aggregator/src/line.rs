//! Admission, head, engine and incidents, joined: one pure thing that is told the time.
//!
//! Everything that an agent says passes here once, in order of arrival, and so does the replay of the journal after a
//! restart: the same code, so the same result. What must then happen in the world leaves as [`Effects`].

pub mod driver;
pub mod handle;
pub mod instant;
pub mod keep;
mod lag;
mod look;
pub(crate) mod offset;
pub mod past;
pub mod replay;
mod seat;
mod stream;
pub mod view;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use entrenar::gpu::NodeId;
use entrenar::report::{Batch, Body, Hello, HolderChange, Record, StreamId};
use entrenar::unit::Timestamp;

use crate::andon::{Engine, RuleBook};
use crate::chunk::Profile;
use crate::head::{Arrival, Group, Head, Pushed};
use crate::incident::book::{BookError, IncidentBook};
use crate::incident::{CloseReason, Decision, Incident};
use crate::notify::route::Routes;
use crate::status::Counts;
use crate::store::{JournalEntry, JournalPosition, NodeEvent};

pub use lag::Lag;
pub use seat::Seated;
pub use stream::ConnectionId;
use stream::{Admission, Stream};

/// An agent's clock may be read a little after the message was stamped.
const FUTURE_TOLERANCE: Duration = Duration::from_millis(500);

/// How the line is set up.
#[derive(Clone, Debug)]
pub struct LineConfig {
    pub cluster: String,
    pub rules: RuleBook,
    pub routes: Routes,
    /// How exactly history is kept.
    pub profile: Profile,
}

/// What must happen in the world because of what was taken in.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be decided, in this order.
    pub decisions: Vec<Decision>,
    /// Nodes with a new tick.
    pub sampled: Vec<NodeId>,
}

/// Why an agent was turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloRefused {
    #[error(
        "the node name {node:?} is in use by another agent that is connected: give each agent its own --node \
         (or remove the copied spool directory)"
    )]
    NameTaken { node: NodeId },
}

/// The whole state of the centre, without its edges.
pub struct Line {
    config: LineConfig,
    streams: HashMap<StreamId, Stream>,
    /// Which stream speaks for a node; the newest, where an agent lost its spool.
    nodes: BTreeMap<NodeId, StreamId>,
    head: Head,
    engine: Engine,
    book: IncidentBook,
    counts: Counts,
    effects: Effects,
    /// Not journalled yet.
    pending: Vec<JournalEntry>,
    pending_bytes: usize,
    pending_holders: Vec<HolderChange>,
    /// The latest of them, committed or not.
    recent_holders: VecDeque<HolderChange>,
    pending_events: Vec<NodeEvent>,
    /// The latest of them, committed or not.
    recent_events: VecDeque<NodeEvent>,
    /// The group commit that `pending` will be.
    group: Group,
    /// The journal up to the engine's snapshot is still being read.
    awaits_past: bool,
    forgotten: JournalPosition,
    /// The row up to which marks and a snapshot are kept, and when they were.
    last_snapshot: Option<(JournalPosition, Timestamp)>,
    advanced_to: Timestamp,
    lag: Lag,
}

impl Line {
    pub fn new(config: LineConfig) -> Self {
        Self {
            streams: HashMap::new(),
            nodes: BTreeMap::new(),
            head: Head::new(config.profile),
            engine: Engine::new(config.rules.clone(), &config.cluster),
            book: IncidentBook::new(&config.cluster, config.routes.clone()),
            counts: Counts::default(),
            effects: Effects::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            pending_holders: Vec::new(),
            recent_holders: VecDeque::new(),
            pending_events: Vec::new(),
            recent_events: VecDeque::new(),
            group: Group(1),
            awaits_past: false,
            forgotten: JournalPosition(0),
            last_snapshot: None,
            advanced_to: Timestamp(0),
            lag: Lag::default(),
            config,
        }
    }

    /// What has to happen because of what was taken in since the last call.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// An agent introduces itself, on a new connection.
    pub fn hello(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        hello: Hello,
        bytes: Vec<u8>,
    ) -> Result<(), HelloRefused> {
        let holder = self
            .nodes
            .get(&hello.node)
            .filter(|id| **id != hello.stream);
        if holder
            .and_then(|id| self.streams.get(id))
            .is_some_and(|s| s.connection.is_some())
        {
            self.counts.refused_hellos += 1;
            return Err(HelloRefused::NameTaken { node: hello.node });
        }
        let stream = hello.stream;
        self.journal(JournalEntry::Hello {
            received_at: now,
            stream,
            bytes,
        });
        self.introduce(now, hello, true);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.connection = Some(connection);
        }
        self.settle(now);
        Ok(())
    }

    /// The part of a hello that a replay does too.
    fn introduce(&mut self, now: Timestamp, hello: Hello, evaluate: bool) {
        let id = hello.stream;
        let stream = match self.streams.remove(&id) {
            Some(mut known) => {
                self.counts.missing_records += known.renew(hello, now);
                known
            }
            None => Stream::new(hello, now),
        };
        let node = stream.hello.node.clone();
        if let Some(older) = self
            .nodes
            .insert(node.clone(), id)
            .filter(|older| *older != id)
        {
            self.streams.remove(&older);
        }
        if evaluate {
            let inventory = stream.present();
            self.engine.hello(
                now,
                &node,
                &stream.hello.labels,
                &inventory,
                stream.hello.interval_ms,
            );
        }
        self.streams.insert(id, stream);
    }

    /// A record arrives; `bytes` is what it was decoded from. Returns false when it was not taken and must be sent
    /// again.
    pub fn record(
        &mut self,
        now: Timestamp,
        sent_at: Timestamp,
        stream: StreamId,
        record: Record,
        n_unknown: u32,
        bytes: Vec<u8>,
    ) -> bool {
        let Some(known) = self.streams.get_mut(&stream) else {
            return false;
        };
        known.last_received_at = now;
        let newest = known.received.last();
        match known.admit(record.seq) {
            Admission::New => {}
            Admission::Repeat => {
                self.counts.duplicate_records += 1;
                return true;
            }
            Admission::Later => return false,
        }
        self.counts.records += 1;
        self.counts.unknown_metric_values += u64::from(n_unknown);
        let in_order = newest.is_none_or(|newest| record.seq > newest);
        self.journal(JournalEntry::Record {
            received_at: now,
            sent_at,
            stream,
            bytes,
        });
        self.take_in(now, sent_at, stream, record.body, in_order, true);
        self.settle(now);
        true
    }

    /// A record that can't be read: counted, and its number settled, so that it is not sent for ever.
    pub fn malformed(&mut self, now: Timestamp, stream: StreamId, seq: Option<u64>) {
        self.counts.malformed_records += 1;
        if let (Some(stream), Some(seq)) = (self.streams.get_mut(&stream), seq) {
            stream.last_received_at = now;
            stream.admit(seq);
        }
    }

    /// An agent leaves in good order.
    pub fn goodbye(&mut self, now: Timestamp, stream: StreamId) {
        self.journal(JournalEntry::Goodbye {
            received_at: now,
            stream,
        });
        self.leave(now, stream, true);
        self.settle(now);
    }

    fn leave(&mut self, now: Timestamp, stream: StreamId, evaluate: bool) {
        let Some(stream) = self.streams.get_mut(&stream) else {
            return;
        };
        stream.gone = true;
        stream.dirty = true;
        if evaluate {
            self.engine.goodbye(now, &stream.hello.node);
        }
    }

    /// A connection ended. Whether its node is lost is for the engine to say, later.
    /// False when the agent speaks over another connection by now.
    pub fn disconnected(&mut self, stream: StreamId, connection: ConnectionId) -> bool {
        let current = self
            .streams
            .get_mut(&stream)
            .filter(|s| s.connection == Some(connection));
        current.map(|stream| stream.connection = None).is_some()
    }

    /// Moves the engine's clock: to `now`, or, while what agents have said still waits, to where it was taken in. So
    /// nobody looks silent whose words nobody has read yet.
    pub fn advance(&mut self, now: Timestamp, others_wait: bool) {
        let to = self.lag.engine_time(now, others_wait);
        self.engine.set_effort(self.lag.effort());
        self.journal(JournalEntry::Advance { to });
        self.move_to(to);
        self.settle(to);
    }

    /// What is taken in now was received then.
    pub fn took(&mut self, received_at: Timestamp) {
        self.lag.took(received_at);
    }

    /// How far the engine is behind.
    pub fn lag(&self) -> &Lag {
        &self.lag
    }

    fn move_to(&mut self, now: Timestamp) {
        self.engine.advance(now);
        self.advanced_to = self.advanced_to.max(now);
    }

    /// A person takes an incident on.
    pub fn acknowledge(
        &mut self,
        id: &str,
        who: &str,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<Decision, BookError> {
        self.book.acknowledge(id, who, note, now)
    }

    /// A person closes an incident.
    pub fn close(
        &mut self,
        id: &str,
        reason: CloseReason,
        who: &str,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<Decision, BookError> {
        self.book.close(id, reason, note, who, now)
    }

    /// Incidents that are open.
    pub fn open_incidents(&self) -> Vec<Incident> {
        self.book.open().cloned().collect()
    }

    /// Incidents that are open, without those of rules that are on trial.
    pub fn told_incidents(&self) -> Vec<Incident> {
        let told = self.book.open().filter(|incident| !incident.flags.shadow);
        told.cloned().collect()
    }

    /// The rules that hold.
    pub fn rules(&self) -> &RuleBook {
        self.engine.rules()
    }

    /// Other rules hold from now on; what they no longer watch for is over.
    pub fn set_rules(&mut self, now: Timestamp, rules: RuleBook) {
        self.config.rules = rules.clone();
        self.engine.set_rules(now, rules);
        self.settle(now);
    }

    /// What was counted since the start.
    pub fn counts(&self) -> Counts {
        Counts {
            nodes: self.nodes.len() as u64,
            gpus: self
                .streams
                .values()
                .map(|s| s.present().gpus.len() as u64)
                .sum(),
            andon_lag_ms: self.lag.behind().as_millis() as u64,
            andon_shed: self.lag.shed(),
            ..self.counts
        }
    }

    fn take_in(
        &mut self,
        now: Timestamp,
        sent_at: Timestamp,
        id: StreamId,
        body: Body,
        in_order: bool,
        evaluate: bool,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.clock.observe(now, sent_at);
        let correction = Duration::from_millis(stream.clock.correction_ms().unsigned_abs());
        let ahead = stream.clock.correction_ms() < 0;
        let correct = |at: Timestamp| {
            if ahead {
                at - correction
            } else {
                at + correction
            }
        };
        let node = stream.hello.node.clone();
        if evaluate && let Some(ms) = stream.clock.offset_ms() {
            self.engine.clock_offset(now, &node, ms);
        }
        match body {
            Body::Batch(batch) => {
                self.batch(now, sent_at, id, &node, &batch, correct, in_order, evaluate);
            }
            Body::Inventory(inventory) => {
                stream.learn(inventory.clone());
                if evaluate && in_order {
                    self.engine.inventory(now, &node, &inventory);
                }
            }
            Body::Event(mut event) => {
                event.at = correct(event.at);
                if evaluate {
                    self.engine.event(now, &node, &event);
                }
                self.note_event(NodeEvent { node, event });
            }
            Body::Holder(mut change) => {
                change.at = correct(change.at);
                if evaluate {
                    self.engine.holder(now, &node, &change);
                }
                self.note_holder(change.clone());
                self.pending_holders.push(change);
            }
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the facts of one message, taken apart once"
    )]
    fn batch(
        &mut self,
        now: Timestamp,
        sent_at: Timestamp,
        stream: StreamId,
        node: &NodeId,
        batch: &Batch,
        correct: impl Fn(Timestamp) -> Timestamp,
        in_order: bool,
        evaluate: bool,
    ) {
        self.counts.lost_ticks += batch.n_lost;
        if evaluate && batch.n_lost > 0 {
            self.engine.lost_history(now, node, batch.n_lost);
        }
        let Some(stream) = self.streams.get(&stream) else {
            return;
        };
        let Some(inventory) = stream
            .inventory(batch.generation)
            .filter(|i| i.gpus.len() == batch.gpus as usize)
        else {
            self.counts.malformed_records += 1;
            return;
        };
        let interval = Duration::from_millis(u64::from(stream.hello.interval_ms));
        for (n, tick) in batch.ticks.iter().enumerate() {
            if tick.at > sent_at + FUTURE_TOLERANCE {
                self.counts.future_ticks += 1;
                continue;
            }
            let at = correct(tick.at);
            let rows = batch.tick_rows(n);
            for (gpu, values) in inventory
                .gpus
                .iter()
                .zip(rows)
                .filter(|(_, v)| !v.is_empty())
            {
                self.counts.samples += values.iter().count() as u64;
                let arrival = Arrival {
                    at,
                    received_at: now,
                    group: self.group,
                    interval,
                };
                if self.head.push(&gpu.uuid, arrival, values) == Pushed::Duplicate {
                    self.counts.duplicate_samples += 1;
                }
            }
            if evaluate {
                self.engine.observe(now, node, at, in_order, rows);
            }
        }
        if in_order {
            self.effects.sampled.push(node.clone());
        }
    }

    /// Lets what the engine found become decisions.
    fn settle(&mut self, now: Timestamp) {
        for transition in self.engine.drain() {
            self.counts.transitions += 1;
            if let Some(decision) = self.book.apply(&transition, now) {
                self.effects.decisions.push(decision);
            }
        }
    }

    fn journal(&mut self, entry: JournalEntry) {
        self.pending_bytes += match &entry {
            JournalEntry::Hello { bytes, .. } | JournalEntry::Record { bytes, .. } => {
                bytes.len() + 32
            }
            _ => 16,
        };
        self.pending.push(entry);
    }
}
