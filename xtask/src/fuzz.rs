//! `fuzz`: the targets of `tests/hostile` under libFuzzer, or where no nightly compiler is, as long property tests.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::stage::{cargo, cargo_with, output, root, sh_with};

/// Names of the targets, as in `fuzz/Cargo.toml`.
const TARGETS: [&str; 5] = ["chunk", "rollup", "journal", "sheet", "wire"];

/// How long each target runs unless `--seconds` says otherwise.
const SECONDS: u32 = 60;

/// Random cases of each property where there is no fuzzer.
const CASES: &str = "20000";

/// What libFuzzer takes from its target: coverage by edges and comparisons, and an eye on C and unsafe code.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Zsanitizer=address";

/// Longest input. Blobs of the seeds are shorter.
const MAX_BYTES: &str = "-max_len=8192";

/// Memory that one input may take, all in. The bounds of the formats are far below.
const MAX_MIB: &str = "-rss_limit_mb=1536";

/// Runs the fuzzer on one target, or on each in turn.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (targets, seconds) = parse(args)?;
    if output("cargo", &["+nightly", "--version"]).is_none() {
        println!(
            "no nightly compiler: the fuzzer needs one, and nothing else. Install it with:\n\n    \
             rustup toolchain install nightly --profile minimal\n\n\
             Running the same targets as property tests instead, {CASES} cases each."
        );
        let args = ["test", "--release", "--package", "entrenar-hostile"];
        return cargo_with(&args, &[("PROPTEST_CASES", CASES)]);
    }
    cargo(&[
        "run",
        "--package",
        "entrenar-hostile",
        "--example",
        "seeds",
        "--",
        &corpus().to_string_lossy(),
    ])?;
    // The versions that are shipped; what the fuzzer itself needs is added.
    fs::copy(root().join("Cargo.lock"), root().join("fuzz/Cargo.lock"))
        .context("could not copy Cargo.lock to fuzz/")?;
    let host = host()?;
    for target in targets {
        fuzz(target, seconds, &host)?;
    }
    Ok(())
}

fn parse<'a>(args: &[&'a str]) -> Result<(Vec<&'a str>, u32)> {
    let (mut targets, mut seconds) = (Vec::new(), SECONDS);
    let mut args = args.iter().copied();
    while let Some(arg) = args.next() {
        match arg {
            "--seconds" => {
                let given = args.next().and_then(|given| given.parse().ok());
                seconds = given
                    .filter(|given| *given > 0)
                    .context("--seconds: give a whole number above zero")?;
            }
            name if TARGETS.contains(&name) => targets.push(name),
            other => bail!(
                "there is no target {other}: choose of {}",
                TARGETS.join(", ")
            ),
        }
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    Ok((targets, seconds))
}

/// What the compiler calls this machine. Named, so that build scripts are left as they are.
fn host() -> Result<String> {
    let said = output("rustc", &["+nightly", "-vV"]).context("`rustc +nightly` does not run")?;
    let line = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("`rustc -vV` names no host")?.to_owned())
}

fn fuzz(target: &str, seconds: u32, host: &str) -> Result<()> {
    println!("\n── fuzz {target}, {seconds} s");
    let found = root().join("target/fuzz/found").join(target);
    fs::create_dir_all(&found).with_context(|| format!("could not make {}", found.display()))?;
    let build = root().join("target/fuzz");
    let fuzzer = [
        format!("-max_total_time={seconds}"),
        format!("-artifact_prefix={}/", found.display()),
        corpus().join(target).to_string_lossy().into_owned(),
    ];
    let mut args = vec!["+nightly", "run", "--release", "--target", host];
    let build = build.to_string_lossy();
    args.extend(["--target-dir", &build, "--bin", target, "--"]);
    args.extend([MAX_BYTES, MAX_MIB, "-timeout=10", "-print_final_stats=1"]);
    args.extend(fuzzer.iter().map(String::as_str));
    // Not the cargo that runs us: it would not understand `+nightly`.
    sh_with(
        "cargo",
        &args,
        &[("RUSTFLAGS", RUSTFLAGS)],
        &root().join("fuzz"),
    )
    .with_context(|| format!("what was found lies in {}", found.display()))
}

/// Where inputs are kept that cover something, from run to run.
fn corpus() -> PathBuf {
    root().join("target/fuzz/corpus")
}
