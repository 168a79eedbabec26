//! Incidents and transitions for the tests of this crate.

use entrenar::unit::Timestamp;

use crate::andon::{Change, Evidence, Finding, GpuAt, Kind, Scope, Severity, Transition};
use crate::incident::{Flags, Incident, State};

/// GPU 3 of a node.
pub(crate) fn gpu_at(node: &str) -> GpuAt {
    GpuAt {
        node: node.into(),
        device: 3,
        uuid: format!("GPU-{node}-3").into(),
    }
}

/// A transition of the cord `kind` on GPU 3 of `node`.
pub(crate) fn transition(
    node: &str,
    kind: Kind,
    severity: Severity,
    change: Change,
    at: Timestamp,
) -> Transition {
    Transition {
        rule: kind.name().into(),
        kind,
        scope: Scope::Gpu { gpu: gpu_at(node) },
        severity,
        change,
        at,
        started_at: at,
        finding: Finding {
            summary: format!("GPU 3 of {node} at 94 °C for 120 s"),
            action: "Check the fans, then drain the node.".into(),
            runbook_url: Some("https://wiki.example/thermal".into()),
            evidence: vec![Evidence {
                name: "temperature_celsius".into(),
                value: "94 °C".into(),
                threshold: Some("90 °C".into()),
                series: Some(vec![Some(70.0), Some(85.0), None, Some(94.0)]),
            }],
            missing: vec!["memory_temperature_celsius".into()],
            ..Finding::default()
        },
        consequence_of: None,
        shadow: false,
    }
}

/// An open incident on GPU 3 of `node`.
pub(crate) fn incident(node: &str, kind: Kind, severity: Severity) -> Incident {
    let at = Timestamp::from_secs(1_700_000_000);
    let raised = transition(node, kind, severity, Change::Raised, at);
    let finding = raised.finding;
    Incident {
        id: super::id::hash(&[node, kind.name()], 16),
        rule: raised.rule,
        kind,
        severity,
        state: State::Firing,
        flags: Flags::default(),
        scope: raised.scope,
        labels: finding.labels,
        summary: finding.summary,
        action: finding.action,
        runbook_url: finding.runbook_url,
        started_at: at,
        fired_at: at,
        acknowledged_at: None,
        acknowledged_by: None,
        resolved_at: None,
        resolution: None,
        close_reason: None,
        culprits: Vec::new(),
        consequence_of: None,
        evidence: finding.evidence,
        missing: finding.missing,
        job: Some("train-1".into()),
        notified: Vec::new(),
        ordinal: 1,
        last_transition_at: at,
    }
}
