//! Scrape configuration, alerts and dashboard: valid, and about metrics that exist.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use entrenar::expose::Page;
use entrenar::metric::{CATALOGUE, Metric};
use entrenar::unit::Timestamp;
use entrenar_aggregator::status::{Counts, Vitals};
use entrenar_tests::external::{external, repository};
use serde_json::Value;

use crate::{shipped, text};

/// Families of the aggregator's page that are there only once there is a node, a GPU, an incident or a receiver.
const WITH_LABELS: &[&str] = &[
    "entrenar_node_up",
    "entrenar_node_clock_offset_seconds",
    "entrenar_gpu_info",
    "entrenar_gpu_holder_info",
    "entrenar_gpu_sample_age_seconds",
    "entrenar_andon_incidents",
    "entrenar_metrics_gpus_omitted",
    "entrenar_aggregator_notices_refetched_total",
    "entrenar_aggregator_attempts_lost_total",
    "entrenar_aggregator_notices_delivered_total",
    "entrenar_aggregator_notices_retries_total",
    "entrenar_aggregator_notices_dead_total",
    "entrenar_aggregator_notices_cancelled_total",
    "entrenar_aggregator_notices_digests_total",
    "entrenar_aggregator_notices_waiting",
];

#[test]
fn promtool_accepts_what_prometheus_is_given() {
    let runs: [&[&str]; 3] = [
        // Certificates and tokens are the operator's: they are not here.
        &["check", "config", "--syntax-only", "prometheus.yml"],
        &["check", "rules", "entrenar.rules.yml"],
        &["test", "rules", "entrenar.rules.test.yml"],
    ];
    for args in runs {
        let Some(mut promtool) = external("promtool", "prometheus") else {
            return;
        };
        let out = promtool
            .args(args)
            .current_dir(shipped("prometheus"))
            .output()
            .unwrap();
        let said = [out.stdout, out.stderr].concat();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&said)
        );
    }
}

#[test]
fn alerts_ask_for_metrics_that_the_aggregator_has() {
    let rules: Value = serde_saphyr::from_str(&text("prometheus/entrenar.rules.yml")).unwrap();
    let asked = strings(&rules, "expr");
    assert!(!asked.is_empty());
    check_metrics(&asked);
}

#[test]
fn the_dashboard_asks_for_metrics_that_the_aggregator_has() {
    let dashboard: Value = serde_json::from_str(&text("grafana/fleet.json")).unwrap();
    let mut asked = strings(&dashboard, "expr");
    assert!(!asked.is_empty());
    asked.extend(strings(&dashboard, "query"));
    check_metrics(&asked);
}

#[test]
fn our_pages_name_metrics_that_exist_and_leave_none_of_the_daemons_out() {
    let pages = [
        "README.md",
        "docs/operations.md",
        "docs/receivers.md",
        "docs/rules.md",
    ];
    let written: Vec<String> = pages
        .map(|page| std::fs::read_to_string(repository().join(page)).unwrap())
        .into();
    let words: BTreeSet<&str> = written
        .iter()
        .flat_map(|page| quoted(page))
        .flat_map(names)
        .collect();
    let known = known();
    let agents: BTreeSet<String> = agents_own();
    for name in &words {
        let prefix = name.ends_with('_');
        assert!(
            prefix || known.contains(*name) || agents.contains(*name),
            "no metric is called {name}"
        );
    }
    let of_gpus = |name: &&String| !name.starts_with("entrenar_gpu_");
    for name in known.iter().chain(&agents).filter(of_gpus) {
        assert!(
            words.contains(name.as_str()),
            "docs/operations.md does not explain {name}"
        );
    }
}

/// What a page has between backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Families of an agent's page that are about the agent.
fn agents_own() -> BTreeSet<String> {
    let status = entrenar_agent::status::Status::new("n01".into(), Duration::from_secs(1));
    status.tick(Timestamp(1), &Arc::default(), &[]);
    families(&status.page(Timestamp(1)))
        .map(str::to_owned)
        .collect()
}

/// The families of a page.
fn families(page: &str) -> impl Iterator<Item = &str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
}

fn check_metrics(asked: &[String]) {
    let known = known();
    for expression in asked {
        for name in names(expression) {
            assert!(
                known.contains(name),
                "{name} is no metric of ours: {expression}"
            );
        }
    }
}

/// Every family that the aggregator's page can have.
fn known() -> BTreeSet<String> {
    let mut page = Page::default();
    entrenar_aggregator::status::write(
        &mut page,
        &Counts::default(),
        &Vitals::default(),
        Timestamp(0),
    );
    let own = page.into_text();
    families(&own)
        .map(str::to_owned)
        .chain(CATALOGUE.iter().map(Metric::prometheus_name))
        .chain(WITH_LABELS.iter().map(|&name| name.to_owned()))
        .collect()
}

/// The words of an expression that are metrics of ours.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("entrenar_"))
}

/// Every string under a key, wherever it stands.
fn strings(value: &Value, key: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(text) if name == key => vec![text.clone()],
                value => strings(value, key),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| strings(item, key)).collect(),
        _ => Vec::new(),
    }
}
