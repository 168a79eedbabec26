//! Labels: what truly went wrong in a trace, as a file of labels or the simulator says it. *(pure)*

use anyhow::{Context, Result};
use entrenar::sim::Label;
use entrenar_aggregator::andon::Severity;
use entrenar_aggregator::backtest::Culprit;
use serde::Deserialize;

/// A true incident, or something that may be reported and need not be.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// Every class that would be right; it is counted in the first.
    pub kinds: Vec<String>,
    pub severity: Severity,
    /// Unix seconds.
    pub start: f64,
    pub end: f64,
    pub job: Option<String>,
    #[serde(default)]
    pub jobs: Vec<String>,
    #[serde(default)]
    pub nodes: Vec<String>,
    #[serde(default)]
    pub gpus: Vec<Culprit>,
    #[serde(default)]
    pub culprits: Vec<Culprit>,
    /// Found within this time, it is found in time.
    pub deadline_s: f64,
    /// Classes that may come with it.
    #[serde(default)]
    pub related: Vec<String>,
    /// Every node of the jobs that it touches.
    #[serde(default)]
    pub affected_nodes: Vec<String>,
    #[serde(default = "yes")]
    pub required: bool,
    /// It concerns the whole fleet.
    #[serde(default)]
    pub fleet: bool,
}

fn yes() -> bool {
    true
}

impl Truth {
    /// A label of the simulator.
    pub fn of(label: &Label) -> Result<Self> {
        let value = serde_json::to_value(label)?;
        serde_json::from_value(value).context("a label of the simulator has another form")
    }
}
