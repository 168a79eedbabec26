//! Stories of one GPU: each runs straight, and once more with a restart every few samples.

use std::time::Duration;

use entrenar::gpu::Values;
use entrenar::metric::{self, NvmlStatus, clock_reason};
use entrenar::testing::series;

use crate::andon::RuleSet;
use crate::andon::testing::{Restarts, Stage, failing, working};

/// Plays a series on one GPU, a token a step, and compares what was said about it.
fn check_every(step: Duration, row: impl Fn(f64) -> Values, samples: &str, expected: &str) {
    for restarts in [Restarts::Never, Restarts::Often] {
        let mut stage = Stage::new(RuleSet::default())
            .every(step)
            .restarting(restarts);
        stage.hello("n01", 1, &[]);
        for (_, value) in series(samples, step) {
            if let Some(value) = value {
                stage.tick("n01", &[row(value)]);
            }
            stage.step();
        }
        let said = stage.story().replace(" gpu:GPU-n01-0", "");
        let about_gpu: Vec<&str> = said
            .split(", ")
            .filter(|line| !line.contains("node"))
            .collect();
        assert_eq!(about_gpu.join(", "), expected, "{samples} ({restarts:?})");
        stage.assert_times_rise();
    }
}

fn check(row: impl Fn(f64) -> Values, samples: &str, expected: &str) {
    check_every(Duration::from_secs(1), row, samples, expected);
}

/// A GPU that slows down: by software from 85 °C, by hardware from 89 °C.
fn hot(celsius: f64) -> Values {
    let software = if celsius >= 85.0 {
        clock_reason::SW_THERMAL
    } else {
        0
    };
    let hardware = if celsius >= 89.0 {
        clock_reason::HW_SLOWDOWN | clock_reason::HW_THERMAL
    } else {
        0
    };
    working()
        .with(metric::TEMPERATURE, celsius as i64)
        .with(metric::CLOCK_EVENT_REASONS, software | hardware)
}

#[test]
fn hardware_slowdown_in_three_of_ten_seconds_is_raised() {
    check(hot, "70x20 90x4", "22s Raised warning ThermalThrottling");
    check(
        hot,
        "70x20 90 70 90 70x3 90",
        "26s Raised warning ThermalThrottling",
    );
}

#[test]
fn a_flicker_of_slowdown_is_not_an_alarm() {
    check(hot, "70x20 90x2 70x60", "");
    check(hot, "70x20 90x2 70x20 90x2 70x60", "");
}

#[test]
fn warm_without_slowdown_is_no_alarm() {
    check(hot, "84x400", "");
}

#[test]
fn slowdown_that_lasts_a_minute_becomes_critical() {
    check(
        hot,
        "70x20 90x70",
        "22s Raised warning ThermalThrottling, 80s Updated critical ThermalThrottling",
    );
}

#[test]
fn heat_is_over_after_five_clean_minutes() {
    check(
        hot,
        "70x20 90x4 70x400",
        "22s Raised warning ThermalThrottling, 33s Recovering warning ThermalThrottling, 333s Cleared(Recovered) warning ThermalThrottling",
    );
    check(
        hot,
        "70x20 90x4 70x200 90x4 70x10",
        "22s Raised warning ThermalThrottling, 33s Recovering warning ThermalThrottling, 224s Relapsed warning ThermalThrottling, 237s Recovering warning ThermalThrottling",
    );
}

/// A GPU whose software holds its clocks down from 85 °C on.
fn held_down(celsius: f64) -> Values {
    let mhz = if celsius >= 85.0 { 1300 } else { 1755 };
    hot(celsius).with(metric::SM_CLOCK, mhz)
}

#[test]
fn software_slowdown_counts_when_it_takes_clocks_for_half_of_twenty_seconds() {
    check(held_down, "70x60 86x9 70x60", "");
    check(
        held_down,
        "70x60 86x20",
        "69s Raised warning ThermalThrottling",
    );
    // The bit alone, at full clocks, costs nothing.
    check(hot, "70x60 86x200", "");
}

