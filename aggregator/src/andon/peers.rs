//! What the other GPUs of a node say about one: the same boards in the same chassis. *(pure)*

use super::gpu::Gpu;

/// Fewer others than this are no measure.
const ENOUGH: i64 = 2;

/// The GPUs of a node, as of the tick before; all empty where they are not of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peers {
    /// Highest power limit.
    pub(super) limit_mw: Option<i64>,
    /// Most PCIe lanes, and the highest generation.
    pub(super) pcie_width: Option<i64>,
    pub(super) pcie_gen: Option<i64>,
    /// Highest clock that any of them was seen at.
    pub(super) top_mhz: Option<i64>,
    /// Clocks of those that work.
    mhz: Sum,
    /// Above their usual temperature, in hundredths of a degree.
    excess: Sum,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    n: i64,
    of: i64,
}

impl Sum {
    fn add(&mut self, value: Option<i64>) {
        if let Some(value) = value {
            (self.n, self.of) = (self.n + 1, self.of + value);
        }
    }

    /// The mean of all but one.
    fn without(self, own: Option<i64>) -> Option<i64> {
        let (n, of) = own.map_or((self.n, self.of), |own| (self.n - 1, self.of - own));
        (n >= ENOUGH).then(|| of / n)
    }
}

impl Peers {
    pub(super) fn of(gpus: &[Gpu]) -> Self {
        let mut peers = Self::default();
        let Some((first, others)) = gpus.split_first() else {
            return peers;
        };
        let is_one_of_them = |gpu: &Gpu| !gpu.is_partition && gpu.model() == first.model();
        if others.is_empty() || first.is_partition || !others.iter().all(is_one_of_them) {
            return peers;
        }
        for gpu in gpus {
            let watches = &gpu.watches;
            peers.limit_mw = peers.limit_mw.max(gpu.limit_mw());
            peers.pcie_width = peers.pcie_width.max(watches.pcie_degraded.most_lanes());
            peers.pcie_gen = peers.pcie_gen.max(watches.pcie_degraded.highest_gen());
            peers.top_mhz = peers.top_mhz.max(watches.thermal_throttling.top_mhz());
            peers.mhz.add(gpu.working_mhz());
            peers.excess.add(watches.thermal_drift.excess());
        }
        peers
    }

    /// Mean clock of the others that work. `own`: of this one, if it is among them.
    pub(super) fn others_mhz(&self, own: Option<i64>) -> Option<i64> {
        self.mhz.without(own)
    }

    /// By how much the others are above their usual temperature, on average.
    pub(super) fn others_excess(&self, own: Option<i64>) -> Option<i64> {
        self.excess.without(own)
    }
}
