//! Which GPUs the agent reads: the choice on the command line as a backend.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use entrenar::backend::{Depth, GpuBackend, GpuError, GpuProcess};
use entrenar::clock::Clock;
use entrenar::gpu::{GpuInfo, Values};
use entrenar::mock::MockGpuBackend;
use entrenar::nvml::NvmlBackend;
use entrenar::report::GpuEvent;
use entrenar::sim::{SimConfig, SimFleet};
use entrenar::trace::{AtEnd, ReplayBackend};

use crate::config::{BackendChoice, Config};

/// GPUs of a simulated or mocked node.
const PRETEND_GPUS: u32 = 8;

/// The backend that the configuration asks for. NVML need not be there yet: it is looked for until it is.
pub fn choose(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn GpuBackend>> {
    match &config.backend {
        BackendChoice::Nvml => Ok(Arc::new(LateNvml {
            lib_path: config.nvml_lib.clone(),
            nvml: OnceLock::new(),
        })),
        BackendChoice::Mock => Ok(Arc::new(MockGpuBackend::demo(PRETEND_GPUS))),
        BackendChoice::Sim => {
            let sim = SimConfig::new(1, PRETEND_GPUS).start(clock.now());
            let nodes = SimFleet::backends(&sim, clock, 1.0)?;
            let (_, backend) = nodes
                .into_iter()
                .next()
                .context("a simulated fleet has a node")?;
            Ok(backend)
        }
        BackendChoice::Replay(path) => {
            let open = |node| ReplayBackend::open(path, node, AtEnd::Loop, Arc::clone(clock));
            let backend = open(config.node.as_deref())
                .with_context(|| format!("could not replay {}", path.display()))?;
            Ok(Arc::new(backend))
        }
    }
}

/// NVML once its library and driver are there. A node may boot its agent before its driver.
struct LateNvml {
    lib_path: Option<std::path::PathBuf>,
    nvml: OnceLock<NvmlBackend>,
}

impl LateNvml {
    fn get(&self) -> Result<&NvmlBackend, GpuError> {
        self.nvml.get().ok_or_else(|| GpuError::BackendUnavailable {
            tried: Vec::new(),
            reason: "the driver's library is not open yet".to_owned(),
        })
    }
}

impl GpuBackend for LateNvml {
    fn name(&self) -> &'static str {
        "nvml"
    }

    fn driver_version(&self) -> Option<String> {
        self.nvml.get()?.driver_version()
    }

    /// The only call that opens the library; the probe repeats it.
    fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
        if self.nvml.get().is_none() {
            let nvml = NvmlBackend::open(self.lib_path.as_deref())?;
            // Only the probe's discovery comes here; a second library would do no harm.
            let _ = self.nvml.set(nvml);
        }
        self.get()?.inventory()
    }

    fn read(&self, gpu: &GpuInfo, depth: Depth) -> Result<Values, GpuError> {
        self.get()?.read(gpu, depth)
    }

    fn processes(&self, gpu: &GpuInfo) -> Result<Vec<GpuProcess>, GpuError> {
        self.get()?.processes(gpu)
    }

    fn events(&self, timeout: Duration) -> Result<Vec<GpuEvent>, GpuError> {
        if let Some(nvml) = self.nvml.get() {
            return nvml.events(timeout);
        }
        std::thread::sleep(timeout);
        Ok(Vec::new())
    }
}
