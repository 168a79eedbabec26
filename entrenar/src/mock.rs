//! The page's mock backend: GPUs that say what a test, or a demonstration, wants them to say.

use std::f64::consts::TAU;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::{Depth, GpuBackend, GpuError};
use crate::gpu::{GpuInfo, GpuUuid, Values};
use crate::metric::{
    MEMORY_TOTAL, MEMORY_USED, MetricId, POWER, POWER_LIMIT, TEMPERATURE, UTILIZATION,
};
use crate::monitor::gpu::GpuMetrics;

/// GPUs that say what they are told to. What was never set is absent, as on a GPU that cannot report it.
///
/// The `with_…` methods speak of the device that was added last; without one they add device 0.
///
/// ```
/// use entrenar::backend::GpuError;
/// use entrenar::monitor::gpu::{GpuMonitor, MockGpuBackend};
///
/// let mock = MockGpuBackend::new()
///     .with_device(0, "steady").with_temperature(60)
///     .with_device(1, "broken").with_failure(GpuError::Lost { device: 1 });
/// let answered = GpuMonitor::with_backend(mock).collect_metrics()?;
/// assert_eq!(answered.len(), 1);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Debug, Default)]
pub struct MockGpuBackend {
    devices: Vec<MockDevice>,
}

#[derive(Debug)]
struct MockDevice {
    info: GpuInfo,
    values: Values,
    /// What each read says on top of `values`, from the start again at its end. Empty: `values` alone.
    script: Vec<Result<Values, GpuError>>,
    reads: AtomicUsize,
}

impl MockDevice {
    fn new(index: u32, name: &str) -> Self {
        Self {
            info: GpuInfo {
                uuid: GpuUuid::from(format!("GPU-00000000-0000-0000-0000-{index:012x}")),
                index,
                name: name.to_owned(),
                ..GpuInfo::default()
            },
            values: Values::default(),
            script: Vec::new(),
            reads: AtomicUsize::new(0),
        }
    }

    fn read(&self) -> Result<Values, GpuError> {
        let mut values = self.values.clone();
        if !self.script.is_empty() {
            let step = self.reads.fetch_add(1, Ordering::Relaxed) % self.script.len();
            values.overlay(self.script[step].as_ref().map_err(Clone::clone)?);
        }
        Ok(values)
    }
}

impl MockGpuBackend {
    /// A node without GPUs.
    pub fn new() -> Self {
        Self::default()
    }

    /// `count` GPUs that move: each works in waves of its own, and every second one is above 80 °C at the start.
    pub fn demo(count: u32) -> Self {
        (0..count).fold(Self::new(), |mock, index| {
            let mock = mock
                .with_device(index, &format!("Mock GPU {index}"))
                .with_memory(u64::from(24 + 8 * (index % 4)) << 30, 80 * (1 << 30));
            mock.with_script((0..DEMO_STEPS).map(|step| Ok(demo_values(index, step))))
        })
    }

    /// Adds a device.
    #[must_use]
    pub fn with_device(mut self, device: u32, name: &str) -> Self {
        self.devices.push(MockDevice::new(device, name));
        self
    }

    /// Core temperature in °C.
    #[must_use]
    pub fn with_temperature(self, celsius: u32) -> Self {
        self.with_value(TEMPERATURE, i64::from(celsius))
    }

    /// Utilization in percent.
    #[must_use]
    pub fn with_utilization(self, percent: u32) -> Self {
        self.with_value(UTILIZATION, i64::from(percent))
    }

    /// Device memory in bytes: used, and in all.
    #[must_use]
    pub fn with_memory(mut self, used_bytes: u64, total_bytes: u64) -> Self {
        self.last_device().info.memory_total_bytes = Some(total_bytes);
        self.with_value(MEMORY_USED, clamp_bytes(used_bytes))
            .with_value(MEMORY_TOTAL, clamp_bytes(total_bytes))
    }

    /// Board power and its limit, in watts.
    #[must_use]
    pub fn with_power(self, watts: f32, limit_watts: f32) -> Self {
        let milliwatts = |watts: f32| (f64::from(watts) * 1e3).round() as i64;
        self.with_value(POWER, milliwatts(watts))
            .with_value(POWER_LIMIT, milliwatts(limit_watts))
    }

    /// Any metric of the catalogue, in its integer unit; `None` takes it away.
    #[must_use]
    pub fn with_value(mut self, metric: MetricId, value: impl Into<Option<i64>>) -> Self {
        self.last_device().values.set(metric, value);
        self
    }

