//! The seam between a GPU and everyone who reads one: NVML, the mock, the simulator, a replayed trace.

use std::time::Duration;

use crate::gpu::{GpuInfo, Values};
use crate::metric::NvmlStatus;
use crate::report::{GpuEvent, Holder};

/// Why a GPU, or all of them, could not be read. A variant per different reaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// There is nothing to read with: no library, no driver. Retry after the driver is there.
    #[error("no GPU backend: {reason} (tried: {})", tried.join(", "))]
    BackendUnavailable {
        /// Libraries tried, in order.
        tried: Vec<String>,
        /// What the last one answered.
        reason: String,
    },
    /// The library and the kernel's driver are of different versions: reload the driver or reboot.
    #[error(
        "the driver and its library have different versions: reload the driver or reboot the node"
    )]
    DriverMismatch,
    /// The GPU fell off the bus.
    #[error("GPU {device} is lost")]
    Lost {
        /// NVML index.
        device: u32,
    },
    /// The GPU must be reset before it can be read.
    #[error("GPU {device} needs a reset")]
    ResetRequired {
        /// NVML index.
        device: u32,
    },
    /// There is no such GPU, or no longer.
    #[error("there is no GPU {device}")]
    NotFound {
        /// NVML index.
        device: u32,
    },
    /// A call did not come back in time.
    #[error("GPU {device} did not answer within {} ms", waited.as_millis())]
    Timeout {
        /// NVML index.
        device: u32,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The user may not read this.
    #[error("reading GPU {device} is not permitted for this user")]
    NoPermission {
        /// NVML index.
        device: u32,
    },
    /// Anything else, in the driver's words.
    #[error("GPU {device}: {reason}")]
    Failed {
        /// NVML index.
        device: u32,
        /// The driver's words.
        reason: String,
    },
}

impl GpuError {
    /// The status that a tick with this error carries.
    pub fn status(&self) -> NvmlStatus {
        match self {
            Self::Lost { .. } => NvmlStatus::GpuIsLost,
            Self::ResetRequired { .. } => NvmlStatus::ResetRequired,
            Self::NotFound { .. } => NvmlStatus::NotFound,
            Self::Timeout { .. } => NvmlStatus::Timeout,
            _ => NvmlStatus::Unknown,
        }
    }
}

/// What to read in one call of [`GpuBackend::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Only metrics with [`Pace::Fast`](crate::metric::Pace::Fast).
    Fast,
    /// Everything, processes too.
    Full,
}

/// A process that has a GPU open for compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuProcess {
    /// Process id, in the agent's pid namespace.
    pub pid: u32,
    /// Device memory that it holds, where the driver says.
    pub memory_used_bytes: Option<u64>,
}

/// A way to read the GPUs of one node.
///
/// Every call may block, even for ever: a caller that must go on reads each GPU on a thread that it can abandon.
/// Calls for different GPUs may run at the same time. A metric that a GPU cannot report is left out, never 0.
pub trait GpuBackend: Send + Sync + 'static {
    /// Short name for logs and metrics: `nvml`, `mock`, `sim`, `replay`.
    fn name(&self) -> &'static str;

    /// Version of the driver, where there is one.
    fn driver_version(&self) -> Option<String> {
        None
    }

    /// Whether a call may block. A backend that says no is called in place, without threads of its own, so that it
    /// also works in virtual time.
    fn may_block(&self) -> bool {
        true
    }

    /// The GPUs that are there now, in the order of their index.
    fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError>;

    /// One GPU's values now. Metrics that it cannot report are absent; an error means that the GPU said nothing.
    fn read(&self, gpu: &GpuInfo, depth: Depth) -> Result<Values, GpuError>;

    /// Compute processes on a GPU. Empty when there are none.
    fn processes(&self, gpu: &GpuInfo) -> Result<Vec<GpuProcess>, GpuError> {
        let _ = gpu;
        Ok(Vec::new())
    }

    /// Waits at most `timeout` for events; an empty list when none came. Called from one thread only.
    /// A backend without events waits and returns nothing.
    fn events(&self, timeout: Duration) -> Result<Vec<GpuEvent>, GpuError> {
        std::thread::sleep(timeout);
        Ok(Vec::new())
    }

    /// Who holds a GPU, where the backend itself knows (simulator, trace). The outer `None`: look at its processes.
    fn holder(&self, gpu: &GpuInfo) -> Option<Option<Holder>> {
        let _ = gpu;
        None
    }
}

