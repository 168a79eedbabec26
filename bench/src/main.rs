//! `cargo xtask bench [NAME…]`: runs all benches, or the named ones.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use entrenar_bench::{BENCHES, detection, load, peers, scale};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(names: &[&str]) -> Result<()> {
    // The same program, started again as the agents of a fleet.
    if let [load::SUBCOMMAND, plan] = names {
        return load::run(&serde_json::from_str(plan)?);
    }
    if let [peers::SUBCOMMAND, load] = names {
        return peers::run_load(serde_json::from_str(load)?);
    }
    // What follows its name are its options.
    if let ["detection", options @ ..] = names {
        return detection::run(options).context("bench detection");
    }
    if let ["peers", parts @ ..] = names {
        return peers::run(parts).context("bench peers");
    }
    if let ["scale", sizes @ ..] = names {
        return scale::run(sizes).context("bench scale");
    }
    let known = |name: &&&str| BENCHES.iter().any(|bench| bench.name == **name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let known: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!(
            "there is no bench {unknown}: choose of {}",
            known.join(", ")
        );
    }
    for bench in BENCHES {
        if names.is_empty() || names.contains(&bench.name) {
            println!("── {}: {}", bench.name, bench.what);
            (bench.run)().with_context(|| format!("bench {}", bench.name))?;
        }
    }
    Ok(())
}
