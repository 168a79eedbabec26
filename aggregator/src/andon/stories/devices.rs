//! Stories of one device among its like: each runs straight, and once more with a restart every few samples.

use std::time::Duration;

use entrenar::gpu::Values;
use entrenar::metric::{self, MetricId, clock_reason};
use entrenar::report::JobKind;
use entrenar::testing::series;

use crate::andon::testing::{Restarts, Stage, failing, idle, working};
use crate::andon::{Effort, RuleSet};

const GPUS: u32 = 4;

/// Plays a series on GPU 0 of a node, a token a step; the others of the node say what `others` says. Compares what was
/// said, and by `held` whether a job holds the GPUs.
fn play(
    step: Duration,
    held: bool,
    row: impl Fn(f64) -> Values,
    others: impl Fn(f64) -> Values,
    samples: &str,
    expected: &str,
) {
    for restarts in [Restarts::Never, Restarts::Often] {
        let mut stage = Stage::new(RuleSet::default())
            .every(step)
            .restarting(restarts);
        stage.hello("n01", GPUS, &[]);
        if held {
            let gpus: Vec<(&str, u32)> = (0..GPUS).map(|gpu| ("n01", gpu)).collect();
            stage.hold("4711", JobKind::Train, &gpus);
        }
        let (mut energy, mut n) = ([0; GPUS as usize], 0);
        for (_, value) in series(samples, step) {
            n += 1;
            if let Some(value) = value {
                let mut lively = |row: Values, gpu: usize| {
                    let mw = row.get(metric::POWER);
                    energy[gpu] += mw.unwrap_or(690_000) * step.as_millis() as i64 / 1000;
                    let moves = row.get(metric::PROCESS_STATE).is_none();
                    let moved = mw.map(|mw| mw + (n * 37 + gpu as i64 * 11) % 97 * 10);
                    let row = row.with(metric::ENERGY, energy[gpu]);
                    if moves {
                        row.with(metric::POWER, moved)
                    } else {
                        row
                    }
                };
                let rows: Vec<Values> = (0..GPUS as usize)
                    .map(|gpu| match gpu {
                        0 => lively(row(value), 0),
                        _ => lively(others(value), gpu),
                    })
                    .collect();
                stage.tick("n01", &rows);
            }
            stage.step();
        }
        let said = stage.story().replace(" gpu:GPU-n01-0", "");
        let about: Vec<&str> = said
            .split(", ")
            .filter(|line| !line.contains("NodeLost") && !line.is_empty())
            .collect();
        assert_eq!(about.join(", "), expected, "{samples} ({restarts:?})");
        stage.assert_times_rise();
    }
}

fn check(row: impl Fn(f64) -> Values, samples: &str, expected: &str) {
    play(
        Duration::from_secs(1),
        true,
        row,
        |_| working(),
        samples,
        expected,
    );
}

/// A working GPU with one metric as the series says.
fn with(metric: MetricId) -> impl Fn(f64) -> Values {
    move |value| working().with(metric, value as i64)
}

#[test]
fn a_power_brake_is_a_call_after_three_of_ten_seconds() {
    let braked = |on: f64| {
        let bit = if on > 0.0 {
            clock_reason::HW_POWER_BRAKE
        } else {
            0
        };
        working().with(metric::CLOCK_EVENT_REASONS, bit)
    };
    check(braked, "0x20 1x2 0x60", "");
    check(braked, "0x20 1x5", "22s Raised critical PowerBrake");
    let slowed = |on: f64| {
        let bits = if on > 0.0 {
            clock_reason::HW_SLOWDOWN
        } else {
            0
        };
        working().with(metric::CLOCK_EVENT_REASONS, bits)
    };
    check(slowed, "0x20 1x5", "22s Raised critical PowerBrake");
}

#[test]
fn a_node_that_brakes_is_one_page() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 8, &[]);
    stage.work(&["n01"], 20);
    let braked = working().with(metric::CLOCK_EVENT_REASONS, clock_reason::HW_POWER_BRAKE);
    stage.play(&["n01"], &braked, 20);
    assert_eq!(
        stage.pages().matches("PowerBrake").count(),
        1,
        "{}",
        stage.pages()
    );
}

#[test]
fn a_limit_below_the_others_is_told_and_one_that_is_lowered_for_all_is_not() {
    let limit = |watts: f64| working().with(metric::POWER_LIMIT, watts as i64 * 1000);
    check(limit, "700x20 400x70", "80s Raised warning PowerCapLoss");
    let second = Duration::from_secs(1);
    play(second, true, limit, limit, "700x20 500x400", "");
}

