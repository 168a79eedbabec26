//! Traces in files with a `labels.jsonl` beside them: the public set, or a set of one's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::trace::{Block, TextList, TraceReader};
use entrenar_aggregator::andon::RuleSet;
use entrenar_aggregator::backtest::Backtest;
use serde::{Deserialize, Serialize};

use super::baselines::Baselines;
use super::finding::Finding;
use super::tally::{Tally, Trial};
use super::truth::Truth;
use super::{cores, folder};
use crate::measure::thread_cpu;

/// Rows that are read at once.
const BLOCK: usize = 4096;
/// A row further ahead than this is a wrong clock, or a hole in the trace.
const LEAP_MS: i64 = 30_000;
/// So many such rows one after the other are a hole.
const HOLE_ROWS: u32 = 1000;

/// The scores of a set of files, and what a back-test of them costs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Public {
    pub tally: Tally,
    pub rows: u64,
    /// CPU seconds of reading and judging.
    pub cpu_s: f64,
}

#[derive(Deserialize)]
struct Header {
    trace: String,
    gpu_days: f64,
    interval_s: f64,
}

/// Scores the public traces and keeps the figures; where they are not to be had, those that were kept; `None` without.
pub fn run() -> Result<Option<Public>> {
    let kept = folder().join("public.json");
    if let Some(traces) = traces() {
        let public = score(&traces)?;
        fs::write(&kept, serde_json::to_string(&public)? + "\n")
            .with_context(|| format!("could not write {}", kept.display()))?;
        return Ok(Some(public));
    }
    println!("  no public traces (ENTRENAR_PUBLIC_TRACES): the figures of the last time stand");
    match fs::read_to_string(&kept) {
        Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
        Err(_) => Ok(None),
    }
}

/// The folder of the public traces, if it is there.
fn traces() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/detection/public");
    let named = std::env::var_os("ENTRENAR_PUBLIC_TRACES").map(PathBuf::from);
    let folder = named.unwrap_or_else(beside);
    folder.join("labels.jsonl").exists().then_some(folder)
}

/// Scores a folder of traces.
pub fn score(folder: &Path) -> Result<Public> {
    let sets = labels(&folder.join("labels.jsonl"))?;
    let done = cores::each(sets.into_values().collect(), |(header, truths)| {
        trial(folder, &header, truths).with_context(|| format!("trace {}", header.trace))
    })?;
    let mut public = Public::default();
    let mut trials = Vec::new();
    for (trial, rows, took) in done {
        public.rows += rows;
        public.cpu_s += took.as_secs_f64();
        trials.push(trial);
    }
    public.tally = Tally::of(trials);
    Ok(public)
}

type Sets = BTreeMap<String, (Header, Vec<Truth>)>;

/// A line without an id heads a trace; the others are its incidents.
fn labels(path: &Path) -> Result<Sets> {
    let text =
        fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    let values: Result<Vec<serde_json::Value>, _> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str)
        .collect();
    let (incidents, headers): (Vec<_>, Vec<_>) = values?
        .into_iter()
        .partition(|value| value.get("id").is_some());
    let mut sets = Sets::new();
    for value in headers {
        let header: Header = serde_json::from_value(value)?;
        sets.insert(header.trace.clone(), (header, Vec::new()));
    }
    for value in incidents {
        let trace = value["trace"].as_str().unwrap_or_default();
        let (_, truths) = sets
            .get_mut(trace)
            .with_context(|| format!("an incident of {trace}, which has no header"))?;
        truths.push(serde_json::from_value(value)?);
    }
    Ok(sets)
}

fn trial(folder: &Path, header: &Header, truths: Vec<Truth>) -> Result<(Trial, u64, Duration)> {
    let mut reader = TraceReader::open(&folder.join(&header.trace))?;
    let mut backtest = Backtest::new(RuleSet::default());
    let mut beside = Beside::default();
    let mut block = Block::default();
    let mut took = Duration::ZERO;
    loop {
        let began = thread_cpu();
        let goes_on = reader.read_block(&mut block, BLOCK)?;
        took += thread_cpu().saturating_sub(began);
        beside.take(&block);
        let began = thread_cpu();
        backtest.take(&mut block);
        took += thread_cpu().saturating_sub(began);
        if !goes_on {
            break;
        }
    }
    let outcome = backtest.finish();
    let trial = Trial {
        name: header.trace.clone(),
        gpu_days: header.gpu_days,
        interval_s: header.interval_s.round() as u64,
        truths,
        ours: outcome.incidents.into_iter().map(Finding::from).collect(),
        baselines: beside.baselines.finish(),
    };
    Ok((trial, outcome.figures.gpu_rows, took))
}

/// The baselines beside a trace, with a simple clock of their own.
#[derive(Default)]
struct Beside {
    baselines: Baselines,
    texts: TextList,
    now_ms: i64,
    n_ahead: u32,
}

impl Beside {
    fn take(&mut self, block: &Block) {
        self.texts.extend(block);
        for entry in &block.entries {
            let at_ms = entry.arrived.unwrap_or(entry.time).0;
            let is_leap = self.now_ms != 0 && at_ms - self.now_ms > LEAP_MS;
            self.n_ahead = if is_leap { self.n_ahead + 1 } else { 0 };
            if !is_leap || self.n_ahead > HOLE_ROWS {
                self.now_ms = self.now_ms.max(at_ms);
            }
            let Some(gpu) = entry.gpu else {
                continue;
            };
            let node = self.texts.get(entry.node);
            let job = self.texts.some(entry.job).map(AsRef::as_ref);
            let xids = block.xids(entry).len();
            self.baselines
                .take_row(self.now_ms, (node, gpu), job, xids, &entry.values);
        }
    }
}