/// What every backend promises, as a test that each of them runs.
#[cfg(feature = "testing")]
pub mod contract {
    use std::collections::BTreeSet;

    use super::{Depth, Duration, GpuBackend, GpuInfo};
    use crate::gpu::GpuUuid;
    use crate::metric::{self, Kind};

    /// Holds a backend to its contract. All of its GPUs must be well.
    ///
    /// # Panics
    /// When the backend breaks it.
    pub fn check(backend: &dyn GpuBackend) {
        assert!(!backend.name().is_empty());
        let gpus = backend.inventory().expect("an inventory");
        let indices: Vec<_> = gpus.iter().map(|gpu| gpu.index).collect();
        assert!(
            indices.is_sorted_by(|a, b| a < b),
            "in the order of their index: {indices:?}"
        );
        let uuids: BTreeSet<_> = gpus.iter().map(|gpu| &gpu.uuid).collect();
        assert_eq!(uuids.len(), gpus.len(), "no two GPUs have the same UUID");
        for gpu in &gpus {
            check_reads(backend, gpu);
            check_holder(backend, gpu);
        }
        check_events(backend, &uuids);
        check_absent(backend, &gpus);
    }

    fn check_reads(backend: &dyn GpuBackend, gpu: &GpuInfo) {
        let fast = backend.read(gpu, Depth::Fast).expect("a healthy GPU");
        let full = backend.read(gpu, Depth::Full).expect("a healthy GPU");
        assert!(!fast.is_empty(), "GPU {} says something", gpu.index);
        for (id, value) in fast.iter() {
            let metric = id.def().expect("known metrics");
            let later = full.get(id);
            assert!(later.is_some(), "{} is in a full reading too", metric.name);
            if metric.kind == Kind::Counter {
                assert!(Some(value) <= later, "{} fell", metric.name);
            }
        }
        for percent in [
            metric::UTILIZATION,
            metric::MEMORY_UTILIZATION,
            metric::FAN_SPEED,
        ] {
            let value = full.get(percent).unwrap_or(0);
            assert!((0..=100).contains(&value), "{value} is no percentage");
        }
        if let (Some(used), Some(total)) = (
            full.get(metric::MEMORY_USED),
            full.get(metric::MEMORY_TOTAL),
        ) {
            assert!(0 <= used && used <= total, "{used} of {total} bytes in use");
        }
    }

    fn check_holder(backend: &dyn GpuBackend, gpu: &GpuInfo) {
        if let Some(Some(holder)) = backend.holder(gpu) {
            assert!(!holder.job.is_empty(), "a holder has a name");
            assert!(holder.pids.len() <= 64, "at most 64 processes");
        }
        backend.processes(gpu).expect("processes of a healthy GPU");
    }

    fn check_events(backend: &dyn GpuBackend, uuids: &BTreeSet<&GpuUuid>) {
        for event in backend.events(Duration::ZERO).expect("events, or none") {
            assert!(
                event.gpu.is_none_or(|gpu| uuids.contains(&gpu)),
                "an event of its own GPUs"
            );
        }
    }

    /// A GPU that is not there is an error, not a panic and not a healthy silence.
    fn check_absent(backend: &dyn GpuBackend, gpus: &[GpuInfo]) {
        let absent = GpuInfo {
            uuid: GpuUuid::from("GPU-that-is-not-there"),
            index: gpus.last().map_or(0, |gpu| gpu.index + 1),
            ..GpuInfo::default()
        };
        assert!(backend.read(&absent, Depth::Fast).is_err());
    }
}
