//! Tells a trace to the engine: what the live line would have heard, in the same order. *(pure)*

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use entrenar::gpu::NodeId;
use entrenar::report::{GpuEvent, GpuEventKind, HolderChange};
use entrenar::trace::{Block, Entry, TextId, TextList, TraceEvent};
use entrenar::unit::Timestamp;

use super::Outcome;
use super::clock::{FleetClock, Heard};
use super::node::{NodeState, Placed, Seat, Tick, holder};
use super::report::Reports;
use crate::andon::{Engine, RuleBook};

/// Rows that may wait until it is decided how late it is; beyond, it is decided with what was said.
const MOST_HELD: usize = 65_536;
/// The engine's clock is moved at least so often.
const STEP_MS: i64 = 1000;
/// An offset of a clock below this is not worth a word.
const WORTH_A_WORD_MS: i64 = 1000;

/// What was read of a trace.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Rows of GPUs.
    pub gpu_rows: u64,
    /// Rows of nodes.
    pub node_rows: u64,
    /// Ticks that were told to the engine.
    pub ticks: u64,
    /// Ticks older than what their node had said before: history, of which nothing is raised.
    pub late_ticks: u64,
    /// GPU rows that were there already.
    pub repeated_rows: u64,
    /// GPU rows of a node with too many GPUs.
    pub left_out_rows: u64,
    pub nodes: u64,
    pub gpus: u64,
    /// Samples times the interval of their node.
    pub gpu_seconds: f64,
    /// The fleet's clock at the first row and at the last.
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// Node events that the engine has no use for yet.
    pub untold_events: u64,
}

/// A trace on its way.
pub(super) struct Feed {
    engine: Engine,
    texts: TextList,
    clock: FleetClock,
    nodes: Vec<NodeState>,
    /// By the number of the name.
    by_name: HashMap<TextId, usize>,
    /// The node of the latest row.
    latest: Option<(TextId, usize)>,
    /// Nodes with open ticks.
    open: Vec<usize>,
    held: VecDeque<(Entry, Vec<u64>)>,
    /// How many GPUs each job holds.
    jobs: HashMap<TextId, usize>,
    reports: Reports,
    figures: Figures,
    at: Option<Timestamp>,
}

impl Feed {
    pub(super) fn new(rules: RuleBook) -> Self {
        Self {
            engine: Engine::new(rules, "backtest"),
            texts: TextList::default(),
            clock: FleetClock::default(),
            nodes: Vec::new(),
            by_name: HashMap::new(),
            latest: None,
            open: Vec::new(),
            held: VecDeque::new(),
            jobs: HashMap::new(),
            reports: Reports::default(),
            figures: Figures::default(),
            at: None,
        }
    }

    pub(super) fn take(&mut self, block: &mut Block) {
        self.texts.extend(block);
        let mut entries = std::mem::take(&mut block.entries);
        for entry in &mut entries {
            self.hear(entry, block.xids(entry));
        }
        block.entries = entries;
    }

    /// A row, in order of arrival.
    fn hear(&mut self, entry: &mut Entry, xids: &[u64]) {
        let speaker = self.node_of(entry.node);
        match self
            .clock
            .hear(speaker, entry.gpu, entry.time, entry.arrived)
        {
            Heard::At(now) => self.take_row(now, speaker, entry, xids),
            Heard::Wait => {
                self.held.push_back((std::mem::take(entry), xids.to_vec()));
                if self.held.len() >= MOST_HELD {
                    self.clock.decide();
                    self.hear_held();
                }
            }
            Heard::Decided => {
                self.held.push_back((std::mem::take(entry), xids.to_vec()));
                self.hear_held();
            }
        }
    }

    fn hear_held(&mut self) {
        for (mut entry, xids) in std::mem::take(&mut self.held) {
            self.hear(&mut entry, &xids);
        }
    }

    pub(super) fn finish(mut self) -> Outcome {
        while !self.held.is_empty() {
            self.clock.decide();
            self.hear_held();
        }
        for node in std::mem::take(&mut self.open) {
            let ticks = self.nodes[node].take_all();
            self.tell_ticks(node, ticks);
        }
        if let Some(end) = self.at {
            self.advance(end);
        }
        self.figures.nodes = self.nodes.len() as u64;
        self.figures.gpus = self.nodes.iter().map(|node| node.slots.len() as u64).sum();
        self.figures.last = self.at;
        Outcome {
            incidents: self.reports.into_incidents(),
            figures: self.figures,
        }
    }

