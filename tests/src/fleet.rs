//! A fleet and its aggregator, moved step by step in virtual time.

mod agent;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::metric::MetricId;
use entrenar::sim::{NodeState, SimConfig, SimFleet};
use entrenar::unit::Timestamp;
use entrenar_aggregator::andon::{CordKey, RuleBook, Severity};
use entrenar_aggregator::incident::{CloseReason, Decision, Incident, NoticeEvent};
use entrenar_aggregator::line::past::Past;
use entrenar_aggregator::line::replay::Replay;
use entrenar_aggregator::line::{ConnectionId, Line, LineConfig};
use entrenar_aggregator::notify::route::{Route, Routes};
use entrenar_aggregator::query::{self, Budget, Point, Question};
use entrenar_aggregator::store::memory::MemoryStore;
use entrenar_aggregator::store::{IncidentFilter, JournalPosition, JournalRow, Store};

use agent::Agent;

/// Journal rows read at once by a start.
const REPLAY_PAGE: usize = 64;

/// Ticks after a start at which the rest of the journal is read.
const PAST_READ_AFTER: u32 = 7;

/// A message to the one receiver, as the store has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub at: Timestamp,
    pub event: NoticeEvent,
    pub incident: Incident,
}

/// Where a process dies when it has just decided something. Deciding and committing are on their way at the same
/// time: either may be done without the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Neither the decision nor the samples that led to it are kept.
    NothingKept,
    /// The decision is, the samples are not.
    Decided,
    /// The samples are, the decision is not.
    Committed,
    /// Both are.
    AllKept,
}

/// A simulated fleet, its agents, and a line over a store in memory.
pub struct Fleet {
    sim: SimFleet,
    agents: Vec<Agent>,
    line: Option<Line>,
    /// Of the last start, and the ticks until it is read.
    past: Option<(Past, u32)>,
    store: Arc<MemoryStore>,
    config: LineConfig,
    now: Timestamp,
    step: Duration,
    connections: u64,
    is_jammed: bool,
    crash: Option<Crash>,
    /// What a crash has struck already: each step of each story once.
    struck: BTreeSet<(CordKey, String)>,
}

impl Fleet {
    /// A fleet by the built-in rules, and one receiver that takes warnings and worse.
    pub fn of(sim: &SimConfig) -> Self {
        Self::with_rules(sim, RuleBook::default())
    }

    /// The same by other rules.
    pub fn with_rules(sim: &SimConfig, rules: impl Into<RuleBook>) -> Self {
        let config = LineConfig {
            profile: entrenar_aggregator::chunk::Profile::Exact,
            cluster: "test".into(),
            rules: rules.into(),
            routes: Routes(vec![Route::to("on-call", Severity::Warning)]),
        };
        let sim = SimFleet::new(sim).expect("a fleet that can be");
        let now = sim.start();
        let agents = sim.nodes().iter().enumerate();
        let mut fleet = Self {
            agents: agents.map(|(n, node)| Agent::new(n, node, now)).collect(),
            sim,
            line: None,
            past: None,
            store: Arc::new(MemoryStore::default()),
            config,
            now,
            step: Duration::from_secs(1),
            connections: 0,
            is_jammed: false,
            crash: None,
            struck: BTreeSet::new(),
        };
        fleet.start_aggregator();
        fleet
    }

    /// Samples this often; time passes in the same steps.
    #[must_use]
    pub fn every(mut self, step: Duration) -> Self {
        self.step = step;
        self
    }

    /// From now on every decision of a new kind about a cord is met by a crash, and a start right after.
    pub fn crash_at_decisions(&mut self, crash: Crash) {
        self.crash = Some(crash);
    }

    /// How many crashes there were.
    pub fn n_crashes(&self) -> usize {
        self.struck.len()
    }

    /// The instant of virtual time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The aggregator, which must be running.
    pub fn line(&self) -> &Line {
        self.line.as_ref().expect("the aggregator runs")
    }

    /// What the store would be asked by others.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Every message to the receiver, oldest first.
    pub fn told(&self) -> Vec<Told> {
        let mut kept = now(self.store.notices(None, None, usize::MAX)).expect("read");
        kept.reverse();
        let told = kept.into_iter().map(|status| Told {
            at: status.notice.created_at,
            event: status.notice.event,
            incident: status.notice.incident,
        });
        told.collect()
    }

