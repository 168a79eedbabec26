//! Every flag and variable that a shipped file gives to a daemon is one that the daemon knows.

use std::collections::BTreeSet;

use clap::{Args, Command, CommandFactory};

/// The flags of a daemon, by its name.
pub(crate) fn of(daemon: &str) -> BTreeSet<String> {
    let command = match daemon {
        "entrenar-agent" => entrenar_agent::config::Config::command(),
        "entrenar-aggregator" => {
            entrenar_aggregator::config::Config::augment_args(Command::new("entrenar-aggregator"))
        }
        other => panic!("no daemon is called {other}"),
    };
    command
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .collect()
}

/// Fails on a word of a command line that begins a flag which the daemon does not have.
pub(crate) fn check_line(daemon: &str, words: impl IntoIterator<Item = impl AsRef<str>>) {
    let known = of(daemon);
    for word in words {
        if let Some(flag) = word.as_ref().strip_prefix("--") {
            let flag = flag.split('=').next().unwrap();
            assert!(known.contains(flag), "{daemon} has no flag --{flag}");
        }
    }
}

/// Fails on an `ENTRENAR_…=` line that sets no flag of the daemon.
pub(crate) fn check_environment(daemon: &str, file: &str) {
    let known = of(daemon);
    for line in file
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
    {
        let (variable, _) = line.split_once('=').unwrap();
        let flag = variable.strip_prefix("ENTRENAR_").unwrap();
        let flag = flag.to_lowercase().replace('_', "-");
        assert!(known.contains(&flag), "{daemon}: {variable} sets no flag");
    }
}
