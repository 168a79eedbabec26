//! Command line, environment and file, read as one.
//!
//! A program declares its flags once, with clap's derive; [`parse`] adds to every flag an environment variable
//! (`ENTRENAR_` and the flag in capitals, `-` as `_`) and, for the command that has a `--config` flag, a key in a YAML
//! file. Precedence: flag, environment, file, default. A flag that may be repeated takes several values behind commas, too. [`duration`] and [`size`] are clap value parsers.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;

mod quantity;

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

/// The file's settings, in its order.
#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    settings: Vec<Setting>,
}

#[derive(Debug)]
struct Setting {
    /// The flag, with `-`.
    flag: String,
    /// As written.
    key: String,
    line: u64,
    values: Vec<String>,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        if text
            .lines()
            .all(|line| line.trim_start().starts_with('#') || line.trim().is_empty())
        {
            return Ok(Self {
                path,
                settings: Vec::new(),
            });
        }
        let entries: Entries = match serde_saphyr::from_str(text) {
            Ok(entries) => entries,
            Err(error) => {
                let reason = error.to_string();
                return Err(ConfigError::Syntax { path, reason });
            }
        };
        let mut settings: Vec<Setting> = Vec::new();
        for (key, value) in entries.0 {
            let (line, key) = (key.referenced.line(), key.value);
            let flag = key.replace('_', "-");
            if settings.iter().any(|s| s.flag == flag) {
                return Err(ConfigError::Twice { path, line, key });
            }
            let Some(values) = value.into_texts() else {
                let reason = "a value is missing after the colon".to_owned();
                return Err(ConfigError::Value {
                    path,
                    line,
                    key,
                    reason,
                });
            };
            settings.push(Setting {
                flag,
                key,
                line,
                values,
            });
        }
        Ok(Self { path, settings })
    }

    /// Makes the settings the defaults of the command, or subcommand, that has a `--config` flag.
    fn apply(&self, mut command: Command) -> Result<Command, ConfigError> {
        if command.get_arguments().any(|arg| arg.get_id() == CONFIG) {
            for setting in &self.settings {
                command = self.apply_one(command, setting)?;
            }
        }
        let names: Vec<String> = command
            .get_subcommands()
            .map(|sub| sub.get_name().to_owned())
            .collect();
        for name in names {
            let mut failed = None;
            command = command.mut_subcommand(name, |sub| {
                self.apply(sub.clone()).unwrap_or_else(|error| {
                    failed = Some(error);
                    sub
                })
            });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(command)
    }

    fn apply_one(&self, command: Command, setting: &Setting) -> Result<Command, ConfigError> {
        let known = |arg: &&Arg| takes_setting(arg) && arg.get_id() != CONFIG;
        let flags = || command.get_arguments().filter(known);
        let Some(arg) = flags().find(|arg| arg.get_long() == Some(&setting.flag)) else {
            let nearest = flags()
                .filter_map(Arg::get_long)
                .min_by_key(|long| distance(long, &setting.flag))
                .filter(|long| distance(long, &setting.flag) <= 2);
            return Err(ConfigError::UnknownKey {
                path: self.path.clone(),
                line: setting.line,
                key: setting.key.clone(),
                nearest: nearest.map(|long| long.replace('-', "_")),
            });
        };
        if setting.values.len() != 1 && !matches!(arg.get_action(), ArgAction::Append) {
            return Err(self.bad_value(setting, "takes one value, not a list"));
        }
        let id = arg.get_id().clone();
        let values: Vec<&OsStr> = setting.values.iter().map(|v| lasting(v.clone())).collect();
        // A setting from the file also satisfies a flag that is required.
        Ok(command.mut_arg(id, |arg| arg.required(false).default_values(values)))
    }

    fn bad_value(&self, setting: &Setting, reason: &str) -> ConfigError {
        ConfigError::Value {
            path: self.path.clone(),
            line: setting.line,
            key: setting.key.clone(),
            reason: reason.to_owned(),
        }
    }

    /// Names the line if the value that clap refuses came from here.
    fn explain(&self, error: clap::Error) -> ConfigError {
        let context = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => text.as_str(),
            _ => "",
        };
        let (arg, value) = (
            context(ContextKind::InvalidArg),
            context(ContextKind::InvalidValue),
        );
        let long = arg
            .trim_start_matches('-')
            .split([' ', '='])
            .next()
            .unwrap_or_default();
        let bad = matches!(
            error.kind(),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation
        );
        match self.settings.iter().find(|s| s.flag == long) {
            Some(setting) if bad && setting.values.iter().any(|v| v == value) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                let why = why.map_or(String::new(), |why| format!(": {why}"));
                self.bad_value(setting, &format!("`{value}` is not a value for it{why}"))
            }
            _ => ConfigError::Usage(error),
        }
    }
}

/// How many letters differ: Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The file as YAML has it, with the place of each key.
struct Entries(Vec<(Spanned<String>, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Mapping;
        impl<'de> Visitor<'de> for Mapping {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of flags to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Mapping)
    }
}

/// What can stand behind a key.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Value {
    Scalar(Scalar),
    List(Vec<Scalar>),
    Mapping(BTreeMap<String, Scalar>),
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Whole(i64),
    Decimal(f64),
    Text(String),
    Nothing(()),
}

impl Value {
    /// What one would type behind the flag; a mapping is a list of `K=V`. `None` when there is nothing.
    fn into_texts(self) -> Option<Vec<String>> {
        match self {
            Self::Scalar(scalar) => scalar.into_text().map(|text| vec![text]),
            Self::List(items) => items.into_iter().map(Scalar::into_text).collect(),
            Self::Mapping(items) => items
                .into_iter()
                .map(|(key, value)| Some(format!("{key}={}", value.into_text()?)))
                .collect(),
        }
    }
}

impl Scalar {
    fn into_text(self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(value.to_string()),
            Self::Whole(value) => Some(value.to_string()),
            Self::Decimal(value) => Some(value.to_string()),
            Self::Text(value) => Some(value),
            Self::Nothing(()) => None,
        }
    }
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
