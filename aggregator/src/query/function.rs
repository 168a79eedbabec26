//! What one number says of a step. *(pure)*

use entrenar::metric::{Kind, Metric};

use super::bucket::gain;
use super::fold::Closed;

/// A function of one series over one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Mean,
    Min,
    Max,
    Last,
    Sum,
    Count,
    /// What a counter gained, a second.
    Rate,
    /// What a counter gained.
    Increase,
}

/// What makes sense of a level, the usual one first.
const OF_GAUGES: &[Function] = &[
    Function::Mean,
    Function::Min,
    Function::Max,
    Function::Last,
    Function::Sum,
    Function::Count,
];

/// What makes sense of a running total, the usual one first.
const OF_COUNTERS: &[Function] = &[
    Function::Rate,
    Function::Increase,
    Function::Last,
    Function::Count,
];

/// A function that is none, or none of this metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fn={asked}: {metric} is a {kind}: fn is one of {known}")]
pub struct NoFunction {
    asked: String,
    metric: &'static str,
    kind: &'static str,
    known: String,
}

impl Function {
    /// By its name.
    pub fn parse(name: &str, metric: &Metric) -> Result<Self, NoFunction> {
        let known = Self::of(metric);
        // What Prometheus calls it.
        let name = if name == "avg" { "mean" } else { name };
        let found = known.iter().find(|function| function.name() == name);
        found.copied().ok_or_else(|| NoFunction {
            asked: name.to_owned(),
            metric: metric.name,
            kind: match metric.kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
            },
            known: known
                .iter()
                .map(|f| f.name())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Of a step, where nothing is asked for: a gauge's mean, a counter's rate.
    pub fn usual(metric: &Metric) -> Self {
        Self::of(metric)[0]
    }

    fn of(metric: &Metric) -> &'static [Self] {
        match metric.kind {
            Kind::Gauge => OF_GAUGES,
            Kind::Counter => OF_COUNTERS,
        }
    }

    /// Its name in questions and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Last => "last",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Rate => "rate",
            Self::Increase => "increase",
        }
    }

    /// The unit of what it gives.
    pub fn unit(self, metric: &Metric) -> String {
        match self {
            Self::Rate => format!("{}_per_second", metric.unit),
            Self::Count => "samples".to_owned(),
            _ => metric.unit.to_owned(),
        }
    }

    /// Whether it must know what was before a step.
    pub const fn looks_back(self) -> bool {
        matches!(self, Self::Rate | Self::Increase)
    }

    /// Its value in the unit that people see; `None` where a counter was read once, which says nothing of its gain.
    pub fn value(self, metric: &Metric, step: &Closed) -> Option<f64> {
        let shown = |whole: i128| whole as f64 / metric.scale as f64;
        let bucket = &step.bucket;
        Some(match self {
            Self::Mean => shown(bucket.sum) / bucket.count as f64,
            Self::Min => metric.to_display(bucket.min),
            Self::Max => metric.to_display(bucket.max),
            Self::Last => metric.to_display(bucket.last.1),
            Self::Sum => shown(bucket.sum),
            Self::Count => bucket.count as f64,
            Self::Increase => shown(gained(step)?.0),
            Self::Rate => {
                let (increase, ms) = gained(step)?;
                // Two samples are never at the same time.
                shown(increase) * 1e3 / ms as f64
            }
        })
    }
}

