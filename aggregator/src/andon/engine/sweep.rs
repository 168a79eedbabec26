//! Time passes: who is silent, which jobs idle, what has settled, which cause has gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

use super::{Engine, cord};
use crate::andon::cause::shared_label;
use crate::andon::finding::time_of_day;
use crate::andon::fleet::{Fleet, Node};
use crate::andon::monitoring::{Blackout, blackout_finding, is_blackout, outage_finding};
use crate::andon::node::{cohort, group_finding, node_finding, rack_of};
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
        self.note_presence(now);
        self.judge_silence(now);
        self.end_blackout(now);
        self.note_darkness(now);
        let judged = self.memory.judged_at;
        if judged.is_none_or(|judged| !(0..JUDGE_MS).contains(&(now.0 - judged.0))) {
            self.memory.judged_at = Some(now);
            self.judge_jobs(now);
            let rules = self.index.book().custom();
            self.memory.medians.find(now, &self.memory.fleet, rules);
            self.settle_xids(now);
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
    pub(super) fn note_own_outage(&mut self, now: Timestamp, last: Timestamp) {
        let rules = Arc::clone(&self.rules);
        let rule = &rules.monitoring_fault;
        let nodes = self.memory.fleet.nodes.values();
        let slowest_ms = nodes.map(|node| node.interval_ms).max().unwrap_or(0);
        let limit_ms = rule.own_outage.millis().max(3 * slowest_ms);
        let away_ms = now.0 - last.0;
        if away_ms.abs() <= limit_ms {
            return;
        }
        self.begin(now);
        self.memory.outage_until = Some(now + rules.node_lost.start_grace.0);
        if rule.enabled {
            let finding = outage_finding(away_ms, rule);
            let since = last.min(now);
            self.raise(rule, Scope::Fleet, rule.severity, (now, since), finding);
        }
    }

    fn note_presence(&mut self, now: Timestamp) {
        let started_at = self.started_at();
        for node in self.memory.fleet.nodes.values_mut() {
            let rule = &self.index.set(node.rules).node_lost;
            node.presence = node.presence_at(now, started_at, rule);
            if node.presence == Presence::Silent {
                node.frames_back = 0;
            }
        }
    }

    /// Silent nodes are lost, alone or together, unless so many are silent that it is rather us.
    fn judge_silence(&mut self, now: Timestamp) {
        let rules = Arc::clone(&self.rules);
        let (rule, monitoring) = (&rules.node_lost, &rules.monitoring_fault);
        while let Some(first) = self.first_silent() {
            let moment = (now, self.started_at());
            let fleet = &self.memory.fleet;
            let mut silent = cohort(fleet, &first, moment, monitoring.within, rule);
            silent.retain(|id| self.is_half_silent(id, moment));
            if self.memory.blackout.is_some() {
                self.hold(&BTreeSet::from([first]));
            } else if is_blackout(silent.len(), fleet, monitoring) {
                let expected = expected(fleet);
                let finding = blackout_finding(&silent, expected, monitoring);
                let since = silent_since(fleet, silent.iter(), moment.1);
                self.memory.blackout = Some(Blackout {
                    until: now + monitoring.hold.0,
                });
                self.hold(&silent);
                self.raise(
                    monitoring,
                    Scope::Fleet,
                    monitoring.severity,
                    (now, since),
                    finding,
                );
            } else if let Some((group, nodes)) = rack_of(fleet, &first, &silent, rule) {
                self.lose_nodes(now, group, nodes);
            } else {
                self.lose_node(now, &first);
            }
        }
    }

    fn first_silent(&self) -> Option<NodeId> {
        let silent = |node: &Node| {
            node.presence == Presence::Silent
                && node.is_unjudged()
                && self.index.set(node.rules).node_lost.enabled
        };
        let mut nodes = self.memory.fleet.nodes.iter();
        nodes
            .find(|(_, node)| silent(node))
            .map(|(id, _)| id.clone())
    }

    /// Whether a node is watched for silence, and at least half of what it may be silent for is over.
    fn is_half_silent(&self, id: &NodeId, (now, started_at): (Timestamp, Timestamp)) -> bool {
        self.memory.fleet.nodes.get(id).is_some_and(|node| {
            let rule = &self.index.set(node.rules).node_lost;
            let silence_ms = now.0 - node.last_heard(started_at).0;
            rule.enabled && silence_ms * 2 >= node.patience_ms(rule)
        })
    }

    fn hold(&mut self, ids: &BTreeSet<NodeId>) {
        for id in ids {
            if let Some(node) = self.memory.fleet.nodes.get_mut(id) {
                node.held = true;
            }
        }
    }

    /// A blackout ends when all are back, or when its time is over: who is still silent then is lost, in one finding.
    fn end_blackout(&mut self, now: Timestamp) {
        let Some(blackout) = self.memory.blackout else {
            return;
        };
        let nodes = self.memory.fleet.nodes.iter();
        let held: Vec<NodeId> = nodes
            .filter(|(_, node)| node.held)
            .map(|(id, _)| id.clone())
            .collect();
        if !held.is_empty() && now < blackout.until {
            return;
        }
        self.memory.blackout = None;
        for id in &held {
            if let Some(node) = self.memory.fleet.nodes.get_mut(id) {
                node.held = false;
            }
        }
        let key = cord(&self.rules.monitoring_fault, &Scope::Fleet);
        let why = if held.is_empty() {
            Resolution::Recovered
        } else {
            Resolution::Explained
        };
        let (watched, _): (Vec<NodeId>, Vec<NodeId>) = held
            .into_iter()
            .partition(|id| self.rules_of_node(id).node_lost.enabled);
        if !watched.is_empty() {
            self.lose_held(now, watched);
        }
        self.memory.register.clear(&key, now, why);
    }

    /// Many are one finding; a few are one each.
    fn lose_held(&mut self, now: Timestamp, held: Vec<NodeId>) {
        if held.len() < self.rules.node_lost.group_nodes as usize {
            for id in &held {
                self.lose_node(now, id);
            }
            return;
        }
        let since = silent_since(&self.memory.fleet, held.iter(), self.started_at());
        let group = shared_label(&held, &self.memory.fleet)
            .unwrap_or_else(|| format!("silent since {}", time_of_day(since)));
        self.lose_nodes(now, group, held);
    }

    fn lose_node(&mut self, now: Timestamp, id: &NodeId) {
        let rules = self.rules_of_node(id);
        let rule = &rules.node_lost;
        let moment = (now, self.started_at());
        let Some(node) = self.memory.fleet.nodes.get_mut(id) else {
            return;
        };
        let scope = Scope::Node { node: id.clone() };
        node.lost_by = Some(cord(rule, &scope));
        let since = node.last_frame.unwrap_or(moment.1);
        let finding = node_finding(id, node, moment, rule);
        self.raise(rule, scope, rule.severity, (now, since), finding);
    }

    fn lose_nodes(&mut self, now: Timestamp, group: String, nodes: Vec<NodeId>) {
        let rules = Arc::clone(&self.rules);
        let rule = &rules.node_lost;
        let since = silent_since(&self.memory.fleet, nodes.iter(), self.started_at());
        let finding = group_finding(&self.memory.fleet, &group, &nodes, now, rule);
        let scope = Scope::Nodes { group, nodes };
        let key = cord(rule, &scope);
        if let Scope::Nodes { nodes, .. } = &scope {
            for id in nodes {
                if let Some(node) = self.memory.fleet.nodes.get_mut(id) {
                    node.lost_by = Some(key.clone());
                }
            }
        }
        self.raise(rule, scope, rule.severity, (now, since), finding);
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
        let about_data = |kind| !matches!(kind, Kind::NodeLost | Kind::MonitoringFault);
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

/// Nodes that should be heard of.
fn expected(fleet: &Fleet) -> usize {
    let nodes = fleet.nodes.values();
    nodes.filter(|node| node.presence != Presence::Gone).count()
}

/// When the first of these nodes was last heard of.
fn silent_since<'a>(
    fleet: &Fleet,
    ids: impl Iterator<Item = &'a NodeId>,
    started_at: Timestamp,
) -> Timestamp {
    let heard = ids.filter_map(|id| fleet.nodes.get(id)?.last_frame);
    heard.min().unwrap_or(started_at)
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
