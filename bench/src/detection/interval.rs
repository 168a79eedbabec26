//! Intervals of 95 %: Wilson's for shares, the exact one for counts of rare events. *(pure)*

/// Of the normal distribution, both sides.
const Z: f64 = 1.96;

/// A share with its interval; all `None` where nothing was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wilson {
    pub share: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

impl Wilson {
    /// So many of so many.
    pub fn of(count: u32, of: u32) -> Self {
        if of == 0 {
            return Self::default();
        }
        let n = f64::from(of);
        let p = f64::from(count) / n;
        let mid = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let whole = 1.0 + Z * Z / n;
        Self {
            share: Some(p),
            low: Some(((mid - half) / whole).max(0.0)),
            high: Some(((mid + half) / whole).min(1.0)),
        }
    }
}

/// Between which means a count of rare events lies with 95 %, 2.5 % on each side (Garwood 1936). Nothing seen: 0 to 3.69.
pub fn poisson(count: u64) -> (f64, f64) {
    let low = match count {
        0 => 0.0,
        _ => solve(|mean| 1.0 - at_most(count - 1, mean) - 0.025, count),
    };
    let high = solve(|mean| 0.025 - at_most(count, mean), count);
    (low, high)
}

/// Where a rising function of the mean crosses zero.
fn solve(rises: impl Fn(f64) -> f64, count: u64) -> f64 {
    let n = count as f64;
    let (mut low, mut high) = (0.0, n + 6.0 * n.sqrt() + 10.0);
    for _ in 0..60 {
        let mid = f64::midpoint(low, high);
        if rises(mid) < 0.0 {
            low = mid;
        } else {
            high = mid;
        }
    }
    f64::midpoint(low, high)
}

/// How likely at most so many events are.
fn at_most(count: u64, mean: f64) -> f64 {
    // Many events: the cube root of a gamma variate is nearly normal (Wilson and Hilferty).
    if count > 200 {
        let n = count as f64 + 1.0;
        let z = ((mean / n).cbrt() - 1.0 + 1.0 / (9.0 * n)) * (9.0 * n).sqrt();
        return 1.0 - normal_below(z);
    }
    let mut term = (-mean).exp();
    let mut sum = term;
    for k in 1..=count {
        term *= mean / k as f64;
        sum += term;
    }
    sum
}

/// How likely a normal variate is below `z` (Abramowitz and Stegun 26.2.17).
fn normal_below(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly = t
        * (0.319_381_53
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * poly;
    if z > 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check((low, high): (f64, f64), expected: (f64, f64)) {
        let near = |a: f64, b: f64| (a - b).abs() <= 0.005 * b.max(1.0);
        assert!(
            near(low, expected.0) && near(high, expected.1),
            "{low}–{high}, not {expected:?}"
        );
    }

    #[test]
    fn counts_have_the_intervals_of_the_tables() {
        check(poisson(0), (0.0, 3.689));
        check(poisson(1), (0.0253, 5.572));
        check(poisson(10), (4.795, 18.39));
        check(poisson(100), (81.36, 121.63));
        check(poisson(1000), (938.97, 1063.94));
    }

    #[test]
    fn shares_have_wilson_s_intervals() {
        let all = Wilson::of(5, 5);
        assert!((all.low.unwrap() - 0.5655).abs() < 1e-3);
        assert_eq!(all.high, Some(1.0));
        assert_eq!(Wilson::of(0, 0).share, None);
    }
}
