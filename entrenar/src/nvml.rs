//! GPUs read through NVML, the driver's management library, found at run time.
//!
//! The library is opened once and never closed: a thread may hang inside it for ever, and nothing may pull the code
//! away under it. Any call here may block; who calls from where is the caller's care (see [`GpuBackend`]).
//!
//! What a GPU cannot say is absent. Whatever a GPU declines for good (not supported, not permitted, unknown to this
//! driver's library) is remembered, so that it is not asked for on each tick, and listed by
//! [`capabilities`](NvmlBackend::capabilities).

mod events;
mod gpm;
mod identify;
mod kernel;
mod limits;
mod odometer;
mod raw;
mod read;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::backend::{Depth, GpuBackend, GpuError, GpuProcess};
use crate::gpu::{GpuInfo, GpuUuid, Values};
use crate::report::GpuEvent;

use self::events::EventSource;
use self::gpm::Gpm;
use self::identify::{Known, RollCall};
use self::limits::Limits;
pub use self::limits::{Capability, Limit};
use self::odometer::Odometer;

/// Names that are tried when no path is given: the driver's own, then the one that developers' packages link.
const LIBRARY_NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// Code 28, `NVML_ERROR_GPU_NOT_FOUND`, which the wrapper has no name for.
const GPU_NOT_FOUND: u32 = 28;

/// The GPUs of this host, by NVML.
pub struct NvmlBackend {
    /// Never dropped, never closed.
    nvml: &'static Nvml,
    driver_version: Option<String>,
    kernel_gpus: PathBuf,
    roll_call: RollCall,
    devices: RwLock<Devices>,
    events: Mutex<EventSource>,
}

/// The devices of the last enumeration.
#[derive(Default)]
struct Devices {
    /// Counts up whenever a handle changes, so that events are registered again.
    generation: u64,
    by_uuid: HashMap<GpuUuid, Arc<Entry>>,
}

/// A GPU's handle and what is known of it.
pub(crate) struct Entry {
    device: Device<'static>,
    info: GpuInfo,
    limits: Limits,
    gpm: Gpm,
    pcie_tx: Odometer,
    pcie_rx: Odometer,
}

impl NvmlBackend {
    /// Opens NVML: at `lib_path` if given, else by the names that the driver installs.
    ///
    /// Fails with [`GpuError::BackendUnavailable`] when there is no library or no driver, naming the libraries that
    /// were tried, and with [`GpuError::DriverMismatch`] when library and kernel module do not fit.
    pub fn open(lib_path: Option<&Path>) -> Result<Self, GpuError> {
        let names: Vec<std::ffi::OsString> = match lib_path {
            Some(path) => vec![path.into()],
            None => LIBRARY_NAMES.iter().map(Into::into).collect(),
        };
        let mut tried = Vec::new();
        let mut reason = String::new();
        for name in &names {
            tried.push(name.to_string_lossy().into_owned());
            match Nvml::builder().lib_path(name).init() {
                Ok(nvml) => return Ok(Self::over(Box::leak(Box::new(nvml)))),
                Err(NvmlError::LibRmVersionMismatch) => return Err(GpuError::DriverMismatch),
                Err(error) => {
                    reason = error.to_string();
                    // A library that was found and refuses is the answer; another name would be the same file.
                    if !matches!(error, NvmlError::LibloadingError(_)) {
                        break;
                    }
                }
            }
        }
        Err(GpuError::BackendUnavailable { tried, reason })
    }

    fn over(nvml: &'static Nvml) -> Self {
        Self {
            nvml,
            driver_version: nvml.sys_driver_version().ok(),
            kernel_gpus: kernel::GPUS.into(),
            roll_call: RollCall::new(nvml),
            devices: RwLock::default(),
            events: Mutex::new(EventSource::new(nvml)),
        }
    }

    /// Looks for the kernel's list of GPUs in another place than `/proc/driver/nvidia/gpus`.
    #[must_use]
    pub fn with_kernel_list(mut self, dir: impl Into<PathBuf>) -> Self {
        self.kernel_gpus = dir.into();
        self
    }

