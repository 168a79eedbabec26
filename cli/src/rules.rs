//! `entrenar rules`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use entrenar_aggregator::andon::RuleBook;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Validate a rules file: says the line and the reason of what is wrong.
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) fn run(command: &Command) -> ExitCode {
    let Command::Check { file } = command;
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: could not read {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    match RuleBook::parse(&text, &file.display().to_string()) {
        Ok(rules) => {
            println!("{}: ok", file.display());
            for rule in rules.summaries() {
                let on = if rule.enabled { "on" } else { "off" };
                println!(
                    "  {:<20} {:<8} {on}",
                    rule.kind.name(),
                    rule.severity.name()
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
