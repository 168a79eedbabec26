//! Stories of the rules file: what can be written, what is refused, and what a change does to raised cords.

use std::sync::Arc;

use crate::andon::rules::Span;
use crate::andon::testing::Stage;
use crate::andon::{RuleBook, RuleSet, Severity};

fn wrong(text: &str) -> String {
    let error = RuleBook::parse(text, "rules.yaml").expect_err("it is refused");
    error.to_string()
}

#[test]
fn a_file_names_only_what_it_changes() {
    let text = "
rules:
  gpu_idle:
    hold: 20m
    severity: critical
    labels: { team: research }
  xid:
    severity_of: { 94: critical }
  power_limit: { enabled: false }
";
    let book = RuleBook::parse(text, "rules.yaml").expect("it is a rules file");
    let rules = book.base();
    assert_eq!(rules.gpu_idle.hold, Span::secs(1200));
    assert_eq!(rules.gpu_idle.severity, Severity::Critical);
    assert_eq!(rules.gpu_idle.labels["team"], "research");
    assert_eq!(rules.xid.severity_of[&94], Severity::Critical);
    assert!(!rules.power_limit.enabled);
    assert_eq!(rules.node_lost, RuleSet::default().node_lost);
    for nothing in ["", "# nothing yet\n"] {
        assert_eq!(
            RuleBook::parse(nothing, "rules.yaml"),
            Ok(RuleBook::default())
        );
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_line_and_reason() {
    let check = |text: &str, line: u64, reason: &str| {
        let said = wrong(text);
        assert!(
            said.starts_with(&format!("rules.yaml, line {line}: ")),
            "{said}"
        );
        assert!(said.contains(reason), "{said}");
    };
    check(
        "rules:\n  memory_pressure:\n    raise_share: 1.2\n",
        3,
        "memory_pressure.raise_share",
    );
    check(
        "rules:\n  power_limit: { share: 0.9 }\n  memory_pressure:\n    hold: 10s\n    clear_share: 0.99\n",
        5,
        "below raise_share",
    );
    check("rules:\n  gpu_idle: { hold: 0s }\n", 2, "checkpoint");
    check(
        "rules:\n  gpu_idle:\n    hold: soon\n",
        3,
        "`soon` is not a length of time",
    );
    check("rules:\n  gpu_idle:\n    holds: 10s\n", 3, "holds");
    check("rules:\n  gpu_idel:\n    hold: 10s\n", 2, "gpu_idel");
    check("rules:\n  xid:\n    severity: loud\n", 3, "loud");
    check("rulez: {}\n", 1, "rulez");
    check(
        "rules:\n  node_lost:\n    at_least: 0s\n",
        3,
        "node_lost.at_least",
    );
    check("rules: [\n", 1, "");
    check("rules:\n  gpu_idel: {}\n", 2, "did you mean `gpu_idle`?");
    check(
        "rules:\n  gpu_idle:\n    setle: 1m\n",
        3,
        "did you mean `settle`?",
    );
    check("rules:\n  gpu_idle: [1]\n", 2, "a list: write a map");
    check(
        "rules:\n  gpu_idle:\n    hold: 60\n",
        3,
        "`60` is not a length of time",
    );
    check("overrides:\n  - rules: {}\n", 2, "needs `match`");
    check(
        "overrides:\n  - match: { modle: x }\n    rules:\n      causes: {}\n",
        2,
        "did you mean `model`?",
    );
    check(
        "overrides:\n- match: { job_kind: lunch }\n",
        2,
        "match.job_kind",
    );
    check(
        "overrides:\n- match: { model: x }\n  rules:\n    memory_pressure:\n      raise_share: 0.5\n",
        4,
        "memory_pressure.clear_share",
    );
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let text = "
rules:
  gpu_idle:
    hold: soon
    setle: 1m
  xidd: {}
overrides:
  - match: {}
    rules:
      node_lost: { at_least: 0s }
";
    assert_eq!(
        wrong(text),
        "rules.yaml, line 4: gpu_idle.hold: `soon` is not a length of time: write 500ms, 10s, 5m, 2h or 1d\n\
         rules.yaml, line 5: gpu_idle has no `setle`: did you mean `settle`?\n\
         rules.yaml, line 6: rules has no `xidd`: did you mean `xid`?\n\
         rules.yaml, line 10: node_lost.at_least: write at least 1s"
    );
}

#[test]
fn labels_may_be_numbers_and_are_texts() {
    let book = RuleBook::parse("rules: { xid: { labels: { rack: 7 } } }", "rules.yaml");
    let book = book.expect("it is a rules file");
    assert_eq!(book.base().xid.labels["rack"], "7");
}

#[test]
fn the_shipped_files_are_read_and_the_first_is_what_is_built_in() {
    let shipped = include_str!("../../../../deploy/rules.yaml");
    let rules = RuleBook::parse(shipped, "deploy/rules.yaml").expect("it is a rules file");
    assert_eq!(rules, RuleBook::default());
    let demo = include_str!("../../../../deploy/demo/rules.yaml");
    let rules = RuleBook::parse(demo, "deploy/demo/rules.yaml").expect("it is a rules file");
    assert_ne!(rules, RuleBook::default());
}

#[test]
fn every_parameter_stands_in_the_shipped_file_and_in_the_docs() {
    let defaults = serde_json::to_value(RuleSet::default()).expect("rules are data");
    let shipped = include_str!("../../../../deploy/rules.yaml");
    let docs = include_str!("../../../../docs/rules.md");
    for (rule, parameters) in defaults.as_object().expect("rules by name") {
        assert!(
            docs.contains(&format!("`{rule}`")),
            "docs/rules.md lacks {rule}"
        );
        for parameter in parameters.as_object().expect("parameters by name").keys() {
            assert!(
                shipped.contains(&format!("{parameter}:")),
                "deploy/rules.yaml lacks {parameter}"
            );
            assert!(
                docs.contains(&format!("`{parameter}`")),
                "docs/rules.md lacks {parameter}"
            );
        }
    }
}

#[test]
fn a_rule_that_is_switched_off_lets_go_and_the_others_keep_their_state() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 2, &[("rack", "a")]);
    stage.xid("n01", 0, 62);
    let mut rules = RuleSet::default();
    rules.gpu_idle.hold = Span::secs(60);
    stage.engine.set_rules(stage.now, Arc::new(rules.clone()));
    stage.work(&["n01"], 5);
    rules.xid.enabled = false;
    stage.engine.set_rules(stage.now, Arc::new(rules));
    stage.xid("n01", 1, 62);
    stage.work(&["n01"], 5);
    assert_eq!(
        stage.story(),
        "0s Raised critical Xid gpu:GPU-n01-0, 5s Cleared(RuleRemoved) critical Xid gpu:GPU-n01-0"
    );
}

#[test]
fn a_rule_is_called_in_the_file_what_it_calls_itself() {
    let summaries = RuleSet::default().summaries();
    let names: Vec<&str> = summaries.iter().map(|rule| &*rule.rule.0).collect();
    assert_eq!(names, RuleSet::NAMES);
}
