//! GPUs that break: off the bus, out of memory cells, off their links, or out of their senses. *(pure)*

use super::Case;
use super::Expect::{Nothing, Page, Warning};
use crate::metric;
use crate::sim::activity::SLEEPING;
use crate::sim::effect::What;
use crate::sim::job::{SimMillis, Workload};
use crate::sim::plan::FOREVER;
use crate::sim::score::Beat;
use crate::sim::stage::{Draft, JobRef, LOSS_SIDE, LabelSeverity, Stage};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "X1",
        Page,
        "a GPU falls off the bus, with XID 79",
        off_the_bus,
    ),
    Case::new(
        "X2",
        Page,
        "a GPU's firmware hangs, with XID 119: calls for it block",
        firmware_hangs,
    ),
    Case::new(
        "X3",
        Page,
        "a memory error that cannot be corrected: XIDs 48, 63, 94 or 95, 45",
        double_bit,
    ),
    Case::new(
        "X4",
        Nothing,
        "a bug of the user's: XIDs 13 or 31, 43, 45 on all GPUs of a job at once",
        user_bug,
    ),
    Case::new(
        "X5",
        Warning,
        "corrected memory errors come more and more often",
        storm,
    )
    .needs(4_800),
    Case::new("X6", Page, "a row remap fails", remap_fails),
    Case::new(
        "X6-pending",
        Warning,
        "a row remap waits for a reset",
        remap_pends,
    ),
    Case::new(
        "X7",
        Page,
        "an NVLink gets worse and worse, and then goes down with XID 74",
        link_dies,
    )
    .needs(4_800),
    Case::new(
        "X7-crc",
        Warning,
        "an NVLink has errors now and then, and goes on",
        link_errs,
    )
    .needs(4_800),
    Case::new(
        "X8",
        Page,
        "a GPU is no longer enumerated; no XID says so",
        vanishes,
    ),
    Case::new(
        "X9",
        Warning,
        "a GPU's readings freeze while its energy moves on",
        frozen,
    ),
    Case::new(
        "X9-power",
        Warning,
        "a GPU's power can no longer be read",
        no_power,
    ),
    Case::new("XID", Page, "an XID that needs a reset", fatal_xid),
    Case::new(
        "XID-repeat",
        Page,
        "the same GPU takes one job after another down",
        repeats,
    )
    .needs(3_600),
];

/// Classes that may come with the loss of a GPU.
const GPU_LOSS_SIDE: [&str; 4] = [
    "GpuUnresponsive",
    "NvlinkError",
    "PcieDegraded",
    "SensorFault",
];

fn some_job(stage: &mut Stage) -> JobRef {
    let nodes = stage.dice.pick(&[1, 2, 2, 4]);
    stage.training(nodes)
}

/// The ranks of a job wait for one that is gone, until somebody ends it.
fn wait_for(stage: &mut Stage, job: JobRef, rank: u32, at: SimMillis) -> SimMillis {
    let notices = at + stage.span(200.0 / 1e3, 1.2);
    let beat = Beat::Held {
        culprit: rank,
        state: SLEEPING,
    };
    stage.hang(job, notices, beat)
}

fn off_the_bus(stage: &mut Stage) {
    let job = some_job(stage);
    let (rank, gpu) = stage.any_rank(job);
    let at = stage.moment(0.35, 0.6);
    stage.xid(gpu, at, 79);
    stage.strike(gpu, at, FOREVER, What::Lost);
    wait_for(stage, job, rank, at);
    let label = Draft::new("X1", &["GpuLost", "Xid"], LabelSeverity::Critical)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(90.0)
        .related(&LOSS_SIDE)
        .related(&GPU_LOSS_SIDE);
    stage.sign(label);
}

fn vanishes(stage: &mut Stage) {
    let job = some_job(stage);
    let (rank, gpu) = stage.any_rank(job);
    let at = stage.moment(0.35, 0.6);
    stage.strike(gpu, at, FOREVER, What::Missing);
    wait_for(stage, job, rank, at);
    let label = Draft::new("X8", &["GpuLost"], LabelSeverity::Critical)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(90.0)
        .related(&LOSS_SIDE)
        .related(&GPU_LOSS_SIDE);
    stage.sign(label);
}

fn firmware_hangs(stage: &mut Stage) {
    let job = some_job(stage);
    let (rank, gpu) = stage.any_rank(job);
    let at = stage.moment(0.35, 0.6);
    let code = stage.dice.pick(&[119, 119, 120]);
    stage.xid(gpu, at, code);
    let silent = at + stage.span(0.5, 4.0);
    stage.strike(gpu, silent, FOREVER, What::Silent);
    wait_for(stage, job, rank, at);
    let label = Draft::new("X2", &["GpuUnresponsive", "Xid"], LabelSeverity::Critical)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(120.0)
        .related(&LOSS_SIDE)
        .related(&["GpuLost", "SensorFault", "NvlinkError"]);
    stage.sign(label);
}

