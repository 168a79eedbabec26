//! Starts after a crash: with a day of history, and with 10,000 GPUs whose stretches are as old as they get before they are
//! sealed, so that the journal is as long as it gets. What was acknowledged before must be there after.

use std::collections::HashMap;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::clock::{instant, now};
use entrenar_aggregator::chunk;
use entrenar_aggregator::chunk::stretch;
use entrenar_aggregator::store::{Flush, SealedChunk, SqliteStore, Store};
use serde_json::Value;

use crate::fleet::{self, GPUS};
use crate::generator::Generator;
use crate::http;
use crate::ingest::{asked_seconds, size_of};
use crate::load::Plan;
use crate::process::{Server, Usage, aggregator, raise_file_limit};
use crate::report::Section;

/// 512 GPUs.
const NODES: u32 = 64;
const INTERVAL: Duration = Duration::from_secs(1);
/// Live reporting before the crash, unless `ENTRENAR_BENCH_SECONDS` says otherwise: what the journal then holds.
const LIVE: Duration = Duration::from_mins(2);

/// 10,000 GPUs.
const AGENTS: u32 = 1250;
/// What a GPU has in every tick.
const EVERY_TICK: &str = "temperature_celsius";
/// How long they report before the crash, unless it is said otherwise: longer than a stretch is long and
/// waits for stragglers.
const LONG_LIVE: Duration = Duration::from_mins(13);

/// Measures both.
pub fn run() -> Result<()> {
    raise_file_limit()?;
    let mut section = Section::default();
    with_history(&mut section)?;
    with_many_series(&mut section)?;
    section.publish("startup")
}

/// What a start was like.
struct Started {
    ready_after: Duration,
    usage: Usage,
}

impl Started {
    fn of(server: &Server) -> Result<Self> {
        Ok(Self {
            ready_after: server.ready_after,
            usage: server.usage()?,
        })
    }

    fn rows(&self) -> Vec<[String; 2]> {
        vec![
            [
                "start → ready, rules up to date".into(),
                format!("{:.2} s", self.ready_after.as_secs_f64()),
            ],
            [
                "CPU until ready".into(),
                format!("{:.2} s", self.usage.cpu().as_secs_f64()),
            ],
            [
                "resident memory when ready".into(),
                format!("{:.0} MiB", self.usage.rss_bytes as f64 / 1024.0 / 1024.0),
            ],
        ]
    }
}

/// Fills a day, lets a fleet report, kills the process, and starts it again.
fn with_history(section: &mut Section) -> Result<()> {
    let live = asked_seconds()?.unwrap_or(LIVE);
    let dir = tempfile::tempdir_in(".")?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let n_chunks = runtime.block_on(fill(&data.join("entrenar.db")))?;
    let server = Server::start(aggregator(data.clone())?)?;
    let load = Generator::start(&plan(&server, NODES, 8, 60)?)?;
    sleep(live);
    server.kill()?;
    drop(load);
    let bytes = std::fs::metadata(data.join("entrenar.db"))?.len();
    let again = Server::start(aggregator(data)?)?;
    let started = Started::of(&again)?;
    again.stop()?;
    section.say(format!(
        "**{} GPUs at 1 Hz**: a day of sealed history written through the store ({n_chunks} chunks, {:.0} MB file), {} s of \
         live reporting, kill -9, start.",
        NODES * GPUS as u32,
        bytes as f64 / 1e6,
        live.as_secs()
    ));
    section.table(["what", "measured"], &started.rows());
    Ok(())
}

