//! What an answer means, and how long to wait before the next attempt.

use std::time::Duration;

use entrenar::unit::Timestamp;

/// Upper bound of the wait after a first failure; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Upper bound of any wait of our own.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// No wait is shorter, or a receiver that is down would be hammered by good luck.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
/// A receiver may ask for at most this; more would be silence.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// After this, a message that was never taken is put aside: people were told otherwise, or it is history.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(24);
/// Characters of an answer that are kept to explain a failure.
const KEPT_ANSWER_CHARS: usize = 200;

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver took it.
    Delivered,
    /// Try again.
    Retry {
        /// How long the receiver asked to wait.
        after: Option<Duration>,
        /// Whether the receiver may have taken it all the same: it did not answer, or failed half-way.
        perhaps_taken: bool,
        why: String,
    },
    /// It will never be taken as it is.
    Refused { why: String },
}

/// An answer over HTTP, cut to what is needed.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// At most 64 KiB of it, as text.
    pub body: String,
}

impl Answer {
    /// What the status alone means: 2xx taken, 408, 425, 429 and 5xx try again, everything else refused.
    pub fn verdict(&self) -> Verdict {
        match self.status {
            200..=299 => Verdict::Delivered,
            300..=399 => Verdict::Refused {
                why: format!(
                    "the receiver redirects elsewhere (HTTP {}), which is never followed: write the final URL into the receivers file",
                    self.status
                ),
            },
            408 | 425 | 429 | 500..=599 => self.try_again(),
            _ => Verdict::Refused {
                why: self.explain("the receiver refused it"),
            },
        }
    }

    /// Try again, as late as the receiver asked.
    pub fn try_again(&self) -> Verdict {
        Verdict::Retry {
            after: self.retry_after,
            perhaps_taken: !matches!(self.status, 425 | 429),
            why: self.explain("the receiver could not take it now"),
        }
    }

    /// What happened, with the status and the beginning of the answer.
    pub fn explain(&self, what: &str) -> String {
        let said = readable(&self.body);
        match said.as_str() {
            "" => format!("{what} (HTTP {})", self.status),
            said => format!("{what} (HTTP {}: {said})", self.status),
        }
    }
}

/// The beginning of a foreign text on one line, without control characters.
fn readable(text: &str) -> String {
    let line: String = text
        .chars()
        .take(KEPT_ANSWER_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line.trim().to_owned()
}

/// How long `Retry-After` asks to wait: seconds, or a date.
pub fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text.trim()).ok()?;
    let since_epoch = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp(since_epoch.as_millis() as i64).since(now))
}

/// How long to wait after the `attempts`-th failed attempt, counted from 1.
///
/// What the receiver asked for comes first, with up to a second on top so that not everyone returns at once. Else full
/// jitter: anywhere up to a bound that doubles from 5 s to 5 min.
pub fn wait(attempts: u32, after: Option<Duration>, jitter: &mut Jitter) -> Duration {
    if let Some(after) = after {
        return after.min(LONGEST_RETRY_AFTER) + jitter.up_to(Duration::from_secs(1));
    }
    let doublings = attempts.saturating_sub(1).min(16);
    let bound = (FIRST_WAIT * 2_u32.pow(doublings)).min(LONGEST_WAIT);
    jitter.up_to(bound).max(SHORTEST_WAIT)
}

/// Random waits from a seed: SplitMix64.
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
#[derive(Clone, Debug)]
pub struct Jitter(pub u64);

impl Jitter {
    /// Evenly between zero and `bound`, in milliseconds.
    pub fn up_to(&mut self, bound: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Duration::from_millis(z % (bound.as_millis() as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_five_seconds_to_five_minutes_and_differ() {
        let mut jitter = Jitter(7);
        for (attempts, bound) in [(1, 5), (2, 10), (5, 80), (7, 300), (400, 300)] {
            let waits: Vec<Duration> = (0..200)
                .map(|_| wait(attempts, None, &mut jitter))
                .collect();
            let longest = waits.iter().max().expect("200 of them");
            assert!(
                *longest <= Duration::from_secs(bound),
                "{attempts}: {longest:?}"
            );
            assert!(
                *longest > Duration::from_secs(bound) * 9 / 10,
                "{attempts}: {longest:?}"
            );
            assert!(waits.iter().all(|w| *w >= SHORTEST_WAIT));
        }
    }

    #[test]
    fn a_receiver_is_given_the_time_it_asks_for_within_reason() {
        let mut jitter = Jitter(7);
        let waited = wait(9, Some(Duration::from_secs(30)), &mut jitter);
        assert!((30..=31).contains(&waited.as_secs()), "{waited:?}");
        let waited = wait(1, Some(Duration::from_hours(999)), &mut jitter);
        assert!(waited <= LONGEST_RETRY_AFTER + Duration::from_secs(1));
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").expect("a time");
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(
                parse_retry_after(text, now),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        };
        check("30", Some(30));
        check("Thu, 01 Jan 2026 00:00:45 GMT", Some(45));
        check("Wed, 31 Dec 2025 00:00:00 GMT", Some(0));
        check("soon", None);
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        let verdict = |status| {
            let answer = Answer {
                status,
                ..Answer::default()
            };
            match answer.verdict() {
                Verdict::Delivered => "delivered",
                Verdict::Retry {
                    perhaps_taken: true,
                    ..
                } => "again, perhaps taken",
                Verdict::Retry { .. } => "again",
                Verdict::Refused { .. } => "refused",
            }
        };
        assert_eq!(verdict(204), "delivered");
        assert_eq!(verdict(302), "refused");
        assert_eq!(verdict(400), "refused");
        assert_eq!(verdict(429), "again");
        assert_eq!(verdict(503), "again, perhaps taken");
    }
}
