//! Rules that people write themselves: a condition on one GPU's metrics, judged on arrival. *(pure)*
//!
//! What is remembered of a rule on a GPU is a cord, the last value and a few marks: under 400 bytes, and nothing for a
//! GPU that the rule is not for. A tick costs as much as there are rules for its GPU.

mod condition;
mod marks;
mod peers;
mod text;
mod written;

use std::sync::Arc;
use std::time::Duration;

use entrenar::andon::{Cord, Patience};
use entrenar::gpu::{NodeId, Values};
use entrenar::metric::NvmlStatus;
use entrenar::report::Labels;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::effort::Effort;
use super::gpu::{Gpu, Tick};
use super::rules::RuleSummary;
use super::rules::selector::{Selector, Subject};
use super::sample::status_of;
use super::{Change, Evidence, Finding, Kind, RuleUid, Severity};
pub(super) use condition::Condition;
use condition::{Level, Remembered};
pub(super) use peers::Medians;
use text::{Place, Template};
#[cfg(test)]
pub(super) use written::keys as written_keys;
pub(super) use written::{read, shape as written_shape};

/// Most rules of this kind in a file: each GPU that they are for remembers each of them.
pub(super) const MOST_CUSTOM: usize = 256;

/// A rule that people wrote, checked and ready.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Custom {
    pub(super) uid: RuleUid,
    pub(super) enabled: bool,
    pub(super) shadow: bool,
    severity: Severity,
    runbook_url: Option<String>,
    labels: Labels,
    selector: Selector,
    pub(super) condition: Condition,
    level: Level,
    patience: Patience,
    summary: Template,
    action: String,
}

/// What is remembered of a rule on a GPU or node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CustomState {
    pub(super) rule: RuleUid,
    /// Its place among the rules.
    #[serde(skip)]
    place: u16,
    cord: Cord,
    /// What was last judged.
    value: Option<f64>,
    remembered: Remembered,
}

impl CustomState {
    fn new(rule: &Custom, place: u16) -> Self {
        Self {
            rule: rule.uid.clone(),
            place,
            cord: Cord::default(),
            value: None,
            remembered: Remembered::Nothing,
        }
    }
}

/// A rule of people has something to say: which, by its place, and what.
pub(super) type Said = (u16, Change);

impl Custom {
    /// What it says of itself.
    pub(super) fn summary(&self) -> RuleSummary {
        RuleSummary {
            rule: self.uid.clone(),
            kind: Kind::Custom,
            enabled: self.enabled,
            shadow: self.shadow,
            severity: self.severity,
            runbook_url: self.runbook_url.clone(),
            labels: self.labels.clone(),
            overrides: 0,
        }
    }

    pub(super) fn severity(&self) -> Severity {
        self.severity
    }

    /// Whether it watches a thing; `on_node`: the thing is a node.
    pub(super) fn is_for(&self, subject: Subject<'_>, on_node: bool) -> bool {
        self.enabled && self.condition.is_on_node() == on_node && self.selector.matches(subject)
    }
}

/// Makes the states be those of the rules at these places; what is remembered of a rule that stays, stays.
pub(super) fn align(states: &mut Vec<CustomState>, rules: &[Custom], places: &[u16]) {
    let mut before = std::mem::take(states);
    states.extend(places.iter().map(|place| {
        let rule = &rules[usize::from(*place)];
        match before.iter().position(|state| state.rule == rule.uid) {
            Some(at) => CustomState {
                place: *place,
                ..before.swap_remove(at)
            },
            None => CustomState::new(rule, *place),
        }
    }));
}

/// Whether states are those of the rules at these places.
pub(super) fn are(states: &[CustomState], rules: &[Custom], places: &[u16]) -> bool {
    let known = states.iter().map(|state| (state.place, &state.rule));
    let wanted = places
        .iter()
        .map(|place| (*place, &rules[usize::from(*place)].uid));
    known.eq(wanted)
}

