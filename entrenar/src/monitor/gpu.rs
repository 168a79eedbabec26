//! The page's monitor: reads this node's GPUs, and gathers what `entrenar::monitor::gpu` promises.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::reader::Readers;
use crate::backend::GpuBackend;
use crate::gpu::GpuInfo;
use crate::nvml::NvmlBackend;

pub use super::alert::{AlertConfig, AlertLevel, GpuAlert};
pub use super::andon::AndonSystem;
pub use super::line::{AlertAction, LevelAction, LevelActions, StopFlag};
pub use super::metrics::{GpuMetrics, GpuReading};
pub use crate::backend::GpuError;
pub use crate::mock::MockGpuBackend;
pub use crate::spark::{SparkValue, sparkline, sparkline_scaled};

/// Names the backend that [`GpuMonitor::new`] opens: `nvml` (the default), `mock` or `mock:N`.
pub const BACKEND_VARIABLE: &str = "ENTRENAR_GPU_BACKEND";

/// Names the NVML library that [`GpuMonitor::new`] opens, instead of the driver's.
pub const NVML_LIB_VARIABLE: &str = "ENTRENAR_NVML_LIB";

/// GPUs of the plain `mock` backend.
const MOCK_GPUS: u32 = 2;

/// More mocked GPUs than any node has, so that a slip of the finger does not start a thread for each.
const MOCK_GPUS_MAX: u32 = 64;

/// How long a GPU may take to answer: a healthy one needs milliseconds.
const READ_DEADLINE: Duration = Duration::from_secs(2);

/// Reads the GPUs of this node. Clones share one set of reading threads.
///
/// A GPU that does not answer is given up after two seconds ([`with_deadline`](Self::with_deadline)) and the others
/// are not delayed by it: each has a thread of its own.
#[derive(Clone)]
pub struct GpuMonitor {
    backend: &'static str,
    deadline: Duration,
    readers: Arc<Mutex<Readers>>,
}

impl GpuMonitor {
    /// Opens the driver's library, NVML, or what the environment variable `ENTRENAR_GPU_BACKEND` names instead.
    ///
    /// Without a driver this is an error that names the libraries tried: a monitor that sees nothing must not look like
    /// one that sees nothing wrong. Opening a driver that hangs may block.
    pub fn new() -> Result<Self, GpuError> {
        let lib = std::env::var_os(NVML_LIB_VARIABLE).filter(|path| !path.is_empty());
        match Choice::parse(std::env::var_os(BACKEND_VARIABLE).as_deref())? {
            Choice::Nvml => {
                NvmlBackend::open(lib.map(PathBuf::from).as_deref()).map(Self::with_backend)
            }
            Choice::Mock(count) => Ok(Self::with_backend(MockGpuBackend::demo(count))),
        }
    }

    /// Over any backend. It is asked for its GPUs when they are first needed.
    pub fn with_backend(backend: impl GpuBackend) -> Self {
        Self {
            backend: backend.name(),
            deadline: READ_DEADLINE,
            readers: Arc::new(Mutex::new(Readers::new(Arc::new(backend)))),
        }
    }

    /// How long a GPU may take to answer.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Name of the backend: `nvml`, `mock`, `sim`, `replay`.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// The GPUs that were there when they were first asked for.
    pub fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
        self.readers().inventory()
    }

    /// What all GPUs say now, as plain numbers.
    ///
    /// A GPU that does not answer is left out; if none answers, the first error is returned.
    /// [`collect_readings`](Self::collect_readings) tells why a GPU is missing.
    pub fn collect_metrics(&self) -> Result<Vec<GpuMetrics>, GpuError> {
        let readings = self.collect_readings()?;
        GpuMetrics::of_those_that_answered(readings.iter().map(|r| (&r.info, r.values.clone())))
    }

    /// What each GPU says now, or why it says nothing. Unknown values are absent.
    pub fn collect_readings(&self) -> Result<Vec<GpuReading>, GpuError> {
        self.readers().read_all(self.deadline)
    }

    /// One collection at a time; the next waits at most a deadline.
    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GpuMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuMonitor")
            .field("backend", &self.backend)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// What `ENTRENAR_GPU_BACKEND` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Nvml,
    Mock(u32),
}

impl Choice {
    fn parse(value: Option<&OsStr>) -> Result<Self, GpuError> {
        let text = value.unwrap_or_default().to_string_lossy();
        let choice = match text.split_once(':').unwrap_or((&text, "")) {
            ("" | "nvml", "") => Some(Self::Nvml),
            ("mock", "") => Some(Self::Mock(MOCK_GPUS)),
            ("mock", count) => count
                .parse()
                .ok()
                .filter(|count| (0..=MOCK_GPUS_MAX).contains(count))
                .map(Self::Mock),
            _ => None,
        };
        choice.ok_or_else(|| GpuError::BackendUnavailable {
            tried: vec![format!("{BACKEND_VARIABLE}={text}")],
            reason: format!(
                "{BACKEND_VARIABLE} must be nvml, mock, or mock:N with N up to {MOCK_GPUS_MAX}"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_the_backend() {
        let check = |value: &str, choice: Option<Choice>| {
            assert_eq!(
                Choice::parse(Some(OsStr::new(value))).ok(),
                choice,
                "{value:?}"
            );
        };
        check("", Some(Choice::Nvml));
        check("nvml", Some(Choice::Nvml));
        check("mock", Some(Choice::Mock(2)));
        check("mock:8", Some(Choice::Mock(8)));
        check("mock:0", Some(Choice::Mock(0)));
        for bad in ["mock:-1", "mock:65", "nvml:2", "Mock", "sim"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_gpu_that_fails_is_missing_from_the_metrics_and_named_in_the_readings() {
        let lost = GpuError::Lost { device: 1 };
        let monitor = GpuMonitor::with_backend(
            MockGpuBackend::demo(1)
                .with_device(1, "gone")
                .with_failure(lost.clone()),
        );
        let devices: Vec<_> = monitor
            .collect_metrics()
            .unwrap()
            .iter()
            .map(|m| m.device_id)
            .collect();
        assert_eq!(devices, [0]);
        assert_eq!(monitor.collect_readings().unwrap()[1].values, Err(lost));
    }

    #[test]
    fn when_no_gpu_answers_the_reason_comes_back() {
        let lost = GpuError::Lost { device: 0 };
        let monitor = GpuMonitor::with_backend(MockGpuBackend::new().with_failure(lost.clone()));
        assert_eq!(monitor.collect_metrics(), Err(lost));
        let none = GpuMonitor::with_backend(MockGpuBackend::new());
        assert_eq!(none.collect_metrics(), Ok(vec![]));
    }
}
