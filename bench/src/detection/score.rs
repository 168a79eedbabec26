//! The figures of a detector over a set of traces. *(pure)*

use std::collections::BTreeMap;

use entrenar_aggregator::andon::Severity;
use serde::{Deserialize, Serialize};

use super::finding::Finding;
use super::interval::Wilson;
use super::judge::{Verdict, blames_rightly, judge};
use super::truth::Truth;

/// What was counted of one class.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Class {
    pub incidents: u32,
    pub found: u32,
    pub in_time: u32,
    /// From the start to the finding, in seconds.
    pub delays_s: Vec<f64>,
    pub hits: u32,
    pub false_findings: u32,
    pub false_pages: u32,
    /// Incidents found that somebody is to blame for, and those in which the first named was.
    pub blamed: u32,
    pub blamed_rightly: u32,
}

/// What was counted over a set of traces.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Score {
    pub traces: u32,
    pub gpu_days: f64,
    pub pages: u32,
    pub page_hits: u32,
    pub false_pages: u32,
    pub warnings: u32,
    pub false_warnings: u32,
    pub duplicates: u32,
    pub classes: BTreeMap<String, Class>,
    /// What was false: class, severity, when, and the words.
    #[serde(skip)]
    pub false_findings: Vec<FalseFinding>,
}

/// A finding that nothing true explains.
#[derive(Clone, Debug)]
pub struct FalseFinding {
    pub kind: &'static str,
    pub severity: Severity,
    pub fired_at: f64,
    pub summary: String,
}

impl Score {
    /// Counts one trace. The findings are in order of firing.
    pub fn add(&mut self, gpu_days: f64, findings: &[Finding], truths: &[Truth]) {
        self.traces += 1;
        self.gpu_days += gpu_days;
        let (judged, found) = judge(findings, truths);
        for (finding, judged) in findings.iter().zip(judged) {
            self.add_finding(finding, judged.verdict, judged.kind);
        }
        for (truth, hit) in found {
            self.add_truth(&truths[truth], hit.map(|place| &findings[place]));
        }
    }

    fn add_finding(&mut self, finding: &Finding, verdict: Verdict, kind: &'static str) {
        if verdict == Verdict::Quiet {
            return;
        }
        let is_page = finding.severity == Severity::Critical;
        self.pages += u32::from(is_page);
        self.warnings += u32::from(!is_page);
        match verdict {
            Verdict::Hit => {
                self.page_hits += u32::from(is_page);
                self.class(kind).hits += 1;
            }
            // The first page of an incident that a warning had found before.
            Verdict::Repeat => self.page_hits += u32::from(is_page),
            Verdict::Duplicate => self.duplicates += 1,
            Verdict::False => {
                self.false_pages += u32::from(is_page);
                self.false_warnings += u32::from(!is_page);
                let class = self.class(kind);
                class.false_findings += 1;
                class.false_pages += u32::from(is_page);
                self.false_findings.push(FalseFinding {
                    kind,
                    severity: finding.severity,
                    fired_at: finding.fired_at,
                    summary: finding.summary.clone(),
                });
            }
            Verdict::Quiet | Verdict::Related | Verdict::Allowed => {}
        }
    }

    fn add_truth(&mut self, truth: &Truth, hit: Option<&Finding>) {
        let class = self.class(&truth.kinds[0]);
        class.incidents += 1;
        let Some(hit) = hit else {
            return;
        };
        let delay_s = hit.fired_at - truth.start;
        class.found += 1;
        class.in_time += u32::from(delay_s <= truth.deadline_s);
        class.delays_s.push(delay_s);
        if !truth.culprits.is_empty() {
            class.blamed += 1;
            class.blamed_rightly += u32::from(blames_rightly(hit, truth) == Some(true));
        }
    }

    fn class(&mut self, kind: &str) -> &mut Class {
        self.classes.entry(kind.to_owned()).or_default()
    }

    /// All classes as one.
    pub fn total(&self) -> Class {
        self.sum(|_| true)
    }

    /// Some classes as one.
    pub fn sum(&self, which: impl Fn(&str) -> bool) -> Class {
        let mut total = Class::default();
        for (_, class) in self.classes.iter().filter(|(kind, _)| which(kind)) {
            total.incidents += class.incidents;
            total.found += class.found;
            total.in_time += class.in_time;
            total.delays_s.extend(&class.delays_s);
            total.hits += class.hits;
            total.false_findings += class.false_findings;
            total.false_pages += class.false_pages;
            total.blamed += class.blamed;
            total.blamed_rightly += class.blamed_rightly;
        }
        total
    }

    /// Mean F1 over the classes that have incidents.
    pub fn macro_f1(&self) -> Option<f64> {
        let f1s: Vec<f64> = self.classes.values().filter_map(Class::f1).collect();
        (!f1s.is_empty()).then(|| f1s.iter().sum::<f64>() / f1s.len() as f64)
    }

    /// Pages that were right, of those that were right or false.
    pub fn page_precision(&self) -> Wilson {
        Wilson::of(self.page_hits, self.page_hits + self.false_pages)
    }

    /// So many in 1000 GPU-days.
    pub fn per_1000_days(&self, count: u32) -> f64 {
        1000.0 * f64::from(count) / self.gpu_days
    }
}

impl Class {
    pub fn recall(&self) -> Wilson {
        Wilson::of(self.found, self.incidents)
    }

    pub fn precision(&self) -> Wilson {
        Wilson::of(self.hits, self.hits + self.false_findings)
    }

    /// Over precision and the recall in time; `None` without incidents.
    pub fn f1(&self) -> Option<f64> {
        let recall = Wilson::of(self.in_time, self.incidents).share?;
        let precision = self.precision().share.unwrap_or(0.0);
        let sum = precision + recall;
        Some(if sum > 0.0 {
            2.0 * precision * recall / sum
        } else {
            0.0
        })
    }

    /// The delay that this share of all found incidents did not exceed.
    pub fn delay_s(&self, share: f64) -> Option<f64> {
        let mut sorted = self.delays_s.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(place.max(1) - 1).copied()
    }
}
