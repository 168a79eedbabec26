//! `cargo xtask`: what a person or CI runs around the code.

#![forbid(unsafe_code)]

mod bench;
mod fuzz;
mod limit;
mod packages;
mod stage;
mod test;
mod ui;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [--skip-external]   every test; installs what a test needs, or says what to install.
                           --skip-external runs the rest and lists what was skipped
  setup                    only gets what tests need, as `test` does first
  ci                       what CI runs: format, lints, docs, the board's build, and `test`
  ui                       build the board into web/dist
  bench [NAME...]          run benchmarks (all, or the named ones) and print their tables
  bench detection [OPTION...]
                           how well it detects: writes docs/detection.md, which lists the options
  bench peers [PART...]    the same fleet through Prometheus and VictoriaMetrics, which are got if they are missing;
                           parts: ingest, disk, query
  fuzz [TARGET...] [--seconds N]
                           hostile bytes for chunk, rollup, journal and wire, N seconds each (60); needs a
                           nightly compiler, and says so where there is none and runs property tests instead
";

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    std::env::set_current_dir(stage::root())?;
    match args.as_slice() {
        ["test"] => test::run(test::External::Run),
        ["test", "--skip-external"] => test::run(test::External::Skip),
        ["setup"] => test::setup(),
        ["ci"] => test::ci(),
        ["ui"] => ui::build().map(|()| ExitCode::SUCCESS),
        ["bench", names @ ..] => bench::run(names).map(|()| ExitCode::SUCCESS),
        ["fuzz", args @ ..] => fuzz::run(args).map(|()| ExitCode::SUCCESS),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("unknown arguments: {}\n{USAGE}", other.join(" ")),
    }
}
