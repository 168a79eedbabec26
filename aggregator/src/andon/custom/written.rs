//! A rule as people write it under `custom`, and what can be wrong with it. *(pure)*

use std::time::Duration;

use entrenar::andon::Patience;
use entrenar::metric::{self, Metric, MetricId};
use entrenar::report::Labels;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::condition::Level;
use super::peers::Peers;
use super::text::Template;
use super::{Condition, Custom, MOST_CUSTOM};
use crate::andon::Severity;
use crate::andon::rules::book::read_selector;
use crate::andon::rules::reader::{Reader, nearest};
use crate::andon::rules::schema::{Shape as _, object};
use crate::andon::rules::selector::Selector;
use crate::andon::rules::tree::{Key, Tree};
use crate::andon::rules::{RuleSet, Span, common_parameters};

/// A rule as the file writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    name: String,
    enabled: bool,
    shadow: bool,
    severity: Severity,
    runbook_url: Option<String>,
    labels: Labels,
    r#match: Selector,
    threshold: Option<String>,
    rate: Option<String>,
    absent: Option<String>,
    ratio: Vec<String>,
    deviation: Option<String>,
    window: Span,
    peers: Peers,
    relative: bool,
    above: Option<f64>,
    below: Option<f64>,
    clear_below: Option<f64>,
    clear_above: Option<f64>,
    r#for: Span,
    settle: Span,
    summary: Option<String>,
    action: Option<String>,
}

/// The keys of which a rule has one.
const NAMES_OF_CONDITIONS: [&str; 5] = ["threshold", "rate", "absent", "ratio", "deviation"];

/// Longest name, in characters.
const MOST_NAME: usize = 64;

/// Windows of rates.
const WINDOWS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_hours(1));

/// Metrics of the node, which each of its GPUs' rows carries.
const OF_THE_NODE: [MetricId; 1] = [metric::NETWORK];

impl Default for Written {
    fn default() -> Self {
        Self {
            name: String::new(),
            enabled: true,
            shadow: false,
            severity: Severity::Warning,
            runbook_url: None,
            labels: Labels::new(),
            r#match: Selector::default(),
            threshold: None,
            rate: None,
            absent: None,
            ratio: Vec::new(),
            deviation: None,
            window: Span::secs(60),
            peers: Peers::default(),
            relative: false,
            above: None,
            below: None,
            clear_below: None,
            clear_above: None,
            r#for: Span::secs(0),
            settle: Span::secs(0),
            summary: None,
            action: None,
        }
    }
}

/// The keys that a rule may have.
#[cfg(test)]
pub(in crate::andon) fn keys() -> Vec<String> {
    let json = serde_json::to_value(Written::default()).expect("a rule is data");
    json.as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect()
}

/// A rule as a JSON schema.
pub(in crate::andon) fn shape() -> Json {
    let names: Vec<&str> = metric::CATALOGUE.iter().map(|metric| metric.name).collect();
    let metric = || json!({ "enum": names });
    let number = f64::shape;
    let mut parameters = common_parameters();
    parameters.extend([
        (
            "name",
            "Its identity.",
            json!({ "type": "string", "pattern": "^[a-z0-9_-]{1,64}$" }),
        ),
        (
            "match",
            "What it is for; everything, if not named.",
            Selector::shape(),
        ),
        (
            "threshold",
            "A level: the metric that is compared.",
            metric(),
        ),
        ("rate", "A counter: how fast it rises, a second.", metric()),
        ("absent", "A metric that is not reported.", metric()),
        (
            "ratio",
            "Two metrics: the first by the second.",
            json!({ "type": "array", "items": metric(), "minItems": 2, "maxItems": 2 }),
        ),
        (
            "deviation",
            "How far a metric is from the median of its peers.",
            metric(),
        ),
        ("window", "Over which a rate is taken.", Span::shape()),
        (
            "peers",
            "Whom a deviation is from.",
            json!({ "enum": ["node", "job", "model"] }),
        ),
        (
            "relative",
            "A deviation as a share of the median.",
            bool::shape(),
        ),
        ("above", "More than this is unwelcome.", number()),
        ("below", "Less than this is unwelcome.", number()),
        (
            "clear_below",
            "With `above`: this and less is fine.",
            number(),
        ),
        (
            "clear_above",
            "With `below`: this and more is fine.",
            number(),
        ),
        ("for", "How long it must last.", Span::shape()),
        ("settle", "How long it must be fine.", Span::shape()),
        (
            "summary",
            "The sentence that people read, with {{node}}, {{device}}, {{value}} and others.",
            String::shape(),
        ),
        ("action", "What to do.", String::shape()),
    ]);
    let mut shape = object("A rule of your own.", parameters, &Written::default());
    shape["type"] = json!("object");
    shape["required"] = json!(["name"]);
    let one = NAMES_OF_CONDITIONS.map(|name| json!({ "required": [name] }));
    shape["oneOf"] = json!(one);
    shape
}

