//! Users' tests of their rules: GPUs that report what a series says, and what the rules should make of it. *(pure)*
//!
//! The engine that runs is the real one; only the time and the agents are made up.

mod play;
mod series;

use std::collections::BTreeMap;
use std::time::Duration;

use entrenar::metric;
use entrenar::report::{JobKind, Labels};
use serde::{Deserialize, Serialize};

use super::reader::{Reader, nearest};
use super::tree::{Key, Tree, Value};
use super::{RuleBook, RulesError, Span};
use crate::andon::Severity;
use series::Step;

/// A test: what comes in, and what should come out.
#[derive(Clone, Debug)]
pub struct Drill {
    /// As it is called in the file.
    pub name: String,
    book: RuleBook,
    cluster: String,
    interval: Duration,
    /// The rules whose transitions count; empty: all.
    watch: Vec<String>,
    input: Vec<Gpu>,
    steps: Vec<Action>,
    expect: Vec<Event>,
}

/// A GPU that reports.
#[derive(Clone, Debug)]
struct Gpu {
    node: String,
    device: u32,
    model: String,
    labels: Labels,
    job: Option<String>,
    job_kind: JobKind,
    series: Vec<(&'static metric::Metric, Vec<Step>)>,
}

/// Something that happens besides the series.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Action {
    at: Duration,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// The engine's memory goes through a snapshot.
    Restart,
    /// The node's tick of this instant arrives so much later, after later ones.
    Late { node: String, by: Duration },
    /// The node's tick of this instant arrives twice.
    Duplicate { node: String },
    /// The driver logs a code.
    Xid {
        node: String,
        device: u32,
        code: u64,
    },
}

/// A cord that goes up or down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: Duration,
    raised: bool,
    rule: String,
    /// `n01/0`, `n01`, `job 4711`, the name of a group, or `fleet`.
    on: String,
    /// `None` in an expectation: any.
    severity: Option<Severity>,
}

/// What a test came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// What was expected and what was got, a line an event, in the order of time.
    Failed {
        expected: Vec<String>,
        got: Vec<String>,
    },
}

/// Most tests of a file, and GPUs of a test.
const MOST_TESTS: usize = 1000;
const MOST_GPUS: usize = 1024;

/// The time between samples where a file does not say.
const USUAL_INTERVAL: Span = Span::secs(1);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct FileHead {
    rules_file: Option<String>,
    cluster: String,
    interval: Span,
}

