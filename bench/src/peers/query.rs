//! Questions about 10,000 GPUs and about six hours of one: what each costs the server.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use entrenar::clock::now;
use entrenar::unit::Timestamp;

use super::api;
use super::ask::{Asked, Cost};
use super::fleet::{METRICS, simulate};
use super::goal::{self, Goal};
use super::history::{self, History};
use super::labels;
use super::orders::{self, Load, SUBCOMMAND};
use super::push::{Past, PushPlan, What};
use super::server::{KINDS, Kind, Peer, RECEIVER};
use crate::generator::Generator;
use crate::http;
use crate::load::{Backlog, Plan};
use crate::process::{Server, aggregator};
use crate::report::Section;

/// 10,000 GPUs, and the different nodes behind them.
const AGENTS: u32 = 1250;
const NODES: u32 = 16;
/// Ticks of each that we are given, at 1 s.
const OUR_TICKS: u32 = 720;
/// What peers are given of all GPUs, and what of the first node, in all metrics, at 15 s.
const STEP_S: u32 = 15;
const FLEET_TICKS: u32 = 3600 / STEP_S + 1;
const NODE_TICKS: u32 = 6 * 3600 / STEP_S + 1;
/// Of all GPUs the peers have these, where we have all metrics that are compared.
const FLEET_METRICS: [&str; 3] = [
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_UTIL",
];
/// A little more than is asked for, so that what is asked for is there in full.
const NODE_HISTORY: Duration = Duration::from_mins(6 * 60 + 10);
const FLEET_HISTORY: Duration = Duration::from_mins(70);
/// A node beyond the fleet, which was sampled as the peers' is.
const SLOW_NODE: u32 = AGENTS;
/// History that is not stored when agents connect: with the time that it takes to write the rest, as long as a stretch, so that
/// open stretches are as full as on any day.
const OPEN: Duration = Duration::from_mins(11);
/// Seconds in which agents deliver it, and how long we wait for that.
const BACKLOG_S: u32 = 96;
const BACKLOG_WITHIN: Duration = Duration::from_mins(8);
/// Long enough for stretches that are over to be sealed, and their sums to be laid together.
const WARM_UP: Duration = Duration::from_mins(2);
const PUSHED_WITHIN: Duration = Duration::from_mins(8);

/// A question to us and to them, and its goals in milliseconds.
struct Question {
    name: &'static str,
    floor: Option<f64>,
    reach: Option<f64>,
    ours: String,
    theirs: fn(&Theirs) -> String,
}

/// What a question to a peer is about.
struct Theirs {
    end: Timestamp,
    uuid: String,
}

impl Theirs {
    fn instant(&self, expression: &str) -> String {
        api::instant(expression, self.end)
    }

    fn last(&self, length: Duration, expression: &str) -> String {
        api::range(expression, self.end - length, self.end, STEP_S)
    }

    fn six_hours(&self, selector: &str) -> String {
        let selector = selector.replace("UUID", &format!("UUID=\"{}\"", self.uuid));
        self.last(Duration::from_hours(6), &selector)
    }
}

const HOUR: Duration = Duration::from_hours(1);

/// A GPU that was sampled each second, and one that was sampled as the peers' is.
struct Names {
    fast: String,
    slow: String,
}