/// Reads what stands under `custom`.
pub(in crate::andon) fn read(key: &Key, tree: &Tree, reader: &mut Reader) -> Vec<Custom> {
    let items = reader.items(tree, "custom");
    if items.len() > MOST_CUSTOM {
        let reason = format!(
            "{} rules: a file has at most {MOST_CUSTOM} of its own, because every GPU remembers each that is for it",
            items.len()
        );
        reader.wrong(key.line, reason);
        return Vec::new();
    }
    let mut rules: Vec<Custom> = Vec::new();
    for item in items {
        let Some((rule, line)) = read_one(item, reader) else {
            continue;
        };
        if rules.iter().any(|other| other.uid == rule.uid) {
            reader.wrong(line, format!("there are two rules named `{}`", rule.uid));
        } else {
            rules.push(rule);
        }
    }
    rules
}

/// One rule, and the line of its name.
fn read_one(item: &Tree, reader: &mut Reader) -> Option<(Custom, u64)> {
    let entries = reader.entries(item, "a rule");
    let name = entries.iter().find(|(key, _)| key.text == "name");
    let line = name.map_or(item.line, |(key, _)| key.line);
    let plain: Vec<(Key, Tree)> = entries
        .iter()
        .filter(|(key, _)| key.text != "match")
        .cloned()
        .collect();
    let selector = entries.iter().find(|(key, _)| key.text == "match");
    let selector = selector.map(|(_, tree)| read_selector(tree, reader));
    let called = name
        .and_then(|(_, tree)| tree.json().as_str().map(str::to_owned))
        .unwrap_or_else(|| "the rule".into());
    let written: Written = reader.part(&Written::default(), &plain, &called)?;
    let mut check = Check {
        written: &written,
        entries,
        line,
        reader,
        good: true,
    };
    check.name();
    let condition = check.condition();
    let level = check.level(condition.as_ref());
    let summary = check.summary(condition.as_ref());
    let good = check.good;
    let rule = Custom {
        uid: written.name.as_str().into(),
        enabled: written.enabled,
        shadow: written.shadow,
        severity: written.severity,
        runbook_url: written.runbook_url.clone(),
        labels: written.labels.clone(),
        selector: selector.unwrap_or_default(),
        condition: condition?,
        level,
        patience: Patience {
            hold: written.r#for.0,
            settle: written.settle.0,
        },
        summary: summary?,
        action: written
            .action
            .clone()
            .unwrap_or_else(|| format!("A rule of your own, `{}`: see its runbook.", written.name)),
    };
    good.then_some((rule, line))
}

/// Looks for what cannot be.
struct Check<'a> {
    written: &'a Written,
    entries: &'a [(Key, Tree)],
    line: u64,
    reader: &'a mut Reader,
    good: bool,
}

