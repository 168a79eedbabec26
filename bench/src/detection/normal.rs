//! Normal days: fleets on which nothing must be reported, one a seed, each result a line of `bench/detection/normal.jsonl`.
//!
//! A seed that has its line is not run again, so that a run goes on where the last one ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::sim::{NodeTick, normal_day};
use entrenar_aggregator::andon::Severity;
use serde::{Deserialize, Serialize};

use super::baselines::{self, Baselines};
use super::finding::Finding;
use super::score::Score;
use super::truth::Truth;
use super::watch::Watch;
use super::{folder, sources};
use crate::measure::thread_cpu;

/// The first seed at 1 s, and at any other interval: no fleet is counted twice. Traces that detectors were developed on
/// have smaller ones.
const FIRST_SEED_AT_1S: u64 = 1_000;
const FIRST_SEED: u64 = 2_000;
/// Ticks that are made, then heard by the engine, then by the baselines.
const BATCH: usize = 256;

/// A day of a fleet, judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Day {
    pub seed: u64,
    pub interval_s: u64,
    /// Of the sources that it was run with.
    pub sources: String,
    pub gpu_days: f64,
    /// Rows: a GPU at a tick.
    pub gpu_ticks: u64,
    /// CPU seconds of the simulator, the engine and the five baselines.
    pub cpu_s: [f64; 3],
    pub pages: u32,
    pub warnings: u32,
    /// Of each baseline, in their order: pages and warnings.
    pub baselines: [[u32; 2]; 5],
    /// What the engine said that it should not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<FoundOnDay>,
}

/// A false finding of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FoundOnDay {
    pub kind: String,
    pub severity: Severity,
    /// Seconds since the day began.
    pub at_s: f64,
    pub summary: String,
}

/// All days that were run so far.
pub fn all() -> Result<Vec<Day>> {
    let path = lines();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(format!("could not read {}", path.display())),
    };
    let day = |(number, line)| {
        let what = || format!("{}:{}", path.display(), number + 1);
        serde_json::from_str(line).with_context(what)
    };
    text.lines().enumerate().map(day).collect()
}

/// Takes out the days of other sources than the present.
pub fn drop_old() -> Result<()> {
    let present = sources::fingerprint()?;
    let days = all()?;
    let mut text = String::new();
    for day in days.iter().filter(|day| day.sources == present) {
        text += &serde_json::to_string(day)?;
        text.push('\n');
    }
    fs::write(lines(), text).context("could not rewrite the file of normal days")
}

/// Runs further days until there are so many GPU-days at this interval. Each is appended as it ends.
pub fn run_until(gpu_days: f64, interval_s: u64) -> Result<()> {
    let known = all()?;
    let known: Vec<_> = known
        .iter()
        .filter(|day| day.interval_s == interval_s)
        .collect();
    let queue = Mutex::new(Queue {
        seeds: known.iter().map(|day| day.seed).collect(),
        done: known.iter().map(|day| day.gpu_days).sum(),
        next: match interval_s {
            1 => FIRST_SEED_AT_1S,
            _ => FIRST_SEED,
        },
        until: gpu_days,
    });
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let sources = sources::fingerprint()?;
    std::thread::scope(|scope| {
        let work = || {
            while let Some(seed) = take(&queue) {
                let day = live(seed, interval_s, &sources)?;
                let mut queue = queue.lock().expect("no worker panics");
                queue.done += day.gpu_days;
                append(&day)?;
                show(&day, queue.done, gpu_days);
            }
            anyhow::Ok(())
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().expect("no worker panics")?;
        }
        Ok(())
    })
}

struct Queue {
    seeds: BTreeSet<u64>,
    done: f64,
    next: u64,
    until: f64,
}

/// The next seed that has no day yet.
fn take(queue: &Mutex<Queue>) -> Option<u64> {
    let mut queue = queue.lock().expect("no worker panics");
    if queue.until <= queue.done {
        return None;
    }
    while queue.seeds.contains(&queue.next) {
        queue.next += 1;
    }
    queue.next += 1;
    Some(queue.next - 1)
}

fn append(day: &Day) -> Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(lines())
        .context("could not open the file of normal days")?;
    writeln!(file, "{}", serde_json::to_string(day)?)?;
    Ok(())
}

fn show(day: &Day, done: f64, until: f64) {
    println!(
        "  {} s, seed {}: {:.0} GPU-days, {} pages, {} warnings; {done:.0} of {until:.0}",
        day.interval_s, day.seed, day.gpu_days, day.pages, day.warnings
    );
    for found in &day.found {
        println!(
            "    {} {} at {:.0} s: {}",
            found.severity.name(),
            found.kind,
            found.at_s,
            found.summary
        );
    }
}

