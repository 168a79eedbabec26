//! What is left on disk of the same past, once each system has put it away for good.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use entrenar::unit::Timestamp;
use tempfile::TempDir;

use super::api;
use super::files::{self, Database};
use super::fleet::{METRICS, NODE_SERIES};
use super::goal::{self, Goal, number};
use super::orders::{Load, SUBCOMMAND};
use super::push::{Past, PushPlan, What};
use super::server::{KINDS, Kind, Peer, RECEIVER};
use crate::generator::Generator;
use crate::http;
use crate::load::{Backlog, Plan, Tally};
use crate::process::{Server, Usage, aggregator};
use crate::report::Section;

/// The past ended so long ago: every stretch of it is over.
const ENDED_AGO: Duration = Duration::from_hours(4);
/// What agents deliver of their spools, each, at most.
const RECORDS_A_SECOND: u32 = 3000;
/// How long a delivery may take on a busy machine.
const DELIVERED_WITHIN: Duration = Duration::from_mins(8);
/// After the last sample a late stretch is left alone for 10 s before it is sealed.
const SEALED_AFTER: Duration = Duration::from_secs(15);
/// Two minutes after a start the journal of what is sealed is forgotten, within another one free pages are given back.
const SETTLED_AFTER: Duration = Duration::from_secs(195);
/// How long Prometheus is left alone before its blocks are looked at: it compacts by itself.
const COMPACTED_AFTER: Duration = Duration::from_secs(20);
/// How long VictoriaMetrics may take to merge.
const MERGED_WITHIN: Duration = Duration::from_mins(2);

/// A past.
#[derive(Clone, Copy)]
struct Story {
    name: &'static str,
    nodes: u32,
    interval: Duration,
    ticks: u32,
}

const STORIES: [Story; 2] = [
    Story {
        name: "24 h at 15 s of 4 nodes",
        nodes: 4,
        interval: Duration::from_secs(15),
        ticks: 24 * 3600 / 15,
    },
    Story {
        name: "6 h at 1 s of 1 node",
        nodes: 1,
        interval: Duration::from_secs(1),
        ticks: 6 * 3600,
    },
];

/// A history profile of ours, and the goals that it has for everything but rollups.
struct Profile {
    name: &'static str,
    floor: f64,
    reach: f64,
}

const PROFILES: [Profile; 2] = [
    Profile {
        name: "exact",
        floor: 1.05,
        reach: 0.96,
    },
    Profile {
        name: "sensor",
        floor: 0.55,
        reach: 0.50,
    },
];

/// Rollups come on top, at most so much of the rest.
const ROLLUP_PERCENT: f64 = 10.0;

impl Story {
    fn samples(&self) -> f64 {
        f64::from(self.ticks) * f64::from(self.nodes) * NODE_SERIES as f64
    }
}

/// Measures all, one after the other.
pub fn run() -> Result<()> {
    let end = entrenar::clock::now() - ENDED_AGO;
    let mut ours = Vec::new();
    for story in STORIES {
        for profile in &PROFILES {
            println!("   ours, {}, {}", story.name, profile.name);
            ours.push(deliver(story, profile, end)?);
        }
    }
    let settling = Settling::start(&ours)?;
    let mut peers = Vec::new();
    for story in STORIES {
        for kind in KINDS {
            println!("   {}, {}", kind.name(), story.name);
            peers.push(push(kind, story, end)?);
        }
    }
    settling.stop()?;
    let ours = ours.into_iter().map(look).collect::<Result<Vec<_>>>()?;
    let mut section = Section::default();
    section.say(format!(
        "The same past of {} and of {}, which ended {} h ago. Ours: agents that were away deliver their spools, a tick a \
         record; when all is durable and late stretches are sealed the aggregator is stopped and started again; {} s later \
         its journal is forgotten but for the last minutes, in which there is no sample, and free pages were given back; \
         then it is stopped, the write-ahead log is folded into the file by a checkpoint, and the folder is measured in \
         full. Of that, free pages do not grow with history: SQLite uses them again, and up to 64 KiB and an eighth of the file stay \
         free, which is much of files as small as these. Prometheus: remote write in the order of time, then a snapshot by \
         its admin API (the head becomes a block): chunks, index and all else of the blocks. VictoriaMetrics: remote write, \
         `/internal/force_merge`, data and indexdb. Every count was checked at its end: rows of sealed chunks, or \
         `count_over_time` of every metric.",
        STORIES[0].name,
        STORIES[1].name,
        ENDED_AGO.as_secs() / 3600,
        SETTLED_AFTER.as_secs(),
    ));
    goal::table(&mut section, &goals(&ours, &peers));
    section.say("Ours, B/sample:");
    let head = [
        "",
        "folder as it was left",
        "with its log folded in",
        "chunks",
        "rollups",
        "journal",
        "all other pages",
        "free pages",
    ];
    let rows: Vec<_> = ours.iter().map(Ours::row).collect();
    section.table(head, &rows);
    section.say("On the way there:");
    let head = [
        "",
        "samples found",
        "CPU s",
        "CPU µs/sample",
        "wire B/sample",
        "written B/sample",
        "peak RSS MiB",
    ];
    let rows: Vec<_> = ours
        .iter()
        .map(|ours| ours.passage.row())
        .chain(peers.iter().map(|peer| peer.passage.row()))
        .collect();
    section.table(head, &rows);
    section.say("The peers, B/sample:");
    let rows: Vec<_> = peers.iter().map(Theirs::row).collect();
    section.table(["", "data", "index and all else"], &rows);
    section.publish("peers-disk")
}

