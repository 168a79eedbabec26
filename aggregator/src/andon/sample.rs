//! One GPU's row as the detectors look at it. *(pure)*

use entrenar::gpu::Values;
use entrenar::metric::{self, NvmlStatus};

/// What the detectors look at, in the catalogue's integer units; `None`: not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) celsius: Option<i64>,
    pub(super) margin_celsius: Option<i64>,
    pub(super) busy_percent: Option<i64>,
    pub(super) memory_busy_percent: Option<i64>,
    pub(super) memory_used: Option<i64>,
    pub(super) memory_total: Option<i64>,
    pub(super) power_mw: Option<i64>,
    pub(super) power_limit_mw: Option<i64>,
    pub(super) energy_mj: Option<i64>,
    pub(super) clock_mhz: Option<i64>,
    pub(super) clock_reasons: Option<i64>,
    pub(super) pcie_width: Option<i64>,
    pub(super) pcie_gen: Option<i64>,
    pub(super) pcie_replay: Option<i64>,
    pub(super) nvlink_links: Option<i64>,
    pub(super) nvlink_crc: Option<i64>,
    pub(super) nvlink_recovery: Option<i64>,
    pub(super) ecc_corrected: Option<i64>,
    pub(super) ecc_uncorrected: Option<i64>,
    pub(super) remap_pending: Option<i64>,
    pub(super) remap_failed: Option<i64>,
    pub(super) processes: Option<i64>,
    /// Microseconds that the device calls took.
    pub(super) latency_us: Option<i64>,
}

impl Sample {
    pub(super) fn new(row: &Values) -> Self {
        Self {
            celsius: row.get(metric::TEMPERATURE),
            margin_celsius: row.get(metric::THERMAL_MARGIN),
            busy_percent: row.get(metric::UTILIZATION),
            memory_busy_percent: row.get(metric::MEMORY_UTILIZATION),
            memory_used: row.get(metric::MEMORY_USED),
            memory_total: row.get(metric::MEMORY_TOTAL),
            power_mw: row.get(metric::POWER),
            power_limit_mw: row.get(metric::POWER_LIMIT),
            energy_mj: row.get(metric::ENERGY),
            clock_mhz: row.get(metric::SM_CLOCK),
            clock_reasons: row.get(metric::CLOCK_EVENT_REASONS),
            pcie_width: row.get(metric::PCIE_LINK_WIDTH),
            pcie_gen: row.get(metric::PCIE_LINK_GEN),
            pcie_replay: row.get(metric::PCIE_REPLAY),
            nvlink_links: row.get(metric::NVLINK_ACTIVE_LINKS),
            nvlink_crc: row.get(metric::NVLINK_CRC_ERRORS),
            nvlink_recovery: row.get(metric::NVLINK_RECOVERY),
            ecc_corrected: row.get(metric::ECC_CORRECTED),
            ecc_uncorrected: row.get(metric::ECC_UNCORRECTED),
            remap_pending: row.get(metric::REMAPPED_ROWS_PENDING),
            remap_failed: row.get(metric::REMAPPED_ROWS_FAILURE),
            processes: row.get(metric::PROCESSES),
            latency_us: row.get(metric::NVML_LATENCY),
        }
    }

    /// Memory used, as a share of all; `None` when either is unknown.
    pub(super) fn memory_share(&self) -> Option<f64> {
        let total = self.memory_total.filter(|total| *total > 0)?;
        Some(self.memory_used? as f64 / total as f64)
    }

    /// Whether a bit of the clock event reasons is set; `None` when they are unknown.
    pub(super) fn has_reason(&self, bit: i64) -> Option<bool> {
        self.clock_reasons.map(|reasons| reasons & bit != 0)
    }
}

/// How the device calls of a row ended. A row without a status is one in which all went well.
pub(super) fn status_of(row: &Values) -> NvmlStatus {
    row.get(metric::NVML_STATUS).map_or(NvmlStatus::Ok, |code| {
        NvmlStatus::from_code(code).unwrap_or(NvmlStatus::Unknown)
    })
}
