//! Series notation and builders for tests.
//!
//! A series is one line of tokens, one token a step: `70 90x4 _x5 70x3` is one sample of 70, four of 90, five that
//! were missed, three of 70. A story is one line too: `40s Raised, 70s Cleared`.

use std::fmt::Write as _;
use std::time::Duration;

use crate::unit::Timestamp;

/// The samples of a line, a step apart, from time 0; `None`: missed.
///
/// # Panics
/// When the line is not in the notation.
pub fn series(line: &str, step: Duration) -> Vec<(Timestamp, Option<f64>)> {
    let mut samples = Vec::new();
    for token in line.split_whitespace() {
        let (value, times) = token.split_once('x').unwrap_or((token, "1"));
        let value = (value != "_").then(|| value.parse().expect("a number, or _ for a missed one"));
        for _ in 0..times.parse().expect("how many times") {
            let at = Timestamp(0) + step * samples.len() as u32;
            samples.push((at, value));
        }
    }
    samples
}

/// What happened, and when, as one line; times in seconds since time 0.
pub fn story<T: AsRef<str>>(happened: &[(Timestamp, T)]) -> String {
    let mut line = String::new();
    for (at, what) in happened {
        let separator = if line.is_empty() { "" } else { ", " };
        let _ = write!(line, "{separator}{}s {}", at.as_secs_f64(), what.as_ref());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_sampled_and_what_was_missed() {
        let samples = series("70 _x2 90", Duration::from_secs(10));
        let at = Timestamp::from_secs;
        assert_eq!(
            samples,
            [
                (at(0), Some(70.0)),
                (at(10), None),
                (at(20), None),
                (at(30), Some(90.0))
            ]
        );
        assert_eq!(
            story(&[(Timestamp(1500), "Raised"), (at(2), "Cleared")]),
            "1.5s Raised, 2s Cleared"
        );
    }
}
