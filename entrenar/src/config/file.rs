//! The YAML file: flags as keys, with their lines.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::{CONFIG, ConfigError, lasting, takes_setting};

/// The file's settings, in its order.
#[derive(Debug)]
pub(super) struct ConfigFile {
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
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
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
    pub(super) fn apply(&self, mut command: Command) -> Result<Command, ConfigError> {
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
    pub(super) fn explain(&self, error: clap::Error) -> ConfigError {
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
