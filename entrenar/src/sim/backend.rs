//! One simulated node behind the trait that hardware is read through. *(edge: it asks a clock and may block)*

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::node::{NodeState, SimNode};
use super::plan::Answer;
use crate::backend::{Depth, GpuBackend, GpuError, GpuProcess};
use crate::clock::Clock;
use crate::gpu::{GpuInfo, Values};
use crate::report::{GpuEvent, Holder, Labels};
use crate::unit::Timestamp;

/// How often a blocked call looks at the clock, which need not be the machine's.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What the backends of a fleet share: how its time goes, and a way out for calls that block.
pub struct Gate {
    clock: Arc<dyn Clock>,
    start: Timestamp,
    speed: f64,
    /// Monotonic time of the clock when the simulation started.
    began: Duration,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn new(clock: Arc<dyn Clock>, start: Timestamp, speed: f64) -> Self {
        Self {
            began: clock.monotonic(),
            clock,
            start,
            speed,
            open: Mutex::new(false),
            opened: Condvar::new(),
        }
    }

    /// Simulated time now.
    pub fn now(&self) -> Timestamp {
        let passed = self.clock.monotonic().saturating_sub(self.began);
        self.start + passed.mul_f64(self.speed)
    }

    /// Lets every blocked call return, now and later: for shutdown.
    pub fn open(&self) {
        *lock(&self.open) = true;
        self.opened.notify_all();
    }

    /// The clock's wall time of a simulated instant.
    fn wall(&self, at: Timestamp) -> Timestamp {
        let now = self.now();
        let offset_ms = (at.0 - now.0) as f64 / self.speed;
        Timestamp(self.clock.now().0 + offset_ms as i64)
    }

    /// Waits until the simulation reaches a time, or the gate is opened.
    fn wait_until(&self, at: Timestamp) {
        let mut open = lock(&self.open);
        while !*open && self.now() < at {
            open = self.wait(open, LOOK_AGAIN);
        }
    }

    fn wait<'a>(&self, open: MutexGuard<'a, bool>, most: Duration) -> MutexGuard<'a, bool> {
        self.opened
            .wait_timeout(open, most)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

/// One node of a simulated fleet.
pub struct SimBackend {
    node: Mutex<SimNode>,
    gate: Arc<Gate>,
    infos: Vec<GpuInfo>,
    labels: Labels,
    may_block: bool,
    /// Simulated time up to which events were given out.
    told_upto: Mutex<Timestamp>,
}

impl SimBackend {
    pub(crate) fn new(node: SimNode, gate: Arc<Gate>) -> Self {
        Self {
            infos: node.gpus().to_vec(),
            labels: node.labels().clone(),
            may_block: node.may_fall_silent(),
            told_upto: Mutex::new(gate.start),
            node: Mutex::new(node),
            gate,
        }
    }

    /// Where the node hangs.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Whether the node's agent should report now. Whoever runs the agents cuts and stops them by it.
    pub fn state(&self) -> NodeState {
        lock(&self.node).state_at(self.gate.now())
    }

    /// What it shares with the fleet's other backends.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    fn now(&self) -> MutexGuard<'_, SimNode> {
        let mut node = lock(&self.node);
        node.advance_to(self.gate.now());
        node
    }
}

impl GpuBackend for SimBackend {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn driver_version(&self) -> Option<String> {
        Some("simulated".to_owned())
    }

    fn may_block(&self) -> bool {
        self.may_block
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
        Ok(self.infos.clone())
    }

    fn read(&self, gpu: &GpuInfo, depth: Depth) -> Result<Values, GpuError> {
        let device = gpu.index;
        let node = self.now();
        match node.answer(device) {
            None => Err(GpuError::NotFound { device }),
            Some(Answer::Lost) => Err(GpuError::Lost { device }),
            Some(Answer::Yes) => node
                .values(device, depth)
                .ok_or(GpuError::NotFound { device }),
            Some(Answer::NotBefore(end)) => {
                let end = node.timestamp(end);
                drop(node);
                self.gate.wait_until(end);
                self.now()
                    .values(device, depth)
                    .ok_or(GpuError::NotFound { device })
            }
        }
    }

    fn processes(&self, gpu: &GpuInfo) -> Result<Vec<GpuProcess>, GpuError> {
        let node = self.now();
        let pids = node.holder(gpu.index).map(|holder| holder.pids.clone());
        let used = node
            .values(gpu.index, Depth::Fast)
            .and_then(|v| v.get(crate::metric::MEMORY_USED));
        Ok(pids
            .unwrap_or_default()
            .into_iter()
            .map(|pid| GpuProcess {
                pid,
                memory_used_bytes: used.map(|bytes| bytes as u64),
            })
            .collect())
    }

    fn events(&self, timeout: Duration) -> Result<Vec<GpuEvent>, GpuError> {
        let mut told = lock(&self.told_upto);
        let next = lock(&self.node).next_event_after(*told);
        let wait = next.map_or(timeout, |at| {
            at.since(self.gate.now())
                .div_f64(self.gate.speed)
                .min(timeout)
        });
        if wait > Duration::ZERO {
            let open = lock(&self.gate.open);
            drop(self.gate.wait(open, wait));
        }
        let now = self.gate.now();
        let mut events = lock(&self.node).events_between(*told, now);
        *told = now;
        for event in &mut events {
            event.at = self.gate.wall(event.at);
        }
        Ok(events)
    }

    fn holder(&self, gpu: &GpuInfo) -> Option<Option<Holder>> {
        Some(self.now().holder(gpu.index).cloned())
    }
}

/// A poisoned lock only means that a reader panicked: the state behind it is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
