//! Plays the scenario: finds its file, notices that it changed, and lets each call through, late, or not at all.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::scenario::{Effect, Scenario, Value};
use crate::spent;
use crate::watch::Watch;

/// How often a call that blocks looks whether it still should.
const POLL: Duration = Duration::from_millis(5);

/// Environment variable that names the scenario file.
const VARIABLE: &str = "FAKE_NVML_SCENARIO";

/// What the library remembers between calls.
pub(crate) struct Player {
    file: Option<PathBuf>,
    watch: Watch,
    state: Mutex<State>,
}

struct State {
    stamp: Option<Stamp>,
    scenario: Arc<Scenario>,
    totals: Vec<Totals>,
    delivered: u64,
}

/// What tells that a file changed: inode, size, and time in seconds and nanoseconds.
type Stamp = (u64, u64, i64, i64);

/// Running totals of a GPU: its rates added up over real time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    since: Instant,
    /// Millijoules.
    pub(crate) energy: f64,
    /// Bytes.
    pub(crate) pcie_tx: f64,
    /// Bytes.
    pub(crate) pcie_rx: f64,
    /// Bytes.
    pub(crate) nvlink_tx: f64,
    /// Bytes.
    pub(crate) nvlink_rx: f64,
}

/// The one player of this copy of the library.
pub(crate) fn player() -> &'static Player {
    static PLAYER: OnceLock<Player> = OnceLock::new();
    PLAYER.get_or_init(|| {
        let file = std::env::var_os(VARIABLE)
            .map(PathBuf::from)
            .or_else(beside_library);
        Player {
            watch: Watch::on(file.as_deref().and_then(Path::parent)),
            file,
            state: Mutex::new(State {
                stamp: None,
                scenario: Arc::default(),
                totals: Vec::new(),
                delivered: 0,
            }),
        }
    })
}

impl Player {
    /// The scenario now.
    pub(crate) fn scenario(&self) -> Arc<Scenario> {
        let stamp = self
            .file
            .as_ref()
            .and_then(|file| fs::metadata(file).ok())
            .map(|meta| (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()));
        let mut state = self.lock();
        if state.stamp != stamp {
            state.settle_totals();
            let text = self
                .file
                .as_ref()
                .and_then(|file| fs::read_to_string(file).ok());
            match Scenario::parse(&text.unwrap_or_default()) {
                Ok(scenario) => state.scenario = Arc::new(scenario),
                Err(wrong) => eprintln!("fake-nvml: {:?}: {wrong}", self.file),
            }
            state.stamp = stamp;
        }
        Arc::clone(&state.scenario)
    }

    /// Passes a call about a GPU, or about none: after the delay that the scenario wants, or with its code as error.
    pub(crate) fn pass(&self, call: &str, gpu: Option<usize>) -> Result<Arc<Scenario>, u32> {
        self.note(call, gpu);
        let mut slept = false;
        loop {
            let scenario = self.scenario();
            let effect = match gpu {
                Some(slot) => scenario.gpus.get(slot).ok_or(28_u32)?.effect(call),
                None => scenario.effect(call),
            };
            match effect {
                Some(Effect::Hang) => thread::sleep(POLL),
                Some(Effect::Slow(time)) if !slept => {
                    thread::sleep(time);
                    slept = true;
                }
                Some(Effect::Answer(code)) if code != 0 => return Err(code),
                _ => return Ok(scenario),
            }
        }
    }

    /// A GPU's running totals up to now.
    pub(crate) fn totals(&self, slot: usize) -> Totals {
        let mut state = self.lock();
        state.settle_totals();
        state.totals[slot]
    }

    /// The next event of one of these GPUs: its GPU and XID.
    pub(crate) fn next_event(&self, watched: &[usize]) -> Option<(usize, u64)> {
        let scenario = self.scenario();
        let mut state = self.lock();
        let fresh = scenario
            .events
            .iter()
            .filter(|event| event.number > state.delivered);
        let event = *fresh.clone().find(|event| watched.contains(&event.gpu))?;
        state.delivered = event.number;
        Some((event.gpu, event.xid))
    }

    /// Waits for an event until the time is over.
    pub(crate) fn wait_event(&self, watched: &[usize], timeout: Duration) -> Option<(usize, u64)> {
        let end = now() + timeout;
        loop {
            let event = self.next_event(watched);
            let left = end.saturating_duration_since(now());
            if event.is_some() || left.is_zero() {
                spent::tell(self.scenario().spent.as_deref());
                return event;
            }
            self.watch.wait(left);
        }
    }

    fn note(&self, call: &str, gpu: Option<usize>) {
        let Some(path) = self.scenario().trace.clone() else {
            return;
        };
        let gpu = gpu.map_or("-".to_owned(), |slot| slot.to_string());
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        // One write a line, so that lines of threads do not mix. A trace that cannot be written is not kept.
        let _ = file.and_then(|mut file| file.write_all(format!("{call} {gpu}\n").as_bytes()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds to each GPU's totals what its rates made since the last time.
    fn settle_totals(&mut self) {
        let now = now();
        let fresh = Totals {
            since: now,
            energy: 0.0,
            pcie_tx: 0.0,
            pcie_rx: 0.0,
            nvlink_tx: 0.0,
            nvlink_rx: 0.0,
        };
        let count = self.totals.len().max(self.scenario.gpus.len());
        self.totals.resize(count, fresh);
        for (totals, gpu) in self.totals.iter_mut().zip(&self.scenario.gpus) {
            let seconds = now.duration_since(totals.since).as_secs_f64();
            let more = |name| match gpu.value(name) {
                Value::Is(rate) => rate as f64 * seconds,
                Value::Code(_) => 0.0,
            };
            totals.energy += more("power");
            totals.pcie_tx += more("pcie_tx_rate");
            totals.pcie_rx += more("pcie_rx_rate");
            totals.nvlink_tx += more("nvlink_tx_rate");
            totals.nvlink_rx += more("nvlink_rx_rate");
            totals.since = now;
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a driver has a clock of its own")]
fn now() -> Instant {
    Instant::now()
}

/// `scenario` in the directory that this library was loaded from.
fn beside_library() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here = (player as *const ()).cast::<libc::c_void>();
    // SAFETY: `here` is an address in this library and `info` outlives the call; the name lives as long as we are loaded.
    let name = unsafe {
        if libc::dladdr(here, &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(info.dli_fname)
    };
    let library = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    Some(library.parent()?.join("scenario"))
}
