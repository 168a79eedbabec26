//! A live fleet at 1 Hz: what taking in a sample costs each, until it is durable.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::api;
use super::exporter::ExporterPlan;
use super::goal::{self, Goal, number};
use super::options::seconds;
use super::orders::{Load, SUBCOMMAND};
use super::push::{PushPlan, What};
use super::server::{KINDS, Kind, Peer, RECEIVER, Targets, free_address};
use super::watch::{Watched, watch};
use crate::generator::Generator;
use crate::http;
use crate::load::{Backlog, Plan};
use crate::process::{Server, aggregator};
use crate::report::Section;

/// Nodes of 8 GPUs.
const AGENTS: u32 = 512;
/// The same where peers are given remote write: Prometheus must keep up on one core beside what sends.
const PUSHING: u32 = 128;
/// Different nodes behind them, and ticks of each.
const NODES: u32 = 64;
const TICKS: u32 = 600;
const INTERVAL_MS: u32 = 1000;
/// Ticks that our agents have in their spools when they connect: as many as a stretch has, so that open stretches are as
/// full as they are on any day.
const BACKLOG_TICKS: u32 = 720;
/// How long they take to deliver them.
const BACKLOG_S: u32 = 48;
/// How long that may take on a busy machine.
const BACKLOG_WITHIN: Duration = Duration::from_mins(5);
/// After the last connection and the backlog.
const WARM_UP: Duration = Duration::from_secs(20);
/// What is measured, unless `ENTRENAR_BENCH_SECONDS` says otherwise.
const MEASURED: Duration = Duration::from_mins(1);

/// How one system fared.
struct Run {
    name: String,
    watched: Watched,
    /// Series that it has, or records that are not durable: what is checked at its end.
    checked: String,
}

/// Measures all, one after the other.
pub fn run() -> Result<()> {
    let mut ours = Vec::new();
    for batch_ticks in [1, 10] {
        println!("   ours, {batch_ticks} tick(s) a message");
        ours.push(our_own(batch_ticks)?);
    }
    let (mut scrapes, mut pushes) = (Vec::new(), Vec::new());
    for kind in KINDS {
        println!("   {}, scrape", kind.name());
        scrapes.push(scrape(kind)?);
        println!("   {}, remote write", kind.name());
        pushes.push(push(kind)?);
    }
    let mut section = Section::default();
    section.say(format!(
        "{AGENTS} nodes of 8 GPUs ({} series) at 1 Hz; by remote write {PUSHING} nodes ({} series), one sample a series and \
         second, {} samples a request at most. Each system alone with what loads it, for {} s after {} s of warm-up. \
         CPU is user and system time of the whole process; memory is the mean of a look a second, and the peak since its \
         start. Ours runs as people run it (SQLite with `synchronous=FULL`, the built-in rules) and connects with \
         {BACKLOG_TICKS} ticks in each agent's spool, so that its open stretches are as full as on any day; the peers run \
         at their defaults, without a rule, and their memory grows further than is seen here: Prometheus' until its first \
         block is cut after 2 to 3 hours. What Prometheus writes here is its log alone; blocks come on top (see the \
         disk below). A scrape adds five series of its own to those of a target, which peers count as well.",
        u64::from(AGENTS) * super::fleet::NODE_SERIES,
        u64::from(PUSHING) * super::fleet::NODE_SERIES,
        super::push::REQUEST_SAMPLES,
        seconds(MEASURED).as_secs(),
        WARM_UP.as_secs(),
    ));
    goal::table(&mut section, &goals(&ours, &scrapes, &pushes));
    let all: Vec<&Run> = ours.iter().chain(&scrapes).chain(&pushes).collect();
    let head = [
        "",
        "samples/s sent",
        "messages/s",
        "taken in, by its own count",
        "CPU s",
        "CPU µs/sample",
        "wire B/sample",
        "written B/sample",
        "RSS MiB (peak)",
        "RSS B/series",
        "checked",
    ];
    let rows: Vec<_> = all.iter().map(|run| run.row()).collect();
    section.table(head, &rows);
    section.publish("peers-ingest")
}

