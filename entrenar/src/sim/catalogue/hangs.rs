//! Jobs that stop making progress, and cannot say so. *(pure)*

use super::Case;
use super::Expect::{Page, Warning};
use crate::sim::activity::{BLOCKED, SLEEPING, STOPPED};
use crate::sim::job::{SimMillis, Workload};
use crate::sim::plan::FOREVER;
use crate::sim::score::Beat;
use crate::sim::stage::{Draft, HANG_SIDE, JobRef, LabelSeverity, Stage};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "H1",
        Page,
        "a collective hangs: every rank spins at idle power until the watchdog",
        spin,
    ),
    Case::new(
        "H2",
        Page,
        "one rank is stopped, or deadlocks in Python; the others spin for it",
        stopped,
    ),
    Case::new(
        "H3",
        Page,
        "one rank's data loader deadlocks; the others spin for it",
        loader,
    ),
    Case::new(
        "H4",
        Page,
        "a kernel loops without end on one GPU; the others spin for it",
        endless_kernel,
    ),
    Case::new(
        "H5",
        Page,
        "every rank is blocked on its host: a teardown that never ends",
        cold,
    ),
    Case::new(
        "H5-stopped",
        Page,
        "every rank is stopped by a signal, and no scheduler says that it meant to",
        all_stopped,
    ),
    Case::new(
        "H6",
        Warning,
        "one replica of a job hangs, and the rest goes on slower",
        partial,
    )
    .needs(3_000),
    Case::new(
        "H7",
        Page,
        "steps take longer and longer over five minutes, then the job hangs",
        slow_onset,
    )
    .needs(2_700),
    Case::new(
        "H8",
        Page,
        "a checkpoint begins and never ends",
        inside_checkpoint,
    )
    .needs(3_000),
    Case::new(
        "H9",
        Warning,
        "a rank never arrives at the start; the others wait for it",
        start_up,
    )
    .needs(4_200),
    Case::new(
        "H10",
        Page,
        "storage stops answering: every job that reads from it stands still",
        storage,
    )
    .needs(2_700),
    Case::new(
        "H11",
        Page,
        "a node's InfiniBand link goes down and stays down",
        link_down,
    ),
    Case::new(
        "H11-flap",
        Warning,
        "a node's InfiniBand link is down for twenty seconds",
        link_flap,
    ),
    Case::new(
        "H12",
        Page,
        "a switch is lost: the links of all its nodes go down together",
        switch_down,
    ),
];

/// Seconds in which a hang is to be found.
const DUE_S: f64 = 300.0;

pub(super) fn hang_label(
    stage: &Stage,
    scenario: &'static str,
    job: JobRef,
    from: SimMillis,
    to: SimMillis,
) -> Draft {
    Draft::new(scenario, &["JobHang"], LabelSeverity::Critical)
        .lasts(from, to)
        .whole_job(stage, job)
        .due(DUE_S)
        .related(&HANG_SIDE)
}

/// A training job of one to eight nodes; of up to 64 where agents report seldom enough for a trace to hold them.
pub(super) fn some_training(stage: &mut Stage) -> JobRef {
    let is_slow = stage.setting.interval.as_secs() >= 5;
    let nodes = if is_slow && stage.dice.chance(0.1) {
        stage.dice.pick(&[16, 16, 32, 64])
    } else {
        stage.dice.pick(&[1, 2, 2, 4, 4, 8])
    };
    stage.training(nodes)
}

fn spin(stage: &mut Stage) {
    let job = some_training(stage);
    let at = stage.moment(0.3, 0.6);
    let to = stage.hang(job, at, Beat::Spin);
    stage.sign(hang_label(stage, "H1", job, at, to));
}

fn with_culprit(stage: &mut Stage, scenario: &'static str, beat: impl Fn(u32) -> Beat) {
    let job = some_training(stage);
    let at = stage.moment(0.3, 0.6);
    let (rank, gpu) = stage.any_rank(job);
    let to = stage.hang(job, at, beat(rank));
    let label = hang_label(stage, scenario, job, at, to).culprit(gpu);
    stage.sign(label);
}

fn stopped(stage: &mut Stage) {
    let state = stage.dice.pick(&[STOPPED, SLEEPING, BLOCKED]);
    with_culprit(stage, "H2", |culprit| Beat::Held { culprit, state });
}

fn loader(stage: &mut Stage) {
    with_culprit(stage, "H3", |culprit| Beat::Held {
        culprit,
        state: SLEEPING,
    });
}

fn endless_kernel(stage: &mut Stage) {
    with_culprit(stage, "H4", |culprit| Beat::Loops { culprit });
}

