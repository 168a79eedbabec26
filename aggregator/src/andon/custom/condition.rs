//! What a rule of people looks at, and how a value stands against it. *(pure)*

use std::time::Duration;

use entrenar::andon::Verdict;
use entrenar::metric::{Metric, MetricId, Pace};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::marks::Marks;
use super::peers::Peers;
use super::text::{number, with_unit};
use crate::andon::finding::lasting;

/// How often slow metrics are read at the least.
const SLOW_EVERY: Duration = Duration::from_secs(10);

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub(in crate::andon) enum Condition {
    /// A level.
    Threshold { metric: &'static Metric },
    /// How fast a counter rises, a second.
    Rate {
        metric: &'static Metric,
        window: Duration,
    },
    /// Whether a metric is reported at all.
    Absent {
        metric: &'static Metric,
        on_node: bool,
    },
    /// One level by another, or one counter's rise by another's.
    Ratio {
        of: &'static Metric,
        to: &'static Metric,
        /// `Some`: of counters, over so long.
        window: Option<Duration>,
    },
    /// How far a level is from the median of its peers; `relative`: as a share of that median.
    Deviation {
        metric: &'static Metric,
        peers: Peers,
        relative: bool,
    },
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

/// What raises and what clears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Level {
    /// More than `raise`; fine at `clear` and less.
    Above { raise: f64, clear: f64 },
    /// Less than `raise`; fine at `clear` and more.
    Below { raise: f64, clear: f64 },
    /// Whatever it is.
    None,
}

/// What a condition remembers from sample to sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Remembered {
    Nothing,
    /// When the metric was last there.
    Seen(Timestamp),
    /// The latest value.
    Latest(Timestamp, f64),
    /// The latest values of two.
    Pair([Option<(Timestamp, i64)>; 2]),
    Rate(Box<Marks>),
    Rates(Box<[Marks; 2]>),
}

/// A value to be judged; where the level has no say, its verdict.
pub(super) struct Judged {
    pub(super) value: f64,
    pub(super) verdict: Option<Verdict>,
}

impl From<f64> for Judged {
    fn from(value: f64) -> Self {
        Self {
            value,
            verdict: None,
        }
    }
}

impl Level {
    /// How a value stands.
    pub(super) fn judge(self, value: f64) -> Verdict {
        let (unwelcome, fine) = match self {
            Self::Above { raise, clear } => (value > raise, value <= clear),
            Self::Below { raise, clear } => (value < raise, value >= clear),
            Self::None => (false, false),
        };
        match (unwelcome, fine) {
            (true, _) => Verdict::Unwelcome,
            (_, true) => Verdict::Fine,
            _ => Verdict::Between,
        }
    }

    /// `above 90 °C`.
    pub(super) fn words(self, condition: &Condition) -> String {
        match self {
            Self::Above { raise, .. } => format!("above {}", condition.words(Some(raise))),
            Self::Below { raise, .. } => format!("below {}", condition.words(Some(raise))),
            Self::None => String::new(),
        }
    }
}

/// Later than two and a half times the expected: it is missing.
fn is_late(ms: i64, spacing: Duration) -> bool {
    ms * 2 > spacing.as_millis() as i64 * 5
}

impl Remembered {
    /// The latest value, if it is not too old.
    pub(super) fn recent(&self, now: Timestamp, spacing: Duration) -> Option<f64> {
        match self {
            Self::Latest(at, value) if !is_late(now.0 - at.0, spacing) => Some(*value),
            _ => None,
        }
    }
}

impl Condition {
    /// All that makes it differ from another; metrics by their names.
    #[allow(clippy::type_complexity, reason = "only compared")]
    fn parts(&self) -> (&str, &str, &str, Option<Duration>, Option<(Peers, bool)>) {
        match *self {
            Self::Threshold { metric } => ("threshold", metric.name, "", None, None),
            Self::Rate { metric, window } => ("rate", metric.name, "", Some(window), None),
            Self::Absent { metric, .. } => ("absent", metric.name, "", None, None),
            Self::Ratio { of, to, window } => ("ratio", of.name, to.name, window, None),
            Self::Deviation {
                metric,
                peers,
                relative,
            } => ("deviation", metric.name, "", None, Some((peers, relative))),
        }
    }

    /// Whether it is about the node as a whole.
    pub(super) fn is_on_node(&self) -> bool {
        matches!(self, Self::Absent { on_node: true, .. })
    }

    /// The time between two values.
    pub(super) fn spacing(&self, interval: Duration) -> Duration {
        let of = |metric: &Metric| match metric.pace {
            Pace::Fast => interval,
            Pace::Slow => interval.max(SLOW_EVERY),
        };
        match self {
            Self::Threshold { metric }
            | Self::Rate { metric, .. }
            | Self::Deviation { metric, .. } => of(metric),
            Self::Ratio { of: a, to: b, .. } => of(a).max(of(b)),
            // It is looked at on every tick, whether there is something or not.
            Self::Absent { .. } => interval,
        }
    }