/// Lets a large fleet report, kills the process, starts it again, and looks for what was acknowledged.
fn with_many_series(section: &mut Section) -> Result<()> {
    let live = asked_seconds()?.unwrap_or(LONG_LIVE);
    let dir = tempfile::tempdir_in(".")?;
    let server = Server::start(aggregator(dir.path().into())?)?;
    let mut load = Generator::start(&plan(&server, AGENTS, 64, 600)?)?;
    sleep(live);
    server.kill()?;
    let (tally, acknowledged) = (load.tally()?, load.acknowledged()?);
    drop(load);
    let bytes = size_of(dir.path())?;
    let again = Server::start(aggregator(dir.path().into())?)?;
    let started = Started::of(&again)?;
    let lag_seconds = lag_seconds(&again)?;
    let asked = instant();
    let n_missing = missing(&again, live, &acknowledged)?;
    let whole_after = started.ready_after + asked.elapsed();
    let stopped_after = again.stop()?;
    section.say(format!(
        "**{} GPUs at 1 Hz**, {} active series, a gRPC connection for every 8 GPUs: {} s of live reporting from an empty \
         database ({:.0} MB of files), kill -9, start. Goal, for 240,000 series: ready, evaluating and nothing acknowledged lost within 3 s, 1 s if \
         possible, with a snapshot at most 2 min old. The samples are counted for each GPU with a question to the new process.",
        AGENTS * GPUS as u32,
        tally.series,
        live.as_secs(),
        bytes as f64 / 1e6,
    ));
    let mut rows = started.rows();
    let row = |name: &str, value: String| [name.to_owned(), value];
    rows.extend([
        row("rules behind when ready", format!("{lag_seconds:.1} s")),
        row(
            "start → the journal from before the snapshot read as well, and this counted",
            format!("{:.1} s", whole_after.as_secs_f64()),
        ),
        row(
            "ticks acknowledged before, GPU by GPU; of them missing after",
            format!(
                "{}, **{n_missing}**",
                acknowledged.iter().sum::<u64>() * GPUS as u64
            ),
        ),
        row(
            "a clean stop afterwards",
            format!("{:.2} s", stopped_after.as_secs_f64()),
        ),
    ]);
    section.table(["what", "measured"], &rows);
    Ok(())
}

fn plan(server: &Server, agents: u32, nodes: u32, ticks: u32) -> Result<Plan> {
    Ok(Plan {
        grpc: server.address("grpc")?.to_owned(),
        agents,
        interval_ms: INTERVAL.as_millis() as u32,
        batch_ticks: 1,
        nodes,
        ticks,
    })
}

fn lag_seconds(server: &Server) -> Result<f64> {
    let page = http::get(server.address("http")?, "/metrics")?;
    let lag = http::metric(&page, "entrenar_andon_lag_seconds");
    lag.context("/metrics does not tell the lag")
}

/// How many ticks that were acknowledged a server does not have: counted for each GPU, so that one that has more does not
/// hide one that has less.
fn missing(server: &Server, live: Duration, acknowledged: &[u64]) -> Result<u64> {
    // The load, the start and this question take time too.
    let window = live.as_secs() + 600;
    let path = format!("/api/v1/query?metric={EVERY_TICK}&by=gpu&fn=count&window={window}s");
    let answer: Value = serde_json::from_str(&http::get(server.address("http")?, &path)?)?;
    let items = answer["items"].as_array().context("no list of GPUs")?;
    let mut found = HashMap::new();
    for item in items {
        let (node, device) = (item["node"].as_str(), item["device"].as_u64());
        let place = node.zip(device).context("a GPU without its place")?;
        found.insert(place, item["value"].as_f64().unwrap_or(0.0) as u64);
    }
    let mut n_missing = 0;
    for (number, acknowledged) in acknowledged.iter().enumerate() {
        let node = format!("node-{number:04}");
        for device in 0..GPUS as u64 {
            let found = found.get(&(node.as_str(), device)).copied();
            n_missing += acknowledged.saturating_sub(found.unwrap_or(0));
        }
    }
    Ok(n_missing)
}

/// A day of 512 GPUs: one simulated stretch, kept at each time of the day.
async fn fill(database: &Path) -> Result<usize> {
    let store = SqliteStore::open(database).await?;
    let nodes = fleet::simulate(8, stretch::TICKS, INTERVAL)?;
    let length = stretch::length(INTERVAL);
    let day = Duration::from_hours(24);
    let stretches = (day.as_millis() / length.as_millis()) as u32;
    let mut n_chunks = 0;
    for n in 0..stretches {
        let mut sealed = Vec::new();
        for node in 0..NODES {
            let played = &nodes[node as usize % nodes.len()];
            for (gpu, info) in played.gpus.iter().enumerate() {
                let uuid = format!("{}-{node:03}", info.uuid).into();
                let start = stretch::start(&uuid, length, now() - day + length * n);
                let rows = played.of_gpu(gpu, start, INTERVAL);
                sealed.push(SealedChunk {
                    gpu: uuid,
                    stretch: start,
                    length_ms: length.as_millis() as u32,
                    from: rows[0].0,
                    to: rows[rows.len() - 1].0,
                    n_samples: rows.len() as u32,
                    blob: chunk::encode(&rows, chunk::Profile::Exact)?,
                });
            }
        }
        n_chunks += sealed.len();
        store
            .commit(Flush {
                sealed,
                ..Flush::default()
            })
            .await?;
    }
    store.close().await;
    Ok(n_chunks)
}
