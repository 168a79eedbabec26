//! What a real GPU was seen to do, told apart: traces under `tests/captures`, whose pages say how they were taken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use entrenar::gpu::Values;
use entrenar::metric;
use entrenar::trace::{Block, TraceReader};
use entrenar::unit::Timestamp;

use crate::andon::pulse::{Activity, Pulse};

/// Rows of a phase that are left alone at both ends: gauges are means over the second before.
const EDGE: Duration = Duration::from_secs(2);

fn capture(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures/h200-580.159");
    folder.join(file)
}

/// Start and name of each phase, in order.
fn phases() -> Vec<(f64, String)> {
    let text = std::fs::read_to_string(capture("phases.csv")).expect("the capture is there");
    let phase = |line: &str| {
        let (start, name) = line.split_once(',').expect("two columns");
        (start.parse().expect("a time"), name.to_owned())
    };
    text.lines().skip(1).map(phase).collect()
}

fn rows() -> Vec<(Timestamp, Values)> {
    let mut reader = TraceReader::open(&capture("trace.csv")).expect("a trace");
    let (mut block, mut rows) = (Block::default(), Vec::new());
    loop {
        let more = reader.read_block(&mut block, 64).expect("good rows");
        let of_block = block.entries.iter();
        rows.extend(of_block.map(|row| (row.time, row.values.clone())));
        if !more {
            return rows;
        }
    }
}

/// What the GPU is taken to do in each phase, each activity once, in the order of first sight.
fn told(strip: &[metric::MetricId]) -> Vec<String> {
    let (phases, rows) = (phases(), rows());
    let mut pulse = Pulse::default();
    let seen: Vec<_> = rows
        .into_iter()
        .map(|(at, mut values)| {
            for metric in strip {
                values.set(*metric, None);
            }
            pulse.observe(at, 1000, &values, "NVIDIA H200");
            let lives = pulse.progress_at == Some(at);
            (at.as_secs_f64(), pulse.activity, lives)
        })
        .collect();
    let ends = phases.iter().skip(1).map(|(start, _)| *start);
    let edge = EDGE.as_secs_f64();
    phases
        .iter()
        .zip(ends)
        .map(|((start, name), end)| {
            let mut words: Vec<&str> = Vec::new();
            let inside = |at: f64| start + edge <= at && at < end - edge / 2.0;
            for (_, activity, lives) in seen.iter().filter(|(at, ..)| inside(*at)) {
                let word = match activity {
                    Some(Activity::Work) => "works",
                    Some(Activity::Spin) if *lives => "copies",
                    Some(Activity::Spin) => "waits busily",
                    Some(Activity::Idle) => "rests",
                    Some(Activity::Off) => "is off",
                    None => "unknown",
                };
                if !words.contains(&word) {
                    words.push(word);
                }
            }
            format!("{name}: {}", words.join(", "))
        })
        .collect()
}

const EXPECTED: [&str; 14] = [
    "no context: is off",
    "context: rests",
    "memory held: rests",
    "dense matmul: works",
    "steps 0.3 s work 0.1 s pause: works",
    "steps 2 s work 1.5 s pause: works, rests",
    "copy on the device: works",
    "copy to the device: copies",
    "pause: rests",
    "spin 1 block 32 threads: waits busily",
    "spin 24 blocks 512 threads: waits busily",
    "spin all: waits busily",
    "idle with context: rests",
    "light: one small kernel each 0.2 s: rests",
];

#[test]
fn a_real_h200_is_seen_to_work_wait_and_rest() {
    assert_eq!(told(&[]), EXPECTED);
}

#[test]
fn it_is_seen_without_its_performance_counters_as_well() {
    let gpm = [
        metric::SM_ACTIVE,
        metric::TENSOR_ACTIVE,
        metric::DRAM_ACTIVE,
    ];
    assert_eq!(told(&gpm), EXPECTED);
}