fn questions(Names { fast, slow }: &Names) -> Vec<Question> {
    let query = |words: &str| format!("/api/v1/query?metric={words}");
    let series = |uuid: &str, metrics: &str| {
        format!("/api/v1/series?uuid={uuid}&metric={metrics}&from=-6h&step={STEP_S}s")
    };
    let defs = METRICS.iter().filter_map(|metric| metric.id.def());
    let all_metrics: Vec<_> = defs.map(|def| def.name).collect();
    vec![
        Question {
            name: "instant, hottest of 10,000 GPUs by node",
            floor: Some(5.0),
            reach: Some(1.0),
            ours: query("temperature_celsius&by=node&agg=max"),
            theirs: |t| t.instant("max by (Hostname) (DCGM_FI_DEV_GPU_TEMP)"),
        },
        Question {
            name: "instant, all 10,000 GPUs as JSON",
            floor: Some(30.0),
            reach: Some(10.0),
            ours: query("temperature_celsius"),
            theirs: |t| t.instant("DCGM_FI_DEV_GPU_TEMP"),
        },
        Question {
            name: "mean of the fleet over 1 h, 10,000 GPUs (ours at 1 s, peers at 15 s)",
            floor: Some(60.0),
            reach: Some(15.0),
            ours: query("power_watts&fn=mean&window=1h&agg=mean"),
            theirs: |t| t.instant("avg(avg_over_time(DCGM_FI_DEV_POWER_USAGE[1h]))"),
        },
        Question {
            name: "mean of the fleet over 1 h by the minute",
            floor: None,
            reach: None,
            ours: query("power_watts&agg=mean&from=-1h&step=1m"),
            theirs: |t| {
                let expression = "avg(avg_over_time(DCGM_FI_DEV_POWER_USAGE[1m]))";
                api::range(expression, t.end - HOUR, t.end, 60)
            },
        },
        Question {
            name: "6 h of one GPU by 15 s, one metric, sampled at 15 s",
            floor: Some(1.5),
            reach: Some(0.5),
            ours: series(slow, "power_watts"),
            theirs: |t| t.six_hours("DCGM_FI_DEV_POWER_USAGE{UUID}"),
        },
        Question {
            name: "6 h of one GPU by 15 s, 24 metrics, sampled at 15 s",
            floor: Some(10.0),
            reach: Some(3.0),
            ours: series(slow, &all_metrics.join(",")),
            theirs: |t| t.six_hours("{UUID,__name__=~\"DCGM_.+\"}"),
        },
        Question {
            name: "6 h of one GPU by 15 s, one metric (ours sampled at 1 s, peers at 15 s)",
            floor: Some(1.5),
            reach: Some(0.5),
            ours: series(fast, "power_watts"),
            theirs: |t| t.six_hours("DCGM_FI_DEV_POWER_USAGE{UUID}"),
        },
        Question {
            name: "6 h of one GPU by 15 s, 24 metrics (ours sampled at 1 s, peers at 15 s)",
            floor: Some(10.0),
            reach: Some(3.0),
            ours: series(fast, &all_metrics.join(",")),
            theirs: |t| t.six_hours("{UUID,__name__=~\"DCGM_.+\"}"),
        },
    ]
}

/// Measures all, one after the other.
pub fn run() -> Result<()> {
    println!("   ours");
    let (names, ours) = our_own()?;
    let mut peers = Vec::new();
    for kind in KINDS {
        println!("   {}", kind.name());
        peers.push(of_peer(kind, &names)?);
    }
    let mut section = Section::default();
    section.say(format!(
        "CPU of the server's process a question, less what it spends without one, over questions asked one after the other for 4 s, \
         a connection each; their median wall time. Ours: {} GPUs that report {} metrics at 1 Hz meanwhile, with {} min of \
         history at 1 s each, the last stretch of each open, and {} h of the first node; one more node has {} h at {STEP_S} s. The peers take in nothing meanwhile, and hold {} metrics of the \
         {} GPUs for 1 h and all {} of the first node for 6 h, at {STEP_S} s, brought by remote write and counted; \
         VictoriaMetrics is asked not to answer from its cache of results (`nocache=1`).",
        AGENTS * 8,
        METRICS.len(),
        FLEET_HISTORY.as_secs() / 60,
        NODE_HISTORY.as_secs() / 3600,
        NODE_HISTORY.as_secs() / 3600,
        FLEET_METRICS.len(),
        AGENTS * 8,
        METRICS.len(),
    ));
    let questions = questions(&names);
    let goals: Vec<_> = questions
        .iter()
        .enumerate()
        .map(|(n, question)| Goal {
            work: question.name.into(),
            unit: "CPU ms",
            ours: ours[n].cpu_ms,
            peers: [0, 1].map(|peer: usize| Some(peers[peer][n].cpu_ms)),
            floor: question.floor,
            reach: question.reach,
        })
        .collect();
    goal::table(&mut section, &goals);
    let cell = |cost: &Cost| {
        let kib = cost.answer_bytes as f64 / 1024.0;
        format!("{:.1} ms, {kib:.0} KiB, {}×", cost.wall_ms, cost.times)
    };
    let rows: Vec<_> = questions
        .iter()
        .enumerate()
        .map(|(n, q)| {
            [
                q.name.into(),
                cell(&ours[n]),
                cell(&peers[0][n]),
                cell(&peers[1][n]),
            ]
        })
        .collect();
    section.table(
        [
            "wall time, answer, times asked",
            "ours",
            "Prometheus",
            "VictoriaMetrics",
        ],
        &rows,
    );
    section.publish("peers-query")
}

