//! `bench`: the benchmarks, built as people run them.

use anyhow::Result;

use crate::stage::cargo;

/// Runs the named benchmarks, or all.
pub(crate) fn run(names: &[&str]) -> Result<()> {
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
    ])?;
    let mut args = vec!["run", "--release", "--package", "entrenar-bench", "--"];
    args.extend(names);
    cargo(&args)
}
