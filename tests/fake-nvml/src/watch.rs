//! Waits until the scenario's directory changes: a wait for events then costs nothing, as with a driver.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How often to look where the kernel cannot tell of changes.
const POLL: Duration = Duration::from_millis(5);

/// A watch on a directory: `None` where there is no directory or the kernel gives no watch.
pub(crate) struct Watch(Option<OwnedFd>);

impl Watch {
    /// On a directory, from now on.
    pub(crate) fn on(dir: Option<&Path>) -> Self {
        Self(dir.and_then(watch))
    }

    /// Returns when something has changed since the last wait, or when the time is over.
    pub(crate) fn wait(&self, at_most: Duration) {
        let Some(fd) = &self.0 else {
            return thread::sleep(at_most.min(POLL));
        };
        let mut asked = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // Rounded up: a caller that comes a little early would wait again for nothing.
        let millis = at_most.as_nanos().div_ceil(1_000_000);
        let mut told = [0_u8; 4096];
        // SAFETY: one entry that outlives the call; then as many bytes as there is room for. The descriptor is ours.
        unsafe {
            libc::poll(&raw mut asked, 1, millis.try_into().unwrap_or(i32::MAX));
            // What changed does not matter; it does not block, for the descriptor is not allowed to.
            libc::read(fd.as_raw_fd(), told.as_mut_ptr().cast(), told.len());
        }
    }
}

fn watch(dir: &Path) -> Option<OwnedFd> {
    let dir = CString::new(dir.as_os_str().as_bytes()).ok()?;
    let mask = libc::IN_CLOSE_WRITE | libc::IN_MOVED_TO | libc::IN_DELETE;
    // SAFETY: the descriptor is new and nobody else's; the path is a C string that outlives the call.
    unsafe {
        let fd = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
        let fd = (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))?;
        (libc::inotify_add_watch(fd.as_raw_fd(), dir.as_ptr(), mask) >= 0).then_some(fd)
    }
}
