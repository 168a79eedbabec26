//! Stories of jobs: idle GPUs, and errors that belong to a program.

use std::time::Duration;

use entrenar::gpu::Values;
use entrenar::metric;
use entrenar::report::{Holder, JobKind};

use crate::andon::testing::{Restarts, Stage, idle, spinning, working};
use crate::andon::{JobState, RuleSet, Scope};

const NODES: [&str; 2] = ["n01", "n02"];

/// A job on four GPUs of two nodes.
fn job(kind: JobKind, restarts: Restarts) -> Stage {
    let mut stage = Stage::new(RuleSet::default()).restarting(restarts);
    for node in NODES {
        stage.hello(node, 2, &[]);
    }
    let gpus = [("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)];
    stage.hold("4711", kind, &gpus);
    stage
}

#[test]
fn all_idle_gpus_of_a_hung_job_are_one_finding() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let mut stage = job(JobKind::Train, restarts);
        stage.work(&NODES, 120);
        stage.play(&NODES, &spinning(), 1000);
        assert_eq!(
            stage.story(),
            "300s Raised critical JobHang job:4711, 1020s Raised warning GpuIdle job:4711 because job_hang",
            "{restarts:?}"
        );
        let raised = &stage.said[1];
        assert!(matches!(&raised.scope, Scope::Job { gpus, .. } if gpus.len() == 4));
        assert_eq!(
            raised.finding.summary,
            "Job 4711 has done nothing on 4 of its 4 GPUs for 15 min"
        );
        assert!(raised.finding.culprits.is_empty());
        assert_eq!(stage.engine.jobs()[0].state, JobState::Hung);
    }
}

#[test]
fn work_clears_it_after_a_minute() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    stage.work(&NODES, 120);
    stage.play(&NODES, &idle(), 1000);
    stage.work(&NODES, 100);
    assert_eq!(
        stage.story(),
        "420s Raised critical JobHang job:4711, 1020s Raised warning GpuIdle job:4711 because job_hang, \
         1120s Recovering critical JobHang job:4711, 1120s Recovering warning GpuIdle job:4711 because job_hang, \
         1130s Cleared(Recovered) critical JobHang job:4711, \
         1180s Cleared(Recovered) warning GpuIdle job:4711 because job_hang"
    );
}

#[test]
fn the_few_that_are_stuck_while_the_others_wait_are_to_blame() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    stage.work(&NODES, 120);
    for _ in 0..950 {
        stage.tick("n01", &[spinning(), spinning()]);
        stage.tick("n02", &[idle(), spinning()]);
        stage.step();
    }
    let finding = &stage.said[0].finding;
    assert_eq!(finding.culprits.len(), 1);
    assert!(
        finding
            .summary
            .contains("; GPU 0 on n02 does nothing while all others wait for it"),
        "{}",
        finding.summary
    );
}

#[test]
fn long_checkpoints_that_write_are_neither_idleness_nor_a_hang() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    let mut written = 0;
    for _ in 0..4 {
        stage.work(&NODES, 300);
        for _ in 0..600 {
            written += 600_000_000;
            let writer = idle().with(metric::PROCESS_WRITE, written);
            stage.tick("n01", &[writer, spinning()]);
            stage.tick("n02", &[spinning(), spinning()]);
            stage.step();
        }
    }
    assert_eq!(stage.story(), "");
}

#[test]
fn a_checkpoint_that_stops_writing_is_a_hang() {
    let mut stage = job(JobKind::Train, Restarts::Often);
    stage.work(&NODES, 900);
    for second in 0..200 {
        let written = 600_000_000 * second.min(60);
        let writer = idle().with(metric::PROCESS_WRITE, written);
        stage.tick("n01", &[writer, spinning()]);
        let waits = spinning().with(metric::PROCESS_WRITE, 0);
        stage.tick("n02", &[waits.clone(), waits]);
        stage.step();
    }
    assert_eq!(stage.pages(), "1010s Raised critical JobHang job:4711");
    let culprits = &stage.said[0].finding.culprits;
    assert_eq!(culprits.len(), 1);
    assert_eq!((culprits[0].node.as_str(), culprits[0].device), ("n01", 0));
}

#[test]
fn a_job_that_the_scheduler_holds_stopped_does_not_hang() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    stage.work(&NODES, 900);
    for (node, device) in [("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)] {
        let uuid = crate::andon::testing::uuid(node, device);
        stage.engine.suspended(stage.now, &uuid, true);
    }
    stage.play(&NODES, &idle(), 900);
    assert_eq!(stage.pages(), "");
}