/// The job dies at once with its rank.
fn double_bit(stage: &mut Stage) {
    let job = some_job(stage);
    let (_, gpu) = stage.any_rank(job);
    let at = stage.moment(0.35, 0.65);
    let contained = stage.dice.pick(&[94, 95]);
    for code in [48, 63, contained] {
        stage.xid(gpu, at, code);
    }
    let cleanup = at + stage.span(0.3, 2.0);
    for _ in 0..stage.dice.whole(1, 3) {
        stage.xid(gpu, cleanup, 45);
    }
    stage.strike(gpu, at, FOREVER, What::Uncorrected);
    stage.strike(gpu, at, FOREVER, What::RemapPending);
    let dies = at + stage.span(3.0, 14.0);
    stage.score(job).set(at, dies, Beat::Idle);
    stage.finish(job, dies);
    let label = Draft::new("X3", &["EccUncorrectable", "Xid"], LabelSeverity::Critical)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(60.0)
        .related(&[
            "RowRemap",
            "JobHang",
            "JobStall",
            "RepeatOffender",
            "GpuIdle",
        ]);
    stage.sign(label);
}

/// The same crash twice: nobody's hardware is to blame, and nobody needs to wake up.
fn user_bug(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2, 4, 8]);
    let taken = stage.take(nodes);
    let job = stage.job(Workload::DataParallel, stage.all_of(&taken));
    let code = stage.dice.pick(&[13, 31]);
    let first = stage.moment(0.2, 0.35);
    for at in [first, first + stage.span(700.0, 1_100.0)] {
        for place in stage.places(job).to_vec() {
            let falls = at + stage.span(0.0, 1.0);
            stage.xid(place, falls, code);
            let follows = stage.dice.pick(&[43, 45]);
            stage.xid(place, falls, follows);
        }
        let back = at + stage.span(40.0, 120.0);
        let begins = stage.start_up(job, back);
        stage.score(job).set(at + 1_500, back, Beat::Nobody);
        stage.score(job).set(begins, FOREVER, Beat::Work);
    }
}

