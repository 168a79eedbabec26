//! Stories of traces: what a file says, and what people would have been told.

use std::fmt::Write as _;
use std::io;

use entrenar::trace::{Block, TraceReader};

use super::{Backtest, Outcome};
use crate::andon::RuleSet;

/// When every story begins.
const BEGIN: i64 = 1_700_000_000;

const HEADER: &str = "time,node,gpu,uuid,job,temperature_celsius,utilization_percent,memory_utilization_percent,\
                      power_watts,power_limit_watts,nvml_status,xid,event";

/// A trace that is being written, row by row.
struct Trace(String);

impl Trace {
    fn new() -> Self {
        Self(format!("{HEADER}\n"))
    }

    /// A healthy GPU, at a time in seconds since the beginning.
    fn works(&mut self, at: f64, node: &str, gpu: u32) {
        self.says(at, node, gpu, "", "");
    }

    fn says(&mut self, at: f64, node: &str, gpu: u32, status: &str, xid: &str) {
        let time = BEGIN as f64 + at;
        let readings = if status.is_empty() {
            "62,99,45,690,700"
        } else {
            ",,,,"
        };
        let row = format!("{time:.3},{node},{gpu},GPU-{node}-{gpu},7,{readings},{status},{xid},");
        let _ = writeln!(self.0, "{row}");
    }

    fn event(&mut self, at: f64, node: &str, event: &str) {
        let _ = writeln!(self.0, "{:.3},{node},,,,,,,,,,,{event}", BEGIN as f64 + at);
    }

    /// Two GPUs of each of these nodes work, each node at its own phase, from one time to another.
    fn fleet(&mut self, nodes: &[&str], seconds: std::ops::Range<u32>, interval: usize) {
        for second in seconds.step_by(interval) {
            for (n, node) in nodes.iter().enumerate() {
                let at = f64::from(second) + 0.1 * n as f64;
                self.works(at, node, 0);
                self.works(at, node, 1);
            }
        }
    }

    fn judged(&self) -> Outcome {
        self.judged_in_blocks_of(100)
    }

    fn judged_in_blocks_of(&self, rows: usize) -> Outcome {
        let source = io::Cursor::new(self.0.clone());
        let mut reader = TraceReader::new(source).expect("a trace");
        let mut backtest = Backtest::new(RuleSet::default());
        let mut block = Block::default();
        while reader.read_block(&mut block, rows).expect("readable") {
            backtest.take(&mut block);
        }
        backtest.take(&mut block);
        backtest.finish()
    }
}

/// What was told, as one line: severity, kind, where, and when, in seconds since the beginning.
fn told(outcome: &Outcome) -> String {
    let line = |incident: &super::Incident| {
        let scope = &incident.scope;
        let place = match (&scope.node, scope.gpu, &scope.job) {
            (Some(node), Some(gpu), _) => format!("{node}/{gpu}"),
            (Some(node), None, _) => node.clone(),
            (None, _, Some(job)) => format!("job {job}"),
            (None, _, None) if scope.nodes.is_empty() => "fleet".into(),
            (None, _, None) => scope.nodes.join("+"),
        };
        let at = incident.fired_at - BEGIN as f64;
        let because = incident
            .consequence_of
            .as_ref()
            .map_or(String::new(), |cause| format!(" because {cause}"));
        let (severity, kind) = (incident.severity.name(), incident.kind.name());
        format!("{at:.1}s {severity} {kind} {place}{because}")
    };
    let lines: Vec<String> = outcome.incidents.iter().map(line).collect();
    lines.join(", ")
}

#[test]
fn a_healthy_trace_says_nothing_and_is_counted() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2", "n3"], 0..300, 1);
    let outcome = trace.judged();
    assert_eq!(told(&outcome), "");
    let figures = &outcome.figures;
    assert_eq!((figures.gpu_rows, figures.ticks), (1800, 900));
    assert_eq!((figures.nodes, figures.gpus), (3, 6));
    assert!((figures.gpu_seconds - 1800.0).abs() < 5.0, "{figures:?}");
}

#[test]
fn a_lost_gpu_is_told_with_its_error_and_its_job() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2"], 0..100, 1);
    for second in 100..160 {
        let at = f64::from(second);
        let xid = if second == 100 { "79" } else { "" };
        trace.works(at, "n1", 0);
        trace.says(at, "n1", 1, "GPU_IS_LOST", xid);
        trace.works(at + 0.1, "n2", 0);
        trace.works(at + 0.1, "n2", 1);
    }
    let outcome = trace.judged();
    let lost: Vec<_> = outcome
        .incidents
        .iter()
        .filter(|incident| incident.consequence_of.is_none() && incident.kind.name() == "GpuLost")
        .collect();
    assert_eq!(lost.len(), 1, "{}", told(&outcome));
    let culprit = &lost[0].culprits[0];
    assert_eq!((culprit.node.as_str(), culprit.gpu), ("n1", Some(1)));
    assert!(lost[0].fired_at - BEGIN as f64 - 100.0 < 1.0);
}

