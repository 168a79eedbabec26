//! XID events: one set over all GPUs, waited on by one thread.

use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::backend::GpuError;
use crate::clock;
use crate::report::{GpuEvent, GpuEventKind};

use super::raw::{EventSet, RawEvent};
use super::{Entry, gpu_error};

/// The events of all GPUs that have any.
pub(super) struct EventSource {
    nvml: &'static Nvml,
    set: Option<EventSet>,
    generation: Option<u64>,
    watched: Vec<Arc<Entry>>,
}

impl EventSource {
    /// Watches nothing yet.
    pub(super) fn new(nvml: &'static Nvml) -> Self {
        Self {
            nvml,
            set: None,
            generation: None,
            watched: Vec::new(),
        }
    }

    /// Whether this generation of GPUs is being watched.
    pub(super) fn watches(&self, generation: u64) -> bool {
        self.generation == Some(generation)
    }

    /// Watches these GPUs from now on, in place of the ones before. A GPU without XID events is left out.
    pub(super) fn watch(&mut self, generation: u64, gpus: Vec<Arc<Entry>>) {
        if let Some(old) = self.set.take() {
            old.free();
        }
        self.generation = Some(generation);
        self.watched.clear();
        let Ok(mut set) = EventSet::create(self.nvml) else {
            return;
        };
        self.watched = gpus;
        self.watched
            .retain(|gpu| set.register_xid(&gpu.device).is_ok());
        self.set = (!self.watched.is_empty()).then_some(set);
    }

    /// Waits for the next event; an empty list when none came, or when no GPU has any.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<Vec<GpuEvent>, GpuError> {
        let Some(set) = &mut self.set else {
            std::thread::sleep(timeout);
            return Ok(Vec::new());
        };
        let begun = clock::instant();
        match set.wait(timeout.as_millis().try_into().unwrap_or(u32::MAX)) {
            Ok(event) => Ok(self.translate(&event).into_iter().collect()),
            Err(NvmlError::Timeout) => Ok(Vec::new()),
            Err(error) => {
                // A set that fails may fail at once each time: keep the pace that the caller asked for.
                std::thread::sleep(timeout.saturating_sub(begun.elapsed()));
                self.generation = None;
                Err(gpu_error(0, &error))
            }
        }
    }

    fn translate(&self, event: &RawEvent) -> Option<GpuEvent> {
        let gpu = self.watched.iter().find(|gpu| event.is_of(&gpu.device));
        (event.event_type & EventSet::XID != 0).then(|| GpuEvent {
            at: clock::now(),
            gpu: gpu.map(|gpu| gpu.info.uuid.clone()),
            what: GpuEventKind::Xid(event.data),
        })
    }
}