fn goals(ours: &[Ours], peers: &[Theirs]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (n, our) in ours.iter().enumerate() {
        let (story, profile) = (n / PROFILES.len(), &PROFILES[n % PROFILES.len()]);
        let of_peer = |kind: usize| Some(peers.get(story * KINDS.len() + kind)?.bytes());
        let on_disk = |what: &str, bytes: u64| Goal {
            work: format!("{}: {what}", our.passage.name),
            unit: "B/sample",
            ours: our.bytes(bytes),
            peers: [of_peer(0), of_peer(1)],
            floor: Some(profile.floor),
            reach: Some(profile.reach),
        };
        let found = &our.found;
        goals.push(on_disk("all but rollups", found.all_but_rollups()));
        goals.push(on_disk("without free pages", found.lasting()));
        goals.push(Goal {
            work: "… rollups, of that".into(),
            unit: "%",
            ours: found.rollup_bytes as f64 / found.lasting() as f64 * 100.0,
            peers: [None, None],
            floor: None,
            reach: Some(ROLLUP_PERCENT),
        });
    }
    goals
}

/// What it took to bring the past there.
struct Passage {
    name: String,
    samples: f64,
    /// Samples that were found at the end.
    found: f64,
    usage: Usage,
    wire_bytes: u64,
}

impl Passage {
    fn row(&self) -> [String; 7] {
        let per_sample = |bytes: u64| number(bytes as f64 / self.samples);
        let cpu_s = self.usage.cpu().as_secs_f64();
        [
            self.name.clone(),
            format!("{:.0} of {:.0}", self.found, self.samples),
            format!("{cpu_s:.2}"),
            number(cpu_s * 1e6 / self.samples),
            per_sample(self.wire_bytes),
            per_sample(self.usage.written_bytes),
            format!("{:.0}", self.usage.peak_rss_bytes as f64 / 1024.0 / 1024.0),
        ]
    }
}

/// A database of ours at its end.
struct Ours {
    passage: Passage,
    found: Database,
}

impl Ours {
    fn bytes(&self, bytes: u64) -> f64 {
        bytes as f64 / self.passage.samples
    }

    fn row(&self) -> [String; 8] {
        let found = &self.found;
        let known = found.chunk_bytes + found.journal_bytes;
        let columns = [
            found.left_bytes,
            found.files_bytes,
            found.chunk_bytes,
            found.rollup_bytes,
            found.journal_bytes,
            found.lasting() - known,
            found.free_bytes,
        ];
        let [left, folder, chunks, rollups, journal, other, free] =
            columns.map(|bytes| number(self.bytes(bytes)));
        [
            self.passage.name.clone(),
            left,
            folder,
            chunks,
            rollups,
            journal,
            other,
            free,
        ]
    }
}

/// A delivery whose database is still to settle.
struct Delivered {
    dir: TempDir,
    passage: Passage,
}

/// Agents bring the past to an aggregator, which is stopped when it has sealed it.
fn deliver(story: Story, profile: &Profile, end: Timestamp) -> Result<Delivered> {
    let dir = tempfile::tempdir_in("target")?;
    let server = start(dir.path(), profile.name)?;
    let plan = Plan {
        grpc: server.address("grpc")?.to_owned(),
        agents: story.nodes,
        interval_ms: story.interval.as_millis() as u32,
        batch_ticks: 1,
        nodes: story.nodes,
        ticks: story.ticks,
    };
    let backlog = Backlog {
        records: story.ticks,
        records_a_second: RECORDS_A_SECOND,
        end_ms: Some(end.0),
    };
    let mut load = Generator::start_as(SUBCOMMAND, &Load::Agents(plan, backlog))?;
    load.settle(DELIVERED_WITHIN)?;
    let sent = load.stop()?;
    ensure!(
        sent.durable_records == sent.records,
        "not everything became durable: {sent:?}"
    );
    sleep(SEALED_AFTER);
    let passage = Passage {
        name: format!("entrenar, {}, `{}`", story.name, profile.name),
        samples: story.samples(),
        found: 0.0,
        usage: server.usage()?,
        wire_bytes: sent.bytes,
    };
    server.stop()?;
    Ok(Delivered { dir, passage })
}