#[test]
fn a_gpu_whose_rows_stop_while_the_others_of_its_node_go_on_is_lost() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2"], 0..100, 1);
    for second in 100..160 {
        trace.works(f64::from(second), "n1", 0);
        trace.works(f64::from(second) + 0.1, "n2", 0);
        trace.works(f64::from(second) + 0.1, "n2", 1);
    }
    trace.fleet(&["n1", "n2"], 160..200, 1);
    let outcome = trace.judged();
    assert_eq!(told(&outcome), "103.0s critical GpuLost n1/1");
    assert_eq!(outcome.figures.ticks, 400);
}

#[test]
fn a_silent_node_is_lost_by_the_interval_that_its_rows_show() {
    let lost_after = |interval: usize| {
        let mut trace = Trace::new();
        trace.fleet(&["n1", "n2", "n3", "n4", "n5"], 0..300, interval);
        trace.fleet(&["n1", "n2", "n3", "n4"], 300..400, interval);
        told(&trace.judged())
    };
    // Its job works on elsewhere: its agent is missed after a minute and two intervals.
    assert_eq!(lost_after(1), "362.0s warning MonitoringFault n5");
    assert_eq!(lost_after(10), "371.0s warning MonitoringFault n5");
}

#[test]
fn a_goodbye_is_no_loss_and_rows_after_it_are_a_return() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2", "n3"], 0..100, 1);
    trace.event(99.9, "n3", "goodbye");
    trace.fleet(&["n1", "n2"], 100..200, 1);
    trace.event(199.95, "n3", "agent_start");
    trace.fleet(&["n1", "n2", "n3"], 200..260, 1);
    trace.event(259.9, "n2", "goodbye");
    trace.fleet(&["n1", "n3"], 260..300, 1);
    trace.fleet(&["n1", "n2", "n3"], 300..330, 1);
    assert_eq!(told(&trace.judged()), "");
    trace.fleet(&["n1", "n3"], 330..400, 1);
    assert!(
        told(&trace.judged()).ends_with("s warning MonitoringFault n2"),
        "{}",
        told(&trace.judged())
    );
}

#[test]
fn a_clock_an_hour_off_makes_nobody_else_late() {
    for off in [3600.0, -3600.0, 300.0] {
        let mut trace = Trace::new();
        for second in 0..400 {
            let at = f64::from(second);
            for (n, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
                trace.works(
                    at + 0.1 * n as f64 + if n == 1 { off } else { 0.0 },
                    node,
                    0,
                );
            }
        }
        let outcome = trace.judged();
        let kinds: Vec<_> = outcome
            .incidents
            .iter()
            .map(|incident| (incident.kind.name(), incident.scope.node.as_deref()))
            .collect();
        assert_eq!(
            kinds,
            [("MonitoringFault", Some("n2"))],
            "{off}: {}",
            told(&outcome)
        );
        let last = outcome.figures.last.expect("rows").as_secs_f64() - BEGIN as f64;
        assert!((399.0..400.0).contains(&last), "{off}: {last}");
    }
}

#[test]
fn a_clock_that_leaps_alone_is_wrong_and_does_not_move_the_fleet() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2", "n3"], 0..100, 1);
    for second in 100..300 {
        let at = f64::from(second);
        for (n, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
            let off = [0.0, 7200.0, 0.2][n];
            (0..2).for_each(|gpu| trace.works(at + off, node, gpu));
        }
    }
    let outcome = trace.judged();
    assert!(
        outcome
            .incidents
            .iter()
            .all(|i| i.kind.name() == "MonitoringFault"),
        "{}",
        told(&outcome)
    );
    let last = outcome.figures.last.expect("rows").as_secs_f64() - BEGIN as f64;
    assert!((299.0..301.0).contains(&last), "{last}");
}

#[test]
fn a_hole_in_the_trace_is_nobody_s_silence() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2", "n3"], 0..100, 1);
    trace.fleet(&["n1", "n2", "n3"], 700..900, 1);
    let outcome = trace.judged();
    let said = told(&outcome);
    assert!(!said.contains("NodeLost"), "{said}");
    assert!(said.contains("MonitoringFault fleet"), "{said}");
}

#[test]
fn what_was_kept_back_comes_in_a_burst_gpu_by_gpu_and_makes_whole_ticks() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2", "n3"], 0..100, 1);
    trace.fleet(&["n1", "n3"], 100..104, 1);
    for gpu in 0..2 {
        for second in 100..104 {
            trace.works(f64::from(second) + 0.1, "n2", gpu);
        }
    }
    trace.fleet(&["n1", "n2", "n3"], 104..200, 1);
    let outcome = trace.judged();
    assert_eq!(told(&outcome), "");
    assert_eq!(
        (outcome.figures.ticks, outcome.figures.late_ticks),
        (600, 0)
    );
}

#[test]
fn late_history_raises_nothing() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2"], 0..100, 1);
    trace.says(50.0, "n1", 0, "GPU_IS_LOST", "");
    trace.fleet(&["n1", "n2"], 100..160, 1);
    let outcome = trace.judged();
    assert_eq!(told(&outcome), "");
    assert_eq!(
        outcome.figures.repeated_rows + outcome.figures.late_ticks,
        1
    );
}

