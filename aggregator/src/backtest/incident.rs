//! An incident as a backtest tells it: one JSON object a line. *(pure)*

use serde::{Deserialize, Serialize};

use crate::andon::{GpuAt, Kind, Severity};

/// What the engine raised, as it stood when people would have been told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Kind and a number; what is said again of the same trouble has a number behind it: `JobHang-3.2`.
    pub id: String,
    pub kind: Kind,
    pub severity: Severity,
    pub scope: ScopeView,
    /// When, by the evidence, the trouble began; unix seconds, as all times here.
    pub started_at: f64,
    /// Data time at which the engine raised it.
    pub fired_at: f64,
    /// `None` while it is open.
    pub resolved_at: Option<f64>,
    /// Most likely first; empty: unknown.
    pub culprits: Vec<Culprit>,
    /// The incident that explains this one; it pages nobody.
    pub consequence_of: Option<String>,
    pub summary: String,
}

/// The narrowest thing that an incident is about. All empty: the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ScopeView {
    pub node: Option<String>,
    pub gpu: Option<u32>,
    pub job: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Place>,
}

/// A GPU by where it sits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    pub node: String,
    pub gpu: u32,
}

/// A GPU or a whole node that is blamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    pub node: String,
    pub gpu: Option<u32>,
}

impl From<&GpuAt> for Place {
    fn from(gpu: &GpuAt) -> Self {
        Self {
            node: gpu.node.to_string(),
            gpu: gpu.device,
        }
    }
}

impl From<&GpuAt> for Culprit {
    fn from(gpu: &GpuAt) -> Self {
        Self {
            node: gpu.node.to_string(),
            gpu: Some(gpu.device),
        }
    }
}
