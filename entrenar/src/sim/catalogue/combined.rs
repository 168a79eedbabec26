//! Combinations: trouble that hides behind something harmless, or comes with it. *(pure)*

use super::Case;
use super::Expect::{Page, Warning};
use super::hangs::{hang_in_checkpoint, hang_label, some_training};
use super::nodes::lose;
use super::slow::{brake, slow_down};
use crate::sim::activity::SLEEPING;
use crate::sim::effect::What;
use crate::sim::job::{SimMillis, Workload};
use crate::sim::plan::FOREVER;
use crate::sim::score::Beat;
use crate::sim::stage::{Checkpoints, Draft, LOSS_SIDE, LabelSeverity, Stage};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "hang-in-checkpoint",
        Page,
        "a straggling job's checkpoint never ends",
        straggles_then_hangs,
    )
    .needs(3_600),
    Case::new(
        "straggler-in-pipeline",
        Warning,
        "a GPU of a pipeline stage is slowed down by heat",
        straggler_in_pipeline,
    )
    .needs(3_000),
    Case::new(
        "upgrade-and-hang",
        Page,
        "a job hangs while agents are upgraded one after the other",
        upgrade_and_hang,
    )
    .takes_all(),
    Case::new(
        "hang-after-pause",
        Page,
        "a job resumes from a checkpoint, and hangs within a minute",
        after_pause,
    )
    .needs(3_000),
    Case::new(
        "late-and-lost",
        Page,
        "a node is lost while what others say arrives late",
        late_and_lost,
    )
    .takes_all(),
    Case::new(
        "suspended-and-hang",
        Page,
        "one job is suspended, and another hangs meanwhile",
        suspended_and_hang,
    ),
    Case::new(
        "two-hangs",
        Page,
        "two jobs hang within the same minute, for reasons of their own",
        two_hangs,
    ),
    Case::new(
        "brake-and-hang",
        Page,
        "a power brake slows a job down, and later it hangs",
        brake_and_hang,
    )
    .needs(3_600),
    Case::new(
        "young-hang",
        Page,
        "a job hangs ten minutes after its start: nobody knows its pauses yet",
        young_hang,
    )
    .needs(3_000),
    Case::new(
        "offload-hang",
        Page,
        "a job that idles most of the time by nature hangs",
        offload_hang,
    ),
];

fn straggles_then_hangs(stage: &mut Stage) {
    let taken = stage.take(2);
    let job = stage.job(Workload::Sharded, stage.all_of(&taken));
    let at = hang_in_checkpoint(stage, "H8+S8", job);
    let (rank, gpu) = stage.any_rank(job);
    let from = at - stage.span(800.0, 1_000.0);
    let share = stage.dice.between(0.7, 0.8);
    stage.strike(gpu, from, FOREVER, What::Slow { share });
    slow_down(stage, job, from, at, share, (rank, rank + 1));
    let label = Draft::new("S8", &["Straggler"], LabelSeverity::Warning)
        .lasts(from, at)
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(360.0)
        .related(&["JobSlow", "PowerCapLoss"]);
    stage.sign(label);
}

fn straggler_in_pipeline(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[2, 4]);
    let taken = stage.take(nodes);
    let job = stage.job(Workload::Pipeline, stage.all_of(&taken));
    let how = Checkpoints {
        every_ms: stage.span(900.0, 1_500.0),
        lasts_ms: stage.span(20.0, 60.0),
        anchor_ms: stage.moment(0.0, 1.0),
    };
    stage.checkpoints(job, how);
    let (rank, gpu) = stage.any_rank(job);
    let begins = stage.moment(0.35, 0.45);
    let ends = (begins + stage.span(900.0, 1_300.0)).min(stage.end());
    let share = stage.dice.between(0.66, 0.8);
    let celsius = stage.board().max_operating_celsius + 0.6;
    let warm = What::Warm {
        kelvin: 30.0,
        ramp_ms: 120_000,
    };
    stage.strike(gpu, begins - 120_000, begins, warm);
    let throttled = What::Throttled {
        celsius,
        share,
        by_hardware: false,
    };
    stage.strike(gpu, begins, ends, throttled);
    slow_down(stage, job, begins, ends, share, (rank, rank + 1));
    let label = Draft::new(
        "S1sw+N4",
        &["ThermalThrottling", "Straggler"],
        LabelSeverity::Warning,
    )
    .lasts(begins, ends)
    .in_job(stage, job)
    .blamed_gpu(gpu)
    .due(240.0)
    .related(&["JobSlow", "ThermalDrift"]);
    stage.sign(label);
}

fn upgrade_and_hang(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[2, 4]);
    let job = stage.training(nodes);
    let at = stage.moment(0.4, 0.6);
    let (rank, gpu) = stage.any_rank(job);
    let beat = Beat::Held {
        culprit: rank,
        state: SLEEPING,
    };
    let to = stage.hang(job, at, beat);
    let label = hang_label(stage, "H2+N25", job, at, to).culprit(gpu);
    stage.sign(label);
    let from = at - stage.span(20.0, 80.0);
    stage.upgrade_all(from);
}

