//! What a GPU is doing: the levels and rates of each state that its job can put it in. *(pure)*

use super::job::Workload;
use super::noise::{between, hash};
use super::physics::Board;
use crate::metric::clock_reason;

/// Levels and rates of a GPU from one instant until the next change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Activity {
    /// Power that it settles at, in watts.
    pub(crate) watts: f64,
    /// Standard deviation around it.
    pub(crate) jitter_watts: f64,
    /// Lowest and highest percentage.
    pub(crate) utilization: (i64, i64),
    /// Lowest and highest percentage.
    pub(crate) memory_utilization: (i64, i64),
    /// Ratios of SMs, tensor pipes and memory bandwidth.
    pub(crate) active: [f64; 3],
    pub(crate) sm_clock_mhz: i64,
    pub(crate) clock_reasons: i64,
    pub(crate) memory: Memory,
    pub(crate) rates: Rates,
    pub(crate) processes: i64,
    /// As in the catalogue: 0 running, 1 sleeping, 2 blocked on input or output, 3 stopped.
    pub(crate) process_state: i64,
}

/// Device memory in use: a level, and what it grows by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    pub(crate) bytes: f64,
    pub(crate) bytes_per_second: f64,
}

/// What running totals grow by, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) pcie_tx: f64,
    pub(crate) pcie_rx: f64,
    /// Each way.
    pub(crate) nvlink: f64,
    /// Share of the node's RDMA traffic, both ways.
    pub(crate) network: f64,
    /// CPU seconds.
    pub(crate) cpu: f64,
    pub(crate) read: f64,
    pub(crate) write: f64,
}

const MB: f64 = 1e6;
const GB: f64 = 1e9;

impl Activity {
    /// Nobody has a context: what an unallocated GPU does.
    pub(crate) fn off(board: &Board) -> Self {
        Self {
            watts: board.off_watts,
            jitter_watts: 0.1,
            utilization: (0, 0),
            memory_utilization: (0, 0),
            active: [0.0; 3],
            sm_clock_mhz: board.sm_clock_off_mhz,
            clock_reasons: clock_reason::GPU_IDLE,
            memory: Memory {
                bytes: 3.0 * 1024.0 * 1024.0,
                bytes_per_second: 0.0,
            },
            rates: Rates::default(),
            processes: 0,
            process_state: 1,
        }
    }

    /// A context is loaded and nothing runs: the clocks stay up, and no reason says that they idle.
    pub(crate) fn idle(board: &Board, memory_bytes: f64) -> Self {
        Self {
            watts: board.idle_watts,
            jitter_watts: 0.15,
            sm_clock_mhz: board.sm_clock_mhz,
            clock_reasons: 0,
            memory: Memory {
                bytes: memory_bytes,
                bytes_per_second: 0.0,
            },
            rates: Rates {
                pcie_tx: 2e3,
                pcie_rx: 2e3,
                cpu: 0.01,
                ..Rates::default()
            },
            processes: 1,
            ..Self::off(board)
        }
    }

    /// A busy wait in a collective: utilisation says busy, power says idle, the links are silent.
    pub(crate) fn spin(board: &Board, memory_bytes: f64) -> Self {
        Self {
            watts: board.spin_watts,
            jitter_watts: 0.6,
            utilization: (99, 100),
            memory_utilization: (0, 1),
            active: [0.1818, 0.0, 0.000_01],
            rates: Rates {
                pcie_tx: 2e4,
                pcie_rx: 2e4,
                cpu: 1.0,
                ..Rates::default()
            },
            process_state: 0,
            ..Self::idle(board, memory_bytes)
        }
    }

    /// A rank that copies its state to the host, to be written out.
    pub(crate) fn copy_to_host(board: &Board, memory_bytes: f64) -> Self {
        let idle = Self::idle(board, memory_bytes);
        Self {
            watts: board.idle_watts + 3.0,
            utilization: (0, 2),
            memory_utilization: (0, 1),
            rates: Rates {
                pcie_tx: 9.0 * GB,
                cpu: 1.0,
                ..idle.rates
            },
            process_state: 0,
            ..idle
        }
    }

    /// A rank whose host writes the checkpoint out.
    pub(crate) fn write_out(board: &Board, memory_bytes: f64) -> Self {
        let idle = Self::idle(board, memory_bytes);
        Self {
            rates: Rates {
                cpu: 0.6,
                write: 1.6 * GB,
                ..idle.rates
            },
            process_state: 2,
            ..idle
        }
    }

