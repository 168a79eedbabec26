//! What questions cost the aggregator: about 10,000 GPUs as they stand, and about hours of stored history.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use entrenar::clock::{instant, now};
use entrenar::gpu::GpuUuid;
use entrenar::metric::CATALOGUE;
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk;
use entrenar_aggregator::chunk::stretch;
use entrenar_aggregator::store::{Flush, SealedChunk, SqliteStore, Store};

use crate::fleet::{self, NodeTicks};
use crate::generator::Generator;
use crate::http;
use crate::load::Plan;
use crate::measure::quantile;
use crate::process::{Server, aggregator, raise_file_limit};
use crate::report::Section;

/// 10,000 GPUs.
const AGENTS: u32 = 1250;
/// Nodes that are simulated, 8 GPUs each; those beyond report the same at another time.
const NODES: u32 = 16;
/// What is stored of the large fleet …
const HOURS: Duration = Duration::from_hours(2);
/// … and of the first nodes alone.
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
         a connection each. Goals: by node 5 ms, all as JSON 30 ms, the mean of the fleet over an hour 60 ms, over 6 h as 1,440 points a metric of a GPU 1.5 ms and 24 of them 10 ms.",
        QUIET.as_secs()
    ));
    section.say(format!(
        "**{} GPUs that report at 1 Hz**, as they stand and over an hour ({} million samples of a metric).",
        AGENTS * 8,
        u64::from(AGENTS) * 8 * 3600 / 1_000_000
    ));
    section.table(["question", "CPU", "wall", "answer"], &present()?);
    section.say(
        "An hour of the fleet is read from its sums by the minute, of 600,000 minutes. What began 24 min ago or more is laid \
         together, metric by metric; of the last hour one stretch of every second GPU still lies alone, in a row with all of \
         its metrics, and each GPU has samples in memory.",
    );
    section.say(format!(
        "**{} GPUs at 1 Hz with {} h of stored history.**",
        NODES * 8,
        HISTORY.as_secs() / 3600
    ));
    section.table(["question", "CPU", "wall", "answer"], &past()?);
    section.publish("query")
}

fn present() -> Result<Vec<[String; 4]>> {
    let dir = tempfile::tempdir_in(".")?;
    fill(&dir.path().join("entrenar.db"), AGENTS, HOURS)?;
    let server = Server::start(aggregator(dir.path().into())?)?;
    let load = Generator::start(&plan(&server, AGENTS, NODES, 120)?)?;
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
    // An hour that ended with a whole minute half an hour ago.
    let end = Timestamp(now().0.div_euclid(60_000) * 60_000) - Duration::from_mins(33);
    let over_an_hour = [
        (
            "mean of the fleet over an hour of the past",
            query(&format!(
                "power_watts&agg=mean&fn=mean&window=1h&at={}",
                end.rfc3339()
            )),
        ),
        (
            "mean of the fleet over the last hour",
            query("power_watts&agg=mean&fn=mean&window=1h"),
        ),
        (
            "mean of the fleet, the last hour by minute",
            query("power_watts&agg=mean&from=-1h&step=1m"),
        ),
    ];
    let ask_often = |questions: &[Question], n| -> Result<Vec<[String; 4]>> {
        let rows = questions.iter().map(|q| ask(&server, q, quiet, n));
        rows.collect()
    };
    let mut rows = ask_often(&questions, QUESTIONS)?;
    rows.extend(ask_often(&over_an_hour, QUESTIONS / 6)?);
    load.stop()?;
    server.stop()?;
    Ok(rows)
}

fn past() -> Result<Vec<[String; 4]>> {
    let dir = tempfile::tempdir_in(".")?;
    let uuid = fill(&dir.path().join("entrenar.db"), NODES, HISTORY)?;
    let server = Server::start(aggregator(dir.path().into())?)?;
    let load = Generator::start(&plan(&server, NODES, NODES, 60)?)?;
    sleep(WARM_UP);
    let quiet = quiet(&server)?;
    let of_gpu = |words: &str| format!("/api/v1/series?uuid={uuid}&{words}");
    let power = |words: &str| of_gpu(&format!("metric=power_watts&{words}"));
    let query = |words: &str| format!("/api/v1/query?metric=power_watts&{words}");
    let names: Vec<_> = CATALOGUE[..24].iter().map(|metric| metric.name).collect();
    let some = format!("metric={}&from=-6h&step=15s", names.join(","));
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
        ("24 metrics of a GPU, 6 h by 15 s", of_gpu(&some)),
        (
            "all metrics of a GPU, 6 h by 15 s",
            of_gpu("metric=all&from=-6h&step=15s"),
        ),
        (
            "export of a GPU, 1 h",
            format!("/api/v1/export?uuid={uuid}&from=-1h"),
        ),
    ];
    let rows = questions
        .iter()
        .map(|q| ask(&server, q, quiet, QUESTIONS / 3));
    let rows: Result<_> = rows.collect();
    load.stop()?;
    server.stop()?;
    rows
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

/// Hours of what a fleet reports: one simulated stretch, kept again and again. Returns one GPU of it.
fn fill(database: &Path, agents: u32, history: Duration) -> Result<String> {
    let nodes = fleet::simulate(NODES, stretch::TICKS, INTERVAL)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = SqliteStore::open(database).await?;
        let length = stretch::length(INTERVAL);
        let end = now();
        for n in 0..(history.as_millis() / length.as_millis()) as u32 {
            let within = end - history + length * n;
            for copy in 0..agents / NODES {
                let sealed = nodes.iter().map(|node| seal(node, copy, within));
                let sealed: Result<Vec<_>> = sealed.collect();
                let flush = Flush {
                    sealed: sealed?.concat(),
                    ..Flush::default()
                };
                store.commit(flush).await?;
            }
        }
        // As the aggregator's own maintenance would have done by now.
        store.compact(end).await?;
        store.close().await;
        Ok(reported(&nodes[0].gpus[0].uuid, 0).to_string())
    })
}

/// A stretch of each GPU of a node: the one in which an instant lies.
fn seal(node: &NodeTicks, copy: u32, within: Timestamp) -> Result<Vec<SealedChunk>> {
    let length = stretch::length(INTERVAL);
    let gpus = node.gpus.iter().enumerate();
    let sealed = gpus.map(|(place, info)| {
        let gpu = reported(&info.uuid, copy);
        let start = stretch::start(&gpu, length, within);
        let rows = node.of_gpu(place, start, INTERVAL);
        Ok(SealedChunk {
            gpu,
            stretch: start,
            length_ms: length.as_millis() as u32,
            from: rows[0].0,
            to: rows[rows.len() - 1].0,
            n_samples: rows.len() as u32,
            blob: chunk::encode(&rows, chunk::Profile::Exact)?,
        })
    });
    sealed.collect()
}

/// What the load calls a GPU of a copy of a node.
fn reported(uuid: &GpuUuid, copy: u32) -> GpuUuid {
    let kept = uuid.as_str().get(..uuid.as_str().len().saturating_sub(4));
    format!("{}{copy:04x}", kept.unwrap_or_default()).into()
}
