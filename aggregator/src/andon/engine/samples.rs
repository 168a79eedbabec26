//! A tick comes in: each GPU's cords look at its row, and what they say is passed on.

use std::sync::Arc;
use std::time::Duration;

use entrenar::gpu::{GpuUuid, NodeId, Values};
use entrenar::metric::NvmlStatus;
use entrenar::unit::Timestamp;

use super::{Engine, NEARBY_MS, cord};
use crate::andon::custom;
use crate::andon::gpu::Tick;
use crate::andon::lost::Why;
use crate::andon::peers::Peers;
use crate::andon::sample::status_of;
use crate::andon::unresponsive::node_finding;
use crate::andon::watch::{Signal, Watch as _};
use crate::andon::{Change, Kind, Resolution, Scope};

impl Engine {
    pub(super) fn look(&mut self, now: Timestamp, id: &NodeId, at: Timestamp, rows: &[Values]) {
        // A clock that runs ahead must not make every later sample look old.
        if at.0 - now.0 > NEARBY_MS {
            return;
        }
        let Some(node) = self.memory.fleet.nodes.get_mut(id) else {
            return;
        };
        let interval = Duration::from_millis(node.interval_ms as u64);
        // Neither takes room until a cord has something to say.
        let (mut signals, mut said) = (Vec::new(), Vec::new());
        let (mut custom, mut custom_said) = (Vec::new(), Vec::new());
        let rules = Arc::clone(self.index.book().custom());
        let mut is_news = false;
        let peers = Peers::of(&node.gpus);
        for (place, (gpu, row)) in node.gpus.iter_mut().zip(rows).enumerate() {
            if !gpu.is_news(at) {
                continue;
            }
            let tick = Tick {
                at,
                now,
                interval,
                row,
                peers,
            };
            let built_in = self.index.set(gpu.rules);
            if row.is_empty() {
                if gpu.is_known() && others_report(rows, place) {
                    gpu.miss(tick, built_in, &mut signals);
                    said.extend(signals.drain(..).map(|signal| (place, signal)));
                }
                continue;
            }
            gpu.observe(tick, self.effort, built_in, &mut signals);
            said.extend(signals.drain(..).map(|signal| (place, signal)));
            let how = (tick, self.effort);
            custom::look_at_gpu(gpu, how, &rules, &self.memory.medians, &mut custom);
            custom_said.extend(custom.drain(..).map(|said| (Some(place), said)));
            is_news = true;
        }
        if is_news {
            let when = (at, interval, self.effort);
            custom::look_at_node(&mut node.custom, when, rows, &rules, &mut custom);
            custom_said.extend(custom.drain(..).map(|said| (None, said)));
        }
        let heats = node.gpus.iter().any(|gpu| gpu.hot_at == Some(at));
        for (place, signal) in said {
            self.pass_on(id, place, at, signal);
        }
        for (place, said) in custom_said {
            self.pass_on_custom(id, place, at, said);
        }
        if heats {
            self.note_heat(now, at, id);
        }
    }

    /// Passes on what a rule of people says of a GPU, by its place; `None`: of the node.
    fn pass_on_custom(
        &mut self,
        id: &NodeId,
        place: Option<usize>,
        at: Timestamp,
        (rule, change): custom::Said,
    ) {
        let Some(node) = self.memory.fleet.nodes.get(id) else {
            return;
        };
        let rule = &self.index.book().custom()[usize::from(rule)];
        let gpu = place.and_then(|place| node.gpus.get(place));
        let states = gpu.map_or(&node.custom, |gpu| &gpu.custom);
        let said = custom::finding(rule, states, gpu, (id, &node.labels), at);
        let scope = match gpu {
            Some(gpu) => Scope::Gpu {
                gpu: gpu.at.clone(),
            },
            None => Scope::Node { node: id.clone() },
        };
        self.report(Kind::Custom, scope, change, at, said);
    }

    /// Passes on what a GPU's cord says.
    pub(super) fn pass_on(&mut self, id: &NodeId, place: usize, at: Timestamp, signal: Signal) {
        if signal.kind == Kind::GpuUnresponsive && self.is_for_the_node(id, at, signal.change) {
            return;
        }
        let Some(node) = self.memory.fleet.nodes.get(id) else {
            return;
        };
        let Some(gpu) = node.gpus.get(place) else {
            return;
        };
        let interval = Duration::from_millis(node.interval_ms as u64);
        let said = gpu.describe(
            signal.kind,
            at,
            &node.labels,
            interval,
            self.index.set(gpu.rules),
        );
        let scope = Scope::Gpu {
            gpu: gpu.at.clone(),
        };
        if let Some(said) = said {
            self.report(signal.kind, scope, signal.change, at, said);
        }
    }

    /// When no GPU of a node answers, that is one finding on the node, until all of them answer again.
    fn is_for_the_node(&mut self, id: &NodeId, at: Timestamp, change: Change) -> bool {
        let rules = self.rules_of_node(id);
        let Some(node) = self.memory.fleet.nodes.get_mut(id) else {
            return false;
        };
        let all_stall = node.gpus.len() > 1
            && node
                .gpus
                .iter()
                .all(|gpu| gpu.watches.gpu_unresponsive.is_stalled());
        let none_is_up = node
            .gpus
            .iter()
            .all(|gpu| !gpu.watches.gpu_unresponsive.is_raised());
        let rule = &rules.gpu_unresponsive;
        let scope = Scope::Node { node: id.clone() };
        match change {
            Change::Raised if all_stall && !node.wedged => {
                node.wedged = true;
                let since = node
                    .gpus
                    .iter()
                    .map(|gpu| gpu.watches.gpu_unresponsive.started_at(at))
                    .min();
                let finding = node_finding(id, node.gpus.len(), &node.labels, rule);
                self.raise(
                    rule,
                    scope,
                    rule.severity,
                    (at, since.unwrap_or(at)),
                    finding,
                );
                true
            }
            Change::Cleared { .. } if node.wedged && none_is_up => {
                node.wedged = false;
                let key = cord(rule, &scope);
                self.memory.register.clear(&key, at, Resolution::Recovered);
                true
            }
            _ => node.wedged,
        }
    }

    /// A GPU is known to be lost. `when`: of the transition; `since`: of the loss.
    pub(super) fn lose_gpu(&mut self, at: Timestamp, since: Timestamp, uuid: &GpuUuid, why: Why) {
        let rules = self.rules_of_gpu(uuid);
        if !rules.gpu_lost.enabled {
            return;
        }
        let Some(gpu) = self.memory.fleet.gpu_mut(uuid) else {
            return;
        };
        if gpu.watches.gpu_lost.lose(since, why).is_none() {
            return;
        }
        let (gpu, at_gpu) = (gpu.clone(), gpu.at.clone());
        let nodes = &self.memory.fleet.nodes;
        let labels = nodes.get(&at_gpu.node).map(|node| node.labels.clone());
        let said = gpu.describe(
            Kind::GpuLost,
            at,
            &labels.unwrap_or_default(),
            Duration::ZERO,
            &rules,
        );
        if let Some(said) = said {
            self.report(
                Kind::GpuLost,
                Scope::Gpu { gpu: at_gpu },
                Change::Raised,
                at,
                said,
            );
        }
    }
}

/// Whether any other GPU of a tick answered.
fn others_report(rows: &[Values], place: usize) -> bool {
    let mut others = rows.iter().enumerate().filter(|(other, _)| *other != place);
    others.any(|(_, row)| !row.is_empty() && status_of(row) == NvmlStatus::Ok)
}
