//! Several nodes get hot together.

use std::sync::Arc;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

use super::{Engine, cord};
use crate::andon::cause::shared_label;
use crate::andon::cooling::{HotNode, Told, cooling_finding, stands_ms};
use crate::andon::finding::time_of_day;
use crate::andon::{Presence, Resolution, Scope};

impl Engine {
    /// Takes note of a node most of whose GPUs are hot by now.
    pub(super) fn note_heat(&mut self, now: Timestamp, at: Timestamp, id: &NodeId) {
        let fleet = &self.memory.fleet;
        let Some(node) = fleet.nodes.get(id) else {
            return;
        };
        let rule = &self.index.set(node.rules).cooling_failure;
        let stands_ms = stands_ms(node.interval_ms);
        let is_hot =
            |gpu: &&crate::andon::gpu::Gpu| gpu.hot_at.is_some_and(|hot| at.0 - hot.0 <= stands_ms);
        let hot = node.gpus.iter().filter(is_hot).count();
        if rule.enabled && hot as f64 >= node.gpus.len() as f64 * rule.gpu_share {
            self.memory.cooling.note(now, id);
        }
    }

    /// Enough of them are one finding, to which later ones are added.
    pub(super) fn judge_cooling(&mut self, now: Timestamp) {
        if self.memory.cooling.is_empty() && self.memory.cooling.told.is_none() {
            return;
        }
        let rules = Arc::clone(&self.rules);
        let rule = &rules.cooling_failure;
        let fleet = &self.memory.fleet;
        let is_dark = |id: &NodeId| {
            let node = fleet.nodes.get(id);
            node.is_some_and(|node| node.presence == Presence::Silent)
        };
        let is_hot_now = |id: &NodeId, hot: HotNode| {
            fleet.nodes.get(id).is_some_and(|node| {
                !node.maintenance && now.0 - hot.last.0 <= 2 * stands_ms(node.interval_ms)
            })
        };
        self.memory.cooling.settle(now, rule, is_dark);
        if self.memory.cooling.is_empty() {
            return self.end_cooling(now);
        }
        let found = self.memory.cooling.together(rule, is_hot_now);
        let Some((since, mut nodes)) = found.filter(|_| rule.enabled) else {
            return;
        };
        let before = self.memory.cooling.told.take();
        let group = if let Some(told) = &before {
            nodes.extend(told.nodes.iter().cloned());
            told.group.clone()
        } else {
            let all: Vec<NodeId> = nodes.iter().cloned().collect();
            shared_label(&all, fleet).unwrap_or_else(|| format!("hot since {}", time_of_day(since)))
        };
        let is_news = before.as_ref().is_none_or(|told| told.nodes != nodes);
        self.memory.cooling.told = Some(Told {
            group: group.clone(),
            nodes: nodes.clone(),
        });
        if is_news {
            let finding = cooling_finding(&group, &nodes, rule);
            let scope = Scope::Nodes {
                group,
                nodes: nodes.into_iter().collect(),
            };
            self.raise(rule, scope, rule.severity, (now, since), finding);
        }
    }

    fn end_cooling(&mut self, now: Timestamp) {
        if let Some(told) = self.memory.cooling.told.take() {
            let scope = Scope::Nodes {
                group: told.group,
                nodes: Vec::new(),
            };
            let key = cord(&self.rules.cooling_failure, &scope);
            self.memory.register.clear(&key, now, Resolution::Recovered);
        }
    }
}
