//! The rules file: what is unwelcome, with numbers that people may change. *(pure)*
//!
//! Every rule has its defaults built in; a file names only what it changes. `docs/rules.md` explains each parameter.
//! A file is checked as a whole before any of it counts.

mod span;

use std::fmt;

use entrenar::report::Labels;
use serde::{Deserialize, Serialize};

use super::{Kind, RuleUid, Severity};
pub use span::Span;

/// What every rule has, whatever it watches.
pub trait Rule {
    /// Its name in the file, and its identity.
    const NAME: &'static str;
    /// The class of trouble that it finds.
    const KIND: Kind;

    /// Its name as an identity.
    fn uid(&self) -> RuleUid {
        Self::NAME.into()
    }
    /// Whether it watches at all.
    fn enabled(&self) -> bool;
    /// How much a finding matters.
    fn severity(&self) -> Severity;
    /// Where its runbook is.
    fn runbook_url(&self) -> Option<&str>;
    /// What is put on each of its findings, beside the node's labels.
    fn labels(&self) -> &Labels;
    /// What cannot be: the parameter and why.
    fn check(&self) -> Result<(), Impossible> {
        Ok(())
    }
}

/// A parameter with a value that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// Its name in the file.
    pub parameter: &'static str,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

/// Says that a parameter must be otherwise, unless `holds`.
pub(crate) fn require(
    holds: bool,
    parameter: &'static str,
    reason: impl fmt::Display,
) -> Result<(), Impossible> {
    if holds {
        return Ok(());
    }
    Err(Impossible {
        parameter,
        reason: reason.to_string(),
    })
}

/// Declares a rule: its parameters with their defaults, beside what every rule has.
macro_rules! rule {
    (
        $(#[$doc:meta])*
        $rule:ident: $kind:ident, named $name:literal, $severity:ident, $enabled:literal;
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr;)*
        $(=> |$this:ident| $check:block)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $rule {
            /// Whether it watches at all.
            pub enabled: bool,
            /// How much a finding matters: `info`, `warning`, `critical`.
            pub severity: $crate::andon::Severity,
            /// Where its runbook is.
            pub runbook_url: Option<String>,
            /// What is put on each of its findings, beside the node's labels.
            pub labels: entrenar::report::Labels,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $rule {
            fn default() -> Self {
                Self {
                    enabled: $enabled,
                    severity: $crate::andon::Severity::$severity,
                    runbook_url: None,
                    labels: entrenar::report::Labels::new(),
                    $($field: $default,)*
                }
            }
        }

        impl $crate::andon::rules::Rule for $rule {
            const NAME: &'static str = $name;
            const KIND: $crate::andon::Kind = $crate::andon::Kind::$kind;
            fn enabled(&self) -> bool {
                self.enabled
            }
            fn severity(&self) -> $crate::andon::Severity {
                self.severity
            }
            fn runbook_url(&self) -> Option<&str> {
                self.runbook_url.as_deref()
            }
            fn labels(&self) -> &entrenar::report::Labels {
                &self.labels
            }
            $(fn check(&self) -> Result<(), $crate::andon::rules::Impossible> {
                let $this = self;
                $check
            })?
        }
    };
}
pub(crate) use rule;

/// How findings are tied together, whatever rule they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CausesRule {
    /// How far apart a cause and its consequence may begin.
    pub explain_within: Span,
    /// Findings of one kind that share a node, rack, switch, feed or job, and that are raised within this time of each
    /// other, are one.
    pub group_within: Span,
}

impl Default for CausesRule {
    fn default() -> Self {
        Self {
            explain_within: Span::secs(120),
            group_within: Span::secs(60),
        }
    }
}

