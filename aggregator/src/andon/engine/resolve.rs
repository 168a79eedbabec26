//! Which rules hold for what: looked at when a node, a GPU or a job changes, never on a tick.
//!
//! A GPU goes by its node's name and labels, its model, and the kind of the job that holds it; a node by its name, its
//! labels and the model of its first GPU; a job by its kind and by the first of its GPUs.

use std::sync::Arc;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::report::Labels;
use entrenar::unit::Timestamp;

use super::{Engine, Memory};
use crate::andon::custom::{self, Custom};
use crate::andon::gpu::Gpu;
use crate::andon::rules::index::SetId;
use crate::andon::rules::selector::Subject;
use crate::andon::rules::{RuleBook, RuleSet};
use crate::andon::{CordKey, Kind, Resolution, RuleUid, Scope};

impl Engine {
    /// The rules that hold for a GPU; those without overrides, if it is not known.
    pub(in crate::andon) fn rules_of_gpu(&self, uuid: &GpuUuid) -> Arc<RuleSet> {
        let gpu = self.memory.fleet.gpu(uuid);
        self.rules_by(gpu.map(|gpu| gpu.rules))
    }

    /// The rules that hold for a node.
    pub(super) fn rules_of_node(&self, id: &NodeId) -> Arc<RuleSet> {
        let node = self.memory.fleet.nodes.get(id);
        self.rules_by(node.map(|node| node.rules))
    }

    /// The rules that hold for a job.
    pub(in crate::andon) fn rules_of_job(&self, name: &str) -> Arc<RuleSet> {
        let job = self.memory.fleet.jobs.get(name);
        self.rules_by(job.map(|job| job.rules))
    }

    /// The rules that hold for what a cord watches; several nodes and the fleet have no overrides.
    pub(super) fn rules_of(&self, scope: &Scope) -> Arc<RuleSet> {
        match scope {
            Scope::Gpu { gpu } => self.rules_of_gpu(&gpu.uuid),
            Scope::Node { node } => self.rules_of_node(node),
            Scope::Job { job, .. } => self.rules_of_job(job),
            Scope::Fleet | Scope::Nodes { .. } => Arc::clone(&self.rules),
        }
    }

    fn rules_by(&self, id: Option<SetId>) -> Arc<RuleSet> {
        Arc::clone(self.index.set(id.unwrap_or_default()))
    }

    /// A node's labels or GPUs may have changed.
    pub(super) fn resolve_node(&mut self, now: Timestamp, id: &NodeId) {
        if self.index.is_uniform() {
            return;
        }
        let Memory { cluster, fleet, .. } = &mut self.memory;
        let Some(node) = fleet.nodes.get_mut(id) else {
            return;
        };
        let whole = Subject {
            cluster,
            node: id.as_str(),
            labels: &node.labels,
            model: node.gpus.first().map(Gpu::model),
            job_kind: None,
        };
        let set = self.index.find(whole);
        let mine = self.index.custom(whole, true);
        let changed =
            set != node.rules || !custom::are(&node.custom, self.index.book().custom(), &mine);
        node.rules = set;
        custom::align(&mut node.custom, self.index.book().custom(), &mine);
        let uuids: Vec<GpuUuid> = node.gpus.iter().map(|gpu| gpu.at.uuid.clone()).collect();
        if changed {
            let it = Scope::Node { node: id.clone() };
            self.drop_unwanted(now, |scope| *scope == it);
        }
        for uuid in uuids {
            self.resolve_gpu(now, &uuid);
        }
    }

