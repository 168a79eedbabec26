//! The C symbols. Each passes the scenario first, and then answers from it.
//!
//! Handles are small numbers cast to pointers: a device is its place in the scenario plus one, an event set its place
//! in our list plus one. Nobody dereferences them.
#![allow(
    non_snake_case,
    unreachable_pub,
    clippy::missing_safety_doc,
    clippy::not_unsafe_ptr_arg_deref,
    reason = "NVML's names, and the contracts of nvml.h"
)]

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ulonglong};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper_sys::bindings::{self as sys, field_id as fi, nvmlDevice_t, nvmlReturn_t};

use crate::player::player;
use crate::scenario::{Gpu, Scenario, Value, uuid};
use crate::spent::Spending;

pub(crate) const SUCCESS: nvmlReturn_t = 0;
pub(crate) const INVALID_ARGUMENT: nvmlReturn_t = 2;
pub(crate) const NOT_SUPPORTED: nvmlReturn_t = 3;
const NOT_FOUND: nvmlReturn_t = 6;
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const TIMEOUT: nvmlReturn_t = 10;
const ARGUMENT_VERSION_MISMATCH: nvmlReturn_t = 25;

/// Asks for all links.
const ALL_SCOPES: c_uint = c_uint::MAX;

/// Lets a call through and gives its outcome to C.
fn outcome(result: Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    result.err().unwrap_or(SUCCESS)
}

/// A call about no GPU.
pub(crate) fn system(
    call: &str,
    answer: impl FnOnce(&Scenario) -> Result<(), u32>,
) -> nvmlReturn_t {
    let _spending = Spending::begin();
    outcome(
        player()
            .pass(call, None)
            .and_then(|scenario| answer(&scenario)),
    )
}

/// A call about a GPU.
pub(crate) fn device(
    call: &str,
    handle: nvmlDevice_t,
    answer: impl FnOnce(&Gpu, usize) -> Result<(), u32>,
) -> nvmlReturn_t {
    let _spending = Spending::begin();
    let Some(slot) = (handle as usize).checked_sub(1) else {
        return INVALID_ARGUMENT;
    };
    outcome(
        player()
            .pass(call, Some(slot))
            .and_then(|scenario| answer(&scenario.gpus[slot], slot)),
    )
}

pub(crate) fn value(gpu: &Gpu, name: &str) -> Result<u64, nvmlReturn_t> {
    match gpu.value(name) {
        Value::Is(value) => Ok(value),
        Value::Code(code) => Err(code),
    }
}

