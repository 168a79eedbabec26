//! The notation of input series, as `promtool` has it. *(pure)*
//!
//! `70` one sample · `70x3` the same and three more · `1+2x3` is `1 3 5 7` · `1-2x2` is `1 -1 -3` · `_` nothing came ·
//! `_x5` nothing came five times · `stale` the row came without this metric · `stalex5` five times so.

/// One step of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    Value(f64),
    /// Nothing came.
    Missing,
    /// The row came without this metric.
    Stale,
}

/// Most steps of a series.
pub(super) const MOST_STEPS: usize = 100_000;

/// Reads a line; the error says which word is wrong, and why.
pub(super) fn parse(line: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for word in line.split_whitespace() {
        let (what, times) = match word.split_once('x') {
            Some((what, times)) => {
                let times = times.parse::<usize>();
                (what, Some(times.map_err(|_| wrong(word))?))
            }
            None => (word, None),
        };
        let added = times.unwrap_or(0).saturating_add(1);
        if added.saturating_add(steps.len()) > MOST_STEPS {
            return Err(format!("a series has at most {MOST_STEPS} steps"));
        }
        let plain = match what {
            "_" => Some(Step::Missing),
            "stale" => Some(Step::Stale),
            _ => None,
        };
        if let Some(step) = plain {
            steps.extend(std::iter::repeat_n(step, times.unwrap_or(1)));
            continue;
        }
        let (first, each) = first_and_each(what).ok_or_else(|| wrong(word))?;
        if each.is_some() && times.is_none() {
            return Err(wrong(word));
        }
        for n in 0..=times.unwrap_or(0) {
            steps.push(Step::Value(first + each.unwrap_or(0.0) * n as f64));
        }
    }
    Ok(steps)
}

fn wrong(word: &str) -> String {
    format!("`{word}` is not in the notation: write 70, 70x3, 1+2x3, _, _x5 or stale")
}

/// `1+2` is 1 and 2; `-3` is -3 alone; the sign of an exponent is none.
fn first_and_each(what: &str) -> Option<(f64, Option<f64>)> {
    let finite = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite());
    let sign = what
        .char_indices()
        .skip(1)
        .find(|(at, letter)| matches!(letter, '+' | '-') && !what[..*at].ends_with(['e', 'E']));
    match sign {
        Some((at, _)) => Some((finite(&what[..at])?, Some(finite(&what[at..])?))),
        None => Some((finite(what)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_read_as_promtool_reads_it() {
        let check = |line: &str, expected: &str| {
            let steps = parse(line).expect("in the notation");
            let words: Vec<String> = steps
                .iter()
                .map(|step| match step {
                    Step::Value(value) => value.to_string(),
                    Step::Missing => "_".into(),
                    Step::Stale => "stale".into(),
                })
                .collect();
            assert_eq!(words.join(" "), expected, "{line}");
        };
        check("-2+4x3", "-2 2 6 10");
        check("1-2x4", "1 -1 -3 -5 -7");
        check("1x4", "1 1 1 1 1");
        check("4 _ 1 stale", "4 _ 1 stale");
        check("_x3 1e3 stalex2", "_ _ _ 1000 stale stale");
        check("", "");
    }

    #[test]
    fn what_is_not_in_the_notation_is_refused() {
        for wrong in [
            "hot", "1+2", "1x", "1x-2", "nan", "1e999", "x3", "_y", "1x100000",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
