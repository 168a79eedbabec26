//! Nodes fall silent: whether they are lost, only their agents are, or it is rather us. And they come back.

use std::collections::BTreeSet;
use std::sync::Arc;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

use super::{Engine, Memory, cord};
use crate::andon::agent::agent_finding;
use crate::andon::cause::shared_label;
use crate::andon::finding::time_of_day;
use crate::andon::fleet::{Fleet, Node};
use crate::andon::monitoring::{Blackout, blackout_finding, is_blackout};
use crate::andon::node::{Calls, Sentence, group_finding, node_finding, sentence};
use crate::andon::rules::Rule as _;
use crate::andon::witness::{Silence, Witness, witness};
use crate::andon::{CordKey, Presence, Resolution, Scope, Severity};

/// While nodes are held, their peers are asked this often.
const ASK_MS: i64 = 1000;
/// A share of the fleet that seldom dies at once.
const LARGE_SHARE: f64 = 0.3;

/// A node of which nothing is heard, and that nobody has judged.
struct Quiet {
    id: NodeId,
    heard: Timestamp,
    patience_ms: i64,
    /// Its silence can be judged if its peers say enough.
    is_due: bool,
}

impl Engine {
    /// Who is there. Returns whether any silence waits to be judged.
    pub(super) fn note_presence(&mut self, now: Timestamp) -> bool {
        let started_at = self.started_at();
        let mut any = false;
        for node in self.memory.fleet.nodes.values_mut() {
            let rule = &self.index.set(node.rules).node_lost;
            node.presence = node.presence_at(now, started_at, rule);
            if node.presence == Presence::Silent {
                node.frames_back = 0;
            }
            any |= node.is_due(now, started_at, rule);
        }
        any
    }

    /// Those who fell silent together are judged together.
    pub(super) fn judge_silence(&mut self, now: Timestamp) {
        let quiet = self.quiet_nodes(now);
        let mut judged: BTreeSet<&NodeId> = BTreeSet::new();
        for first in quiet.iter().filter(|node| node.is_due) {
            if judged.contains(&first.id) {
                continue;
            }
            let within_ms = self.together_ms(&first.id);
            let mut group = BTreeSet::new();
            for node in &quiet {
                // Who may be silent for longer is judged later, apart.
                let near = (node.heard.0 - first.heard.0).abs() <= within_ms
                    && node.patience_ms == first.patience_ms;
                if near && judged.insert(&node.id) {
                    group.insert(node.id.clone());
                }
            }
            self.judge(now, &first.id, &group);
        }
    }

    fn quiet_nodes(&self, now: Timestamp) -> Vec<Quiet> {
        let started_at = self.started_at();
        let nodes = self.memory.fleet.nodes.iter();
        let quiet = nodes.filter_map(|(id, node)| {
            let rule = &self.index.set(node.rules).node_lost;
            let heard = node.last_heard(started_at);
            let is_quiet = rule.enabled
                && node.is_unjudged()
                && (now.0 - heard.0) * 2 >= node.patience_ms(rule);
            is_quiet.then(|| Quiet {
                id: id.clone(),
                heard,
                patience_ms: node.patience_ms(rule),
                is_due: node.is_due(now, started_at, rule),
            })
        });
        quiet.collect()
    }

    /// How far apart the last words of nodes may be that fell silent together: they speak once an interval.
    fn together_ms(&self, id: &NodeId) -> i64 {
        let interval_ms = self
            .memory
            .fleet
            .nodes
            .get(id)
            .map_or(0, |node| node.interval_ms);
        let within_ms = self.rules.monitoring_fault.within.millis();
        within_ms.max(interval_ms + interval_ms / 5)
    }

