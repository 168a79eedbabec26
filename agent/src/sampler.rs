//! Tick → samples → spool. Ticks that are missed are counted, and the count travels with the next batch.

pub mod schedule;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use entrenar::backend::Depth;
use entrenar::clock::Clock;
use entrenar::gpu::Values;
use entrenar::metric::{NVML_STATUS, NvmlStatus};
use entrenar::report::{Batch, Body, HolderChange, Inventory, Tick};
use entrenar::unit::Timestamp;
use entrenar_proto::convert::{MAX_ROWS, MAX_TICKS};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::schedule::Schedule;
use crate::probe::{Probe, Sweep};
use crate::spool::worker::SpoolHandle;
use crate::status::Status;

/// How often slow metrics and processes are read; every tick where the interval is longer.
pub const SLOW_EVERY: Duration = Duration::from_secs(10);

/// The task that samples.
pub struct Sampler {
    probe: Probe,
    schedule: Schedule,
    spool: SpoolHandle,
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    batch_ticks: usize,
    pending: Pending,
    slow_due: Duration,
    /// Generation of the newest inventory that is in the spool.
    told: Option<u32>,
    trouble: Option<String>,
}

/// The batch that is being filled.
#[derive(Default)]
struct Pending {
    inventory: Arc<Inventory>,
    n_lost: u64,
    ticks: Vec<Tick>,
    rows: Vec<Values>,
}

impl Sampler {
    /// Samples `probe` at the times of `schedule`.
    pub fn new(
        probe: Probe,
        schedule: Schedule,
        batch_ticks: u32,
        spool: SpoolHandle,
        status: Arc<Status>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            probe,
            schedule,
            spool,
            status,
            clock,
            batch_ticks: batch_ticks as usize,
            pending: Pending::default(),
            slow_due: Duration::ZERO,
            told: None,
            trouble: None,
        }
    }

    /// Samples until `stop`; what is sampled by then is in the spool.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let wait = self.schedule.due().saturating_sub(self.clock.monotonic());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => self.tick().await,
            }
        }
        self.close_batch();
    }

    async fn tick(&mut self) {
        let at = self.clock.now();
        let monotonic = self.clock.monotonic();
        let missed = self.schedule.take(monotonic);
        self.pending.n_lost += missed;
        let first = self.told.is_none();
        let depth = self.depth(monotonic);
        let sweep = self.probe.read_all(depth).await;
        self.tell_inventory(&sweep.inventory);
        let holders = sweep.holder_changes.iter().cloned();
        let nobody = first
            .then(|| held_by_nobody(&sweep, at))
            .into_iter()
            .flatten();
        for change in holders.chain(nobody) {
            self.spool.append(Body::Holder(change));
        }
        self.status.tick(at, &sweep.inventory, &sweep.rows);
        let tick = Tick {
            at,
            monotonic_ms: monotonic.as_millis() as u64,
        };
        self.pending.ticks.push(tick);
        self.pending.rows.extend(sweep.rows);
        if self.pending.ticks.len() >= self.ticks_a_batch() {
            self.close_batch();
        }
        self.report(missed);
    }

    fn depth(&mut self, now: Duration) -> Depth {
        if now < self.slow_due {
            return Depth::Fast;
        }
        self.slow_due = now + SLOW_EVERY;
        Depth::Full
    }

    /// A batch speaks of one inventory, and an inventory goes before the batches that speak of it.
    fn tell_inventory(&mut self, inventory: &Arc<Inventory>) {
        if self.told == Some(inventory.generation) {
            return;
        }
        self.close_batch();
        if self.spool.append(Body::Inventory((**inventory).clone())) {
            self.told = Some(inventory.generation);
            self.pending.inventory = Arc::clone(inventory);
        }
    }

    fn ticks_a_batch(&self) -> usize {
        let most = MAX_ROWS / self.pending.inventory.gpus.len().max(1);
        self.batch_ticks.min(most).clamp(1, MAX_TICKS)
    }

    fn close_batch(&mut self) {
        if self.pending.ticks.is_empty() {
            return;
        }
        let n_ticks = self.pending.ticks.len() as u64;
        let n_lost = std::mem::take(&mut self.pending.n_lost);
        let batch = Batch {
            generation: self.pending.inventory.generation,
            gpus: self.pending.inventory.gpus.len() as u32,
            n_lost,
            ticks: std::mem::take(&mut self.pending.ticks),
            rows: std::mem::take(&mut self.pending.rows),
        };
        if !self.spool.append(Body::Batch(batch)) {
            self.pending.n_lost = n_lost + n_ticks;
        }
    }

    fn report(&mut self, missed: u64) {
        let status = &self.status;
        status.missed_ticks.fetch_add(missed, Relaxed);
        let probe = self.probe.stats();
        status.lost_events.store(probe.events_lost, Relaxed);
        status
            .quarantined_gpus
            .store(probe.quarantined as u64, Relaxed);
        let spool = self.spool.stats();
        status.spool_bytes.store(spool.bytes, Relaxed);
        status.spool_records.store(spool.records, Relaxed);
        let dropped = spool.records_dropped + self.spool.refused();
        status.spool_dropped_records.store(dropped, Relaxed);
        status.spool_failures.store(spool.disk_errors, Relaxed);
        status
            .newest_seq
            .store(spool.next_seq.saturating_sub(1), Relaxed);
        let trouble = probe.discovery_error.map(|error| error.to_string());
        if trouble != self.trouble {
            if let Some(why) = &trouble {
                warn!(%why, "GPUs cannot be enumerated; the agent stays and tries again");
            } else {
                info!("GPUs can be enumerated again");
            }
            status.set_trouble(trouble.clone());
            self.trouble = trouble;
        }
    }
}

/// GPUs that nobody holds at the first look of this process: while it was away they may have been given back.
fn held_by_nobody(sweep: &Sweep, at: Timestamp) -> Vec<HolderChange> {
    let answered = |row: &Values| row.get(NVML_STATUS) == Some(NvmlStatus::Ok as i64);
    let gpus = sweep.inventory.gpus.iter().zip(&sweep.rows);
    let quiet = gpus.filter(|(gpu, row)| {
        answered(row)
            && !sweep
                .holder_changes
                .iter()
                .any(|change| change.gpu == gpu.uuid)
    });
    quiet
        .map(|(gpu, _)| HolderChange {
            at,
            gpu: gpu.uuid.clone(),
            holder: None,
        })
        .collect()
}
