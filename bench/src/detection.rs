//! How well it detects, beside five baselines on the same streams: writes `docs/detection.md`.
//!
//! How to read the folder: `truth` is what a trace's labels say, `finding` what a detector says, `judge` holds the one
//! against the other, `score`, `tally` and `interval` count. `watch` drives our engine, `baselines` are the others.
//! `normal`, `heldout` and `public` are the three sets of streams; `goals` and `page` write down what came of them.

use std::path::{Path, PathBuf};

use anyhow::Result;

pub mod baselines;
pub mod cores;
pub mod finding;
pub mod goals;
pub mod heldout;
pub mod interval;
pub mod judge;
pub mod normal;
pub mod options;
pub mod page;
pub mod public;
pub mod score;
pub mod sources;
pub mod tally;
pub mod truth;
pub mod watch;

use heldout::{SEEDS, Way};
use normal::Days;
use options::Options;

/// Normal GPU-days at 10 s that a run without options adds.
const SOME_DAYS: f64 = 400.0;

/// Everything, with a few more normal days.
pub fn run_all() -> Result<()> {
    run(&[])
}

/// Runs what the options ask for, and writes the page.
pub fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words)?;
    if let Some(folder) = &options.score {
        return score(folder);
    }
    if options.fresh {
        normal::drop_old()?;
    }
    run_normal(&options)?;
    if options.only_normal {
        return Ok(());
    }
    println!("  public traces");
    let public = public::run()?;
    println!("  held-out traces");
    let held_out = heldout::run(SEEDS, Way::AsItIs)?;
    let mut robust = Vec::new();
    for way in [Way::Loss, Way::Skew, Way::Restart] {
        println!("  held-out traces, {way:?}");
        robust.push((way, heldout::run(SEEDS, way)?.ours));
    }
    let normal = normal_days()?;
    page::write(&page::Figures {
        public: public.clone(),
        held_out,
        robust,
        normal: normal.clone(),
    })?;
    page::cost(&public.unwrap_or_default(), &normal).publish("detection")
}

fn run_normal(options: &Options) -> Result<()> {
    if let Some(days) = options.normal_days {
        normal::run_until(options.at_1s, 1)?;
        return normal::run_until(days - options.at_1s, 10);
    }
    let longer = normal::all()?;
    let longer = longer.iter().filter(|day| day.interval_s != 1);
    let known: f64 = longer.map(|day| day.gpu_days).sum();
    normal::run_until(known + SOME_DAYS, 10)
}

/// At 1 s, at longer intervals, and together.
fn normal_days() -> Result<[Days; 3]> {
    let (days, present) = (normal::all()?, sources::fingerprint()?);
    let at_1s = days.iter().filter(|day| day.interval_s == 1);
    let longer = days.iter().filter(|day| day.interval_s != 1);
    Ok([
        Days::of(at_1s, &present),
        Days::of(longer, &present),
        Days::of(&days, &present),
    ])
}

/// Scores a folder of labelled traces: what a person compares with another scorer.
fn score(folder: &Path) -> Result<()> {
    let public = public::score(folder)?;
    let ours = &public.tally.ours;
    let total = ours.total();
    println!(
        "{} of {} found, {} in time; pages: {} right, {} false, {} duplicate; {} false warnings; culprits {} of {}; macro F1 {:?}",
        total.found,
        total.incidents,
        total.in_time,
        ours.page_hits,
        ours.false_pages,
        ours.duplicates,
        ours.false_warnings,
        total.blamed_rightly,
        total.blamed,
        ours.macro_f1()
    );
    for found in &ours.false_findings {
        println!(
            "false: {} {} {}",
            found.severity.name(),
            found.kind,
            found.summary
        );
    }
    Ok(())
}

/// Where results rest between two runs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("detection")
}
