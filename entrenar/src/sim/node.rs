//! One simulated node: its GPUs, where it hangs, and what its agent would see. *(pure)*

use super::gpu::SimGpu;
use super::job::SimMillis;
use super::node_name;
use super::noise::hash;
use super::plan::{Answer, NodePlan};
use crate::backend::Depth;
use crate::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use crate::metric;
use crate::report::{GpuEvent, GpuEventKind, Holder, Labels};
use crate::unit::Timestamp;

/// How long the fleet has run before its start: long enough for every heat sink to be warm.
pub(crate) const WARM_UP_MS: SimMillis = 3 * 3_600_000;

/// Whether a node's agent reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It does.
    Up,
    /// The node is gone without a word.
    Lost,
    /// The agent was stopped in an orderly way, and will be back.
    Stopped,
}

/// A simulated node at an instant of its own.
#[derive(Clone, Debug)]
pub struct SimNode {
    name: NodeId,
    labels: Labels,
    infos: Vec<GpuInfo>,
    plan: NodePlan,
    gpus: Vec<SimGpu>,
    /// Wall time of the simulation's own 0.
    origin: Timestamp,
    now: SimMillis,
    /// RDMA bytes of the node at `now`.
    network_bytes: i64,
}

impl SimNode {
    /// A node that has run for a while when the simulation starts: for `start_ms` since the simulation's own 0.
    pub(crate) fn new(
        start: Timestamp,
        start_ms: SimMillis,
        index: u32,
        mut plan: NodePlan,
        pace: f64,
    ) -> Self {
        let infos = (0..plan.slots.len() as u32)
            .map(|gpu| info_of(&plan, index, gpu))
            .collect();
        let slots = std::mem::take(&mut plan.slots).into_iter().zip(0..);
        let mut node = Self {
            name: node_name(index).into(),
            labels: plan.labels.clone(),
            infos,
            gpus: slots
                .map(|(slot, gpu)| SimGpu::new(slot, gpu, 0, pace))
                .collect(),
            plan,
            origin: Timestamp(start.0 - start_ms),
            now: 0,
            network_bytes: 0,
        };
        node.advance_to(start);
        node
    }

    /// Its name: `n01`, `n02`, …
    pub fn name(&self) -> &NodeId {
        &self.name
    }

    /// Where it hangs: `rack`, `switch`, `power_feed`.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Its GPUs in the order of their index.
    pub fn gpus(&self) -> &[GpuInfo] {
        &self.infos
    }

    /// Lives on until `now`; a time that has passed changes nothing.
    pub fn advance_to(&mut self, now: Timestamp) {
        self.now = self.now.max(self.millis(now));
        let mut network = 0.0;
        for gpu in &mut self.gpus {
            gpu.advance_to(self.now);
            network += gpu.network_bytes();
        }
        self.network_bytes = network as i64 / 1024 * 1024;
    }

