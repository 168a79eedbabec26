//! Writes labelled traces of a simulated fleet, every scenario of the catalogue among them.
//!
//! ```text
//! cargo run --release -p entrenar-gpu --example labelled_traces -- --seed 7 --out DIR   # a whole set: DIR/labels.jsonl, DIR/*.csv.*
//! cargo run --release -p entrenar-gpu --example labelled_traces -- --list               # the catalogue
//! cargo run --release -p entrenar-gpu --example labelled_traces -- --seed 7 --out DIR --only incidents
//! cargo run --release -p entrenar-gpu --example labelled_traces -- --measure            # what a row of a normal fleet costs
//! ```

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use std::time::Duration;

use entrenar::clock::instant;
use entrenar::sim::{Feed, Model, Setting, SimError, Voice, catalogue, normal_fleet, plan_traces};
use entrenar::unit::Timestamp;

struct Arguments {
    seed: u64,
    out: Option<PathBuf>,
    only: String,
    list: bool,
    measure: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        seed: 1,
        out: None,
        only: String::new(),
        list: false,
        measure: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--seed" => {
                let text = value()?;
                found.seed = text
                    .parse()
                    .map_err(|_| format!("--seed {text}: not a whole number"))?;
            }
            "--out" => found.out = Some(value()?.into()),
            "--only" => found.only = value()?,
            "--list" => found.list = true,
            "--measure" => found.measure = true,
            _ => {
                let known = "--seed, --out, --only, --list, --measure";
                return Err(format!("{word}: known are {known}"));
            }
        }
    }
    Ok(found)
}

fn write(arguments: &Arguments, out: &PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(out)?;
    let mut labels = BufWriter::new(File::create(out.join("labels.jsonl"))?);
    for plan in plan_traces(arguments.seed) {
        if !plan.name.contains(&arguments.only) {
            continue;
        }
        let (header, incidents) = plan.write(out)?;
        writeln!(labels, "{}", serde_json::to_string(&header)?)?;
        for label in &incidents {
            writeln!(labels, "{}", serde_json::to_string(label)?)?;
        }
        let cases: Vec<_> = plan.cases.iter().map(|case| case.id).collect();
        println!(
            "{} {} GPUs, {} s apart, {:?}: {}",
            plan.name,
            header.gpus,
            header.interval_s,
            plan.setting.model,
            cases.join(" ")
        );
    }
    labels.flush()?;
    Ok(())
}

/// Generates a normal fleet at both paces, and says what a row took.
fn measure(seed: u64) -> Result<(), SimError> {
    for (interval_s, hours) in [(1, 2), (10, 24)] {
        let setting = Setting {
            seed,
            start: Timestamp::from_secs(1_700_000_000),
            lasts: Duration::from_hours(hours),
            interval: Duration::from_secs(interval_s),
            model: Model::H100,
            gpus_per_node: 8,
            has_job_ids: true,
            has_racks: true,
        };
        let set = instant();
        let feed = Feed::new(normal_fleet(setting, 32).raise()?, Voice::default());
        let set = set.elapsed();
        let began = instant();
        let rows: usize = feed.map(|tick| tick.rows.len()).sum();
        let took = began.elapsed();
        println!(
            "{interval_s} s apart, {hours} h: set in {} ms; {rows} rows, {:.0} ns each",
            set.as_millis(),
            took.as_nanos() as f64 / rows as f64
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if arguments.list {
        for case in catalogue() {
            println!("{:24} {:?}: {}", case.id, case.expect, case.about);
        }
        return ExitCode::SUCCESS;
    }
    if arguments.measure {
        return match measure(arguments.seed) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let Some(out) = &arguments.out else {
        eprintln!("error: say where to write: --out DIR, or --list");
        return ExitCode::from(2);
    };
    match write(&arguments, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
