//! A whole aggregator under 1,000 agents: CPU a sample from the socket to the disk, memory a series, bytes.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::clock::instant;

use crate::generator::Generator;
use crate::http;
use crate::load::{Plan, Tally};
use crate::process::{Server, Usage, aggregator, raise_file_limit};
use crate::report::Section;

const AGENTS: u32 = 1000;
/// Different nodes behind them.
const NODES: u32 = 64;
/// Ticks that are simulated of each.
const TICKS: u32 = 600;
/// After the last connection: hellos, holders and first commits are no steady state.
const WARM_UP: Duration = Duration::from_secs(20);
/// How often it is asked how far its rules are behind.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What is measured, unless `ENTRENAR_BENCH_SECONDS` says otherwise.
const MEASURED: Duration = Duration::from_mins(2);

/// Measures one and ten ticks a message.
pub fn run() -> Result<()> {
    raise_file_limit()?;
    let measured = measured()?;
    let run = |ticks| -> Result<_> { Ok((ticks, Run::of(AGENTS, ticks, measured)?)) };
    let runs = [run(1)?, run(10)?];
    let mut section = Section::default();
    section.say(format!(
        "{AGENTS} agents with a gRPC connection each, 8 GPUs at 1 Hz, in a process of their own; the aggregator as \
         people run it: SQLite with `synchronous=FULL`, the built-in rules, everything at its default. {} s after {} s \
         of warm-up; CPU is user and system time of the whole process. Every number that was sent and acknowledged as \
         durable is counted. Goal: 0.5 µs a sample.",
        measured.as_secs(),
        WARM_UP.as_secs(),
    ));
    let mut head = vec![String::new()];
    head.extend(
        runs.iter()
            .map(|(ticks, _)| format!("{ticks} tick(s) a message")),
    );
    let [a, b] = runs.map(|(_, run)| run.rows());
    let rows: Vec<[String; 3]> = a
        .into_iter()
        .zip(b)
        .map(|((k, a), (_, b))| [k, a, b])
        .collect();
    section.table(["", "1 tick a message", "10 ticks a message"], &rows);
    section.publish("ingest")
}

fn measured() -> Result<Duration> {
    Ok(asked_seconds()?.unwrap_or(MEASURED))
}

/// What `ENTRENAR_BENCH_SECONDS` says of how long to measure.
pub(crate) fn asked_seconds() -> Result<Option<Duration>> {
    let Ok(text) = std::env::var("ENTRENAR_BENCH_SECONDS") else {
        return Ok(None);
    };
    let seconds = text.parse();
    let seconds = seconds.context("ENTRENAR_BENCH_SECONDS is a whole number")?;
    Ok(Some(Duration::from_secs(seconds)))
}

/// What one run showed.
pub(crate) struct Run {
    before: (Usage, Tally),
    after: (Usage, Tally),
    last: Tally,
    took: Duration,
    on_disk_bytes: u64,
    /// The longest that was seen.
    lag_seconds: f64,
    sealed_chunks: Option<f64>,
}

impl Run {
    /// So many agents at 1 Hz, and an aggregator with everything at its default.
    pub(crate) fn of(agents: u32, batch_ticks: u32, measured: Duration) -> Result<Self> {
        let dir = tempfile::tempdir_in(".")?;
        let server = Server::start(aggregator(dir.path().into())?)?;
        let mut load = Generator::start(&Plan {
            grpc: server.address("grpc")?.to_owned(),
            agents,
            interval_ms: 1000,
            batch_ticks,
            nodes: NODES,
            ticks: TICKS,
        })?;
        sleep(WARM_UP.max(Duration::from_secs(2 * u64::from(batch_ticks))));
        let before = (server.usage()?, load.tally()?);
        let began = instant();
        let mut lag_seconds: f64 = 0.0;
        while began.elapsed() < measured {
            sleep(LOOK_EVERY.min(measured.saturating_sub(began.elapsed())));
            let page = http::get(server.address("http")?, "/metrics")?;
            let lag = http::metric(&page, "entrenar_andon_lag_seconds");
            lag_seconds = lag_seconds.max(lag.context("/metrics does not tell the lag")?);
        }
        let after = (server.usage()?, load.tally()?);
        let took = began.elapsed();
        let page = http::get(server.address("http")?, "/metrics")?;
        let on_disk_bytes = size_of(dir.path())?;
        let last = load.stop()?;
        server.stop()?;
        Ok(Self {
            before,
            after,
            last,
            took,
            on_disk_bytes,
            lag_seconds,
            sealed_chunks: http::metric(&page, "entrenar_aggregator_sealed_chunks_total"),
        })
    }

    pub(crate) fn rows(&self) -> Vec<(String, String)> {
        let ((used0, sent0), (used1, sent1)) = (&self.before, &self.after);
        let samples = (sent1.samples - sent0.samples) as f64;
        let seconds = self.took.as_secs_f64();
        let us = |a: Duration, b: Duration| b.saturating_sub(a).as_secs_f64() * 1e6 / samples;
        let written = (used1.written_bytes - used0.written_bytes) as f64 / samples;
        let mib = |bytes: f64| format!("{:.0} MiB", bytes / 1024.0 / 1024.0);
        let series = sent1.series as f64;
        let row = |name: &str, value: String| (name.to_owned(), value);
        vec![
            row("samples/s", format!("{:.0}", samples / seconds)),
            row(
                "messages/s",
                format!("{:.0}", (sent1.records - sent0.records) as f64 / seconds),
            ),
            row(
                "**CPU a sample, socket to disk**",
                format!("**{:.3} µs**", us(used0.cpu(), used1.cpu())),
            ),
            row(
                "… in its own code, in the kernel",
                format!(
                    "{:.3} µs, {:.3} µs",
                    us(used0.user, used1.user),
                    us(used0.system, used1.system)
                ),
            ),
            row(
                "CPU, share of a core",
                format!(
                    "{:.1} %",
                    used1.cpu().saturating_sub(used0.cpu()).as_secs_f64() / seconds * 100.0
                ),
            ),
            row(
                "on the wire",
                format!(
                    "{:.2} B/sample",
                    (sent1.bytes - sent0.bytes) as f64 / samples
                ),
            ),
            row("handed to the disk", format!("{written:.2} B/sample")),
            row(
                "files at the end",
                format!(
                    "{:.2} B/sample",
                    self.on_disk_bytes as f64 / sent1.samples as f64
                ),
            ),
            row(
                "resident memory, peak",
                format!(
                    "{}, {}",
                    mib(used1.rss_bytes as f64),
                    mib(used1.peak_rss_bytes as f64)
                ),
            ),
            row("active series", format!("{series:.0}")),
            row(
                "resident bytes a series",
                format!("{:.0} B", used1.rss_bytes as f64 / series),
            ),
            row(
                "rules behind, at most",
                format!("{:.1} s", self.lag_seconds),
            ),
            row(
                "chunks sealed meanwhile",
                self.sealed_chunks.map_or("–".into(), |n| format!("{n:.0}")),
            ),
            row(
                "records sent, durable, missing",
                format!(
                    "{}, {}, {}",
                    self.last.records,
                    self.last.durable_records,
                    self.last.records - self.last.durable_records.min(self.last.records)
                ),
            ),
            row(
                "connections broken, messages held back",
                format!("{}, {}", self.last.broken, self.last.held_back),
            ),
        ]
    }
}

/// All files of a directory.
pub fn size_of(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
