//! The supervised reader: all GPUs of a node, each on its own thread, with a deadline.
//!
//! A call into a driver may never return. So each GPU is read by a thread of its own that is never joined; a GPU that
//! misses the deadline is reported with [`NvmlStatus::Timeout`] and left to its [`quarantine`], and the others are
//! not delayed. A backend that [never blocks](GpuBackend::may_block) is called in place, without threads.
//!
//! The probe decides nothing about GPUs: it says what came back, what did not, and how long it took.

pub mod quarantine;
mod roster;
mod slot;
mod threads;
mod worker;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use entrenar::backend::{Depth, GpuBackend, GpuError};
use entrenar::clock::Clock;
use entrenar::gpu::{GpuInfo, GpuUuid, Values};
use entrenar::metric::{self, NvmlStatus};
use entrenar::report::{GpuEvent, HolderChange, Inventory};
use tokio::sync::{mpsc, watch};

use crate::evidence::proc::Proc;
use crate::evidence::rdma::{Rdma, RdmaReader};
use crate::holder::{Ledger, Scout, Users};

use self::roster::Roster;
use self::slot::{Outcome, Slot};
use self::threads::{Found, Stop};
use self::worker::{Answer, Look, Reader};

/// Events that wait for the sampler. When there are as many, the next ones are lost and counted.
pub const EVENT_QUEUE: usize = 1024;

/// How long a GPU may take in one tick, at most; less where the interval is short.
pub const READ_DEADLINE: Duration = Duration::from_millis(800);

/// Share of the sampling interval that a reading may take: the rest is for what comes after it.
const DEADLINE_SHARE: f64 = 0.8;

/// How often the GPUs are enumerated.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_secs(15);

/// How the probe works.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// How long a GPU may take in one tick.
    pub deadline: Duration,
    /// How often the GPUs are enumerated.
    pub discovery_interval: Duration,
    /// Generation before the first inventory: the last one that the spool has seen.
    pub generation: u32,
    /// Where processes are looked up.
    pub proc: Proc,
    /// Names of users.
    pub users: Users,
    /// The node's RDMA ports.
    pub rdma: Rdma,
}

impl ProbeConfig {
    /// For a sampling interval, on this host.
    pub fn for_interval(interval: Duration) -> Self {
        Self {
            deadline: READ_DEADLINE.min(interval.mul_f64(DEADLINE_SHARE)),
            discovery_interval: DISCOVERY_INTERVAL,
            generation: 0,
            proc: Proc::default(),
            users: Users::read("/etc/passwd".as_ref()),
            rdma: Rdma::default(),
        }
    }
}

/// All GPUs of a node at one instant.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The GPUs; a new generation when a GPU came or moved. One that is gone keeps its place.
    pub inventory: Arc<Inventory>,
    /// A row per GPU of the inventory, in its order. Each has a status, the node's network traffic where that is
    /// counted and, if the GPU was asked, a latency; one that did not answer has nothing else.
    pub rows: Vec<Values>,
    /// GPUs that changed hands since the last sweep.
    pub holder_changes: Vec<HolderChange>,
}

/// What the probe says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeStats {
    /// GPUs that missed their last deadline.
    pub quarantined: usize,
    /// Threads that are lost inside driver calls and were replaced.
    pub lost_threads: usize,
    /// Events lost because nobody took them.
    pub events_lost: u64,
    /// Why the last enumeration failed, if it did.
    pub discovery_error: Option<GpuError>,
    /// Time since the last enumeration that came back; much more than [`DISCOVERY_INTERVAL`] when the next one hangs.
    /// `None` before the first.
    pub discovery_age: Option<Duration>,
}

/// The reader of a node's GPUs. Dropping it lets its threads go; one that is inside a driver call goes when that ends.
pub struct Probe {
    backend: Arc<dyn GpuBackend>,
    clock: Arc<dyn Clock>,
    config: ProbeConfig,
    roster: Roster,
    inventory: Arc<Inventory>,
    discovery: Discovery,
    discovery_error: Option<GpuError>,
    enumerated_at: Option<Duration>,
    slots: HashMap<GpuUuid, Slot>,
    ledger: Ledger,
    /// `None` where the backend itself says what its nodes' networks carry.
    rdma: Option<RdmaReader>,
    events: mpsc::Sender<GpuEvent>,
    events_lost: Arc<AtomicU64>,
    stop: Stop,
}