#[test]
fn gpus_that_nobody_has_ever_used_are_idle_and_in_the_end_a_start_that_is_stuck() {
    // A host that tells nothing may be loading or compiling for longer than a quarter of an hour.
    let told = idle()
        .with(metric::PROCESS_CPU, 1_000)
        .with(metric::PROCESS_READ, 0);
    for (row, at) in [(told, "900s"), (idle(), "1500s")] {
        let mut stage = job(JobKind::Train, Restarts::Never);
        stage.play(&NODES, &row, 2000);
        assert_eq!(
            stage.story(),
            format!(
                "{at} Raised warning GpuIdle job:4711, 1800s Raised warning StartupStuck job:4711"
            )
        );
    }
}

#[test]
fn a_start_in_which_somebody_waits_is_stuck_after_half_an_hour_and_not_idle() {
    let mut stage = job(JobKind::Train, Restarts::Often);
    for _ in 0..1900 {
        stage.tick("n01", &[spinning(), spinning()]);
        stage.tick("n02", &[idle(), spinning()]);
        stage.step();
    }
    assert_eq!(stage.story(), "1800s Raised warning StartupStuck job:4711");
    let culprits = &stage.said[0].finding.culprits;
    assert_eq!((culprits[0].node.as_str(), culprits[0].device), ("n02", 0));
}

#[test]
fn gpus_that_a_job_has_never_used_are_named_while_it_works_on_the_others() {
    let mut stage = job(JobKind::Train, Restarts::Often);
    for _ in 0..1000 {
        stage.tick("n01", &[working(), working()]);
        stage.tick("n02", &[working(), idle()]);
        stage.step();
    }
    assert_eq!(stage.pages(), "900s Raised warning PartialUse job:4711");
}

/// Work at a share of the usual pace: the steps are fewer, so memory is touched less and less power is drawn.
fn at_pace(percent: i64, mhz: i64) -> Values {
    working()
        .with(metric::MEMORY_UTILIZATION, 45 * percent / 100)
        .with(metric::SM_CLOCK, mhz)
        .with(metric::POWER, 120_000 + 5_700 * percent)
}

#[test]
fn a_rank_whose_clock_fell_makes_the_others_wait() {
    let mut stage = job(JobKind::Train, Restarts::Often);
    stage.work(&NODES, 900);
    for _ in 0..200 {
        stage.tick("n01", &[at_pace(80, 1755), at_pace(80, 1755)]);
        stage.tick("n02", &[at_pace(100, 1400), at_pace(80, 1755)]);
        stage.step();
    }
    let pages = stage.pages();
    assert!(
        pages.ends_with("s Raised warning Straggler gpu:GPU-n02-0"),
        "{pages}"
    );
}

#[test]
fn a_slow_stage_that_was_always_slow_is_no_straggler() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    for _ in 0..2000 {
        stage.tick("n01", &[at_pace(80, 1755), at_pace(80, 1755)]);
        stage.tick("n02", &[at_pace(100, 1400), at_pace(100, 1400)]);
        stage.step();
    }
    assert_eq!(stage.story(), "");
}

#[test]
fn a_job_that_is_slower_as_a_whole_blames_no_rank() {
    let mut stage = job(JobKind::Train, Restarts::Often);
    stage.work(&NODES, 900);
    stage.play(&NODES, &at_pace(60, 1755), 600);
    let pages = stage.pages();
    assert!(
        pages.ends_with("s Raised warning JobSlow job:4711"),
        "{pages}"
    );
    assert_eq!(stage.said.len(), 1, "{}", stage.story());
    // Its own pace is not forgotten meanwhile.
    stage.play(&NODES, &at_pace(60, 1755), 3000);
    assert_eq!(stage.said.len(), 1, "{}", stage.story());
}

#[test]
fn servers_and_notebooks_are_idle_by_right() {
    for kind in [JobKind::Inference, JobKind::Interactive] {
        let mut stage = job(kind, Restarts::Never);
        stage.work(&NODES, 120);
        stage.play(&NODES, &idle(), 2000);
        assert_eq!(stage.story(), "", "{kind:?}");
    }
}

#[test]
fn an_idle_job_that_ends_is_over() {
    let mut stage = job(JobKind::Unknown, Restarts::Never);
    stage.work(&NODES, 120);
    stage.play(&NODES, &idle(), 1000);
    for (node, device) in [("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)] {
        stage.give(node, device, None);
    }
    stage.play(&NODES, &idle(), 1000);
    assert_eq!(
        stage.story(),
        "1020s Raised warning GpuIdle job:4711, 1120s Cleared(HolderGone) warning GpuIdle job:4711"
    );
    assert!(stage.engine.jobs().is_empty());
}

#[test]
fn one_process_more_is_not_another_job() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    stage.work(&NODES, 120);
    stage.play(&NODES, &idle(), 500);
    let holder = Holder {
        job: "4711".into(),
        kind: JobKind::Train,
        pids: vec![1, 2],
        ..Holder::default()
    };
    stage.give("n01", 0, Some(holder));
    stage.play(&NODES, &idle(), 500);
    assert_eq!(
        stage.story(),
        "420s Raised critical JobHang job:4711, 1020s Raised warning GpuIdle job:4711 because job_hang"
    );
}

