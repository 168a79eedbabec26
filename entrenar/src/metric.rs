//! The catalogue: every metric once, with its name, unit, kind and scale.
//!
//! A metric's name is its column in a trace and its name in the API; Prometheus = `entrenar_gpu_` + name. Values
//! travel and rest as `i64` in the integer unit given here. Ids are stable: new metrics are appended, none is reused.

/// A metric's number on the wire and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricId(pub u16);

/// Whether a value stands for itself or only as a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A level, meaningful alone.
    Gauge,
    /// A running total: read as differences, aware of resets.
    Counter,
}

/// How often a metric is worth a driver call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Every tick.
    Fast,
    /// Every ten seconds or so.
    Slow,
}

/// A row of the catalogue.
#[derive(Debug)]
pub struct Metric {
    /// Stable number.
    pub id: MetricId,
    /// Name in the API and in traces; ends in its display unit.
    pub name: &'static str,
    /// Unit of the display value.
    pub unit: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Integer units to one display unit: 1000 for a metric kept in milliwatts and shown in watts.
    pub scale: i64,
    /// How often it is read.
    pub pace: Pace,
    /// One sentence for people.
    pub help: &'static str,
    /// How NVML, or the host, gives it.
    pub source: &'static str,
}

impl Metric {
    /// The display value of an integer value.
    pub fn to_display(&self, value: i64) -> f64 {
        if self.scale == 1 {
            value as f64
        } else {
            value as f64 / self.scale as f64
        }
    }

    /// The integer value of a display value, rounded to the nearest; `None` if it does not fit or is not a number.
    pub fn from_display(&self, value: f64) -> Option<i64> {
        let scaled = (value * self.scale as f64).round();
        // i64::MIN is kept free to mark absence.
        (scaled.is_finite() && scaled.abs() < 9.2e18).then_some(scaled as i64)
    }

    /// The metric's name in Prometheus, on the fleet's endpoint.
    pub fn prometheus_name(&self) -> String {
        format!("entrenar_gpu_{}", self.name)
    }
}