    /// The device answers every read with this error.
    #[must_use]
    pub fn with_failure(self, error: GpuError) -> Self {
        self.with_script([Err(error)])
    }

    /// What read after read says on top of the values set before, from the start again at the script's end.
    #[must_use]
    pub fn with_script(
        mut self,
        script: impl IntoIterator<Item = Result<Values, GpuError>>,
    ) -> Self {
        self.last_device().script = script.into_iter().collect();
        self
    }

    /// What all devices say now, in the order in which they were added.
    ///
    /// A device that fails is left out; if none answers, the first error is returned. No devices: an empty list.
    pub fn collect_metrics(&self) -> Result<Vec<GpuMetrics>, GpuError> {
        let readings = self.devices.iter().map(|d| (&d.info, d.read()));
        GpuMetrics::of_those_that_answered(readings)
    }

    fn last_device(&mut self) -> &mut MockDevice {
        if self.devices.is_empty() {
            self.devices.push(MockDevice::new(0, "Mock GPU 0"));
        }
        self.devices.last_mut().expect("one was just added")
    }
}

impl GpuBackend for MockGpuBackend {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn may_block(&self) -> bool {
        false
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
        Ok(self.devices.iter().map(|d| d.info.clone()).collect())
    }

    fn read(&self, gpu: &GpuInfo, _depth: Depth) -> Result<Values, GpuError> {
        self.devices
            .iter()
            .find(|d| d.info.index == gpu.index)
            .ok_or(GpuError::NotFound { device: gpu.index })?
            .read()
    }
}

fn clamp_bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Length of the demonstration's wave, in reads.
const DEMO_STEPS: u32 = 24;

fn demo_values(index: u32, step: u32) -> Values {
    // Odd devices start at the top of their wave, even ones at the bottom.
    let phase = f64::from(step) / f64::from(DEMO_STEPS) + 0.5 * f64::from((index + 1) % 2);
    let load = 0.5 + 0.5 * (phase * TAU).cos();
    Values::default()
        .with(TEMPERATURE, (52.0 + 32.0 * load).round() as i64)
        .with(UTILIZATION, (35.0 + 64.0 * load).round() as i64)
        .with(POWER, (180_000.0 + 420_000.0 * load).round() as i64)
        .with(POWER_LIMIT, 700_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mock_keeps_the_contract_of_every_backend() {
        let mock = MockGpuBackend::new()
            .with_device(0, "first")
            .with_power(250.5, 450.0)
            .with_device(2, "third")
            .with_temperature(50);
        crate::backend::contract::check(&mock);
    }

    #[test]
    fn a_node_without_devices_has_no_metrics_and_no_error() {
        assert_eq!(MockGpuBackend::new().collect_metrics(), Ok(vec![]));
    }

    #[test]
    fn a_value_without_a_device_makes_device_0() {
        let metrics = MockGpuBackend::new().with_temperature(75).collect_metrics();
        let metrics = metrics.expect("it answers");
        assert_eq!(
            (metrics[0].device_id, metrics[0].temperature_celsius),
            (0, 75)
        );
    }

    #[test]
    fn settings_go_to_the_device_added_last() {
        let metrics = MockGpuBackend::new()
            .with_device(3, "first")
            .with_temperature(40)
            .with_device(5, "second")
            .with_temperature(50)
            .with_power(250.5, 450.0)
            .collect_metrics()
            .expect("both answer");
        let told: Vec<_> = metrics
            .iter()
            .map(|m| (m.device_id, m.temperature_celsius, m.power_watts))
            .collect();
        assert_eq!(told, [(3, 40, 0.0), (5, 50, 250.5)]);
    }

    #[test]
    fn a_script_is_played_read_by_read_over_the_values_that_stay() {
        let lost = GpuError::Lost { device: 0 };
        let mock = MockGpuBackend::new()
            .with_device(0, "x")
            .with_utilization(7)
            .with_script([
                Ok(Values::default().with(TEMPERATURE, 60)),
                Err(lost.clone()),
            ]);
        let read = || {
            mock.collect_metrics()
                .map(|m| (m[0].temperature_celsius, m[0].utilization_percent))
        };
        assert_eq!(
            [read(), read(), read()],
            [Ok((60, 7)), Err(lost), Ok((60, 7))]
        );
    }
}
