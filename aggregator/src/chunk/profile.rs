//! How exactly history is kept.

use entrenar::gpu::Values;
use entrenar::metric::{
    DRAM_ACTIVE, ENERGY, Kind, MetricId, NETWORK, NVLINK_RX, NVLINK_TX, PCIE_RX, PCIE_TX, POWER,
    PROCESS_READ, PROCESS_WRITE, SM_ACTIVE, TENSOR_ACTIVE,
};

/// How exactly history is kept. A coarser profile is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Profile {
    /// Every value as it came.
    #[default]
    Exact,
    /// Rounded to what the sensors mean: power to 0.1 W, ratios to 0.1 %, traffic to 1 MB, energy to 1 J. What is left out
    /// is noise: the power sensor of an A100 or H100 looks a quarter of the time (arXiv 2312.02741).
    Sensor,
}

/// Metrics that are rounded, and to how many of the catalogue's units.
const STEPS: [(MetricId, i64); 12] = [
    (POWER, 100),
    (ENERGY, 1_000),
    (PCIE_TX, 1_000_000),
    (PCIE_RX, 1_000_000),
    (NVLINK_TX, 1_000_000),
    (NVLINK_RX, 1_000_000),
    (NETWORK, 1_000_000),
    (PROCESS_READ, 1_000_000),
    (PROCESS_WRITE, 1_000_000),
    (SM_ACTIVE, 1_000),
    (TENSOR_ACTIVE, 1_000),
    (DRAM_ACTIVE, 1_000),
];

impl Profile {
    /// The word in answers and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Sensor => "sensor",
        }
    }

    /// Its number in a chunk.
    pub(super) const fn code(self) -> u8 {
        self as u8
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Exact),
            1 => Some(Self::Sensor),
            _ => None,
        }
    }

    /// The values as this profile keeps them: gauges to the nearest step; counters down, so that none goes back.
    pub fn round(self, values: &mut Values) {
        if self == Self::Exact {
            return;
        }
        for (metric, step) in STEPS {
            if let Some(value) = values.get(metric) {
                let is_gauge = metric.def().is_none_or(|def| def.kind == Kind::Gauge);
                let up = if is_gauge { step / 2 } else { 0 };
                let whole = value.saturating_add(up).div_euclid(step);
                values.set(metric, whole.saturating_mul(step));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_go_to_the_nearest_step_and_counters_never_back() {
        let mut values = Values::default()
            .with(POWER, 690_049)
            .with(SM_ACTIVE, 181_805)
            .with(ENERGY, 74_897_773)
            .with(entrenar::metric::TEMPERATURE, 57);
        let exact = values.clone();
        Profile::Exact.round(&mut values);
        assert_eq!(values, exact);
        Profile::Sensor.round(&mut values);
        let kept = values.iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(kept, [57, 690_000, 74_897_000, 182_000]);
    }
}
