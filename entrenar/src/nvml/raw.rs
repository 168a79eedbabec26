//! The calls that `nvml-wrapper` lacks or narrows, made by hand. The only unsafe code of the library.
//!
//! Each function checks that the symbol is there before it calls, because a driver may be older than the header.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::ptr;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;

/// Asks for all links, or for the whole device, where a field can be read per link.
pub(super) const ALL_SCOPES: u32 = u32::MAX;

/// Most fields in one [`field_values`] call.
pub(super) const MAX_FIELDS: usize = 8;

/// A field to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// One of `NVML_FI_*`, all of them outside 251..=273, which drivers number in two ways.
    pub(super) id: u32,
    /// Which link; 0 where the field has no scope.
    pub(super) scope: u32,
}

/// Device memory, by whichever form of the call the library has.
pub(super) struct Memory {
    pub(super) total_bytes: u64,
    pub(super) used_bytes: u64,
}

/// Memory by the second form of the call (driver 510 and later), which leaves out what the driver reserves; else by
/// the first, which counts it as used.
pub(super) fn memory(device: &Device<'static>) -> Result<Memory, NvmlError> {
    match device.memory_info() {
        Ok(info) => Ok(Memory {
            total_bytes: info.total,
            used_bytes: info.used,
        }),
        Err(
            NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
            | NvmlError::UnexpectedVariant(_),
        ) => memory_v1(device),
        Err(error) => Err(error),
    }
}

fn memory_v1(device: &Device<'static>) -> Result<Memory, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut memory = sys::nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    // SAFETY: the handle came from this library, which is never closed; `memory` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut memory) })?;
    Ok(Memory {
        total_bytes: memory.total,
        used_bytes: memory.used,
    })
}

/// All bits of why the clocks are where they are, also those that the wrapper has no name for. The newer name of the
/// call first; drivers before 535 know only the older.
pub(super) fn clock_event_reasons(device: &Device<'static>) -> Result<u64, NvmlError> {
    let lib = device.nvml().lib();
    let newer = lib.nvmlDeviceGetCurrentClocksEventReasons.as_ref();
    let call = nvml_sym(newer.or(lib.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref()))?;
    let mut reasons = 0;
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), &raw mut reasons) })?;
    Ok(reasons)
}

/// Degrees below the point at which the hardware slows down.
pub(super) fn thermal_margin(device: &Device<'static>) -> Result<i32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    let mut margin = sys::nvmlMarginTemperature_t {
        version: size_of::<sys::nvmlMarginTemperature_t>() as u32 | 1 << 24,
        marginTemperature: 0,
    };
    // SAFETY: as above; the version word tells the library how large the struct is.
    nvml_try(unsafe { call(device.handle(), &raw mut margin) })?;
    Ok(margin.marginTemperature)
}

/// Several fields in one call, each with its own outcome, in the order of `fields`, which are at most [`MAX_FIELDS`].
pub(super) fn field_values(
    device: &Device<'static>,
    fields: &[Field],
    mut each: impl FnMut(usize, Result<i64, NvmlError>),
) -> Result<(), NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let mut asked = [blank(); MAX_FIELDS];
    for (slot, field) in asked.iter_mut().zip(fields) {
        slot.fieldId = field.id;
        slot.scopeId = field.scope;
    }
    let count = fields.len().min(MAX_FIELDS);
    // SAFETY: as above; the array has at least `count` elements.
    nvml_try(unsafe { call(device.handle(), count as i32, asked.as_mut_ptr()) })?;
    for (place, answer) in asked[..count].iter().enumerate() {
        each(
            place,
            nvml_try(answer.nvmlReturn).and_then(|()| integer(answer)),
        );
    }
    Ok(())
}

fn blank() -> sys::nvmlFieldValue_t {
    sys::nvmlFieldValue_t {
        fieldId: 0,
        scopeId: 0,
        timestamp: 0,
        latencyUsec: 0,
        valueType: 0,
        // Until the library says otherwise.
        nvmlReturn: sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
        value: sys::nvmlValue_t { ullVal: 0 },
    }
}