#[test]
fn one_error_that_could_not_be_corrected_is_a_call_and_a_counter_that_begins_anew_is_none() {
    let errors = with(metric::ECC_UNCORRECTED);
    check(&errors, "2x10 3x5", "10s Raised critical EccUncorrectable");
    check(&errors, "2x10 0x20 0x100", "");
}

#[test]
fn corrected_errors_are_told_when_they_rain() {
    let errors = with(metric::ECC_CORRECTED);
    let drizzle: Vec<String> = (0..600).map(|s| (s / 120).to_string()).collect();
    check(&errors, &drizzle.join(" "), "");
    let rain: Vec<String> = (0..400).map(|s| (s / 4).to_string()).collect();
    check(&errors, &rain.join(" "), "220s Raised warning EccStorm");
}

#[test]
fn a_remap_that_waits_is_for_working_hours_and_one_that_failed_is_a_call() {
    check(
        with(metric::REMAPPED_ROWS_PENDING),
        "0x10 1x20 0x70",
        "10s Raised warning RowRemap, 30s Recovering warning RowRemap, 90s Cleared(Recovered) warning RowRemap",
    );
    check(
        with(metric::REMAPPED_ROWS_FAILURE),
        "0x10 1x20",
        "10s Raised critical RowRemap",
    );
}

#[test]
fn single_crc_errors_are_normal_and_a_recovery_is_not() {
    check(with(metric::NVLINK_CRC_ERRORS), "0x60 1x60 2x60 3x600", "");
    check(
        with(metric::NVLINK_CRC_ERRORS),
        "0x60 25x5",
        "60s Raised warning NvlinkError",
    );
    check(
        with(metric::NVLINK_RECOVERY),
        "4x60 5x5",
        "60s Raised warning NvlinkError",
    );
    check(with(metric::NVLINK_RECOVERY), "4x60 0x60", "");
}

#[test]
fn a_link_that_is_down_is_a_call() {
    let links = with(metric::NVLINK_ACTIVE_LINKS);
    check(&links, "18x10 17 18x10", "");
    check(&links, "18x10 17x5", "11s Raised critical NvlinkError");
}

#[test]
fn a_narrow_pcie_link_is_a_call_while_the_gpu_works() {
    let width = with(metric::PCIE_LINK_WIDTH);
    check(&width, "16x10 4x3 16x10", "");
    check(&width, "16x10 4x10", "15s Raised critical PcieDegraded");
    let at_rest = |lanes: f64| idle().with(metric::PCIE_LINK_WIDTH, lanes as i64);
    let second = Duration::from_secs(1);
    play(
        second,
        false,
        at_rest,
        |_| idle(),
        "16x10 4x10",
        "15s Raised warning PcieDegraded",
    );
}

#[test]
fn a_slow_pcie_link_counts_under_load_only() {
    let pace = |generation: f64| working().with(metric::PCIE_LINK_GEN, generation as i64);
    check(pace, "5x10 1x15", "20s Raised warning PcieDegraded");
    let at_rest = |generation: f64| idle().with(metric::PCIE_LINK_GEN, generation as i64);
    let second = Duration::from_secs(1);
    play(second, false, at_rest, |_| idle(), "5x10 1x100", "");
}

#[test]
fn replays_are_told_when_they_exceed_what_a_healthy_link_has() {
    let replays = |n: f64| {
        working()
            .with(metric::PCIE_LINK_WIDTH, 16)
            .with(metric::PCIE_LINK_GEN, 5)
            .with(metric::PCIE_REPLAY, n as i64)
    };
    let some: Vec<String> = (0..400).map(|s| (s / 4).to_string()).collect();
    check(replays, &some.join(" "), "");
    let many: Vec<String> = (0..200).map(|s| (s * 2).to_string()).collect();
    check(replays, &many.join(" "), "115s Raised warning PcieDegraded");
}

#[test]
fn power_that_is_no_longer_reported_is_a_fault_of_the_sensor() {
    let power = |watts: f64| {
        let mw = (watts > 0.0).then_some(watts as i64 * 1000);
        working().with(metric::POWER, mw)
    };
    check(power, "690x20 0x30 690x20", "");
    check(power, "690x20 0x70", "80s Raised warning SensorFault");
    check(power, "0x200", "");
}

#[test]
fn readings_that_stand_still_under_load_are_not_believed() {
    // A state of its processes marks the rows that `play` leaves as they are.
    let frozen = |still: f64| {
        let row = working();
        if still > 0.0 {
            row.with(metric::PROCESS_STATE, 0)
        } else {
            row
        }
    };
    check(frozen, "0x20 1x70", "80s Raised warning SensorFault");
    let rests = |_| {
        idle()
            .with(metric::PROCESS_STATE, 0)
            .with(metric::POWER, 690_000)
    };
    let second = Duration::from_secs(1);
    play(second, false, rests, |_| idle(), "0x200", "");
}

