//! The way in: what is observed goes in, transitions come out. *(pure)*
//!
//! The engine reads no clock: `now` is the fleet's clock as its caller knows it, samples carry their own time. The same
//! calls give the same transitions, live, in a replay and in a backtest. What it must keep over a restart is its
//! [`Memory`]; everything else can be found again.

mod cooling;
mod events;
mod jobs;
mod resolve;
mod samples;
mod silence;
mod sweep;

use std::sync::Arc;

use entrenar::gpu::{GpuUuid, NodeId, Values};
use entrenar::report::{GpuEvent, Holder, HolderChange, Inventory, Labels};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::cooling::Cooling;
use super::custom::Medians;
use super::effort::Effort;
use super::fleet::{Fleet, JobView, Node};
use super::job::idle::job_state;
use super::job::infer::{Kin, is_of_job, scope_of};
use super::job::together::TogetherState;
use super::lost::Why;
use super::monitoring::{Blackout, clock_finding};
use super::register::{Links, Register, Report};
use super::rules::index::RuleIndex;
use super::rules::{Rule, RuleBook, RuleSet};
use super::snapshot::{self, SnapshotError};
use super::{
    Change, CordKey, Finding, GpuAt, Kind, Light, Presence, Resolution, RuleUid, Scope, Severity,
    Transition,
};

/// The Andon engine over the whole fleet.
pub struct Engine {
    /// Where no override says otherwise.
    rules: Arc<RuleSet>,
    index: RuleIndex,
    /// Of the present moment: a restart begins with all.
    effort: Effort,
    memory: Memory,
}

