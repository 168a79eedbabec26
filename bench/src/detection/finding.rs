//! What a detector says, ours or a baseline: the one form that the judge knows. *(pure)*

use entrenar_aggregator::andon::Severity;
use entrenar_aggregator::backtest::{Culprit, Incident, ScopeView};

/// One word of a detector.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Every class that it may mean; ours always means one.
    pub kinds: Vec<&'static str>,
    pub severity: Severity,
    pub scope: ScopeView,
    /// Unix seconds.
    pub fired_at: f64,
    /// Most likely first.
    pub culprits: Vec<Culprit>,
    /// It is explained by another finding, and calls nobody.
    pub is_consequence: bool,
    pub summary: String,
}

impl From<Incident> for Finding {
    fn from(incident: Incident) -> Self {
        Self {
            kinds: vec![incident.kind.name()],
            severity: incident.severity,
            scope: incident.scope,
            fired_at: incident.fired_at,
            culprits: incident.culprits,
            is_consequence: incident.consequence_of.is_some(),
            summary: incident.summary,
        }
    }
}
