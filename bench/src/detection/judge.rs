//! Holds what a detector said of one trace against what was true. *(pure)*
//!
//! An incident is found when a finding of one of its classes, of at least its severity and about the right thing, comes
//! between its start and a minute after its end. What matches nothing is false; a record, or a consequence, is not judged.

use std::collections::BTreeSet;

use entrenar_aggregator::andon::Severity;

use super::finding::Finding;
use super::truth::Truth;

/// An incident can still be found for so long after its end.
const GRACE_S: f64 = 60.0;

/// What a finding is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It calls nobody.
    Quiet,
    /// It found an incident.
    Hit,
    /// More of an incident that was found, or less than it asks for.
    Repeat,
    /// Another page for the same incident.
    Duplicate,
    /// A side effect, said as a warning.
    Related,
    /// It may be said and need not be.
    Allowed,
    False,
}

/// A finding, judged.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    pub verdict: Verdict,
    /// The class that it is counted in: where it may mean several, the one that fits the truth.
    pub kind: &'static str,
}

/// What became of each incident that must be found: the place of the finding that found it.
pub type Found = Vec<(usize, Option<usize>)>;

struct State {
    /// Its place among the truths.
    truth: usize,
    hit: Option<usize>,
    pages: u32,
}

/// Judges the findings of one trace, in order of firing. The incidents come back by their place among the truths.
pub fn judge(findings: &[Finding], truths: &[Truth]) -> (Vec<Judged>, Found) {
    let required = truths.iter().enumerate().filter(|(_, t)| t.required);
    let mut states: Vec<State> = required
        .map(|(truth, _)| State {
            truth,
            hit: None,
            pages: 0,
        })
        .collect();
    let judged = (0..findings.len())
        .map(|place| judge_one(findings, place, truths, &mut states))
        .collect();
    let found = states.into_iter().map(|s| (s.truth, s.hit)).collect();
    (judged, found)
}

fn judge_one(findings: &[Finding], place: usize, truths: &[Truth], states: &mut [State]) -> Judged {
    let finding = &findings[place];
    let is_page = finding.severity == Severity::Critical;
    let as_kind = |verdict, kind| Judged { verdict, kind };
    let plain = |verdict| as_kind(verdict, finding.kinds[0]);
    if finding.severity == Severity::Info || finding.is_consequence {
        return plain(Verdict::Quiet);
    }
    // The incident not yet found first, then one of its own severity, then the one that began last.
    let right = states
        .iter_mut()
        .filter_map(|state| {
            let truth = &truths[state.truth];
            let kind = finding.kind_in(&truth.kinds)?;
            (is_within(finding, truth) && overlaps(finding, truth)).then_some((state, kind))
        })
        .min_by(|(a, _), (b, _)| {
            let key = |s: &State| {
                (
                    s.hit.is_some(),
                    truths[s.truth].severity != finding.severity,
                )
            };
            let since = |s: &State| finding.fired_at - truths[s.truth].start;
            key(a).cmp(&key(b)).then(since(a).total_cmp(&since(b)))
        });
    if let Some((state, kind)) = right {
        let is_first = state.hit.is_none() && truths[state.truth].severity <= finding.severity;
        if is_first {
            state.hit = Some(place);
        }
        state.pages += u32::from(is_page);
        let verdict = match (is_first, is_page && state.pages > 1) {
            (true, _) => Verdict::Hit,
            (false, true) => Verdict::Duplicate,
            (false, false) => Verdict::Repeat,
        };
        return as_kind(verdict, kind);
    }
    let side = states
        .iter_mut()
        .filter(|state| {
            let truth = &truths[state.truth];
            finding.kind_in(&truth.related).is_some()
                && is_within(finding, truth)
                && touches(finding, truth)
        })
        .min_by(|a, b| {
            let since = |s: &State| finding.fired_at - truths[s.truth].start;
            since(a).total_cmp(&since(b))
        });
    if let Some(state) = side {
        state.pages += u32::from(is_page);
        return plain(match (is_page, truths[state.truth].severity) {
            (true, Severity::Critical) => Verdict::Duplicate,
            (true, _) => Verdict::False,
            (false, _) => Verdict::Related,
        });
    }
    let is_allowed = truths.iter().filter(|truth| !truth.required).any(|truth| {
        let is_known =
            finding.kind_in(&truth.kinds).is_some() || finding.kind_in(&truth.related).is_some();
        is_known
            && is_within(finding, truth)
            && finding.severity <= truth.severity
            && touches(finding, truth)
    });
    plain(if is_allowed {
        Verdict::Allowed
    } else {
        Verdict::False
    })
}

