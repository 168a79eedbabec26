//! Stories of rules that people write: each kind of condition, what is refused, and what a change does.

use std::fmt::Write as _;

use entrenar::gpu::Values;
use entrenar::metric::{self, NvmlStatus};
use entrenar::report::JobKind;

use crate::andon::testing::{BEGIN, Restarts, Stage, failing, working};
use crate::andon::{Kind, RuleBook};

fn book(text: &str) -> RuleBook {
    RuleBook::parse(text, "rules.yaml").expect("it is a rules file")
}

/// A stage of one node with so many GPUs, under one rule.
fn stage(rule: &str, gpus: u32) -> Stage {
    let mut stage = Stage::new(book(&format!("custom:\n  - {rule}\n")));
    stage.hello("n1", gpus, &[("rack", "r2")]);
    stage
}

/// One GPU reports these temperatures, a second apart.
fn warm(stage: &mut Stage, celsius: &[i64]) {
    for celsius in celsius {
        stage.tick("n1", &[working().with(metric::TEMPERATURE, *celsius)]);
        stage.step();
    }
}

#[test]
fn a_threshold_is_raised_after_its_time_and_cleared_at_its_own_level() {
    let rule = "{ name: warm, threshold: temperature_celsius, above: 70, clear_below: 65, for: 2s, settle: 1s, \
                severity: critical, labels: { team: dc }, runbook_url: 'https://wiki/warm', \
                summary: '{{device}} of {{node}} ({{model}}) is at {{value}}, {{threshold}}', action: 'Open a window.' }";
    for restarts in [Restarts::Never, Restarts::Often] {
        let mut stage = stage(rule, 1).restarting(restarts);
        warm(
            &mut stage,
            &[60, 71, 70, 71, 71, 71, 68, 72, 65, 64, 60, 60],
        );
        assert_eq!(
            stage.story(),
            "5s Raised critical Custom gpu:GPU-n1-0, 8s Recovering critical Custom gpu:GPU-n1-0, \
             9s Cleared(Recovered) critical Custom gpu:GPU-n1-0",
            "{restarts:?}"
        );
        let said = &stage.said[0];
        assert_eq!(&*said.rule.0, "warm");
        assert_eq!(said.started_at.since(BEGIN).as_secs(), 3);
        let finding = &said.finding;
        assert_eq!(
            finding.summary,
            "0 of n1 (NVIDIA H100 80GB HBM3) is at 71 °C, above 70 °C"
        );
        assert_eq!(finding.action, "Open a window.");
        assert_eq!(finding.runbook_url.as_deref(), Some("https://wiki/warm"));
        assert_eq!(finding.labels["team"], "dc");
        assert_eq!(finding.labels["rack"], "r2");
        assert_eq!(finding.evidence[0].value, "71 °C");
        assert_eq!(
            finding.evidence[0].threshold.as_deref(),
            Some("above 70 °C")
        );
    }
}

#[test]
fn a_rule_without_a_sentence_says_what_it_found() {
    let mut stage = stage("{ name: low-power, threshold: power_watts, below: 100 }", 1);
    stage.tick("n1", &[working().with(metric::POWER, 62_400)]);
    let finding = &stage.said[0].finding;
    assert_eq!(
        finding.summary,
        "low-power: GPU 0 on n1: power_watts is 62.4 W (below 100 W)"
    );
}

#[test]
fn a_rate_looks_at_how_a_counter_rises_and_not_at_a_reset() {
    let rule = "{ name: replays, rate: pcie_replay_total, window: 8s, above: 2 }";
    let mut stage = stage(rule, 1);
    let mut count = 1_000_000;
    for second in 0..60 {
        count += if (20..30).contains(&second) { 6 } else { 1 };
        if second == 45 {
            count = 0;
        }
        stage.tick("n1", &[working().with(metric::PCIE_REPLAY, count)]);
        stage.step();
    }
    assert_eq!(
        stage.story(),
        "21s Raised warning Custom gpu:GPU-n1-0, 34s Cleared(Recovered) warning Custom gpu:GPU-n1-0"
    );
}

