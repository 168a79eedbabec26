//! What is left out while the engine is behind: the slowest class first, and never what may call somebody. *(pure)*
//!
//! Whatever is left out keeps its state: what is raised stays raised, and what is looked at again has a hole in its past
//! like any other.

use super::custom::Custom;
use super::{Kind, Severity};

/// How much of its work the engine does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Every rule looks.
    #[default]
    All,
    /// Rules that take minutes to hours to say anything do not look.
    NoTrends,
    /// No rule looks but those that may call somebody.
    CallsOnly,
}

/// How soon a rule must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// It may call somebody.
    Call,
    /// It warns within minutes.
    Warning,
    /// It tells what grows or is wasted over minutes and hours.
    Trend,
}

impl Effort {
    /// Whether a built-in rule looks. `severity`: what the rules file gives it; a rule that was made critical is one that
    /// may call.
    pub(super) fn admits(self, kind: Kind, severity: Severity) -> bool {
        self.does(if severity == Severity::Critical {
            Class::Call
        } else {
            class(kind)
        })
    }

    /// Whether a rule of people looks.
    pub(super) fn admits_custom(self, rule: &Custom) -> bool {
        self.does(if rule.severity() == Severity::Critical {
            Class::Call
        } else {
            Class::Warning
        })
    }

    fn does(self, class: Class) -> bool {
        match self {
            Self::All => true,
            Self::NoTrends => class < Class::Trend,
            Self::CallsOnly => class == Class::Call,
        }
    }
}

/// What is not in this list may turn critical by itself, or explains what does.
fn class(kind: Kind) -> Class {
    match kind {
        Kind::ThermalDrift
        | Kind::MemoryLeak
        | Kind::PowerCapLoss
        | Kind::PowerLimit
        | Kind::SensorFault
        | Kind::ZombieGpu
        | Kind::GpuIdle
        | Kind::PartialUse
        | Kind::JobSlow => Class::Trend,
        Kind::MemoryPressure
        | Kind::EccStorm
        | Kind::Straggler
        | Kind::JobStall
        | Kind::StartupStuck => Class::Warning,
        _ => Class::Call,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_go_first_and_what_calls_never_goes() {
        let kinds = [Kind::ThermalDrift, Kind::EccStorm, Kind::ThermalThrottling];
        let looks = |effort: Effort| {
            kinds
                .iter()
                .map(|kind| u8::from(effort.admits(*kind, Severity::Warning)).to_string())
                .collect::<String>()
        };
        assert_eq!(looks(Effort::All), "111");
        assert_eq!(looks(Effort::NoTrends), "011");
        assert_eq!(looks(Effort::CallsOnly), "001");
    }

    #[test]
    fn a_rule_that_was_made_critical_stays() {
        assert!(Effort::CallsOnly.admits(Kind::GpuIdle, Severity::Critical));
    }
}
