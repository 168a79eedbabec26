//! Xid: the driver logged an error code. *(pure)*
//!
//! Codes fall on the thing that they are about: the program's own errors on its job, everything else on the GPU. One
//! cord gathers all codes of its thing until it has been quiet for a while, so that a storm is one finding; the worst
//! code speaks. Codes that only follow another event (43, 45, …) never make a call.

pub(super) mod table;

use entrenar::report::Labels;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use self::table::{Class, Row, burst_ms, row};
use super::finding::{finding, gpu_on_node};
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding, Severity};

rule! {
    /// The driver logged an error code. `severity` is that of codes that the table does not have.
    XidRule: Xid, named "xid", Warning, true;
    /// Codes with another severity than the table's.
    severity_of: BTreeMap<u64, Severity> = BTreeMap::new();
    /// Codes that are not looked at.
    ignore: Vec<u64> = Vec::new();
    /// How long it must be quiet before the cord is cleared, unless it is critical.
    settle: Span = Span::secs(600);
    /// How long a critical one must be quiet; after a reset of the GPU, `settle` is enough.
    critical_settle: Span = Span::secs(86_400);
    => |this| {
        let can_be = this.critical_settle >= this.settle;
        require(can_be, "critical_settle", "write at least as long as settle")
    }
}

impl XidRule {
    /// How much a code matters here; `None`: it is not looked at.
    pub(super) fn severity_of(&self, code: u64) -> Option<Severity> {
        if self.ignore.contains(&code) {
            return None;
        }
        let row = row(code);
        let usual = if row.is_listed() {
            row.severity
        } else {
            self.severity
        };
        Some(self.severity_of.get(&code).copied().unwrap_or(usual))
    }
}

/// Most codes that one cord keeps apart; further ones are counted with the last.
const MOST_CODES: usize = 4;

/// The codes of one GPU, job or node since it was last quiet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct XidState {
    seen: Vec<Seen>,
    worst: Option<(Severity, u64)>,
    started_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    /// The driver was reloaded or the GPU reset since the last code.
    reset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    code: u64,
    count: u32,
    bursts: u32,
    last_at: Timestamp,
}

/// A critical code so long after the last of an episode is not its echo.
const ANEW_MS: i64 = 300_000;

/// Whether a code is worth a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The first of an episode.
    First,
    /// A new code, a worse one, or bursts that go on.
    More,
    /// One of a burst.
    Nothing,
    /// It has failed anew, after the last failure was over: an episode of its own.
    Anew,
}

impl XidState {
    /// Takes in a code.
    pub(super) fn note(&mut self, at: Timestamp, code: u64, severity: Severity) -> News {
        let is_grave = |worst: Option<(Severity, u64)>| {
            worst.map(|(worst, _)| worst) == Some(Severity::Critical)
        };
        let was_over = self.last_at.is_some_and(|last| at.0 - last.0 >= ANEW_MS);
        let anew = severity == Severity::Critical && is_grave(self.worst) && was_over;
        if anew {
            *self = Self::default();
        }
        let first = self.seen.is_empty();
        self.started_at.get_or_insert(at);
        self.last_at = self.last_at.max(Some(at));
        self.reset = false;
        let worse = self.worst.is_none_or(|(worst, _)| severity > worst);
        if worse {
            self.worst = Some((severity, code));
        }
        let fresh = self.count(at, code);
        match (first, worse || fresh) {
            _ if anew => News::Anew,
            (true, _) => News::First,
            (false, true) => News::More,
            (false, false) => News::Nothing,
        }
    }

    /// Counts a code. True for a new code, and for the 2nd, 4th, 8th … burst of one.
    fn count(&mut self, at: Timestamp, code: u64) -> bool {
        let Some(seen) = self.seen.iter_mut().find(|seen| seen.code == code) else {
            if self.seen.len() < MOST_CODES {
                self.seen.push(Seen {
                    code,
                    count: 1,
                    bursts: 1,
                    last_at: at,
                });
                return true;
            }
            if let Some(last) = self.seen.last_mut() {
                last.count = last.count.saturating_add(1);
            }
            return false;
        };
        seen.count = seen.count.saturating_add(1);
        let new_burst = at.0 - seen.last_at.0 > burst_ms(code);
        seen.last_at = seen.last_at.max(at);
        if new_burst {
            seen.bursts = seen.bursts.saturating_add(1);
        }
        new_burst && seen.bursts.is_power_of_two()
    }

    /// The GPU was reset: what was wrong may be gone.
    fn note_reset(&mut self) {
        self.reset = true;
    }

