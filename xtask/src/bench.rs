//! `bench`: the benchmarks, built as people run them.

use anyhow::{Result, bail};

use crate::packages;
use crate::stage::cargo;

/// Runs the named benchmarks, or all.
pub(crate) fn run(names: &[&str]) -> Result<()> {
    let compares = names.is_empty() || names.contains(&"peers");
    if compares && !packages::ensure_peers()? {
        bail!("what is to be measured beside us is not here");
    }
    // Detection is measured inside the bench itself; what follows its name are its options.
    if names.first() != Some(&"detection") {
        build_services()?;
    }
    let mut args = vec!["run", "--release", "--package", "entrenar-bench", "--"];
    args.extend(names);
    cargo(&args)
}

/// The processes that the other benches start.
fn build_services() -> Result<()> {
    cargo(&[
        "build",
        "--release",
        "--package",
        "entrenar-agent",
        "--package",
        "entrenar-aggregator",
        "--package",
        "entrenar-cli",
        "--package",
        "fake-nvml",
    ])
}
