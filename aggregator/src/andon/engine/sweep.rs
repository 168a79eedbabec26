//! Time passes: which jobs idle, what has settled, which cause has gone.

use std::sync::Arc;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

use super::{Engine, cord};
use crate::andon::fleet::Fleet;
use crate::andon::monitoring::outage_finding;
use crate::andon::rules::index::RuleIndex;
use crate::andon::watch::needs_data;
use crate::andon::{Kind, Presence, Resolution, Scope};

/// Sweeps closer together than this are one.
const SWEEP_MS: i64 = 200;
/// Jobs and quiet XIDs are looked at this often.
const JUDGE_MS: i64 = 1000;

impl Engine {
    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.start(now);
        let swept = self.memory.swept_at;
        if swept.is_some_and(|swept| (0..SWEEP_MS).contains(&(now.0 - swept.0))) {
            return;
        }
        self.memory.swept_at = Some(now);
        self.end_own_outage(now);
        if self.note_presence(now) {
            self.judge_silence(now);
        }
        self.look_after_blackout(now);
        self.note_darkness(now);
        let judged = self.memory.judged_at;
        if judged.is_none_or(|judged| !(0..JUDGE_MS).contains(&(now.0 - judged.0))) {
            self.memory.judged_at = Some(now);
            self.judge_jobs(now);
            let rules = self.index.book().custom();
            self.memory.medians.find(now, &self.memory.fleet, rules);
            self.settle_xids(now);
            self.settle_flapping(now);
            self.forget_dropped();
            self.judge_cooling(now);
            let causes = &self.rules.causes;
            self.memory.register.look_after_orphans(now, causes);
        }
    }

    /// Watching begins: who is silent now has been given no chance yet.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.memory.now = Some(now);
        self.memory.started_at = Some(now);
        for node in self.memory.fleet.nodes.values_mut() {
            // A clock that went back must not make anyone heard of in the future.
            node.last_frame = node.last_frame.map(|at| at.min(now));
            // Silence before counts for nothing: whoever is still held is judged anew.
            node.held = false;
        }
    }

    fn end_own_outage(&mut self, now: Timestamp) {
        if self.memory.outage_until.is_none_or(|until| now < until) {
            return;
        }
        self.memory.outage_until = None;
        // A blackout speaks with the same voice, and is not over.
        if self.memory.blackout.is_none() {
            let key = cord(&self.rules.monitoring_fault, &Scope::Fleet);
            self.memory.register.clear(&key, now, Resolution::Recovered);
        }
    }

    /// A jump of the fleet's clock means that nobody watched: the start's grace applies again.
    pub(super) fn note_own_outage(&mut self, now: Timestamp, last: Timestamp, was_restarted: bool) {
        let away_ms = now.0 - last.0;
        // Asked with every message: the nodes are looked at only where it may matter.
        if away_ms.abs() <= self.rules.monitoring_fault.own_outage.millis() {
            return;
        }
        let rules = Arc::clone(&self.rules);
        let rule = &rules.monitoring_fault;
        let nodes = self.memory.fleet.nodes.values();
        let slowest_ms = nodes.map(|node| node.interval_ms).max().unwrap_or(0);
        if away_ms.abs() <= 3 * slowest_ms {
            return;
        }
        self.begin(now);
        self.memory.outage_until = Some(now + rules.node_lost.start_grace.0);
        if rule.enabled {
            let finding = outage_finding(away_ms, rule);
            let since = last.min(now);
            // A restart is somebody's doing, as a rule; a silence of our own is not.
            let unwatched_ms = if was_restarted { 0 } else { away_ms.abs() };
            let severity = rule.severity_after(unwatched_ms, false);
            self.raise(rule, Scope::Fleet, severity, (now, since), finding);
        }
    }

    /// A raised cord without data is unknown, not recovered.
    fn note_darkness(&mut self, now: Timestamp) {
        if now.since(self.started_at()) < self.rules.node_lost.start_grace.0 {
            return;
        }
        let fleet = &self.memory.fleet;
        let index = &self.index;
        let is_dark = |scope: &Scope, kind: Kind| match scope {
            Scope::Node { node } => is_node_dark(fleet, node),
            Scope::Gpu { gpu } => {
                is_node_dark(fleet, &gpu.node)
                    || ((needs_data(kind) || kind == Kind::Custom)
                        && is_gpu_dark(fleet, gpu, now, index))
            }
            Scope::Job { job, .. } => fleet
                .jobs
                .get(job)
                .is_some_and(|job| job.members.values().all(|node| is_node_dark(fleet, node))),
            Scope::Fleet | Scope::Nodes { .. } => false,
        };
        let about_data = |kind| {
            !matches!(
                kind,
                Kind::NodeLost | Kind::NodeFlapping | Kind::CoolingFailure | Kind::MonitoringFault
            )
        };
        let mut found = Vec::new();
        for key in self.memory.register.keys(|_, _, kind| about_data(kind)) {
            let kind = self.memory.register.kind(&key);
            let scope = self.memory.register.scope(&key);
            if let (Some(kind), Some(scope)) = (kind, scope) {
                found.push((is_dark(scope, kind), key));
            }
        }
        for (dark, key) in found {
            self.memory.register.set_dark(&key, now, dark);
        }
    }
}

fn is_node_dark(fleet: &Fleet, id: &NodeId) -> bool {
    let node = fleet.nodes.get(id);
    node.is_none_or(|node| matches!(node.presence, Presence::Silent | Presence::Gone))
}

fn is_gpu_dark(
    fleet: &Fleet,
    gpu: &crate::andon::GpuAt,
    now: Timestamp,
    index: &RuleIndex,
) -> bool {
    let Some((node, state)) = fleet
        .nodes
        .get(&gpu.node)
        .and_then(|n| Some((n, n.gpu(&gpu.uuid)?)))
    else {
        return true;
    };
    let rule = &index.set(node.rules).node_lost;
    state
        .last_data
        .is_none_or(|at| now.0 - at.0 > node.patience_ms(rule))
}
