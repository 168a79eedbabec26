//! Nodes that fall silent, and agents that do. *(pure)*

use super::Case;
use super::Expect::{Page, Warning};
use crate::sim::activity::BLOCKED;
use crate::sim::effect::What;
use crate::sim::job::SimMillis;
use crate::sim::plan::FOREVER;
use crate::sim::score::Beat;
use crate::sim::stage::{Draft, JobRef, LOSS_SIDE, LabelSeverity, Silence, Stage};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "L1",
        Page,
        "a node loses its power; its job's other ranks spin",
        node_lost,
    ),
    Case::new(
        "L2",
        Warning,
        "an agent crashes; its node works on",
        agent_crashes,
    ),
    Case::new(
        "L3",
        Page,
        "a node is half dead: every call for its GPUs blocks",
        half_dead,
    ),
    Case::new(
        "flap",
        Warning,
        "a node is gone and back, again and again",
        flapping,
    ),
    Case::new(
        "blackout",
        Warning,
        "no agent is heard of for minutes, and all are back",
        blackout,
    )
    .takes_all(),
];

fn job_over_nodes(stage: &mut Stage) -> (JobRef, u32) {
    let nodes = stage.dice.pick(&[1, 2, 4, 8]);
    let job = stage.training(nodes);
    let nodes = stage.nodes_of(job);
    (job, stage.dice.pick(&nodes))
}

/// A node is gone for good, and its job with it. Returns the label's draft.
pub(super) fn lose(stage: &mut Stage, job: JobRef, node: u32, at: SimMillis) {
    stage.silence(node, at, FOREVER, Silence::Death);
    let (first, _) = stage.ranks_on(job, node);
    let notices = at + stage.span(0.4, 2.0);
    let beat = Beat::Held {
        culprit: first,
        state: BLOCKED,
    };
    stage.hang(job, notices, beat);
}

fn node_lost(stage: &mut Stage) {
    let (job, node) = job_over_nodes(stage);
    let at = stage.moment(0.35, 0.6);
    lose(stage, job, node, at);
    let label = Draft::new("L1", &["NodeLost"], LabelSeverity::Critical)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_nodes(&[node])
        .due(75.0)
        .related(&LOSS_SIDE)
        .related(&["NodeFlapping", "GpuLost"]);
    stage.sign(label);
}

fn agent_crashes(stage: &mut Stage) {
    let (job, node) = {
        let nodes = stage.dice.pick(&[2, 4]);
        let job = stage.training(nodes);
        let nodes = stage.nodes_of(job);
        (job, stage.dice.pick(&nodes))
    };
    let at = stage.moment(0.3, 0.6);
    let to = at + stage.span(400.0, 700.0);
    stage.silence(node, at, to, Silence::Death);
    let label = Draft::new(
        "L2",
        &["MonitoringFault", "NodeLost"],
        LabelSeverity::Warning,
    )
    .lasts(at, to)
    .in_job(stage, job)
    .blamed_nodes(&[node])
    .due(150.0)
    .related(&[
        "NodeFlapping",
        "Straggler",
        "PartialUse",
        "JobStall",
        "NetworkFault",
    ]);
    stage.sign(label);
}

fn half_dead(stage: &mut Stage) {
    let (job, node) = job_over_nodes(stage);
    let at = stage.moment(0.35, 0.6);
    for gpu in 0..stage.setting.gpus_per_node {
        stage.strike((node, gpu), at, FOREVER, What::Silent);
    }
    let (first, _) = stage.ranks_on(job, node);
    let notices = at + stage.span(0.4, 2.0);
    let beat = Beat::Held {
        culprit: first,
        state: BLOCKED,
    };
    stage.hang(job, notices, beat);
    let label = Draft::new(
        "L3",
        &["GpuUnresponsive", "NodeLost"],
        LabelSeverity::Critical,
    )
    .lasts(at, stage.end())
    .in_job(stage, job)
    .blamed_nodes(&[node])
    .due(120.0)
    .related(&LOSS_SIDE)
    .related(&["GpuLost", "SensorFault", "NodeFlapping", "Xid"]);
    stage.sign(label);
}

fn flapping(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2]);
    let job = stage.training(nodes);
    let nodes = stage.nodes_of(job);
    let node = stage.dice.pick(&nodes);
    let from = stage.moment(0.2, 0.4);
    let mut at = from;
    let mut third = from;
    let mut to = from;
    for n in 0..stage.dice.whole(4, 6) {
        to = at + stage.span(25.0, 50.0);
        stage.silence(node, at, to, Silence::Cut);
        if n == 2 {
            third = to;
        }
        at = to + stage.span(40.0, 100.0);
    }
    let label = Draft::new(
        "flap",
        &["NodeFlapping", "NodeLost"],
        LabelSeverity::Warning,
    )
    .lasts(from, to)
    .in_job(stage, job)
    .blamed_nodes(&[node])
    .due((third - from) as f64 / 1e3 + 90.0)
    .related(&["MonitoringFault", "NetworkFault", "JobStall"]);
    stage.sign(label);
}

/// The way to the centre is cut for everyone; nothing is wrong with any node.
fn blackout(stage: &mut Stage) {
    let at = stage.moment(0.35, 0.65);
    let to = at + stage.span(120.0, 280.0);
    let nodes: Vec<u32> = (0..stage.n_nodes()).collect();
    for &node in &nodes {
        let begins = at + stage.span(0.0, 1.0);
        let ends = to + stage.span(0.0, 12.0);
        stage.silence(node, begins, ends, Silence::Cut);
    }
    let label = Draft::new("blackout", &["MonitoringFault"], LabelSeverity::Warning)
        .lasts(at, to)
        .nodes(&nodes)
        .fleet()
        .due(((to - at) as f64 / 1e3).max(180.0))
        .related(&["NetworkFault"]);
    stage.sign(label);
}
