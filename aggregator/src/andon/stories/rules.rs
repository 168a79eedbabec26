//! Stories of the rules file: what can be written, what is refused, and what a change does to raised cords.

use std::sync::Arc;

use crate::andon::rules::Span;
use crate::andon::testing::Stage;
use crate::andon::{RuleSet, Severity};

fn wrong(text: &str) -> String {
    let error = RuleSet::parse(text, "rules.yaml").expect_err("it is refused");
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
    let rules = RuleSet::parse(text, "rules.yaml").expect("it is a rules file");
    assert_eq!(rules.gpu_idle.hold, Span::secs(1200));
    assert_eq!(rules.gpu_idle.severity, Severity::Critical);
    assert_eq!(rules.gpu_idle.labels["team"], "research");
    assert_eq!(rules.xid.severity_of[&94], Severity::Critical);
    assert!(!rules.power_limit.enabled);
    assert_eq!(rules.node_lost, RuleSet::default().node_lost);
    for nothing in ["", "# nothing yet\n"] {
        assert_eq!(
            RuleSet::parse(nothing, "rules.yaml"),
            Ok(RuleSet::default())
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
}

#[test]
fn the_shipped_files_are_read_and_the_first_is_what_is_built_in() {
    let shipped = include_str!("../../../../deploy/rules.yaml");
    let rules = RuleSet::parse(shipped, "deploy/rules.yaml").expect("it is a rules file");
    assert_eq!(rules, RuleSet::default());
    let demo = include_str!("../../../../deploy/demo/rules.yaml");
    let rules = RuleSet::parse(demo, "deploy/demo/rules.yaml").expect("it is a rules file");
    assert_ne!(rules, RuleSet::default());
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
    stage.xid("n01", 0, 48);
    let mut rules = RuleSet::default();
    rules.gpu_idle.hold = Span::secs(60);
    stage.engine.set_rules(stage.now, Arc::new(rules.clone()));
    stage.work(&["n01"], 5);
    rules.xid.enabled = false;
    stage.engine.set_rules(stage.now, Arc::new(rules));
    stage.xid("n01", 1, 48);
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
