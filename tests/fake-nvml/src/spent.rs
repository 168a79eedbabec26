//! CPU time that is spent in this library: what a benchmark takes off from the program that calls it.
//!
//! It counts a thread's own time, so a call that waits costs nothing. Enumeration does a little outside of it.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds of all calls that have ended.
static SPENT: AtomicU64 = AtomicU64::new(0);

/// A call that is under way; its end is when this is dropped.
pub(crate) struct Spending {
    began: u64,
}

impl Spending {
    pub(crate) fn begin() -> Self {
        Self {
            began: thread_cpu(),
        }
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        SPENT.fetch_add(thread_cpu() - self.began, Relaxed);
    }
}

/// Writes down what was spent so far, as a whole.
pub(crate) fn tell(path: Option<&str>) {
    let Some(path) = path else {
        return;
    };
    let draft = format!("{path}.draft");
    // What cannot be written is not told.
    let _ =
        fs::write(&draft, SPENT.load(Relaxed).to_string()).and_then(|()| fs::rename(&draft, path));
}

/// Nanoseconds of CPU of the calling thread.
fn thread_cpu() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call. This clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
