//! Stories of jobs at the ends of the scale, and of claims that contradict each other.

use std::time::Duration;

use entrenar::report::JobKind;

use crate::andon::testing::{Stage, spinning, working};
use crate::andon::{RuleSet, Scope};

#[test]
fn a_job_of_sixteen_thousand_gpus_hangs_as_one() {
    let names: Vec<String> = (0..2048).map(|n| format!("n{n:04}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stage = Stage::new(RuleSet::default()).every(Duration::from_secs(30));
    for node in &nodes {
        stage.hello(node, 8, &[]);
        let gpus: Vec<(&str, u32)> = (0..8).map(|gpu| (*node, gpu)).collect();
        stage.hold("big", JobKind::Train, &gpus);
    }
    stage.work(&nodes, 300);
    stage.play(&nodes, &spinning(), 270);
    assert_eq!(stage.pages(), "480s Raised critical JobHang job:big");
    let said = stage.said.last().expect("it was said");
    assert!(matches!(&said.scope, Scope::Job { gpus, .. } if gpus.len() == 16_384));
    let words = serde_json::to_string(&said.finding).expect("it is text");
    assert!(words.len() < 4096, "a message of {} bytes", words.len());
}

#[test]
fn a_job_of_one_gpu_hangs_like_any_other() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    stage.hold("solo", JobKind::Train, &[("n01", 0)]);
    stage.work(&["n01"], 120);
    stage.play(&["n01"], &spinning(), 200);
    assert_eq!(stage.pages(), "300s Raised critical JobHang job:solo");
}

#[test]
fn a_gpu_that_two_jobs_claim_is_the_last_claimants_and_calls_nobody() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 2, &[]);
    for second in 0..600 {
        let job = if second % 2 == 0 { "one" } else { "two" };
        stage.hold(job, JobKind::Train, &[("n01", 0), ("n01", 1)]);
        stage.all(&["n01"], &working());
        stage.step();
    }
    assert_eq!(stage.story(), "");
    let jobs = stage.engine.jobs();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!((jobs[0].job.as_str(), jobs[0].gpus.len()), ("two", 2));
}
