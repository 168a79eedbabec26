//! What questions cost the aggregator: about 10,000 GPUs as they stand, and about hours of stored history.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use entrenar::clock::{instant, now};
use entrenar::gpu::GpuUuid;
use entrenar::metric::CATALOGUE;
use entrenar_aggregator::chunk;
use entrenar_aggregator::chunk::stretch;
use entrenar_aggregator::store::{Flush, SealedChunk, SqliteStore, Store};

use crate::fleet;
use crate::generator::Generator;
use crate::http;
use crate::load::Plan;
use crate::measure::quantile;
use crate::process::{Server, aggregator, raise_file_limit};
use crate::report::Section;

/// 10,000 GPUs.
const AGENTS: u32 = 1250;
/// Nodes with stored history, 8 GPUs each.
const NODES: u32 = 16;
const HISTORY: Duration = Duration::from_hours(7);
const INTERVAL: Duration = Duration::from_secs(1);
/// Long enough for every slow metric to have been seen.
const WARM_UP: Duration = Duration::from_secs(25);
/// How long it is watched without a question, to know what the agents alone cost.
const QUIET: Duration = Duration::from_secs(20);
const QUESTIONS: u32 = 60;

/// A question, by a name for the table.
type Question = (&'static str, String);

/// Measures both.
pub fn run() -> Result<()> {
    raise_file_limit()?;
    let mut section = Section::default();
    section.say(format!(
        "CPU of the aggregator's process a question, less what the agents cost it in the {} s before; wall time is the median of {QUESTIONS}, \
         a connection each. Goals: by node 5 ms, all as JSON 30 ms, a metric of a GPU over 6 h 1.5 ms (as 1,440 points).",
        QUIET.as_secs()
    ));
    section.say(format!(
        "**{} GPUs that report at 1 Hz, as they stand.**",
        AGENTS * 8
    ));
    section.table(["question", "CPU", "wall", "answer"], &present()?);
    section.say(format!(
        "**{} GPUs at 1 Hz with {} h of stored history**, which is read raw: no rollup is stored.",
        NODES * 8,
        HISTORY.as_secs() / 3600
    ));
    section.table(["question", "CPU", "wall", "answer"], &past()?);
    section.publish("query")
}

fn present() -> Result<Vec<[String; 4]>> {
    let dir = tempfile::tempdir_in(".")?;
    let server = Server::start(aggregator(dir.path().into())?)?;
    let load = Generator::start(&plan(&server, AGENTS, 16, 120)?)?;
    sleep(WARM_UP);
    let quiet = quiet(&server)?;
    let query = |words: &str| format!("/api/v1/query?metric={words}");
    let questions = [
        (
            "hottest GPU by node",
            query("temperature_celsius&by=node&agg=max"),
        ),
        (
            "99th percentile by job",
            query("temperature_celsius&by=job&quantile=0.99"),
        ),
        ("mean of the fleet", query("power_watts&agg=mean")),
        ("top 20", query("power_watts&top=20")),
        ("every GPU", query("power_watts")),
    ];
    let rows = questions.iter().map(|q| ask(&server, q, quiet, QUESTIONS));
    let rows: Result<_> = rows.collect();
    load.stop()?;
    server.stop()?;
    rows
}

fn past() -> Result<Vec<[String; 4]>> {
    let dir = tempfile::tempdir_in(".")?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let uuid = runtime.block_on(fill(&data.join("entrenar.db")))?;
    let server = Server::start(aggregator(data)?)?;
    let load = Generator::start(&plan(&server, NODES, NODES, 60)?)?;
    sleep(WARM_UP);
    let quiet = quiet(&server)?;
    let of_gpu = |words: &str| format!("/api/v1/series?uuid={uuid}&{words}");
    let power = |words: &str| of_gpu(&format!("metric=power_watts&{words}"));
    let query = |words: &str| format!("/api/v1/query?metric=power_watts&{words}");
    let questions = [
        ("a metric of a GPU, 1 h, every sample", power("from=-1h")),
        ("a metric of a GPU, 6 h, every sample", power("from=-6h")),
        ("a metric of a GPU, 6 h by 15 s", power("from=-6h&step=15s")),
        ("a metric of a GPU, 6 h by 5 min", power("from=-6h&step=5m")),
        (
            "mean of 128 GPUs, 1 h by 15 s",
            query("agg=mean&from=-1h&step=15s"),
        ),
        (
            "mean of each of 128 GPUs over 1 h",
            query("fn=mean&window=1h"),
        ),
    ];
    let rows = questions
        .iter()
        .map(|q| ask(&server, q, quiet, QUESTIONS / 3));
    let mut rows: Vec<[String; 4]> = rows.collect::<Result<_>>()?;
    rows.push(all_metrics(&server, &uuid, quiet)?);
    let export = (
        "export of a GPU, 1 h",
        format!("/api/v1/export?uuid={uuid}&from=-1h"),
    );
    rows.push(ask(&server, &export, quiet, QUESTIONS / 3)?);
    load.stop()?;
    server.stop()?;
    Ok(rows)
}

fn plan(server: &Server, agents: u32, nodes: u32, ticks: u32) -> Result<Plan> {
    Ok(Plan {
        grpc: server.address("grpc")?.to_owned(),
        agents,
        interval_ms: 1000,
        batch_ticks: 1,
        nodes,
        ticks,
    })
}

/// Share of a core without questions.
fn quiet(server: &Server) -> Result<f64> {
    let (began, before) = (instant(), cpu(server)?);
    sleep(QUIET);
    Ok((cpu(server)? - before) / began.elapsed().as_secs_f64())
}

fn cpu(server: &Server) -> Result<f64> {
    Ok(server.usage()?.cpu().as_secs_f64())
}

fn ask(server: &Server, (name, path): &Question, quiet: f64, n: u32) -> Result<[String; 4]> {
    let address = server.address("http")?;
    let mut length = http::get(address, path)?.len();
    let (began, before) = (instant(), cpu(server)?);
    let mut took = Vec::new();
    for _ in 0..n {
        let asked = instant();
        length = http::get(address, path)?.len();
        took.push(asked.elapsed());
    }
    let spent = cpu(server)? - before - quiet * began.elapsed().as_secs_f64();
    Ok(row(name, spent / f64::from(n), &took, length))
}

fn row(name: &str, cpu_s: f64, took: &[Duration], length: usize) -> [String; 4] {
    let wall = quantile(took, 0.5).unwrap_or_default().as_secs_f64();
    [
        name.into(),
        format!("**{:.2} ms**", cpu_s.max(0.0) * 1e3),
        format!("{:.1} ms", wall * 1e3),
        format!("{:.0} KiB", length as f64 / 1024.0),
    ]
}

/// Every metric of a GPU, a question each: what a page of charts asks.
fn all_metrics(server: &Server, uuid: &str, quiet: f64) -> Result<[String; 4]> {
    let address = server.address("http")?;
    let (began, before) = (instant(), cpu(server)?);
    let (mut took, mut length) = (Vec::new(), 0);
    for _ in 0..QUESTIONS / 6 {
        let asked = instant();
        length = 0;
        for metric in CATALOGUE {
            let name = metric.name;
            let path = format!("/api/v1/series?uuid={uuid}&metric={name}&from=-6h&step=15s");
            length += http::get(address, &path)?.len();
        }
        took.push(asked.elapsed());
    }
    let spent = cpu(server)? - before - quiet * began.elapsed().as_secs_f64();
    let name = format!("all {} metrics of a GPU, 6 h by 15 s", CATALOGUE.len());
    Ok(row(&name, spent / f64::from(QUESTIONS / 6), &took, length))
}

/// Hours of what the fleet reports: one simulated stretch, kept again and again. One GPU of it.
async fn fill(database: &std::path::Path) -> Result<String> {
    let store = SqliteStore::open(database).await?;
    let nodes = fleet::simulate(NODES, stretch::TICKS, INTERVAL)?;
    let length = stretch::length(INTERVAL);
    let stretches = (HISTORY.as_millis() / length.as_millis()) as u32;
    for n in 0..stretches {
        let mut sealed = Vec::new();
        for node in &nodes {
            for (gpu, info) in node.gpus.iter().enumerate() {
                let uuid = reported(&info.uuid);
                let start = stretch::start(&uuid, length, now() - HISTORY + length * n);
                let rows = node.of_gpu(gpu, start, INTERVAL);
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
        let flush = Flush {
            sealed,
            ..Flush::default()
        };
        store.commit(flush).await?;
    }
    store.close().await;
    Ok(reported(&nodes[0].gpus[0].uuid).to_string())
}

/// What the load calls a GPU of its first copy of a node.
fn reported(uuid: &GpuUuid) -> GpuUuid {
    let kept = uuid.as_str().get(..uuid.as_str().len().saturating_sub(4));
    format!("{}0000", kept.unwrap_or_default()).into()
}
