//! `entrenar`: what a person types.

#![forbid(unsafe_code)]

mod backtest;
mod backup;
mod demo;
mod record;
mod recover;
mod remote;
mod rules;
mod service;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// GPU-fleet monitoring that stops the line.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A whole simulated fleet with its board, in one process: nothing to set up, nothing left behind.
    Demo(demo::Args),
    /// Agent and aggregator for this host's own GPUs.
    Up(up::Args),
    /// What the rules would have said of traces: recorded, exported or simulated.
    Backtest(backtest::Args),
    /// What an aggregator has stored, as a trace.
    Record(record::Args),
    /// Work on rules files.
    Rules {
        #[command(subcommand)]
        command: rules::Command,
    },
    /// Copy the database while the aggregator runs.
    Backup(backup::Args),
    /// A new database of what is readable in a damaged one, and the names of what is lost.
    Recover(recover::Args),
}

fn main() -> ExitCode {
    let cli: Cli = entrenar::config::parse();
    match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Up(args) => up::run(args),
        Command::Backtest(args) => backtest::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Rules { command } => rules::run(&command),
        Command::Backup(args) => backup::run(&args),
        Command::Recover(args) => recover::run(&args),
    }
}
