//! Transitions become incidents as people would have been told of them. *(pure)*
//!
//! A report is a call to a person, and so a rise from warning to critical is a second report of the same incident, and
//! so is a consequence whose cause has gone while it stays. What turns out to be a consequence within two minutes of
//! its report is folded into its cause.

use std::collections::BTreeMap;
use std::time::Duration;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;

use super::incident::{Culprit, Incident, ScopeView};
use crate::andon::{Change, CordKey, Kind, Scope, Severity, Transition};

/// A report that turns out to be a consequence within this time is folded.
const FOLD_WITHIN: Duration = Duration::from_mins(2);

/// All reports of a trace, from what an engine says: whoever drives an engine of their own hands it over here.
#[derive(Debug, Default)]
pub struct Reports {
    made: Vec<Report>,
    /// The incidents of cords that are up, and of those that went down: causes are looked up here.
    cords: BTreeMap<CordKey, Story>,
    counts: BTreeMap<Kind, u32>,
}

#[derive(Debug)]
struct Report {
    fired_at: Timestamp,
    incident: Incident,
}

/// One raised cord.
#[derive(Debug)]
struct Story {
    id: String,
    is_up: bool,
    /// Its reports, by their place.
    reports: Vec<usize>,
    /// The worst of which people were told, not counting what was folded.
    told: Option<Severity>,
}

impl Reports {
    /// Takes in what the engine says at `now`. `holds`: how many GPUs a job of the trace holds; `None`: the trace does
    /// not know the job.
    pub fn take(
        &mut self,
        now: Timestamp,
        said: Transition,
        holds: impl Fn(&str) -> Option<usize>,
    ) {
        // Of a rule that is on trial people are not told.
        if said.shadow {
            return;
        }
        let key = said.cord();
        if let Change::Cleared { .. } = said.change {
            self.clear(&key, now);
            return;
        }
        let is_new = self.cords.get(&key).is_none_or(|story| !story.is_up);
        if is_new {
            self.begin(&key, said.kind);
        }
        let cause = said.consequence_of.as_ref().and_then(|cause| {
            let story = self.cords.get(cause)?;
            Some(story.id.clone())
        });
        let Some(story) = self.cords.get_mut(&key) else {
            return;
        };
        if let Some(cause) = &cause {
            Self::fold(&mut self.made, story, now, said.severity, cause);
        }
        let is_worse = story.told.is_none_or(|told| told < said.severity);
        if is_new || (cause.is_none() && is_worse) {
            self.report(&key, now, said, cause, holds);
        }
    }

    fn begin(&mut self, key: &CordKey, kind: Kind) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let story = Story {
            id: format!("{}-{count}", kind.name()),
            is_up: true,
            reports: Vec::new(),
            told: None,
        };
        self.cords.insert(key.clone(), story);
    }

    fn clear(&mut self, key: &CordKey, now: Timestamp) {
        let Some(story) = self.cords.get_mut(key) else {
            return;
        };
        story.is_up = false;
        for report in &story.reports {
            self.made[*report].incident.resolved_at = Some(now.as_secs_f64());
        }
    }

    /// A cause was found: the reports that are young enough are its consequences.
    fn fold(
        made: &mut [Report],
        story: &mut Story,
        now: Timestamp,
        severity: Severity,
        cause: &str,
    ) {
        for report in &story.reports {
            let report = &mut made[*report];
            let is_young = now.since(report.fired_at) <= FOLD_WITHIN;
            if report.incident.consequence_of.is_some() {
                report.incident.severity = report.incident.severity.max(severity);
            } else if is_young {
                report.incident.consequence_of = Some(cause.to_owned());
            }
        }
        let stands = story
            .reports
            .iter()
            .map(|report| &made[*report].incident)
            .filter(|incident| incident.consequence_of.is_none());
        story.told = stands.map(|incident| incident.severity).max();
    }

    fn report(
        &mut self,
        key: &CordKey,
        now: Timestamp,
        said: Transition,
        cause: Option<String>,
        holds: impl Fn(&str) -> Option<usize>,
    ) {
        let Some(story) = self.cords.get_mut(key) else {
            return;
        };
        let again = story.reports.len();
        let id = match again {
            0 => story.id.clone(),
            _ => format!("{}.{}", story.id, again + 1),
        };
        if cause.is_none() {
            story.told = Some(said.severity);
        }
        // Two words at one instant are one report.
        let same = story.reports.last().copied().filter(|last| {
            let last = &self.made[*last];
            last.fired_at == now && last.incident.consequence_of == cause
        });
        let incident = Incident {
            id,
            kind: said.kind,
            severity: said.severity,
            scope: scope_view(&said, holds),
            started_at: said.started_at.min(now).as_secs_f64(),
            fired_at: now.as_secs_f64(),
            resolved_at: None,
            culprits: culprits(&said),
            consequence_of: cause,
            summary: said.finding.summary,
        };
        if let Some(same) = same {
            let id = std::mem::take(&mut self.made[same].incident.id);
            self.made[same].incident = Incident { id, ..incident };
            return;
        }
        story.reports.push(self.made.len());
        self.made.push(Report {
            fired_at: now,
            incident,
        });
    }

    /// In order of firing.
    pub fn into_incidents(mut self) -> Vec<Incident> {
        self.made.sort_by_key(|report| report.fired_at);
        self.made
            .into_iter()
            .map(|report| report.incident)
            .collect()
    }
}

