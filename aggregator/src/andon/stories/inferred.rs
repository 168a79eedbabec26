//! Stories of jobs that nobody names.

use entrenar::gpu::Values;
use entrenar::metric;
use entrenar::report::JobKind;

use crate::andon::RuleSet;
use crate::andon::testing::{Restarts, Stage, idle, spinning, working};

const NODE: [&str; 1] = ["n01"];
const ALL: [Restarts; 2] = [Restarts::Never, Restarts::Often];

/// A node of eight GPUs without a scheduler.
fn stage(restarts: Restarts) -> Stage {
    let mut stage = Stage::new(RuleSet::default()).restarting(restarts);
    stage.hello("n01", 8, &[]);
    stage
}

/// GPUs of training ranks exchange data, and each has a program.
fn rank(second: i64) -> Values {
    working()
        .with(metric::PROCESSES, 1)
        .with(metric::NVLINK_TX, second * 9_000_000_000)
}

fn train(stage: &mut Stage, seconds: i64) {
    for second in 0..seconds {
        stage.all(&NODE, &rank(second));
        stage.step();
    }
}

#[test]
fn what_a_killed_job_leaves_running_is_a_zombie_and_no_hang() {
    for restarts in ALL {
        let mut stage = stage(restarts);
        train(&mut stage, 900);
        stage.play(&NODE, &spinning().with(metric::PROCESSES, 0), 2000);
        assert!(
            stage
                .pages()
                .starts_with("960s Raised warning ZombieGpu gpu:GPU-n01-0"),
            "{}",
            stage.pages()
        );
        assert!(!stage.story().contains("JobHang"), "{}", stage.story());
    }
}

#[test]
fn a_job_whose_programs_are_there_and_wait_hangs() {
    let mut stage = stage(Restarts::Often);
    train(&mut stage, 900);
    stage.play(&NODE, &spinning().with(metric::PROCESSES, 1), 400);
    assert_eq!(stage.pages(), "1080s Raised critical JobHang node:n01");
}

#[test]
fn a_start_in_which_one_never_arrives_is_stuck_without_a_scheduler_too() {
    for restarts in ALL {
        let mut stage = stage(restarts);
        let off = idle()
            .with(metric::CLOCK_EVENT_REASONS, metric::clock_reason::GPU_IDLE)
            .with(metric::MEMORY_USED, 0);
        stage.play(&NODE, &off, 300);
        let mut rows = vec![spinning(); 8];
        rows[5] = idle();
        for _ in 0..2000 {
            stage.tick("n01", &rows);
            stage.step();
        }
        assert_eq!(stage.story(), "2101s Raised warning StartupStuck node:n01");
        let culprits = &stage.said[0].finding.culprits;
        assert_eq!((culprits.len(), culprits[0].device), (1, 5));
    }
}

#[test]
fn a_kernel_that_outlives_its_job_is_a_zombie_where_no_processes_are_counted() {
    for restarts in ALL {
        let mut stage = stage(restarts);
        let gpus: Vec<(&str, u32)> = (0..8).map(|device| ("n01", device)).collect();
        stage.hold("4711", JobKind::Train, &gpus);
        stage.work(&NODE, 900);
        for (node, device) in gpus {
            stage.give(node, device, None);
        }
        stage.play(&NODE, &spinning(), 600);
        let story = stage.story();
        assert!(
            story.starts_with("1020s Raised warning ZombieGpu gpu:GPU-n01-0"),
            "{story}"
        );
    }
}

#[test]
fn a_program_that_leaves_within_a_minute_of_its_job_is_none() {
    let mut stage = stage(Restarts::Often);
    stage.hold("4711", JobKind::Train, &[("n01", 0), ("n01", 1)]);
    stage.work(&NODE, 900);
    stage.give("n01", 0, None);
    stage.give("n01", 1, None);
    stage.play(&NODE, &spinning(), 60);
    stage.play(&NODE, &idle().with(metric::MEMORY_USED, 0), 600);
    assert_eq!(stage.story(), "");
}

#[test]
fn ranks_of_a_training_job_that_have_loaded_and_idle_are_a_start_that_is_stuck() {
    let mut stage = stage(Restarts::Often);
    let gpus: Vec<(&str, u32)> = (0..8).map(|device| ("n01", device)).collect();
    stage.hold("4711", JobKind::Train, &gpus);
    for second in 0..2000 {
        let row = idle().with(metric::PROCESS_CPU, second * 200);
        stage.all(&NODE, &row);
        stage.step();
    }
    assert_eq!(
        stage.story(),
        "900s Raised warning GpuIdle job:4711, 1800s Raised warning StartupStuck job:4711"
    );
}

#[test]
fn where_programs_are_never_seen_none_counted_proves_nothing() {
    let mut stage = stage(Restarts::Never);
    for second in 0..900 {
        stage.all(&NODE, &rank(second).with(metric::PROCESSES, 0));
        stage.step();
    }
    stage.play(&NODE, &spinning().with(metric::PROCESSES, 0), 400);
    assert_eq!(stage.pages(), "1080s Raised critical JobHang node:n01");
}
