//! Jobs that go on, slower than they could: one GPU, one host, one link, or the whole network. *(pure)*

use super::Case;
use super::Expect::{Nothing, Page, Warning};
use crate::metric;
use crate::sim::effect::What;
use crate::sim::job::{SimMillis, Workload};
use crate::sim::score::Beat;
use crate::sim::stage::{Checkpoints, Draft, JobRef, LabelSeverity, Stage};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "S1",
        Page,
        "a GPU gets too hot, its hardware cuts its clocks, and the job waits for it",
        hot_hardware,
    ),
    Case::new(
        "S1-sw",
        Warning,
        "a GPU gets warm, software slows it down, and the job waits for it",
        hot_software,
    ),
    Case::new(
        "S2",
        Page,
        "a power supply asks a node for a brake: half the clocks",
        power_brake,
    ),
    Case::new(
        "S3",
        Page,
        "a PCIe link falls from 16 lanes to 4",
        narrow_link,
    ),
    Case::new(
        "S3-gen",
        Warning,
        "a PCIe link under load falls to generation 1 or 2",
        slow_link,
    ),
    Case::new(
        "S4",
        Warning,
        "another process takes a node's CPUs in spells of minutes",
        busy_host,
    ),
    Case::new(
        "S5",
        Warning,
        "the network is congested: a whole job slows down, and nobody in it is to blame",
        congestion,
    )
    .needs(3_600),
    Case::new(
        "S6",
        Warning,
        "somebody lowered one GPU's power limit",
        lowered_limit,
    ),
    Case::new(
        "S7",
        Nothing,
        "a job is unbalanced by itself, from its start",
        unbalanced,
    ),
    Case::new("S8", Warning, "a GPU is slow and gives no reason", slow_gpu),
];

/// A job that all ranks of must wait for its slowest.
fn synchronous(stage: &mut Stage) -> JobRef {
    let nodes = stage.dice.pick(&[1, 2, 4, 4]);
    let taken = stage.take(nodes);
    let workload = stage.dice.pick(&[
        Workload::DataParallel,
        Workload::Sharded,
        Workload::SmallSteps,
        Workload::Accumulated,
    ]);
    let job = stage.job(workload, stage.all_of(&taken));
    let checkpoints = Checkpoints {
        every_ms: stage.span(700.0, 1_800.0),
        lasts_ms: stage.span(20.0, 115.0),
        anchor_ms: stage.moment(0.0, 1.0),
    };
    stage.checkpoints(job, checkpoints);
    job
}

/// A job that is slow while it lasts, but for its pauses. `late`: the ranks for which the others wait.
pub(super) fn slow_down(
    stage: &mut Stage,
    job: JobRef,
    from: SimMillis,
    to: SimMillis,
    speed: f64,
    late: (u32, u32),
) {
    let bars: Vec<_> = stage.score(job).bars().collect();
    for bar in bars {
        let (begins, ends) = (bar.from.max(from), bar.to.min(to));
        if bar.beat == Beat::Work && begins < ends {
            let beat = Beat::Slowed { speed, late };
            stage.score(job).set(begins, ends, beat);
        }
    }
}

fn hot(stage: &mut Stage, by_hardware: bool) {
    let job = synchronous(stage);
    let from = stage.moment(0.3, 0.45);
    let (rank, gpu) = stage.any_rank(job);
    let rises = stage.span(60.0, 150.0);
    let begins = from + rises;
    let ends = begins + stage.span(900.0, 1_300.0);
    let share = if by_hardware {
        stage.dice.between(0.45, 0.62)
    } else {
        stage.dice.between(0.64, 0.82)
    };
    let board = stage.board();
    let celsius = if by_hardware {
        board.slowdown_celsius + 0.4
    } else {
        board.max_operating_celsius + 0.6
    };
    let warm = What::Warm {
        kelvin: stage.dice.between(19.0, 26.0),
        ramp_ms: rises,
    };
    stage.strike(gpu, from, begins, warm);
    let throttled = What::Throttled {
        celsius,
        share,
        by_hardware,
    };
    stage.strike(gpu, begins, ends, throttled);
    slow_down(stage, job, begins, ends, share, (rank, rank + 1));
    let (scenario, severity, due) = if by_hardware {
        ("S1hw", LabelSeverity::Critical, 150.0)
    } else {
        ("S1sw", LabelSeverity::Warning, 240.0)
    };
    let label = Draft::new(scenario, &["ThermalThrottling", "Straggler"], severity)
        .lasts(begins, ends)
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(due)
        .related(&["JobSlow", "ThermalDrift"]);
    stage.sign(label);
}

