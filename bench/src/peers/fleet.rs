//! The fleet that all are given: what the simulator's nodes say in the metrics that dcgm-exporter has by default.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use entrenar::backend::Depth;
use entrenar::gpu::Values;
use entrenar::metric::{self, MetricId};
use entrenar::sim::{Scenario, SimFleet, SimNode};

use crate::fleet::{GPUS, NodeTicks};

/// A metric of ours, and what dcgm-exporter would call it.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    pub id: MetricId,
    /// Its field in DCGM, which is its name in Prometheus.
    pub dcgm: &'static str,
    pub is_counter: bool,
    /// Digits after the point that the device gives.
    pub decimals: u32,
}

macro_rules! shared {
    ($($id:ident $dcgm:literal $counter:literal $decimals:literal;)*) => {
        &[$(Shared { id: metric::$id, dcgm: $dcgm, is_counter: $counter, decimals: $decimals },)*]
    };
}

/// dcgm-exporter's default counters and profiling fields, as far as the simulator knows what they show. Fields that it
/// has no counterpart of (encoder, decoder, vGPU licence, XID) are replaced by other fields of DCGM that hardly ever
/// change, as those do. Each number is what the device says, to its last digit: the same for all.
pub const METRICS: &[Shared] = shared! {
    SM_CLOCK "DCGM_FI_DEV_SM_CLOCK" false 0;
    MEMORY_CLOCK "DCGM_FI_DEV_MEM_CLOCK" false 0;
    MEMORY_TEMPERATURE "DCGM_FI_DEV_MEMORY_TEMP" false 0;
    TEMPERATURE "DCGM_FI_DEV_GPU_TEMP" false 0;
    POWER "DCGM_FI_DEV_POWER_USAGE" false 3;
    ENERGY "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" true 0;
    PCIE_REPLAY "DCGM_FI_DEV_PCIE_REPLAY_COUNTER" true 0;
    UTILIZATION "DCGM_FI_DEV_GPU_UTIL" false 0;
    MEMORY_UTILIZATION "DCGM_FI_DEV_MEM_COPY_UTIL" false 0;
    MEMORY_TOTAL "DCGM_FI_DEV_FB_TOTAL" false 0;
    MEMORY_USED "DCGM_FI_DEV_FB_USED" false 0;
    NVLINK_TX "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL" true 0;
    ECC_CORRECTED "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL" true 0;
    ECC_UNCORRECTED "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL" true 0;
    REMAPPED_ROWS_PENDING "DCGM_FI_DEV_ROW_REMAP_PENDING" false 0;
    REMAPPED_ROWS_FAILURE "DCGM_FI_DEV_ROW_REMAP_FAILURE" false 0;
    CLOCK_EVENT_REASONS "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS" false 0;
    POWER_LIMIT "DCGM_FI_DEV_ENFORCED_POWER_LIMIT" false 3;
    PCIE_LINK_WIDTH "DCGM_FI_DEV_PCIE_LINK_WIDTH" false 0;
    SM_ACTIVE "DCGM_FI_PROF_GR_ENGINE_ACTIVE" false 6;
    TENSOR_ACTIVE "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE" false 6;
    DRAM_ACTIVE "DCGM_FI_PROF_DRAM_ACTIVE" false 6;
    PCIE_TX "DCGM_FI_PROF_PCIE_TX_BYTES" true 0;
    PCIE_RX "DCGM_FI_PROF_PCIE_RX_BYTES" true 0;
};

/// Series of a node.
pub const NODE_SERIES: u64 = (METRICS.len() * GPUS) as u64;

/// What a fleet of so many different nodes says in some ticks, every metric at each.
pub fn simulate(nodes: u32, ticks: u32, interval: Duration) -> Result<Vec<NodeTicks>> {
    let mut fleet = SimFleet::new(&Scenario::Steady.config(nodes, GPUS as u32))?;
    let start = fleet.start();
    let mut all = Vec::new();
    for node in fleet.nodes_mut() {
        let mut rows = Vec::with_capacity(ticks as usize);
        for tick in 0..ticks {
            node.advance_to(start + interval * tick);
            rows.push(look(node)?);
        }
        all.push(NodeTicks {
            gpus: node.gpus().to_vec(),
            holders: (0..GPUS as u32).map(|g| node.holder(g).cloned()).collect(),
            ticks: rows,
        });
    }
    Ok(all)
}

/// All GPUs of a node at its instant.
fn look(node: &SimNode) -> Result<Vec<Values>> {
    let row = |gpu| {
        let all = node.values(gpu, Depth::Full).context("eight GPUs")?;
        let mut kept = Values::default();
        for shared in METRICS {
            kept.set(shared.id, all.get(shared.id));
        }
        ensure!(
            kept.iter().count() == METRICS.len(),
            "a simulated GPU does not say all metrics that are compared"
        );
        Ok(kept)
    };
    (0..GPUS as u32).map(row).collect()
}

impl Shared {
    /// What a value is to a peer.
    pub fn value(&self, raw: i64) -> f64 {
        raw as f64 / 10_f64.powi(self.decimals as i32)
    }

    /// The same as text, without zeros at the end.
    pub fn write(&self, raw: i64, page: &mut Vec<u8>) {
        use std::io::Write as _;
        let one = 10_i64.pow(self.decimals);
        // Writing to memory does not fail.
        let _ = write!(page, "{}", raw / one);
        let mut rest = raw.rem_euclid(one);
        let mut digits = self.decimals as usize;
        while digits > 0 && rest % 10 == 0 {
            rest /= 10;
            digits -= 1;
        }
        if digits > 0 {
            let _ = write!(page, ".{rest:0digits$}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_are_the_same_value() {
        let shared = |decimals| Shared {
            decimals,
            ..METRICS[0]
        };
        for (decimals, raw, text) in [
            (0, 1980, "1980"),
            (3, 512_345, "512.345"),
            (3, 700_000, "700"),
            (6, 50_000, "0.05"),
            (6, 1_000_001, "1.000001"),
        ] {
            let mut page = Vec::new();
            shared(decimals).write(raw, &mut page);
            assert_eq!(String::from_utf8(page).unwrap(), text);
            let parsed: f64 = text.parse().unwrap();
            assert!((parsed - shared(decimals).value(raw)).abs() < 1e-12);
        }
    }

    #[test]
    fn every_gpu_says_every_metric_at_every_tick() {
        let nodes = simulate(8, 3, Duration::from_secs(1)).unwrap();
        let said: usize = nodes.iter().map(NodeTicks::n_samples).sum();
        assert_eq!(said as u64, 8 * 3 * NODE_SERIES);
    }
}
