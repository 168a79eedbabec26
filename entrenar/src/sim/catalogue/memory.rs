//! Memory that fills, and GPUs that nobody uses although somebody holds them. *(pure)*

use super::Case;
use super::Expect::{Nothing, Warning};
use crate::sim::effect::What;
use crate::sim::job::{SimMillis, Workload};
use crate::sim::plan::FOREVER;
use crate::sim::score::Beat;
use crate::sim::stage::{Draft, LabelSeverity, Stage};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "M1",
        Warning,
        "memory in use climbs to the top, and the process dies of it",
        ramp,
    )
    .needs(3_600),
    Case::new(
        "M1-leak",
        Warning,
        "memory in use climbs by a few per cent an hour",
        leak,
    )
    .needs(7_200),
    Case::new(
        "M2",
        Nothing,
        "memory is preallocated to 97 %, and stays so",
        preallocated,
    ),
    Case::new(
        "Z1",
        Warning,
        "kernels run on after their process was killed",
        zombie,
    )
    .needs(3_600),
    Case::new(
        "W1",
        Warning,
        "a job holds GPUs and never uses them",
        never_used,
    )
    .needs(4_500),
    Case::new("W2", Warning, "a job uses all its GPUs but one", one_unused).needs(4_500),
    Case::new(
        "drift",
        Warning,
        "a GPU gets warmer and warmer at the same load: its cooler is tired",
        tired_cooler,
    )
    .needs(7_200),
];

fn ramp(stage: &mut Stage) {
    let node = stage.take(1);
    let places = stage.all_of(&node);
    let n = stage.dice.pick(&[1, 2, 4]).min(places.len());
    let workload = stage.dice.pick(&[
        Workload::Notebook,
        Workload::SmallSteps,
        Workload::Inference,
    ]);
    let job = stage.job(workload, places[..n].to_vec());
    let from = stage.moment(0.25, 0.45);
    let total = stage.board().memory_total_bytes as f64;
    let start = stage.dice.between(0.66, 0.76);
    let per_second = stage.dice.between(1.1e9, 1.7e9) / 60.0 * total / 85.5e9;
    let lasts = ((0.985 - start) * total / per_second * 1e3) as SimMillis;
    let dies = from + lasts;
    for &gpu in &places[..n] {
        // A job that has held this much for long.
        let held = What::Grows {
            bytes_per_second: 1.0,
            most: start,
            least: start,
        };
        stage.strike(gpu, 0, from, held);
        let grows = What::Grows {
            bytes_per_second: per_second,
            most: 0.985,
            least: start,
        };
        stage.strike(gpu, from, dies, grows);
    }
    stage.score(job).set(dies, FOREVER, Beat::Nobody);
    let label = Draft::new(
        "M1",
        &["MemoryPressure", "MemoryLeak"],
        LabelSeverity::Warning,
    )
    .lasts(from, dies)
    .in_job(stage, job)
    .gpus(&places[..n])
    .due_exactly(lasts as f64 / 1e3 - 90.0);
    stage.sign(label);
    if workload == Workload::Notebook {
        stage.may_seem_idle(job);
    }
}

fn leak(stage: &mut Stage) {
    let node = stage.take(1);
    let job = stage.job(Workload::SmallSteps, stage.all_of(&node));
    stage.live(job);
    let total = stage.board().memory_total_bytes as f64;
    let per_hour = stage.dice.between(0.055, 0.1);
    let from = Stage::at(0.0);
    for gpu in stage.all_of(&node) {
        let grows = What::Grows {
            bytes_per_second: per_hour * total / 3_600.0,
            most: 0.9,
            least: 0.0,
        };
        stage.strike(gpu, from, FOREVER, grows);
    }
    let label = Draft::new(
        "leak",
        &["MemoryLeak", "MemoryPressure"],
        LabelSeverity::Warning,
    )
    .lasts(from, stage.end())
    .whole_job(stage, job)
    .due_exactly(5_400.0);
    stage.sign(label);
}

fn preallocated(stage: &mut Stage) {
    let node = stage.take(1);
    let workload = stage
        .dice
        .pick(&[Workload::Inference, Workload::DataParallel]);
    let job = stage.job(workload, stage.all_of(&node));
    for gpu in stage.places(job).to_vec() {
        let held = What::Grows {
            bytes_per_second: 1.0,
            most: 0.975,
            least: 0.975,
        };
        stage.strike(gpu, 0, FOREVER, held);
    }
}

fn zombie(stage: &mut Stage) {
    let node = stage.take(1);
    let job = stage.job(Workload::SmallSteps, stage.all_of(&node));
    let at = stage.moment(0.3, 0.45);
    stage.score(job).set(at, FOREVER, Beat::Nobody);
    let mut left = stage.all_of(&node);
    stage.dice.shuffle(&mut left);
    let n = stage.dice.whole(1, left.len() as u32) as usize;
    left.truncate(n);
    left.sort_unstable();
    for &gpu in &left {
        stage.strike(gpu, at, FOREVER, What::Zombie);
    }
    let mut label = Draft::new("Z1", &["ZombieGpu"], LabelSeverity::Warning)
        .lasts(at, stage.end())
        .gpus(&left)
        .due(300.0)
        .related(&["GpuIdle"]);
    for &gpu in &left {
        label = label.culprit(gpu);
    }
    stage.sign(label);
}

fn never_used(stage: &mut Stage) {
    let node = stage.take(1);
    let job = stage.job(Workload::DataParallel, stage.all_of(&node));
    stage.tell_kind(job);
    let from = Stage::at(stage.dice.between(30.0, 120.0).round());
    // With a context that does nothing, or without any process at all.
    let beat = stage.dice.pick(&[Beat::Pull, Beat::Untouched]);
    let score = stage.score(job);
    score.set(SimMillis::MIN, from, Beat::Nobody);
    score.set(from, FOREVER, beat);
    let label = Draft::new("W1", &["GpuIdle", "PartialUse"], LabelSeverity::Warning)
        .lasts(from, stage.end())
        .whole_job(stage, job)
        .due_exactly(2_100.0)
        .related(&["StartupStuck"]);
    stage.sign(label);
}

fn one_unused(stage: &mut Stage) {
    let node = stage.take(1);
    let places = stage.all_of(&node);
    let (used, unused) = places.split_at(places.len() - 1);
    let job = stage.job(Workload::SmallSteps, used.to_vec());
    // The scheduler gave it the last one too; its processes never touch it.
    let extra = stage.job(Workload::SmallSteps, unused.to_vec());
    stage.same_job(job, extra);
    stage.live(job);
    stage.score(extra).set(SimMillis::MIN, FOREVER, Beat::Pull);
    let gpu = unused[0];
    let label = Draft::new("W2", &["PartialUse", "GpuIdle"], LabelSeverity::Warning)
        .lasts(Stage::at(0.0), stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due_exactly(2_100.0)
        .related(&["StartupStuck", "JobStall"]);
    stage.sign(label);
}

fn tired_cooler(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2]);
    let taken = stage.take(nodes);
    let job = stage.job(Workload::Sharded, stage.all_of(&taken));
    let (_, gpu) = stage.any_rank(job);
    let from = stage.moment(0.12, 0.25);
    let warm = What::Warm {
        kelvin: stage.dice.between(10.0, 15.0),
        ramp_ms: stage.span(300.0, 1_200.0),
    };
    stage.strike(gpu, from, FOREVER, warm);
    let label = Draft::new("drift", &["ThermalDrift"], LabelSeverity::Warning)
        .lasts(from, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due_exactly(3_600.0)
        .related(&["ThermalThrottling"]);
    stage.sign(label);
}
