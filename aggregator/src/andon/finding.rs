//! Words and numbers for people: how findings are put together. *(pure)*

use entrenar::unit::Timestamp;

use super::rules::Rule;
use super::{Evidence, Finding, GpuAt};
use entrenar::report::Labels;

/// Most points of a series in an evidence.
pub(super) const MOST_POINTS: usize = 60;

/// A finding that a rule has made, to be filled with evidence.
pub(super) fn finding<R: Rule>(
    rule: &R,
    node_labels: &Labels,
    summary: String,
    action: impl Into<String>,
) -> Finding {
    let mut labels = node_labels.clone();
    labels.extend(rule.labels().clone());
    Finding {
        summary,
        action: action.into(),
        runbook_url: rule.runbook_url().map(str::to_owned),
        labels,
        ..Finding::default()
    }
}

impl Finding {
    pub(super) fn with(mut self, evidence: Evidence) -> Self {
        self.evidence.push(evidence);
        self
    }

    pub(super) fn with_some(mut self, evidence: Option<Evidence>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    /// Names what was not there, if it was not.
    pub(super) fn missing_if(mut self, missing: bool, what: &str) -> Self {
        if missing {
            self.missing.push(what.into());
        }
        self
    }
}

impl Evidence {
    pub(super) fn new(name: &str, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            threshold: None,
            series: None,
        }
    }

    pub(super) fn against(mut self, threshold: impl Into<String>) -> Self {
        self.threshold = Some(threshold.into());
        self
    }

    /// With its recent values; a series without any value is none.
    pub(super) fn over(mut self, series: Vec<Option<f64>>) -> Self {
        debug_assert!(series.len() <= MOST_POINTS);
        self.series = series.iter().any(Option::is_some).then_some(series);
        self
    }
}

/// `GPU 3 on n02`.
pub(super) fn gpu_on_node(gpu: &GpuAt) -> String {
    format!("GPU {} on {}", gpu.device, gpu.node)
}

/// `97.3 %`, from a share.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `74.5 GiB`.
pub(super) fn gibibytes(bytes: i64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

/// `45 s`, `12 min`, `3.5 h`.
pub(super) fn lasting(ms: i64) -> String {
    let seconds = ms as f64 / 1e3;
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

/// `23:59:07 UTC`.
pub(super) fn time_of_day(at: Timestamp) -> String {
    let text = at.rfc3339();
    format!("{} UTC", text.get(11..19).unwrap_or(&text))
}

/// `n01, n02, n03 and 5 more`.
pub(super) fn listed<T: ToString>(names: impl ExactSizeIterator<Item = T>) -> String {
    const SHOWN: usize = 4;
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<String> = names.take(SHOWN).map(|name| name.to_string()).collect();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(percent(0.9731), "97.3 %");
        assert_eq!(gibibytes(80 << 30), "80.0 GiB");
        assert_eq!(
            [45_000, 720_000, 12_600_000].map(lasting),
            ["45 s", "12 min", "3.5 h"]
        );
        assert_eq!(time_of_day(Timestamp(1_700_000_000_000)), "22:13:20 UTC");
        assert_eq!(listed(["a", "b"].iter()), "a, b");
        assert_eq!(listed([1, 2, 3, 4, 5, 6].iter()), "1, 2, 3, 4 and 2 more");
    }
}