fn start(dir: &Path, profile: &str) -> Result<Server> {
    let mut command = aggregator(dir.into())?;
    command.args(["--history-profile", profile]);
    Server::start(command)
}

/// Aggregators that were started again and have nothing to take in. They cost nearly nothing, so peers go on meanwhile.
struct Settling {
    servers: Vec<Server>,
    since: Instant,
}

impl Settling {
    fn start(delivered: &[Delivered]) -> Result<Self> {
        let profiles = PROFILES.iter().cycle();
        let again = delivered.iter().zip(profiles);
        let servers = again.map(|(one, profile)| start(one.dir.path(), profile.name));
        Ok(Self {
            servers: servers.collect::<Result<_>>()?,
            since: entrenar::clock::instant(),
        })
    }

    /// Ends them when nothing is left to do.
    fn stop(self) -> Result<()> {
        sleep(SETTLED_AFTER.saturating_sub(self.since.elapsed()));
        for server in self.servers {
            server.stop()?;
        }
        Ok(())
    }
}

fn look(Delivered { dir, mut passage }: Delivered) -> Result<Ours> {
    let found = files::inspect(dir.path())?;
    passage.found = (found.sealed_rows * METRICS.len() as u64) as f64;
    ensure!(
        (passage.found - passage.samples).abs() < 0.5,
        "{}: {} of {} samples are sealed",
        passage.name,
        passage.found,
        passage.samples
    );
    Ok(Ours { passage, found })
}

/// A peer's data at its end.
struct Theirs {
    passage: Passage,
    data_bytes: u64,
    other_bytes: u64,
}

impl Theirs {
    fn bytes(&self) -> f64 {
        (self.data_bytes + self.other_bytes) as f64 / self.passage.samples
    }

    fn row(&self) -> [String; 3] {
        let per_sample = |bytes: u64| number(bytes as f64 / self.passage.samples);
        [
            self.passage.name.clone(),
            per_sample(self.data_bytes),
            per_sample(self.other_bytes),
        ]
    }
}

fn push(kind: Kind, story: Story, end: Timestamp) -> Result<Theirs> {
    let dir = tempfile::tempdir_in("target")?;
    let peer = Peer::start(kind, dir.path(), None)?;
    let plan = PushPlan {
        host: peer.address.clone(),
        path: RECEIVER.into(),
        agents: story.nodes,
        interval_ms: story.interval.as_millis() as u32,
        nodes: story.nodes,
        ticks: story.ticks,
        what: What::Past(Past::whole(end.0, story.ticks)),
    };
    let mut load = Generator::start_as(SUBCOMMAND, &Load::Push(plan))?;
    load.settle(DELIVERED_WITHIN)?;
    let sent = load.stop()?;
    let (data_bytes, other_bytes) = match kind {
        Kind::Prometheus => snapshot(&peer)?,
        Kind::Victoria => merged(&peer)?,
    };
    let passage = passage(&peer, story, end, &sent)?;
    peer.stop()?;
    Ok(Theirs {
        passage,
        data_bytes,
        other_bytes,
    })
}

fn passage(peer: &Peer, story: Story, end: Timestamp, sent: &Tally) -> Result<Passage> {
    // Before the count, which costs as well.
    let usage = peer.usage()?;
    Ok(Passage {
        name: format!("{}, {}", peer.kind.name(), story.name),
        samples: story.samples(),
        found: api::count_samples(peer, "26h", end, sent.samples as f64)?,
        usage,
        wire_bytes: sent.bytes,
    })
}

/// Everything as blocks: chunks, and index with all else.
fn snapshot(peer: &Peer) -> Result<(u64, u64)> {
    sleep(COMPACTED_AFTER);
    let answer = http::post(&peer.address, "/api/v1/admin/tsdb/snapshot")?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let name = answer["data"]["name"]
        .as_str()
        .context("the snapshot has a name")?;
    let dir = peer.data.join("snapshots").join(name);
    let chunks = files::size_where(&dir, |file| {
        file.parent().is_some_and(|dir| dir.ends_with("chunks"))
    })?;
    Ok((chunks, files::size(&dir)? - chunks))
}

/// Everything merged: samples, and index.
fn merged(peer: &Peer) -> Result<(u64, u64)> {
    http::get(&peer.address, "/internal/force_flush")?;
    http::get(&peer.address, "/internal/force_merge")?;
    let began = entrenar::clock::instant();
    loop {
        sleep(Duration::from_secs(2));
        let page = http::get(&peer.address, "/metrics")?;
        let active = http::metric(&page, "vm_active_force_merges").context("it counts merges")?;
        if active == 0.0 {
            break;
        }
        ensure!(
            began.elapsed() < MERGED_WITHIN,
            "VictoriaMetrics merges for too long"
        );
    }
    // Parts that were merged are removed a moment later.
    sleep(Duration::from_secs(5));
    let (data, index) = (peer.data.join("data"), peer.data.join("indexdb"));
    Ok((files::size(&data)?, files::size(&index)?))
}