fn our_own() -> Result<(Names, Vec<Cost>)> {
    let dir = tempfile::tempdir_in("target")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reels = simulate(NODES, OUR_TICKS, Duration::from_secs(1))?;
    let (second, step) = (Duration::from_secs(1), Duration::from_secs(STEP_S.into()));
    let history = |nodes, interval, length| History {
        nodes,
        interval,
        length,
    };
    let histories = [
        history(0..1, second, NODE_HISTORY),
        history(1..AGENTS, second, FLEET_HISTORY),
        history(SLOW_NODE..SLOW_NODE + 1, step, NODE_HISTORY),
    ];
    let database = dir.path().join("entrenar.db");
    // The last stretches come from the agents' spools: a stretch is not stored before it is over.
    let to = now() - OPEN;
    runtime.block_on(history::fill(&database, &histories, to, &reels))?;
    let name = |number| {
        let (reel, copy) = orders::reel_of(number, reels.len());
        labels::uuid(copy, &reels[reel].gpus[0])
    };
    let names = Names {
        fast: name(0),
        slow: name(SLOW_NODE),
    };
    drop(reels);
    let server = Server::start(aggregator(dir.path().into())?)?;
    let plan = Plan {
        grpc: server.address("grpc")?.to_owned(),
        agents: AGENTS,
        interval_ms: 1000,
        batch_ticks: 1,
        nodes: NODES,
        ticks: OUR_TICKS,
    };
    let backlog = Backlog::within(now().since(to).as_secs() as u32, BACKLOG_S);
    let mut load = Generator::start_as(SUBCOMMAND, &Load::Agents(plan, backlog))?;
    load.settle(BACKLOG_WITHIN)?;
    sleep(WARM_UP);
    let usage = || server.usage();
    let address = server.address("http")?;
    let page = http::get(address, "/api/v1/query?metric=power_watts&agg=count")?;
    ensure!(page.contains("10000"), "not all GPUs are here: {page}");
    let asked = Asked::new(address, &usage)?;
    let costs = questions(&names)
        .iter()
        .map(|q| asked.ask(&q.ours))
        .collect::<Result<_>>()?;
    load.stop()?;
    server.stop()?;
    Ok((names, costs))
}

fn of_peer(kind: Kind, names: &Names) -> Result<Vec<Cost>> {
    let dir = tempfile::tempdir_in("target")?;
    let peer = Peer::start(kind, dir.path(), None)?;
    let theirs = Theirs {
        end: Timestamp(now().0 / 1000 * 1000),
        uuid: names.fast.clone(),
    };
    fill(&peer, theirs.end)?;
    let usage = || peer.usage();
    let asked = Asked::new(&peer.address, &usage)?;
    let ask = |question: &Question| asked.ask(&(question.theirs)(&theirs));
    let costs = questions(names).iter().map(ask).collect();
    peer.stop()?;
    costs
}

/// Brings a peer its data, and counts it.
fn fill(peer: &Peer, end: Timestamp) -> Result<()> {
    let ids = FLEET_METRICS.map(|name| {
        let metric = METRICS.iter().find(|metric| metric.dcgm == name);
        metric.map(|metric| metric.id.0)
    });
    let plan = PushPlan {
        host: peer.address.clone(),
        path: RECEIVER.into(),
        agents: AGENTS,
        interval_ms: STEP_S * 1000,
        nodes: NODES,
        ticks: NODE_TICKS,
        what: What::Past(Past {
            end_ms: end.0,
            ticks: NODE_TICKS,
            only: Some(ids.into_iter().flatten().collect()),
            others_ticks: FLEET_TICKS,
        }),
    };
    let mut load = Generator::start_as(SUBCOMMAND, &Load::Push(plan))?;
    load.settle(PUSHED_WITHIN)?;
    let sent = load.stop()?;
    let samples = sent.samples as f64;
    let found = api::count_samples(peer, "7h", end, samples).context("could not count")?;
    ensure!(
        (found - samples).abs() < 0.5,
        "{} holds {found} of {} samples",
        peer.kind.name(),
        sent.samples
    );
    Ok(())
}
