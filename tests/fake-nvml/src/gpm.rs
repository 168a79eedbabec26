//! GPM's symbols. A sample is remembered as the GPU that it was taken of; what two samples tell is the scenario's word
//! of that GPU now.
#![allow(
    non_snake_case,
    unreachable_pub,
    clippy::missing_safety_doc,
    clippy::not_unsafe_ptr_arg_deref,
    reason = "NVML's names, and the contracts of nvml.h"
)]

use std::ffi::c_uint;
use std::sync::{Mutex, PoisonError};

use nvml_wrapper_sys::bindings::{self as sys, nvmlDevice_t, nvmlReturn_t};

use crate::scenario::Gpu;
use crate::symbols::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, device, put, system, value};

/// The GPU of each sample, once it was taken; a handle is a place in this list plus one.
static SAMPLES: Mutex<Vec<Sample>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
enum Sample {
    Free,
    Empty,
    Of(usize),
}

fn with_sample<T>(
    handle: sys::nvmlGpmSample_t,
    act: impl FnOnce(&mut Sample) -> T,
) -> Result<T, nvmlReturn_t> {
    let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
    let place = (handle as usize).checked_sub(1);
    let sample = place.and_then(|place| samples.get_mut(place));
    match sample {
        None | Some(Sample::Free) => Err(INVALID_ARGUMENT),
        Some(sample) => Ok(act(sample)),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmQueryDeviceSupport(
    handle: nvmlDevice_t,
    out: *mut sys::nvmlGpmSupport_t,
) -> nvmlReturn_t {
    device("nvmlGpmQueryDeviceSupport", handle, |gpu, _| {
        let support = sys::nvmlGpmSupport_t {
            version: sys::NVML_GPM_SUPPORT_VERSION,
            isSupportedDevice: value(gpu, "gpm")? as c_uint,
        };
        put(out, support)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleAlloc(out: *mut sys::nvmlGpmSample_t) -> nvmlReturn_t {
    system("nvmlGpmSampleAlloc", |_| {
        let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
        let free = samples.iter().position(|s| matches!(s, Sample::Free));
        let place = free.unwrap_or_else(|| {
            samples.push(Sample::Free);
            samples.len() - 1
        });
        samples[place] = Sample::Empty;
        put(out, (place + 1) as sys::nvmlGpmSample_t)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleFree(sample: sys::nvmlGpmSample_t) -> nvmlReturn_t {
    system("nvmlGpmSampleFree", |_| {
        with_sample(sample, |sample| *sample = Sample::Free)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleGet(
    handle: nvmlDevice_t,
    sample: sys::nvmlGpmSample_t,
) -> nvmlReturn_t {
    device("nvmlGpmSampleGet", handle, |gpu, slot| {
        if value(gpu, "gpm")? == 0 {
            return Err(NOT_SUPPORTED);
        }
        with_sample(sample, |sample| *sample = Sample::Of(slot))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut sys::nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    system("nvmlGpmMetricsGet", |scenario| {
        // SAFETY: nvml.h asks for a valid pointer.
        let Some(request) = (unsafe { request.as_mut() }) else {
            return Err(INVALID_ARGUMENT);
        };
        let earlier = with_sample(request.sample1, |sample| *sample)?;
        let later = with_sample(request.sample2, |sample| *sample)?;
        let (Sample::Of(slot), Sample::Of(other)) = (earlier, later) else {
            return Err(INVALID_ARGUMENT);
        };
        let gpu = scenario.gpus.get(slot).filter(|_| slot == other);
        let gpu = gpu.ok_or(INVALID_ARGUMENT)?;
        let count = request.numMetrics as usize;
        let metrics = request.metrics.get_mut(..count).ok_or(INVALID_ARGUMENT)?;
        for metric in metrics {
            match answer(gpu, metric.metricId) {
                Ok(value) => (metric.value, metric.nvmlReturn) = (value, SUCCESS),
                Err(code) => metric.nvmlReturn = code,
            }
        }
        Ok(())
    })
}

fn answer(gpu: &Gpu, id: c_uint) -> Result<f64, nvmlReturn_t> {
    let share = |name| value(gpu, name).map(|percent| percent as f64);
    let rate = |name| value(gpu, name).map(|bytes| bytes as f64 / f64::from(1 << 20));
    match id {
        sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL => share("sm_active"),
        sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL => share("tensor_active"),
        sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL => share("dram_active"),
        sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC => rate("pcie_tx_rate"),
        sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC => rate("pcie_rx_rate"),
        _ => Err(NOT_SUPPORTED),
    }
}