    /// What the GPUs seen so far cannot report, and why, in the order of device and metric.
    pub fn capabilities(&self) -> Vec<Capability> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Capability> = devices
            .by_uuid
            .values()
            .flat_map(|entry| entry.limits.list(entry.info.index))
            .collect();
        all.sort_by_key(|c| (c.device, c.metric));
        all
    }

    /// The handle of a GPU: from the last enumeration, else asked for by its UUID.
    fn entry(&self, gpu: &GpuInfo) -> Result<Arc<Entry>, GpuError> {
        let known = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known.by_uuid.get(&gpu.uuid) {
            return Ok(Arc::clone(entry));
        }
        drop(known);
        let device = self
            .nvml
            .device_by_uuid(gpu.uuid.as_str())
            .map_err(|e| match e {
                NvmlError::NotFound | NvmlError::InvalidArg => {
                    GpuError::NotFound { device: gpu.index }
                }
                other => gpu_error(gpu.index, &other),
            })?;
        Ok(self.keep(device, gpu.clone()))
    }

    /// Remembers a handle. The same handle keeps what was learned about it.
    fn keep(&self, device: Device<'static>, info: GpuInfo) -> Arc<Entry> {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = devices.by_uuid.get(&info.uuid)
            && known.info == info
            && raw::same_device(&known.device, &device)
        {
            return Arc::clone(known);
        }
        let entry = Arc::new(Entry {
            device,
            info: info.clone(),
            limits: Limits::default(),
            gpm: Gpm::default(),
            pcie_tx: Odometer::default(),
            pcie_rx: Odometer::default(),
        });
        devices.generation += 1;
        // Whoever sat here before has moved or is gone, and is asked for by its UUID.
        devices
            .by_uuid
            .retain(|_, other| other.info.index != info.index);
        devices.by_uuid.insert(info.uuid, Arc::clone(&entry));
        entry
    }

    fn count(&self) -> Result<u32, GpuError> {
        let count = match self.nvml.device_count() {
            // The driver was reloaded under us: the library wants to be initialised again.
            Err(NvmlError::Uninitialized) => {
                raw::init_again(self.nvml).and_then(|()| self.nvml.device_count())
            }
            other => other,
        };
        count.map_err(|e| match e {
            NvmlError::LibRmVersionMismatch => GpuError::DriverMismatch,
            other => unavailable(&other),
        })
    }

    /// Fills in who does not say who it is now: who sat there before it fell silent, else who the kernel says sits
    /// there. A lost GPU stays in the inventory, so that it is missed by name.
    fn name_the_silent(&self, gpus: &mut [Option<GpuInfo>]) {
        if gpus.iter().all(Option::is_some) {
            return;
        }
        let here: Vec<GpuUuid> = gpus.iter().flatten().map(|gpu| gpu.uuid.clone()).collect();
        let kernel = self.kernel_list(gpus);
        for (index, silent) in gpus.iter_mut().enumerate().filter(|(_, gpu)| gpu.is_none()) {
            let before = self.known_at(index as u32).map(|(info, _)| info);
            // Who answers elsewhere has moved.
            let before = before.filter(|info| !here.contains(&info.uuid));
            *silent = before.or_else(|| kernel.get(index).cloned());
        }
    }

    /// The kernel's list, if it is about the same GPUs: a container may see fewer through NVML.
    fn kernel_list(&self, gpus: &[Option<GpuInfo>]) -> Vec<GpuInfo> {
        let mut kernel = kernel::list(&self.kernel_gpus);
        let agrees = |(nvml, kernel): (&Option<GpuInfo>, &GpuInfo)| {
            nvml.as_ref().is_none_or(|gpu| gpu.uuid == kernel.uuid)
        };
        if kernel.len() != gpus.len() || !gpus.iter().zip(&kernel).all(agrees) {
            kernel.clear();
        }
        kernel
    }

    /// Who sits at an index, or sat there before it fell silent.
    fn known_at(&self, index: u32) -> Option<Known> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let entry = devices
            .by_uuid
            .values()
            .find(|entry| entry.info.index == index)?;
        Some((entry.info.clone(), raw::copy_device(&entry.device)))
    }
}

impl GpuBackend for NvmlBackend {
    fn name(&self) -> &'static str {
        "nvml"
    }

    fn driver_version(&self) -> Option<String> {
        self.driver_version.clone()
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
        let count = self.count()?;
        let heard = self.roll_call.call(count, &|index| self.known_at(index));
        let mut failure = None;
        let mut gpus = vec![None; count as usize];
        for (index, answer) in heard {
            match answer {
                Ok((info, device)) => {
                    gpus[index as usize] = Some(self.keep(device, info).info.clone());
                }
                Err(error) => failure = failure.or(Some(gpu_error(index, &error))),
            }
        }
        self.name_the_silent(&mut gpus);
        let gpus: Vec<GpuInfo> = gpus.into_iter().flatten().collect();
        if gpus.is_empty() && count > 0 {
            return Err(failure.unwrap_or(GpuError::Timeout {
                device: 0,
                waited: identify::DEADLINE,
            }));
        }
        Ok(gpus)
    }

    fn read(&self, gpu: &GpuInfo, depth: Depth) -> Result<Values, GpuError> {
        let entry = self.entry(gpu)?;
        read::read(&entry, depth)
    }

    fn processes(&self, gpu: &GpuInfo) -> Result<Vec<GpuProcess>, GpuError> {
        let entry = self.entry(gpu)?;
        read::processes(&entry)
    }

    fn events(&self, timeout: Duration) -> Result<Vec<GpuEvent>, GpuError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let generation = devices.generation;
        let fresh: Option<Vec<Arc<Entry>>> =
            (!events.watches(generation)).then(|| devices.by_uuid.values().cloned().collect());
        // Registering asks the driver, which may block: nobody else is to wait for that.
        drop(devices);
        if let Some(gpus) = fresh {
            events.watch(generation, gpus);
        }
        events.wait(timeout)
    }
}

/// An answer that concerns the whole GPU, or all of them.
fn gpu_error(device: u32, error: &NvmlError) -> GpuError {
    match error {
        NvmlError::GpuLost | NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => {
            GpuError::Lost { device }
        }
        NvmlError::ResetRequired => GpuError::ResetRequired { device },
        NvmlError::NotFound => GpuError::NotFound { device },
        NvmlError::NoPermission | NvmlError::OperatingSystem => GpuError::NoPermission { device },
        NvmlError::LibRmVersionMismatch => GpuError::DriverMismatch,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded => unavailable(error),
        other => GpuError::Failed {
            device,
            reason: other.to_string(),
        },
    }
}

fn unavailable(error: &NvmlError) -> GpuError {
    GpuError::BackendUnavailable {
        tried: LIBRARY_NAMES.map(String::from).to_vec(),
        reason: error.to_string(),
    }
}
