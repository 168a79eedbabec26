//! What a GPU is doing: the levels and rates of each state that its job can put it in. *(pure)*

use super::board::Board;
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
    /// SMs, tensor pipes and memory bandwidth in use: ratios, so that seconds of them add up.
    pub(crate) active: [f64; 3],
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

impl Activity {
    /// Nobody has a context: what an unallocated GPU does.
    pub(crate) fn off(board: &Board) -> Self {
        Self {
            watts: board.off_watts,
            jitter_watts: 0.1,
            utilization: (0, 0),
            memory_utilization: (0, 0),
            sm_clock_mhz: board.sm_clock_off_mhz,
            clock_reasons: clock_reason::GPU_IDLE,
            memory: Memory {
                bytes: 3.0 * 1024.0 * 1024.0,
                bytes_per_second: 0.0,
            },
            rates: Rates::default(),
            processes: 0,
            process_state: SLEEPING,
        }
    }

    /// A context is loaded and nothing runs: the clocks stay up, and no reason says that they idle.
    pub(crate) fn idle(board: &Board, memory_bytes: f64) -> Self {
        Self {
            watts: board.idle_watts,
            jitter_watts: 0.15,
            sm_clock_mhz: board.sm_clock_idle_mhz,
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
        let idle = Self::idle(board, memory_bytes);
        Self {
            watts: board.spin_watts,
            jitter_watts: 0.6,
            utilization: (96, 100),
            memory_utilization: (0, 1),
            sm_clock_mhz: board.sm_clock_mhz,
            rates: Rates {
                active: [0.1818, 0.0, 0.000_01],
                pcie_tx: 2e4,
                pcie_rx: 2e4,
                cpu: 1.0,
                ..idle.rates
            },
            process_state: RUNNING,
            ..idle
        }
    }

    /// A process that its host holds: asleep, blocked on input or output, or stopped.
    pub(crate) fn held(board: &Board, memory_bytes: f64, process_state: i64) -> Self {
        let idle = Self::idle(board, memory_bytes);
        Self {
            process_state,
            rates: Rates {
                cpu: 0.0,
                ..idle.rates
            },
            ..idle
        }
    }

    /// A host that works while its GPU waits: compiles, opens files, tokenises.
    pub(crate) fn host_busy(board: &Board, memory_bytes: f64, read: f64) -> Self {
        let idle = Self::idle(board, memory_bytes);
        Self {
            utilization: (0, 3),
            rates: Rates {
                cpu: 1.0,
                read,
                ..idle.rates
            },
            process_state: RUNNING,
            ..idle
        }
    }

    /// A rank that copies its state to the host, to be written out.
    pub(crate) fn copy_to_host(board: &Board, memory_bytes: f64, rate: f64) -> Self {
        let idle = Self::idle(board, memory_bytes);
        Self {
            watts: board.idle_watts + 3.0,
            utilization: (0, 2),
            memory_utilization: (0, 1),
            rates: Rates {
                pcie_tx: rate,
                cpu: 1.0,
                ..idle.rates
            },
            process_state: RUNNING,
            ..idle
        }
    }

    /// A rank whose host writes the checkpoint out, over the network.
    pub(crate) fn write_out(board: &Board, memory_bytes: f64, rate: f64) -> Self {
        let idle = Self::idle(board, memory_bytes);
        Self {
            rates: Rates {
                cpu: 0.6,
                write: rate,
                network: rate,
                ..idle.rates
            },
            process_state: BLOCKED,
            ..idle
        }
    }

    /// A kernel that runs but is served now and then: decode of an inference server, a cell of a notebook.
    pub(crate) fn burst(board: &Board, memory_bytes: f64, load: f64) -> Self {
        let utilization = (30.0 + 60.0 * load) as i64;
        let memory_utilization = (8.0 + 22.0 * load) as i64;
        let idle = Self::idle(board, memory_bytes);
        Self {
            watts: board.watts(150.0 + 240.0 * load),
            jitter_watts: 6.0,
            utilization: (utilization - 4, utilization + 4),
            memory_utilization: (memory_utilization - 2, memory_utilization + 2),
            sm_clock_mhz: board.sm_clock_mhz,
            rates: Rates {
                active: [0.12 + 0.3 * load, 0.03 + 0.15 * load, 0.1 + 0.3 * load],
                pcie_tx: 30.0 * MB * load,
                pcie_rx: 40.0 * MB * load,
                cpu: 0.9,
                ..idle.rates
            },
            process_state: RUNNING,
            ..idle
        }
    }

    /// The same load under a lower clock.
    pub(crate) fn slowed(self, board: &Board, clock_share: f64, reasons: i64) -> Self {
        let step = 15;
        let clock = (board.sm_clock_mhz as f64 * clock_share) as i64 / step * step;
        let work = (self.watts - board.idle_watts).max(0.0);
        Self {
            watts: (self.watts - work * (1.0 - clock_share)).max(board.off_watts),
            jitter_watts: self.jitter_watts * clock_share,
            sm_clock_mhz: self.sm_clock_mhz.min(clock),
            clock_reasons: (self.clock_reasons & !clock_reason::SW_POWER_CAP) | reasons,
            rates: self.rates.slowed(clock_share),
            ..self
        }
    }

    /// The same load under a lower power limit: the clocks go as low as it takes.
    pub(crate) fn capped(self, board: &Board, limit_watts: f64) -> Self {
        let most = limit_watts - 0.009 * board.power_limit_watts;
        if self.watts <= most {
            return self;
        }
        let kept = (most - board.idle_watts) / (self.watts - board.idle_watts);
        // Power falls with the clock and its voltage: faster than the clock.
        let share = kept.max(0.05).powf(0.55);
        let slowed = self.slowed(board, share, clock_reason::SW_POWER_CAP);
        Self {
            watts: most,
            ..slowed
        }
    }

    /// A rank that waits busily in a collective for a share of its time, because others are late.
    pub(crate) fn waiting(self, board: &Board, share: f64) -> Self {
        let works = 1.0 - share;
        let spin = Self::spin(board, self.memory.bytes);
        let mix = |work: f64, wait: f64| work * works + wait * share;
        let floor = |low: i64| (low as f64 * works) as i64;
        Self {
            watts: mix(self.watts, spin.watts),
            jitter_watts: mix(self.jitter_watts, 6.0).max(4.0),
            utilization: (self.utilization.0.max(94), 100),
            memory_utilization: (
                floor(self.memory_utilization.0),
                floor(self.memory_utilization.1).max(1),
            ),
            clock_reasons: if share < 0.08 { self.clock_reasons } else { 0 },
            sm_clock_mhz: if share < 0.08 {
                self.sm_clock_mhz
            } else {
                board.sm_clock_mhz
            },
            rates: Rates {
                active: [0, 1, 2].map(|n| mix(self.rates.active[n], spin.rates.active[n])),
                ..self.rates.slowed(works)
            },
            ..self
        }
    }

    /// A rank whose host cannot keep up for a share of its time: it works, and then has nothing to do.
    pub(crate) fn starved(self, board: &Board, share: f64) -> Self {
        let works = 1.0 - share;
        let scale = |(low, high): (i64, i64)| {
            let by = |n: i64| (n as f64 * works) as i64;
            (by(low), by(high).max(1))
        };
        Self {
            watts: self.watts * works + board.idle_watts * share,
            jitter_watts: self.jitter_watts.max(8.0),
            utilization: scale(self.utilization),
            memory_utilization: scale(self.memory_utilization),
            clock_reasons: 0,
            rates: Rates {
                active: self.rates.active.map(|ratio| ratio * works),
                ..self.rates.slowed(works)
            },
            ..self
        }
    }
}

/// Codes of a process's state, as in the catalogue of metrics.
pub(crate) const RUNNING: i64 = 0;
/// Asleep.
pub(crate) const SLEEPING: i64 = 1;
/// Blocked on input or output.
pub(crate) const BLOCKED: i64 = 2;
/// Stopped by a signal.
pub(crate) const STOPPED: i64 = 3;

impl Rates {
    fn slowed(self, share: f64) -> Self {
        Self {
            active: self.active.map(|ratio| ratio * share),
            pcie_tx: self.pcie_tx * share,
            pcie_rx: self.pcie_rx * share,
            nvlink: self.nvlink * share,
            network: self.network * share,
            read: self.read * share,
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