    /// Useful work of a rank. `spread`: whether the job has ranks on other nodes.
    pub(crate) fn work(board: &Board, workload: Workload, rank: &Rank) -> Self {
        let level = Level::of(workload, rank);
        let own = between(hash(&[rank.seed, 11]), 0.985, 1.015);
        // Close to the cap the board is held by it: normal, and no reason to call anyone.
        let capped = level.watts > 0.9 * board.power_limit_watts;
        let reasons = if capped {
            clock_reason::SW_POWER_CAP
        } else {
            0
        };
        Self {
            watts: (level.watts * own).min(board.power_limit_watts - 14.0),
            jitter_watts: level.jitter_watts,
            utilization: level.utilization,
            memory_utilization: level.memory_utilization,
            active: level.active,
            sm_clock_mhz: if capped {
                board.sm_clock_mhz - 90
            } else {
                board.sm_clock_mhz
            },
            clock_reasons: reasons,
            memory: Memory {
                bytes: rank.memory_bytes,
                bytes_per_second: 0.0,
            },
            rates: level.rates(rank),
            processes: 1,
            process_state: 0,
        }
    }

    /// A kernel that runs but is served now and then: decode of an inference server, a cell of a notebook.
    pub(crate) fn burst(board: &Board, memory_bytes: f64, load: f64) -> Self {
        let utilization = (30.0 + 60.0 * load) as i64;
        let memory_utilization = (8.0 + 22.0 * load) as i64;
        let idle = Self::idle(board, memory_bytes);
        Self {
            watts: 150.0 + 240.0 * load,
            jitter_watts: 6.0,
            utilization: (utilization - 4, utilization + 4),
            memory_utilization: (memory_utilization - 2, memory_utilization + 2),
            active: [0.12 + 0.3 * load, 0.03 + 0.15 * load, 0.1 + 0.3 * load],
            rates: Rates {
                pcie_tx: 30.0 * MB * load,
                pcie_rx: 40.0 * MB * load,
                cpu: 0.9,
                ..idle.rates
            },
            process_state: 0,
            ..idle
        }
    }

    /// The same load under a hardware clock cut.
    pub(crate) fn slowed(self, board: &Board, clock_share: f64, reasons: i64) -> Self {
        let step = 15;
        let clock = (board.sm_clock_mhz as f64 * clock_share) as i64 / step * step;
        let work = (self.watts - board.idle_watts).max(0.0);
        Self {
            watts: (self.watts - work * (1.0 - clock_share)).max(board.off_watts),
            jitter_watts: self.jitter_watts * clock_share,
            active: self.active.map(|ratio| ratio * clock_share),
            sm_clock_mhz: self.sm_clock_mhz.min(clock),
            clock_reasons: (self.clock_reasons & !clock_reason::SW_POWER_CAP) | reasons,
            rates: self.rates.slowed(clock_share),
            ..self
        }
    }
}

impl Rates {
    fn slowed(self, share: f64) -> Self {
        Self {
            pcie_tx: self.pcie_tx * share,
            pcie_rx: self.pcie_rx * share,
            nvlink: self.nvlink * share,
            network: self.network * share,
            ..self
        }
    }
}

/// A GPU's place in its job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rank {
    pub(crate) seed: u64,
    pub(crate) number: u32,
    pub(crate) ranks: u32,
    /// Whether the job has ranks on more than one node.
    pub(crate) spans_nodes: bool,
    /// Device memory that it holds.
    pub(crate) memory_bytes: f64,
}

impl Rank {
    /// The pipeline stage, of four.
    pub(crate) fn stage(&self) -> u32 {
        self.number * PIPELINE_STAGES / self.ranks.max(1)
    }
}

/// Stages of a pipeline-parallel job.
pub(crate) const PIPELINE_STAGES: u32 = 4;

/// Levels of useful work.
struct Level {
    watts: f64,
    jitter_watts: f64,
    utilization: (i64, i64),
    memory_utilization: (i64, i64),
    active: [f64; 3],
    nvlink: f64,
    network: f64,
}

impl Level {
    fn of(workload: Workload, rank: &Rank) -> Self {
        match workload {
            Workload::SmallSteps => Self {
                watts: 545.0,
                jitter_watts: 12.0,
                utilization: (77, 90),
                memory_utilization: (38, 46),
                active: [0.6, 0.26, 0.31],
                nvlink: 8.9 * GB,
                network: 1.2 * GB,
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
            },
            // Serving and notebooks work in bursts; this level is never asked for.
            Workload::DataParallel | Workload::Inference | Workload::Notebook => Self {
                watts: 665.0,
                jitter_watts: 5.0,
                utilization: (98, 100),
                memory_utilization: (42, 48),
                active: [0.87, 0.48, 0.42],
                nvlink: 18.0 * GB,
                network: 4.5 * GB,
            },
        }
    }

    fn rates(&self, rank: &Rank) -> Rates {
        Rates {
            pcie_tx: 40.0 * MB,
            pcie_rx: 90.0 * MB,
            nvlink: if rank.ranks > 1 { self.nvlink } else { 0.0 },
            network: if rank.spans_nodes { self.network } else { 0.0 },
            cpu: 1.1,
            read: 25.0 * MB,
            write: 4e3,
        }
    }
}
