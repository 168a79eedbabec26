//! Stories of overrides: other parameters for some of the fleet, and of rules that are on trial.

use std::sync::Arc;

use entrenar::metric::{self, NvmlStatus};
use entrenar::report::{Holder, JobKind};

use crate::andon::testing::{Stage, failing, idle, uuid, working};
use crate::andon::{RuleBook, RuleSet};

fn book(text: &str) -> RuleBook {
    RuleBook::parse(text, "rules.yaml").expect("it is a rules file")
}

const XID: u64 = 62;

#[test]
fn a_rule_may_be_off_in_one_rack_and_loud_in_another() {
    let text = "
overrides:
  - match: { labels: { rack: old* } }
    rules:
      xid: { enabled: false }
  - match: { labels: { rack: new } }
    rules:
      xid: { severity_of: { 62: info }, labels: { team: new } }
";
    let mut stage = Stage::new(book(text));
    for (node, rack) in [("n1", "old7"), ("n2", "new"), ("n3", "other")] {
        stage.hello(node, 1, &[("rack", rack)]);
        stage.xid(node, 0, XID);
    }
    assert_eq!(
        stage.story(),
        "0s Raised info Xid gpu:GPU-n2-0, 0s Raised critical Xid gpu:GPU-n3-0"
    );
    assert_eq!(stage.said[0].finding.labels["team"], "new");
    assert!(!stage.said[1].finding.labels.contains_key("team"));
}

#[test]
fn of_each_rule_the_first_override_that_names_it_counts() {
    let text = "
rules: { gpu_lost: { settle: 9s } }
overrides:
  - match: { node: n1 }
    rules: { gpu_lost: { settle: 1s } }
  - match: { model: '*H100*' }
    rules: { gpu_lost: { settle: 2s, ticks: 3 }, xid: { settle: 3s } }
";
    let mut stage = Stage::new(book(text));
    stage.hello("n1", 1, &[]);
    stage.hello("n2", 1, &[]);
    let rules = |stage: &Stage, node: &str| {
        let rules = stage.engine.rules_of_gpu(&uuid(node, 0));
        let RuleSet { gpu_lost, xid, .. } = &*rules;
        (
            gpu_lost.settle.to_string(),
            gpu_lost.ticks,
            xid.settle.to_string(),
        )
    };
    assert_eq!(rules(&stage, "n1"), ("1s".into(), 2, "3s".into()));
    assert_eq!(rules(&stage, "n2"), ("2s".into(), 3, "3s".into()));
    stage.restart();
    assert_eq!(rules(&stage, "n1"), ("1s".into(), 2, "3s".into()));
}

#[test]
fn rules_follow_the_job_that_holds_a_gpu() {
    let text = "
overrides:
  - match: { job_kind: [interactive, inference] }
    rules:
      thermal_throttling: { enabled: false }
      gpu_idle: { enabled: false }
";
    let mut stage = Stage::new(book(text));
    stage.hello("n1", 1, &[]);
    let on = |stage: &Stage| {
        let gpu = stage.engine.rules_of_gpu(&uuid("n1", 0));
        let job = stage.engine.rules_of_job("j");
        (gpu.thermal_throttling.enabled, job.gpu_idle.enabled)
    };
    assert_eq!(on(&stage), (true, true));
    stage.hold("j", JobKind::Inference, &[("n1", 0)]);
    assert_eq!(on(&stage), (false, false));
    stage.hold("j", JobKind::Train, &[("n1", 0)]);
    assert_eq!(on(&stage), (true, true));
    stage.hold("k", JobKind::Interactive, &[("n1", 0)]);
    assert_eq!(on(&stage), (false, true), "job j is gone");
    stage.give("n1", 0, None);
    assert_eq!(on(&stage), (true, true));
}

#[test]
fn a_cord_is_let_go_where_its_rule_no_longer_holds() {
    let text = "
rules: { gpu_idle: { hold: 10s, worked: 5s } }
overrides:
  - match: { job_kind: inference }
    rules: { gpu_idle: { enabled: false } }
";
    let mut stage = Stage::new(book(text));
    stage.hello("n1", 1, &[]);
    stage.hold("j", JobKind::Train, &[("n1", 0)]);
    stage.work(&["n1"], 20);
    stage.play(&["n1"], &idle(), 15);
    let holder = Holder {
        job: "j".into(),
        kind: JobKind::Inference,
        ..Holder::default()
    };
    stage.give("n1", 0, Some(holder));
    assert_eq!(
        stage.story(),
        "30s Raised warning GpuIdle job:j, 35s Cleared(RuleRemoved) warning GpuIdle job:j"
    );
}