#[test]
fn hardware_that_takes_the_clocks_far_down_is_critical_at_once() {
    check(
        held_down,
        "70x20 90x20",
        "22s Raised warning ThermalThrottling, 24s Updated critical ThermalThrottling",
    );
    // Two samples of it are a flicker, three are a warning.
    check(
        held_down,
        "70x20 90x3 70x20",
        "22s Raised warning ThermalThrottling, 41s Recovering warning ThermalThrottling",
    );
}

#[test]
fn heat_is_found_at_a_slow_pace_too() {
    let slow = Duration::from_secs(10);
    check_every(slow, hot, "70x6 90 70x3", "");
    check_every(
        slow,
        hot,
        "70x6 90x3",
        "70s Raised warning ThermalThrottling",
    );
}

#[test]
fn without_margin_a_gpu_is_hot_even_if_no_bit_says_so() {
    let margin = |celsius: f64| hot(70.0).with(metric::THERMAL_MARGIN, 87 - celsius as i64);
    check(margin, "70x20 88x10", "");
    check(margin, "70x20 90x4", "22s Raised warning ThermalThrottling");
}

#[test]
fn a_gap_hides_nothing_and_proves_nothing() {
    check(
        hot,
        "70x20 90x2 _x4 90",
        "26s Raised warning ThermalThrottling",
    );
    check(hot, "70x20 90x2 _x20 90x2 70x5", "");
}

/// A GPU with its memory used to so many percent.
fn filled(percent: f64) -> Values {
    let total = 80_i64 << 30;
    working().with(metric::MEMORY_USED, (total as f64 * percent / 100.0) as i64)
}

/// From one level to another in equal steps of a second.
fn ramp(from: f64, to: f64, seconds: u32) -> String {
    let step = (to - from) / f64::from(seconds);
    let values = (0..seconds).map(|s| format!("{:.4}", from + step * f64::from(s)));
    values.collect::<Vec<_>>().join(" ")
}

#[test]
fn memory_that_fills_up_is_raised_after_a_minute_near_the_top() {
    let leak = ramp(90.0, 99.5, 380);
    check(filled, &leak, "341s Raised warning MemoryPressure");
}

#[test]
fn memory_that_is_high_and_constant_is_normal() {
    check(filled, "60x10 97.5x3000", "");
    check(filled, "99.8x3000", "");
}

#[test]
fn memory_that_breathes_near_the_top_is_normal() {
    check(filled, &"97.2 97.5 97.9 97.3 97.6 ".repeat(600), "");
    check(filled, &"97.2x10 98.4x10 ".repeat(150), "");
}

#[test]
fn loading_weights_up_to_the_top_is_normal() {
    for seconds in [3, 60, 240] {
        let load = format!("{} 98x600", ramp(1.0, 98.0, seconds));
        check(filled, &load, "");
    }
}

#[test]
fn memory_that_rose_and_stays_stays_raised_until_it_is_given_back() {
    let leak = ramp(90.0, 98.0, 320);
    check(
        filled,
        &format!("{leak} 98x600 95x60 50x40"),
        "341s Raised warning MemoryPressure, 980s Recovering warning MemoryPressure, 1010s Cleared(Recovered) warning MemoryPressure",
    );
}

#[test]
fn a_spike_of_memory_is_not_an_alarm() {
    check(
        filled,
        &format!("60x20 {} 60x100", ramp(97.0, 99.0, 50)),
        "",
    );
}

#[test]
fn memory_that_starts_to_creep_after_hours_is_found() {
    let creep = ramp(97.5, 99.9, 576);
    check(
        filled,
        &format!("97.5x1000 {creep}"),
        "1050s Raised warning MemoryPressure",
    );
}

fn answering(code: f64) -> Values {
    match NvmlStatus::from_code(code as i64) {
        Some(NvmlStatus::Ok) => working(),
        status => failing(status.expect("a status")),
    }
}

#[test]
fn a_gpu_that_is_lost_for_two_ticks_is_raised_and_settles_in_two_minutes() {
    check(answering, "0x5 1 0x5", "");
    check(answering, "0x5 1x5", "6s Raised critical GpuLost");
    check(answering, "0x5 3x5", "6s Raised critical GpuLost");
    check(
        answering,
        "0x5 5x5 0x130",
        "6s Raised critical GpuLost, 10s Recovering critical GpuLost, 130s Cleared(Recovered) critical GpuLost",
    );
}