fn hot_hardware(stage: &mut Stage) {
    hot(stage, true);
}

fn hot_software(stage: &mut Stage) {
    hot(stage, false);
}

fn power_brake(stage: &mut Stage) {
    let job = synchronous(stage);
    let nodes = stage.nodes_of(job);
    let node = stage.dice.pick(&nodes);
    let from = stage.moment(0.3, 0.6);
    let to = from + stage.span(500.0, 900.0);
    brake(stage, job, node, from, to);
    let label = Draft::new("S2", &["PowerBrake"], LabelSeverity::Critical)
        .lasts(from, to)
        .in_job(stage, job)
        .blamed_nodes(&[node])
        .due(90.0)
        .related(&[
            "Straggler",
            "JobSlow",
            "PowerCapLoss",
            "PowerLimit",
            "ThermalThrottling",
        ]);
    stage.sign(label);
}

/// Half the clocks on every GPU of a node, and a job that waits for them.
pub(super) fn brake(stage: &mut Stage, job: JobRef, node: u32, from: SimMillis, to: SimMillis) {
    for gpu in 0..stage.setting.gpus_per_node {
        stage.strike((node, gpu), from, to, What::Brake);
    }
    let late = stage.ranks_on(job, node);
    slow_down(stage, job, from, to, 0.5, late);
}

/// Work that PCIe bounds.
fn link_bound(stage: &mut Stage) -> JobRef {
    let nodes = stage.dice.pick(&[1, 1, 2]);
    let taken = stage.take(nodes);
    let workload = stage.dice.pick(&[Workload::Offload, Workload::SmallSteps]);
    stage.job(workload, stage.all_of(&taken))
}

fn link(stage: &mut Stage, scenario: &'static str, width: i64, severity: LabelSeverity) {
    let job = link_bound(stage);
    let (rank, gpu) = stage.any_rank(job);
    let from = stage.moment(0.25, 0.45);
    let to = stage.end();
    let generation = if width == 16 {
        i64::from(stage.dice.whole(1, 2))
    } else {
        stage.board().pcie_gen
    };
    stage.strike(gpu, from, to, What::PcieLink { width, generation });
    let replays = What::Counts {
        counter: metric::PCIE_REPLAY,
        from_rate: stage.dice.between(0.9, 8.0),
        to_rate: stage.dice.between(0.9, 8.0),
    };
    stage.strike(gpu, from, to, replays);
    let speed = stage.dice.between(0.35, 0.75);
    slow_down(stage, job, from, to, speed, (rank, rank + 1));
    stage.strike(
        gpu,
        from,
        to,
        What::Starved {
            share: (1.0 - speed) * 0.7,
        },
    );
    let label = Draft::new(scenario, &["PcieDegraded"], severity)
        .lasts(from, to)
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(120.0)
        .related(&["Straggler", "JobSlow"]);
    stage.sign(label);
}

fn narrow_link(stage: &mut Stage) {
    let width = stage.dice.pick(&[4, 8]);
    link(stage, "S3w", width, LabelSeverity::Critical);
}

fn slow_link(stage: &mut Stage) {
    link(stage, "S3g", 16, LabelSeverity::Warning);
}

fn busy_host(stage: &mut Stage) {
    let job = loop_free_job(stage, &[2, 3, 4]);
    let nodes = stage.nodes_of(job);
    let node = stage.dice.pick(&nodes);
    let late = stage.ranks_on(job, node);
    let from = stage.moment(0.3, 0.45);
    let first = stage.span(420.0, 600.0);
    let gap = stage.span(0.0, 40.0);
    let second = stage.span(240.0, 420.0);
    let to = from + first + gap + second;
    let loss = stage.dice.between(0.16, 0.28);
    for (begins, ends) in [(from, from + first), (from + first + gap, to)] {
        slow_down(stage, job, begins, ends, 1.0 - loss, late);
        for gpu in 0..stage.setting.gpus_per_node {
            stage.strike((node, gpu), begins, ends, What::Starved { share: loss });
        }
    }
    let label = Draft::new("S4", &["Straggler", "JobSlow"], LabelSeverity::Warning)
        .lasts(from, to)
        .in_job(stage, job)
        .blamed_nodes(&[node])
        .due(360.0)
        .related(&["JobStall"]);
    stage.sign(label);
}

