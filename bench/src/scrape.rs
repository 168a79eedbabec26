//! What a scrape of `/metrics` costs the aggregator at 64 nodes of 8 GPUs, while they report.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use entrenar::clock::instant;

use crate::generator::Generator;
use crate::http;
use crate::load::Plan;
use crate::measure::quantile;
use crate::process::{Server, aggregator};
use crate::report::Section;

const AGENTS: u32 = 64;
/// Long enough for every slow metric to have been seen.
const WARM_UP: Duration = Duration::from_secs(25);
/// How long it is watched without a scrape, to know what the agents alone cost.
const QUIET: Duration = Duration::from_secs(20);
const SCRAPES: usize = 100;
const SPACING: Duration = Duration::from_millis(100);

/// Measures it.
pub fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::start(aggregator(dir.path().into())?)?;
    let load = Generator::start(&Plan {
        grpc: server.address("grpc")?.to_owned(),
        agents: AGENTS,
        interval_ms: 1000,
        batch_ticks: 1,
        nodes: AGENTS,
        ticks: 120,
    })?;
    sleep(WARM_UP);
    let cpu = || Ok::<_, anyhow::Error>(server.usage()?.cpu().as_secs_f64());
    let (began, before) = (instant(), cpu()?);
    sleep(QUIET);
    let quiet_share = (cpu()? - before) / began.elapsed().as_secs_f64();

    let (began, before) = (instant(), cpu()?);
    let mut took = Vec::new();
    let mut page = String::new();
    for _ in 0..SCRAPES {
        sleep(SPACING);
        let asked = instant();
        page = http::get(server.address("http")?, "/metrics")?;
        took.push(asked.elapsed());
    }
    let of_scrapes = cpu()? - before - quiet_share * began.elapsed().as_secs_f64();
    load.stop()?;
    server.stop()?;

    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    let wall = |share| quantile(&took, share).unwrap_or_default().as_secs_f64() * 1e3;
    let mut section = Section::default();
    section.say(format!(
        "{AGENTS} nodes of 8 GPUs (512) that report at 1 Hz; {SCRAPES} scrapes, a connection each. CPU of the aggregator's \
         process, less what the agents cost it in the {} s before. The page is sent in parts. Goal: 15 ms.",
        QUIET.as_secs(),
    ));
    section.table(
        ["", ""],
        &[
            [
                "**CPU a scrape**".into(),
                format!("**{:.1} ms**", of_scrapes / SCRAPES as f64 * 1e3),
            ],
            [
                "wall time, median and 99th percentile".into(),
                format!("{:.1} ms, {:.1} ms", wall(0.5), wall(0.99)),
            ],
            [
                "page".into(),
                format!("{lines} samples, {:.0} KiB", page.len() as f64 / 1024.0),
            ],
            [
                "CPU without scrapes".into(),
                format!("{:.1} % of a core", quiet_share * 100.0),
            ],
        ],
    );
    section.publish("scrape")
}