/// Declares all rules: a line each, `name: type`, and everything that is done with every rule follows.
macro_rules! rule_set {
    ($($field:ident: $rule:ty,)*) => {
        /// All built-in rules, and how their findings are tied together.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct RuleSet {
            $(pub $field: $rule,)*
            pub causes: CausesRule,
        }

        impl RuleSet {
            /// The names of the rules, as the file writes them.
            pub const NAMES: [&str; [$(stringify!($field)),*].len()] = [$(stringify!($field)),*];

            /// What each rule says of itself.
            pub fn summaries(&self) -> Vec<RuleSummary> {
                vec![$(RuleSummary::of(&self.$field),)*]
            }

            /// The first thing that cannot be, and in which rule.
            fn check(&self) -> Result<(), (&'static str, Impossible)> {
                $(self.$field.check().map_err(|wrong| (stringify!($field), wrong))?;)*
                Ok(())
            }
        }
    };
}

// A rule's line stands with what it watches, so that rules that are added at the same time do not meet.
rule_set! {
    // GPUs, by what they measure.
    thermal_throttling: super::thermal::ThermalThrottlingRule,
    memory_pressure: super::memory::MemoryPressureRule,
    power_limit: super::power::PowerLimitRule,

    // Jobs.
    gpu_idle: super::idle::GpuIdleRule,

    // GPUs, by what goes wrong with them.
    xid: super::xid::XidRule,
    gpu_lost: super::lost::GpuLostRule,
    gpu_unresponsive: super::unresponsive::GpuUnresponsiveRule,

    // Nodes, and the watching itself.
    node_lost: super::node::NodeLostRule,
    monitoring_fault: super::monitoring::MonitoringFaultRule,
}

/// Why a rules file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: {reason}")]
pub struct RulesError {
    /// The file, as it was named.
    pub file: String,
    /// Counted from 1.
    pub line: u64,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

/// The file around the rules.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RulesFile {
    rules: RuleSet,
}

/// What a rule says of itself, for a list of rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleSummary {
    pub rule: RuleUid,
    pub kind: Kind,
    pub enabled: bool,
    pub severity: Severity,
    pub runbook_url: Option<String>,
    pub labels: Labels,
}

impl RuleSet {
    /// Reads a rules file: YAML with one key, `rules`. What it does not name keeps its default; a name that no rule
    /// or parameter has is an error.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, RulesError> {
        let error = |line, reason| RulesError {
            file: file_name.into(),
            line,
            reason,
        };
        let is_comment = |line: &str| line.trim().is_empty() || line.trim().starts_with('#');
        if text.lines().all(is_comment) {
            return Ok(Self::default());
        }
        let file: RulesFile = serde_saphyr::from_str(text).map_err(|wrong| {
            let line = wrong.location().map_or(1, |at| at.line());
            error(line, reason_of(&wrong.without_snippet().to_string()))
        })?;
        file.rules.check().map_err(|(rule, wrong)| {
            let reason = format!("{rule}.{}: {}", wrong.parameter, wrong.reason);
            error(line_of(text, rule, wrong.parameter), reason)
        })?;
        Ok(file.rules)
    }
}

impl RuleSummary {
    fn of<R: Rule>(rule: &R) -> Self {
        Self {
            rule: rule.uid(),
            kind: R::KIND,
            enabled: rule.enabled(),
            severity: rule.severity(),
            runbook_url: rule.runbook_url().map(str::to_owned),
            labels: rule.labels().clone(),
        }
    }
}

/// The line of a rule's parameter; of the rule, if the parameter is not found.
fn line_of(text: &str, rule: &str, parameter: &str) -> u64 {
    let names = |line: &str, name: &str| {
        let line = line.trim_start();
        line.match_indices(name).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let bare = before.is_none_or(|c| matches!(c, ' ' | '{' | ',' | '"' | '\''));
            bare && line[at + name.len()..]
                .trim_start_matches(['"', '\''])
                .starts_with(':')
        })
    };
    let mut lines = (1..)
        .zip(text.lines())
        .skip_while(|(_, line)| !names(line, rule));
    let Some((rule_line, _)) = lines.clone().next() else {
        return 1;
    };
    lines
        .find(|(_, line)| names(line, parameter))
        .map_or(rule_line, |(line, _)| line)
}

/// The parser's words, without the place, which is named before them.
fn reason_of(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let (reason, _) = line.rsplit_once(" at line ").unwrap_or((line, ""));
    reason.to_owned()
}