fn after_pause(stage: &mut Stage) {
    let job = some_training(stage);
    let at = stage.moment(0.4, 0.6);
    let pause = stage.span(20.0, 80.0);
    let works = stage.span(15.0, 60.0);
    let beat = Beat::Checkpoint {
        copy_ms: 4_000,
        writer_every: u32::MAX,
        write_rate: 0.9e9,
    };
    stage.score(job).set(at - works - pause, at - works, beat);
    stage.score(job).set(at - works, at, Beat::Work);
    let to = stage.hang(job, at, Beat::Spin);
    let label = hang_label(stage, "H1+N6", job, at, to);
    stage.sign(label);
}

fn late_and_lost(stage: &mut Stage) {
    let job = stage.training(2);
    let nodes = stage.nodes_of(job);
    let node = stage.dice.pick(&nodes);
    let at = stage.moment(0.4, 0.6);
    lose(stage, job, node, at);
    let others: Vec<u32> = (0..stage.n_nodes())
        .filter(|n| !nodes.contains(n))
        .collect();
    let from = at - stage.span(300.0, 500.0);
    let to = from + stage.span(5.0, 40.0);
    for &other in &others {
        if stage.dice.chance(0.5) {
            stage.delay(other, from, to);
        }
    }
    let label = Draft::new(
        "N26",
        &["MonitoringFault", "NetworkFault"],
        LabelSeverity::Warning,
    )
    .lasts(from, to + 60_000)
    .nodes(&others)
    .fleet()
    .optional();
    stage.sign(label);
    let label = Draft::new("L1+N26", &["NodeLost"], LabelSeverity::Critical)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_nodes(&[node])
        .due(75.0)
        .related(&LOSS_SIDE)
        .related(&["NodeFlapping", "GpuLost"]);
    stage.sign(label);
}

fn suspended_and_hang(stage: &mut Stage) {
    let taken = stage.take(2);
    let waits = stage.job(Workload::DataParallel, stage.all_of(&taken));
    let job = some_training(stage);
    let at = stage.moment(0.35, 0.55);
    let from = at - stage.span(60.0, 240.0);
    let to = at + stage.span(300.0, 700.0);
    stage.score(waits).set(from, to, Beat::Suspended);
    let to = stage.hang(job, at, Beat::Spin);
    let label = hang_label(stage, "H1+N30", job, at, to);
    stage.sign(label);
}

fn two_hangs(stage: &mut Stage) {
    let at = stage.moment(0.35, 0.55);
    for n in 0..2 {
        let job = some_training(stage);
        let begins = at + n * stage.span(5.0, 50.0);
        let (rank, gpu) = stage.any_rank(job);
        let (beat, culprit) = if n == 0 {
            (Beat::Spin, None)
        } else {
            (Beat::Loops { culprit: rank }, Some(gpu))
        };
        let to = stage.hang(job, begins, beat);
        let mut label = hang_label(stage, if n == 0 { "H1" } else { "H4" }, job, begins, to);
        // Without any word of the network, two hangs in a minute may well be one of its faults.
        label = label.or("NetworkFault");
        if let Some(gpu) = culprit {
            label = label.culprit(gpu);
        }
        stage.sign(label);
    }
}

fn brake_and_hang(stage: &mut Stage) {
    let taken = stage.take(2);
    let job = stage.job(Workload::DataParallel, stage.all_of(&taken));
    let node = stage.dice.pick(&taken);
    let from = stage.moment(0.2, 0.3);
    let to = from + stage.span(500.0, 700.0);
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
    let at = to + stage.span(400.0, 600.0);
    let over = stage.hang(job, at, Beat::Spin);
    let label = hang_label(stage, "H1", job, at, over);
    stage.sign(label);
}

fn young_hang(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2, 4]);
    let taken = stage.take(nodes);
    let job = stage.job(Workload::Sharded, stage.all_of(&taken));
    let starts = stage.moment(0.05, 0.2);
    stage.score(job).set(SimMillis::MIN, FOREVER, Beat::Nobody);
    let works = stage.start_up(job, starts);
    let at = works + stage.span(420.0, 900.0);
    let to = stage.hang(job, at, Beat::Spin);
    let label = hang_label(stage, "H1 young", job, at, to);
    stage.sign(label);
}

fn offload_hang(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2]);
    let taken = stage.take(nodes);
    let job = stage.job(Workload::Offload, stage.all_of(&taken));
    let at = stage.moment(0.35, 0.6);
    let (rank, gpu) = stage.any_rank(job);
    let beat = Beat::Held {
        culprit: rank,
        state: SLEEPING,
    };
    let to = stage.hang(job, at, beat);
    let label = hang_label(stage, "H2+N3", job, at, to).culprit(gpu);
    stage.sign(label);
}
