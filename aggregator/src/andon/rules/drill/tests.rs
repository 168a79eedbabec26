//! Stories of users' tests.

use super::*;

fn drills(text: &str) -> Vec<Drill> {
    read(text, "a.test.yaml", |name| Err(format!("no {name}"))).expect("a file of tests")
}

fn outcome(text: &str) -> Outcome {
    drills(text)[0].run()
}

const WARM: &str = "
custom:
  - name: warm
    threshold: temperature_celsius
    above: 70
    clear_below: 65
    for: 20s
interval: 10s
";

#[test]
fn a_test_passes_when_exactly_what_is_expected_happens() {
    let test = |expect: &str| {
        format!(
            "{WARM}
tests:
  - name: it is warm
    input:
      - {{ node: n1, device: 2, series: {{ temperature_celsius: 60 71+1x3 64x3 }} }}
    expect:
{expect}"
        )
    };
    let right = test(
        "      - { at: 50s, cleared: warm, on: n1/2 }
      - { at: 30s, raised: warm, on: n1/2, severity: warning }",
    );
    assert_eq!(outcome(&right), Outcome::Passed);
    let wrong = test("      - { at: 30s, raised: warm, on: n1/2, severity: critical }");
    assert_eq!(
        outcome(&wrong),
        Outcome::Failed {
            expected: vec!["30s raised warm on n1/2 (critical)".into()],
            got: vec![
                "30s raised warm on n1/2 (warning)".into(),
                "50s cleared warm on n1/2 (warning)".into()
            ],
        }
    );
}

#[test]
fn a_late_tick_raises_nothing_a_second_one_changes_nothing_and_a_restart_forgets_nothing() {
    let test = |steps: &str| {
        format!(
            "{WARM}
tests:
  - name: it is warm
    input:
      - {{ node: n1, series: {{ temperature_celsius: 60x1 71x4 }} }}
    steps: {steps}
    expect: [{{ at: 40s, raised: warm, on: n1/0 }}]
"
        )
    };
    assert_eq!(outcome(&test("[]")), Outcome::Passed);
    assert_eq!(
        outcome(&test("[{ at: 30s, duplicate: n1 }]")),
        Outcome::Passed
    );
    assert_eq!(
        outcome(&test("[{ at: 35s, restart: true }]")),
        Outcome::Passed
    );
    // The first warm tick comes only after the second: it holds since that one.
    let late = test("[{ at: 20s, late: n1, by: 15s }]").replace("at: 40s", "at: 50s");
    assert_eq!(outcome(&late), Outcome::Passed);
}

#[test]
fn built_in_rules_are_tested_the_same_way() {
    let text = "
rules: { node_lost: { start_grace: 5s, alone: 4s } }
tests:
  - name: a node falls silent, and a code is logged
    input:
      - { node: n1, job: j, labels: { rack: 7 }, series: { temperature_celsius: 60x20 _x20 60x9 } }
      - { node: n2, series: { temperature_celsius: 60x49 } }
    steps:
      - { at: 3s, xid: 62, node: n2, device: 0 }
    expect:
      - { at: 3s, raised: xid, on: n2/0, severity: critical }
      - { at: 30s, raised: node_lost, on: n1 }
      - { at: 43s, cleared: node_lost, on: n1 }
";
    assert_eq!(outcome(text), Outcome::Passed);
    let watched = text.replace("    steps:", "    watch: [xid]\n    steps:");
    let Outcome::Failed { got, .. } = outcome(&watched) else {
        panic!("what is not watched does not happen");
    };
    assert_eq!(got, ["3s raised xid on n2/0 (critical)"]);
}

#[test]
fn a_row_without_a_metric_differs_from_no_row() {
    let test = |series: &str| {
        format!(
            "
custom: [{{ name: blind, absent: power_watts }}]
tests:
  - name: blind
    watch: [blind]
    input: [{{ node: n1, series: {{ power_watts: {series} }} }}]
    expect: [{{ at: 5s, raised: blind, on: n1/0 }}]
"
        )
    };
    assert_eq!(outcome(&test("100x2 stalex5")), Outcome::Passed);
    assert_ne!(outcome(&test("100x2 _x5")), Outcome::Passed);
}

#[test]
fn mistakes_of_a_test_file_are_told_with_their_line() {
    let check = |text: &str, expected: &str| {
        let error = read(text, "t", |name| Err(format!("could not read {name}")));
        let said = error.expect_err("it is refused").to_string();
        assert!(said.contains(expected), "{said}");
    };
    check("interval: 1s\n", "t, line 1: there are no `tests`");
    check(
        "rules_file: x.yaml\ntests: []\n",
        "t, line 1: rules_file: could not read x.yaml",
    );
    check(
        "rules: { xidd: {} }\ntests: [{ name: a, input: [{ node: a }] }]\n",
        "did you mean `xid`?",
    );
    let test =
        |what: &str| format!("tests:\n  - name: a\n    input: [{{ node: n }}]\n    {what}\n");
    check(
        &test("expct: []"),
        "t, line 4: the test has no `expct`: did you mean `expect`?",
    );
    check(
        &test("expect: [{ at: 1s, raised: xidd, on: n }]"),
        "there is no rule `xidd`: did you mean `xid`?",
    );
    check(
        &test("expect: [{ at: 1s, on: n }]"),
        "write `raised: RULE` or `cleared: RULE`",
    );
    check(&test("expect: [{ raised: xid, on: n }]"), "write `at`");
    check(
        &test("steps: [{ at: 1s, late: n }]"),
        "`late: NODE` with `by`",
    );
    check(
        "tests:\n  - name: a\n    input:\n      - node: n\n        series:\n          power_wats: 1\n          power_watts: hot\n",
        "line 7: series.power_watts: `hot` is not in the notation",
    );
}

#[test]
fn the_shipped_example_passes() {
    let text = include_str!("../../../../../deploy/rules.test.yaml");
    let rules = include_str!("../../../../../deploy/rules.example.yaml");
    let load = |name: &str| {
        assert_eq!(name, "rules.example.yaml");
        Ok(rules.to_owned())
    };
    let drills = read(text, "deploy/rules.test.yaml", load).expect("a file of tests");
    assert!(drills.len() >= 5);
    for drill in drills {
        assert_eq!(drill.run(), Outcome::Passed, "{}", drill.name);
    }
}
