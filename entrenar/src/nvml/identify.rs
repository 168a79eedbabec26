//! Who is there: every GPU is asked on a thread of its own, so that one that hangs does not hide the others, not even
//! from a process that has just started.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::clock;
use crate::gpu::GpuInfo;

use super::raw;

/// How long a GPU may take to say who it is. One that has to be woken up first, because persistence mode is off, may
/// take longer and is then found the next time.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// Stack of an asking thread.
const STACK_BYTES: usize = 256 * 1024;

/// Highest index that is asked: a node has up to 16 GPUs, and a bit each is kept.
const MAX_GPUS: u32 = 64;

/// A GPU that said who it is.
pub(super) type Known = (GpuInfo, Device<'static>);

/// What was heard of one index: `None` where the thread is away.
pub(super) type Heard = BTreeMap<u32, Result<Known, NvmlError>>;

/// Asks GPUs who they are. At most one thread is lost to each.
pub(super) struct RollCall {
    nvml: &'static Nvml,
    /// A bit per index whose thread has not come back.
    away: Arc<AtomicU64>,
    /// One roll call at a time.
    turn: Mutex<()>,
}

impl RollCall {
    /// Nobody asked yet.
    pub(super) fn new(nvml: &'static Nvml) -> Self {
        Self {
            nvml,
            away: Arc::default(),
            turn: Mutex::new(()),
        }
    }

    /// Asks the GPUs below `count`, all at once. An index whose thread does not come back in time, or is still away
    /// from last time, is missing in the answer. `known` gives what an index said before, to ask it less.
    pub(super) fn call(&self, count: u32, known: &dyn Fn(u32) -> Option<Known>) -> Heard {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard = Heard::new();
        let (answers, inbox) = sync_channel(MAX_GPUS as usize);
        let mut waiting = 0;
        for index in 0..count.min(MAX_GPUS) {
            let bit = 1 << index;
            if self.away.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
                continue;
            }
            match self.ask(index, known(index), answers.clone()) {
                Ok(()) => waiting += 1,
                Err(_) => drop(self.away.fetch_and(!bit, Ordering::AcqRel)),
            }
        }
        let begun = clock::instant();
        while waiting > 0 {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            let Ok((index, answer)) = inbox.recv_timeout(left) else {
                break;
            };
            heard.insert(index, answer);
            waiting -= 1;
        }
        heard
    }

    fn ask(
        &self,
        index: u32,
        known: Option<Known>,
        answers: SyncSender<(u32, Result<Known, NvmlError>)>,
    ) -> io::Result<()> {
        let (nvml, away) = (self.nvml, Arc::clone(&self.away));
        let body = move || {
            let answer = identify(nvml, index, known);
            away.fetch_and(!(1 << index), Ordering::AcqRel);
            // Nobody listens any more if it took too long.
            let _ = answers.try_send((index, answer));
        };
        let builder = thread::Builder::new().name(format!("gpu-{index}-who"));
        builder.stack_size(STACK_BYTES).spawn(body).map(drop)
    }
}

/// The GPU at an index. Who is known by handle and UUID is not asked for the rest.
fn identify(nvml: &'static Nvml, index: u32, known: Option<Known>) -> Result<Known, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let uuid = device.uuid()?;
    if let Some((info, before)) = known
        && raw::same_device(&before, &device)
        && info.uuid.as_str() == uuid
    {
        return Ok((info, before));
    }
    let info = GpuInfo {
        uuid: uuid.into(),
        index,
        name: device.name().unwrap_or_default(),
        pci_bus_id: device.pci_info().ok().map(|pci| pci.bus_id),
        serial: device.serial().ok(),
        memory_total_bytes: raw::memory(&device).ok().map(|memory| memory.total_bytes),
        parent: None,
    };
    Ok((info, device))
}