impl Finding {
    /// The first of these classes that it may mean.
    fn kind_in(&self, kinds: &[String]) -> Option<&'static str> {
        let of = |kind: &String| self.kinds.iter().find(|own| *own == kind);
        kinds.iter().find_map(of).copied()
    }

    /// The GPUs and the nodes that its scope names.
    fn named(&self) -> (BTreeSet<(&str, u32)>, BTreeSet<&str>) {
        let scope = &self.scope;
        let mut gpus: BTreeSet<_> = scope
            .gpus
            .iter()
            .map(|place| (place.node.as_str(), place.gpu))
            .collect();
        let mut nodes: BTreeSet<_> = scope.nodes.iter().map(String::as_str).collect();
        match (&scope.node, scope.gpu) {
            (Some(node), Some(gpu)) => {
                gpus.insert((node, gpu));
            }
            (Some(node), None) => {
                nodes.insert(node);
            }
            (None, _) => {}
        }
        (gpus, nodes)
    }
}

fn is_within(finding: &Finding, truth: &Truth) -> bool {
    (truth.start..=truth.end + GRACE_S).contains(&finding.fired_at)
}

/// Whether a finding is about the incident: GPUs decide, else nodes, else the job; an empty scope is the fleet. At least
/// half of the nodes that it names must be the incident's: naming everything finds nothing.
fn overlaps(finding: &Finding, truth: &Truth) -> bool {
    let (gpus, nodes) = finding.named();
    if gpus.is_empty() && nodes.is_empty() {
        return if finding
            .scope
            .job
            .as_deref()
            .is_some_and(|job| !job.is_empty())
        {
            is_same_job(finding, truth)
        } else {
            truth.fleet
        };
    }
    let own_nodes: BTreeSet<_> = truth.nodes.iter().map(String::as_str).collect();
    let own_gpus: BTreeSet<_> = truth
        .gpus
        .iter()
        .filter_map(|place| Some((place.node.as_str(), place.gpu?)))
        .collect();
    let mut touched = own_nodes.clone();
    touched.extend(own_gpus.iter().map(|(node, _)| *node));
    let mut named = nodes.clone();
    named.extend(gpus.iter().map(|(node, _)| *node));
    let is_own =
        |node: &&&str| touched.contains(**node) || truth.affected_nodes.iter().any(|n| n == **node);
    if 2 * named.iter().filter(is_own).count() < named.len() {
        return false;
    }
    !gpus.is_disjoint(&own_gpus)
        || gpus.iter().any(|(node, _)| own_nodes.contains(node))
        || !nodes.is_disjoint(&touched)
}

fn is_same_job(finding: &Finding, truth: &Truth) -> bool {
    let named = finding.scope.job.as_ref().filter(|job| !job.is_empty());
    named.is_some_and(|job| truth.job.as_ref() == Some(job) || truth.jobs.contains(job))
}

/// Looser, for side effects: also the same job, or a node of the incident's jobs.
fn touches(finding: &Finding, truth: &Truth) -> bool {
    let (gpus, mut nodes) = finding.named();
    nodes.extend(gpus.iter().map(|(node, _)| *node));
    let is_named = |node: &String| nodes.contains(node.as_str());
    overlaps(finding, truth)
        || is_same_job(finding, truth)
        || truth.affected_nodes.iter().any(is_named)
}

/// Whether the first that a finding blames is to blame; `None`: it blames nobody.
pub fn blames_rightly(finding: &Finding, truth: &Truth) -> Option<bool> {
    let first = finding.culprits.first()?;
    let is_it = |c: &entrenar_aggregator::backtest::Culprit| {
        c.node == first.node && (c.gpu.is_none() || c.gpu == first.gpu)
    };
    Some(truth.culprits.iter().any(is_it))
}

#[cfg(test)]
mod tests;