/// A steady job without pauses of its own.
fn loop_free_job(stage: &mut Stage, nodes: &[u32]) -> JobRef {
    let nodes = stage.dice.pick(nodes);
    let taken = stage.take(nodes);
    let workload = stage.dice.pick(&[
        Workload::DataParallel,
        Workload::Sharded,
        Workload::SmallSteps,
    ]);
    stage.job(workload, stage.all_of(&taken))
}

/// Slower in steps, as measured: 0.57, 0.41, 0.31 iterations a second.
fn congestion(stage: &mut Stage) {
    let job = loop_free_job(stage, &[2, 4, 8]);
    let from = stage.moment(0.25, 0.35);
    let to = from + stage.span(1_500.0, 2_300.0).min(stage.end() - from);
    let worst = stage.dice.between(0.2, 0.62);
    for n in 0..3 {
        let part = (to - from) / 3;
        let speed = worst + (0.72 - worst) * (2 - n) as f64 / 2.0;
        let begins = from + part * n;
        let ends = if n == 2 { to } else { begins + part };
        slow_down(stage, job, begins, ends, speed.min(0.72), (0, 0));
    }
    let label = Draft::new("S5", &["JobSlow", "NetworkFault"], LabelSeverity::Warning)
        .lasts(from, to)
        .whole_job(stage, job)
        .due(600.0)
        .related(&["JobStall"]);
    stage.sign(label);
}

fn lowered_limit(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2, 4]);
    let taken = stage.take(nodes);
    let workload = stage
        .dice
        .pick(&[Workload::DataParallel, Workload::Accumulated]);
    let job = stage.job(workload, stage.all_of(&taken));
    let (rank, gpu) = stage.any_rank(job);
    let from = stage.moment(0.25, 0.4);
    let to = stage.end();
    let share = stage.dice.between(0.52, 0.68);
    let watts = (share * stage.board().power_limit_watts).round();
    stage.strike(gpu, from, to, What::Capped { watts });
    let speed = (share - 0.12_f64).powf(0.5);
    slow_down(stage, job, from, to, speed.min(0.85), (rank, rank + 1));
    let label = Draft::new(
        "S6",
        &["PowerCapLoss", "PowerLimit"],
        LabelSeverity::Warning,
    )
    .lasts(from, to)
    .in_job(stage, job)
    .blamed_gpu(gpu)
    .due(400.0)
    .related(&["Straggler", "JobSlow"]);
    stage.sign(label);
}

/// The last stage takes longer, always has, and no node is to blame for it.
fn unbalanced(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2, 4]);
    let taken = stage.take(nodes);
    let job = stage.job(Workload::Pipeline, stage.all_of(&taken));
    stage.live(job);
    let ranks = stage.n_ranks(job);
    let speed = stage.dice.between(0.61, 0.8);
    slow_down(
        stage,
        job,
        SimMillis::MIN,
        stage.end(),
        speed,
        (ranks * 3 / 4, ranks),
    );
    let label = Draft::new("S7", &["JobSlow"], LabelSeverity::Warning)
        .lasts(Stage::at(0.0), stage.end())
        .whole_job(stage, job)
        .optional();
    stage.sign(label);
}

fn slow_gpu(stage: &mut Stage) {
    let job = loop_free_job(stage, &[1, 2, 4]);
    let (rank, gpu) = stage.any_rank(job);
    let from = stage.moment(0.25, 0.45);
    let to = (from + stage.span(900.0, 1_400.0)).min(stage.end());
    let share = stage.dice.between(0.68, 0.84);
    stage.strike(gpu, from, to, What::Slow { share });
    slow_down(stage, job, from, to, share, (rank, rank + 1));
    let label = Draft::new("S8", &["Straggler"], LabelSeverity::Warning)
        .lasts(from, to)
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(360.0)
        .related(&["JobSlow", "PowerCapLoss"]);
    stage.sign(label);
}
