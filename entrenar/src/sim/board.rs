//! GPU models: what distinguishes one board from another in all that NVML can see. *(pure)*
//!
//! H100 and A100: levels measured on training fleets. H200 and B200: the same states in the proportions of their
//! memory and power limits, for want of measurements.

/// Constants of a GPU model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Board {
    /// Product name, as NVML gives it.
    pub(crate) name: &'static str,
    /// Device memory in bytes.
    pub(crate) memory_total_bytes: i64,
    /// Power limit in watts.
    pub(crate) power_limit_watts: f64,
    /// Power without a context, in watts.
    pub(crate) off_watts: f64,
    /// Power with a context and nothing running, in watts: clocks stay up.
    pub(crate) idle_watts: f64,
    /// Power of a busy wait in a collective, in watts: hardly more than idle.
    pub(crate) spin_watts: f64,
    /// Highest SM clock.
    pub(crate) sm_clock_mhz: i64,
    /// SM clock with a context and nothing running.
    pub(crate) sm_clock_idle_mhz: i64,
    /// SM clock without a context.
    pub(crate) sm_clock_off_mhz: i64,
    /// Memory clock.
    pub(crate) memory_clock_mhz: i64,
    /// Temperature from which the reported margin counts down.
    pub(crate) max_operating_celsius: f64,
    /// Temperature at which the hardware cuts the clocks.
    pub(crate) slowdown_celsius: f64,
    /// NVLinks.
    pub(crate) nvlinks: i64,
    /// PCIe generation of its slot.
    pub(crate) pcie_gen: i64,
    /// Seconds in which reported power follows the load: Hopper averages over a second, A100 does not.
    pub(crate) power_lag_s: f64,
    /// Kelvin a watt, as a multiple of H100's.
    pub(crate) warmth: f64,
    /// Whether it reports GPM ratios and the thermal margin: Hopper and later.
    pub(crate) is_hopper_or_later: bool,
}

impl Board {
    /// A load that H100 draws so many watts for, on this board.
    pub(crate) fn watts(&self, on_h100: f64) -> f64 {
        let share = (on_h100 - H100.idle_watts) / (H100.power_limit_watts - H100.idle_watts);
        self.idle_watts + share * (self.power_limit_watts - self.idle_watts)
    }
}

/// H100 SXM5 80 GB.
pub(crate) const H100: Board = Board {
    name: "NVIDIA H100 80GB HBM3",
    memory_total_bytes: 85_520_809_984,
    power_limit_watts: 700.0,
    off_watts: 70.0,
    idle_watts: 120.0,
    spin_watts: 128.5,
    sm_clock_mhz: 1980,
    sm_clock_idle_mhz: 1980,
    sm_clock_off_mhz: 345,
    memory_clock_mhz: 2619,
    max_operating_celsius: 87.0,
    slowdown_celsius: 89.0,
    nvlinks: 18,
    pcie_gen: 5,
    power_lag_s: 0.45,
    warmth: 1.0,
    is_hopper_or_later: true,
};

/// A100 SXM4 80 GB. Its reported power is instantaneous.
pub(crate) const A100: Board = Board {
    name: "NVIDIA A100-SXM4-80GB",
    memory_total_bytes: 85_899_345_920,
    power_limit_watts: 400.0,
    off_watts: 62.0,
    idle_watts: 86.0,
    spin_watts: 101.0,
    sm_clock_mhz: 1410,
    sm_clock_idle_mhz: 1155,
    sm_clock_off_mhz: 210,
    memory_clock_mhz: 1593,
    max_operating_celsius: 85.0,
    slowdown_celsius: 89.0,
    nvlinks: 12,
    pcie_gen: 4,
    power_lag_s: 0.12,
    warmth: 1.3,
    is_hopper_or_later: false,
};

/// H200 SXM5 141 GB.
pub(crate) const H200: Board = Board {
    name: "NVIDIA H200",
    memory_total_bytes: 150_754_820_096,
    memory_clock_mhz: 3201,
    ..H100
};

/// B200 180 GB.
pub(crate) const B200: Board = Board {
    name: "NVIDIA B200",
    memory_total_bytes: 191_503_532_032,
    power_limit_watts: 1000.0,
    off_watts: 138.0,
    idle_watts: 182.0,
    spin_watts: 196.0,
    sm_clock_mhz: 1965,
    sm_clock_idle_mhz: 1965,
    sm_clock_off_mhz: 120,
    memory_clock_mhz: 3996,
    warmth: 0.72,
    ..H100
};