    /// Whether it has been quiet for long enough; the codes are then forgotten.
    pub(super) fn settle(&mut self, now: Timestamp, rule: &XidRule) -> bool {
        let (Some(last), Some((worst, _))) = (self.last_at, self.worst) else {
            return false;
        };
        let wait = if worst == Severity::Critical && !self.reset {
            rule.critical_settle
        } else {
            rule.settle
        };
        let over = now.since(last) >= wait.0;
        if over {
            *self = Self::default();
        }
        over
    }

    pub(super) fn last_at(&self) -> Option<Timestamp> {
        self.last_at
    }

    pub(super) fn worst(&self) -> Severity {
        self.worst.map_or(Severity::Info, |(severity, _)| severity)
    }

    pub(super) fn since(&self, at: Timestamp) -> Timestamp {
        self.started_at.unwrap_or(at)
    }

    /// `wherever`: `GPU 3 on n02`, `job 4711 (GPU 3 on n02)`.
    pub(super) fn told_of(&self, wherever: &str, labels: &Labels, rule: &XidRule) -> Finding {
        let code = self.worst.map_or(0, |(_, code)| code);
        let row = row(code);
        let again = match self.seen.iter().map(|seen| seen.count).sum::<u32>() {
            0 | 1 => String::new(),
            n => format!(" ({n} events)"),
        };
        let summary = format!("XID {code} on {wherever}: {}{again}", row.name);
        let mut found = finding(rule, labels, summary, row.action)
            .with(Evidence::new("class", row.class.words()));
        for seen in &self.seen {
            let name = format!("XID {}", seen.code);
            let times = match seen.count {
                1 => "once".to_owned(),
                n => format!("{n} times"),
            };
            found = found.with(Evidence::new(&name, times));
        }
        found
    }
}

/// Of one GPU. Codes reach it with the events, where it is decided what they are about.
impl Watch for XidState {
    type Rule = XidRule;
    const NEEDS_DATA: bool = false;

    fn observe(&mut self, look: &Look<'_>, _: &XidRule) -> Option<Change> {
        if look.was_reset {
            self.note_reset();
        }
        None
    }

    fn severity(&self, _: &XidRule) -> Severity {
        self.worst()
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.since(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &XidRule) -> Finding {
        let mut found = self.told_of(&gpu_on_node(tell.gpu), tell.labels, rule);
        found.culprits.push(tell.gpu.clone());
        found
    }
}

impl Row {
    /// Whether the error is one program's own, so that it belongs to the job.
    pub(super) fn is_of_the_job(&self) -> bool {
        self.class == Class::Application
    }

    /// Whether it only follows another event.
    pub(super) fn is_victim(&self) -> bool {
        self.class == Class::Victim
    }

    /// Whether it only says more about another event.
    pub(super) fn is_detail(&self) -> bool {
        self.class == Class::Detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `at:code` tokens; what was news, in order.
    fn check(events: &str, expected: &str) {
        let rule = XidRule::default();
        let mut state = XidState::default();
        let news: Vec<String> = events
            .split_whitespace()
            .map(|event| {
                let (at, code) = event.split_once(':').expect("at:code");
                let at = Timestamp::from_secs(at.parse().expect("seconds"));
                let code = code.parse().expect("a code");
                let severity = rule.severity_of(code).expect("not ignored");
                format!("{:?}", state.note(at, code, severity))
            })
            .collect();
        assert_eq!(news.join(" "), expected, "{events}");
    }

    #[test]
    fn a_burst_is_one_word() {
        check("0:13 1:13 2:13 14:13", "First Nothing Nothing Nothing");
        check("0:31 100:31 250:31", "First Nothing Nothing");
    }

    #[test]
    fn bursts_that_go_on_are_told_ever_more_rarely() {
        check(
            "0:13 20:13 40:13 60:13 80:13 100:13 120:13 140:13",
            "First More Nothing More Nothing Nothing Nothing More",
        );
    }

    #[test]
    fn a_worse_code_is_told_at_once() {
        check("0:63 1:48 1:48 2:172", "First More Nothing More");
    }

    #[test]
    fn a_critical_code_stays_until_a_reset_and_some_quiet() {
        let rule = XidRule::default();
        let mut state = XidState::default();
        let at = Timestamp::from_secs;
        state.note(at(0), 48, Severity::Critical);
        assert!(!state.settle(at(3600), &rule));
        state.note_reset();
        assert!(state.settle(at(3601), &rule));
        assert_eq!(state, XidState::default());
        state.note(at(4000), 63, Severity::Warning);
        assert!(!state.settle(at(4599), &rule));
        assert!(state.settle(at(4600), &rule));
    }
}