/// The narrowest thing that a transition is about. A job that the trace knows is named by its id alone, unless only
/// some of its GPUs are meant; of one that was inferred the GPUs are named, for its name means nothing to others.
fn scope_view(said: &Transition, holds: impl Fn(&str) -> Option<usize>) -> ScopeView {
    let job = said.finding.job.clone();
    match &said.scope {
        Scope::Fleet => ScopeView::default(),
        Scope::Node { node } => ScopeView {
            node: Some(node.to_string()),
            job,
            ..ScopeView::default()
        },
        Scope::Gpu { gpu } => ScopeView {
            node: Some(gpu.node.to_string()),
            gpu: Some(gpu.device),
            job,
            ..ScopeView::default()
        },
        Scope::Nodes { nodes, .. } => ScopeView {
            nodes: nodes.iter().map(ToString::to_string).collect(),
            ..ScopeView::default()
        },
        Scope::Job { job, gpus } => {
            let is_all = holds(job).is_some_and(|held| held <= gpus.len());
            let named = if is_all { &[][..] } else { gpus };
            ScopeView {
                job: Some(job.clone()),
                gpus: named.iter().map(Into::into).collect(),
                ..ScopeView::default()
            }
        }
    }
}

/// Whom the engine blames; where it names nobody and the trouble is a device's or a node's, that.
fn culprits(said: &Transition) -> Vec<Culprit> {
    let whole = |node: &NodeId| Culprit {
        node: node.to_string(),
        gpu: None,
    };
    let blamed = &said.finding.culprits;
    match &said.scope {
        _ if !blamed.is_empty() => blamed.iter().map(Culprit::from).collect(),
        Scope::Node { node } => vec![whole(node)],
        Scope::Nodes { nodes, .. } => nodes.iter().map(whole).collect(),
        Scope::Gpu { gpu } => vec![gpu.into()],
        Scope::Job { .. } | Scope::Fleet => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::andon::{Finding, Resolution};

    fn said(kind: Kind, severity: Severity, cause: Option<Kind>) -> Transition {
        Transition {
            rule: kind.name().into(),
            kind,
            scope: Scope::Fleet,
            severity,
            change: Change::Raised,
            at: Timestamp(0),
            started_at: Timestamp(0),
            finding: Finding::default(),
            consequence_of: cause.map(|kind| CordKey {
                rule: kind.name().into(),
                scope: "fleet".into(),
            }),
            shadow: false,
        }
    }

    /// Tells transitions at their seconds; what was reported, as lines.
    fn told(steps: Vec<(i64, Transition)>) -> Vec<String> {
        let mut reports = Reports::default();
        for (second, transition) in steps {
            reports.take(Timestamp::from_secs(second), transition, |_| None);
        }
        let line = |incident: Incident| {
            let cause = incident
                .consequence_of
                .map_or(String::new(), |id| format!(" <{id}"));
            let end = incident
                .resolved_at
                .map_or(String::new(), |at| format!(" until {at}"));
            format!(
                "{} {} {}{cause}{end}",
                incident.id,
                incident.severity.name(),
                incident.fired_at
            )
        };
        reports.into_incidents().into_iter().map(line).collect()
    }

    fn cleared(kind: Kind) -> Transition {
        Transition {
            change: Change::Cleared {
                why: Resolution::Recovered,
            },
            ..said(kind, Severity::Warning, None)
        }
    }

    use Kind::{GpuIdle, NodeLost};
    use Severity::{Critical, Info, Warning};

    #[test]
    fn a_rise_to_critical_is_a_second_report_and_a_word_more_is_none() {
        let steps = vec![
            (10, said(GpuIdle, Warning, None)),
            (20, said(GpuIdle, Warning, None)),
            (30, said(GpuIdle, Critical, None)),
            (40, said(GpuIdle, Critical, None)),
            (50, cleared(GpuIdle)),
            (60, said(GpuIdle, Info, None)),
        ];
        let expected = [
            "GpuIdle-1 warning 10 until 50",
            "GpuIdle-1.2 critical 30 until 50",
            "GpuIdle-2 info 60",
        ];
        assert_eq!(told(steps), expected);
    }

    #[test]
    fn a_rise_at_the_same_instant_is_one_report() {
        let steps = vec![
            (10, said(GpuIdle, Warning, None)),
            (10, said(GpuIdle, Critical, None)),
        ];
        assert_eq!(told(steps), ["GpuIdle-1 critical 10"]);
    }

    #[test]
    fn a_cause_that_is_found_soon_folds_the_report_and_a_late_one_does_not() {
        let fold = |after: i64| {
            told(vec![
                (10, said(GpuIdle, Critical, None)),
                (10 + after, said(NodeLost, Critical, None)),
                (10 + after, said(GpuIdle, Critical, Some(NodeLost))),
            ])
        };
        let late = ["GpuIdle-1 critical 10", "NodeLost-1 critical 131"];
        assert_eq!(fold(120)[0], "GpuIdle-1 critical 10 <NodeLost-1");
        assert_eq!(fold(121), late);
    }

    #[test]
    fn a_consequence_whose_cause_is_gone_is_told_once_it_stands_alone() {
        let steps = vec![
            (10, said(NodeLost, Critical, None)),
            (12, said(GpuIdle, Warning, Some(NodeLost))),
            (14, said(GpuIdle, Critical, Some(NodeLost))),
            (50, cleared(NodeLost)),
            (200, said(GpuIdle, Critical, None)),
            (210, said(GpuIdle, Critical, None)),
        ];
        let expected = [
            "NodeLost-1 critical 10 until 50",
            "GpuIdle-1 critical 12 <NodeLost-1",
            "GpuIdle-1.2 critical 200",
        ];
        assert_eq!(told(steps), expected);
    }
}
