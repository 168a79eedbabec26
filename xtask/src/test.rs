//! `test` and `ci`: the same for a person and for CI.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::packages;
use crate::stage::{Stages, cargo, cargo_with, cargo_within};
use crate::ui;

/// Whether tests that need a program besides Rust run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum External {
    Run,
    Skip,
}

/// Exit status when something must be installed first.
const NOT_SET_UP: u8 = 2;

/// Several times what the tests take on two slow cores, and less than CI waits: one that hangs is named.
pub(crate) const LIMIT: Duration = Duration::from_mins(25);

pub(crate) fn run(external: External) -> Result<ExitCode> {
    let mut stages = Stages::default();
    let code = tests(&mut stages, external)?;
    stages.report();
    Ok(code)
}

/// Gets what tests need, and no more.
pub(crate) fn setup() -> Result<ExitCode> {
    let ready = packages::ensure()?;
    Ok(ExitCode::from(if ready { 0 } else { NOT_SET_UP }))
}

fn tests(stages: &mut Stages, external: External) -> Result<ExitCode> {
    if external == External::Run {
        let mut ready = false;
        stages.run("packages", || {
            ready = packages::ensure()?;
            Ok(())
        })?;
        if !ready {
            return Ok(ExitCode::from(NOT_SET_UP));
        }
    }
    let env: &[(&str, &str)] = match external {
        External::Run => &[],
        External::Skip => &[("ENTRENAR_SKIP_EXTERNAL", "1")],
    };
    // Binaries and examples first: stories start them.
    stages.run("build", || {
        cargo(&["build", "--workspace", "--bins", "--examples", "--tests"])
    })?;
    stages.run("tests", || {
        cargo_within(
            LIMIT,
            &[
                "test",
                "--workspace",
                "--lib",
                "--bins",
                "--examples",
                "--tests",
                "--no-fail-fast",
            ],
            env,
        )
    })?;
    stages.run("doc tests", || {
        cargo_within(LIMIT, &["test", "--workspace", "--doc"], &[])
    })?;
    match external {
        External::Run => stages.run("board tests", ui::test)?,
        External::Skip => {
            println!(
                "\nskipped: the board's tests (node, chromium), and every test above that says `skipped:`"
            );
            for line in packages::missing() {
                println!("not installed: {line}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What CI runs. It never skips.
pub(crate) fn ci() -> Result<ExitCode> {
    let mut stages = Stages::default();
    stages.run("format", || cargo(&["fmt", "--all", "--check"]))?;
    stages.run("lints", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ])
    })?;
    stages.run("docs", || {
        let deny = [("RUSTDOCFLAGS", "--deny warnings")];
        cargo_with(
            &[
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
            ],
            &deny,
        )
    })?;
    let code = tests(&mut stages, External::Run)?;
    if code == ExitCode::SUCCESS {
        stages.run("board is fresh", ui::check_fresh)?;
    }
    stages.report();
    Ok(code)
}
