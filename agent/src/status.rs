//! About the agent itself: `/metrics`, `/healthz`, `/readyz`.
//!
//! Everyone writes into one board of counters; a scrape reads it. Nothing here waits for a GPU.

mod serve;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use entrenar::expose::{LabelText, Page};
use entrenar::gpu::Values;
use entrenar::metric::Kind;
use entrenar::report::Inventory;
use entrenar::unit::Timestamp;

pub use serve::serve;

/// A node whose newest tick is older than this many intervals is not ready.
const STALE_INTERVALS: u32 = 5;

/// What the agent knows of itself.
#[derive(Debug, Default)]
pub struct Status {
    pub node: String,
    pub interval: Duration,
    pub ticks: AtomicU64,
    pub missed_ticks: AtomicU64,
    /// Unix milliseconds; 0 before the first.
    pub last_tick_ms: AtomicI64,
    pub lost_events: AtomicU64,
    pub quarantined_gpus: AtomicU64,
    pub spool_bytes: AtomicU64,
    pub spool_records: AtomicU64,
    pub spool_dropped_records: AtomicU64,
    pub spool_failures: AtomicU64,
    pub connected: AtomicBool,
    pub connections: AtomicU64,
    pub sent_records: AtomicU64,
    pub in_flight_records: AtomicU64,
    pub newest_seq: AtomicU64,
    pub durable_seq: AtomicU64,
    latest: Mutex<Latest>,
    trouble: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Latest {
    inventory: Arc<Inventory>,
    rows: Vec<Values>,
}

impl Status {
    pub fn new(node: String, interval: Duration) -> Self {
        Self {
            node,
            interval,
            ..Self::default()
        }
    }

    /// A tick was taken. Slow metrics of earlier ticks stay until they are read again.
    pub fn tick(&self, at: Timestamp, inventory: &Arc<Inventory>, rows: &[Values]) {
        self.ticks.fetch_add(1, Relaxed);
        self.last_tick_ms.store(at.as_millis(), Relaxed);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.inventory.generation == inventory.generation && latest.rows.len() == rows.len() {
            latest
                .rows
                .iter_mut()
                .zip(rows)
                .for_each(|(known, newer)| known.overlay(newer));
        } else {
            latest.rows = rows.to_vec();
        }
        latest.inventory = Arc::clone(inventory);
    }

    /// Why GPUs can't be read at the moment, for people; `None`: they can.
    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why the agent does not do its work; `None` when it does.
    pub fn not_ready(&self, now: Timestamp) -> Option<String> {
        if let Some(trouble) = self
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
        {
            return Some(trouble);
        }
        let last = self.last_tick_ms.load(Relaxed);
        if last == 0 {
            return Some("no sample was taken yet".into());
        }
        let age = now.since(Timestamp(last));
        (age > self.interval * STALE_INTERVALS)
            .then(|| format!("the newest sample is {:.0} s old", age.as_secs_f64()))
    }

