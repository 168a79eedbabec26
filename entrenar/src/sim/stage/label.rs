//! Labels: what truly went wrong in a simulated fleet, in the words of the backtest's contract. *(pure)*

use serde::Serialize;

/// How much an incident matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelSeverity {
    /// To be seen in working hours.
    Warning,
    /// To page a person.
    Critical,
}

/// A GPU, or a whole node, in a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The node.
    pub node: String,
    /// Index on the node; `None`: the node itself.
    pub gpu: Option<u32>,
}

/// A true incident, or something that may be reported and need not be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Label {
    /// File name of the trace.
    pub trace: String,
    /// Unique.
    pub id: String,
    /// Which scenario of the catalogue it comes from.
    pub scenario: &'static str,
    /// Every class that would be right; it is counted in the first.
    pub kinds: Vec<&'static str>,
    /// How much it matters.
    pub severity: LabelSeverity,
    /// When it begins, in unix seconds.
    pub start: f64,
    /// When it is over.
    pub end: f64,
    /// The job that it concerns; `None`: none, several, or the trace has no job ids.
    pub job: Option<String>,
    /// The jobs, where it concerns several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<String>,
    /// The nodes that it concerns.
    pub nodes: Vec<String>,
    /// The GPUs that it concerns, where not whole nodes.
    pub gpus: Vec<Place>,
    /// Who is to blame; empty: nobody in particular.
    pub culprits: Vec<Place>,
    /// Found within this many seconds, it is found in time.
    pub deadline_s: f64,
    /// Classes that may come with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<&'static str>,
    /// Every node of the jobs that it touches.
    pub affected_nodes: Vec<String>,
    /// Whether it must be reported.
    #[serde(skip_serializing_if = "is_true")]
    pub required: bool,
    /// Whether it concerns the whole fleet.
    #[serde(skip_serializing_if = "is_false")]
    pub fleet: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_true(flag: &bool) -> bool {
    *flag
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The record that heads a trace in a file of labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Header {
    /// File name of the trace.
    pub trace: String,
    /// Version of the format.
    pub version: u32,
    /// GPUs in it.
    pub gpus: u32,
    /// GPUs times days.
    pub gpu_days: f64,
    /// The agents' sampling interval.
    pub interval_s: f64,
    /// When it begins, in unix seconds.
    pub start: f64,
    /// When it ends.
    pub end: f64,
}