/// Lets the rules of a GPU look at a row that is news.
pub(super) fn look_at_gpu(
    gpu: &mut Gpu,
    (tick, effort): (Tick<'_>, Effort),
    rules: &[Custom],
    medians: &Medians,
    said: &mut Vec<Said>,
) {
    if gpu.custom.is_empty() || status_of(tick.row) != NvmlStatus::Ok {
        return;
    }
    let mut states = std::mem::take(&mut gpu.custom);
    for state in &mut states {
        let rule = &rules[usize::from(state.place)];
        if !effort.admits_custom(rule) {
            continue;
        }
        let median = match rule.condition {
            Condition::Deviation { peers, .. } => medians.of(&rule.uid, peers.group_of(gpu)),
            _ => None,
        };
        let (row, at, interval) = (tick.row, tick.at, tick.interval);
        let change = state.look(rule, at, interval, |metric| row.get(metric), median);
        said.extend(change.map(|change| (state.place, change)));
    }
    gpu.custom = states;
}

/// Lets the rules of a node look at a tick that is news.
pub(super) fn look_at_node(
    states: &mut [CustomState],
    (at, interval, effort): (Timestamp, Duration, Effort),
    rows: &[Values],
    rules: &[Custom],
    said: &mut Vec<Said>,
) {
    for state in states {
        let rule = &rules[usize::from(state.place)];
        if !effort.admits_custom(rule) {
            continue;
        }
        let value = |metric| rows.iter().find_map(|row| row.get(metric));
        let change = state.look(rule, at, interval, value, None);
        said.extend(change.map(|change| (state.place, change)));
    }
}

impl CustomState {
    fn look(
        &mut self,
        rule: &Custom,
        at: Timestamp,
        interval: Duration,
        value: impl Fn(entrenar::metric::MetricId) -> Option<i64>,
        median: Option<f64>,
    ) -> Option<Change> {
        let Self {
            cord, remembered, ..
        } = self;
        let spacing = rule.condition.spacing(interval);
        let judged = rule
            .condition
            .judge(remembered, at, spacing, value, median)?;
        self.value = Some(judged.value);
        let verdict = judged
            .verdict
            .unwrap_or_else(|| rule.level.judge(judged.value));
        let change = cord.observe(at, verdict, rule.patience, spacing);
        change.map(Change::from)
    }
}

/// What a rule says of a GPU or node.
pub(super) fn finding(
    rule: &Custom,
    states: &[CustomState],
    gpu: Option<&Gpu>,
    (node, labels): (&NodeId, &Labels),
    at: Timestamp,
) -> (RuleUid, Severity, Timestamp, Finding) {
    let state = states.iter().find(|state| state.rule == rule.uid);
    let value = state.and_then(|state| state.value);
    let since = state.and_then(|state| state.cord.since()).unwrap_or(at);
    let said = rule.condition.words(value);
    let threshold = rule.level.words(&rule.condition);
    let place = Place {
        rule: &rule.uid.0,
        node: node.as_str(),
        gpu,
        value: &said,
        threshold: &threshold,
    };
    let mut labels = labels.clone();
    labels.extend(rule.labels.clone());
    let mut evidence = Evidence::new(&rule.condition.name(), said.clone());
    evidence.threshold = Some(threshold.clone()).filter(|text| !text.is_empty());
    let finding = Finding {
        summary: rule.summary.render(place),
        action: rule.action.clone(),
        runbook_url: rule.runbook_url.clone(),
        evidence: vec![evidence],
        culprits: gpu.map(|gpu| gpu.at.clone()).into_iter().collect(),
        labels,
        job: gpu.and_then(Gpu::holder).map(|holder| holder.job.clone()),
        ..Finding::default()
    };
    (rule.uid.clone(), rule.severity, since, finding)
}

/// The rules of people, shared.
pub(super) type Customs = Arc<[Custom]>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_rule_on_a_gpu_is_bounded() {
        let marks = size_of::<marks::Marks>();
        assert!(
            size_of::<CustomState>() + 2 * marks <= 400,
            "{} + 2 * {marks}",
            size_of::<CustomState>()
        );
    }
}
