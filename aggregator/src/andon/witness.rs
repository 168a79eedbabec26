//! What the peers of a silent node tell of it. *(pure)*
//!
//! A node that dies takes its jobs along: their GPUs on other nodes wait busily within a second or two. If only its
//! agent died, they work on. A pause that began long before the silence, or long after, says nothing.

use std::collections::BTreeSet;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

use super::Presence;
use super::fleet::{Fleet, Job, Node};
use super::gpu::Gpu;
use super::pulse::Activity;

/// Most jobs of the silent nodes that are asked, and most GPUs of each: more would not tell more.
const MOST_JOBS: usize = 64;
const MOST_PEERS: usize = 64;
/// Most other nodes that are asked where no job is known.
const MOST_NODES: usize = 512;
/// … of which one must have stopped for so many silent ones.
const SILENT_FOR_A_STOPPED: usize = 4;
/// From this many silent nodes on, one job that stopped is not enough.
const MANY_SILENT: usize = 3;
/// Clocks differ by a little.
const BEFORE_MS: i64 = 1500;
/// How long it takes from a node's last word until its peers are seen to stop: an interval until it dies, one until
/// they speak, and one that may be missed; and so long until their power has fallen.
const AFTER_INTERVALS: i64 = 3;
const AFTER_MS: i64 = 4000;

/// What the peers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// All of them stopped as the node fell silent, and wait busily.
    Stopped,
    /// Most of them stopped then.
    Wavers,
    /// They work on.
    GoesOn,
    /// There are none, or nothing can be told from them.
    Nothing,
}

impl Witness {
    /// In words, for a finding.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Stopped => "its jobs stopped with it on other nodes",
            Self::Wavers => "most of its jobs' GPUs on other nodes stopped with it",
            Self::GoesOn => "its jobs work on on other nodes",
            Self::Nothing => "no job of it on other nodes tells",
        }
    }
}

/// When silent nodes were last heard of: the first of them and the last.
#[derive(Clone, Copy)]
pub(super) struct Silence {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

/// How the peers of one job stand.
#[derive(Default)]
struct Tally {
    known: usize,
    /// They work, or stopped too late for it to be the node's doing.
    went_on: usize,
    stopped: usize,
    stopped_spinning: usize,
}

impl Tally {
    fn add(&mut self, gpu: &Gpu, interval_ms: i64, silence: Silence) {
        let Some(doing) = gpu.pulse.activity else {
            return;
        };
        // It must have said something since.
        if gpu.last_tick.is_none_or(|at| at.0 - silence.last.0 < 1000) {
            return;
        }
        self.known += 1;
        let Some(quiet) = gpu.pulse.quiet_since else {
            self.went_on += 1;
            return;
        };
        let latest = silence.last.0 + AFTER_INTERVALS * interval_ms + AFTER_MS;
        if quiet.0 > latest {
            self.went_on += 1;
        } else if quiet.0 >= silence.first.0 - BEFORE_MS {
            self.stopped += 1;
            self.stopped_spinning += usize::from(doing == Activity::Spin);
        }
    }

    fn witness(&self) -> Witness {
        if self.known == 0 {
            Witness::Nothing
        } else if self.stopped_spinning == self.known {
            Witness::Stopped
        } else if self.stopped * 10 >= self.known * 8 {
            Witness::Wavers
        } else if self.went_on * 2 >= self.known {
            Witness::GoesOn
        } else {
            Witness::Nothing
        }
    }
}

/// What is told of nodes that are silent.
pub(super) fn witness(fleet: &Fleet, silent: &BTreeSet<NodeId>, silence: Silence) -> Witness {
    let jobs = jobs_on(fleet, silent);
    if jobs.is_empty() {
        return without_jobs(fleet, silent, silence);
    }
    let (mut stopped, mut wavers, mut go_on) = (0, 0, 0);
    for job in jobs.iter().filter_map(|name| fleet.jobs.get(*name)) {
        match of_job(fleet, job, silent, silence) {
            Witness::Stopped => stopped += 1,
            Witness::Wavers => wavers += 1,
            Witness::GoesOn => go_on += 1,
            Witness::Nothing => {}
        }
    }
    match (stopped, wavers, go_on) {
        // None of them has GPUs elsewhere that tell: they may be parts of one that nobody names.
        (0, 0, 0) => without_jobs(fleet, silent, silence),
        (stopped, wavers, go_on) if go_on >= stopped + wavers => Witness::GoesOn,
        (0, ..) => Witness::Wavers,
        // Of many nodes, one job alone may pause by itself just then.
        (1, ..) if silent.len() >= MANY_SILENT => Witness::Wavers,
        (_, _, 0) => Witness::Stopped,
        _ => Witness::Wavers,
    }
}

/// The jobs that hold GPUs of these nodes.
fn jobs_on<'a>(fleet: &'a Fleet, silent: &BTreeSet<NodeId>) -> BTreeSet<&'a str> {
    let mut jobs = BTreeSet::new();
    let nodes = silent.iter().filter_map(|id| fleet.nodes.get(id));
    for gpu in nodes.flat_map(|node| &node.gpus) {
        if jobs.len() < MOST_JOBS
            && let Some(holder) = gpu.holder()
        {
            jobs.insert(holder.job.as_str());
        }
    }
    jobs
}

fn of_job(fleet: &Fleet, job: &Job, silent: &BTreeSet<NodeId>, silence: Silence) -> Witness {
    let mut tally = Tally::default();
    let elsewhere = job
        .members
        .iter()
        .filter(|(_, node)| !silent.contains(*node));
    for (uuid, node) in elsewhere {
        if tally.known >= MOST_PEERS {
            break;
        }
        if let Some(node) = fleet.nodes.get(node).filter(|node| is_live(node))
            && let Some(gpu) = node.gpu(uuid)
        {
            tally.add(gpu, node.interval_ms, silence);
        }
    }
    tally.witness()
}

/// Where no job is known: another node whose GPUs all stopped at that moment belonged with the silent ones, likely. Some
/// node or other stops at any moment: for many silent ones, many must have.
fn without_jobs(fleet: &Fleet, silent: &BTreeSet<NodeId>, silence: Silence) -> Witness {
    let nodes = silent.iter().filter_map(|id| fleet.nodes.get(id));
    if !nodes.into_iter().any(Node::is_busy) {
        return Witness::Nothing;
    }
    let others = fleet
        .nodes
        .iter()
        .filter(|(id, node)| !silent.contains(*id) && is_live(node));
    let stopped = others.take(MOST_NODES).filter(|(_, node)| {
        let mut tally = Tally::default();
        for gpu in &node.gpus {
            tally.add(gpu, node.interval_ms, silence);
        }
        tally.witness() == Witness::Stopped
    });
    let enough = silent.len().div_ceil(SILENT_FOR_A_STOPPED);
    if stopped.take(enough).count() == enough {
        Witness::Wavers
    } else {
        Witness::Nothing
    }
}

fn is_live(node: &Node) -> bool {
    matches!(node.presence, Presence::Live | Presence::Late)
}
