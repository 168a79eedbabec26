//! How hard each kind of work drives a GPU: levels as measured on H100. *(pure)*

use super::activity::{Activity, Memory, RUNNING, Rank, Rates};
use super::board::Board;
use super::job::Workload;
use super::noise::{between, hash};
use crate::metric::clock_reason;

const MB: f64 = 1e6;
const GB: f64 = 1e9;

/// Levels of useful work, in H100's watts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub(crate) watts: f64,
    pub(crate) jitter_watts: f64,
    pub(crate) utilization: (i64, i64),
    pub(crate) memory_utilization: (i64, i64),
    /// SMs, tensor pipes, memory bandwidth.
    pub(crate) active: [f64; 3],
    /// Bytes a second, each way.
    pub(crate) nvlink: f64,
    /// Bytes a second and GPU, both ways, where the job spans nodes.
    pub(crate) network: f64,
    pub(crate) pcie_tx: f64,
    pub(crate) pcie_rx: f64,
    /// Bytes that the host reads, a second.
    pub(crate) read: f64,
}

impl Level {
    /// The level of a workload's useful work.
    pub(crate) fn of(workload: Workload, rank: &Rank) -> Self {
        let base = Self {
            watts: 665.0,
            jitter_watts: 7.0,
            utilization: (98, 100),
            memory_utilization: (40, 48),
            active: [0.87, 0.48, 0.36],
            nvlink: 18.0 * GB,
            network: 2.0 * GB,
            pcie_tx: 8.0 * MB,
            pcie_rx: 28.0 * MB,
            read: 8.0 * MB,
        };
        match workload {
            // Serving, notebooks and benchmarks have their own; these are the levels of their heaviest work.
            Workload::DataParallel | Workload::Inference | Workload::Prefill => base,
            Workload::Notebook => Self {
                network: 0.0,
                ..base
            },
            Workload::SmallSteps => Self {
                watts: 545.0,
                jitter_watts: 12.0,
                utilization: (77, 90),
                memory_utilization: (38, 46),
                active: [0.63, 0.22, 0.31],
                nvlink: 8.9 * GB,
                network: 1.2 * GB,
                pcie_rx: 83.0 * MB,
                read: 30.0 * MB,
                ..base
            },
            // A permanent asymmetry of 15 % between stages is normal.
            Workload::Pipeline => Self {
                watts: if rank.stage().is_multiple_of(2) {
                    417.0
                } else {
                    481.0
                },
                jitter_watts: 8.0,
                utilization: (91, 100),
                memory_utilization: (30, 38),
                active: [0.55, 0.24, 0.28],
                nvlink: 59.0 * GB,
                network: 0.07 * GB,
                ..base
            },
            Workload::Experts => Self {
                watts: 480.0,
                jitter_watts: 18.0,
                utilization: (88, 100),
                memory_utilization: (30, 42),
                active: [0.6, 0.3, 0.34],
                nvlink: 42.0 * GB,
                network: 9.8 * GB,
                ..base
            },
            Workload::Sharded => Self {
                watts: 417.0,
                jitter_watts: 8.0,
                utilization: (93, 100),
                memory_utilization: (19, 38),
                active: [0.56, 0.25, 0.29],
                nvlink: 24.0 * GB,
                network: 3.1 * GB,
                ..base
            },
            Workload::Accumulated => Self {
                watts: 684.0,
                jitter_watts: 4.0,
                utilization: (99, 100),
                memory_utilization: (43, 50),
                active: [0.91, 0.52, 0.38],
                nvlink: 11.0 * GB,
                ..base
            },
            Workload::Offload => Self {
                watts: 345.0,
                jitter_watts: 10.0,
                utilization: (98, 100),
                memory_utilization: (34, 46),
                active: [0.55, 0.26, 0.3],
                nvlink: 6.0 * GB,
                network: 1.1 * GB,
                pcie_tx: 3.0 * GB,
                pcie_rx: 4.0 * GB,
                ..base
            },
            Workload::LoaderBound => Self {
                watts: 410.0,
                jitter_watts: 14.0,
                utilization: (94, 100),
                memory_utilization: (26, 38),
                active: [0.57, 0.18, 0.33],
                nvlink: 7.0 * GB,
                network: 0.9 * GB,
                pcie_rx: 400.0 * MB,
                read: 150.0 * MB,
                ..base
            },
            Workload::Reinforcement => Self {
                watts: 430.0,
                jitter_watts: 16.0,
                utilization: (88, 100),
                memory_utilization: (28, 44),
                active: [0.5, 0.24, 0.32],
                nvlink: 14.0 * GB,
                network: 1.4 * GB,
                ..base
            },
            Workload::Simulation => Self {
                watts: 390.0,
                jitter_watts: 14.0,
                utilization: (60, 96),
                memory_utilization: (12, 58),
                active: [0.52, 0.02, 0.41],
                nvlink: 0.0,
                network: 0.25 * GB,
                pcie_tx: 260.0 * MB,
                pcie_rx: 260.0 * MB,
                read: 1.0 * MB,
            },
            Workload::Benchmark => Self {
                watts: 699.0,
                jitter_watts: 2.5,
                utilization: (100, 100),
                memory_utilization: (55, 72),
                active: [0.98, 0.86, 0.5],
                nvlink: 0.0,
                network: 0.0,
                ..base
            },
            Workload::Shared => Self {
                watts: 260.0,
                jitter_watts: 15.0,
                utilization: (35, 78),
                memory_utilization: (10, 30),
                active: [0.35, 0.11, 0.22],
                nvlink: 0.0,
                network: 0.0,
                ..base
            },
        }
    }

    /// What a GPU does at this level.
    pub(crate) fn activity(&self, board: &Board, rank: &Rank) -> Activity {
        let own = between(hash(&[rank.seed, 11]), 0.985, 1.015);
        let limit = board.power_limit_watts;
        let watts = board.watts(self.watts) * own;
        // Close to the cap the board is held by it: normal, and no reason to call anyone.
        let is_capped = board.watts(self.watts) > 0.9 * limit;
        let clock = if is_capped { 90 } else { 0 };
        Activity {
            watts: watts.min(limit * 0.98),
            jitter_watts: self.jitter_watts * limit / 700.0,
            utilization: self.utilization,
            memory_utilization: self.memory_utilization,
            sm_clock_mhz: board.sm_clock_mhz - clock,
            clock_reasons: if is_capped {
                clock_reason::SW_POWER_CAP
            } else {
                0
            },
            memory: Memory {
                bytes: rank.memory_bytes,
                bytes_per_second: 0.0,
            },
            rates: self.rates(rank),
            processes: 1,
            process_state: RUNNING,
        }
    }

    fn rates(&self, rank: &Rank) -> Rates {
        Rates {
            active: self.active,
            pcie_tx: self.pcie_tx,
            pcie_rx: self.pcie_rx,
            nvlink: if rank.ranks > 1 { self.nvlink } else { 0.0 },
            network: if rank.spans_nodes { self.network } else { 0.0 },
            cpu: 2.4,
            read: self.read,
            write: 4e3,
        }
    }

    /// The same work, harder or lighter.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self {
            watts: 120.0 + (self.watts - 120.0) * factor,
            active: self.active.map(|ratio| (ratio * factor).min(0.99)),
            nvlink: self.nvlink * factor,
            network: self.network * factor,
            ..self
        }
    }
}