    fn judge(&mut self, now: Timestamp, first: &NodeId, group: &BTreeSet<NodeId>) {
        let rules = self.rules_of_node(first);
        let Some((silence, calls)) = self.calls_of(now, first, group) else {
            return;
        };
        let fleet = &self.memory.fleet;
        let told = witness(fleet, group, silence);
        let sentence = sentence(told, calls, &rules);
        if let Sentence::Lost(severity) = sentence
            && matches!(told, Witness::Stopped | Witness::Wavers)
        {
            return self.lose(now, group, severity, told);
        }
        let is_silent = |id: &NodeId| {
            let node = fleet.nodes.get(id);
            node.is_some_and(|node| node.presence == Presence::Silent)
        };
        if !is_silent(first) {
            return;
        }
        if self.memory.blackout.is_some() {
            self.hold(group);
        } else if is_blackout(group.len(), fleet, &self.rules.monitoring_fault) {
            self.begin_blackout(now, group);
        } else {
            match sentence {
                Sentence::Wait => {}
                Sentence::Lost(severity) => self.lose(now, group, severity, told),
                Sentence::AgentSilent => self.miss_agents(now, group, calls.silence_ms),
            }
        }
    }

    /// What speaks for and against calling someone, of nodes that are silent together.
    fn calls_of(
        &self,
        now: Timestamp,
        first: &NodeId,
        group: &BTreeSet<NodeId>,
    ) -> Option<(Silence, Calls)> {
        let started_at = self.started_at();
        let fleet = &self.memory.fleet;
        let heard = group
            .iter()
            .filter_map(|id| Some(fleet.nodes.get(id)?.last_heard(started_at)));
        let (earliest, latest) = (heard.clone().min()?, heard.max()?);
        let node = fleet.nodes.get(first)?;
        let members = || group.iter().filter_map(|id| fleet.nodes.get(id));
        let silence = Silence {
            first: earliest,
            last: latest,
        };
        let calls = Calls {
            silence_ms: now.0 - node.last_heard(started_at).0,
            all_ms: now.0 - latest.0,
            interval_ms: members().map(|node| node.interval_ms).max()?,
            is_busy: members().any(Node::is_busy),
            flaps: group.len() == 1 && node.returns.is_up,
        };
        Some((silence, calls))
    }

    fn begin_blackout(&mut self, now: Timestamp, group: &BTreeSet<NodeId>) {
        let rules = Arc::clone(&self.rules);
        let rule = &rules.monitoring_fault;
        let fleet = &self.memory.fleet;
        let finding = blackout_finding(group, expected(fleet), rule);
        let since = silent_since(fleet, group.iter(), self.started_at());
        self.memory.blackout = Some(Blackout {
            until: now + rule.hold.0,
            since,
            asked_at: now,
            told: rule.severity,
        });
        self.hold(group);
        self.raise(rule, Scope::Fleet, rule.severity, (now, since), finding);
    }

    fn hold(&mut self, ids: &BTreeSet<NodeId>) {
        for id in ids {
            if let Some(node) = self.memory.fleet.nodes.get_mut(id) {
                node.held = true;
            }
        }
    }

    /// A blackout ends when all are back, or when the jobs of those who are silent stop with them. When its time is
    /// over, who is still silent is lost, in one finding; unless nearly all are, or their jobs work on: then it is we
    /// who do not see.
    pub(super) fn look_after_blackout(&mut self, now: Timestamp) {
        let Some(mut blackout) = self.memory.blackout else {
            return;
        };
        let nodes = self.memory.fleet.nodes.iter();
        let held: BTreeSet<NodeId> = nodes
            .filter(|(_, node)| node.held)
            .map(|(id, _)| id.clone())
            .collect();
        if held.is_empty() {
            return self.end_blackout(now, held, Witness::Nothing);
        }
        let rules = Arc::clone(&self.rules);
        let rule = &rules.monitoring_fault;
        if !rule.enabled {
            return self.release(&held);
        }
        if now.0 - blackout.asked_at.0 < ASK_MS && now < blackout.until {
            return;
        }
        blackout.asked_at = now;
        self.memory.blackout = Some(blackout);
        let share = held.len() as f64 / expected(&self.memory.fleet).max(1) as f64;
        let told = self.ask_peers(&held);
        let lasts_ms = now.0 - blackout.since.0;
        let is_told = match told {
            Witness::Stopped => true,
            Witness::Wavers => lasts_ms >= self.doubt_ms(&held, share),
            Witness::GoesOn | Witness::Nothing => false,
        };
        if is_told {
            return self.end_blackout(now, held, told);
        }
        let is_us = share >= rule.blind_share;
        if now >= blackout.until && !is_us && told != Witness::GoesOn {
            return self.end_blackout(now, held, told);
        }
        let severity = rule.severity_after(lasts_ms, is_us);
        // Peers that waver are about to tell of the nodes rather than of us.
        if severity > blackout.told && told != Witness::Wavers {
            blackout.told = severity;
            self.memory.blackout = Some(blackout);
            let finding = blackout_finding(&held, expected(&self.memory.fleet), rule);
            self.raise(rule, Scope::Fleet, severity, (now, blackout.since), finding);
        }
    }