#[test]
fn work_without_a_process_is_a_zombie_unless_somebody_holds_the_gpu() {
    let processes = |n: f64| working().with(metric::PROCESSES, n as i64);
    let others = |_: f64| {
        idle()
            .with(metric::MEMORY_USED, 0)
            .with(metric::PROCESSES, 0)
    };
    let second = Duration::from_secs(1);
    play(
        second,
        false,
        processes,
        others,
        "1x10 0x70",
        "70s Raised warning ZombieGpu",
    );
    play(second, false, processes, others, "1x10 0x30 1x30", "");
    play(second, true, processes, |_| working(), "1x10 0x200", "");
}

#[test]
fn a_gpu_of_which_nothing_comes_while_the_others_report_is_lost() {
    let gone = |there: f64| {
        if there > 0.0 {
            working()
        } else {
            Values::default()
        }
    };
    for restarts in [Restarts::Never, Restarts::Often] {
        let mut stage = Stage::new(RuleSet::default()).restarting(restarts);
        stage.hello("n01", 2, &[]);
        for there in [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0] {
            stage.tick("n01", &[gone(there), working()]);
            stage.step();
        }
        assert_eq!(stage.story(), "9s Raised critical GpuLost gpu:GPU-n01-0");
    }
}

#[test]
fn rows_that_come_one_by_one_after_a_break_are_no_loss() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 2, &[]);
    stage.work(&["n01"], 20);
    let missed = stage.now;
    for second in 0..8 {
        let at = missed + Duration::from_secs(second);
        let rows = [Values::default(), working()];
        stage.engine.observe(
            missed + Duration::from_secs(8),
            &"n01".into(),
            at,
            true,
            &rows,
        );
    }
    stage.now = missed + Duration::from_secs(8);
    stage.work(&["n01"], 10);
    assert_eq!(stage.story(), "");
}

#[test]
fn firmware_that_hangs_is_one_page_and_no_loss() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 2, &[]);
    stage.work(&["n01"], 5);
    stage.xid("n01", 0, 119);
    for _ in 0..60 {
        stage.tick("n01", &[Values::default(), working()]);
        stage.step();
    }
    assert_eq!(
        stage.pages(),
        "5s Raised critical GpuUnresponsive gpu:GPU-n01-0"
    );
}

#[test]
fn a_double_bit_error_with_all_its_signs_is_one_page() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    stage.work(&["n01"], 5);
    for code in [48, 63, 95, 45, 45] {
        stage.xid("n01", 0, code);
    }
    let after = working()
        .with(metric::ECC_UNCORRECTED, 1)
        .with(metric::REMAPPED_ROWS_PENDING, 1);
    stage.play(&["n01"], &after, 30);
    assert_eq!(
        stage.pages(),
        "5s Raised critical EccUncorrectable gpu:GPU-n01-0"
    );
}

#[test]
fn a_link_that_worsens_and_fails_is_told_twice_at_most() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    stage.play(&["n01"], &working().with(metric::NVLINK_RECOVERY, 0), 5);
    stage.play(&["n01"], &working().with(metric::NVLINK_RECOVERY, 1), 300);
    stage.xid("n01", 0, 74);
    let gpu = "gpu:GPU-n01-0";
    assert_eq!(
        stage.story(),
        format!("5s Raised warning NvlinkError {gpu}, 305s Updated critical NvlinkError {gpu}")
    );
}

#[test]
fn a_link_full_of_errors_is_a_warning_and_once_it_is_down_a_call() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    let link = |errors: i64, links: i64| {
        working()
            .with(metric::NVLINK_CRC_ERRORS, errors)
            .with(metric::NVLINK_ACTIVE_LINKS, links)
    };
    for second in 0..300 {
        stage.play(&["n01"], &link(second * 150, 18), 1);
    }
    assert_eq!(stage.pages(), "1s Raised warning NvlinkError gpu:GPU-n01-0");
    stage.play(&["n01"], &link(45_000, 17), 5);
    let gpu = "gpu:GPU-n01-0";
    let story = stage.story();
    let call = format!("301s Updated critical NvlinkError {gpu}");
    assert!(story.ends_with(&call), "{story}");
}

