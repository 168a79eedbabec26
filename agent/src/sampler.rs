//! Tick → samples → spool. Ticks that are missed are counted, and the count travels with the next batch.

pub mod batcher;
pub mod schedule;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use entrenar::clock::Clock;
use entrenar::report::{Body, Tick};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::batcher::Batcher;
use self::schedule::{Schedule, Taken};
use crate::probe::Probe;
use crate::spool::worker::SpoolHandle;
use crate::status::Status;

/// The task that samples.
pub struct Sampler {
    probe: Probe,
    schedule: Schedule,
    spool: SpoolHandle,
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    batcher: Batcher,
    trouble: Option<String>,
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
            batcher: Batcher::new(batch_ticks),
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
        let last = self.batcher.close();
        self.keep(last);
    }

    async fn tick(&mut self) {
        let at = self.clock.now();
        let monotonic = self.clock.monotonic();
        let Taken { missed, depth } = self.schedule.take(monotonic);
        self.batcher.lost(missed);
        let sweep = self.probe.read_all(depth).await;
        self.status.tick(at, &sweep.inventory, &sweep.rows);
        let tick = Tick {
            at,
            monotonic_ms: monotonic.as_millis() as u64,
        };
        let ready = self.batcher.take(tick, sweep);
        self.keep(ready);
        self.report(missed);
    }

    fn keep(&mut self, records: impl IntoIterator<Item = Body>) {
        for body in records {
            // The spool counts what it refuses, too; but only we can say it in the next batch.
            if let Err(body) = self.spool.append(body) {
                self.batcher.refused(&body);
            }
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