fn goals(ours: &[Run], scrapes: &[Run], pushes: &[Run]) -> Vec<Goal> {
    type Of = fn(&Watched) -> f64;
    let goal = |work: &str, unit, our: &Run, peers: Option<&[Run]>, of: Of, floor, reach| Goal {
        work: work.into(),
        unit,
        ours: of(&our.watched),
        peers: [0, 1].map(|n| Some(of(&peers?.get(n)?.watched))),
        floor,
        reach: Some(reach),
    };
    let [one, ten] = [&ours[0], &ours[1]];
    let (scrapes, pushes) = (Some(scrapes), Some(pushes));
    let cpu: Of = Watched::cpu_us;
    let wire: Of = Watched::wire_bytes;
    let peak: Of = Watched::peak_ratio;
    let rss: Of = Watched::rss_bytes_a_series;
    let written: Of = Watched::written_bytes;
    vec![
        goal(
            "ingest → durable, one tick a message; peers scrape",
            "CPU µs/sample",
            one,
            scrapes,
            cpu,
            Some(0.5),
            0.3,
        ),
        goal(
            "ingest → durable, ten ticks a message; peers scrape",
            "CPU µs/sample",
            ten,
            scrapes,
            cpu,
            Some(0.5),
            0.15,
        ),
        goal(
            "ingest → durable, one tick a message; peers take remote write",
            "CPU µs/sample",
            one,
            pushes,
            cpu,
            Some(0.5),
            0.3,
        ),
        goal(
            "wire, one tick a message; peers' text page",
            "B/sample",
            one,
            scrapes,
            wire,
            Some(3.0),
            1.2,
        ),
        goal(
            "wire, ten ticks a message; peers' remote write",
            "B/sample",
            ten,
            pushes,
            wire,
            Some(3.0),
            1.2,
        ),
        goal(
            "written to disk, one tick a message; peers scrape",
            "B/sample",
            one,
            scrapes,
            written,
            Some(5.0),
            4.0,
        ),
        goal(
            "written to disk, ten ticks a message; peers scrape",
            "B/sample",
            ten,
            scrapes,
            written,
            Some(5.0),
            4.0,
        ),
        goal(
            "resident memory, steady, one tick a message",
            "B/series",
            one,
            scrapes,
            rss,
            Some(1000.0),
            600.0,
        ),
        goal(
            "resident memory, steady, ten ticks a message",
            "B/series",
            ten,
            scrapes,
            rss,
            Some(1000.0),
            600.0,
        ),
        goal(
            "peak : steady memory, one tick a message",
            "×",
            one,
            scrapes,
            peak,
            None,
            1.3,
        ),
        goal(
            "peak : steady memory, ten ticks a message",
            "×",
            ten,
            scrapes,
            peak,
            None,
            1.3,
        ),
    ]
}

impl Run {
    fn row(&self) -> [String; 11] {
        let seen = &self.watched;
        [
            self.name.clone(),
            format!("{:.0}", seen.samples_a_second()),
            format!("{:.0}", seen.messages_a_second()),
            format!("{:.1} %", seen.counted / seen.samples() * 100.0),
            format!("{:.2}", seen.cpu_s()),
            format!("**{}**", number(seen.cpu_us())),
            number(seen.wire_bytes()),
            number(seen.written_bytes()),
            format!("{:.0} ({:.0})", seen.rss_mib(), seen.peak_rss_mib()),
            format!("{:.0}", seen.rss_bytes_a_series()),
            self.checked.clone(),
        ]
    }
}

fn our_own(batch_ticks: u32) -> Result<Run> {
    let dir = tempfile::tempdir_in("target")?;
    let server = Server::start(aggregator(dir.path().into())?)?;
    let plan = Plan {
        grpc: server.address("grpc")?.to_owned(),
        agents: AGENTS,
        interval_ms: INTERVAL_MS,
        batch_ticks,
        nodes: NODES,
        ticks: TICKS,
    };
    let backlog = Backlog::within(BACKLOG_TICKS / batch_ticks, BACKLOG_S);
    let mut load = Generator::start_as(SUBCOMMAND, &Load::Agents(plan, backlog))?;
    load.settle(BACKLOG_WITHIN)?;
    sleep(WARM_UP);
    let counted = || {
        let page = http::get(server.address("http")?, "/metrics")?;
        http::metric(&page, "entrenar_aggregator_samples_total").context("it counts samples")
    };
    let watched = watch(|| server.usage(), counted, &mut load, seconds(MEASURED))?;
    let last = load.stop()?;
    server.stop()?;
    ensure!(last.broken == 0, "{} connections broke", last.broken);
    Ok(Run {
        name: format!("entrenar, {batch_ticks} tick(s) a message"),
        watched,
        checked: format!(
            "{} of {} records durable",
            last.durable_records, last.records
        ),
    })
}

fn scrape(kind: Kind) -> Result<Run> {
    let dir = tempfile::tempdir_in("target")?;
    let address = free_address()?;
    let plan = ExporterPlan {
        address: address.clone(),
        agents: AGENTS,
        interval_ms: INTERVAL_MS,
        nodes: NODES,
        ticks: TICKS,
    };
    let load = Generator::start_as(SUBCOMMAND, &Load::Exporters(plan))?;
    let targets = Targets {
        address,
        nodes: AGENTS,
        interval_s: INTERVAL_MS / 1000,
    };
    let peer = Peer::start(kind, dir.path(), Some(&targets))?;
    measure(peer, load, "scrape")
}

fn push(kind: Kind) -> Result<Run> {
    let dir = tempfile::tempdir_in("target")?;
    let peer = Peer::start(kind, dir.path(), None)?;
    let plan = PushPlan {
        host: peer.address.clone(),
        path: RECEIVER.into(),
        agents: PUSHING,
        interval_ms: INTERVAL_MS,
        nodes: NODES,
        ticks: TICKS,
        what: What::Live,
    };
    let load = Generator::start_as(SUBCOMMAND, &Load::Push(plan))?;
    measure(peer, load, "remote write")
}

fn measure(peer: Peer, mut load: Generator, how: &str) -> Result<Run> {
    sleep(WARM_UP);
    let watched = watch(
        || peer.usage(),
        || peer.n_samples(),
        &mut load,
        seconds(MEASURED),
    )?;
    let now = entrenar::clock::now();
    let n_series = api::number(&peer, "count({__name__=~\"DCGM_.+\"})", now)?;
    let last = load.stop()?;
    let name = format!("{}, {how}", peer.kind.name());
    peer.stop()?;
    let late = match last.held_back {
        0 => String::new(),
        late => format!(", {late} ticks sent late"),
    };
    Ok(Run {
        name,
        watched,
        checked: format!("{n_series:.0} of {} series{late}", last.series),
    })
}