fn lines() -> PathBuf {
    folder().join("normal.jsonl")
}

/// Lives one day with the engine and the baselines beside it.
fn live(seed: u64, interval_s: u64, sources: &str) -> Result<Day> {
    let mut feed = normal_day(seed, Duration::from_secs(interval_s))?;
    let truths: Result<Vec<_>> = feed.labels().iter().map(Truth::of).collect();
    let truths = truths?;
    let nodes = feed.nodes().to_vec();
    let start_s = feed.setting().start.as_secs_f64();
    let gpus_per_node = feed.setting().gpus_per_node as usize;
    let gpu_days = (nodes.len() * gpus_per_node) as f64;

    let mut watch = Watch::new(&nodes, interval_s as u32 * 1000);
    let mut beside = Baselines::of(&nodes);
    let mut gpu_ticks = 0;
    let mut took = [Duration::ZERO; 3];
    let mut batch: Vec<NodeTick> = Vec::with_capacity(BATCH);
    let mut before = thread_cpu();
    let mut lap = |part: &mut Duration| {
        let now = thread_cpu();
        *part += now.saturating_sub(before);
        before = now;
    };
    loop {
        batch.clear();
        batch.extend(feed.by_ref().take(BATCH));
        lap(&mut took[0]);
        if batch.is_empty() {
            break;
        }
        for tick in &batch {
            gpu_ticks += tick.rows.len() as u64;
            watch.take(tick);
        }
        lap(&mut took[1]);
        for tick in &batch {
            beside.take(tick, gpus_per_node);
        }
        lap(&mut took[2]);
    }
    let score = |findings: &[Finding]| {
        let mut score = Score::default();
        score.add(gpu_days, findings, &truths);
        score
    };
    let ours: Vec<Finding> = watch.finish().into_iter().map(Finding::from).collect();
    let ours = score(&ours);
    let others = beside.finish().map(|findings| {
        let score = score(&findings);
        [score.false_pages, score.false_warnings]
    });
    let found = ours.false_findings.iter().map(|found| FoundOnDay {
        kind: found.kind.to_owned(),
        severity: found.severity,
        at_s: (found.fired_at - start_s).round(),
        summary: found.summary.clone(),
    });
    Ok(Day {
        seed,
        interval_s,
        sources: sources.to_owned(),
        gpu_days,
        gpu_ticks,
        cpu_s: took.map(|took| (took.as_secs_f64() * 1e3).round() / 1e3),
        pages: ours.false_pages,
        warnings: ours.false_warnings,
        baselines: others,
        found: found.collect(),
    })
}

/// Many days as one.
#[derive(Clone, Debug, Default)]
pub struct Days {
    pub gpu_days: f64,
    pub gpu_ticks: u64,
    pub cpu_s: [f64; 3],
    /// Pages and warnings: ours, then of each baseline.
    pub false_findings: [[u64; 2]; 1 + baselines::NAMES.len()],
    /// Ours by class: pages and warnings.
    pub kinds: BTreeMap<String, [u64; 2]>,
    /// GPU-days that were run with the present sources.
    pub present: f64,
}

impl Days {
    /// Adds up the days that fit.
    pub fn of<'a>(days: impl IntoIterator<Item = &'a Day>, present: &str) -> Self {
        let mut sum = Self::default();
        for day in days {
            sum.gpu_days += day.gpu_days;
            sum.gpu_ticks += day.gpu_ticks;
            if day.sources == present {
                sum.present += day.gpu_days;
            }
            for (sum, part) in sum.cpu_s.iter_mut().zip(day.cpu_s) {
                *sum += part;
            }
            let ours = [day.pages, day.warnings];
            let all = std::iter::once(&ours).chain(&day.baselines);
            for (sum, counts) in sum.false_findings.iter_mut().zip(all) {
                sum[0] += u64::from(counts[0]);
                sum[1] += u64::from(counts[1]);
            }
            for found in &day.found {
                let place = usize::from(found.severity != Severity::Critical);
                sum.kinds.entry(found.kind.clone()).or_default()[place] += 1;
            }
        }
        sum
    }

    /// Microseconds of CPU a GPU and tick: simulator, engine, baselines.
    pub fn cpu_us(&self) -> [f64; 3] {
        self.cpu_s.map(|secs| secs * 1e6 / self.gpu_ticks as f64)
    }
}