    /// How long nodes must be silent, in milliseconds, before one job's pause is taken for a sign that they are lost. Of a
    /// large share of the fleet, it is rather the way to us that is in trouble, for as long as that may last.
    fn doubt_ms(&self, ids: &BTreeSet<NodeId>, share: f64) -> i64 {
        let rules = &self.rules;
        let nodes = ids.iter().filter_map(|id| self.memory.fleet.nodes.get(id));
        let patience_ms = nodes.map(|node| node.patience_ms(&rules.node_lost)).max();
        let doubt = if share >= LARGE_SHARE {
            rules.monitoring_fault.hold
        } else {
            rules.node_lost.doubt
        };
        patience_ms.unwrap_or(0) + doubt.millis()
    }

    fn ask_peers(&self, held: &BTreeSet<NodeId>) -> Witness {
        let started_at = self.started_at();
        let fleet = &self.memory.fleet;
        let heard = held
            .iter()
            .filter_map(|id| Some(fleet.nodes.get(id)?.last_heard(started_at)));
        let (Some(first), Some(last)) = (heard.clone().min(), heard.max()) else {
            return Witness::Nothing;
        };
        witness(fleet, held, Silence { first, last })
    }

    /// Nobody is held any more: whoever is silent is judged like any other.
    fn release(&mut self, held: &BTreeSet<NodeId>) {
        self.memory.blackout = None;
        for id in held {
            if let Some(node) = self.memory.fleet.nodes.get_mut(id) {
                node.held = false;
            }
        }
    }

    fn end_blackout(&mut self, now: Timestamp, held: BTreeSet<NodeId>, told: Witness) {
        self.release(&held);
        let key = cord(&self.rules.monitoring_fault, &Scope::Fleet);
        let why = if held.is_empty() {
            Resolution::Recovered
        } else {
            Resolution::Explained
        };
        let watched: BTreeSet<NodeId> = held
            .into_iter()
            .filter(|id| self.rules_of_node(id).node_lost.enabled)
            .collect();
        if !watched.is_empty() {
            self.lose(now, &watched, Severity::Critical, told);
        }
        self.memory.register.clear(&key, now, why);
    }

    /// Many are one finding; a few are one each.
    fn lose(&mut self, now: Timestamp, nodes: &BTreeSet<NodeId>, most: Severity, told: Witness) {
        if nodes.len() < self.rules.node_lost.group_nodes as usize {
            for id in nodes {
                self.lose_node(now, id, most, told);
            }
        } else {
            self.lose_nodes(now, nodes, most, told);
        }
    }

    fn lose_node(&mut self, now: Timestamp, id: &NodeId, most: Severity, told: Witness) {
        let rules = self.rules_of_node(id);
        let rule = &rules.node_lost;
        let moment = (now, self.started_at());
        let Some(node) = self.memory.fleet.nodes.get_mut(id) else {
            return;
        };
        let scope = Scope::Node { node: id.clone() };
        node.lost_by = Some(cord(rule, &scope));
        let since = node.last_frame.unwrap_or(moment.1);
        let finding = node_finding(id, node, moment, told, rule);
        let severity = rule.severity.min(most);
        self.raise(rule, scope, severity, (now, since), finding);
    }

    fn lose_nodes(
        &mut self,
        now: Timestamp,
        nodes: &BTreeSet<NodeId>,
        most: Severity,
        told: Witness,
    ) {
        let rules = Arc::clone(&self.rules);
        let rule = &rules.node_lost;
        let since = silent_since(&self.memory.fleet, nodes.iter(), self.started_at());
        let nodes: Vec<NodeId> = nodes.iter().cloned().collect();
        let group = self.name_of(&nodes, since);
        let finding = group_finding(&self.memory.fleet, &group, &nodes, now, told, rule);
        let scope = Scope::Nodes { group, nodes };
        self.mark_lost(&scope, &cord(rule, &scope));
        let severity = rule.severity.min(most);
        self.raise(rule, scope, severity, (now, since), finding);
    }

