//! Command line, environment and file, read as one.
//!
//! A program declares its flags once, with clap's derive; [`parse`] adds to every flag an environment variable
//! (`ENTRENAR_` and the flag in capitals, `-` as `_`) and, for the command that has a `--config` flag, a key in a YAML
//! file. Precedence: flag, environment, file, default. A flag that may be repeated takes several values behind commas, too. [`duration`] and [`size`] are clap value parsers.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

mod file;
mod quantity;

use file::ConfigFile;
pub use quantity::{duration, size};

/// The flag that names the file.
const CONFIG: &str = "config";

/// The process's configuration. On bad usage it says why on standard error and ends the process with status 2;
/// `--help` and `--version` end it with status 0.
pub fn parse<A: CommandFactory + FromArgMatches>() -> A {
    let args: Vec<OsString> = std::env::args_os().collect();
    match parse_from(&args) {
        Ok(parsed) => parsed,
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(2);
        }
    }
}

/// The same for arguments that are given; the first is the program's name.
pub fn parse_from<A: CommandFactory + FromArgMatches>(args: &[OsString]) -> Result<A, ConfigError> {
    let mut command = with_environment(A::command());
    let file = match config_path(args) {
        Some(path) => Some(ConfigFile::read(&path)?),
        None => None,
    };
    if let Some(file) = &file {
        command = file.apply(command)?;
    }
    let parsed = command
        .try_get_matches_from_mut(args)
        .and_then(|mut matches| A::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| match &file {
        Some(file) => file.explain(error),
        None => ConfigError::Usage(error),
    })
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Bad usage, or a call for help, in clap's words.
    #[error(transparent)]
    Usage(clap::Error),
    /// The file cannot be read.
    #[error("could not read the configuration file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a YAML mapping of flags to values.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What the parser says, with the line.
        reason: String,
    },
    /// No flag has this name.
    #[error("{}:{line}: unknown key `{key}`{}", path.display(), suggestion(nearest.as_deref()))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// The key.
        key: String,
        /// A key that looks like it.
        nearest: Option<String>,
    },
    /// A key stands there twice.
    #[error("{}:{line}: `{key}` stands there twice: keep one", path.display())]
    Twice {
        /// Which file.
        path: PathBuf,
        /// Line of the second, from 1.
        line: u64,
        /// The key.
        key: String,
    },
    /// A value that its flag does not take.
    #[error("{}:{line}: `{key}`: {reason}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || ": see --help for the flags; a key is a flag's name".to_owned(),
        |name| format!(": did you mean `{name}`?"),
    )
}

/// Gives every flag of a command and of its subcommands an environment variable.
fn with_environment(command: Command) -> Command {
    command
        .mut_args(|arg| match (arg.get_long(), takes_setting(&arg)) {
            // A variable that the program chose itself stays.
            (Some(long), true) if arg.get_env().is_none() => {
                let name = format!("ENTRENAR_{}", long.to_uppercase().replace('-', "_"));
                let arg = arg.env(lasting(name)).hide_env_values(true);
                match arg.get_action() {
                    // `=1` in the environment means yes.
                    ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
                    // One variable must be able to hold several values.
                    ArgAction::Append => arg.value_delimiter(','),
                    _ => arg,
                }
            }
            _ => arg,
        })
        .mut_subcommands(with_environment)
}

/// Whether an argument is a setting, not a call such as `--help`.
fn takes_setting(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Set | ArgAction::Append | ArgAction::SetTrue | ArgAction::SetFalse
    )
}

/// clap keeps names and defaults for as long as the process lives. There are a few dozen, made once.
fn lasting(text: String) -> &'static OsStr {
    OsStr::new(Box::leak(text.into_boxed_str()))
}