#[test]
fn what_was_reported_and_is_not_any_more_is_absent() {
    let rule = "{ name: blind, absent: power_watts, for: 3s }";
    let mut stage = stage(rule, 1);
    let without = {
        let mut row = Values::default();
        for (metric, value) in working().iter() {
            if metric != metric::POWER {
                row = row.with(metric, value);
            }
        }
        row
    };
    stage.work(&["n1"], 5);
    stage.play(&["n1"], &without, 10);
    stage.work(&["n1"], 3);
    assert_eq!(
        stage.story(),
        "10s Raised warning Custom gpu:GPU-n1-0, 15s Cleared(Recovered) warning Custom gpu:GPU-n1-0"
    );
    assert_eq!(
        stage.said[0].finding.summary,
        "blind: GPU 0 on n1: power_watts has been absent for 6 s"
    );
}

#[test]
fn a_metric_of_the_node_is_absent_on_the_node() {
    let mut stage = stage("{ name: no-network, absent: network_bytes_total }", 2);
    let with = working().with(metric::NETWORK, 1);
    stage.tick("n1", &[with.clone(), working()]);
    stage.step();
    stage.work(&["n1"], 5);
    stage.tick("n1", &[working(), with]);
    assert_eq!(
        stage.story(),
        "3s Raised warning Custom node:n1, 6s Cleared(Recovered) warning Custom node:n1"
    );
    assert_eq!(
        stage.said[0].finding.summary,
        "no-network: n1: network_bytes_total has been absent for 3 s"
    );
}

#[test]
fn a_ratio_compares_two_levels_or_the_rise_of_two_counters() {
    let mut levels = stage(
        "{ name: far, ratio: [power_watts, power_limit_watts], below: 0.3 }",
        1,
    );
    let at = |watts: i64| {
        let row = working().with(metric::POWER, watts * 1000);
        row.with(metric::POWER_LIMIT, 700_000)
    };
    for watts in [300, 100, 300] {
        levels.tick("n1", &[at(watts)]);
        levels.step();
    }
    assert_eq!(
        levels.story(),
        "1s Raised warning Custom gpu:GPU-n1-0, 2s Cleared(Recovered) warning Custom gpu:GPU-n1-0"
    );
    assert_eq!(levels.said[0].finding.evidence[0].value, "0.143");

    let mut counters = stage(
        "{ name: one-way, ratio: [nvlink_tx_bytes_total, nvlink_rx_bytes_total], window: 5s, above: 3 }",
        1,
    );
    for second in 0..20 {
        let rx = if second < 10 { second } else { 10 };
        let row = working().with(metric::NVLINK_TX, second * 1000);
        counters.tick("n1", &[row.with(metric::NVLINK_RX, rx * 1000)]);
        counters.step();
    }
    assert_eq!(counters.story(), "15s Raised warning Custom gpu:GPU-n1-0");
}

#[test]
fn a_gpu_that_differs_from_its_peers_stands_out() {
    let rule =
        "{ name: cold, deviation: power_watts, peers: job, relative: true, below: -0.3, for: 3s }";
    for restarts in [Restarts::Never, Restarts::Often] {
        let mut stage = stage(rule, 4).restarting(restarts);
        stage.hold("j", JobKind::Train, &[("n1", 0), ("n1", 1), ("n1", 2)]);
        for second in 0..12 {
            let watts = if second < 3 { 690_000 } else { 300_000 };
            let slow = working().with(metric::POWER, watts);
            // GPU 3 belongs to nobody.
            stage.tick("n1", &[working(), slow.clone(), working(), slow]);
            stage.step();
        }
        assert_eq!(
            stage.story(),
            "6s Raised warning Custom gpu:GPU-n1-1",
            "{restarts:?}"
        );
        assert_eq!(stage.said[0].finding.evidence[0].value, "-56.5 %");
    }
}

#[test]
fn two_have_no_peers() {
    let rule = "{ name: cold, deviation: power_watts, peers: node, below: -100 }";
    let mut stage = stage(rule, 2);
    for _ in 0..5 {
        let slow = working().with(metric::POWER, 300_000);
        stage.tick("n1", &[working(), slow]);
        stage.step();
    }
    assert_eq!(stage.story(), "");
}

