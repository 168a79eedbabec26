//! Which incidents a question is about: one meaning for every store.

use std::collections::BTreeSet;

use entrenar::gpu::NodeId;

use super::IncidentFilter;
use crate::andon::Scope;
use crate::incident::Incident;

/// Nodes that an incident is about: its scope's and its culprits'.
pub(super) fn nodes_of(incident: &Incident) -> BTreeSet<&str> {
    let mut nodes: BTreeSet<&str> = incident
        .culprits
        .iter()
        .map(|at| at.node.as_str())
        .collect();
    match &incident.scope {
        Scope::Fleet => {}
        Scope::Node { node } => drop(nodes.insert(node.as_str())),
        Scope::Gpu { gpu } => drop(nodes.insert(gpu.node.as_str())),
        Scope::Job { gpus, .. } => nodes.extend(gpus.iter().map(|at| at.node.as_str())),
        Scope::Nodes { nodes: several, .. } => nodes.extend(several.iter().map(NodeId::as_str)),
    }
    nodes
}

/// The job that an incident is about.
pub(super) fn job_of(incident: &Incident) -> Option<&str> {
    match &incident.scope {
        Scope::Job { job, .. } => Some(job),
        _ => incident.job.as_deref(),
    }
}

impl IncidentFilter {
    /// Whether the incident is asked for, the limit aside.
    pub(super) fn wants(&self, incident: &Incident) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let key = (incident.fired_at, incident.id.as_str());
        self.open
            .is_none_or(|open| incident.state.is_open() == open)
            && is(&self.kind, Some(incident.kind.name()))
            && is(&self.severity, Some(incident.severity.name()))
            && is(&self.job, job_of(incident))
            && self
                .shadow
                .is_none_or(|shadow| incident.flags.shadow == shadow)
            && self
                .node
                .as_deref()
                .is_none_or(|node| nodes_of(incident).contains(node))
            && self
                .before
                .as_ref()
                .is_none_or(|(at, id)| key < (*at, id.as_str()))
    }
}