    /// Takes in a row; `None`: there is nothing to judge.
    pub(super) fn judge(
        &self,
        remembered: &mut Remembered,
        at: Timestamp,
        spacing: Duration,
        value: impl Fn(MetricId) -> Option<i64>,
        median: Option<f64>,
    ) -> Option<Judged> {
        match *self {
            Self::Threshold { metric } => Some(metric.to_display(value(metric.id)?).into()),
            Self::Rate { metric, window } => {
                let value = value(metric.id)?;
                if !matches!(remembered, Remembered::Rate(_)) {
                    *remembered = Remembered::Rate(Box::default());
                }
                let Remembered::Rate(marks) = remembered else {
                    return None;
                };
                let window_ms = window.as_millis() as i64;
                marks.push(at, value, window_ms);
                let rate = marks.per_second(window_ms)?;
                Some((rate / metric.scale as f64).into())
            }
            Self::Absent { metric, .. } => {
                Some(absence(remembered, metric, at, spacing, value(metric.id)))
            }
            Self::Ratio { of, to, window } => {
                let values = [value(of.id), value(to.id)];
                if values == [None, None] {
                    return None;
                }
                let [above, below] = match window {
                    Some(window) => rates(remembered, at, values, window)?,
                    None => levels(remembered, at, values, spacing)?,
                };
                let (above, below) = (above / of.scale as f64, below / to.scale as f64);
                (below != 0.0).then(|| (above / below).into())
            }
            Self::Deviation {
                metric, relative, ..
            } => {
                let value = metric.to_display(value(metric.id)?);
                *remembered = Remembered::Latest(at, value);
                let median = median?;
                if relative {
                    return (median != 0.0).then(|| ((value - median) / median).into());
                }
                Some((value - median).into())
            }
        }
    }

    /// What it looks at, for a list of evidence.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Threshold { metric } => metric.name.into(),
            Self::Rate { metric, .. } => format!("{} per second", metric.name),
            Self::Absent { metric, .. } => format!("{} absent for", metric.name),
            Self::Ratio { of, to, .. } => format!("{} / {}", of.name, to.name),
            Self::Deviation { metric, .. } => format!("{} against the median", metric.name),
        }
    }

    /// A value with its unit, for people.
    pub(super) fn words(&self, value: Option<f64>) -> String {
        let Some(value) = value else {
            return "unknown".into();
        };
        match self {
            Self::Rate { metric, .. } => format!("{}/s", with_unit(value, metric.unit)),
            Self::Absent { .. } => lasting((value * 1e3) as i64),
            Self::Ratio { .. } => number(value),
            Self::Deviation { relative: true, .. } => format!("{} %", number(value * 100.0)),
            Self::Threshold { metric } | Self::Deviation { metric, .. } => {
                with_unit(value, metric.unit)
            }
        }
    }
}

/// A metric that was not reported for longer than it should take is absent. Its value: for how many seconds.
fn absence(
    remembered: &mut Remembered,
    metric: &Metric,
    at: Timestamp,
    interval: Duration,
    value: Option<i64>,
) -> Judged {
    let seen = match remembered {
        Remembered::Seen(seen) if value.is_none() => *seen,
        _ => {
            *remembered = Remembered::Seen(at);
            at
        }
    };
    let expected = match metric.pace {
        Pace::Fast => interval,
        Pace::Slow => interval.max(SLOW_EVERY),
    };
    let verdict = match value {
        Some(_) => Verdict::Fine,
        None if is_late(at.0 - seen.0, expected) => Verdict::Unwelcome,
        None => Verdict::Between,
    };
    Judged {
        value: at.since(seen).as_secs_f64(),
        verdict: Some(verdict),
    }
}

/// The latest levels of two metrics, if both are of about now.
fn levels(
    remembered: &mut Remembered,
    at: Timestamp,
    values: [Option<i64>; 2],
    spacing: Duration,
) -> Option<[f64; 2]> {
    let mut pair = match remembered {
        Remembered::Pair(pair) => *pair,
        _ => [None; 2],
    };
    for (known, value) in pair.iter_mut().zip(values) {
        *known = value.map(|value| (at, value)).or(*known);
        *known = known.filter(|(then, _)| !is_late(at.0 - then.0, spacing));
    }
    *remembered = Remembered::Pair(pair);
    let [of, to] = pair;
    Some([of?.1 as f64, to?.1 as f64])
}

/// The rates of two counters.
fn rates(
    remembered: &mut Remembered,
    at: Timestamp,
    values: [Option<i64>; 2],
    window: Duration,
) -> Option<[f64; 2]> {
    if !matches!(remembered, Remembered::Rates(_)) {
        *remembered = Remembered::Rates(Box::default());
    }
    let Remembered::Rates(marks) = remembered else {
        return None;
    };
    let window_ms = window.as_millis() as i64;
    for (marks, value) in marks.iter_mut().zip(values) {
        if let Some(value) = value {
            marks.push(at, value, window_ms);
        }
    }
    let [of, to] = &**marks;
    Some([of.per_second(window_ms)?, to.per_second(window_ms)?])
}