#[test]
fn a_rule_is_only_for_what_it_matches() {
    let rule = "{ name: warm, threshold: temperature_celsius, above: 50, \
                match: { job_kind: train, labels: { rack: 'r*' } } }";
    let mut stage = stage(rule, 2);
    stage.hello("n2", 1, &[]);
    stage.hold("j", JobKind::Train, &[("n1", 0), ("n2", 0)]);
    stage.work(&["n1", "n2"], 2);
    stage.give("n1", 0, None);
    stage.work(&["n1", "n2"], 2);
    assert_eq!(
        stage.story(),
        "0s Raised warning Custom gpu:GPU-n1-0, 2s Cleared(RuleRemoved) warning Custom gpu:GPU-n1-0"
    );
}

#[test]
fn a_gpu_whose_calls_fail_is_not_judged_and_a_late_sample_raises_nothing() {
    let mut stage = stage("{ name: blind, absent: power_watts }", 1);
    stage.work(&["n1"], 2);
    stage.play(&["n1"], &failing(NvmlStatus::Unknown), 8);
    assert_eq!(stage.story(), "");
    let mut stage = self::stage(
        "{ name: warm, threshold: temperature_celsius, above: 70 }",
        1,
    );
    stage.work(&["n1"], 10);
    let hot = [working().with(metric::TEMPERATURE, 99)];
    let late = BEGIN + std::time::Duration::from_secs(4);
    stage
        .engine
        .observe(stage.now, &"n1".into(), late, true, &hot);
    stage.step();
    assert_eq!(stage.story(), "");
}

#[test]
fn an_edit_keeps_what_is_raised_unless_the_rule_looks_at_something_else() {
    let rule = |what: &str| {
        format!(
            "custom:\n  - {{ name: other, absent: power_watts }}\n  - {{ name: warm, {what} }}\n"
        )
    };
    let mut stage = stage(
        "{ name: warm, threshold: temperature_celsius, above: 50, for: 2s }",
        1,
    );
    stage.work(&["n1"], 2);
    let edited = book(&rule(
        "threshold: temperature_celsius, above: 55, for: 3s, severity: info",
    ));
    stage.engine.set_rules(stage.now, edited);
    stage.work(&["n1"], 3);
    assert_eq!(
        stage.story(),
        "3s Raised info Custom gpu:GPU-n1-0",
        "a hold that runs goes on"
    );
    let changed = book(&rule("threshold: utilization_percent, above: 50"));
    stage.engine.set_rules(stage.now, changed);
    stage.work(&["n1"], 1);
    stage.engine.set_rules(stage.now, book(""));
    stage.work(&["n1"], 1);
    assert_eq!(
        stage.story(),
        "3s Raised info Custom gpu:GPU-n1-0, 5s Cleared(RuleRemoved) info Custom gpu:GPU-n1-0, \
         5.001s Raised warning Custom gpu:GPU-n1-0, 6s Cleared(RuleRemoved) warning Custom gpu:GPU-n1-0"
    );
    stage.assert_times_rise();
}

#[test]
fn a_rule_on_trial_is_marked_and_one_that_is_off_is_silent() {
    let mut trial = stage(
        "{ name: warm, threshold: temperature_celsius, above: 50, shadow: true }",
        1,
    );
    trial.work(&["n1"], 1);
    assert!(trial.said[0].shadow);
    let mut off = stage(
        "{ name: warm, threshold: temperature_celsius, above: 50, enabled: false }",
        1,
    );
    off.work(&["n1"], 1);
    assert_eq!(off.story(), "");
}

#[test]
fn a_raised_rule_without_data_is_unknown_and_not_recovered() {
    let mut stage = stage(
        "{ name: warm, threshold: temperature_celsius, above: 50 }",
        1,
    );
    stage.hello("n2", 1, &[]);
    stage.work(&["n1", "n2"], 70);
    stage.work(&["n2"], 20);
    assert!(
        stage
            .story()
            .contains("DataLost warning Custom gpu:GPU-n1-0"),
        "{}",
        stage.story()
    );
    assert!(!stage.story().contains("Cleared"));
}

