//! The rules file: what is unwelcome, with numbers that people may change. *(pure)*
//!
//! Every rule has its defaults built in; a file names only what it changes. `docs/rules.md` explains each parameter.
//! A file is checked as a whole before any of it counts: `tree` keeps the lines, `reader` collects the mistakes, `book`
//! is what was read, `index` says which set of parameters holds for which GPU, node and job.

pub(crate) mod book;
pub mod drill;
pub(crate) mod glob;
pub(crate) mod index;
pub(crate) mod reader;
pub(crate) mod schema;
pub(crate) mod selector;
mod span;
pub(crate) mod tree;

use std::fmt;

use entrenar::report::Labels;
use serde::{Deserialize, Serialize};

use super::{Kind, RuleUid, Severity};
pub use book::{MOST_OVERRIDES, MOST_SETS, RuleBook, RulesError};
pub use reader::Mistake;
use reader::Reader;
use schema::Shape as _;
pub use schema::schema;
pub use span::Span;
use tree::Tree;

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
    /// Whether what it finds is recorded and told to nobody.
    fn shadow(&self) -> bool;
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
    /// Its parameters as a JSON schema.
    fn shape() -> serde_json::Value;
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
        $(#[doc = $doc:literal])*
        $rule:ident: $kind:ident, named $name:literal, $severity:ident, $enabled:literal;
        $($(#[doc = $field_doc:literal])* $field:ident: $type:ty = $default:expr;)*
        $(=> |$this:ident| $check:block)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $rule {
            /// Whether it watches at all.
            pub enabled: bool,
            /// Whether what it finds is recorded and told to nobody.
            pub shadow: bool,
            /// How much a finding matters: `info`, `warning`, `critical`.
            pub severity: $crate::andon::Severity,
            /// Where its runbook is.
            pub runbook_url: Option<String>,
            /// What is put on each of its findings, beside the node's labels.
            pub labels: entrenar::report::Labels,
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        impl Default for $rule {
            fn default() -> Self {
                Self {
                    enabled: $enabled,
                    shadow: false,
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
            fn shadow(&self) -> bool {
                self.shadow
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
            fn shape() -> serde_json::Value {
                let mut parameters = $crate::andon::rules::common_parameters();
                $(parameters.push((
                    stringify!($field),
                    concat!($($field_doc),*),
                    <$type as $crate::andon::rules::schema::Shape>::shape(),
                ));)*
                let about = concat!($($doc),*);
                $crate::andon::rules::schema::object(about, parameters, &Self::default())
            }
        }
    };
}
pub(crate) use rule;

/// The parameters of every rule.
pub(crate) fn common_parameters() -> Vec<schema::Parameter> {
    vec![
        ("enabled", "Whether it watches at all.", bool::shape()),
        (
            "shadow",
            "On trial: what it finds is recorded and told to nobody.",
            bool::shape(),
        ),
        (
            "severity",
            "How much a finding matters: a record, working hours, a call.",
            Severity::shape(),
        ),
        (
            "runbook_url",
            "Where its runbook is.",
            Option::<String>::shape(),
        ),
        (
            "labels",
            "Put on each of its findings, beside the node's labels.",
            Labels::shape(),
        ),
    ]
}

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

impl CausesRule {
    fn shape() -> serde_json::Value {
        let parameters = vec![
            (
                "explain_within",
                "How far apart a cause and its consequence may begin.",
                Span::shape(),
            ),
            (
                "group_within",
                "How far apart members of a group may be raised.",
                Span::shape(),
            ),
        ];
        schema::object("What explains what.", parameters, &Self::default())
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

            /// How a rule stands; `None`: there is none of this name.
            pub(super) fn standing(&self, name: &str) -> Option<Standing> {
                match name {
                    $(stringify!($field) => Some(Standing::of(&self.$field)),)*
                    _ => None,
                }
            }

            /// Every rule's parameters as a JSON schema.
            fn shapes() -> Vec<(&'static str, serde_json::Value)> {
                vec![$((stringify!($field), <$rule as Rule>::shape()),)*]
            }

            /// The kinds that are not watched for.
            pub(super) fn kinds_off(&self) -> Vec<Kind> {
                let mut off = Vec::new();
                $(off.extend((!self.$field.enabled).then_some(<$rule as Rule>::KIND));)*
                off
            }

            /// Takes over what stands under `rules`; returns the rules that are named there. `whole`: for all of the
            /// fleet, of which there is one way to tie findings together.
            fn read(&mut self, tree: &Tree, whole: bool, reader: &mut Reader) -> Vec<&'static str> {
                let mut named = Vec::new();
                for (key, part) in reader.entries(tree, "rules") {
                    match key.text.as_str() {
                        $(stringify!($field) => {
                            named.push(stringify!($field));
                            if let Some(rule) = reader.rule(&self.$field, key, part) {
                                self.$field = rule;
                            }
                        })*
                        "causes" if whole => {
                            let entries = reader.entries(part, "causes");
                            if let Some(causes) = reader.part(&self.causes, entries, "causes") {
                                self.causes = causes;
                            }
                        }
                        "causes" => reader.wrong(key.line, "causes hold for the whole fleet: they cannot be overridden"),
                        _ => reader.unknown(key, "rules", Self::NAMES.into_iter().chain(["causes"])),
                    }
                }
                named
            }

            /// Takes over some rules of another set.
            fn take(&mut self, names: &[&str], from: &Self) {
                for name in names {
                    match *name {
                        $(stringify!($field) => self.$field.clone_from(&from.$field),)*
                        _ => {}
                    }
                }
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
    thermal_drift: super::drift::ThermalDriftRule,
    power_brake: super::brake::PowerBrakeRule,
    power_cap_loss: super::power_cap::PowerCapLossRule,
    memory_leak: super::leak::MemoryLeakRule,
    zombie_gpu: super::zombie::ZombieGpuRule,
    sensor_fault: super::sensor::SensorFaultRule,

    // Jobs.
    job_hang: super::job::hang::JobHangRule,
    job_stall: super::job::stall::JobStallRule,
    startup_stuck: super::job::startup::StartupStuckRule,
    straggler: super::job::straggler::StragglerRule,
    job_slow: super::job::slow::JobSlowRule,
    gpu_idle: super::job::idle::GpuIdleRule,
    partial_use: super::job::partial::PartialUseRule,
    storage_stall: super::job::together::StorageStallRule,
    network_fault: super::job::together::NetworkFaultRule,

    // GPUs, by what goes wrong with them.
    xid: super::xid::XidRule,
    gpu_lost: super::lost::GpuLostRule,
    gpu_unresponsive: super::unresponsive::GpuUnresponsiveRule,
    ecc_uncorrectable: super::ecc::EccUncorrectableRule,
    ecc_storm: super::ecc::EccStormRule,
    row_remap: super::remap::RowRemapRule,
    nvlink_error: super::nvlink::NvlinkErrorRule,
    pcie_degraded: super::pcie::PcieDegradedRule,
    repeat_offender: super::repeat::RepeatOffenderRule,

    // Nodes, and the watching itself.
    node_lost: super::node::NodeLostRule,
    node_flapping: super::flapping::NodeFlappingRule,
    cooling_failure: super::cooling::CoolingFailureRule,
    agent_silent: super::agent::AgentSilentRule,
    monitoring_fault: super::monitoring::MonitoringFaultRule,
}

/// How a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) enabled: bool,
    pub(super) shadow: bool,
}

impl Standing {
    fn of<R: Rule>(rule: &R) -> Self {
        Self {
            enabled: rule.enabled(),
            shadow: rule.shadow(),
        }
    }
}

/// What a rule says of itself, for a list of rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleSummary {
    pub rule: RuleUid,
    pub kind: Kind,
    pub enabled: bool,
    /// Recorded, and told to nobody.
    pub shadow: bool,
    pub severity: Severity,
    pub runbook_url: Option<String>,
    pub labels: Labels,
    /// How many overrides name it.
    pub overrides: usize,
}

impl RuleSummary {
    fn of<R: Rule>(rule: &R) -> Self {
        Self {
            rule: rule.uid(),
            kind: R::KIND,
            enabled: rule.enabled(),
            shadow: rule.shadow(),
            severity: rule.severity(),
            runbook_url: rule.runbook_url().map(str::to_owned),
            labels: rule.labels().clone(),
            overrides: 0,
        }
    }
}
