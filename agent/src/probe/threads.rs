//! The two threads beside the workers: one enumerates the GPUs, one waits for events. Neither is ever joined, for
//! either may be inside a driver call that never returns.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use entrenar::backend::{GpuBackend, GpuError};
use entrenar::gpu::GpuInfo;
use entrenar::report::GpuEvent;
use tokio::sync::{mpsc, watch};

use super::worker::STACK_BYTES;

/// Longest wait for an event in one call: how late the thread notices that the probe is gone.
const EVENT_WAIT: Duration = Duration::from_secs(1);

/// Pause after a failed wait for events, so that a broken driver does not turn the thread into a spin.
const EVENT_PAUSE: Duration = Duration::from_secs(1);

/// The outcome of the latest enumeration; `None` before the first.
pub(super) type Found = Option<Result<Vec<GpuInfo>, GpuError>>;

/// Set when the probe goes away; it wakes threads that sleep, and the others leave at their next look.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Asks the threads to leave.
    pub(super) fn set(&self) {
        let (is_set, changed) = &*self.0;
        *is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, at most until the probe goes away.
    fn sleep(&self, time: Duration) {
        let (is_set, changed) = &*self.0;
        let is_set = is_set.lock().unwrap_or_else(PoisonError::into_inner);
        // Whichever way it ends, its caller looks again.
        let _ = changed.wait_timeout_while(is_set, time, |is_set| !*is_set);
    }
}

/// Enumerates now and then every `every`, each outcome replacing the last.
pub(super) fn discover(
    backend: Arc<dyn GpuBackend>,
    every: Duration,
    stop: Stop,
) -> io::Result<watch::Receiver<Found>> {
    let (found, outcomes) = watch::channel(None);
    spawn("gpu-discovery", move || {
        while !stop.is_set() {
            let outcome = backend.inventory();
            if found.send(Some(outcome)).is_err() {
                return;
            }
            stop.sleep(every);
        }
    })?;
    Ok(outcomes)
}

/// Waits for events and passes them on. When the queue is full, an event is lost and counted.
pub(super) fn listen(
    backend: Arc<dyn GpuBackend>,
    queue: mpsc::Sender<GpuEvent>,
    n_lost: Arc<AtomicU64>,
    stop: Stop,
) -> io::Result<()> {
    spawn("gpu-events", move || {
        while !stop.is_set() && !queue.is_closed() {
            match backend.events(EVENT_WAIT) {
                Ok(events) => pass_on(&queue, events, &n_lost),
                Err(_) => stop.sleep(EVENT_PAUSE),
            }
        }
    })
}

/// Puts events into the queue, as many as fit.
pub(super) fn pass_on(queue: &mpsc::Sender<GpuEvent>, events: Vec<GpuEvent>, n_lost: &AtomicU64) {
    for event in events {
        if queue.try_send(event).is_err() {
            n_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES);
    builder.spawn(body).map(drop)
}
