//! A whole aggregator under real connections: CPU, memory and bytes of the process, from what the kernel says of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::generator::Generator;
use crate::load::Plan;
use crate::process::{Server, aggregator, raise_file_limit};
use crate::report::Section;

/// Agents, each with a connection of its own and 8 GPUs, a message a second.
const AGENTS: u32 = 1000;
/// Before the measurement: connections, first inventories, the first snapshot.
const WARM_UP: Duration = Duration::from_secs(20);
/// What is measured.
const MEASURED: Duration = Duration::from_mins(2);

/// Measures one message a tick.
pub fn run() -> Result<()> {
    raise_file_limit()?;
    let dir = tempfile::tempdir_in(".")?;
    let server = Server::start(aggregator(dir.path().to_path_buf())?)?;
    let plan = Plan {
        grpc: server.address("grpc")?.to_owned(),
        agents: AGENTS,
        interval_ms: 1000,
        batch_ticks: 1,
        nodes: 8,
        ticks: 120,
    };
    let mut load = Generator::start(&plan)?;
    std::thread::sleep(WARM_UP);
    let (before, sent_before) = (server.usage()?, load.tally()?);
    std::thread::sleep(MEASURED);
    let (after, sent_after) = (server.usage()?, load.tally()?);
    let samples = (sent_after.samples - sent_before.samples) as f64;
    let cpu_s = (after.cpu().saturating_sub(before.cpu())).as_secs_f64();
    let written = after.written_bytes.saturating_sub(before.written_bytes) as f64;
    let wire = (sent_after.bytes - sent_before.bytes) as f64;
    let last = load.stop()?;
    let stopped = server.stop()?;
    let on_disk = size_of_files(dir.path())? as f64;

    let mut section = Section::default();
    section.say(format!(
        "The release aggregator with SQLite (`synchronous=FULL`), built-in rules and {AGENTS} gRPC connections over \
         loopback, a message a second each, {} GPUs, {:.0} samples a second, measured for {} s after {} s. The load is \
         a process of its own. Journal and open stretches included; the sealed history is in `codec`.",
        AGENTS * 8,
        samples / MEASURED.as_secs_f64(),
        MEASURED.as_secs(),
        WARM_UP.as_secs(),
    ));
    let row = |what: &str, value: String, goal: &str| [what.to_owned(), value, goal.to_owned()];
    section.table(
        ["what", "measured", "goal"],
        &[
            row(
                "CPU of the whole process, µs a sample",
                format!("{:.3}", cpu_s * 1e6 / samples),
                "≤ 0.5",
            ),
            row(
                "CPU, share of a core",
                format!("{:.1} %", cpu_s / MEASURED.as_secs_f64() * 100.0),
                "",
            ),
            row(
                "resident memory (peak)",
                format!(
                    "{:.0} MiB ({:.0} MiB)",
                    mib(after.rss_bytes),
                    mib(after.peak_rss_bytes)
                ),
                "",
            ),
            row(
                "resident memory an active series",
                format!("{:.0} B", after.rss_bytes as f64 / last.series as f64),
                "",
            ),
            row(
                "wire, B a sample",
                format!("{:.2}", wire / samples),
                "≤ 2.4",
            ),
            row(
                "written to disk, B a sample",
                format!("{:.2}", written / samples),
                "",
            ),
            row(
                "files after the stop, B a sample",
                format!("{:.2}", on_disk / last.samples as f64),
                "",
            ),
            row(
                "records sent / durable",
                format!("{} / {}", last.records, last.durable_records),
                "equal",
            ),
            row(
                "connections broken, messages held back",
                format!("{}, {}", last.broken, last.held_back),
                "0, –",
            ),
            row(
                "stop after SIGTERM",
                format!("{:.2} s", stopped.as_secs_f64()),
                "≤ 5 s",
            ),
        ],
    );
    section.publish("ingest")
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

fn size_of_files(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