    /// The messages in one line: `27s trigger warning ThermalThrottling, 640s resolve …`.
    pub fn heard(&self) -> String {
        let start = self.sim.start();
        let line = |told: &Told| {
            let incident = &told.incident;
            format!(
                "{}s {} {} {}",
                told.at.since(start).as_secs(),
                told.event.name(),
                incident.severity.name(),
                incident.kind.name()
            )
        };
        let lines: Vec<String> = self.told().iter().map(line).collect();
        lines.join(", ")
    }

    /// Every incident there ever was, oldest first.
    pub fn incidents(&self) -> Vec<Incident> {
        let all = IncidentFilter {
            limit: usize::MAX,
            ..IncidentFilter::default()
        };
        let mut found = now(self.store.incidents(all)).expect("read");
        found.reverse();
        found
    }

    /// Points of one metric as a reader of the API gets them: from head and store together.
    pub fn series(&self, gpu: &GpuUuid, metric: MetricId) -> Vec<Point> {
        let question = Question {
            gpu: gpu.clone(),
            metric,
            from: Timestamp(0),
            to: Timestamp(i64::MAX / 2),
        };
        let head = self.line().recent(&question);
        let mut budget = Budget::default();
        now(query::series(&*self.store, &question, head, &mut budget)).expect("read")
    }

    /// Points of one metric as its agent sampled them.
    pub fn sampled(&self, gpu: &GpuUuid, metric: MetricId) -> Vec<Point> {
        let mut of_agents = self.agents.iter().filter_map(|a| a.sampled(gpu, metric));
        of_agents.next().expect("a GPU of the fleet")
    }

    /// UUIDs of all GPUs, by node and index.
    pub fn gpus(&self) -> Vec<GpuUuid> {
        let infos = self
            .sim
            .nodes()
            .iter()
            .flat_map(entrenar::sim::SimNode::gpus);
        infos.map(|info| info.uuid.clone()).collect()
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    /// A person closes whatever is open; how many that were.
    pub fn close_all(&mut self, note: &str) -> usize {
        let line = self.line.as_mut().expect("the aggregator runs");
        let open = line.open_incidents();
        for incident in &open {
            let note = Some(note.to_owned());
            let word = line.close(&incident.id, CloseReason::Other, "alice", note, self.now);
            now(self.store.decide(word.expect("it is open"))).expect("decided");
        }
        open.len()
    }

    /// Cuts or mends the network of some agents, numbered from 0.
    pub fn link(&mut self, up: bool, which: impl Fn(usize) -> bool) {
        for n in self.those(which) {
            self.agents[n].is_linked = up;
            if !up {
                self.agents[n].hang_up(self.line.as_mut());
            }
        }
    }

    /// Lets what agents say wait before the aggregator, as when it lacks CPU; or no longer.
    pub fn jam(&mut self, on: bool) {
        self.is_jammed = on;
    }

    /// Starts some nodes, or takes their power: a dead one neither samples nor says goodbye.
    pub fn power(&mut self, on: bool, which: impl Fn(usize) -> bool) {
        for n in self.those(which) {
            self.agents[n].is_on = on;
            if !on {
                self.agents[n].hang_up(self.line.as_mut());
            }
        }
    }

    /// Stops some agents in good order.
    pub fn goodbye(&mut self, which: impl Fn(usize) -> bool) {
        for n in self.those(which) {
            let agent = &mut self.agents[n];
            if let Some(line) = &mut self.line {
                line.goodbye(self.now, agent.stream);
            }
            agent.is_on = false;
            agent.hang_up(self.line.as_mut());
        }
        self.settle();
    }

    /// Sets the clocks of some agents wrong.
    pub fn clock(&mut self, off_by_ms: i64, which: impl Fn(usize) -> bool) {
        for n in self.those(which) {
            self.agents[n].clock_ms = off_by_ms;
        }
    }

    fn those(&self, which: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.agents.len()).filter(|n| which(*n)).collect()
    }

    /// The aggregator dies as by kill -9: what is not kept is gone, and all connections break.
    pub fn kill_aggregator(&mut self) {
        self.line = None;
        self.past = None;
        for agent in &mut self.agents {
            agent.hang_up(None);
        }
    }