    fn node_of(&mut self, name: TextId) -> usize {
        if let Some((latest, node)) = self.latest
            && latest == name
        {
            return node;
        }
        let next = self.nodes.len();
        let node = *self.by_name.entry(name).or_insert(next);
        if node == next {
            let id = NodeId(Arc::clone(self.texts.get(name)));
            self.nodes
                .push(NodeState::new(id, self.clock.usual_interval_ms()));
        }
        self.latest = Some((name, node));
        node
    }

    fn take_row(&mut self, now: Timestamp, node: usize, entry: &mut Entry, xids: &[u64]) {
        self.move_to(now);
        if !self.nodes[node].is_met && self.nodes[node].slots.is_empty() {
            // It may have waited for the clock while its interval was found.
            let usual = self.clock.usual_interval_ms();
            self.nodes[node].take_usual_interval(usual);
        }
        let moved = self.nodes[node].take_places(entry, &self.texts);
        let otherwise = self.nodes[node].take_interval(entry.interval);
        if (moved || otherwise) && self.nodes[node].is_met {
            self.introduce(now, node, None);
        }
        match entry.gpu {
            None => {
                self.figures.node_rows += 1;
                self.tell_all_ticks(node);
                self.tell_xids(now, node, entry.time, None, xids);
                if let Some(event) = entry.event {
                    self.tell_event(now, node, event);
                }
            }
            Some(index) => {
                self.figures.gpu_rows += 1;
                self.take_gpu(now, node, index, entry, xids);
            }
        }
    }

    fn take_gpu(
        &mut self,
        now: Timestamp,
        node: usize,
        index: u32,
        entry: &mut Entry,
        xids: &[u64],
    ) {
        let mut seat = self.nodes[node].seat(entry, index, &self.texts);
        if seat == Seat::Changed {
            self.tell_all_ticks(node);
            self.nodes[node].reseat(entry, index, &self.texts);
            seat = self.nodes[node].seat(entry, index, &self.texts);
        }
        let Seat::Slot(slot) = seat else {
            self.figures.left_out_rows += 1;
            return;
        };
        let suspended = entry.event == Some(TraceEvent::JobSuspended);
        let state = &mut self.nodes[node];
        if !state.has_open() {
            self.open.push(node);
        } else if state.is_crowded() {
            self.tell_all_ticks(node);
            self.open.push(node);
        }
        let state = &mut self.nodes[node];
        match state.place(now, slot, entry, xids, suspended) {
            Placed::Waits => {}
            Placed::Repeat => self.figures.repeated_rows += 1,
            Placed::Whole => {
                let ticks = state.take_whole();
                self.tell_ticks(node, ticks);
            }
        }
        if !self.nodes[node].has_open() {
            self.open.retain(|other| *other != node);
        }
    }

    /// The fleet's clock moves.
    fn move_to(&mut self, now: Timestamp) {
        self.figures.first.get_or_insert(now);
        let from = *self.at.get_or_insert(now);
        if now <= from {
            return;
        }
        for node in std::mem::take(&mut self.open) {
            let ticks = self.nodes[node].take_stale(now);
            self.tell_ticks(node, ticks);
            if self.nodes[node].has_open() {
                self.open.push(node);
            }
        }
        self.advance(from);
        // A longer step is a hole in the trace: nobody watched, and nobody was late.
        if now.0 - from.0 <= self.clock.most_move_ms() {
            let mut at = Timestamp((from.0 / STEP_MS + 1) * STEP_MS);
            while at < now {
                self.advance(at);
                at = Timestamp(at.0 + STEP_MS);
            }
        }
        self.at = Some(now);
    }

    fn advance(&mut self, now: Timestamp) {
        self.engine.advance(now);
        self.listen(now);
    }

    /// What the engine has to say becomes reports.
    fn listen(&mut self, now: Timestamp) {
        for transition in self.engine.drain() {
            let (jobs, texts) = (&self.jobs, &self.texts);
            let holds = |name: &str| {
                let known = jobs.iter().find(|(job, _)| &**texts.get(**job) == name);
                known.map(|(_, gpus)| *gpus)
            };
            self.reports.take(now, transition, holds);
        }
    }

    fn tell_all_ticks(&mut self, node: usize) {
        let ticks = self.nodes[node].take_all();
        if !ticks.is_empty() {
            self.open.retain(|other| *other != node);
        }
        self.tell_ticks(node, ticks);
    }

    fn tell_ticks(&mut self, node: usize, ticks: Vec<Tick>) {
        for tick in ticks {
            self.tell_tick(node, tick);
        }
    }