#[test]
fn an_engine_that_is_behind_calls_and_leaves_warnings_for_later() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    stage.engine.set_effort(Effort::CallsOnly);
    let frozen = working().with(metric::ECC_CORRECTED, 0);
    stage.play(&["n01"], &frozen, 60);
    for second in 1..600 {
        let storm = working().with(metric::ECC_CORRECTED, second * 50);
        stage.play(&["n01"], &storm, 1);
    }
    assert_eq!(stage.story(), "");
    let failed = working().with(metric::ECC_UNCORRECTED, 1);
    stage.xid("n01", 0, 48);
    stage.play(&["n01"], &failed, 3);
    let gpu = "gpu:GPU-n01-0";
    assert_eq!(
        stage.pages(),
        format!("659s Raised critical EccUncorrectable {gpu}")
    );
}

#[test]
fn a_gpu_that_fails_twice_in_a_day_is_for_the_list_and_each_failure_is_a_page() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    for code in [46, 62] {
        stage.xid("n01", 0, code);
        stage.work(&["n01"], 1);
        stage.xid("n01", 0, 45);
        stage.work(&["n01"], 800);
    }
    let gpu = "gpu:GPU-n01-0";
    assert_eq!(
        stage.pages(),
        format!(
            "0s Raised critical Xid {gpu}, 801.001s Raised critical Xid {gpu}, 801s Raised warning RepeatOffender {gpu}"
        )
    );
}

/// Memory in use, in percent.
fn filled(percent: f64) -> Values {
    let total = 80_i64 << 30;
    working().with(metric::MEMORY_USED, (total as f64 * percent / 100.0) as i64)
}

fn ramp(from: f64, to: f64, steps: u32) -> String {
    let step = (to - from) / f64::from(steps);
    let values = (0..steps).map(|n| format!("{:.3}", from + step * f64::from(n)));
    values.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_steady_climb_is_told_minutes_before_the_memory_is_full() {
    let pace = Duration::from_secs(10);
    // 1.5 % a minute: full at 98.5 % after 19 minutes.
    let climb = format!("70x100 {}", ramp(70.0, 98.5, 114));
    let others = |_: f64| working();
    play(
        pace,
        true,
        filled,
        others,
        &climb,
        "1620s Raised warning MemoryPressure",
    );
}

#[test]
fn weights_that_load_and_levels_that_are_held_are_no_climb() {
    let pace = Duration::from_secs(10);
    let others = |_: f64| working();
    for load in [6, 24, 90] {
        let samples = format!("1x5 {} 92x200", ramp(1.0, 92.0, load));
        play(pace, true, filled, others, &samples, "");
    }
    play(pace, true, filled, others, &"88 90 91 89 ".repeat(120), "");
}

#[test]
fn memory_that_grows_for_an_hour_is_a_leak_and_a_cache_is_none() {
    let pace = Duration::from_secs(10);
    let others = |_: f64| working();
    let leak = ramp(30.0, 38.0, 400);
    play(
        pace,
        true,
        filled,
        others,
        &leak,
        "3600s Raised warning MemoryLeak",
    );
    let cache: Vec<String> = (0..500)
        .map(|n| format!("{:.3}", 30.0 + 30.0 * (1.0 - (-f64::from(n) / 90.0).exp())))
        .collect();
    play(pace, true, filled, others, &cache.join(" "), "");
    play(pace, true, filled, others, "60x500", "");
}

#[test]
fn a_gpu_that_grows_hotter_than_its_neighbours_has_drifted_and_a_warm_room_is_none() {
    let pace = Duration::from_secs(10);
    let heat = |celsius: f64| working().with(metric::TEMPERATURE, celsius as i64);
    let drift = format!("62x100 {} 74x300", ramp(62.0, 74.0, 60));
    let mut found = Vec::new();
    for others in [false, true] {
        let mut stage = Stage::new(RuleSet::default()).every(pace);
        stage.hello("n01", GPUS, &[]);
        for (_, value) in series(&drift, pace) {
            let row = heat(value.expect("no gaps"));
            let other = if others { row.clone() } else { working() };
            let rows = [row, other.clone(), other.clone(), other];
            stage.tick("n01", &rows);
            stage.step();
        }
        found.push(stage.pages().contains("ThermalDrift"));
        assert!(!stage.pages().contains("ThermalThrottling"));
    }
    assert_eq!(found, [true, false]);
}

#[test]
fn a_lost_gpu_explains_what_else_goes_wrong_with_it() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 2, &[]);
    stage.work(&["n01"], 5);
    let narrow = working().with(metric::PCIE_LINK_WIDTH, 16);
    stage.tick("n01", &[narrow.clone(), narrow.clone()]);
    stage.step();
    stage.xid("n01", 0, 79);
    for _ in 0..10 {
        let gone = failing(metric::NvmlStatus::GpuIsLost);
        stage.tick("n01", &[gone, narrow.clone()]);
        stage.step();
    }
    assert_eq!(stage.pages(), "6s Raised critical GpuLost gpu:GPU-n01-0");
}
