//! Troubles of a whole rack, and of several things at once. *(pure)*

use super::Case;
use super::Expect::Page;
use super::slow::slow_down;
use crate::sim::effect::What;
use crate::sim::job::{SimMillis, Workload};

use crate::sim::score::Beat;
use crate::sim::stage::{Draft, JobRef, LOSS_SIDE, LabelSeverity, Silence, Stage};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "L4",
        Page,
        "a rack is cut off: its nodes fall silent at once, and their jobs' other ranks spin",
        partition,
    )
    .needs(3_000),
    Case::new(
        "C1",
        Page,
        "a rack's cooling fails: software slows its GPUs down, then hardware does",
        cooling,
    )
    .needs(4_200),
    Case::new(
        "C2",
        Page,
        "congestion slows a job down, and then a hot GPU does on top of it",
        compound,
    )
    .needs(5_400),
];

fn partition(stage: &mut Stage) {
    let jobs: Vec<JobRef> = (0..2).map(|_| stage.training(4)).collect();
    let at = stage.moment(0.35, 0.6);
    let to = at + stage.span(620.0, 800.0);
    // Half of each job's nodes stand in the rack.
    let mut rack = Vec::new();
    for &job in &jobs {
        let nodes = stage.nodes_of(job);
        rack.extend(&nodes[..2]);
    }
    let name = format!("cut-{}", rack[0] + 1);
    stage.hang_together("rack", &name, &rack);
    stage.hang_together("switch", &name, &rack);
    for &node in &rack {
        let begins = at + stage.span(0.0, 0.4);
        stage.silence(node, begins, to, Silence::Cut);
    }
    let mut label = Draft::new("L4", &["NetworkFault", "NodeLost"], LabelSeverity::Critical)
        .lasts(at, to)
        .blamed_nodes(&rack)
        .due(90.0)
        .related(&LOSS_SIDE)
        .related(&["NodeFlapping", "CoolingFailure"]);
    for &job in &jobs {
        let waits = at + stage.span(0.3, 2.0);
        stage.score(job).set(waits, to, Beat::Spin);
        stage.finish(job, to);
        label = label.in_job(stage, job);
    }
    stage.sign(label);
}

fn cooling(stage: &mut Stage) {
    let sizes = stage.dice.pick(&[[2, 2], [4, 4], [1, 3]]);
    let mut jobs = Vec::new();
    for nodes in sizes {
        let taken = stage.take(nodes);
        let workload = stage.dice.pick(&[Workload::Sharded, Workload::Experts]);
        jobs.push(stage.job(workload, stage.all_of(&taken)));
    }
    let nodes: Vec<u32> = jobs.iter().flat_map(|&job| stage.nodes_of(job)).collect();
    let name = format!("warm-{}", nodes[0] + 1);
    stage.hang_together("rack", &name, &nodes);
    let from = stage.moment(0.42, 0.55);
    let software = from + stage.span(420.0, 540.0);
    let hardware = software + stage.span(150.0, 300.0);
    let to = (from + stage.span(1_300.0, 1_800.0)).min(stage.end());
    let kelvin = stage.dice.between(31.0, 36.0);
    let board = stage.board();
    let shares = (stage.dice.between(0.75, 0.9), stage.dice.between(0.45, 0.6));
    for gpu in stage.all_of(&nodes) {
        let own = stage.span(-25.0, 25.0);
        let warm = What::Warm {
            kelvin,
            ramp_ms: software - from,
        };
        stage.strike(gpu, from, software + own, warm);
        let soft = What::Throttled {
            celsius: board.max_operating_celsius + 0.5,
            share: shares.0,
            by_hardware: false,
        };
        stage.strike(gpu, software + own, hardware + own, soft);
        let hard = What::Throttled {
            celsius: board.slowdown_celsius + 0.8,
            share: shares.1,
            by_hardware: true,
        };
        stage.strike(gpu, hardware + own, to, hard);
    }
    let mut label = Draft::new(
        "C1",
        &["CoolingFailure", "ThermalThrottling"],
        LabelSeverity::Critical,
    )
    .lasts(from, to)
    .blamed_nodes(&nodes)
    .due((hardware - from) as f64 / 1e3 + 90.0)
    .related(&LOSS_SIDE)
    .related(&[
        "NodeLost",
        "ThermalDrift",
        "GpuLost",
        "PowerBrake",
        "NodeFlapping",
        "ThermalThrottling",
    ]);
    for &job in &jobs {
        label = label.in_job(stage, job);
    }
    stage.sign(label);
}

fn compound(stage: &mut Stage) {
    let taken = stage.take(4);
    let job = stage.job(Workload::Sharded, stage.all_of(&taken));
    let from = stage.moment(0.2, 0.28);
    let to = from + stage.span(2_000.0, 2_800.0).min(stage.end() - from);
    let speed = stage.dice.between(0.3, 0.5);
    slow_down(stage, job, from, to, speed, (0, 0));
    let label = Draft::new(
        "C2 congestion",
        &["JobSlow", "NetworkFault"],
        LabelSeverity::Warning,
    )
    .lasts(from, to)
    .whole_job(stage, job)
    .due(600.0)
    .related(&["JobStall", "Straggler"]);
    stage.sign(label);

    let hot = from + stage.span(900.0, 1_200.0);
    let cools: SimMillis = (hot + stage.span(900.0, 1_300.0)).min(stage.end());
    let (rank, gpu) = stage.any_rank(job);
    let board = stage.board();
    let warm = What::Warm {
        kelvin: 24.0,
        ramp_ms: 120_000,
    };
    stage.strike(gpu, hot - 120_000, hot, warm);
    let throttled = What::Throttled {
        celsius: board.slowdown_celsius + 0.4,
        share: 0.5,
        by_hardware: true,
    };
    stage.strike(gpu, hot, cools, throttled);
    let beat = Beat::Slowed {
        speed: speed * 0.5,
        late: (rank, rank + 1),
    };
    stage.score(job).set(hot, cools.min(to), beat);
    let label = Draft::new(
        "C2 hot",
        &["ThermalThrottling", "Straggler"],
        LabelSeverity::Critical,
    )
    .lasts(hot, cools)
    .in_job(stage, job)
    .blamed_gpu(gpu)
    .due(150.0)
    .related(&["JobSlow", "ThermalDrift"]);
    stage.sign(label);
}
