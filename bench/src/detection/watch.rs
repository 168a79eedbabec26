//! The engine beside a simulated fleet: each tick as the live line would tell it, by the clock of its arrival. *(pure)*
//!
//! It says the same as a back-test of the fleet's trace, without the trace.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use entrenar::report::{GpuEvent, GpuEventKind, Holder, HolderChange, Inventory};
use entrenar::sim::{FeedNode, News, NodeTick};
use entrenar::unit::Timestamp;
use entrenar_aggregator::andon::{Engine, RuleSet};
use entrenar_aggregator::backtest::{Incident, Reports};

/// The engine's clock is moved so often.
const STEP_MS: i64 = 1000;

/// An engine that hears a fleet.
pub struct Watch {
    engine: Engine,
    reports: Reports,
    nodes: Vec<Known>,
    interval_ms: u32,
    /// How many GPUs each job holds.
    jobs: HashMap<String, usize>,
    now: Option<Timestamp>,
}

/// A node as it was last told.
struct Known {
    node: FeedNode,
    inventory: Inventory,
    is_met: bool,
    holders: Vec<Option<Arc<Holder>>>,
    suspended: u32,
    last_at: Option<Timestamp>,
}

impl Watch {
    /// An engine with the built-in rules that knows nothing of these nodes yet.
    pub fn new(nodes: &[FeedNode], interval_ms: u32) -> Self {
        let known = |node: &FeedNode| Known {
            inventory: Inventory {
                generation: 1,
                gpus: node.gpus.clone(),
            },
            is_met: false,
            holders: vec![None; node.gpus.len()],
            suspended: 0,
            last_at: None,
            node: node.clone(),
        };
        Self {
            engine: Engine::new(RuleSet::default(), "bench"),
            reports: Reports::default(),
            nodes: nodes.iter().map(known).collect(),
            interval_ms,
            jobs: HashMap::new(),
            now: None,
        }
    }

    /// The next tick, in order of arrival.
    pub fn take(&mut self, tick: &NodeTick) {
        let now = tick.arrives;
        self.move_to(now);
        self.tell_news(now, tick);
        if tick.rows.is_empty() {
            return;
        }
        self.meet(now, tick.node);
        self.tell_suspended(now, tick);
        let known = &mut self.nodes[tick.node];
        let in_order = known.last_at.is_none_or(|last| last < tick.at);
        if in_order {
            known.last_at = Some(tick.at);
        }
        self.engine
            .observe(now, &known.node.name, tick.at, in_order, &tick.rows);
        self.listen(now);
    }

    /// The process ends and another begins at `now`, with what the first one had kept.
    pub fn restart(&mut self, now: Timestamp) -> Result<()> {
        let kept = self.engine.snapshot();
        self.engine = Engine::restore(RuleSet::default(), &kept)
            .context("could not restore the engine from its own snapshot")?;
        self.engine.resume(now);
        self.now = Some(now);
        // Agents connect anew.
        self.nodes.iter_mut().for_each(|known| known.is_met = false);
        Ok(())
    }

    /// What people were told.
    pub fn finish(mut self) -> Vec<Incident> {
        if let Some(now) = self.now {
            self.advance(now);
        }
        self.reports.into_incidents()
    }

    fn move_to(&mut self, now: Timestamp) {
        let from = *self.now.get_or_insert(now);
        let mut at = Timestamp((from.0 / STEP_MS + 1) * STEP_MS);
        while at <= now {
            self.advance(at);
            at = Timestamp(at.0 + STEP_MS);
        }
        self.now = Some(from.max(now));
    }

    fn advance(&mut self, now: Timestamp) {
        self.engine.advance(now);
        self.listen(now);
    }

    fn listen(&mut self, now: Timestamp) {
        for said in self.engine.drain() {
            let jobs = &self.jobs;
            self.reports.take(now, said, |job| jobs.get(job).copied());
        }
    }

    fn meet(&mut self, now: Timestamp, node: usize) {
        let known = &mut self.nodes[node];
        if !std::mem::replace(&mut known.is_met, true) {
            let FeedNode { name, labels, .. } = &known.node;
            self.engine
                .hello(now, name, labels, &known.inventory, self.interval_ms);
        }
    }

    fn tell_news(&mut self, now: Timestamp, tick: &NodeTick) {
        for news in &tick.news {
            let known = &mut self.nodes[tick.node];
            let name = &known.node.name;
            match news {
                News::AgentStart => {
                    known.is_met = false;
                    self.meet(now, tick.node);
                }
                News::Goodbye => {
                    known.is_met = false;
                    self.engine.goodbye(now, name);
                }
                News::MaintenanceStart => self.engine.maintenance(now, name, true),
                News::MaintenanceEnd => self.engine.maintenance(now, name, false),
                News::Xid { gpu, code } => {
                    let event = GpuEvent {
                        at: tick.at,
                        gpu: Some(known.node.gpus[*gpu as usize].uuid.clone()),
                        what: GpuEventKind::Xid(*code),
                    };
                    self.meet(now, tick.node);
                    let name = &self.nodes[tick.node].node.name;
                    self.engine.event(now, name, &event);
                }
                News::Holder { gpu, holder } => {
                    self.meet(now, tick.node);
                    self.tell_holder(now, tick, *gpu as usize, holder.as_ref());
                }
            }
        }
        if !tick.news.is_empty() {
            self.listen(now);
        }
    }

    fn tell_holder(
        &mut self,
        now: Timestamp,
        tick: &NodeTick,
        gpu: usize,
        holder: Option<&Arc<Holder>>,
    ) {
        let known = &mut self.nodes[tick.node];
        let before = std::mem::replace(&mut known.holders[gpu], holder.cloned());
        if before.as_ref() == holder {
            return;
        }
        if let Some(count) = before.and_then(|held| self.jobs.get_mut(&held.job)) {
            *count = count.saturating_sub(1);
        }
        if let Some(holder) = holder {
            *self.jobs.entry(holder.job.clone()).or_default() += 1;
        }
        let change = HolderChange {
            at: tick.at,
            gpu: known.node.gpus[gpu].uuid.clone(),
            holder: holder.map(|holder| Holder::clone(holder)),
        };
        known.suspended &= !(1 << gpu);
        self.engine.holder(now, &known.node.name, &change);
    }

    fn tell_suspended(&mut self, now: Timestamp, tick: &NodeTick) {
        let known = &mut self.nodes[tick.node];
        let changed = known.suspended ^ tick.suspended;
        known.suspended = tick.suspended;
        if changed == 0 {
            return;
        }
        for (gpu, info) in known.node.gpus.iter().enumerate() {
            if changed >> gpu & 1 == 1 {
                let on = tick.suspended >> gpu & 1 == 1;
                self.engine.suspended(now, &info.uuid, on);
            }
        }
    }
}