    /// The page for Prometheus.
    pub fn page(&self, now: Timestamp) -> String {
        let mut page = Page::default();
        self.write_gpus(&mut page);
        let mut counter = |name: &str, help: &str, value: &AtomicU64| {
            page.family(&format!("entrenar_agent_{name}_total"), Kind::Counter, help)
                .sample(LabelText::NONE, value.load(Relaxed) as f64);
        };
        counter("ticks", "Times the GPUs were sampled.", &self.ticks);
        counter(
            "missed_ticks",
            "Ticks that were due and not taken.",
            &self.missed_ticks,
        );
        counter(
            "lost_events",
            "GPU events dropped from a full queue.",
            &self.lost_events,
        );
        counter(
            "spool_dropped_records",
            "Records forgotten because the spool was full or they were too old.",
            &self.spool_dropped_records,
        );
        counter(
            "spool_failures",
            "Writes to the spool that failed.",
            &self.spool_failures,
        );
        counter(
            "connections",
            "Connections to the aggregator.",
            &self.connections,
        );
        counter(
            "sent_records",
            "Records sent, those sent again included.",
            &self.sent_records,
        );
        let mut gauge = |name: &str, help: &str, value: f64| {
            page.family(&format!("entrenar_agent_{name}"), Kind::Gauge, help)
                .sample(LabelText::NONE, value);
        };
        let load = |value: &AtomicU64| value.load(Relaxed) as f64;
        gauge(
            "connected",
            "1 while the aggregator is connected.",
            f64::from(u8::from(self.connected.load(Relaxed))),
        );
        gauge(
            "ready",
            "1 while the agent does its work.",
            f64::from(u8::from(self.not_ready(now).is_none())),
        );
        gauge(
            "quarantined_gpus",
            "GPUs that do not answer.",
            load(&self.quarantined_gpus),
        );
        gauge(
            "spool_bytes",
            "Bytes in the spool.",
            load(&self.spool_bytes),
        );
        gauge(
            "spool_records",
            "Records in the spool.",
            load(&self.spool_records),
        );
        gauge(
            "in_flight_records",
            "Records sent and not yet durable.",
            load(&self.in_flight_records),
        );
        gauge(
            "newest_sequence",
            "Number of the newest record.",
            load(&self.newest_seq),
        );
        gauge(
            "durable_sequence",
            "Highest number that the aggregator keeps for good.",
            load(&self.durable_seq),
        );
        gauge(
            "interval_seconds",
            "Sampling interval.",
            self.interval.as_secs_f64(),
        );
        let last = self.last_tick_ms.load(Relaxed);
        if last > 0 {
            gauge(
                "sample_age_seconds",
                "Age of the newest sample.",
                now.since(Timestamp(last)).as_secs_f64(),
            );
        }
        page.into_text()
    }

    fn write_gpus(&self, page: &mut Page) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let gpus = &latest.inventory.gpus;
        let labels: Vec<LabelText> = gpus
            .iter()
            .map(|gpu| {
                LabelText::new([
                    ("node", self.node.as_str()),
                    ("device", gpu.index.to_string().as_str()),
                ])
            })
            .collect();
        let rows: Vec<_> = labels.iter().zip(&latest.rows).collect();
        page.gpu_metrics("entrenar", &rows);
        let mut info = page.family("entrenar_gpu_info", Kind::Gauge, "Which GPU sits where.");
        for (gpu, labels) in gpus.iter().zip(&labels) {
            info.sample(
                &labels
                    .clone()
                    .with("uuid", gpu.uuid.as_str())
                    .with("name", &gpu.name),
                1.0,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use entrenar::gpu::GpuInfo;
    use entrenar::metric::{FAN_SPEED, TEMPERATURE};

    use super::*;

    #[test]
    fn the_page_has_each_gpu_and_slow_metrics_stay() {
        let status = Status::new("n1".into(), Duration::from_secs(1));
        let gpu = GpuInfo {
            uuid: "GPU-1".into(),
            ..GpuInfo::default()
        };
        let inventory = Arc::new(Inventory {
            generation: 1,
            gpus: vec![gpu],
        });
        let full = Values::default().with(TEMPERATURE, 40).with(FAN_SPEED, 30);
        status.tick(Timestamp::from_secs(1), &inventory, &[full]);
        status.tick(
            Timestamp::from_secs(2),
            &inventory,
            &[Values::default().with(TEMPERATURE, 41)],
        );
        let page = status.page(Timestamp::from_secs(3));
        for line in [
            "entrenar_gpu_temperature_celsius{node=\"n1\",device=\"0\"} 41",
            "entrenar_gpu_fan_speed_percent{node=\"n1\",device=\"0\"} 30",
            "entrenar_agent_sample_age_seconds 1",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }

    #[test]
    fn an_agent_without_fresh_samples_is_not_ready() {
        let status = Status::new("n1".into(), Duration::from_secs(1));
        let not_ready = |secs| status.not_ready(Timestamp::from_secs(secs));
        assert!(not_ready(1).is_some());
        status.tick(Timestamp::from_secs(10), &Arc::default(), &[]);
        assert_eq!(not_ready(12), None);
        assert_eq!(
            not_ready(16).as_deref(),
            Some("the newest sample is 6 s old")
        );
        status.set_trouble(Some("no driver".into()));
        assert_eq!(not_ready(12).as_deref(), Some("no driver"));
    }
}