    /// A GPU's place or holder may have changed.
    pub(super) fn resolve_gpu(&mut self, now: Timestamp, uuid: &GpuUuid) {
        if self.index.is_uniform() {
            return;
        }
        let Memory { cluster, fleet, .. } = &mut self.memory;
        let Some(gpu) = fleet.gpu(uuid) else {
            return;
        };
        let none = Labels::new();
        let node = fleet.nodes.get(&gpu.at.node);
        let subject = Subject {
            cluster,
            node: gpu.at.node.as_str(),
            labels: node.map_or(&none, |node| &node.labels),
            model: Some(gpu.model()),
            job_kind: gpu.holder().map(|holder| holder.kind),
        };
        let set = self.index.find(subject);
        let mine = self.index.custom(subject, false);
        let changed =
            set != gpu.rules || !custom::are(&gpu.custom, self.index.book().custom(), &mine);
        let job = gpu.holder().map(|holder| holder.job.clone());
        if changed && let Some(gpu) = fleet.gpu_mut(uuid) {
            gpu.rules = set;
            custom::align(&mut gpu.custom, self.index.book().custom(), &mine);
            for kind in self.index.kinds_off(set) {
                gpu.reset(*kind);
            }
            self.drop_unwanted(
                now,
                |scope| matches!(scope, Scope::Gpu { gpu } if gpu.uuid == *uuid),
            );
        }
        if let Some(job) = job {
            self.resolve_job(now, &job);
        }
    }

    /// A job's kind or first GPU may have changed.
    pub(super) fn resolve_job(&mut self, now: Timestamp, name: &str) {
        if self.index.is_uniform() {
            return;
        }
        let Memory { cluster, fleet, .. } = &mut self.memory;
        let Some(job) = fleet.jobs.get(name) else {
            return;
        };
        let none = Labels::new();
        let first = fleet.members(job).next();
        let subject = Subject {
            cluster,
            node: first.map_or("", |(_, gpu)| gpu.at.node.as_str()),
            labels: first.map_or(&none, |(node, _)| &node.labels),
            model: first.map(|(_, gpu)| gpu.model()),
            job_kind: Some(job.kind),
        };
        let set = self.index.find(subject);
        if set == job.rules {
            return;
        }
        if let Some(job) = fleet.jobs.get_mut(name) {
            job.rules = set;
        }
        self.drop_unwanted(
            now,
            |scope| matches!(scope, Scope::Job { job, .. } if job == name),
        );
    }

    /// Other rules hold from now on, or a snapshot was read: everything is looked at.
    pub(super) fn resolve_all(&mut self, now: Timestamp) {
        let uniform = self.index.is_uniform();
        let fleet = &mut self.memory.fleet;
        for node in fleet.nodes.values_mut() {
            node.rules = SetId::default();
            for gpu in node.gpus.iter_mut().chain(&mut node.absent) {
                gpu.rules = SetId::default();
            }
            if uniform {
                custom::align(&mut node.custom, &[], &[]);
                for gpu in node.gpus.iter_mut().chain(&mut node.absent) {
                    custom::align(&mut gpu.custom, &[], &[]);
                }
            }
        }
        for job in fleet.jobs.values_mut() {
            job.rules = SetId::default();
        }
        let nodes: Vec<NodeId> = fleet.nodes.keys().cloned().collect();
        for node in nodes {
            self.resolve_node(now, &node);
        }
        let fleet = &mut self.memory.fleet;
        for node in fleet.nodes.values_mut() {
            for kind in self.index.kinds_off(node.rules) {
                node.reset(*kind);
            }
            for gpu in &mut node.gpus {
                for kind in self.index.kinds_off(gpu.rules) {
                    gpu.reset(*kind);
                }
            }
        }
        for job in fleet.jobs.values_mut() {
            for kind in self.index.kinds_off(job.rules) {
                job.reset(*kind);
            }
        }
        self.drop_unwanted(now, |_| true);
    }

    /// Clears the cords whose rule does not watch there any more, or now speaks to others: to nobody instead of to
    /// people, or the other way round.
    fn drop_unwanted(&mut self, now: Timestamp, which: impl Fn(&Scope) -> bool) {
        for key in self.memory.register.keys(|_, scope, _| which(scope)) {
            if self.is_unwanted(&key) {
                self.drop_cord(now, &key);
            }
        }
    }

