//! `entrenar-aggregator`: flags, logs, run.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use entrenar_aggregator::config::{Config, init_logs};
use entrenar_aggregator::{certs, run_until_signal};

/// The centre of a GPU fleet: keeps the series, runs the Andon rules, tells people.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    config: Config,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Certificates for a deployment that has no CA of its own.
    Certs {
        #[command(subcommand)]
        command: Certs,
    },
}

#[derive(Subcommand)]
enum Certs {
    /// Make a CA and a server certificate.
    Init {
        /// Directory to write to; nothing in it is overwritten.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A name or address by which agents and people reach the server; repeat for several.
        #[arg(long, value_name = "NAME", required = true)]
        host: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli: Cli = entrenar::config::parse();
    match cli.command {
        Some(Command::Certs {
            command: Certs::Init { out, host },
        }) => match certs::init(&out, &host) {
            Ok(written) => {
                for file in written {
                    println!("{}", file.display());
                }
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        None => {
            init_logs(cli.config.log_format, tracing::Level::INFO);
            run_until_signal(cli.config)
        }
    }
}