/// What the engine must know after a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    cluster: String,
    /// The latest that the fleet's clock was.
    now: Option<Timestamp>,
    /// Since when it watches without a break.
    started_at: Option<Timestamp>,
    swept_at: Option<Timestamp>,
    judged_at: Option<Timestamp>,
    /// Until when an outage of our own is told of.
    outage_until: Option<Timestamp>,
    fleet: Fleet,
    register: Register,
    blackout: Option<Blackout>,
    together: TogetherState,
    /// What the peers of GPUs do, for the rules of people.
    #[serde(default)]
    medians: Medians,
    /// Found again with every look.
    #[serde(skip)]
    kin: Kin,
    #[serde(default)]
    cooling: Cooling,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(rules: impl Into<RuleBook>, cluster: &str) -> Self {
        let memory = Memory {
            cluster: cluster.into(),
            ..Memory::default()
        };
        Self::with_memory(rules.into(), memory)
    }

    pub(super) fn with_memory(book: RuleBook, memory: Memory) -> Self {
        let mut engine = Self {
            rules: Arc::clone(book.base()),
            index: RuleIndex::new(book),
            effort: Effort::All,
            memory,
        };
        engine.memory.fleet.index();
        let at = engine.memory.now.unwrap_or_default();
        engine.resolve_all(at);
        engine
    }

    /// Everything that must survive a restart.
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::write(&self.memory)
    }

    /// The engine as it was when the snapshot was taken.
    pub fn restore(rules: impl Into<RuleBook>, bytes: &[u8]) -> Result<Self, SnapshotError> {
        snapshot::read(rules.into(), bytes)
    }

    /// The cluster that it watches.
    pub fn cluster(&self) -> &str {
        &self.memory.cluster
    }

    /// The rules by which it watches.
    pub fn rules(&self) -> &RuleBook {
        self.index.book()
    }

    /// Watching begins, after a start and its replay: agents have the start's grace to come back.
    pub fn resume(&mut self, now: Timestamp) {
        let last = *self.memory.now.get_or_insert(now);
        self.note_own_outage(now, last, true);
        self.begin(now);
    }

    /// A node of the stored inventory: it is expected to come.
    pub fn expect(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        labels: &Labels,
        inventory: &Inventory,
        interval_ms: u32,
    ) {
        self.start(now);
        self.meet(node, labels, interval_ms);
        self.take_inventory(now, node, inventory);
        self.resolve_node(now, node);
    }

    /// An agent introduced itself, for the first time or again.
    pub fn hello(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        labels: &Labels,
        inventory: &Inventory,
        interval_ms: u32,
    ) {
        self.start(now);
        self.meet(node, labels, interval_ms);
        if let Some(node) = self.memory.fleet.nodes.get_mut(node)
            && node.presence == Presence::Gone
        {
            node.presence = Presence::Live;
        }
        self.hear(now, node, false);
        self.take_inventory(now, node, inventory);
        self.resolve_node(now, node);
    }

    /// The GPUs of a node changed.
    pub fn inventory(&mut self, now: Timestamp, node: &NodeId, inventory: &Inventory) {
        self.hear(now, node, false);
        self.take_inventory(now, node, inventory);
        self.resolve_node(now, node);
    }

    /// An agent left in good order: its node is grey, not lost.
    pub fn goodbye(&mut self, now: Timestamp, node: &NodeId) {
        self.hear(now, node, false);
        self.bring_back(now, node);
        if let Some(node) = self.memory.fleet.nodes.get_mut(node) {
            node.presence = Presence::Gone;
        }
    }

    /// A tick of a node: a row per GPU in inventory order. `now`: the aggregator's clock at its arrival; `tick_at`: the
    /// agent's, already corrected where it is far off; `in_order`: false for late history, which raises nothing.
    pub fn observe(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        tick_at: Timestamp,
        in_order: bool,
        rows: &[Values],
    ) {
        self.hear(now, node, true);
        if in_order {
            self.look(now, node, tick_at, rows);
        }
    }

    /// A GPU, or its driver, reported something.
    pub fn event(&mut self, now: Timestamp, node: &NodeId, event: &GpuEvent) {
        self.hear(now, node, false);
        self.note_event(now, node, event);
    }

    /// A GPU was taken, given back, or changed hands.
    pub fn holder(&mut self, now: Timestamp, node: &NodeId, change: &HolderChange) {
        self.hear(now, node, false);
        let fleet = &mut self.memory.fleet;
        let left = fleet.job_of(&change.gpu).map(str::to_owned);
        fleet.take_holder(change.at.min(now), &change.gpu, change.holder.clone());
        self.end_jobs(now);
        if let Some(job) = left {
            self.resolve_job(now, &job);
        }
        self.resolve_gpu(now, &change.gpu);
    }

    /// People begin or end work on a node: meanwhile what is found there is a record and calls nobody. What is still
    /// up when they are done gets its weight back.
    pub fn maintenance(&mut self, now: Timestamp, id: &NodeId, on: bool) {
        self.start(now);
        let Memory {
            fleet, register, ..
        } = &mut self.memory;
        let Some(node) = fleet
            .nodes
            .get_mut(id)
            .filter(|node| node.maintenance != on)
        else {
            return;
        };
        node.maintenance = on;
        if on {
            return self.bring_back(now, id);
        }
        node.released_at = Some(now);
        register.unmute(now, |scope| !fleet.is_in_maintenance(scope));
    }

    /// The scheduler stops the job of a GPU, or lets it go on: what is stopped on purpose does not hang.
    pub fn suspended(&mut self, now: Timestamp, gpu: &GpuUuid, on: bool) {
        self.start(now);
        if let Some(gpu) = self.memory.fleet.gpu_mut(gpu) {
            gpu.suspend(on);
        }
    }

    /// How far a node's clock is off. Its samples are corrected by the caller.
    pub fn clock_offset(&mut self, now: Timestamp, node: &NodeId, offset_ms: i64) {
        let rules = self.rules_of_node(node);
        let rule = &rules.monitoring_fault;
        let limit_ms = rule.clock_offset.millis();
        let Some(state) = self.memory.fleet.nodes.get(node).filter(|_| rule.enabled) else {
            return;
        };
        let scope = Scope::Node { node: node.clone() };
        let key = cord(rule, &scope);
        let is_up = self.memory.register.is_up(&key);
        // Half the limit is fine again: an offset that dances on the line does not ring twice.
        if is_up && offset_ms.abs() * 2 <= limit_ms {
            self.memory.register.clear(&key, now, Resolution::Recovered);
        } else if !is_up && offset_ms.abs() > limit_ms {
            let finding = clock_finding(node, &state.labels, offset_ms, rule);
            self.raise(rule, scope, rule.clock_severity, (now, now), finding);
        }
    }

    /// Ticks of a node are gone for good.
    pub fn lost_history(&mut self, now: Timestamp, node: &NodeId, n_lost: u64) {
        if let Some(node) = self.memory.fleet.nodes.get_mut(node).filter(|_| n_lost > 0) {
            node.n_lost = node.n_lost.saturating_add(n_lost);
            node.lost_history_at = Some(now);
        }
    }

    /// How much of its work it does from now on.
    pub fn set_effort(&mut self, effort: Effort) {
        self.effort = effort;
    }

    /// Time passes: absence, holds that end, causes that have gone.
    pub fn advance(&mut self, now: Timestamp) {
        self.sweep(now);
    }

    /// What was decided since the last call.
    pub fn drain(&mut self) -> Vec<Transition> {
        self.memory.register.drain()
    }

    /// How a node stands with us; `None`: it is not known.
    pub fn presence(&self, node: &NodeId) -> Option<Presence> {
        Some(self.memory.fleet.nodes.get(node)?.presence)
    }

    /// The node on which a GPU is, or was when it was last listed.
    pub fn node_of(&self, gpu: &GpuUuid) -> Option<&NodeId> {
        self.memory.fleet.node_of(gpu)
    }

    /// A lamp that a GPU deserves without any incident.
    pub fn hint(&self, gpu: &GpuUuid) -> Option<Light> {
        let gpu = self.memory.fleet.gpu(gpu)?;
        let rules = self.index.set(gpu.rules);
        gpu.watches
            .thermal_throttling
            .is_warm(&rules.thermal_throttling)
            .then_some(Light::Yellow)
    }

    /// The jobs that hold GPUs, by name.
    pub fn jobs(&self) -> Vec<JobView> {
        let fleet = &self.memory.fleet;
        let view = |(name, job): (&String, &super::fleet::Job)| {
            let mut gpus: Vec<GpuAt> = fleet.members(job).map(|(_, gpu)| gpu.at.clone()).collect();
            gpus.sort();
            JobView {
                job: name.clone(),
                kind: job.kind,
                gpus,
                started_at: job.started_at,
                state: job_state(fleet, job),
            }
        };
        fleet.jobs.iter().map(view).collect()
    }

    /// Who holds a GPU; `None`: nobody, or not known.
    pub fn holder_of(&self, gpu: &GpuUuid) -> Option<&Holder> {
        self.memory.fleet.gpu(gpu)?.holder()
    }

    /// A node is taken out of the fleet: what was raised for it is over, and it is not expected any more.
    pub fn forget_node(&mut self, now: Timestamp, node: &NodeId) {
        self.bring_back(now, node);
        let gpus = self.memory.fleet.forget(node);
        self.memory.cooling.forget(node);
        let is_of_node = |_: &CordKey, scope: &Scope, _: Kind| match scope {
            Scope::Node { node: of } => of == node,
            Scope::Gpu { gpu } => gpus.iter().any(|gone| gone.uuid == gpu.uuid),
            Scope::Fleet | Scope::Job { .. } | Scope::Nodes { .. } => false,
        };
        self.clear_all(now, Resolution::Decommissioned, is_of_node);
        self.end_jobs(now);
    }

    /// Watches by other rules from now on. Cords keep their state; those of a rule that is switched off or gone are
    /// cleared.
    pub fn set_rules(&mut self, now: Timestamp, rules: impl Into<RuleBook>) {
        let book = rules.into();
        self.forget_changed(now, &book);
        self.rules = Arc::clone(book.base());
        self.index = RuleIndex::new(book);
        self.resolve_all(now);
    }

    /// The watch begins with the first word, and anew after a break.
    fn start(&mut self, now: Timestamp) {
        self.memory.started_at.get_or_insert(now);
        let last = *self.memory.now.get_or_insert(now);
        self.note_own_outage(now, last, false);
        self.memory.now = self.memory.now.max(Some(now));
    }

    /// When the watch began; only asked once it has.
    fn started_at(&self) -> Timestamp {
        self.memory.started_at.unwrap_or_default()
    }

    fn meet(&mut self, node: &NodeId, labels: &Labels, interval_ms: u32) {
        let nodes = &mut self.memory.fleet.nodes;
        match nodes.get_mut(node) {
            Some(known) => {
                known.labels.clone_from(labels);
                known.interval_ms = i64::from(interval_ms.max(1));
            }
            None => {
                nodes.insert(node.clone(), Node::new(labels.clone(), interval_ms));
            }
        }
    }

    /// A word from a node: it is there. `is_frame`: a tick, of which a lost node must send a few to be back.
    fn hear(&mut self, now: Timestamp, id: &NodeId, is_frame: bool) {
        self.start(now);
        let Some(node) = self.memory.fleet.nodes.get_mut(id) else {
            return;
        };
        let good_frames = self.index.set(node.rules).node_lost.good_frames;
        let returns = node.presence == Presence::Silent && !node.held && !node.maintenance;
        node.last_frame = Some(now);
        node.held = false;
        if node.presence != Presence::Gone {
            node.presence = Presence::Live;
        }
        if node.lost_by.is_some() && is_frame {
            node.frames_back += 1;
            if node.frames_back >= good_frames {
                self.bring_back(now, id);
            }
        }
        if returns {
            self.note_return(now, id);
        }
    }

    /// A node is lost no longer; with the last of a group, the group is not either.
    fn bring_back(&mut self, now: Timestamp, id: &NodeId) {
        let nodes = &mut self.memory.fleet.nodes;
        let Some(node) = nodes.get_mut(id) else {
            return;
        };
        node.frames_back = 0;
        let Some(key) = node.lost_by.take() else {
            return;
        };
        if nodes
            .values()
            .all(|node| node.lost_by.as_ref() != Some(&key))
        {
            self.memory.register.clear(&key, now, Resolution::Recovered);
        }
    }

    fn take_inventory(&mut self, now: Timestamp, node: &NodeId, inventory: &Inventory) {
        for leaver in self.memory.fleet.take_inventory(node, inventory) {
            if leaver.is_missed {
                self.lose_gpu(now, now, &leaver.at.uuid, Why::NotEnumerated);
            } else {
                let uuid = &leaver.at.uuid;
                let is_it = |_: &CordKey, scope: &Scope, _: Kind| matches!(scope, Scope::Gpu { gpu } if gpu.uuid == *uuid);
                self.clear_all(now, Resolution::Decommissioned, is_it);
            }
        }
        self.end_jobs(now);
    }

    /// Jobs that hold nothing any more are over, and with them what was raised for them.
    fn end_jobs(&mut self, now: Timestamp) {
        for name in self.memory.fleet.take_ended_jobs() {
            let whole = scope_of(Scope::Job {
                job: name.clone(),
                gpus: Vec::new(),
            });
            let is_it = |_: &CordKey, scope: &Scope, kind: Kind| match scope {
                Scope::Job { job, .. } => *job == name,
                other => is_of_job(kind) && other.key() == whole.key(),
            };
            self.clear_all(now, Resolution::HolderGone, is_it);
        }
    }

    fn clear_all(
        &mut self,
        now: Timestamp,
        why: Resolution,
        which: impl Fn(&CordKey, &Scope, Kind) -> bool,
    ) {
        for key in self.memory.register.keys(which) {
            self.memory.register.clear(&key, now, why);
        }
    }

    /// A cord goes up, or has more to say. `when`: now, and when the trouble began.
    fn raise<R: Rule>(
        &mut self,
        rule: &R,
        scope: Scope,
        severity: Severity,
        when: (Timestamp, Timestamp),
        finding: Finding,
    ) {
        let said = (rule.uid(), severity, when.1, finding);
        self.report(R::KIND, scope, Change::Raised, when.0, said);
    }

    /// Passes on what a detector says of its cord.
    fn report(
        &mut self,
        kind: Kind,
        scope: Scope,
        change: Change,
        at: Timestamp,
        (rule, severity, started_at, mut finding): (RuleUid, Severity, Timestamp, Finding),
    ) {
        let shadow = self.is_shadow(&rule.0, &scope);
        let Memory {
            fleet, register, ..
        } = &mut self.memory;
        let key = CordKey {
            rule: rule.clone(),
            scope: scope.key(),
        };
        match change {
            Change::Recovering => return register.recovering(&key, at),
            Change::Cleared { why } => return register.clear(&key, at, why),
            Change::DataLost | Change::DataBack => {
                return register.set_dark(&key, at, change == Change::DataLost);
            }
            Change::Raised | Change::Updated | Change::Relapsed => {}
        }
        note_lost_history(fleet, &scope, at, &mut finding);
        let muted = fleet.is_in_maintenance(&scope);
        let links = Links {
            fleet,
            rule: &self.rules.causes,
        };
        let report = Report {
            rule,
            kind,
            scope,
            severity,
            at,
            started_at,
            finding,
            muted,
            shadow,
        };
        register.raise(report, links);
    }
}

/// What claims to be from further off than this has a wrong clock: an event is taken as of now, a sample from the
/// future is not looked at.
const NEARBY_MS: i64 = 30_000;

/// How long lost history is worth a word in a finding.
const LOST_HISTORY_MS: i64 = 3_600_000;

/// Says what is missing where a node has lost ticks for good.
fn note_lost_history(fleet: &Fleet, scope: &Scope, at: Timestamp, finding: &mut Finding) {
    let id = match scope {
        Scope::Gpu { gpu } => &gpu.node,
        Scope::Node { node } => node,
        Scope::Fleet | Scope::Job { .. } | Scope::Nodes { .. } => return,
    };
    let Some(node) = fleet.nodes.get(id) else {
        return;
    };
    if node
        .lost_history_at
        .is_some_and(|lost| at.0 - lost.0 <= LOST_HISTORY_MS)
    {
        let ticks = node.n_lost;
        finding
            .missing
            .push(format!("{ticks} ticks that {id} could not deliver"));
    }
}

/// The key of a rule's cord on a scope.
fn cord<R: Rule>(rule: &R, scope: &Scope) -> CordKey {
    CordKey {
        rule: rule.uid(),
        scope: scope.key(),
    }
}
