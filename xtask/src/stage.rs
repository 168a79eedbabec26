//! Running commands, one stage after the other, and saying how long each took.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::limit;
use crate::packages::fetched;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// Where commands are looked for: among what was fetched for us, then as in our own environment.
pub(crate) fn path() -> OsString {
    let ours = std::env::var_os("PATH").unwrap_or_default();
    let dirs = fetched().into_iter().chain(std::env::split_paths(&ours));
    // Fails where our own path has a colon in it: then what was fetched can't be found.
    std::env::join_paths(dirs).unwrap_or(ours)
}

/// What ran so far, and how long it took.
#[derive(Default)]
pub(crate) struct Stages {
    done: Vec<(String, Duration)>,
}

impl Stages {
    /// Runs one stage; its failure ends the run.
    #[allow(
        clippy::disallowed_methods,
        reason = "a tool that times its own stages"
    )]
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("\n── {name}");
        let began = Instant::now();
        let result = work().with_context(|| format!("stage `{name}`"));
        self.done.push((name.to_owned(), began.elapsed()));
        if result.is_err() {
            self.report();
        }
        result
    }

    /// How long each stage took.
    pub(crate) fn report(&self) {
        println!("\n── stages");
        for (name, took) in &self.done {
            println!("{:>7.1} s  {name}", took.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        println!("{:>7.1} s  in all", total.as_secs_f64());
    }
}

/// Runs a command in a directory, with variables in its environment, and shows what it prints.
pub(crate) fn sh_with(
    program: &str,
    args: &[&str],
    env: &[(&str, &str)],
    dir: &Path,
) -> Result<()> {
    sh_within(Duration::MAX, program, args, env, dir)
}

/// The same, which fails when it takes longer.
pub(crate) fn sh_within(
    limit: Duration,
    program: &str,
    args: &[&str],
    env: &[(&str, &str)],
    dir: &Path,
) -> Result<()> {
    let shown = format!("{program} {}", args.join(" "));
    println!("$ {shown}");
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", path())
        .envs(env.iter().copied())
        .current_dir(dir)
        .spawn()
        .with_context(|| format!("could not start `{shown}`"))?;
    let status = limit::wait(&mut child, limit).with_context(|| format!("`{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// `cargo`, the one that runs us.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    cargo_with(args, &[])
}

/// The same, with variables in its environment.
pub(crate) fn cargo_with(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    cargo_within(Duration::MAX, args, env)
}

/// The same, which fails when it takes longer.
pub(crate) fn cargo_within(limit: Duration, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    sh_within(limit, &cargo, args, env, &root())
}

/// What a command prints on standard output; `None` when it can't be run or fails.
pub(crate) fn output(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program)
        .args(args)
        .env("PATH", path())
        .output()
        .ok()?;
    out.status
        .success()
        .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
