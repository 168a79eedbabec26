//! What one number says of many GPUs. *(pure)*

/// How the values of several GPUs become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregate {
    Mean,
    Min,
    Max,
    Sum,
    Count,
    /// Between 0 and 1; between two values in proportion, as in Prometheus.
    Quantile(f64),
}

impl Aggregate {
    /// By its name; a quantile needs to know which.
    pub fn parse(name: Option<&str>, quantile: Option<f64>) -> Result<Self, String> {
        if let Some(share) = quantile {
            return match name {
                None | Some("quantile") if (0.0..=1.0).contains(&share) => {
                    Ok(Self::Quantile(share))
                }
                None | Some("quantile") => Err("quantile is a number from 0 to 1".into()),
                Some(other) => Err(format!(
                    "quantile= goes with agg=quantile, not with agg={other}"
                )),
            };
        }
        match name.unwrap_or("mean") {
            // What Prometheus calls it.
            "mean" | "avg" => Ok(Self::Mean),
            "min" => Ok(Self::Min),
            "max" => Ok(Self::Max),
            "sum" => Ok(Self::Sum),
            "count" => Ok(Self::Count),
            "quantile" => Err("agg=quantile needs quantile=, a number from 0 to 1".into()),
            other => Err(format!(
                "agg={other}: agg is one of mean, min, max, sum, count, quantile"
            )),
        }
    }

    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Quantile(_) => "quantile",
        }
    }
}

/// Values of several GPUs on their way to one.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    n: u64,
    sum: f64,
    min: f64,
    max: f64,
    /// Only for a quantile.
    values: Vec<f64>,
}

impl Tally {
    /// One more value.
    pub fn take(&mut self, value: f64, aggregate: Aggregate) {
        let is_first = self.n == 0;
        self.n += 1;
        self.sum += value;
        self.min = if is_first { value } else { self.min.min(value) };
        self.max = if is_first { value } else { self.max.max(value) };
        if let Aggregate::Quantile(_) = aggregate {
            self.values.push(value);
        }
    }

    /// How many values it has.
    pub const fn n(&self) -> u64 {
        self.n
    }

    /// What they come to; `None` without any: nobody said anything.
    pub fn result(&mut self, aggregate: Aggregate) -> Option<f64> {
        if self.n == 0 {
            return None;
        }
        Some(match aggregate {
            Aggregate::Mean => self.sum / self.n as f64,
            Aggregate::Min => self.min,
            Aggregate::Max => self.max,
            Aggregate::Sum => self.sum,
            Aggregate::Count => self.n as f64,
            Aggregate::Quantile(share) => quantile(&mut self.values, share),
        })
    }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let (below, above) = (
        values[place.floor() as usize],
        values[place.ceil() as usize],
    );
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, quantile: Option<f64>, values: &[f64]) -> Option<f64> {
        let aggregate = Aggregate::parse(Some(name), quantile).unwrap();
        let mut tally = Tally::default();
        for value in values {
            tally.take(*value, aggregate);
        }
        tally.result(aggregate)
    }

    #[test]
    fn many_values_become_one_and_none_stay_unknown() {
        let values = [4.0, -1.0, 3.0, 2.0];
        for (name, expected) in [
            ("mean", 2.0),
            ("min", -1.0),
            ("max", 4.0),
            ("sum", 8.0),
            ("count", 4.0),
        ] {
            assert_eq!(check(name, None, &values), Some(expected), "{name}");
            assert_eq!(check(name, None, &[]), None, "{name}");
        }
        assert_eq!(check("quantile", Some(0.0), &values), Some(-1.0));
        assert_eq!(check("quantile", Some(0.5), &values), Some(2.5));
        assert_eq!(check("quantile", Some(1.0), &values), Some(4.0));
        assert_eq!(check("quantile", Some(0.9), &[7.0]), Some(7.0));
        assert_eq!(check("quantile", Some(0.9), &[]), None);
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        let told = |name, quantile| Aggregate::parse(name, quantile).unwrap_err();
        assert!(told(Some("median"), None).contains("mean, min, max"));
        assert!(told(Some("quantile"), None).contains("quantile="));
        assert!(told(Some("max"), Some(0.5)).contains("agg=quantile"));
        assert!(told(None, Some(95.0)).contains("0 to 1"));
        assert_eq!(
            Aggregate::parse(None, Some(0.95)),
            Ok(Aggregate::Quantile(0.95))
        );
        assert_eq!(Aggregate::parse(None, None), Ok(Aggregate::Mean));
    }
}