    fn tell_tick(&mut self, node: usize, tick: Tick) {
        let now = tick.now;
        let at = self.clock.corrected(node, tick.time);
        let state = &mut self.nodes[node];
        let in_order = state.last_at.is_none_or(|last| last < at);
        let is_other_interval = in_order && state.note_step(tick.time);
        if !state.is_met || is_other_interval {
            self.introduce(now, node, Some(&tick));
        } else if state.is_news {
            let inventory = state.inventory(Some(&tick));
            self.engine.inventory(now, &state.id, &inventory);
            state.is_news = false;
        }
        self.tell_offset(now, node);
        if in_order {
            self.nodes[node].last_at = Some(at);
            self.tell_holders(now, node, at, &tick);
        } else {
            self.figures.late_ticks += 1;
        }
        for (slot, aside) in tick.asides.iter().enumerate() {
            if !aside.xids.is_empty() {
                self.tell_xids(now, node, tick.time, Some(slot), &aside.xids);
            }
        }
        let state = &mut self.nodes[node];
        self.engine
            .observe(now, &state.id, at, in_order, &tick.values);
        let samples = tick.asides.iter().filter(|aside| aside.is_there).count();
        self.figures.gpu_seconds += samples as f64 * state.interval().as_secs_f64();
        self.figures.ticks += 1;
        state.put_back(tick);
        self.listen(now);
    }

    /// The node says hello: for the first time, after a goodbye, or because what it says of itself has changed.
    fn introduce(&mut self, now: Timestamp, node: usize, tick: Option<&Tick>) {
        let state = &mut self.nodes[node];
        let inventory = state.inventory(tick);
        let interval_ms = state.interval_ms();
        self.clock.note_interval(interval_ms);
        self.engine.hello(
            now,
            &state.id,
            &state.labels,
            &inventory,
            interval_ms as u32,
        );
        (state.is_met, state.is_news) = (true, false);
        self.listen(now);
    }

    /// How far the node's clock is off, where that is worth a word.
    fn tell_offset(&mut self, now: Timestamp, node: usize) {
        let offset_ms = self.clock.offset_ms(node).unwrap_or(0);
        let state = &mut self.nodes[node];
        let is_off = offset_ms.abs() >= WORTH_A_WORD_MS;
        if is_off || state.is_off {
            self.engine.clock_offset(now, &state.id, offset_ms);
        }
        state.is_off = is_off;
    }

    fn tell_holders(&mut self, now: Timestamp, node: usize, at: Timestamp, tick: &Tick) {
        let state = &mut self.nodes[node];
        for (slot, aside) in state.slots.iter_mut().zip(&tick.asides) {
            if !aside.is_there {
                continue;
            }
            if aside.is_suspended != slot.is_suspended && aside.hold == slot.hold {
                slot.is_suspended = aside.is_suspended;
                self.engine.suspended(now, &slot.uuid, slot.is_suspended);
            }
            if aside.hold == slot.hold {
                continue;
            }
            let change = HolderChange {
                at,
                gpu: slot.uuid.clone(),
                holder: holder(aside.hold, &self.texts),
            };
            if let Some(gpus) = self.jobs.get_mut(&slot.hold.0) {
                *gpus = gpus.saturating_sub(1);
            }
            if aside.hold.0.is_some() {
                *self.jobs.entry(aside.hold.0).or_default() += 1;
            }
            slot.hold = aside.hold;
            self.engine.holder(now, &state.id, &change);
            slot.is_suspended = aside.is_suspended;
            if slot.is_suspended {
                self.engine.suspended(now, &slot.uuid, true);
            }
        }
    }

    fn tell_xids(
        &mut self,
        now: Timestamp,
        node: usize,
        time: Timestamp,
        slot: Option<usize>,
        xids: &[u64],
    ) {
        let at = self.clock.corrected(node, time);
        let state = &self.nodes[node];
        for code in xids {
            let event = GpuEvent {
                at,
                gpu: slot.map(|slot| state.slots[slot].uuid.clone()),
                what: GpuEventKind::Xid(*code),
            };
            self.engine.event(now, &state.id, &event);
        }
    }

    /// What a node's row says of it.
    fn tell_event(&mut self, now: Timestamp, node: usize, event: TraceEvent) {
        match event {
            TraceEvent::AgentStart => self.introduce(now, node, None),
            TraceEvent::Goodbye => {
                let state = &mut self.nodes[node];
                state.is_met = false;
                self.engine.goodbye(now, &state.id);
            }
            TraceEvent::MaintenanceStart | TraceEvent::MaintenanceEnd => {
                let on = event == TraceEvent::MaintenanceStart;
                self.engine.maintenance(now, &self.nodes[node].id, on);
            }
            // It belongs to a GPU's row.
            TraceEvent::JobSuspended => self.figures.untold_events += 1,
        }
        self.listen(now);
    }
}