fn storm(stage: &mut Stage) {
    let job = some_job(stage);
    let (_, gpu) = stage.any_rank(job);
    let from = stage.moment(0.2, 0.3);
    let creeps = stage.span(300.0, 500.0);
    let creep = What::Counts {
        counter: metric::ECC_CORRECTED,
        from_rate: 0.002,
        to_rate: 0.05,
    };
    stage.strike(gpu, from, from + creeps, creep);
    let begins = from + creeps;
    let rate = stage.dice.between(0.25, 0.5);
    let storm = What::Counts {
        counter: metric::ECC_CORRECTED,
        from_rate: rate,
        to_rate: rate * 1.6,
    };
    stage.strike(gpu, begins, stage.end(), storm);
    let says = stage.dice.chance(0.4);
    if says {
        let at = begins + stage.span(500.0, 900.0);
        stage.xid(gpu, at, 92);
    }
    let label = Draft::new("X5", &["EccStorm"], LabelSeverity::Warning)
        .lasts(begins, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(420.0)
        .related(&["Xid"]);
    stage.sign(label);
}

fn remap(stage: &mut Stage, scenario: &'static str, what: What, code: u64) {
    let job = some_job(stage);
    let (_, gpu) = stage.any_rank(job);
    let at = stage.moment(0.2, 0.6);
    let fails = what == What::RemapFailed;
    stage.xid(gpu, at, code);
    stage.strike(gpu, at, FOREVER, what);
    let severity = if fails {
        LabelSeverity::Critical
    } else {
        LabelSeverity::Warning
    };
    let mut label = Draft::new(scenario, &["RowRemap", "Xid"], severity)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(60.0);
    if fails {
        label = label.related(&["EccUncorrectable"]);
    }
    stage.sign(label);
}

fn remap_fails(stage: &mut Stage) {
    remap(stage, "X6", What::RemapFailed, 64);
}

fn remap_pends(stage: &mut Stage) {
    remap(stage, "X6p", What::RemapPending, 63);
}

/// Errors and recoveries of a link, more and more of them.
fn worse(stage: &mut Stage, gpu: (u32, u32), from: SimMillis, to: SimMillis, last_rate: f64) {
    let errors = What::Counts {
        counter: metric::NVLINK_CRC_ERRORS,
        from_rate: 0.01,
        to_rate: last_rate,
    };
    stage.strike(gpu, from, to, errors);
    let recoveries = What::Counts {
        counter: metric::NVLINK_RECOVERY,
        from_rate: 1.0 / 600.0,
        to_rate: 1.0 / 400.0,
    };
    stage.strike(gpu, from, to, recoveries);
}

fn link_label(stage: &mut Stage, job: JobRef, gpu: (u32, u32), from: SimMillis, to: SimMillis) {
    let lasts = (to - from) as f64 / 1e3;
    let label = Draft::new("X7", &["NvlinkError"], LabelSeverity::Warning)
        .lasts(from, to)
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due_exactly(lasts.min(1_200.0))
        .related(&["Straggler", "JobSlow"]);
    stage.sign(label);
}

fn link_dies(stage: &mut Stage) {
    let job = some_job(stage);
    let (rank, gpu) = stage.any_rank(job);
    let from = stage.moment(0.15, 0.25);
    let at = from + stage.span(1_000.0, 1_500.0);
    let rate = stage.dice.between(60.0, 160.0);
    worse(stage, gpu, from, at, rate);
    link_label(stage, job, gpu, from, at);
    stage.xid(gpu, at, 74);
    stage.strike(gpu, at, FOREVER, What::NvlinksDown { links: 1 });
    wait_for(stage, job, rank, at);
    let label = Draft::new("X7 fail", &["NvlinkError", "Xid"], LabelSeverity::Critical)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(60.0)
        .related(&LOSS_SIDE);
    stage.sign(label);
}

fn link_errs(stage: &mut Stage) {
    let job = some_job(stage);
    let (_, gpu) = stage.any_rank(job);
    let from = stage.moment(0.15, 0.3);
    let rate = stage.dice.between(0.05, 2.0);
    worse(stage, gpu, from, stage.end(), rate);
    link_label(stage, job, gpu, from, stage.end());
}

fn sensor(stage: &mut Stage, scenario: &'static str, what: What) {
    let job = some_job(stage);
    let (_, gpu) = stage.any_rank(job);
    let from = stage.moment(0.3, 0.5);
    let to = (from + stage.span(900.0, 1_600.0)).min(stage.end());
    stage.strike(gpu, from, to, what);
    let label = Draft::new(scenario, &["SensorFault"], LabelSeverity::Warning)
        .lasts(from, to)
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(400.0)
        .related(&["GpuUnresponsive", "MonitoringFault", "Straggler"]);
    stage.sign(label);
}

fn frozen(stage: &mut Stage) {
    sensor(stage, "X9f", What::Frozen);
}

fn no_power(stage: &mut Stage) {
    sensor(stage, "X9na", What::NoPower);
}

/// Codes whose action is a reset, and which no counter goes with.
const FATAL: [u64; 8] = [46, 62, 95, 109, 110, 140, 143, 158];

/// A GPU that takes its job down with an XID. Returns when the job is over.
fn falls(stage: &mut Stage, job: JobRef, gpu: (u32, u32), rank: u32, at: SimMillis) -> SimMillis {
    let code = stage.dice.pick(&FATAL);
    stage.xid(gpu, at, code);
    let cleanup = at + stage.span(0.2, 4.0);
    stage.xid(gpu, cleanup, 45);
    let notices = at + 900;
    let dies = at + stage.span(20.0, 120.0);
    let beat = Beat::Held {
        culprit: rank,
        state: SLEEPING,
    };
    let score = stage.score(job);
    score.set(notices, dies, beat);
    score.set(dies, FOREVER, Beat::Nobody);
    dies
}

fn fatal_xid(stage: &mut Stage) {
    let job = some_job(stage);
    let (rank, gpu) = stage.any_rank(job);
    let at = stage.moment(0.3, 0.6);
    falls(stage, job, gpu, rank, at);
    let label = Draft::new("XID", &["Xid"], LabelSeverity::Critical)
        .lasts(at, stage.end())
        .in_job(stage, job)
        .blamed_gpu(gpu)
        .due(60.0)
        .related(&LOSS_SIDE)
        .related(&["GpuUnresponsive", "EccUncorrectable", "GpuLost"]);
    stage.sign(label);
}

fn repeats(stage: &mut Stage) {
    let node = stage.take(1);
    let places = stage.all_of(&node);
    let rank = stage.dice.whole(0, places.len() as u32 - 1);
    let gpu = places[rank as usize];
    let mut begins = SimMillis::MIN;
    let mut second = 0;
    let mut last = None;
    let first = stage.moment(0.18, 0.25);
    for n in 0..3_u32 {
        let job = stage.job(Workload::SmallSteps, places.clone());
        let at = first + SimMillis::from(n) * stage.span(800.0, 860.0);
        if begins > 0 {
            stage.score(job).set(SimMillis::MIN, FOREVER, Beat::Nobody);
            stage.start_up(job, begins);
        }
        let over = falls(stage, job, gpu, rank, at);
        let label = Draft::new("repeat XID", &["Xid"], LabelSeverity::Critical)
            .lasts(at, at + 660_000)
            .in_job(stage, job)
            .blamed_gpu(gpu)
            .due(60.0)
            .related(&LOSS_SIDE)
            .related(&[
                "GpuUnresponsive",
                "EccUncorrectable",
                "GpuLost",
                "RepeatOffender",
            ]);
        stage.sign(label);
        if n == 1 {
            second = at;
        }
        if n == 2 {
            last = Some((job, at));
        }
        begins = over + stage.span(40.0, 90.0);
    }
    if let Some((job, third)) = last {
        let label = Draft::new("repeat", &["RepeatOffender"], LabelSeverity::Warning)
            .lasts(second, stage.end())
            .in_job(stage, job)
            .blamed_gpu(gpu)
            .due((third - second) as f64 / 1e3 + 120.0);
        stage.sign(label);
    }
}
