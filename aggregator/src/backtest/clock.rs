//! The fleet's clock in a trace. *(pure)*
//!
//! Where the trace says when a row arrived, that is the clock. Elsewhere the agents' own times drive it, in order of
//! arrival; each agent's time is corrected by how far that agent is off, so that one wrong clock moves nobody else. A
//! leap that only some agents make is decided by the majority of those who speak: rows wait until it is.

use std::collections::BTreeMap;

use entrenar::unit::Timestamp;

use crate::line::offset::ClockOffset;

/// The clock moves by at most this, or three of the slowest intervals, on the word of a single agent.
const MOST_MOVE_MS: i64 = 30_000;
/// When someone has spoken so often since the start, everyone has had time for a first word.
const WORDS_AT_START: u32 = 4;
/// The same, of a leap.
const WORDS_AT_LEAP: u32 = 2;

/// The fleet's clock.
#[derive(Debug, Default)]
pub(super) struct FleetClock {
    now: Option<Timestamp>,
    voices: Vec<Voice>,
    slowest_ms: i64,
    vote: Option<Vote>,
    /// What most agents' interval seemed to be when the clock began.
    usual_ms: Option<i64>,
}

/// What is known of an agent's clock.
#[derive(Clone, Debug, Default)]
struct Voice {
    offset: ClockOffset,
    /// The least that it lagged at the present instant of the fleet's clock.
    lag: Option<(Timestamp, Timestamp)>,
}

/// What agents said since somebody's clock leapt.
#[derive(Debug, Default)]
struct Vote {
    /// By speaker.
    words: BTreeMap<usize, Word>,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    /// The GPU whose rows are counted: others may be read a little later.
    gpu: Option<u32>,
    first: Timestamp,
    last: Timestamp,
    times: u32,
    /// Of the differences between its times, the least.
    step_ms: Option<i64>,
}

/// What a row says of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is so late now.
    At(Timestamp),
    /// It is not known yet: the row must wait.
    Wait,
    /// It is known again: the rows that wait can be heard, then this one.
    Decided,
}

impl FleetClock {
    /// An agent's interval: slow agents may move the clock further.
    pub(super) fn note_interval(&mut self, interval_ms: i64) {
        self.slowest_ms = self.slowest_ms.max(interval_ms);
    }

    /// What most agents' interval seemed to be when the clock began.
    pub(super) fn usual_interval_ms(&self) -> Option<i64> {
        self.usual_ms
    }

    /// The furthest that the clock moves on one word.
    pub(super) fn most_move_ms(&self) -> i64 {
        MOST_MOVE_MS.max(3 * self.slowest_ms)
    }

    /// A row of an agent, about one of its GPUs or none, in order of arrival.
    pub(super) fn hear(
        &mut self,
        speaker: usize,
        gpu: Option<u32>,
        time: Timestamp,
        arrived: Option<Timestamp>,
    ) -> Heard {
        if self.voices.len() <= speaker {
            self.voices.resize_with(speaker + 1, Voice::default);
        }
        if let Some(arrived) = arrived {
            // Rows without an arrival wait for a vote; this one settles it.
            let waited = self.vote.take().is_some();
            self.now = self.now.max(Some(arrived));
            if waited {
                return Heard::Decided;
            }
            return Heard::At(self.lag(speaker, time));
        }
        if self.vote.is_some() {
            return self.vote_goes_on(speaker, gpu, time);
        }
        let at = self.corrected(speaker, time);
        match self.now {
            Some(now) if at.0 - now.0 <= self.most_move_ms() => {
                self.now = Some(now.max(at));
                Heard::At(self.lag(speaker, time))
            }
            _ => {
                self.vote = Some(Vote::default());
                self.vote_goes_on(speaker, gpu, time)
            }
        }
    }

    fn vote_goes_on(&mut self, speaker: usize, gpu: Option<u32>, time: Timestamp) -> Heard {
        let at = self.corrected(speaker, time);
        let Some(vote) = &mut self.vote else {
            return Heard::Wait;
        };
        let needed = if self.now.is_some() {
            WORDS_AT_LEAP
        } else {
            WORDS_AT_START
        };
        if vote.note(speaker, gpu, at) >= needed {
            self.decide();
            return Heard::Decided;
        }
        Heard::Wait
    }

    /// Decides with what was said so far.
    pub(super) fn decide(&mut self) {
        let Some(vote) = self.vote.take() else {
            return;
        };
        let most = self.most_move_ms();
        let leaps = |word: &Word| self.now.is_none_or(|now| word.first.0 - now.0 > most);
        let (leapt, stayed): (Vec<Word>, Vec<Word>) = vote.words.values().copied().partition(leaps);
        let accepted = leapt.len() > stayed.len();
        if accepted {
            let mut firsts: Vec<i64> = leapt.iter().map(|word| word.first.0).collect();
            firsts.sort_unstable();
            let median = firsts[(firsts.len() - 1) / 2];
            self.usual_ms = self.usual_ms.or_else(|| usual_step(&leapt));
            // The earliest of those that agree with the median: the rows that wait move the clock on from there.
            let agreed = firsts.into_iter().find(|at| median - at <= most);
            self.now = agreed.map(Timestamp);
        }
        let Some(now) = self.now else {
            return;
        };
        for (speaker, word) in vote.words {
            let off = word.first.0 - now.0;
            if off.abs() > most {
                let voice = &mut self.voices[speaker];
                let raw = Timestamp(word.first.0 - voice.offset.correction_ms());
                voice.offset = ClockOffset::default();
                voice.offset.observe(now, raw);
            }
        }
    }

    /// Takes note of how far an agent lags, and returns the fleet's time.
    fn lag(&mut self, speaker: usize, time: Timestamp) -> Timestamp {
        let now = self.now.unwrap_or(time);
        let voice = &mut self.voices[speaker];
        voice.lag = match voice.lag {
            // A burst of old ticks at one instant: the newest of them tells.
            Some((at, newest)) if at == now => Some((at, newest.max(time))),
            Some((at, newest)) => {
                voice.offset.observe(at, newest);
                Some((now, time))
            }
            None => Some((now, time)),
        };
        now
    }

    /// An agent's time in the fleet's.
    pub(super) fn corrected(&self, speaker: usize, time: Timestamp) -> Timestamp {
        let correction = self
            .voices
            .get(speaker)
            .map_or(0, |voice| voice.offset.correction_ms());
        Timestamp(time.0.saturating_add(correction))
    }

    /// How far an agent's clock is ahead of the fleet's; `None`: not known yet.
    pub(super) fn offset_ms(&self, speaker: usize) -> Option<i64> {
        self.voices.get(speaker)?.offset.offset_ms()
    }
}

impl Vote {
    /// Another word; how often its speaker has spoken.
    fn note(&mut self, speaker: usize, gpu: Option<u32>, at: Timestamp) -> u32 {
        let word = self.words.entry(speaker).or_insert(Word {
            gpu,
            first: at,
            last: at,
            times: 1,
            step_ms: None,
        });
        word.gpu = word.gpu.or(gpu);
        if word.gpu == gpu && word.last < at {
            let step = at.0 - word.last.0;
            word.step_ms = Some(word.step_ms.map_or(step, |least| least.min(step)));
            word.last = at;
            word.times += 1;
        }
        word.times
    }
}

/// What most of these agents' interval seems to be.
fn usual_step(words: &[Word]) -> Option<i64> {
    let mut steps: Vec<i64> = words.iter().filter_map(|word| word.step_ms).collect();
    steps.sort_unstable();
    steps.get(steps.len() / 2).copied()
}
