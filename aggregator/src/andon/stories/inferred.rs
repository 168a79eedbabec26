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

#[test]
fn notebooks_beside_each_other_are_no_job() {
    let mut stage = stage(Restarts::Never);
    for second in 0..4000_i64 {
        // Each works for a minute now and then, on its own.
        let works = |device: i64| (second / 60) % 16 == 2 * device;
        let row = |device: i64| if works(device) { working() } else { idle() };
        let rows: Vec<Values> = (0..8).map(row).collect();
        stage.tick("n01", &rows);
        stage.step();
    }
    assert_eq!(stage.story(), "");
    assert!(stage.engine.jobs().is_empty());
}

/// A server under light load, and under all the load that it can take.
fn serving(is_full: bool) -> Values {
    if is_full {
        return working();
    }
    working()
        .with(metric::UTILIZATION, 45)
        .with(metric::MEMORY_UTILIZATION, 15)
        .with(metric::POWER, 220_000)
}

#[test]
fn a_server_whose_load_falls_back_is_not_slow() {
    for restarts in ALL {
        let mut stage = stage(restarts);
        for (is_full, seconds) in [(false, 400), (true, 200), (false, 900), (true, 300)] {
            stage.play(&NODE, &serving(is_full), seconds);
        }
        stage.play(&NODE, &serving(false), 900);
        assert_eq!(stage.story(), "");
    }
}

