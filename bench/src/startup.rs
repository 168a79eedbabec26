//! A start with a day of history: chunks of a day, and the journal of what was not sealed yet.

use std::time::Duration;

use anyhow::Result;
use entrenar::clock::now;
use entrenar_aggregator::chunk;
use entrenar_aggregator::chunk::stretch;
use entrenar_aggregator::store::{Flush, SealedChunk, SqliteStore, Store};

use crate::fleet;
use crate::generator::Generator;
use crate::load::Plan;
use crate::process::{Server, aggregator, raise_file_limit};
use crate::report::Section;

/// 512 GPUs.
const NODES: u32 = 64;
const INTERVAL: Duration = Duration::from_secs(1);
/// Live reporting before the crash: what the journal then holds.
const LIVE: Duration = Duration::from_mins(2);

/// Fills a day, lets a fleet report, kills the process, and starts it again.
pub fn run() -> Result<()> {
    raise_file_limit()?;
    let dir = tempfile::tempdir_in(".")?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let n_chunks = runtime.block_on(fill(&data.join("entrenar.db")))?;
    let server = Server::start(aggregator(data.clone())?)?;
    let grpc = server.address("grpc")?.to_owned();
    let plan = Plan {
        grpc,
        agents: NODES,
        interval_ms: 1000,
        batch_ticks: 1,
        nodes: 8,
        ticks: 60,
    };
    let load = Generator::start(&plan)?;
    std::thread::sleep(LIVE);
    server.kill()?;
    drop(load);
    let bytes = std::fs::metadata(data.join("entrenar.db"))?.len();
    let again = Server::start(aggregator(data)?)?;
    let usage = again.usage()?;
    let ready_after = again.ready_after;
    again.stop()?;
    let mut section = Section::default();
    section.say(format!(
        "{} GPUs at 1 Hz: a day of sealed history written through the store ({n_chunks} chunks, {:.0} MB file), {} s of \
         live reporting, kill -9, start.",
        NODES * 8,
        bytes as f64 / 1e6,
        LIVE.as_secs()
    ));
    section.table(
        ["what", "measured"],
        &[
            [
                "start → ready, journal replayed".into(),
                format!("{:.2} s", ready_after.as_secs_f64()),
            ],
            [
                "CPU until ready".into(),
                format!("{:.2} s", usage.cpu().as_secs_f64()),
            ],
            [
                "resident memory when ready".into(),
                format!("{:.0} MiB", usage.rss_bytes as f64 / 1024.0 / 1024.0),
            ],
        ],
    );
    section.publish("startup")
}

/// A day of 512 GPUs: one simulated stretch, kept at each time of the day.
async fn fill(database: &std::path::Path) -> Result<usize> {
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