#[test]
fn a_thousand_rules_are_refused_and_the_most_that_are_taken_cost_only_where_they_match() {
    let file = |n: usize| {
        let mut text = String::from("custom:\n");
        for n in 0..n {
            let _ = writeln!(
                text,
                "  - {{ name: r{n}, threshold: temperature_celsius, above: 50, match: {{ node: 'n{n}' }} }}"
            );
        }
        text
    };
    let error = RuleBook::parse(&file(1000), "rules.yaml").expect_err("too many");
    assert!(
        error
            .to_string()
            .contains("line 1: 1000 rules: a file has at most 256"),
        "{error}"
    );
    let mut stage = Stage::new(book(&file(256)));
    stage.hello("n7", 1, &[]);
    stage.work(&["n7"], 1);
    assert_eq!(stage.said.len(), 1);
    assert_eq!(
        (&*stage.said[0].rule.0, stage.said[0].kind),
        ("r7", Kind::Custom)
    );
}

#[test]
fn what_a_rule_of_people_cannot_be_is_refused_with_line_and_reason() {
    let check = |lines: &str, line: u64, reason: &str| {
        let text = format!(
            "custom:\n  - name: a\n    {}\n",
            lines.replace("; ", "\n    ")
        );
        let error = RuleBook::parse(&text, "rules.yaml").expect_err("it is refused");
        let said = error.to_string();
        assert!(
            said.starts_with(&format!("rules.yaml, line {line}: ")),
            "{said}"
        );
        assert!(said.contains(reason), "{said}");
        assert_eq!(error.mistakes.len(), 1, "{said}");
    };
    check(
        "threshold: power_wats; above: 3",
        3,
        "did you mean `power_watts`?",
    );
    check("threshold: zzz; above: 3", 3, "docs/metrics.md lists them");
    check("threshold: power_watts", 2, "write `above` or `below`");
    check(
        "threshold: power_watts; abov: 3",
        4,
        "did you mean `above`?",
    );
    check("threshold: power_watts; above: hot", 4, "a.above");
    check(
        "threshold: power_watts; above: 3; below: 2",
        5,
        "has one side",
    );
    check(
        "threshold: power_watts; above: 3; clear_below: 4",
        5,
        "must be at most 3",
    );
    check(
        "threshold: power_watts; below: 3; clear_above: 2",
        5,
        "must be at least 3",
    );
    check(
        "threshold: power_watts; below: 3; clear_below: 2",
        5,
        "goes with `above`",
    );
    check(
        "threshold: utilization_percent; above: 100",
        4,
        "never reached",
    );
    check("threshold: power_watts; below: 0", 4, "never reached");
    check(
        "threshold: energy_joules_total; above: 3",
        3,
        "is a counter: write `rate: energy_joules_total`",
    );
    check(
        "rate: power_watts; above: 3",
        3,
        "write `threshold: power_watts`",
    );
    check(
        "rate: pcie_replay_total; above: 3; window: 1s",
        5,
        "from 5s to 1h",
    );
    check("absent: power_watts; above: 3", 4, "has no level");
    check("ratio: [power_watts]; above: 3", 3, "two metrics");
    check(
        "ratio: [power_watts, pcie_replay_total]; above: 3",
        3,
        "one a counter",
    );
    check(
        "deviation: power_watts; peers: pals; above: 3",
        4,
        "a.peers",
    );
    check(
        "threshold: power_watts; rate: pcie_replay_total; above: 3",
        4,
        "one thing",
    );
    check("above: 3", 2, "looks at nothing");
    check(
        "threshold: power_watts; above: 3; summary: '{{host}}'",
        5,
        "there is no {{host}}",
    );
    check(
        "threshold: power_watts; above: 3; for: soon",
        5,
        "length of time",
    );
    check(
        "threshold: power_watts; above: 3; match: { modle: x }",
        5,
        "did you mean `model`?",
    );

    let names = |name: &str, other: &str| {
        let rule = |name: &str| format!("  - {{ name: {name}, absent: power_watts }}\n");
        let text = format!("custom:\n{}{}", rule(name), rule(other));
        RuleBook::parse(&text, "rules.yaml")
            .expect_err("it is refused")
            .to_string()
    };
    assert_eq!(
        names("a", "a"),
        "rules.yaml, line 3: there are two rules named `a`"
    );
    assert!(
        names("xid", "a")
            .starts_with("rules.yaml, line 2: xid.name: a built-in rule has this name")
    );
    assert!(names("a", "'Not so'").contains("a-z, 0-9"));
}
