//! One GPU's values: which calls are made for which metric, at which depth.
//!
//! At most twelve driver calls on a fast tick: counters that have field ids go in one call.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::field_id as fi;

use crate::backend::{Depth, GpuError, GpuProcess};
use crate::gpu::Values;
use crate::metric::{self, MetricId, NvmlStatus};

use super::gpm::{self, Gpm};
use super::limits::{Limit, Verdict, judge};
use super::raw::{self, Field};
use super::{Entry, gpu_error};

/// Highest number of NVLinks that a GPU is asked for; NVLink 4 has 18, and asking ends at the first that is not there.
const MAX_NVLINKS: u32 = 36;

/// A temperature above this is the driver's way to say that there is none, in Celsius.
const MAX_TEMPERATURE: i64 = 200;

/// A metric that a field gives: field id, scope, and what one unit of the field is in the metric's integer unit.
type FieldRow = (MetricId, u32, u32, i64);

const FAST_FIELDS: &[FieldRow] = &[
    (metric::PCIE_TX, fi::NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 0, 1),
    (metric::PCIE_RX, fi::NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0, 1),
    (
        metric::NVLINK_TX,
        fi::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
        raw::ALL_SCOPES,
        1024,
    ),
    (
        metric::NVLINK_RX,
        fi::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        raw::ALL_SCOPES,
        1024,
    ),
];

/// Apart from each other: some drivers fail a whole call when memory and NVLink fields are mixed in it.
const SLOW_FIELDS: [&[FieldRow]; 2] = [
    &[
        (
            metric::MEMORY_TEMPERATURE,
            fi::NVML_FI_DEV_MEMORY_TEMP,
            0,
            1,
        ),
        (
            metric::REMAPPED_ROWS_PENDING,
            fi::NVML_FI_DEV_REMAPPED_PENDING,
            0,
            1,
        ),
        (
            metric::REMAPPED_ROWS_FAILURE,
            fi::NVML_FI_DEV_REMAPPED_FAILURE,
            0,
            1,
        ),
    ],
    &[
        (
            metric::NVLINK_CRC_ERRORS,
            fi::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
            0,
            1,
        ),
        (
            metric::NVLINK_RECOVERY,
            fi::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
            0,
            1,
        ),
    ],
];

/// One GPU's values now. An error means that the whole GPU said nothing; a field that fails alone is left out, and
/// if it used to answer, the tick's status says so.
pub(super) fn read(entry: &Entry, depth: Depth) -> Result<Values, GpuError> {
    let mut reading = Reading {
        entry,
        values: Values::default(),
    };
    reading.fast()?;
    if depth == Depth::Full {
        reading.slow()?;
    }
    Ok(reading.values)
}

/// Compute processes. Not found means none; an error, also "not supported", that they are not known.
pub(super) fn processes(entry: &Entry) -> Result<Vec<GpuProcess>, GpuError> {
    let device = entry.info.index;
    if let Some(limit) = entry.limits.of(metric::PROCESSES) {
        return Err(unknown_processes(device, limit));
    }
    match entry.device.running_compute_processes() {
        Ok(list) => Ok(list
            .into_iter()
            // The driver says 0 for a process that this pid namespace cannot see.
            .filter(|process| process.pid != 0)
            .map(|process| GpuProcess {
                pid: process.pid,
                memory_used_bytes: match process.used_gpu_memory {
                    UsedGpuMemory::Used(bytes) => Some(bytes),
                    UsedGpuMemory::Unavailable => None,
                },
            })
            .collect()),
        Err(error) => match judge(&error) {
            Verdict::Absent => Ok(Vec::new()),
            Verdict::Declined(limit) => {
                entry.limits.decline(metric::PROCESSES, limit);
                Err(unknown_processes(device, limit))
            }
            Verdict::Trouble(_) | Verdict::Fatal => Err(gpu_error(device, &error)),
        },
    }
}

fn unknown_processes(device: u32, limit: Limit) -> GpuError {
    match limit {
        Limit::NoPermission => GpuError::NoPermission { device },
        _ => GpuError::Failed {
            device,
            reason: format!("processes: {}", limit.text()),
        },
    }
}

/// A row in the making.
struct Reading<'a> {
    entry: &'a Entry,
    values: Values,
}

