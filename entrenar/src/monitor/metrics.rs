//! What a GPU says, in the page's plain numbers, and the reading behind it that can also say "unknown".

use serde::{Deserialize, Serialize};

use crate::backend::GpuError;
use crate::gpu::{GpuInfo, Values};
use crate::metric::{
    MEMORY_TOTAL, MEMORY_USED, MetricId, POWER, POWER_LIMIT, TEMPERATURE, UTILIZATION,
};

/// One GPU's metrics at one instant, as plain numbers.
///
/// Plain numbers cannot say "unknown": **what a GPU does not report is 0 here**. Where the difference matters, take a
/// [`GpuReading`] ([`GpuMonitor::collect_readings`](super::gpu::GpuMonitor::collect_readings)); the exporter and the
/// training callback do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuMetrics {
    /// NVML index.
    pub device_id: u32,
    /// Product name.
    pub name: String,
    /// Core temperature in °C.
    pub temperature_celsius: u32,
    /// Share of the last sample period with a kernel resident, 0 to 100.
    pub utilization_percent: u32,
    /// Device memory in use.
    pub memory_used_bytes: u64,
    /// Device memory.
    pub memory_total_bytes: u64,
    /// Board power.
    pub power_watts: f32,
    /// Power limit that is enforced.
    pub power_limit_watts: f32,
}

impl GpuMetrics {
    /// Used share of the memory in percent; 0 when the total is unknown.
    pub fn memory_percent(&self) -> f64 {
        percent(
            self.memory_used_bytes as f64,
            self.memory_total_bytes as f64,
        )
        .unwrap_or(0.0)
    }

    /// Used share of the power limit in percent; 0 when the limit is unknown.
    pub fn power_percent(&self) -> f64 {
        percent(
            f64::from(self.power_watts),
            f64::from(self.power_limit_watts),
        )
        .unwrap_or(0.0)
    }

    /// From what a backend read. What it did not say becomes 0.
    pub fn from_values(info: &GpuInfo, values: &Values) -> Self {
        let whole = |metric: MetricId| values.get(metric).unwrap_or(0).max(0) as u64;
        let small = |metric| u32::try_from(whole(metric)).unwrap_or(u32::MAX);
        let watts = |metric| values.display(metric).unwrap_or(0.0) as f32;
        Self {
            device_id: info.index,
            name: info.name.clone(),
            temperature_celsius: small(TEMPERATURE),
            utilization_percent: small(UTILIZATION),
            memory_used_bytes: whole(MEMORY_USED),
            memory_total_bytes: memory_total(info, values).unwrap_or(0),
            power_watts: watts(POWER),
            power_limit_watts: watts(POWER_LIMIT),
        }
    }

    /// The metrics of the GPUs that answered; the first error if there are GPUs and none did.
    pub(crate) fn of_those_that_answered<'a>(
        readings: impl IntoIterator<Item = (&'a GpuInfo, Result<Values, GpuError>)>,
    ) -> Result<Vec<Self>, GpuError> {
        let mut answered = Vec::new();
        let mut first_error = None;
        for (info, values) in readings {
            match values {
                Ok(values) => answered.push(Self::from_values(info, &values)),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            Some(error) if answered.is_empty() => Err(error),
            _ => Ok(answered),
        }
    }
}

/// What one GPU answered: its values, in which the unknown is absent, or why it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuReading {
    /// What the GPU is.
    pub info: GpuInfo,
    /// What it said.
    pub values: Result<Values, GpuError>,
}

/// What the Andon rules look at. `None` is unknown, and no rule judges it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Vitals {
    pub(crate) device: u32,
    pub(crate) temperature_celsius: Option<u32>,
    pub(crate) utilization_percent: Option<u32>,
    /// Rounded down.
    pub(crate) memory_percent: Option<u32>,
    /// Rounded down.
    pub(crate) power_percent: Option<u32>,
}

impl From<&GpuMetrics> for Vitals {
    fn from(gpu: &GpuMetrics) -> Self {
        Self {
            device: gpu.device_id,
            temperature_celsius: Some(gpu.temperature_celsius),
            utilization_percent: Some(gpu.utilization_percent),
            memory_percent: Some(gpu.memory_percent() as u32),
            power_percent: Some(gpu.power_percent() as u32),
        }
    }
}

impl Vitals {
    /// `None` for a GPU that said nothing.
    pub(crate) fn of(reading: &GpuReading) -> Option<Self> {
        let values = reading.values.as_ref().ok()?;
        let whole = |metric| u32::try_from(values.get(metric)?).ok();
        let total = memory_total(&reading.info, values);
        let share = |part: Option<f64>, of: Option<f64>| Some(percent(part?, of?)? as u32);
        Some(Self {
            device: reading.info.index,
            temperature_celsius: whole(TEMPERATURE),
            utilization_percent: whole(UTILIZATION),
            memory_percent: share(values.display(MEMORY_USED), total.map(|t| t as f64)),
            power_percent: share(values.display(POWER), values.display(POWER_LIMIT)),
        })
    }
}

fn memory_total(info: &GpuInfo, values: &Values) -> Option<u64> {
    let said = values.get(MEMORY_TOTAL).and_then(|v| u64::try_from(v).ok());
    said.or(info.memory_total_bytes)
}

/// `part` of `whole` in percent; `None` when the whole is nothing.
fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_an_unknown_whole_are_0() {
        let nothing = GpuMetrics::default();
        assert_eq!(
            (nothing.memory_percent(), nothing.power_percent()),
            (0.0, 0.0)
        );
        let half = GpuMetrics {
            memory_used_bytes: 8 << 30,
            memory_total_bytes: 16 << 30,
            power_watts: 90.0,
            power_limit_watts: 360.0,
            ..GpuMetrics::default()
        };
        assert_eq!((half.memory_percent(), half.power_percent()), (50.0, 25.0));
    }

    #[test]
    fn what_a_gpu_does_not_say_is_unknown_to_the_rules() {
        let reading = GpuReading {
            info: GpuInfo {
                index: 4,
                memory_total_bytes: Some(200),
                ..GpuInfo::default()
            },
            values: Ok(Values::default().with(MEMORY_USED, 199).with(POWER, 5000)),
        };
        let vitals = Vitals::of(&reading).expect("it answered");
        assert_eq!(
            vitals,
            Vitals {
                device: 4,
                temperature_celsius: None,
                utilization_percent: None,
                memory_percent: Some(99),
                power_percent: None,
            }
        );
    }
}