macro_rules! catalogue {
    ($($id:literal $konst:ident $name:literal $unit:literal $kind:ident /$scale:literal $pace:ident $help:literal $source:literal;)*) => {
        $(#[doc = $help] pub const $konst: MetricId = MetricId($id);)*
        /// Every metric, in the order of ids; a metric's place is its id - 1.
        pub static CATALOGUE: &[Metric] = &[$(Metric {
            id: MetricId($id), name: $name, unit: $unit, kind: Kind::$kind, scale: $scale, pace: Pace::$pace,
            help: $help, source: $source,
        },)*];
        /// How many metrics there are.
        pub const METRIC_COUNT: usize = [$($id),*].len();
    };
}

catalogue! {
    1 TEMPERATURE "temperature_celsius" "celsius" Gauge /1 Fast "GPU core temperature." "nvmlDeviceGetTemperature";
    2 MEMORY_TEMPERATURE "memory_temperature_celsius" "celsius" Gauge /1 Slow "Memory (HBM) temperature." "field MEMORY_TEMP";
    3 THERMAL_MARGIN "thermal_margin_celsius" "celsius" Gauge /1 Slow "Headroom to the slowdown point." "nvmlDeviceGetMarginTemperature";
    4 UTILIZATION "utilization_percent" "percent" Gauge /1 Fast "Share of the last sample period with at least one kernel resident." "nvmlDeviceGetUtilizationRates.gpu";
    5 MEMORY_UTILIZATION "memory_utilization_percent" "percent" Gauge /1 Fast "Share of the last sample period with device memory being read or written." "nvmlDeviceGetUtilizationRates.memory";
    6 MEMORY_USED "memory_used_bytes" "bytes" Gauge /1 Fast "Device memory in use, without what the driver reserves." "nvmlDeviceGetMemoryInfo_v2.used";
    7 MEMORY_TOTAL "memory_total_bytes" "bytes" Gauge /1 Fast "Device memory." "nvmlDeviceGetMemoryInfo_v2.total";
    8 POWER "power_watts" "watts" Gauge /1000 Fast "Board power." "nvmlDeviceGetPowerUsage";
    9 POWER_LIMIT "power_limit_watts" "watts" Gauge /1000 Slow "Power limit that is enforced." "nvmlDeviceGetEnforcedPowerLimit";
    10 ENERGY "energy_joules_total" "joules" Counter /1000 Slow "Energy used since the driver was loaded." "nvmlDeviceGetTotalEnergyConsumption";
    11 SM_CLOCK "sm_clock_mhz" "megahertz" Gauge /1 Fast "Clock of the streaming multiprocessors." "nvmlDeviceGetClockInfo(SM)";
    12 MEMORY_CLOCK "memory_clock_mhz" "megahertz" Gauge /1 Slow "Memory clock." "nvmlDeviceGetClockInfo(MEM)";
    13 CLOCK_EVENT_REASONS "clock_event_reasons" "bitmask" Gauge /1 Fast "Why the clocks are where they are, as NVML's bitmask." "nvmlDeviceGetCurrentClocksThrottleReasons";
    14 PCIE_TX "pcie_tx_bytes_total" "bytes" Counter /1 Fast "Bytes sent over PCIe; where there is no GPM, what a 32-bit counter shows of them." "GPM PCIE_TX_PER_SEC, else field PCIE_COUNT_TX_BYTES";
    15 PCIE_RX "pcie_rx_bytes_total" "bytes" Counter /1 Fast "Bytes received over PCIe; where there is no GPM, what a 32-bit counter shows of them." "GPM PCIE_RX_PER_SEC, else field PCIE_COUNT_RX_BYTES";
    16 NVLINK_TX "nvlink_tx_bytes_total" "bytes" Counter /1 Fast "Bytes sent over NVLink." "field NVLINK_THROUGHPUT_DATA_TX, all links";
    17 NVLINK_RX "nvlink_rx_bytes_total" "bytes" Counter /1 Fast "Bytes received over NVLink." "field NVLINK_THROUGHPUT_DATA_RX, all links";
    18 PCIE_LINK_WIDTH "pcie_link_width" "lanes" Gauge /1 Slow "PCIe lanes in use." "nvmlDeviceGetCurrPcieLinkWidth";
    19 PCIE_LINK_GEN "pcie_link_gen" "generation" Gauge /1 Slow "PCIe generation in use; drops at idle by design." "nvmlDeviceGetCurrPcieLinkGeneration";
    20 NVLINK_ACTIVE_LINKS "nvlink_active_links" "links" Gauge /1 Slow "NVLinks that are up." "nvmlDeviceGetNvLinkState";
    21 PCIE_REPLAY "pcie_replay_total" "replays" Counter /1 Slow "PCIe replays." "nvmlDeviceGetPcieReplayCounter";
    22 NVLINK_CRC_ERRORS "nvlink_crc_errors_total" "errors" Counter /1 Slow "NVLink CRC errors." "field NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL";
    23 NVLINK_RECOVERY "nvlink_recovery_total" "recoveries" Counter /1 Slow "NVLink recoveries." "field NVLINK_RECOVERY_ERROR_COUNT_TOTAL";
    24 ECC_CORRECTED "ecc_corrected_total" "errors" Counter /1 Slow "Memory errors corrected since the driver was loaded." "nvmlDeviceGetTotalEccErrors(corrected, volatile)";
    25 ECC_UNCORRECTED "ecc_uncorrected_total" "errors" Counter /1 Slow "Memory errors not corrected since the driver was loaded." "nvmlDeviceGetTotalEccErrors(uncorrected, volatile)";
    26 REMAPPED_ROWS_PENDING "remapped_rows_pending" "flag" Gauge /1 Slow "1 when a row remap waits for a reset." "field REMAPPED_PENDING";
    27 REMAPPED_ROWS_FAILURE "remapped_rows_failure" "flag" Gauge /1 Slow "1 when a row remap failed." "field REMAPPED_FAILURE";
    28 SM_ACTIVE "sm_active" "ratio" Gauge /1_000_000 Fast "Share of multiprocessors with work, on Hopper and later." "GPM SM_UTIL";
    29 TENSOR_ACTIVE "tensor_active" "ratio" Gauge /1_000_000 Fast "Share of time in which a tensor pipe was active, on Hopper and later." "GPM ANY_TENSOR_UTIL";
    30 DRAM_ACTIVE "dram_active" "ratio" Gauge /1_000_000 Fast "Share of the memory bandwidth used, on Hopper and later." "GPM DRAM_BW_UTIL";
    31 NVML_STATUS "nvml_status" "code" Gauge /1 Fast "How this tick's device calls ended: 0 OK, 1 GPU_IS_LOST, 2 TIMEOUT, 3 NOT_FOUND, 4 UNKNOWN, 5 RESET_REQUIRED." "the agent";
    32 NVML_LATENCY "nvml_latency_seconds" "seconds" Gauge /1_000_000 Fast "How long this tick's device calls took." "the agent";
    33 PROCESSES "processes" "processes" Gauge /1 Slow "Compute processes on the GPU." "nvmlDeviceGetComputeRunningProcesses";
    34 PROCESS_STATE "process_state" "code" Gauge /1 Slow "Worst state among them: 0 running, 1 sleeping, 2 blocked on input or output, 3 stopped." "/proc/PID/stat";
    35 PROCESS_CPU "process_cpu_seconds_total" "seconds" Counter /1000 Slow "CPU time of the processes on the GPU." "/proc/PID/stat";
    36 PROCESS_READ "process_read_bytes_total" "bytes" Counter /1 Slow "Bytes that the processes on the GPU read." "/proc/PID/io";
    37 PROCESS_WRITE "process_write_bytes_total" "bytes" Counter /1 Slow "Bytes that the processes on the GPU wrote." "/proc/PID/io";
    38 NETWORK "network_bytes_total" "bytes" Counter /1 Fast "The node's RDMA traffic, both ways." "/sys/class/infiniband";
    39 FAN_SPEED "fan_speed_percent" "percent" Gauge /1 Slow "Fan speed that is intended, on boards with a fan." "nvmlDeviceGetFanSpeed";
    40 POWER_LIMIT_DEFAULT "power_limit_default_watts" "watts" Gauge /1000 Slow "Power limit that the board came with." "nvmlDeviceGetPowerManagementDefaultLimit";
}

impl MetricId {
    /// Place in the catalogue; `None` for an id that this build does not know.
    pub const fn slot(self) -> Option<usize> {
        match self.0 {
            0 => None,
            id if id as usize <= METRIC_COUNT => Some(id as usize - 1),
            _ => None,
        }
    }

    /// The metric at a place in the catalogue.
    pub(crate) const fn from_slot(slot: usize) -> Self {
        Self(slot as u16 + 1)
    }

    /// Its row; `None` for an id that this build does not know.
    pub fn def(self) -> Option<&'static Metric> {
        CATALOGUE.get(self.slot()?)
    }
}