#[test]
fn a_gpu_that_does_not_answer_for_five_seconds_is_raised() {
    check(answering, "0x5 2x5 0x5", "");
    check(
        answering,
        "0x5 2x10 0x6",
        "10s Raised critical GpuUnresponsive, 15s Recovering critical GpuUnresponsive, 19s Cleared(Recovered) critical GpuUnresponsive",
    );
    check_every(
        Duration::from_secs(10),
        answering,
        "0x8 2 0x2 2x2",
        "120s Raised critical GpuUnresponsive",
    );
}

#[test]
fn an_error_that_says_nothing_needs_more_time() {
    check(answering, "0x5 4x20 0x5", "");
    check(answering, "0x5 4x40", "35s Raised critical GpuUnresponsive");
}

#[test]
fn a_power_cap_is_a_record_only_when_clocks_stay_far_down() {
    let capped = |mhz: f64| {
        working()
            .with(metric::SM_CLOCK, mhz as i64)
            .with(metric::CLOCK_EVENT_REASONS, clock_reason::SW_POWER_CAP)
    };
    let pace = Duration::from_secs(10);
    check_every(pace, capped, "1980 1755x600", "");
    check_every(pace, capped, "1980 1200x100 1755x100", "");
    check_every(
        pace,
        capped,
        "1980 1200x600",
        "2370s Raised info PowerLimit",
    );
}

#[test]
fn a_sample_older_than_the_last_one_raises_nothing() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    stage.work(&["n01"], 20);
    let before = stage.now - Duration::from_secs(15);
    for second in 0..10 {
        let at = before + Duration::from_secs(second);
        stage
            .engine
            .observe(stage.now, &"n01".into(), at, true, &[hot(95.0)]);
        let long_ago = before - Duration::from_secs(3600 - second);
        stage
            .engine
            .observe(stage.now, &"n01".into(), long_ago, false, &[hot(95.0)]);
    }
    stage.work(&["n01"], 20);
    assert_eq!(stage.story(), "");
}

#[test]
fn a_gpu_that_says_nothing_of_heat_is_not_judged() {
    let mute = |_| {
        let mut row = working();
        row.set(metric::CLOCK_EVENT_REASONS, None);
        row.set(metric::MEMORY_USED, None);
        row
    };
    check(mute, "0x100", "");
}

#[test]
fn eighty_degrees_are_a_yellow_lamp_and_no_incident() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    let gpu = crate::andon::testing::uuid("n01", 0);
    stage.tick("n01", &[hot(79.0)]);
    assert_eq!(stage.engine.hint(&gpu), None);
    stage.step();
    stage.tick("n01", &[hot(80.0)]);
    assert_eq!(stage.engine.hint(&gpu), Some(crate::andon::Light::Yellow));
    assert_eq!(stage.story(), "");
}

#[test]
fn a_finding_tells_what_where_and_by_which_numbers() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[("rack", "r2")]);
    stage.hold("4711", entrenar::report::JobKind::Train, &[("n01", 0)]);
    stage.work(&["n01"], 30);
    stage.play(&["n01"], &hot(91.0), 5);
    let finding = &stage.said.first().expect("it was raised").finding;
    assert_eq!(
        finding.summary,
        "GPU 0 on n01 throttles at 91 °C: the hardware cut its clocks for heat, for 2 s"
    );
    assert_eq!(finding.labels["rack"], "r2");
    assert_eq!(finding.job.as_deref(), Some("4711"));
    assert_eq!(finding.missing, ["margin to the slowdown point"]);
    assert!(finding.action.contains("fans"));
    let bits = &finding.evidence[1];
    assert_eq!(
        (bits.value.as_str(), bits.threshold.as_deref()),
        ("3 of 10 s", Some("3 of 10 s"))
    );
    let series = finding.evidence[0].series.as_ref().expect("a series");
    assert_eq!(series.first(), Some(&Some(62.0)));
    assert!(series.len() >= 6);
}