fn integer(answer: &sys::nvmlFieldValue_t) -> Result<i64, NvmlError> {
    let too_large = |_| NvmlError::NoData;
    // SAFETY: the library says which member of the union it filled.
    unsafe {
        match answer.valueType {
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE => Ok(answer.value.dVal as i64),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => Ok(answer.value.uiVal.into()),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG => {
                answer.value.ulVal.try_into().map_err(too_large)
            }
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => {
                answer.value.ullVal.try_into().map_err(too_large)
            }
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => Ok(answer.value.sllVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => Ok(answer.value.siVal.into()),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => Ok(answer.value.usVal.into()),
            other => Err(NvmlError::UnexpectedVariant(other)),
        }
    }
}

/// Whether two wrappers are of one handle.
pub(super) fn same_device(a: &Device<'static>, b: &Device<'static>) -> bool {
    // SAFETY: the handles are compared, not used.
    unsafe { ptr::eq(a.handle(), b.handle()) }
}

/// Another wrapper of the same handle.
pub(super) fn copy_device(device: &Device<'static>) -> Device<'static> {
    // SAFETY: the handle came from this library; wrappers own nothing.
    unsafe { Device::new(device.handle(), device.nvml()) }
}

/// Initialises the library once more, after the driver was loaded anew.
pub(super) fn init_again(nvml: &'static Nvml) -> Result<(), NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlInit_v2.as_ref())?;
    // SAFETY: takes nothing; NVML counts initialisations.
    nvml_try(unsafe { call() })
}

/// A set of events that the library keeps for us. It is not freed: a wait on it may never return.
pub(super) struct EventSet {
    nvml: &'static Nvml,
    set: sys::nvmlEventSet_t,
}

// SAFETY: an event set may move between threads; it is used by one at a time, as `&mut`.
unsafe impl Send for EventSet {}

/// An event as the library tells it.
pub(super) struct RawEvent {
    device: sys::nvmlDevice_t,
    /// One of `nvmlEventType*`.
    pub(super) event_type: u64,
    /// The XID, for an XID event.
    pub(super) data: u64,
}

impl RawEvent {
    /// Whether the event is of this device.
    pub(super) fn is_of(&self, device: &Device<'static>) -> bool {
        // SAFETY: the handles are compared, not used.
        unsafe { ptr::eq(self.device, device.handle()) }
    }
}

impl EventSet {
    /// The bit of an XID event.
    pub(super) const XID: u64 = sys::nvmlEventTypeXidCriticalError as u64;

    /// An empty set.
    pub(super) fn create(nvml: &'static Nvml) -> Result<Self, NvmlError> {
        let call = nvml_sym(nvml.lib().nvmlEventSetCreate.as_ref())?;
        nvml_sym(nvml.lib().nvmlEventSetWait_v2.as_ref())?;
        let mut set = ptr::null_mut();
        // SAFETY: `set` outlives the call.
        nvml_try(unsafe { call(&raw mut set) })?;
        Ok(Self { nvml, set })
    }

    /// Adds a device's XID events.
    pub(super) fn register_xid(&mut self, device: &Device<'static>) -> Result<(), NvmlError> {
        let call = nvml_sym(self.nvml.lib().nvmlDeviceRegisterEvents.as_ref())?;
        // SAFETY: both handles came from this library and are still its.
        nvml_try(unsafe { call(device.handle(), Self::XID, self.set) })
    }

    /// Waits for one event; [`NvmlError::Timeout`] when none came.
    pub(super) fn wait(&mut self, timeout_ms: u32) -> Result<RawEvent, NvmlError> {
        let call = nvml_sym(self.nvml.lib().nvmlEventSetWait_v2.as_ref())?;
        let mut data = sys::nvmlEventData_t {
            device: ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: 0,
            computeInstanceId: 0,
        };
        // SAFETY: the set is ours and in use by this thread alone; `data` outlives the call.
        nvml_try(unsafe { call(self.set, &raw mut data, timeout_ms) })?;
        Ok(RawEvent {
            device: data.device,
            event_type: data.eventType,
            data: data.eventData,
        })
    }

    /// Gives the set back to the library.
    pub(super) fn free(self) {
        if let Ok(call) = self.nvml.lib().nvmlEventSetFree.as_ref() {
            // SAFETY: `self` is consumed, so nobody waits on the set.
            unsafe { call(self.set) };
        }
    }
}