/// The file named on the command line, else in the environment. Looked for by hand, because the file gives clap its
/// defaults before clap reads the line.
fn config_path(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("ENTRENAR_CONFIG")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[arg(long)]
        aggregator: String,
        #[arg(long, default_value = "1s", value_parser = duration)]
        interval: Duration,
        #[arg(long = "label")]
        labels: Vec<String>,
        #[arg(long, default_value_t = 1)]
        batch_ticks: u32,
        #[arg(long)]
        insecure: bool,
        #[arg(long)]
        config: Option<PathBuf>,
    }

    /// The flags with a file of this text, or what is said about it after the file's name.
    fn read(text: &str, args: &[&str]) -> Result<Flags, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.yaml");
        std::fs::write(&path, text).unwrap();
        let fixed = [
            OsString::from("agent"),
            "--config".into(),
            path.clone().into(),
        ];
        let args: Vec<OsString> = fixed
            .into_iter()
            .chain(args.iter().map(Into::into))
            .collect();
        parse_from(&args).map_err(|error| {
            let said = error.to_string();
            said.replace(&path.display().to_string(), "FILE")
        })
    }

    #[test]
    fn a_file_gives_what_the_command_line_does_not() {
        let text = "aggregator: http://a\ninterval: 250ms\nbatch-ticks: 5\ninsecure: true\nlabel:\n  rack: r1\n  u: 7\n";
        let flags = read(text, &["--interval", "2s"]).unwrap();
        let several = read("", &["--aggregator=x", "--label=a=1,b=2", "--label=c=3"]).unwrap();
        assert_eq!(several.labels, ["a=1", "b=2", "c=3"]);
        assert_eq!(flags.aggregator, "http://a");
        assert_eq!(flags.interval, Duration::from_secs(2));
        assert_eq!((flags.batch_ticks, flags.insecure), (5, true));
        assert_eq!(flags.labels, ["rack=r1", "u=7"]);
        assert!(flags.config.is_some());
        assert_eq!(
            read("# nothing\n", &["--aggregator=x"])
                .unwrap()
                .batch_ticks,
            1
        );
    }

    #[test]
    fn every_setting_has_an_environment_variable() {
        let command = with_environment(Flags::command());
        let variable = |id: &str| {
            let arg = command.get_arguments().find(|arg| arg.get_id() == id);
            arg.and_then(Arg::get_env)
                .and_then(OsStr::to_str)
                .map(str::to_owned)
        };
        assert_eq!(
            variable("batch_ticks").as_deref(),
            Some("ENTRENAR_BATCH_TICKS")
        );
        assert_eq!(variable("insecure").as_deref(), Some("ENTRENAR_INSECURE"));
        assert_eq!(variable("labels").as_deref(), Some("ENTRENAR_LABEL"));
    }

    #[test]
    fn a_mistake_in_the_file_is_named_with_its_line() {
        let check = |text: &str, said: &str| {
            let error = read(text, &["--aggregator=x"]).unwrap_err();
            assert!(error.contains(said), "{text:?} gave {error:?}");
        };
        check(
            "interval: 1s\nintervall: 2s\n",
            "FILE:2: unknown key `intervall`: did you mean `interval`?",
        );
        check("colour: red\n", "FILE:1: unknown key `colour`: see --help");
        check(
            "\n\ninterval: 0s\n",
            "FILE:3: `interval`: `0s` is not a value for it: it must be longer than zero",
        );
        check(
            "interval: 5\n",
            "FILE:1: `interval`: `5` is not a value for it: a duration is a number and a unit",
        );
        check(
            "batch_ticks: [1, 2]\n",
            "FILE:1: `batch_ticks`: takes one value",
        );
        check("interval:\n", "FILE:1: `interval`: a value is missing");
        check(
            "batch-ticks: 1\nbatch_ticks: 2\n",
            "FILE:2: `batch_ticks` stands there twice",
        );
        check("interval: [1s\n", "FILE: ");
        check("- a\n", "FILE: ");
    }

    #[test]
    fn a_wrong_flag_is_not_blamed_on_the_file() {
        let error = read("interval: 1s\n", &["--aggregator=x", "--interval=0s"]).unwrap_err();
        assert!(
            error.contains("invalid value '0s' for '--interval"),
            "{error}"
        );
    }
}