    /// The instant that it has been advanced to.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.origin.0 + self.now)
    }

    /// What a GPU would say now, of the metrics of a depth. `None`: there is no such GPU.
    ///
    /// It says so whether or not a fault keeps anyone from asking: see [`Self::is_lost`] and [`Self::is_silent`].
    pub fn values(&self, gpu: u32, depth: Depth) -> Option<Values> {
        let mut values = Values::default();
        self.read_into(gpu, depth, &mut values).then_some(values)
    }

    /// The same, into a row that says nothing yet. Returns whether there is such a GPU.
    pub(crate) fn read_into(&self, gpu: u32, depth: Depth, values: &mut Values) -> bool {
        let Some(gpu) = self.gpus.get(gpu as usize) else {
            return false;
        };
        gpu.fast(values);
        values.set(metric::NETWORK, self.network_bytes);
        if depth == Depth::Full {
            gpu.slow(values);
        }
        true
    }

    /// Who holds a GPU now.
    pub fn holder(&self, gpu: u32) -> Option<&Holder> {
        let holder = self.gpus.get(gpu as usize)?.slot().holder(self.now);
        holder.map(AsRef::as_ref)
    }

    /// What the simulation knows of a GPU's fate beyond its readings.
    pub(crate) fn slot(&self, gpu: u32) -> Option<&super::plan::Slot> {
        Some(self.gpus.get(gpu as usize)?.slot())
    }

    /// Seconds that the parts of a GPU were busy, so far.
    pub(crate) fn active_secs(&self, gpu: u32) -> [f64; 3] {
        let gpu = self.gpus.get(gpu as usize);
        gpu.map_or([0.0; 3], SimGpu::active_secs)
    }

    /// What will happen to the node.
    pub(crate) fn plan(&self) -> &NodePlan {
        &self.plan
    }

    /// Whether the GPU is on the bus, and whether a call for it comes back: lost GPUs answer with an error, silent
    /// ones not at all.
    pub(crate) fn answer(&self, gpu: u32) -> Option<Answer> {
        Some(self.gpus.get(gpu as usize)?.slot().answer(self.now))
    }

    /// Whether the GPU has fallen off the bus.
    pub fn is_lost(&self, gpu: u32) -> bool {
        self.answer(gpu) == Some(Answer::Lost)
    }

    /// Whether a call for the GPU would block now.
    pub fn is_silent(&self, gpu: u32) -> bool {
        matches!(self.answer(gpu), Some(Answer::NotBefore(_)))
    }

    /// Whether a call for any of its GPUs ever blocks.
    pub(crate) fn may_fall_silent(&self) -> bool {
        self.gpus.iter().any(|gpu| gpu.slot().may_fall_silent())
    }

    /// Whether its agent reports at an instant. Every instant can be asked for.
    pub fn state_at(&self, at: Timestamp) -> NodeState {
        match self.plan.outage(self.millis(at)) {
            None => NodeState::Up,
            Some(outage) if outage.planned => NodeState::Stopped,
            Some(_) => NodeState::Lost,
        }
    }

    /// The events after one instant and up to another, in order.
    pub fn events_between(&self, after: Timestamp, upto: Timestamp) -> Vec<GpuEvent> {
        let (after, upto) = (self.millis(after), self.millis(upto));
        self.plan
            .xids
            .iter()
            .filter(|xid| after < xid.at && xid.at <= upto)
            .map(|xid| GpuEvent {
                at: Timestamp(self.origin.0 + xid.at),
                gpu: Some(self.infos[xid.gpu as usize].uuid.clone()),
                what: GpuEventKind::Xid(xid.code),
            })
            .collect()
    }

    /// When the next event after an instant is due.
    pub(crate) fn next_event_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = self.millis(after);
        let next = self.plan.xids.iter().find(|xid| after < xid.at)?;
        Some(Timestamp(self.origin.0 + next.at))
    }

    pub(crate) fn timestamp(&self, millis: SimMillis) -> Timestamp {
        Timestamp(self.origin.0.saturating_add(millis))
    }

    fn millis(&self, at: Timestamp) -> SimMillis {
        at.0.saturating_sub(self.origin.0)
    }
}

fn info_of(plan: &NodePlan, node: u32, gpu: u32) -> GpuInfo {
    let slot = &plan.slots[gpu as usize];
    let (high, low) = (hash(&[slot.seed, 51]), hash(&[slot.seed, 52]));
    GpuInfo {
        uuid: GpuUuid::from(format!(
            "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )),
        index: gpu,
        name: slot.board.name.to_owned(),
        pci_bus_id: Some(format!("00000000:{:02X}:00.0", 4 + 0x10 * gpu % 0xf0)),
        serial: Some(format!("16{:011}", u64::from(node) * 100 + u64::from(gpu))),
        memory_total_bytes: Some(slot.board.memory_total_bytes as u64),
        parent: None,
    }
}