    fn is_unwanted(&self, key: &CordKey) -> bool {
        let register = &self.memory.register;
        let Some(scope) = register.scope(key) else {
            return false;
        };
        let (name, shadow) = (&key.rule.0, register.is_shadow(key));
        if let Some(rule) = self.rules_of(scope).standing(name) {
            return !rule.enabled || rule.shadow != shadow;
        }
        let rule = self.custom_rule(name);
        let stays = rule.is_some_and(|rule| rule.shadow == shadow);
        !stays || !self.is_watched_by(scope, name)
    }

    fn custom_rule(&self, name: &str) -> Option<&Custom> {
        let rules = self.index.book().custom();
        rules.iter().find(|rule| *rule.uid.0 == *name)
    }

    /// Whether a rule of people is for a thing.
    fn is_watched_by(&self, scope: &Scope, name: &str) -> bool {
        let fleet = &self.memory.fleet;
        let states = match scope {
            Scope::Gpu { gpu } => fleet.gpu(&gpu.uuid).map(|gpu| &gpu.custom),
            Scope::Node { node } => fleet.nodes.get(node).map(|node| &node.custom),
            _ => None,
        };
        states.is_some_and(|states| states.iter().any(|state| *state.rule.0 == *name))
    }

    /// Rules of people that look at something else from now on begin anew.
    pub(super) fn forget_changed(&mut self, now: Timestamp, book: &RuleBook) {
        let before = self.index.book().custom();
        let is_changed = |old: &&Custom| {
            let new = book.custom().iter().find(|new| new.uid == old.uid);
            new.is_none_or(|new| new.condition != old.condition)
        };
        let changed: Vec<RuleUid> = before
            .iter()
            .filter(is_changed)
            .map(|rule| rule.uid.clone())
            .collect();
        if changed.is_empty() {
            return;
        }
        for node in self.memory.fleet.nodes.values_mut() {
            node.custom.retain(|state| !changed.contains(&state.rule));
            for gpu in node.gpus.iter_mut().chain(&mut node.absent) {
                gpu.custom.retain(|state| !changed.contains(&state.rule));
            }
        }
        let is_of_them = |key: &CordKey, _: &Scope, _: Kind| changed.contains(&key.rule);
        for key in self.memory.register.keys(is_of_them) {
            let register = &mut self.memory.register;
            register.clear(&key, now, Resolution::RuleRemoved);
        }
    }

    fn drop_cord(&mut self, now: Timestamp, key: &CordKey) {
        let Memory {
            fleet, register, ..
        } = &mut self.memory;
        if let (Some(scope), Some(kind)) = (register.scope(key), register.kind(key)) {
            match scope {
                Scope::Gpu { gpu } => {
                    if let Some(gpu) = fleet.gpu_mut(&gpu.uuid) {
                        gpu.reset(kind);
                    }
                }
                Scope::Node { node } => {
                    if let Some(node) = fleet.nodes.get_mut(node) {
                        node.reset(kind);
                    }
                }
                Scope::Nodes { nodes, .. } => {
                    for node in nodes {
                        if let Some(node) = fleet.nodes.get_mut(node) {
                            node.reset(kind);
                        }
                    }
                }
                Scope::Job { job, .. } => {
                    if let Some(job) = fleet.jobs.get_mut(job) {
                        job.reset(kind);
                    }
                }
                Scope::Fleet => {}
            }
        }
        register.clear(key, now, Resolution::RuleRemoved);
    }

    /// Whether what a rule finds there is told to nobody.
    pub(super) fn is_shadow(&self, rule: &str, scope: &Scope) -> bool {
        match self.rules_of(scope).standing(rule) {
            Some(rule) => rule.shadow,
            None => self.custom_rule(rule).is_some_and(|rule| rule.shadow),
        }
    }
}