#[test]
fn gpus_that_are_read_one_after_the_other_are_one_tick() {
    let mut trace = Trace::new();
    for second in 0..60 {
        for gpu in 0..8 {
            trace.works(f64::from(second) + 0.003 * f64::from(gpu), "localhost", gpu);
        }
    }
    let ticks = trace.judged().figures.ticks;
    assert!(ticks <= 60 + 8, "{ticks}");
}

#[test]
fn a_trace_sorted_by_gpu_before_node_is_the_same_trace() {
    let (mut sorted, mut plain) = (Trace::new(), Trace::new());
    for second in 0..250 {
        let at = f64::from(second);
        let nodes = if second < 150 { 4 } else { 3 };
        for gpu in 0..3 {
            (0..nodes).for_each(|n| sorted.works(at, &format!("n{n}"), gpu));
        }
        for n in 0..nodes {
            (0..3).for_each(|gpu| plain.works(at, &format!("n{n}"), gpu));
        }
    }
    let (sorted, plain) = (sorted.judged(), plain.judged());
    assert_eq!(sorted.incidents, plain.incidents);
    assert_eq!(sorted.figures.ticks, plain.figures.ticks);
    assert_eq!(told(&plain), "211.0s warning MonitoringFault n3");
}

#[test]
fn blocks_of_any_size_tell_the_same_story() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2", "n3"], 0..100, 1);
    trace.says(100.0, "n1", 1, "GPU_IS_LOST", "79");
    trace.fleet(&["n1", "n2"], 101..200, 1);
    let whole = trace.judged_in_blocks_of(100_000).incidents;
    assert!(!whole.is_empty());
    for rows in [1, 7, 64] {
        assert_eq!(trace.judged_in_blocks_of(rows).incidents, whole);
    }
}

#[test]
fn a_trace_of_one_instant_ends_there() {
    let mut trace = Trace::new();
    trace.works(0.0, "n1", 0);
    let outcome = trace.judged();
    assert_eq!((told(&outcome).as_str(), outcome.figures.ticks), ("", 1));
    assert_eq!(outcome.figures.last, outcome.figures.first);
    assert_eq!(Trace::new().judged().figures.gpu_rows, 0);
}

#[test]
fn a_board_that_was_replaced_is_another_gpu_in_the_same_slot() {
    let mut trace = Trace::new();
    trace.fleet(&["n1", "n2"], 0..100, 1);
    let again = trace.0.clone();
    trace.fleet(&["n1", "n2"], 100..200, 1);
    let later = trace.0[again.len()..].replace("GPU-n1-1", "GPU-new");
    trace.0 = again + &later;
    let outcome = trace.judged();
    assert!(!told(&outcome).contains("NodeLost"), "{}", told(&outcome));
    assert_eq!(outcome.figures.gpus, 4);
}

#[test]
fn a_gpu_that_rows_give_to_two_jobs_and_time_that_goes_back_call_nobody() {
    let mut trace = Trace::new();
    for second in 0..600 {
        for gpu in 0..2 {
            trace.works(f64::from(second), "n1", gpu);
        }
        let times = [f64::from(second), f64::from(second) - 40.0];
        for (at, job) in times.into_iter().zip(["8", "9"]) {
            let time = BEGIN as f64 + at;
            let row = format!("{time:.3},n1,0,GPU-n1-0,{job},62,99,45,690,700,,,");
            let _ = writeln!(trace.0, "{row}");
        }
    }
    assert_eq!(told(&trace.judged()), "");
}

/// A captured trace of a real GPU: what it is and what it taught stands in `tests/captures/README.md`.
fn captured(name: &str) -> Trace {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../tests/captures").join(name);
    Trace(std::fs::read_to_string(path).expect("the capture is there"))
}

#[test]
fn a_real_gpu_that_trains_evaluates_saves_and_rests_calls_nobody() {
    let outcome = captured("h200-580.159/training.csv").judged();
    assert_eq!(told(&outcome), "");
    assert_eq!(outcome.figures.gpus, 1);
}

#[test]
fn what_a_real_driver_reported_is_found_in_an_export() {
    let outcome = captured("h100-580.159/minutes.csv").judged();
    assert_eq!(told(&outcome), "3071.5s info Xid vm/0");
}

#[test]
fn a_real_gpu_that_waits_for_nothing_is_called_once_and_nothing_else_is_said() {
    let outcome = captured("h200-580.159/hang.csv").judged();
    assert_eq!(told(&outcome), "1228.0s critical JobHang job hung");
    // The wait began at 1136.1 s and ended at 1361.1 s.
    let hang = &outcome.incidents[0];
    let since = |at: f64| at - BEGIN as f64;
    assert!((1136.0..=1138.0).contains(&since(hang.started_at)));
    let resolved = hang.resolved_at.map(since).expect("it went on");
    assert!((1361.0..=1375.0).contains(&resolved), "{resolved}");
}