#[test]
fn a_gap_of_data_proves_no_idleness() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    stage.work(&NODES, 120);
    stage.play(&NODES, &idle(), 400);
    for _ in 0..400 {
        stage.step();
    }
    stage.play(&NODES, &idle(), 200);
    assert!(!stage.story().contains("GpuIdle"), "{}", stage.story());
}

#[test]
fn bursts_between_samples_are_work() {
    // An offloading job that shows 0 % at every instant we look, but uses energy.
    let mut stage = job(JobKind::Train, Restarts::Never).every(Duration::from_secs(10));
    stage.work(&NODES, 120);
    let mut energy = 1_000_000_000;
    for _ in 0..200 {
        energy += 1_860_000;
        let row = idle().with(entrenar::metric::ENERGY, energy);
        stage.all(&NODES, &row);
        stage.step();
    }
    assert_eq!(stage.story(), "");
}

#[test]
fn steps_that_keep_time_with_the_sampling_are_work_also_on_a_board_whose_clocks_are_low() {
    let mut stage = Stage::new(RuleSet::default()).every(Duration::from_secs(10));
    for node in NODES {
        stage.hello(node, 2, &[]);
    }
    let gpus = [("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)];
    stage.hold("4711", JobKind::Train, &gpus);
    for tick in 0..200 {
        // 90 W at every look, 112 W on the mean: less than an H100 draws at rest at full clocks.
        let row = idle()
            .with(metric::POWER, 90_000)
            .with(metric::ENERGY, 1_000_000_000 + tick * 1_120_000);
        stage.all(&NODES, &row);
        stage.step();
    }
    assert_eq!(stage.story(), "");
}

#[test]
fn a_storm_of_a_program_s_own_errors_is_one_record_on_its_job() {
    let mut stage = job(JobKind::Train, Restarts::Often);
    for _ in 0..5 {
        for (node, device) in [("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)] {
            stage.xid(node, device, 31);
            stage.xid(node, device, 31);
        }
        stage.all(&NODES, &working());
        stage.step();
    }
    assert_eq!(stage.story(), "0s Raised info Xid job:4711");
    stage.work(&NODES, 700);
    assert!(
        stage
            .story()
            .ends_with("604s Cleared(Recovered) info Xid job:4711"),
        "{}",
        stage.story()
    );
}

#[test]
fn a_job_that_the_scheduler_has_stopped_does_not_idle() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 2, &[]);
    stage.hold("4711", JobKind::Train, &[("n01", 0), ("n01", 1)]);
    stage.work(&["n01"], 100);
    for device in 0..2 {
        stage
            .engine
            .suspended(stage.now, &crate::andon::testing::uuid("n01", device), true);
    }
    stage.play(&["n01"], &crate::andon::testing::idle(), 2000);
    assert_eq!(stage.story(), "");
}

#[test]
fn a_pause_of_which_half_is_late_is_no_hang_until_the_late_are_judged() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    for node in ["n03", "n04", "n05", "n06"] {
        stage.hello(node, 2, &[]);
    }
    let others = ["n03", "n04", "n05", "n06"];
    let told = |row: Values| {
        row.with(metric::PROCESS_CPU, 1_000)
            .with(metric::PROCESS_READ, 0)
    };
    for _ in 0..700 {
        stage.all(&NODES, &told(working()));
        stage.all(&others, &working());
        stage.step();
    }
    // One rank waits for the other's checkpoint, whose node and three more are late for 57 s.
    for _ in 0..57 {
        stage.all(&NODES[..1], &told(spinning()));
        stage.all(&others[..1], &working());
        stage.step();
    }
    for _ in 0..60 {
        stage.all(&NODES, &told(working()));
        stage.all(&others, &working());
        stage.step();
    }
    assert_eq!(
        stage.pages().matches("JobHang").count(),
        0,
        "{}",
        stage.pages()
    );
}

#[test]
fn after_a_long_checkpoint_nobody_idles_who_is_only_looked_at_a_moment_later() {
    let mut stage = Stage::new(RuleSet::default()).every(Duration::from_secs(10));
    for node in NODES {
        stage.hello(node, 2, &[]);
    }
    stage.hold(
        "4711",
        JobKind::Train,
        &[("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)],
    );
    let write = |row: Values, bytes: i64| {
        row.with(metric::PROCESS_CPU, bytes / 1_000_000)
            .with(metric::PROCESS_WRITE, bytes)
    };
    // Each node speaks half an interval after the other.
    stage.interval = Duration::from_secs(5);
    for half in 0..600_usize {
        let pauses = (360..=598).contains(&half);
        let row = if pauses { idle() } else { working() };
        let row = write(row, half as i64 * 5_000_000_000);
        stage.all(&NODES[half % 2..=half % 2], &row);
        stage.step();
    }
    assert_eq!(stage.story(), "");
}
