//! Metrics about the aggregator itself: what came in, what was refused, what is late.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use entrenar::expose::{LabelText, Page};
use entrenar::metric::Kind;
use entrenar::unit::Timestamp;

use crate::notify::heartbeat::HeartbeatStats;
use crate::notify::outbox::{OutboxHandle, ReceiverStats};
use crate::store::{Flush, JournalEntry};

/// What the line has counted since the start. Every loss has its own number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    pub samples: u64,
    /// Sent again and already known: harmless.
    pub duplicate_records: u64,
    /// Samples of a GPU at a time that was already kept.
    pub duplicate_samples: u64,
    /// Numbers that an agent can no longer send.
    pub missing_records: u64,
    /// Ticks that agents say they lost.
    pub lost_ticks: u64,
    /// Records that could not be read.
    pub malformed_records: u64,
    /// Values of metrics that this build does not know.
    pub unknown_metric_values: u64,
    /// Ticks later than their own `sent_at`.
    pub future_ticks: u64,
    /// Samples older than the retention, or beyond the head's bounds.
    pub refused_samples: u64,
    /// Agents turned away.
    pub refused_hellos: u64,
    /// Events that history does not keep, because a commit has too many.
    pub unkept_events: u64,
    pub transitions: u64,
    pub nodes: u64,
    pub gpus: u64,
    /// Engine's clock behind ours, in milliseconds.
    pub andon_lag_ms: u64,
    /// For how long rules about trends, and those that only warn, were left out.
    pub andon_shed: [Duration; 2],
}

/// What the edges count, and whether they are well.
#[derive(Default)]
pub struct Vitals {
    pub commits: AtomicU64,
    pub commit_failures: AtomicU64,
    pub journal_bytes: AtomicU64,
    pub sealed_chunks: AtomicU64,
    pub sealed_bytes: AtomicU64,
    pub agents_connected: AtomicU64,
    /// Times that a changed rules file was refused.
    pub rules_reload_failures: AtomicU64,
    /// When the rules that hold were read.
    pub rules_loaded_at_ms: AtomicI64,
    outbox: OnceLock<OutboxHandle>,
    heartbeat: Arc<HeartbeatStats>,
    /// Why data can't be kept at the moment.
    trouble: Mutex<Option<String>>,
}

impl Vitals {
    pub fn count_commit(&self, flush: &Flush) {
        let bytes = flush.journal.iter().map(|entry| match entry {
            JournalEntry::Hello { bytes, .. } | JournalEntry::Record { bytes, .. } => {
                bytes.len() as u64
            }
            _ => 0,
        });
        self.commits.fetch_add(1, Relaxed);
        self.journal_bytes.fetch_add(bytes.sum(), Relaxed);
        self.sealed_chunks
            .fetch_add(flush.sealed.len() as u64, Relaxed);
        self.sealed_bytes.fetch_add(
            flush.sealed.iter().map(|c| c.blob.len() as u64).sum(),
            Relaxed,
        );
    }

    /// Lets the outbox be shown.
    pub fn watch_outbox(&self, outbox: OutboxHandle) {
        // A second one is not made in one process.
        let _ = self.outbox.set(outbox);
    }

