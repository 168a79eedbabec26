//! How well it detects, beside five baselines on the same streams: writes `docs/detection.md`.
//!
//! How to read the folder: `truth` is what a trace's labels say, `finding` what a detector says, `judge` holds the one
//! against the other, `score` and `interval` count. `watch` drives our engine, `baselines` are the others. `normal` runs
//! normal days; `sources` says which code a figure comes from.

use std::path::{Path, PathBuf};

use anyhow::Result;

pub mod baselines;
pub mod cores;
pub mod finding;
pub mod heldout;
pub mod interval;
pub mod judge;
pub mod normal;
pub mod options;
pub mod public;
pub mod score;
pub mod sources;
pub mod tally;
pub mod truth;
pub mod watch;

use options::Options;

/// Runs what the options ask for, and writes the page.
pub fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words)?;
    if options.fresh {
        normal::drop_old()?;
    }
    if let Some(folder) = options.score {
        let public = public::score(&folder)?;
        println!("{:#?}", public.tally.ours.total());
        println!(
            "macro F1 {:?}, {:#?}",
            public.tally.ours.macro_f1(),
            public.tally.ours
        );
        let held = heldout::run(1..=1, heldout::Way::AsItIs)?;
        println!("direct {:#?}", held.ours.total());
        println!("macro F1 {:?}", held.ours.macro_f1());
        return Ok(());
    }
    normal::run_until(options.at_1s, 1)?;
    normal::run_until(options.normal_days - options.at_1s, 10)?;
    show_normal()
}

fn show_normal() -> Result<()> {
    let (days, present) = (normal::all()?, sources::fingerprint()?);
    for interval_s in [1, 10] {
        let of = days.iter().filter(|day| day.interval_s == interval_s);
        let sum = normal::Days::of(of, &present);
        println!(
            "{interval_s} s: {:.0} GPU-days, {:.3?} µs a GPU and tick (simulator, engine, baselines), false {:?}, {:?}",
            sum.gpu_days,
            sum.cpu_us(),
            sum.false_findings,
            sum.kinds
        );
    }
    Ok(())
}

/// Where results rest between two runs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("detection")
}