impl Check<'_> {
    /// Notes what is wrong with a key, at its line.
    fn wrong(&mut self, key: &str, reason: impl AsRef<str>) {
        let own = self.entries.iter().find(|(own, _)| own.text == key);
        let line = own.map_or(self.line, |(own, _)| own.line);
        let name = match self.written.name.as_str() {
            "" => "the rule",
            name => name,
        };
        let reason = format!("{name}.{key}: {}", reason.as_ref());
        self.reader.wrong(line, reason);
        self.good = false;
    }

    fn name(&mut self) {
        let name = &self.written.name;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if name.is_empty() {
            self.wrong("name", "a rule of your own needs a name");
        } else if name.len() > MOST_NAME || !name.chars().all(is_plain) {
            let reason = format!("write at most {MOST_NAME} of a-z, 0-9, `_` and `-`");
            self.wrong("name", reason);
        } else if RuleSet::NAMES.contains(&name.as_str()) || name == "causes" {
            self.wrong(
                "name",
                "a built-in rule has this name: change that one under `rules`",
            );
        }
    }

    fn condition(&mut self) -> Option<Condition> {
        let w = self.written;
        let named = [
            w.threshold.is_some(),
            w.rate.is_some(),
            w.absent.is_some(),
            !w.ratio.is_empty(),
            w.deviation.is_some(),
        ];
        let known = NAMES_OF_CONDITIONS.join(", ");
        match named.iter().filter(|named| **named).count() {
            1 => {}
            0 => {
                self.wrong(
                    "name",
                    format!("the rule looks at nothing: write one of {known}"),
                );
                return None;
            }
            _ => {
                let both = NAMES_OF_CONDITIONS.into_iter().zip(named);
                let second = both.filter(|(_, named)| *named).nth(1);
                let key = second.map_or("name", |(key, _)| key);
                self.wrong(
                    key,
                    format!("a rule looks at one thing: keep one of {known}"),
                );
                return None;
            }
        }
        if let Some(name) = &w.threshold {
            let metric = self.metric("threshold", name)?;
            self.gauge("threshold", metric)?;
            Some(Condition::Threshold { metric })
        } else if let Some(name) = &w.rate {
            let metric = self.metric("rate", name)?;
            if metric.kind == metric::Kind::Gauge {
                let reason = format!("{name} is a level, not a counter: write `threshold: {name}`");
                self.wrong("rate", reason);
                return None;
            }
            let window = self.window()?;
            Some(Condition::Rate { metric, window })
        } else if let Some(name) = &w.absent {
            let metric = self.metric("absent", name)?;
            let on_node = OF_THE_NODE.contains(&metric.id);
            Some(Condition::Absent { metric, on_node })
        } else if let Some(name) = &w.deviation {
            let metric = self.metric("deviation", name)?;
            self.gauge("deviation", metric)?;
            Some(Condition::Deviation {
                metric,
                peers: w.peers,
                relative: w.relative,
            })
        } else {
            self.ratio()
        }
    }

    fn ratio(&mut self) -> Option<Condition> {
        let [of, to] = self.written.ratio.as_slice() else {
            self.wrong("ratio", "write two metrics: `ratio: [of, to]`");
            return None;
        };
        let (of, to) = (self.metric("ratio", of), self.metric("ratio", to));
        let (of, to) = (of?, to?);
        if of.kind != to.kind {
            let reason = format!("{} and {}: one is a level, one a counter", of.name, to.name);
            self.wrong("ratio", reason);
            return None;
        }
        let window = match of.kind {
            metric::Kind::Counter => Some(self.window()?),
            metric::Kind::Gauge => None,
        };
        Some(Condition::Ratio { of, to, window })
    }

    fn metric(&mut self, key: &str, name: &str) -> Option<&'static Metric> {
        let metric = metric::by_name(name);
        if metric.is_none() {
            let names = metric::CATALOGUE.iter().map(|metric| metric.name);
            let hint = nearest(name, names).map_or_else(
                || "docs/metrics.md lists them".to_owned(),
                |name| format!("did you mean `{name}`?"),
            );
            self.wrong(key, format!("there is no metric `{name}`: {hint}"));
        }
        metric
    }

    fn gauge(&mut self, key: &str, metric: &Metric) -> Option<()> {
        if metric.kind == metric::Kind::Gauge {
            return Some(());
        }
        let name = metric.name;
        self.wrong(key, format!("{name} is a counter: write `rate: {name}`"));
        None
    }

    fn window(&mut self) -> Option<Duration> {
        let window = self.written.window.0;
        if (WINDOWS.0..=WINDOWS.1).contains(&window) {
            return Some(window);
        }
        self.wrong("window", "write a time from 5s to 1h");
        None
    }

    fn level(&mut self, condition: Option<&Condition>) -> Level {
        let w = self.written;
        if let Some(Condition::Absent { .. }) = condition {
            let levels = [
                ("above", w.above),
                ("below", w.below),
                ("clear_below", w.clear_below),
                ("clear_above", w.clear_above),
            ];
            for (key, value) in levels {
                if value.is_some() {
                    self.wrong(key, "what is absent has no level: `for` says how long");
                }
            }
            return Level::None;
        }
        let level = match (w.above, w.below) {
            (Some(raise), None) => {
                let clear = w.clear_below.unwrap_or(raise);
                if w.clear_above.is_some() {
                    self.wrong(
                        "clear_above",
                        "goes with `below`; with `above` write `clear_below`",
                    );
                } else if clear > raise {
                    self.wrong(
                        "clear_below",
                        format!("must be at most {raise}, or it would clear while it is raised"),
                    );
                }
                Level::Above { raise, clear }
            }
            (None, Some(raise)) => {
                let clear = w.clear_above.unwrap_or(raise);
                if w.clear_below.is_some() {
                    self.wrong(
                        "clear_below",
                        "goes with `above`; with `below` write `clear_above`",
                    );
                } else if clear < raise {
                    self.wrong(
                        "clear_above",
                        format!("must be at least {raise}, or it would clear while it is raised"),
                    );
                }
                Level::Below { raise, clear }
            }
            (Some(_), Some(_)) => {
                self.wrong(
                    "below",
                    "a rule has one side: `above` or `below`; write two rules for both",
                );
                return Level::None;
            }
            (None, None) => {
                if condition.is_some() {
                    self.wrong("name", "the rule has no level: write `above` or `below`");
                }
                return Level::None;
            }
        };
        if let Some(condition) = condition {
            self.possible(condition, level);
        }
        level
    }

    /// Whether the level can be reached at all.
    fn possible(&mut self, condition: &Condition, level: Level) {
        let (unit, most) = match condition {
            Condition::Threshold { metric } => (
                metric.unit,
                match metric.unit {
                    "percent" => Some(100.0),
                    "ratio" | "flag" => Some(1.0),
                    _ => None,
                },
            ),
            Condition::Rate { metric, .. } => (metric.unit, None),
            Condition::Ratio { .. } => ("ratio", None),
            // It may lie on either side.
            Condition::Deviation { .. } | Condition::Absent { .. } => return,
        };
        match level {
            Level::Above { raise, .. } if most.is_some_and(|most| raise >= most) => {
                let most = most.unwrap_or_default();
                self.wrong(
                    "above",
                    format!("is never reached: the most there can be is {most} {unit}"),
                );
            }
            Level::Below { raise, .. } if raise <= 0.0 && unit != "celsius" => {
                self.wrong("below", "is never reached: the least there can be is 0");
            }
            _ => {}
        }
    }

    fn summary(&mut self, condition: Option<&Condition>) -> Option<Template> {
        let Some(text) = &self.written.summary else {
            let condition = condition?;
            let what = match condition {
                Condition::Absent { metric, .. } => format!("{} has been absent for", metric.name),
                condition => format!("{} is", condition.name()),
            };
            let has_threshold = !matches!(condition, Condition::Absent { .. });
            return Some(Template::usual(&what, has_threshold));
        };
        match Template::parse(text) {
            Ok(template) => Some(template),
            Err(reason) => {
                self.wrong("summary", reason);
                None
            }
        }
    }
}