    pub fn heartbeat(&self) -> Arc<HeartbeatStats> {
        Arc::clone(&self.heartbeat)
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why it can't take and keep data; `None` when it can.
    pub fn not_ready(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Writes the process's own families.
pub fn write(page: &mut Page, counts: &Counts, vitals: &Vitals, now: Timestamp) {
    let mut counter = |name: &str, help: &str, value: u64| {
        page.family(
            &format!("entrenar_aggregator_{name}_total"),
            Kind::Counter,
            help,
        )
        .sample(LabelText::NONE, value as f64);
    };
    counter("records", "Records accepted from agents.", counts.records);
    counter(
        "samples",
        "Samples accepted: one metric of one GPU at one instant.",
        counts.samples,
    );
    counter(
        "duplicate_records",
        "Records sent again and already known.",
        counts.duplicate_records,
    );
    counter(
        "duplicate_samples",
        "Rows of a GPU at a time that was already kept.",
        counts.duplicate_samples,
    );
    counter(
        "missing_records",
        "Records that an agent can no longer send.",
        counts.missing_records,
    );
    counter(
        "lost_ticks",
        "Ticks that agents say they lost.",
        counts.lost_ticks,
    );
    counter(
        "malformed_records",
        "Records that could not be read.",
        counts.malformed_records,
    );
    counter(
        "unknown_metric_values",
        "Values of metrics that this build does not know.",
        counts.unknown_metric_values,
    );
    counter(
        "future_ticks",
        "Ticks refused for being later than the message that carried them.",
        counts.future_ticks,
    );
    counter(
        "refused_samples",
        "Rows refused for being too old or beyond the head's bounds.",
        counts.refused_samples,
    );
    counter(
        "refused_agents",
        "Agents turned away.",
        counts.refused_hellos,
    );
    counter(
        "unkept_events",
        "XIDs that rules heard and history does not keep: more than 4096 in a commit.",
        counts.unkept_events,
    );
    counter(
        "andon_transitions",
        "Transitions of cords.",
        counts.transitions,
    );
    counter("commits", "Group commits.", vitals.commits.load(Relaxed));
    counter(
        "commit_failures",
        "Group commits that failed and were tried again.",
        vitals.commit_failures.load(Relaxed),
    );
    counter(
        "journal_bytes",
        "Bytes of records journalled, before compression.",
        vitals.journal_bytes.load(Relaxed),
    );
    counter(
        "sealed_chunks",
        "Chunks sealed.",
        vitals.sealed_chunks.load(Relaxed),
    );
    counter(
        "sealed_bytes",
        "Bytes of chunks sealed.",
        vitals.sealed_bytes.load(Relaxed),
    );
    counter(
        "rules_reload_failures",
        "Times that a changed rules file was refused; the rules of before stayed.",
        vitals.rules_reload_failures.load(Relaxed),
    );
    write_shed(page, counts);
    write_outbox(page, vitals);
    let mut gauge = |name: &str, help: &str, value: f64| {
        page.family(name, Kind::Gauge, help)
            .sample(LabelText::NONE, value);
    };
    gauge(
        "entrenar_aggregator_agents_connected",
        "Agents connected.",
        vitals.agents_connected.load(Relaxed) as f64,
    );
    gauge(
        "entrenar_aggregator_nodes",
        "Nodes known.",
        counts.nodes as f64,
    );
    gauge(
        "entrenar_aggregator_gpus",
        "GPUs known.",
        counts.gpus as f64,
    );
    gauge(
        "entrenar_andon_lag_seconds",
        "How far the rules are behind what agents have said.",
        counts.andon_lag_ms as f64 / 1e3,
    );
    gauge(
        "entrenar_aggregator_rules_last_reload_success_timestamp_seconds",
        "When the rules that hold were read.",
        vitals.rules_loaded_at_ms.load(Relaxed) as f64 / 1e3,
    );
    gauge(
        "entrenar_aggregator_ready",
        "1 while data can be taken and kept.",
        f64::from(u8::from(vitals.not_ready().is_none())),
    );
    gauge(
        "entrenar_aggregator_time_seconds",
        "The aggregator's wall clock.",
        now.as_secs_f64(),
    );
}

/// What the rules left out, by class.
fn write_shed(page: &mut Page, counts: &Counts) {
    let help = "Seconds for which rules of a class were left out because the rules were behind.";
    let mut family = page.family("entrenar_andon_shed_seconds_total", Kind::Counter, help);
    for (class, shed) in ["trend", "warning"].into_iter().zip(counts.andon_shed) {
        family.sample(&LabelText::new([("class", class)]), shed.as_secs_f64());
    }
}

/// What became of messages, by receiver.
fn write_outbox(page: &mut Page, vitals: &Vitals) {
    let beat = &vitals.heartbeat;
    let mut counter = |name: &str, help: &str, value: u64| {
        page.family(
            &format!("entrenar_aggregator_{name}_total"),
            Kind::Counter,
            help,
        )
        .sample(LabelText::NONE, value as f64);
    };
    counter(
        "heartbeats",
        "Heartbeats that were answered.",
        beat.n_sent.load(Relaxed),
    );
    counter(
        "heartbeat_failures",
        "Heartbeats that were not answered.",
        beat.n_failed.load(Relaxed),
    );
    let Some(stats) = vitals.outbox.get().map(OutboxHandle::stats) else {
        return;
    };
    counter(
        "notices_refetched",
        "Messages that had to be read from the database again.",
        stats.n_refetched,
    );
    counter(
        "attempts_lost",
        "Attempts that could not be recorded.",
        stats.n_attempts_lost,
    );
    let mut by_receiver = |name: &str, kind: Kind, help: &str, value: fn(&ReceiverStats) -> f64| {
        let mut family = page.family(&format!("entrenar_aggregator_notices_{name}"), kind, help);
        for (receiver, stats) in &stats.receivers {
            family.sample(
                &LabelText::new([("receiver", receiver.as_str())]),
                value(stats),
            );
        }
    };
    by_receiver(
        "delivered_total",
        Kind::Counter,
        "Messages that reached their receiver.",
        |s| s.n_delivered as f64,
    );
    by_receiver(
        "retries_total",
        Kind::Counter,
        "Attempts that failed and are tried again.",
        |s| s.n_retries as f64,
    );
    by_receiver(
        "dead_total",
        Kind::Counter,
        "Messages given up: refused for good, or too old.",
        |s| s.n_dead as f64,
    );
    by_receiver(
        "cancelled_total",
        Kind::Counter,
        "Messages not sent because their incident was over.",
        |s| s.n_cancelled as f64,
    );
    by_receiver(
        "digests_total",
        Kind::Counter,
        "Messages that stood for several.",
        |s| s.n_digests as f64,
    );
    by_receiver(
        "waiting",
        Kind::Gauge,
        "Messages that wait or are on their way.",
        |s| s.n_waiting as f64,
    );
}