    /// It comes back from what the store remembers.
    pub fn start_aggregator(&mut self) {
        let recovered = now(self.store.recover()).expect("recovered");
        let (mut line, past) = Line::recover_split(self.config.clone(), recovered, self.now);
        let after = past.as_ref().map_or(JournalPosition(0), |past| past.upto);
        for (position, entries) in self.journal_after(after) {
            line.replay(Replay::of(position, entries));
        }
        line.start(self.now);
        self.line = Some(line);
        self.past = past.map(|past| (past, PAST_READ_AFTER));
        self.settle();
    }

    fn journal_after(&self, mut after: JournalPosition) -> Vec<JournalRow> {
        let mut all = Vec::new();
        loop {
            let rows = now(self.store.journal(after, REPLAY_PAGE)).expect("read");
            let Some((last, _)) = rows.last() else {
                return all;
            };
            after = *last;
            all.extend(rows);
        }
    }

    /// What the snapshot covers is read some ticks after a start, while agents speak already.
    fn read_past(&mut self) {
        let Some((mut past, ticks_left)) = self.past.take() else {
            return;
        };
        if ticks_left > 0 {
            self.past = Some((past, ticks_left - 1));
            return;
        }
        for (position, entries) in self.journal_after(JournalPosition(0)) {
            past.replay(Replay::of(position, entries));
        }
        if let Some(line) = &mut self.line {
            line.absorb(past.into_head());
        }
    }

    fn tick(&mut self) {
        self.now = self.now + self.step;
        self.sim.advance_to(self.now);
        for n in 0..self.agents.len() {
            self.tick_agent(n);
        }
        self.read_past();
        if let Some(line) = &mut self.line {
            line.advance(self.now, self.is_jammed);
        }
        self.settle();
    }

    fn tick_agent(&mut self, n: usize) {
        let (agent, node) = (&mut self.agents[n], &self.sim.nodes()[n]);
        let runs = agent.runs(node, self.now);
        if runs {
            agent.sample(self.now, node, self.step);
        }
        let Some(line) = &mut self.line else { return };
        if !runs {
            if agent.connection.is_some() && node.state_at(self.now) == NodeState::Stopped {
                line.goodbye(self.now, agent.stream);
            }
            return agent.hang_up(Some(line));
        }
        if !agent.is_linked || self.is_jammed {
            return;
        }
        if agent.connection.is_none() {
            self.connections += 1;
            let connection = ConnectionId(self.connections);
            agent
                .connect(self.now, node, self.step, connection, line)
                .expect("its name is its own");
        }
        agent.speak(self.now, line);
    }

    /// Lets what was found be decided, and what was taken in be kept; or dies on the way.
    fn settle(&mut self) {
        let Some(line) = &mut self.line else { return };
        let decisions = line.take_effects().decisions;
        let crash = self.crash.filter(|_| self.is_struck(&decisions));
        if matches!(crash, None | Some(Crash::Decided | Crash::AllKept)) {
            for decision in decisions {
                now(self.store.decide(decision)).expect("decided");
            }
        }
        if matches!(crash, None | Some(Crash::Committed | Crash::AllKept)) {
            self.commit(crash.is_none());
        }
        if crash.is_some() {
            self.kill_aggregator();
            self.start_aggregator();
        }
    }

    /// Whether this is the first decision of its kind about a cord.
    fn is_struck(&mut self, decisions: &[Decision]) -> bool {
        let mut is_new = false;
        for decision in decisions {
            for (cord, _) in &decision.cords {
                for (_, line) in &decision.timeline {
                    is_new |= self.struck.insert((cord.clone(), line.what.clone()));
                }
            }
        }
        is_new
    }

    fn commit(&mut self, all_decided: bool) {
        let Some(line) = &mut self.line else { return };
        let Some((flush, in_flight)) = line.take_flush(self.now, all_decided) else {
            return;
        };
        let durable = now(self.store.commit(flush)).expect("committed");
        let further = line.committed(in_flight, durable);
        for agent in &mut self.agents {
            if agent.connection.is_some() && further.contains(&agent.stream) {
                agent.listen(line);
            }
        }
    }
}

/// What a future gives at once: the store in memory never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the store in memory answers at once"),
    }
}