impl Default for FileHead {
    fn default() -> Self {
        Self {
            rules_file: None,
            cluster: "default".into(),
            interval: USUAL_INTERVAL,
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct TestHead {
    name: String,
    interval: Option<Span>,
    watch: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct InputHead {
    node: String,
    device: u32,
    model: String,
    labels: Labels,
    job: Option<String>,
    job_kind: Option<JobKind>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct StepWritten {
    at: Option<Span>,
    restart: bool,
    late: Option<String>,
    by: Option<Span>,
    duplicate: Option<String>,
    xid: Option<u64>,
    node: Option<String>,
    device: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct EventWritten {
    at: Option<Span>,
    raised: Option<String>,
    cleared: Option<String>,
    on: Option<String>,
    severity: Option<Severity>,
}

/// Reads a file of tests. `load` gives the text of the rules file that it names, which is relative to it.
pub fn read(
    text: &str,
    file_name: &str,
    load: impl FnOnce(&str) -> Result<String, String>,
) -> Result<Vec<Drill>, RulesError> {
    let mut reader = Reader::default();
    let drills = match Tree::parse(text) {
        Ok(tree) => read_file(&tree, load, &mut reader)?,
        Err(wrong) => {
            reader.wrong(wrong.line, wrong.reason);
            Vec::new()
        }
    };
    let mistakes = reader.finish();
    if mistakes.is_empty() {
        return Ok(drills);
    }
    let file = file_name.into();
    Err(RulesError { file, mistakes })
}

type Entry = (Key, Tree);

/// The entries with these names, and the others.
fn split(entries: &[Entry], names: &[&str]) -> (Vec<Entry>, Vec<Entry>) {
    let entries = entries.iter().cloned();
    entries.partition(|(key, _)| names.contains(&key.text.as_str()))
}

/// The entries that a part can have; the others are told of. `lists`: what else may stand beside them.
fn known(
    entries: &[Entry],
    part: &impl Serialize,
    lists: &[&str],
    what: &str,
    reader: &mut Reader,
) -> Vec<Entry> {
    let json = serde_json::to_value(part).unwrap_or_default();
    let names: Vec<String> = json
        .as_object()
        .into_iter()
        .flat_map(|o| o.keys().cloned())
        .collect();
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .chain(lists.iter().copied())
        .collect();
    let (known, unknown) = split(entries, &names);
    for (key, _) in &unknown {
        reader.unknown(key, what, names.iter().copied());
    }
    known
}

fn named<'t>(entries: &'t [(Key, Tree)], name: &str) -> Option<&'t (Key, Tree)> {
    entries.iter().find(|(key, _)| key.text == name)
}

fn read_file(
    tree: &Tree,
    load: impl FnOnce(&str) -> Result<String, String>,
    reader: &mut Reader,
) -> Result<Vec<Drill>, RulesError> {
    let entries = reader.entries(tree, "the file");
    let (rules, rest) = split(entries, &super::book::TOP);
    let (tests, head) = split(&rest, &["tests"]);
    let head = known(
        &head,
        &FileHead::default(),
        &["tests", "rules", "overrides", "custom"],
        "the file",
        reader,
    );
    let Some(head) = reader.part(&FileHead::default(), &head, "the file") else {
        return Ok(Vec::new());
    };
    let book = if let Some(name) = &head.rules_file {
        let line = named(entries, "rules_file").map_or(1, |(key, _)| key.line);
        if let Some((key, _)) = rules.first() {
            reader.wrong(key.line, "the rules are in `rules_file`: write them there");
        }
        match load(name) {
            Ok(text) => RuleBook::parse(&text, name)?,
            Err(reason) => {
                reader.wrong(line, format!("rules_file: {reason}"));
                return Ok(Vec::new());
            }
        }
    } else {
        let tree = Tree {
            line: tree.line,
            value: Value::Map(rules),
        };
        RuleBook::read_tree(&tree, reader)
    };
    let Some((key, tests)) = tests.first() else {
        reader.wrong(1, "there are no `tests`");
        return Ok(Vec::new());
    };
    let items = reader.items(tests, "tests");
    if items.is_empty() || items.len() > MOST_TESTS {
        reader.wrong(key.line, format!("write from 1 to {MOST_TESTS} tests"));
        return Ok(Vec::new());
    }
    let drills = items
        .iter()
        .filter_map(|item| read_test(item, &head, &book, reader));
    Ok(drills.collect())
}

fn read_test(item: &Tree, file: &FileHead, book: &RuleBook, reader: &mut Reader) -> Option<Drill> {
    const LISTS: [&str; 3] = ["input", "steps", "expect"];
    let entries = reader.entries(item, "a test");
    let (lists, head) = split(entries, &LISTS);
    let head = known(&head, &TestHead::default(), &LISTS, "the test", reader);
    let head: TestHead = reader.part(&TestHead::default(), &head, "the test")?;
    if head.name.is_empty() {
        reader.wrong(item.line, "the test has no `name`");
    }
    let rules: Vec<String> = book
        .summaries()
        .iter()
        .map(|rule| rule.rule.to_string())
        .collect();
    for name in &head.watch {
        let line = named(entries, "watch").map_or(item.line, |(key, _)| key.line);
        check_rule(name, line, &rules, reader);
    }
    let mut list = |name: &str| -> Vec<Tree> {
        let entry = named(&lists, name);
        entry.map_or(Vec::new(), |(_, tree)| reader.items(tree, name).to_vec())
    };
    let (input, steps, expect) = (list("input"), list("steps"), list("expect"));
    if input.is_empty() || input.len() > MOST_GPUS {
        reader.wrong(
            item.line,
            format!("the test needs an `input` of 1 to {MOST_GPUS} GPUs"),
        );
    }
    let interval = head.interval.unwrap_or(file.interval);
    if interval.millis() < 100 {
        reader.wrong(item.line, "interval: write at least 100ms");
    }
    Some(Drill {
        name: head.name,
        book: book.clone(),
        cluster: file.cluster.clone(),
        interval: interval.0.max(Duration::from_millis(100)),
        watch: head.watch,
        input: input
            .iter()
            .filter_map(|item| read_gpu(item, reader))
            .collect(),
        steps: steps
            .iter()
            .filter_map(|item| read_step(item, reader))
            .collect(),
        expect: expect
            .iter()
            .filter_map(|item| read_event(item, &rules, reader))
            .collect(),
    })
}

fn read_gpu(item: &Tree, reader: &mut Reader) -> Option<Gpu> {
    let entries = reader.entries(item, "a GPU of the input");
    let (series, head) = split(entries, &["series"]);
    let head = known(
        &head,
        &InputHead::default(),
        &["series"],
        "a GPU of the input",
        reader,
    );
    let head: InputHead = reader.part(&InputHead::default(), &head, "input")?;
    if head.node.is_empty() {
        reader.wrong(item.line, "input: a GPU needs a `node`");
    }
    let mut read = BTreeMap::new();
    for (key, tree) in series
        .first()
        .map_or(&[][..], |(_, tree)| reader.entries(tree, "series"))
    {
        let Some(metric) = metric::by_name(&key.text) else {
            let names = metric::CATALOGUE.iter().map(|metric| metric.name);
            reader.unknown(key, "the catalogue of metrics", names);
            continue;
        };
        let json = tree.json_of_texts();
        match series::parse(json.as_str().unwrap_or_default()) {
            Ok(steps) => {
                read.insert(metric.name, (metric, steps));
            }
            Err(reason) => reader.wrong(key.line, format!("series.{}: {reason}", key.text)),
        }
    }
    let kind = head.job.as_ref().map(|_| JobKind::Train);
    Some(Gpu {
        node: head.node,
        device: head.device,
        model: match head.model.as_str() {
            "" => "NVIDIA H100 80GB HBM3".into(),
            model => model.into(),
        },
        labels: head.labels,
        job: head.job,
        job_kind: head.job_kind.or(kind).unwrap_or_default(),
        series: read.into_values().collect(),
    })
}

fn read_step(item: &Tree, reader: &mut Reader) -> Option<Action> {
    let entries = reader.entries(item, "a step");
    let step: StepWritten = reader.part(&StepWritten::default(), entries, "a step")?;
    let Some(at) = step.at else {
        reader.wrong(item.line, "a step needs `at`");
        return None;
    };
    let what = match step {
        StepWritten { restart: true, .. } => What::Restart,
        StepWritten {
            late: Some(node),
            by: Some(by),
            ..
        } => What::Late { node, by: by.0 },
        StepWritten {
            duplicate: Some(node),
            ..
        } => What::Duplicate { node },
        StepWritten {
            xid: Some(code),
            node: Some(node),
            device,
            ..
        } => What::Xid { node, device, code },
        _ => {
            let reason = "write one of `restart: true`, `late: NODE` with `by`, `duplicate: NODE`, `xid: CODE` with \
                          `node` and `device`";
            reader.wrong(item.line, reason);
            return None;
        }
    };
    Some(Action { at: at.0, what })
}

fn read_event(item: &Tree, rules: &[String], reader: &mut Reader) -> Option<Event> {
    let entries = reader.entries(item, "an expectation");
    let event: EventWritten = reader.part(&EventWritten::default(), entries, "expect")?;
    let (raised, rule) = match (event.raised, event.cleared) {
        (Some(rule), None) => (true, rule),
        (None, Some(rule)) => (false, rule),
        _ => {
            reader.wrong(item.line, "expect: write `raised: RULE` or `cleared: RULE`");
            return None;
        }
    };
    check_rule(&rule, item.line, rules, reader);
    let (Some(at), Some(on)) = (event.at, event.on) else {
        reader.wrong(
            item.line,
            "expect: write `at`, and `on`: NODE/DEVICE, NODE, or `job NAME`",
        );
        return None;
    };
    Some(Event {
        at: at.0,
        raised,
        rule,
        on,
        severity: event.severity,
    })
}

fn check_rule(name: &str, line: u64, rules: &[String], reader: &mut Reader) {
    if rules.iter().any(|rule| rule == name) {
        return;
    }
    let hint = nearest(name, rules.iter().map(String::as_str));
    let hint = hint.map_or(String::new(), |name| format!(": did you mean `{name}`?"));
    reader.wrong(line, format!("there is no rule `{name}`{hint}"));
}

impl Drill {
    /// Plays it.
    pub fn run(&self) -> Outcome {
        let mut got = play::play(self);
        let mut expected = self.expect.clone();
        got.sort();
        expected.sort();
        let same = |(got, expected): (&Event, &Event)| {
            let mut got = got.clone();
            if expected.severity.is_none() {
                got.severity = None;
            }
            got == *expected
        };
        if got.len() == expected.len() && got.iter().zip(&expected).all(same) {
            return Outcome::Passed;
        }
        Outcome::Failed {
            expected: expected.iter().map(Event::words).collect(),
            got: got.iter().map(Event::words).collect(),
        }
    }
}

impl Event {
    fn words(&self) -> String {
        let change = if self.raised { "raised" } else { "cleared" };
        let severity = self
            .severity
            .map_or(String::new(), |severity| format!(" ({})", severity.name()));
        format!(
            "{} {change} {} on {}{severity}",
            Span(self.at),
            self.rule,
            self.on
        )
    }
}

#[cfg(test)]
mod tests;