/// The metric of a name; `None` if there is none.
pub fn by_name(name: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|m| m.name == name)
}

/// How a GPU's device calls ended in one tick: the values of [`NVML_STATUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum NvmlStatus {
    /// All calls came back.
    Ok = 0,
    /// The GPU fell off the bus.
    GpuIsLost = 1,
    /// A call did not come back before its deadline.
    Timeout = 2,
    /// The GPU is no longer enumerated.
    NotFound = 3,
    /// The driver gave an error that says nothing more.
    Unknown = 4,
    /// The GPU must be reset before it can be used.
    ResetRequired = 5,
}

impl NvmlStatus {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::GpuIsLost,
        Self::Timeout,
        Self::NotFound,
        Self::Unknown,
        Self::ResetRequired,
    ];

    /// The name in a trace's `nvml_status` column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::GpuIsLost => "GPU_IS_LOST",
            Self::Timeout => "TIMEOUT",
            Self::NotFound => "NOT_FOUND",
            Self::Unknown => "UNKNOWN",
            Self::ResetRequired => "RESET_REQUIRED",
        }
    }

    /// From the code on the wire.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as i64 == code)
    }
}

/// Bits of [`CLOCK_EVENT_REASONS`]. Source: nvml.h, `nvmlClocksEventReason*`.
pub mod clock_reason {
    /// Nothing runs and no context holds the clocks up.
    pub const GPU_IDLE: i64 = 0x1;
    /// Clocks were set by the user.
    pub const APPLICATIONS_CLOCKS: i64 = 0x2;
    /// The power cap holds the clocks down: normal under load.
    pub const SW_POWER_CAP: i64 = 0x4;
    /// Hardware cut the clocks by half or more.
    pub const HW_SLOWDOWN: i64 = 0x8;
    /// Held to the clocks of its sync-boost group.
    pub const SYNC_BOOST: i64 = 0x10;
    /// Above the maximum operating temperature; software slows down.
    pub const SW_THERMAL: i64 = 0x20;
    /// Too hot; hardware slows down.
    pub const HW_THERMAL: i64 = 0x40;
    /// The power supply or chassis asked for a brake.
    pub const HW_POWER_BRAKE: i64 = 0x80;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unbroken_and_names_are_unique() {
        for (slot, metric) in CATALOGUE.iter().enumerate() {
            assert_eq!(metric.id.slot(), Some(slot), "{}", metric.name);
            assert_eq!(by_name(metric.name).map(|m| m.id), Some(metric.id));
        }
        assert_eq!(MetricId(0).slot(), None);
        assert_eq!(
            MetricId(METRIC_COUNT as u16 + 1).def().map(|m| m.name),
            None
        );
    }

    #[test]
    fn a_value_in_milliwatts_is_shown_in_watts() {
        let power = by_name("power_watts").expect("in the catalogue");
        assert!((power.to_display(512_345) - 512.345).abs() < 1e-9);
        assert_eq!(power.from_display(512.345), Some(512_345));
        assert_eq!(power.from_display(f64::NAN), None);
    }
}