/// Nodes of which nobody names the jobs: they hold this much memory, and stop after so many seconds.
fn stop(jobs: &[(&'static str, i64, i64)]) -> String {
    let mut stage = Stage::new(RuleSet::default());
    for (node, ..) in jobs {
        stage.hello(node, 8, &[]);
    }
    for second in 0..1200 {
        for (node, gibibytes, stops) in jobs {
            let row = if second < *stops {
                rank(second)
            } else {
                idle()
            };
            let row = row
                .with(metric::MEMORY_USED, gibibytes << 30)
                .with(metric::PROCESSES, None);
            stage.tick(node, &vec![row; 8]);
        }
        stage.step();
    }
    stage.pages()
}

#[test]
fn jobs_that_nobody_names_and_that_stop_one_after_another_wait_for_storage() {
    let pages = stop(&[
        ("n01", 30, 600),
        ("n02", 30, 601),
        ("n03", 40, 610),
        ("n04", 60, 625),
    ]);
    assert!(
        pages.ends_with("s Raised critical StorageStall nodes:jobs inferred on n01, inferred on n02, inferred on n03, inferred on n04"),
        "{pages}"
    );
    assert!(!pages.contains("JobHang"), "{pages}");
}

#[test]
fn one_job_that_stops_everywhere_at_once_does_not_wait_for_storage() {
    for memory in [[30, 30, 30, 30], [30, 40, 50, 60]] {
        let [a, b, c, d] = memory;
        let pages = stop(&[
            ("n01", a, 600),
            ("n02", b, 601),
            ("n03", c, 600),
            ("n04", d, 602),
        ]);
        assert!(
            pages.ends_with("s Raised critical JobHang node:n01"),
            "{memory:?} {pages}"
        );
        assert!(!pages.contains("StorageStall"), "{memory:?} {pages}");
    }
}

/// Two nodes of one job, and one of another that pauses when it likes.
fn three(restarts: Restarts) -> Stage {
    let mut stage = Stage::new(RuleSet::default()).restarting(restarts);
    for node in THREE {
        stage.hello(node, 8, &[]);
    }
    stage
}

const THREE: [&str; 3] = ["n01", "n02", "n03"];

/// One second, in which each node does what it is told to.
fn second(stage: &mut Stage, second: i64, works: [bool; 3]) {
    for (node, works) in THREE.iter().zip(works) {
        let row = if works {
            rank(second)
        } else {
            spinning().with(metric::PROCESSES, 1)
        };
        stage.tick(node, &vec![row; 8]);
    }
    stage.step();
}

/// Checkpoints of half a minute: of the first job each ten minutes, of the second each nine.
fn train_with_checkpoints(stage: &mut Stage, seconds: i64) {
    for at in 0..seconds {
        let first = at % 600 < 570;
        second(stage, at, [first, first, at % 540 < 510]);
    }
}

fn names(stage: &Stage) -> Vec<String> {
    let jobs = stage.engine.jobs();
    let name = |job: &crate::andon::JobView| format!("{} ({})", job.job, job.gpus.len());
    jobs.iter().map(name).collect()
}

#[test]
fn nodes_that_pause_and_go_on_together_twice_are_one_job() {
    for restarts in ALL {
        let mut stage = three(restarts);
        train_with_checkpoints(&mut stage, 1100);
        assert_eq!(
            names(&stage),
            [
                "inferred on n01 (8)",
                "inferred on n02 (8)",
                "inferred on n03 (8)"
            ]
        );
        train_with_checkpoints(&mut stage, 1300);
        assert_eq!(
            names(&stage),
            ["inferred on n01 and others (16)", "inferred on n03 (8)"]
        );
        assert_eq!(stage.story(), "");
    }
}

#[test]
fn a_job_that_was_joined_hangs_as_a_whole_and_is_one_page() {
    for restarts in ALL {
        let mut stage = three(restarts);
        train_with_checkpoints(&mut stage, 2400);
        for at in 0..300 {
            second(&mut stage, at, [false, false, true]);
        }
        let pages = stage.pages();
        assert!(
            pages.ends_with("s Raised critical JobHang nodes:inferred on n01 and others"),
            "{pages}"
        );
        assert_eq!(pages.matches("Raised").count(), 1, "{pages}");
    }
}

#[test]
fn a_node_that_stands_still_while_the_others_work_was_joined_wrongly_and_hangs_alone() {
    for restarts in ALL {
        let mut stage = three(restarts);
        train_with_checkpoints(&mut stage, 2400);
        for at in 0..240 {
            second(&mut stage, at, [true, false, true]);
        }
        let pages = stage.pages();
        assert!(
            pages.ends_with("s Raised critical JobHang node:n02"),
            "{pages}"
        );
        assert_eq!(pages.matches("Raised").count(), 1, "{pages}");
        assert_eq!(names(&stage).len(), 3);
    }
}

#[test]
fn a_job_that_was_joined_is_no_part_of_another_that_hangs_a_moment_before() {
    let mut stage = three(Restarts::Never);
    train_with_checkpoints(&mut stage, 2400);
    for at in 0..300 {
        let first = at < 10;
        second(&mut stage, at, [first, first, false]);
    }
    let pages = stage.pages();
    assert!(pages.contains("JobHang node:n03"), "{pages}");
    assert!(
        pages.contains("JobHang nodes:inferred on n01 and others"),
        "{pages}"
    );
}

#[test]
fn what_was_found_of_an_inferred_job_is_over_when_its_programs_are_gone() {
    let mut stage = stage(Restarts::Often);
    train(&mut stage, 900);
    stage.play(&NODE, &idle().with(metric::PROCESSES, 1), 1000);
    // Idle GPUs that nobody has been given are nobody's waste.
    assert!(!stage.story().contains("GpuIdle"), "{}", stage.story());
    let off = idle()
        .with(metric::PROCESSES, 0)
        .with(metric::MEMORY_USED, 0);
    stage.play(&NODE, &off, 200);
    assert!(stage.engine.jobs().is_empty());
    let story = stage.story();
    let is_over = |line: &str| line.contains("Cleared") && line.contains("JobHang");
    assert!(story.split(", ").any(is_over), "{story}");
}

#[test]
fn servers_that_rest_at_night_beside_each_other_are_no_job_that_hangs_stalls_or_idles() {
    let mut stage = stage(Restarts::Never);
    let busy = working().with(metric::PROCESSES, 1);
    let rests = idle().with(metric::PROCESSES, 1);
    for round in 0..40 {
        // Bursts by day, one GPU after the other, and then none.
        let served = if round < 20 { 40 } else { 0 };
        stage.play(&NODE, &busy, served);
        stage.play(&NODE, &rests, 60);
    }
    assert_eq!(stage.story(), "");
}