    /// Only the agents are gone.
    fn miss_agents(&mut self, now: Timestamp, nodes: &BTreeSet<NodeId>, silence_ms: i64) {
        let rules = Arc::clone(&self.rules);
        let rule = &rules.agent_silent;
        if !rule.enabled {
            return;
        }
        let since = silent_since(&self.memory.fleet, nodes.iter(), self.started_at());
        let first = nodes.first().filter(|_| nodes.len() == 1);
        let node = first.and_then(|id| self.memory.fleet.nodes.get(id));
        let labels = node.map(|node| node.labels.clone()).unwrap_or_default();
        let scope = if let Some(node) = first {
            Scope::Node { node: node.clone() }
        } else {
            let nodes: Vec<NodeId> = nodes.iter().cloned().collect();
            let group = self.name_of(&nodes, since);
            Scope::Nodes { group, nodes }
        };
        let finding = agent_finding(nodes, &labels, silence_ms, rule);
        self.mark_lost(&scope, &cord(rule, &scope));
        self.raise(rule, scope, rule.severity, (now, since), finding);
    }

    /// A silence whose cord was dropped, because its rule was switched off, is judged anew.
    pub(super) fn forget_dropped(&mut self) {
        let uid = self.rules.agent_silent.uid();
        let Memory {
            fleet, register, ..
        } = &mut self.memory;
        for node in fleet.nodes.values_mut() {
            let dropped = |key: &CordKey| key.rule == uid && !register.is_up(key);
            if node.lost_by.as_ref().is_some_and(dropped) {
                node.lost_by = None;
            }
        }
    }

    /// What nodes that fell silent together are called.
    fn name_of(&self, nodes: &[NodeId], since: Timestamp) -> String {
        shared_label(nodes, &self.memory.fleet)
            .unwrap_or_else(|| format!("silent since {}", time_of_day(since)))
    }

    fn mark_lost(&mut self, scope: &Scope, by: &CordKey) {
        let nodes = match scope {
            Scope::Node { node } => std::slice::from_ref(node),
            Scope::Nodes { nodes, .. } => nodes,
            _ => &[],
        };
        for id in nodes {
            if let Some(node) = self.memory.fleet.nodes.get_mut(id) {
                node.lost_by = Some(by.clone());
            }
        }
    }

    /// A node that was silent is heard again; that it was held for others' sake says nothing of it.
    pub(super) fn note_return(&mut self, now: Timestamp, id: &NodeId) {
        let rules = self.rules_of_node(id);
        let rule = &rules.node_flapping;
        let Some(node) = self.memory.fleet.nodes.get_mut(id) else {
            return;
        };
        if !node.returns.note(now, rule) {
            return;
        }
        let since = node.returns.since().unwrap_or(now);
        let finding = node.returns.finding(id, &node.labels, rule);
        let scope = Scope::Node { node: id.clone() };
        self.raise(rule, scope, rule.severity, (now, since), finding);
    }

    /// Nodes that have stayed do not flap any more.
    pub(super) fn settle_flapping(&mut self, now: Timestamp) {
        let uid = self.rules.node_flapping.uid();
        for key in self.memory.register.keys(|key, _, _| key.rule == uid) {
            let Some(Scope::Node { node: id }) = self.memory.register.scope(&key).cloned() else {
                continue;
            };
            let rules = self.rules_of_node(&id);
            let over = self.memory.fleet.nodes.get_mut(&id).is_none_or(|node| {
                let is_live = matches!(node.presence, Presence::Live | Presence::Late);
                let over = is_live && node.returns.is_over(now, &rules.node_flapping);
                node.returns.is_up &= !over;
                over
            });
            if over {
                self.memory.register.clear(&key, now, Resolution::Recovered);
            }
        }
    }
}

/// Nodes that should be heard of.
fn expected(fleet: &Fleet) -> usize {
    let nodes = fleet.nodes.values();
    let is_expected = |node: &&Node| node.presence != Presence::Gone && !node.maintenance;
    nodes.filter(is_expected).count()
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