fn cold(stage: &mut Stage) {
    let job = some_training(stage);
    let at = stage.moment(0.3, 0.55);
    let state = stage.dice.pick(&[SLEEPING, SLEEPING, BLOCKED]);
    let to = stage.hang(job, at, Beat::Cold { state });
    // Nothing spins: it takes twice as long to be sure.
    stage.sign(hang_label(stage, "H5", job, at, to).due(420.0));
}

fn all_stopped(stage: &mut Stage) {
    let job = some_training(stage);
    let at = stage.moment(0.3, 0.55);
    let to = at + stage.span(620.0, 860.0);
    stage.score(job).set(at, to, Beat::Cold { state: STOPPED });
    let label = hang_label(stage, "N30 unflagged", job, at, to).due(420.0);
    stage.sign(label);
}

/// One replica of several is stuck for a quarter of an hour or more.
fn partial(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[2, 4, 8]);
    let taken = stage.take(nodes);
    let workload = stage.dice.pick(&[
        Workload::Pipeline,
        Workload::DataParallel,
        Workload::Sharded,
    ]);
    let job = stage.job(workload, stage.all_of(&taken));
    stage.live(job);
    let at = stage.moment(0.3, 0.45);
    let to = at + stage.span(900.0, 1_200.0);
    let node = stage.dice.pick(&taken);
    let stuck = stage.ranks_on(job, node);
    let culprit = stage.dice.whole(stuck.0, stuck.1 - 1);
    let gpu = stage.places(job)[culprit as usize];
    let speed = stage.dice.between(0.6, 0.9);
    let beat = Beat::Partly {
        stuck,
        culprit,
        speed,
    };
    stage.score(job).set(at, to, beat);
    let label = Draft::new(
        "H6",
        &["JobStall", "JobHang", "PartialUse"],
        LabelSeverity::Warning,
    )
    .lasts(at, to)
    .in_job(stage, job)
    .nodes(&[node])
    .culprit(gpu)
    .due(700.0)
    .related(&["JobSlow", "Straggler", "GpuIdle"]);
    stage.sign(label);
}

fn slow_onset(stage: &mut Stage) {
    let job = some_training(stage);
    let onset = stage.moment(0.3, 0.45);
    let lasts = stage.span(240.0, 360.0);
    for (n, speed) in [(0, 0.5), (1, 0.25), (2, 0.12), (3, 0.05)] {
        let from = onset + lasts / 4 * n;
        let beat = Beat::Slowed {
            speed,
            late: (0, 0),
        };
        stage.score(job).set(from, from + lasts / 4, beat);
    }
    let at = onset + lasts / 4 * 4;
    let to = stage.hang(job, at, Beat::Spin);
    let slow = Draft::new(
        "H7 onset",
        &["JobSlow", "NetworkFault"],
        LabelSeverity::Warning,
    )
    .lasts(onset, at)
    .whole_job(stage, job)
    .due_exactly(lasts as f64 / 1e3)
    .related(&HANG_SIDE)
    .related(&["JobHang"])
    .optional();
    stage.sign(slow);
    let label = hang_label(stage, "H7", job, at, to).related(&["NetworkFault"]);
    stage.sign(label);
}

/// The writer's storage stops answering in the middle of a checkpoint that is due.
fn inside_checkpoint(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2, 4]);
    let taken = stage.take(nodes);
    let workload = stage.dice.pick(&[
        Workload::DataParallel,
        Workload::Sharded,
        Workload::Pipeline,
    ]);
    let job = stage.job(workload, stage.all_of(&taken));
    hang_in_checkpoint(stage, "H8", job);
}

/// Gives a job checkpoints, and lets one of them never end. Returns when it began.
pub(super) fn hang_in_checkpoint(
    stage: &mut Stage,
    scenario: &'static str,
    job: JobRef,
) -> SimMillis {
    let at = stage.moment(0.45, 0.65);
    let usual = stage.span(25.0, 110.0);
    let every = stage.span(480.0, 1_000.0);
    stage.checkpoints(
        job,
        crate::sim::stage::Checkpoints {
            every_ms: every,
            lasts_ms: usual,
            anchor_ms: at,
        },
    );
    let copy_ms = stage.span(2.0, 10.0);
    let beat = Beat::Checkpoint {
        copy_ms,
        writer_every: u32::MAX,
        write_rate: 0.0,
    };
    let to = stage.hang(job, at, beat);
    let writer = stage.places(job)[0];
    let label = Draft::new(
        scenario,
        &["JobHang", "StorageStall"],
        LabelSeverity::Critical,
    )
    .lasts(at, to)
    .whole_job(stage, job)
    .culprit(writer)
    .due(DUE_S + usual as f64 / 1e3)
    .related(&HANG_SIDE);
    stage.sign(label);
    at
}