impl Reading<'_> {
    /// What changes from second to second: nine calls.
    fn fast(&mut self) -> Result<(), GpuError> {
        self.one(metric::TEMPERATURE, |d| {
            d.temperature(TemperatureSensor::Gpu).map(plausible)
        })?;
        self.pair(metric::UTILIZATION, metric::MEMORY_UTILIZATION, |d| {
            d.utilization_rates()
                .map(|u| (u.gpu.into(), u.memory.into()))
        })?;
        self.pair(metric::MEMORY_USED, metric::MEMORY_TOTAL, |d| {
            raw::memory(d).map(|m| (m.used_bytes as i64, m.total_bytes as i64))
        })?;
        self.one(metric::POWER, |d| number(d.power_usage()))?;
        self.one(metric::SM_CLOCK, |d| number(d.clock_info(Clock::SM)))?;
        self.one(metric::CLOCK_EVENT_REASONS, |d| {
            raw::clock_event_reasons(d).map(|bits| Some(bits as i64))
        })?;
        self.gpm()?;
        self.fields(FAST_FIELDS)
    }

    /// What changes in minutes, or never, and energy: it alone takes the driver longer than all fast calls together
    /// (3 to 8 ms on an H200), and power is a mean over a second already.
    fn slow(&mut self) -> Result<(), GpuError> {
        self.one(metric::ENERGY, |d| {
            Ok(i64::try_from(d.total_energy_consumption()?).ok())
        })?;
        self.one(metric::THERMAL_MARGIN, |d| {
            raw::thermal_margin(d).map(|m| Some(m.into()))
        })?;
        self.one(metric::POWER_LIMIT, |d| number(d.enforced_power_limit()))?;
        self.one(metric::POWER_LIMIT_DEFAULT, |d| {
            number(d.power_management_limit_default())
        })?;
        self.one(metric::MEMORY_CLOCK, |d| {
            number(d.clock_info(Clock::Memory))
        })?;
        self.one(metric::ECC_CORRECTED, |d| ecc(d, MemoryError::Corrected))?;
        self.one(metric::ECC_UNCORRECTED, |d| {
            ecc(d, MemoryError::Uncorrected)
        })?;
        self.one(metric::PCIE_LINK_WIDTH, |d| {
            number(d.current_pcie_link_width())
        })?;
        self.one(metric::PCIE_LINK_GEN, |d| number(d.current_pcie_link_gen()))?;
        self.one(metric::PCIE_REPLAY, |d| number(d.pcie_replay_counter()))?;
        self.one(metric::FAN_SPEED, |d| number(d.fan_speed(0)))?;
        self.one(metric::NVLINK_ACTIVE_LINKS, active_links)?;
        for fields in SLOW_FIELDS {
            self.fields(fields)?;
        }
        Ok(())
    }

    /// One metric by one call.
    fn one(
        &mut self,
        metric: MetricId,
        call: impl FnOnce(&Device<'static>) -> Result<Option<i64>, NvmlError>,
    ) -> Result<(), GpuError> {
        if !self.entry.limits.allows(metric) {
            return Ok(());
        }
        match call(&self.entry.device) {
            Ok(value) => self.answer(metric, value),
            Err(error) => self.complain(metric, &error)?,
        }
        Ok(())
    }

    /// Two metrics by one call.
    fn pair(
        &mut self,
        first: MetricId,
        second: MetricId,
        call: impl FnOnce(&Device<'static>) -> Result<(i64, i64), NvmlError>,
    ) -> Result<(), GpuError> {
        let mut other = None;
        self.one(first, |device| {
            let (one, two) = call(device)?;
            other = Some(two);
            Ok(Some(one))
        })?;
        match other {
            Some(two) => self.answer(second, Some(two)),
            None => self.share_limit(first, second),
        }
        Ok(())
    }

    /// What GPM tells, where there is GPM.
    fn gpm(&mut self) -> Result<(), GpuError> {
        let entry = self.entry;
        if !entry.limits.allows(gpm::GATE) {
            return Ok(());
        }
        let looked = entry.gpm.read(&entry.device, |metric, value| {
            self.values.set(metric, Some(value));
            entry.limits.answered(metric);
        });
        match looked.map_err(|error| (judge(&error), error)) {
            Err((Verdict::Declined(limit), _)) => {
                // PCIe traffic has another source.
                for metric in Gpm::metrics().filter(|&metric| !is_pcie(metric)) {
                    entry.limits.decline(metric, limit);
                }
                Ok(())
            }
            Err((Verdict::Fatal, error)) => Err(gpu_error(entry.info.index, &error)),
            // Someone else at the counters for a moment: nothing that the tick must be marked for.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Several metrics by one call that answers for each.
    fn fields(&mut self, rows: &[FieldRow]) -> Result<(), GpuError> {
        let mut asked = [Field { id: 0, scope: 0 }; raw::MAX_FIELDS];
        let mut metrics = [(metric::NVML_STATUS, 1); raw::MAX_FIELDS];
        let mut count = 0;
        for &(metric, id, scope, unit) in rows {
            if self.entry.limits.allows(metric) && !self.is_of_gpm(metric) {
                asked[count] = Field { id, scope };
                metrics[count] = (metric, unit);
                count += 1;
            }
        }
        if count == 0 {
            return Ok(());
        }
        let mut outcome = Ok(());
        let called = raw::field_values(&self.entry.device, &asked[..count], |place, value| {
            let (metric, unit) = metrics[place];
            match value {
                Ok(value) => self.answer(metric, value.checked_mul(unit)),
                Err(error) => {
                    if let Err(fatal) = self.complain(metric, &error) {
                        outcome = Err(fatal);
                    }
                }
            }
        });
        if let Err(error) = called {
            for &(metric, _) in &metrics[..count] {
                self.complain(metric, &error)?;
            }
        }
        outcome
    }

    /// Whether GPM tells a metric on this GPU: never two sources for one total.
    fn is_of_gpm(&self, metric: MetricId) -> bool {
        is_pcie(metric) && self.entry.limits.allows(gpm::GATE)
    }

    fn answer(&mut self, metric: MetricId, value: Option<i64>) {
        self.entry.limits.answered(metric);
        let value = match metric {
            metric::PCIE_TX => value.map(|reading| self.entry.pcie_tx.read(reading)),
            metric::PCIE_RX => value.map(|reading| self.entry.pcie_rx.read(reading)),
            _ => value,
        };
        self.values.set(metric, value);
    }

    /// What came instead of a value: forget the metric, mark the tick, or give up the GPU.
    fn complain(&mut self, metric: MetricId, error: &NvmlError) -> Result<(), GpuError> {
        match judge(error) {
            Verdict::Declined(limit) => self.entry.limits.decline(metric, limit),
            Verdict::Trouble(status) if self.entry.limits.ever_answered(metric) => {
                self.trouble(status);
            }
            Verdict::Absent | Verdict::Trouble(_) => {}
            Verdict::Fatal => return Err(gpu_error(self.entry.info.index, error)),
        }
        Ok(())
    }

    fn trouble(&mut self, status: NvmlStatus) {
        self.values.set(metric::NVML_STATUS, status as i64);
    }

    /// What one call gives, one call refuses.
    fn share_limit(&self, first: MetricId, second: MetricId) {
        if !self.entry.limits.allows(second) {
            return;
        }
        if let Some(limit) = self.entry.limits.of(first) {
            self.entry.limits.decline(second, limit);
        }
    }
}

fn is_pcie(metric: MetricId) -> bool {
    matches!(metric, metric::PCIE_TX | metric::PCIE_RX)
}

fn number(value: Result<u32, NvmlError>) -> Result<Option<i64>, NvmlError> {
    value.map(|v| Some(v.into()))
}

fn plausible(celsius: u32) -> Option<i64> {
    Some(i64::from(celsius)).filter(|&t| t <= MAX_TEMPERATURE)
}

fn ecc(device: &Device<'static>, error: MemoryError) -> Result<Option<i64>, NvmlError> {
    let total = device.total_ecc_errors(error, EccCounter::Volatile)?;
    Ok(i64::try_from(total).ok())
}

/// NVLinks that are up. A GPU without NVLink says "not supported" for the first.
fn active_links(device: &Device<'static>) -> Result<Option<i64>, NvmlError> {
    let mut active = 0;
    for link in 0..MAX_NVLINKS {
        match device.link_wrapper_for(link).is_active() {
            Ok(up) => active += i64::from(up),
            Err(NvmlError::InvalidArg | NvmlError::NotSupported) if link > 0 => break,
            Err(NvmlError::InvalidArg) => return Err(NvmlError::NotSupported),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(active))
}
