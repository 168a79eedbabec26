//! When to ask a GPU again whose call did not come back. Pure: it is told the time and owns no thread.
//!
//! A call into the driver cannot be cancelled, so a GPU that hangs costs its thread. The GPU is left alone while that
//! thread is away. Should it stay away, now and then a fresh thread tries, less and less often, and never more than a
//! few are lost to one GPU.

use std::time::Duration;

/// Time from the deadline that was missed to the first try with a fresh thread.
const FIRST_RETRY: Duration = Duration::from_secs(10);

/// Longest time between tries: a GPU that was reset is back at most this much later.
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// Threads that may be lost inside one GPU's calls at a time. When as many are, the GPU is not tried again until one
/// of them comes back.
pub const MAX_LOST_THREADS: usize = 4;

/// What to do about a GPU in this tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Ask it.
    Read,
    /// Its thread is away: report a timeout.
    Wait,
    /// Its thread stays away: ask with a fresh one.
    Replace,
}

/// One GPU's quarantine.
#[derive(Clone, Debug)]
pub struct Quarantine {
    /// What spreads the retries of a node's GPUs, from its identity.
    seed: u64,
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    tries: u32,
    retry_at: Duration,
}

impl Quarantine {
    /// A GPU that answers. `seed` spreads retries: GPUs that hang together are not tried together.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            waiting: None,
        }
    }

    /// Whether the GPU missed its last deadline.
    pub fn holds(&self) -> bool {
        self.waiting.is_some()
    }

    /// What to do now. `away`: its thread is inside a call; `lost`: threads before that one that never came back.
    pub fn ask(&mut self, now: Duration, away: bool, lost: usize) -> Ask {
        if !away {
            return Ask::Read;
        }
        match &mut self.waiting {
            // Whoever asked gave up before the deadline.
            None => self.overran(now),
            Some(waiting) if waiting.retry_at <= now && lost + 1 < MAX_LOST_THREADS => {
                waiting.tries += 1;
                return Ask::Replace;
            }
            Some(_) => {}
        }
        Ask::Wait
    }

    /// It answered in time.
    pub fn answered(&mut self) {
        self.waiting = None;
    }

    /// It did not.
    pub fn overran(&mut self, now: Duration) {
        let tries = self.waiting.map_or(0, |waiting| waiting.tries);
        let retry_at = now + self.spread(back_off(tries), tries);
        self.waiting = Some(Waiting { tries, retry_at });
    }

    /// Up to a quarter later, the same for the same GPU and try.
    fn spread(&self, time: Duration, tries: u32) -> Duration {
        let mixed = (self.seed ^ u64::from(tries)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        time + time.mul_f64(0.25 * mixed as f64 / f64::from(u32::MAX))
    }
}

fn back_off(tries: u32) -> Duration {
    FIRST_RETRY
        .saturating_mul(1 << tries.min(16))
        .min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token a second says how the GPU would answer: `.` at once, `x` never, `o` the thread that is away comes
    /// back. `.x20` repeats. What comes out, one letter a second: `r` read, `t` read and timed out, `w` waited,
    /// `T` replaced and timed out, `R` replaced and read; runs are counted.
    fn check(story: &str, expected: &str) {
        let mut quarantine = Quarantine {
            seed: 0,
            waiting: None,
        };
        let (mut away, mut lost) = (false, 0);
        let mut letters = Vec::new();
        for (second, token) in tokens(story).into_iter().enumerate() {
            let now = Duration::from_secs(second as u64);
            away &= token != 'o';
            let answers = token != 'x';
            letters.push(match (quarantine.ask(now, away, lost), answers) {
                (Ask::Wait, _) => 'w',
                (Ask::Read, true) => answer(&mut quarantine, 'r'),
                (Ask::Replace, true) => {
                    lost += 1;
                    away = false;
                    answer(&mut quarantine, 'R')
                }
                (ask, false) => {
                    lost += usize::from(ask == Ask::Replace);
                    away = true;
                    quarantine.overran(now);
                    if ask == Ask::Replace { 'T' } else { 't' }
                }
            });
        }
        assert_eq!(runs(&letters), expected, "{story}");
    }

    fn answer(quarantine: &mut Quarantine, letter: char) -> char {
        quarantine.answered();
        letter
    }

    fn tokens(story: &str) -> Vec<char> {
        let token = |word: &str| {
            let mut letters = word.chars();
            let letter = letters.next().unwrap();
            let times = letters
                .as_str()
                .strip_prefix('*')
                .map_or(1, |n| n.parse().unwrap());
            vec![letter; times]
        };
        story.split_whitespace().flat_map(token).collect()
    }

    fn runs(letters: &[char]) -> String {
        let run = |run: &[char]| match run.len() {
            1 => run[0].to_string(),
            n => format!("{}*{n}", run[0]),
        };
        letters
            .chunk_by(|a, b| a == b)
            .map(run)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_gpu_that_answers_is_asked_each_time() {
        check(".*5", "r*5");
    }

    #[test]
    fn a_slow_call_costs_the_ticks_that_it_lasts() {
        check(". x x o .", "r t w r*2");
    }

    #[test]
    fn a_gpu_whose_thread_stays_away_is_tried_with_fresh_ones_less_and_less_often() {
        check("x*34 .*2", "t w*9 T w*23 R r");
    }

    #[test]
    fn a_recovered_gpu_is_read_by_the_next_fresh_thread() {
        check("x .*11", "t w*9 R r");
    }

    #[test]
    fn only_a_few_threads_are_lost_to_one_gpu() {
        check("x*200", "t w*9 T w*23 T w*42 T w*122");
        check("x*100 o .", "t w*9 T w*23 T w*42 T w*22 r*2");
    }

    #[test]
    fn gpus_that_hang_together_are_not_tried_together() {
        let retry = |seed| {
            let mut quarantine = Quarantine::new(seed);
            quarantine.overran(Duration::ZERO);
            quarantine.waiting.unwrap().retry_at
        };
        assert!(retry(1) != retry(2));
        assert!((1..100).all(|seed| (10.0..=12.5).contains(&retry(seed).as_secs_f64())));
    }
}