/// Writes where C wants its answer.
pub(crate) fn put<T>(out: *mut T, value: T) -> Result<(), nvmlReturn_t> {
    if out.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and nvml.h asks for a valid pointer.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a text with its final zero into a buffer.
fn put_text(out: *mut c_char, size: c_uint, text: &str) -> Result<(), nvmlReturn_t> {
    if out.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= size as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the buffer has `size` bytes, by nvml.h; the text and its zero fit.
    unsafe {
        out.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    system("nvmlInit_v2", |scenario| match scenario.init {
        SUCCESS => Ok(()),
        code => Err(code),
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    system("nvmlShutdown", |_| Ok(()))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetDriverVersion(out: *mut c_char, size: c_uint) -> nvmlReturn_t {
    system("nvmlSystemGetDriverVersion", |scenario| {
        put_text(out, size, &scenario.driver)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetNVMLVersion(out: *mut c_char, size: c_uint) -> nvmlReturn_t {
    system("nvmlSystemGetNVMLVersion", |s| {
        put_text(out, size, &format!("12.{}", s.driver))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(out: *mut c_uint) -> nvmlReturn_t {
    system("nvmlDeviceGetCount_v2", |s| {
        put(out, s.present().count() as c_uint)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let scenario = player().scenario();
    let Some(slot) = scenario.present().nth(index as usize) else {
        return INVALID_ARGUMENT;
    };
    let handle = (slot + 1) as nvmlDevice_t;
    device("nvmlDeviceGetHandleByIndex_v2", handle, |_, _| {
        put(out, handle)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(
    wanted: *const c_char,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    if wanted.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and a C string by nvml.h.
    let wanted = unsafe { CStr::from_ptr(wanted) }.to_bytes();
    let scenario = player().scenario();
    let found = scenario
        .present()
        .find(|&slot| uuid(scenario.host, slot).as_bytes() == wanted);
    let Some(slot) = found else {
        return NOT_FOUND;
    };
    let handle = (slot + 1) as nvmlDevice_t;
    device("nvmlDeviceGetHandleByUUID", handle, |_, _| put(out, handle))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUUID(
    handle: nvmlDevice_t,
    out: *mut c_char,
    size: c_uint,
) -> nvmlReturn_t {
    let host = player().scenario().host;
    device("nvmlDeviceGetUUID", handle, |_, slot| {
        put_text(out, size, &uuid(host, slot))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetName(
    handle: nvmlDevice_t,
    out: *mut c_char,
    size: c_uint,
) -> nvmlReturn_t {
    device("nvmlDeviceGetName", handle, |_, _| {
        put_text(out, size, "NVIDIA H100 80GB HBM3")
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetSerial(
    handle: nvmlDevice_t,
    out: *mut c_char,
    size: c_uint,
) -> nvmlReturn_t {
    let host = player().scenario().host;
    device("nvmlDeviceGetSerial", handle, |_, slot| {
        put_text(out, size, &format!("165{host:05}{slot:05}"))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPciInfo_v3(
    handle: nvmlDevice_t,
    out: *mut sys::nvmlPciInfo_t,
) -> nvmlReturn_t {
    device("nvmlDeviceGetPciInfo_v3", handle, |_, slot| {
        let bus = 4 + slot;
        let mut pci = sys::nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: bus as c_uint,
            device: 0,
            pciDeviceId: 0x2330_10de,
            pciSubSystemId: 0x16c1_10de,
            busId: [0; 32],
        };
        put_text(
            pci.busIdLegacy.as_mut_ptr(),
            16,
            &format!("0000:{bus:02X}:00.0"),
        )?;
        put_text(
            pci.busId.as_mut_ptr(),
            32,
            &format!("00000000:{bus:02X}:00.0"),
        )?;
        put(out, pci)
    })
}

/// Calls that give one number.
macro_rules! number {
    ($($call:ident $field:literal $type:ty;)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $call(handle: nvmlDevice_t, out: *mut $type) -> nvmlReturn_t {
            device(stringify!($call), handle, |gpu, _| put(out, value(gpu, $field)? as $type))
        }
    )*};
}

number! {
    nvmlDeviceGetPowerUsage "power" c_uint;
    nvmlDeviceGetEnforcedPowerLimit "power_limit" c_uint;
    nvmlDeviceGetPowerManagementLimit "power_limit" c_uint;
    nvmlDeviceGetPowerManagementDefaultLimit "power_limit_default" c_uint;
    nvmlDeviceGetCurrentClocksEventReasons "reasons" c_ulonglong;
    nvmlDeviceGetCurrentClocksThrottleReasons "reasons" c_ulonglong;
    nvmlDeviceGetCurrPcieLinkWidth "pcie_width" c_uint;
    nvmlDeviceGetCurrPcieLinkGeneration "pcie_gen" c_uint;
    nvmlDeviceGetPcieReplayCounter "pcie_replay" c_uint;
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperature(
    handle: nvmlDevice_t,
    _sensor: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    device("nvmlDeviceGetTemperature", handle, |gpu, _| {
        put(out, value(gpu, "temperature")? as c_uint)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMarginTemperature(
    handle: nvmlDevice_t,
    out: *mut sys::nvmlMarginTemperature_t,
) -> nvmlReturn_t {
    device("nvmlDeviceGetMarginTemperature", handle, |gpu, _| {
        let version = size_of::<sys::nvmlMarginTemperature_t>() as c_uint | 1 << 24;
        // SAFETY: nvml.h asks for a valid pointer with its version set.
        if out.is_null() || unsafe { (*out).version } != version {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let margin = value(gpu, "thermal_margin")? as c_int;
        put(
            out,
            sys::nvmlMarginTemperature_t {
                version,
                marginTemperature: margin,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUtilizationRates(
    handle: nvmlDevice_t,
    out: *mut sys::nvmlUtilization_t,
) -> nvmlReturn_t {
    device("nvmlDeviceGetUtilizationRates", handle, |gpu, _| {
        let rates = sys::nvmlUtilization_t {
            gpu: value(gpu, "utilization")? as c_uint,
            memory: value(gpu, "memory_utilization")? as c_uint,
        };
        put(out, rates)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo(
    handle: nvmlDevice_t,
    out: *mut sys::nvmlMemory_t,
) -> nvmlReturn_t {
    device("nvmlDeviceGetMemoryInfo", handle, |gpu, _| {
        let (total, used) = (value(gpu, "memory_total")?, value(gpu, "memory_used")?);
        let used = used + value(gpu, "memory_reserved")?;
        put(
            out,
            sys::nvmlMemory_t {
                total,
                free: total.saturating_sub(used),
                used,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    handle: nvmlDevice_t,
    out: *mut sys::nvmlMemory_v2_t,
) -> nvmlReturn_t {
    device("nvmlDeviceGetMemoryInfo_v2", handle, |gpu, _| {
        let version = size_of::<sys::nvmlMemory_v2_t>() as c_uint | 2 << 24;
        // SAFETY: nvml.h asks for a valid pointer with its version set.
        if out.is_null() || unsafe { (*out).version } != version {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let (total, used) = (value(gpu, "memory_total")?, value(gpu, "memory_used")?);
        let reserved = value(gpu, "memory_reserved")?;
        let free = total.saturating_sub(used + reserved);
        put(
            out,
            sys::nvmlMemory_v2_t {
                version,
                total,
                reserved,
                free,
                used,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTotalEnergyConsumption(
    handle: nvmlDevice_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    device(
        "nvmlDeviceGetTotalEnergyConsumption",
        handle,
        |gpu, slot| {
            let began = value(gpu, "energy")?;
            put(out, began + player().totals(slot).energy as c_ulonglong)
        },
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetClockInfo(
    handle: nvmlDevice_t,
    clock: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    device("nvmlDeviceGetClockInfo", handle, |gpu, _| {
        let name = match clock {
            sys::nvmlClockType_enum_NVML_CLOCK_MEM => "memory_clock",
            _ => "sm_clock",
        };
        put(out, value(gpu, name)? as c_uint)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: nvmlDevice_t,
    kind: c_uint,
    _counter: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    device("nvmlDeviceGetTotalEccErrors", handle, |gpu, _| {
        let name = if kind == 0 {
            "ecc_corrected"
        } else {
            "ecc_uncorrected"
        };
        put(out, value(gpu, name)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetFanSpeed_v2(
    handle: nvmlDevice_t,
    _fan: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    device("nvmlDeviceGetFanSpeed_v2", handle, |gpu, _| {
        put(out, value(gpu, "fan")? as c_uint)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkState(
    handle: nvmlDevice_t,
    link: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    device("nvmlDeviceGetNvLinkState", handle, |gpu, _| {
        // As many links as an H100 has; `nvlinks` of them are up.
        let links = value(gpu, "nvlinks")?;
        if link >= 18 {
            return Err(INVALID_ARGUMENT);
        }
        put(out, c_uint::from(u64::from(link) < links))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    handle: nvmlDevice_t,
    count: c_int,
    values: *mut sys::nvmlFieldValue_t,
) -> nvmlReturn_t {
    device("nvmlDeviceGetFieldValues", handle, |gpu, slot| {
        let count = usize::try_from(count).map_err(|_| INVALID_ARGUMENT)?;
        if values.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and `count` values long by nvml.h.
        for asked in unsafe { std::slice::from_raw_parts_mut(values, count) } {
            answer_field(gpu, slot, asked);
        }
        Ok(())
    })
}

fn answer_field(gpu: &Gpu, slot: usize, asked: &mut sys::nvmlFieldValue_t) {
    asked.timestamp = 0 as c_longlong;
    asked.nvmlReturn = SUCCESS;
    match field(gpu, slot, asked.fieldId, asked.scopeId) {
        Ok(Field::Small(number)) => {
            asked.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            asked.value = sys::nvmlValue_t {
                uiVal: number as c_uint,
            };
        }
        Ok(Field::Large(number)) => {
            asked.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
            asked.value = sys::nvmlValue_t { ullVal: number };
        }
        Err(code) => asked.nvmlReturn = code,
    }
}

/// A field's value with its width.
enum Field {
    Small(u64),
    Large(u64),
}

fn field(gpu: &Gpu, slot: usize, id: c_uint, scope: c_uint) -> Result<Field, nvmlReturn_t> {
    let small = |name| value(gpu, name).map(Field::Small);
    let large = |name| value(gpu, name).map(Field::Large);
    let total = |name, total: f64| value(gpu, name).map(|_| Field::Large(total as u64));
    // 32 bits that go round, as the driver's.
    let round = |name, total: f64| value(gpu, name).map(|_| Field::Small(total as u64));
    let totals = player().totals(slot);
    match id {
        fi::NVML_FI_DEV_MEMORY_TEMP => small("memory_temperature"),
        fi::NVML_FI_DEV_REMAPPED_PENDING => small("remap_pending"),
        fi::NVML_FI_DEV_REMAPPED_FAILURE => small("remap_failure"),
        fi::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL => large("nvlink_crc"),
        fi::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL => large("nvlink_recovery"),
        fi::NVML_FI_DEV_PCIE_COUNT_TX_BYTES => round("pcie_tx_rate", totals.pcie_tx),
        fi::NVML_FI_DEV_PCIE_COUNT_RX_BYTES => round("pcie_rx_rate", totals.pcie_rx),
        // In KiB, and only for all links together.
        fi::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX if scope == ALL_SCOPES => {
            total("nvlink_tx_rate", totals.nvlink_tx / 1024.0)
        }
        fi::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX if scope == ALL_SCOPES => {
            total("nvlink_rx_rate", totals.nvlink_rx / 1024.0)
        }
        _ => Err(NOT_SUPPORTED),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut sys::nvmlProcessInfo_t,
) -> nvmlReturn_t {
    device(
        "nvmlDeviceGetComputeRunningProcesses_v3",
        handle,
        |gpu, _| {
            if count.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: not null, and set by the caller by nvml.h.
            let room = unsafe { *count } as usize;
            put(count, gpu.processes.len() as c_uint)?;
            if gpu.processes.len() > room {
                return Err(INSUFFICIENT_SIZE);
            }
            for (place, &(pid, bytes)) in gpu.processes.iter().enumerate() {
                let info = sys::nvmlProcessInfo_t {
                    pid,
                    usedGpuMemory: bytes,
                    gpuInstanceId: c_uint::MAX,
                    computeInstanceId: c_uint::MAX,
                };
                // SAFETY: there is room for it.
                put(unsafe { infos.add(place) }, info)?;
            }
            Ok(())
        },
    )
}

/// The devices of each event set; `None` once it is freed.
static EVENT_SETS: Mutex<Vec<Option<Vec<usize>>>> = Mutex::new(Vec::new());

fn with_set<T>(
    set: sys::nvmlEventSet_t,
    act: impl FnOnce(&mut Option<Vec<usize>>) -> Option<T>,
) -> Result<T, nvmlReturn_t> {
    let mut sets = EVENT_SETS.lock().unwrap_or_else(PoisonError::into_inner);
    let found = (set as usize)
        .checked_sub(1)
        .and_then(|place| sets.get_mut(place));
    found.and_then(act).ok_or(INVALID_ARGUMENT)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetCreate(out: *mut sys::nvmlEventSet_t) -> nvmlReturn_t {
    system("nvmlEventSetCreate", |_| {
        let mut sets = EVENT_SETS.lock().unwrap_or_else(PoisonError::into_inner);
        sets.push(Some(Vec::new()));
        put(out, sets.len() as sys::nvmlEventSet_t)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    handle: nvmlDevice_t,
    _types: c_ulonglong,
    set: sys::nvmlEventSet_t,
) -> nvmlReturn_t {
    device("nvmlDeviceRegisterEvents", handle, |_, slot| {
        with_set(set, |devices| {
            devices.as_mut()?.push(slot);
            Some(())
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait_v2(
    set: sys::nvmlEventSet_t,
    out: *mut sys::nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    system("nvmlEventSetWait_v2", |_| {
        let watched = with_set(set, |devices| devices.clone())?;
        let timeout = Duration::from_millis(timeout_ms.into());
        let (slot, xid) = player().wait_event(&watched, timeout).ok_or(TIMEOUT)?;
        let event = sys::nvmlEventData_t {
            device: (slot + 1) as nvmlDevice_t,
            eventType: sys::nvmlEventTypeXidCriticalError.into(),
            eventData: xid,
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        };
        put(out, event)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: sys::nvmlEventSet_t) -> nvmlReturn_t {
    system("nvmlEventSetFree", |_| {
        with_set(set, Option::take).map(drop)
    })
}