/// What a counter gained in a step, and within how many milliseconds. From the last sample before the step on: what was
/// gained between two steps, or while nobody looked, belongs to the step in which it is seen, so that all steps together
/// hold all of it; and a rate is over the time in which it was gained.
fn gained(step: &Closed) -> Option<(i128, i64)> {
    let bucket = &step.bucket;
    let (since, edge) = match step.before {
        Some((at, value)) => (at, gain(value, bucket.first.1)),
        None => (bucket.first.0, 0),
    };
    let ms = bucket.last.0.0 - since.0;
    (ms > 0).then_some((bucket.increase + edge, ms))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use entrenar::metric::by_name;
    use entrenar::unit::Timestamp;

    use super::*;
    use crate::query::fold::Fold;
    use crate::query::step::Steps;

    /// One function over 10 s steps of samples at whole seconds, in the metric's own unit.
    fn check(metric: &str, function: &str, points: &[(i64, i64)]) -> String {
        let metric = by_name(metric).unwrap();
        let function = Function::parse(function, metric).unwrap();
        let at = Timestamp::from_secs;
        let steps = Steps::covering(at(0), at(29), Duration::from_secs(10));
        let (mut fold, mut values) = (Fold::new(steps), vec![None; steps.len()]);
        let mut over = |step: &Closed| values[step.place] = function.value(metric, step);
        for (secs, value) in points {
            fold.points(&[(at(*secs), *value)], &mut over);
        }
        fold.finish(&mut over);
        let shown = |value: &Option<f64>| value.map_or("-".into(), |v| v.to_string());
        values.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_empty_step_is_unknown_and_not_zero() {
        let points = [(0, 10), (9, 20), (20, 40)];
        let temperature = |function| check("temperature_celsius", function, &points);
        assert_eq!(temperature("mean"), "15 - 40");
        assert_eq!(temperature("avg"), "15 - 40");
        assert_eq!(temperature("min"), "10 - 40");
        assert_eq!(temperature("max"), "20 - 40");
        assert_eq!(temperature("last"), "20 - 40");
        assert_eq!(temperature("sum"), "30 - 40");
        assert_eq!(temperature("count"), "2 - 1");
    }

    #[test]
    fn a_rate_goes_on_across_the_edge_of_a_step_and_across_a_reset() {
        let bytes =
            |function, points: &[(i64, i64)]| check("pcie_tx_bytes_total", function, points);
        // Ten a second, steadily: the same whether or not a sample lies on an edge.
        let steady: Vec<_> = (-3..30).map(|s| (s, 1000 + 10 * s)).collect();
        assert_eq!(bytes("rate", &steady), "10 10 10");
        assert_eq!(bytes("increase", &steady), "100 100 100");
        let reset = [(5, 1000), (9, 1040), (15, 100), (25, 200)];
        assert_eq!(bytes("increase", &reset), "40 100 100");
        // The first step has no sample before it: from its first sample on.
        assert_eq!(bytes("rate", &reset), format!("10 {} 10", 100.0 / 6.0));
    }

    #[test]
    fn what_was_gained_while_nobody_looked_is_spread_over_that_time() {
        let points = [(0, 0), (2, 20), (22, 220)];
        assert_eq!(
            check("pcie_tx_bytes_total", "increase", &points),
            "20 - 200"
        );
        assert_eq!(check("pcie_tx_bytes_total", "rate", &points), "10 - 10");
        assert_eq!(check("pcie_tx_bytes_total", "rate", &[(3, 5)]), "- - -");
        assert_eq!(check("pcie_tx_bytes_total", "last", &[(3, 5)]), "5 - -");
    }

    #[test]
    fn scaled_metrics_are_shown_in_their_unit() {
        let joules = [(0, 0), (10, 5_000_000), (20, 10_000_000)];
        assert_eq!(check("energy_joules_total", "rate", &joules), "- 500 500");
        assert_eq!(
            check("power_watts", "mean", &[(0, 1500), (1, 2500)]),
            "2 - -"
        );
    }

    #[test]
    fn a_function_that_makes_no_sense_names_those_that_do() {
        let told = |metric, function| {
            let metric = by_name(metric).unwrap();
            Function::parse(function, metric).unwrap_err().to_string()
        };
        assert_eq!(
            told("power_watts", "rate"),
            "fn=rate: power_watts is a gauge: fn is one of mean, min, max, last, sum, count"
        );
        assert_eq!(
            told("energy_joules_total", "median"),
            "fn=median: energy_joules_total is a counter: fn is one of rate, increase, last, count"
        );
        let energy = by_name("energy_joules_total").unwrap();
        assert_eq!(Function::usual(energy).unit(energy), "joules_per_second");
    }
}
