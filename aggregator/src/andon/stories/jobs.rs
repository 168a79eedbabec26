//! Stories of jobs: idle GPUs, and errors that belong to a program.

use std::time::Duration;

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
            "1020s Raised warning GpuIdle job:4711",
            "{restarts:?}"
        );
        let raised = &stage.said[0];
        assert!(matches!(&raised.scope, Scope::Job { gpus, .. } if gpus.len() == 4));
        assert_eq!(
            raised.finding.summary,
            "Job 4711 has done nothing on 4 of its 4 GPUs for 15 min"
        );
        assert!(raised.finding.culprits.is_empty());
        assert_eq!(stage.engine.jobs()[0].state, JobState::Idle);
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
        "1020s Raised warning GpuIdle job:4711, 1120s Recovering warning GpuIdle job:4711, 1180s Cleared(Recovered) warning GpuIdle job:4711"
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
        finding.summary.ends_with("; GPU 0 on n02 may hold it up"),
        "{}",
        finding.summary
    );
}

#[test]
fn checkpoints_and_long_pauses_are_not_idleness() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    for _ in 0..4 {
        stage.work(&NODES, 300);
        stage.play(&NODES, &spinning(), 600);
    }
    assert_eq!(stage.story(), "");
}

#[test]
fn a_gpu_that_has_not_worked_for_its_holder_is_not_idle() {
    let mut stage = job(JobKind::Train, Restarts::Never);
    stage.play(&NODES, &idle(), 2000);
    assert_eq!(stage.story(), "");
    // It has worked, but for someone else.
    stage.work(&NODES, 100);
    stage.hold(
        "4712",
        JobKind::Train,
        &[("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)],
    );
    stage.play(&NODES, &idle(), 2000);
    assert_eq!(stage.story(), "");
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
    assert_eq!(stage.story(), "1020s Raised warning GpuIdle job:4711");
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