fn start_up(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[1, 2, 4]);
    let taken = stage.take(nodes);
    let job = stage.job(Workload::DataParallel, stage.all_of(&taken));
    let starts = Stage::at(stage.dice.between(60.0, 240.0));
    let pulled = starts + stage.span(30.0, 300.0);
    let (rank, gpu) = stage.any_rank(job);
    let window_ms = stage.span(20.0, 200.0);
    let barrier = Beat::Barrier {
        window_ms,
        absent: Some(rank),
        spins: stage.dice.chance(0.6),
    };
    let score = stage.score(job);
    score.set(SimMillis::MIN, starts, Beat::Nobody);
    score.set(starts, pulled, Beat::Pull);
    score.set(pulled, FOREVER, barrier);
    let label = Draft::new("H9", &["StartupStuck", "JobHang"], LabelSeverity::Warning)
        .lasts(pulled, stage.end())
        .whole_job(stage, job)
        .culprit(gpu)
        .due_exactly(2_400.0)
        .related(&HANG_SIDE);
    stage.sign(label);
}

fn storage(stage: &mut Stage) {
    let at = stage.moment(0.35, 0.55);
    let to = at + stage.span(600.0, 780.0);
    let n_jobs = stage.dice.whole(3, 5);
    let mut label = Draft::new("H10", &["StorageStall"], LabelSeverity::Critical)
        .lasts(at, to)
        .due(DUE_S)
        .related(&HANG_SIDE)
        .related(&["JobHang", "NetworkFault"]);
    for n in 0..n_jobs {
        let nodes = stage.dice.whole(1, 3);
        let taken = stage.take(nodes);
        let workload = stage.dice.pick(&[
            Workload::SmallSteps,
            Workload::LoaderBound,
            Workload::DataParallel,
        ]);
        let job = stage.job(workload, stage.all_of(&taken));
        // A job notices when its buffers are empty.
        let notices = at + if n == 0 { 0 } else { stage.span(2.0, 55.0) };
        let back = to + stage.span(0.0, 20.0);
        stage
            .score(job)
            .set(notices, back, Beat::Cold { state: BLOCKED });
        label = label.whole_job(stage, job);
        if workload == Workload::LoaderBound {
            stage.may_seem_slow(job);
        }
    }
    stage.sign(label);
}

fn link_down(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[2, 4, 4, 8]);
    let job = stage.training(nodes);
    let at = stage.moment(0.3, 0.6);
    let node = {
        let nodes = stage.nodes_of(job);
        stage.dice.pick(&nodes)
    };
    let to = stage.hang(job, at, Beat::Spin);
    let label = Draft::new("H11", &["NetworkFault", "JobHang"], LabelSeverity::Critical)
        .lasts(at, to)
        .whole_job(stage, job)
        .culprit_node(node)
        .due(DUE_S)
        .related(&HANG_SIDE)
        .related(&["JobHang", "NodeFlapping"]);
    stage.sign(label);
}

fn link_flap(stage: &mut Stage) {
    let nodes = stage.dice.pick(&[2, 4]);
    let job = stage.training(nodes);
    let at = stage.moment(0.2, 0.8);
    let node = {
        let nodes = stage.nodes_of(job);
        stage.dice.pick(&nodes)
    };
    let to = at + stage.span(15.0, 45.0);
    stage.score(job).set(at, to, Beat::Spin);
    let label = Draft::new("H11 flap", &["NetworkFault"], LabelSeverity::Warning)
        .lasts(at, to)
        .whole_job(stage, job)
        .culprit_node(node)
        .related(&HANG_SIDE)
        .optional();
    stage.sign(label);
}

fn switch_down(stage: &mut Stage) {
    let jobs: Vec<JobRef> = (0..stage.dice.whole(2, 3))
        .map(|_| {
            let nodes = stage.dice.pick(&[2, 4, 4]);
            stage.training(nodes)
        })
        .collect();
    let nodes: Vec<u32> = jobs.iter().flat_map(|&job| stage.nodes_of(job)).collect();
    let name = format!("sw-{}", nodes[0] + 1);
    stage.hang_together("switch", &name, &nodes);
    let at = stage.moment(0.35, 0.6);
    let to = at + stage.span(620.0, 780.0);
    let mut label = Draft::new("H12", &["NetworkFault"], LabelSeverity::Critical)
        .lasts(at, to)
        .blamed_nodes(&nodes)
        .due(DUE_S)
        .related(&HANG_SIDE)
        .related(&["JobHang", "NodeFlapping"]);
    for &job in &jobs {
        let waits = at + stage.span(0.0, 2.0);
        stage.score(job).set(waits, to, Beat::Spin);
        stage.finish(job, to);
        label = label.in_job(stage, job);
    }
    stage.sign(label);
}