#[test]
fn a_node_may_be_silent_for_longer_than_others() {
    let text = "
overrides:
  - match: { node: slow }
    rules: { node_lost: { at_least: 60s } }
  - match: { node: toy }
    rules: { node_lost: { enabled: false } }
";
    let mut stage = Stage::new(book(text));
    for node in ["a", "b", "slow", "toy"] {
        stage.hello(node, 1, &[]);
    }
    stage.work(&["a", "b", "slow", "toy"], 70);
    stage.work(&["a"], 130);
    let raised = stage.pages();
    assert_eq!(
        raised,
        "110s Raised critical NodeLost node:b, 189s Raised critical NodeLost node:slow"
    );
}

#[test]
fn overrides_that_combine_to_too_many_sets_are_refused() {
    let one = |n: usize, what: &str| {
        format!("  - match: {{ {what} }}\n    rules: {{ xid: {{ settle: {n}s }} }}\n")
    };
    let mut text = String::from("overrides:\n");
    for n in 1..=13 {
        text += &one(n, &format!("model: '*{n}*'"));
    }
    let error = RuleBook::parse(&text, "rules.yaml").expect_err("too many");
    assert!(error.to_string().contains("more than 4096 sets"), "{error}");
    let mut text = String::from("overrides:\n");
    for n in 1..=60 {
        text += &one(n, &format!("labels: {{ rack: r{n} }}"));
    }
    assert!(RuleBook::parse(&text, "rules.yaml").is_ok());
    for n in 1..=5 {
        text += &one(n, "node: x");
    }
    let error = RuleBook::parse(&text, "rules.yaml").expect_err("too many");
    assert!(error.to_string().contains("at most 64"), "{error}");
}

#[test]
fn a_rule_on_trial_speaks_but_explains_nothing_and_nothing_explains_it() {
    let text = "rules: { gpu_lost: { shadow: true } }";
    let mut stage = Stage::new(book(text));
    stage.hello("n1", 2, &[("rack", "a")]);
    stage.work(&["n1"], 3);
    for _ in 0..3 {
        stage.tick("n1", &[failing(NvmlStatus::GpuIsLost), working()]);
        stage.step();
    }
    stage.xid("n1", 0, XID);
    assert_eq!(
        stage.story(),
        "4s Raised critical GpuLost gpu:GPU-n1-0, 6s Raised critical Xid gpu:GPU-n1-0"
    );
    assert!(stage.said[0].shadow);
    assert!(!stage.said[1].shadow);
}

#[test]
fn a_rule_that_goes_live_begins_anew_and_tells_people() {
    let mut stage = Stage::new(book("rules: { xid: { shadow: true } }"));
    stage.hello("n1", 2, &[]);
    stage.xid("n1", 0, XID);
    stage.work(&["n1"], 2);
    let live = Arc::new(RuleSet::default());
    stage.engine.set_rules(stage.now, live);
    stage.xid("n1", 0, XID);
    assert_eq!(
        stage.story(),
        "0s Raised critical Xid gpu:GPU-n1-0, 2s Cleared(RuleRemoved) critical Xid gpu:GPU-n1-0, \
         2.001s Raised critical Xid gpu:GPU-n1-0"
    );
    let shadows: Vec<bool> = stage.said.iter().map(|said| said.shadow).collect();
    assert_eq!(shadows, [true, true, false]);
}

#[test]
fn thermal_margins_differ_by_model() {
    let hot = working().with(metric::TEMPERATURE, 82);
    let text = "
overrides:
  - match: { model: '*H100*' }
    rules: { thermal_throttling: { lamp_celsius: 90 } }
";
    let mut stage = Stage::new(book(text));
    stage.hello("n1", 1, &[]);
    stage.play(&["n1"], &hot, 2);
    assert_eq!(stage.engine.hint(&uuid("n1", 0)), None);
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n1", 1, &[]);
    stage.play(&["n1"], &hot, 2);
    assert!(stage.engine.hint(&uuid("n1", 0)).is_some());
}