/// Who enumerates.
enum Discovery {
    /// A thread of its own.
    Thread(watch::Receiver<Found>),
    /// The sweep itself, when this monotonic time has come.
    InPlace(Duration),
}

impl Probe {
    /// Starts to watch the GPUs of a backend. Events come out of the receiver. Fails when the system gives no thread.
    pub fn start(
        backend: Arc<dyn GpuBackend>,
        clock: Arc<dyn Clock>,
        config: ProbeConfig,
    ) -> std::io::Result<(Self, mpsc::Receiver<GpuEvent>)> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let events_lost = Arc::new(AtomicU64::new(0));
        let stop = Stop::default();
        let mut rdma = None;
        let discovery = if backend.may_block() {
            rdma = Some(RdmaReader::start(config.rdma.clone())?);
            let every = config.discovery_interval;
            let found = threads::discover(Arc::clone(&backend), every, stop.clone())?;
            let lost = Arc::clone(&events_lost);
            threads::listen(Arc::clone(&backend), events.clone(), lost, stop.clone())?;
            Discovery::Thread(found)
        } else {
            Discovery::InPlace(Duration::ZERO)
        };
        let roster = Roster::after(config.generation);
        let probe = Self {
            inventory: Arc::new(roster.inventory().clone()),
            backend,
            clock,
            config,
            roster,
            discovery,
            discovery_error: None,
            enumerated_at: None,
            slots: HashMap::new(),
            ledger: Ledger::default(),
            rdma,
            events,
            events_lost,
            stop,
        };
        Ok((probe, receiver))
    }

    /// Waits for the first enumeration, at most `within`. An error does not end the probe: it goes on trying.
    pub async fn ready(&mut self, within: Duration) -> Result<Arc<Inventory>, GpuError> {
        if let Discovery::Thread(found) = &mut self.discovery {
            let first = tokio::time::timeout(within, found.wait_for(Option::is_some)).await;
            let Ok(Ok(first)) = first.map(|first| first.map(|found| found.clone())) else {
                return Err(GpuError::BackendUnavailable {
                    tried: vec![self.backend.name().to_owned()],
                    reason: format!("no enumeration within {} ms", within.as_millis()),
                });
            };
            self.take_in(first);
        }
        self.enumerate();
        match self.discovery_error.clone() {
            Some(error) => Err(error),
            None => Ok(self.inventory()),
        }
    }

    /// The GPUs that a sweep would have rows for.
    pub fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.inventory)
    }

    /// Version of the driver, where there is one.
    pub fn driver_version(&self) -> Option<String> {
        self.backend.driver_version()
    }

    /// Who holds what, as changes of this instant: for a stream that starts anew.
    pub fn restate_holders(&self) -> Vec<HolderChange> {
        self.ledger.restate(self.clock.now())
    }

    /// What the probe says about itself.
    pub fn stats(&self) -> ProbeStats {
        let slots = || self.slots.values();
        ProbeStats {
            quarantined: slots().filter(|slot| slot.quarantine.holds()).count(),
            lost_threads: slots().map(Slot::lost_threads).sum(),
            events_lost: self.events_lost.load(Ordering::Relaxed),
            discovery_error: self.discovery_error.clone(),
            discovery_age: self
                .enumerated_at
                .map(|at| self.clock.monotonic().saturating_sub(at)),
        }
    }

    /// Reads all GPUs at once. It comes back within the deadline, whatever the driver does.
    pub async fn read_all(&mut self, depth: Depth) -> Sweep {
        self.enumerate();
        let begun = self.clock.monotonic();
        let network = self.rdma.as_ref().and_then(RdmaReader::ask);
        let asked = self.ask_all(begun, depth);
        let mut rows = Vec::with_capacity(asked.len());
        let mut holder_changes = Vec::new();
        let mut deadline = pin!(tokio::time::sleep(self.config.deadline));
        for (place, outcome) in asked.into_iter().enumerate() {
            let answer = match outcome {
                Outcome::Settled(answer) => answer,
                Outcome::Asked(mut answer) => tokio::select! {
                    biased;
                    answer = &mut answer => self.settle(place, answer.ok()),
                    () = &mut deadline => self.overran(place, begun),
                },
            };
            if let Look::Taken(holder) = answer.holder {
                let gpu = &self.inventory.gpus[place].uuid;
                holder_changes.extend(self.ledger.observe(self.clock.now(), gpu, holder));
            }
            rows.push(answer.values);
        }
        if let Some(mut network) = network {
            let bytes = tokio::select! {
                biased;
                bytes = &mut network => bytes.ok().flatten(),
                () = &mut deadline => None,
            };
            let bytes = bytes.map(u64::cast_signed);
            for row in &mut rows {
                row.set(metric::NETWORK, bytes);
            }
        }
        Sweep {
            inventory: self.inventory(),
            rows,
            holder_changes,
        }
    }

    /// Takes in the latest enumeration, if there is a new one, and fits the slots to it.
    fn enumerate(&mut self) {
        let outcome = match &mut self.discovery {
            Discovery::Thread(found) => match found.has_changed() {
                Ok(true) => found.borrow_and_update().clone(),
                _ => None,
            },
            Discovery::InPlace(due) => {
                let now = self.clock.monotonic();
                let is_due = *due <= now;
                if is_due {
                    *due = now + self.config.discovery_interval;
                }
                is_due.then(|| self.backend.inventory())
            }
        };
        self.take_in(outcome);
    }

    /// Takes in the outcome of an enumeration, if there is one.
    fn take_in(&mut self, outcome: Found) {
        if outcome.is_some() {
            self.enumerated_at = Some(self.clock.monotonic());
        }
        match outcome {
            None => {}
            Some(Err(error)) => self.discovery_error = Some(error),
            Some(Ok(found)) => {
                self.discovery_error = None;
                if self.roster.seen(found) {
                    self.inventory = Arc::new(self.roster.inventory().clone());
                    self.fit_slots();
                }
            }
        }
    }

    /// A slot for each GPU of the inventory; the slot of a GPU that moved is made anew.
    fn fit_slots(&mut self) {
        let mut old = std::mem::take(&mut self.slots);
        for gpu in &self.inventory.gpus {
            let slot = match old.remove(&gpu.uuid) {
                Some(slot) if slot.gpu == *gpu => slot,
                _ => Slot::new(gpu.clone()),
            };
            self.slots.insert(gpu.uuid.clone(), slot);
        }
    }

    fn ask_all(&mut self, now: Duration, depth: Depth) -> Vec<Outcome> {
        if !self.backend.may_block() {
            let events = self.backend.events(Duration::ZERO).unwrap_or_default();
            threads::pass_on(&self.events, events, &self.events_lost);
        }
        let inventory = self.inventory();
        let ask = |(place, gpu): (usize, &GpuInfo)| {
            if self.roster.is_present(place) {
                self.ask(gpu, now, depth)
            } else {
                Outcome::Settled(Answer::only(NvmlStatus::NotFound))
            }
        };
        inventory.gpus.iter().enumerate().map(ask).collect()
    }

    fn ask(&mut self, gpu: &GpuInfo, now: Duration, depth: Depth) -> Outcome {
        let Some(slot) = self.slots.get_mut(&gpu.uuid) else {
            return Outcome::Settled(Answer::only(NvmlStatus::Unknown));
        };
        if slot.needs_hand(now) {
            let reader = Reader {
                backend: Arc::clone(&self.backend),
                clock: Arc::clone(&self.clock),
                gpu: gpu.clone(),
                scout: Scout::new(self.config.proc.clone(), self.config.users.clone()),
            };
            slot.give_hand(reader);
        }
        slot.read(now, depth)
    }

    /// A GPU's thread answered, or ended without an answer.
    fn settle(&mut self, place: usize, answer: Option<Answer>) -> Answer {
        let slot = self.slot(place);
        slot.quarantine.answered();
        answer.unwrap_or_else(|| {
            slot.drop_hand();
            Answer::only(NvmlStatus::Unknown)
        })
    }

    /// A GPU's thread did not answer in time.
    fn overran(&mut self, place: usize, begun: Duration) -> Answer {
        let now = self.clock.monotonic();
        self.slot(place).quarantine.overran(now);
        Answer::timeout(now.saturating_sub(begun))
    }

    fn slot(&mut self, place: usize) -> &mut Slot {
        let gpu = &self.inventory.gpus[place];
        let fresh = || Slot::new(gpu.clone());
        self.slots.entry(gpu.uuid.clone()).or_insert_with(fresh)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.set();
    }
}
