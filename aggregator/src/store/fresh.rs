//! Sums that were stored a short while ago and still lie alone, kept unpacked beside the database.
//!
//! Until its window is over, a stretch's sums are a row of their own; a question about the fleet would look up, copy and
//! inflate one for each GPU. What is kept here is only what the database has as well: after a start there is nothing, and
//! rows are read once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entrenar::unit::Timestamp;

use super::compact::{Change, OldRow, TELLING_BYTES};
use super::retain::{Old, Slice};
use super::sums::StretchKey;
use super::{StoreResult, StoredRollup};
use crate::rollup::{STEPS, Sums};

/// Beyond it nothing more is kept: what comes is looked up in the database, as it would be without this. Some 50,000 GPUs.
const MAX_BYTES: usize = 128 << 20;

/// Sums of which step are kept. Those by the hour wait three hours for their window and would take 6 KB a GPU.
const KEPT_STEP: Duration = STEPS[0];

/// A stretch that was summed up, as it was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) step: Duration,
    pub(super) key: StretchKey,
    /// First and last sample.
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) blob: Vec<u8>,
}

/// Rows that a step from rows to sheets drops, with how their blobs begin.
#[derive(Debug)]
pub(super) struct Dropped {
    step: Duration,
    rows: Vec<(StretchKey, Vec<u8>)>,
}

impl Dropped {
    pub(super) fn of(change: &Change) -> Option<Self> {
        let Change::Drop(step, _, rows) = change else {
            return None;
        };
        let row = |((_, stretch, gpu), telling): &OldRow| ((*gpu, *stretch), telling.clone());
        Some(Self {
            step: *step,
            rows: rows.iter().map(row).collect(),
        })
    }
}

/// What is known of rows of sums without asking the database.
#[derive(Debug)]
pub(super) struct Fresh(Mutex<State>);

#[derive(Debug)]
struct State {
    steps: [OfStep; STEPS.len()],
    bytes: usize,
    max_bytes: usize,
    /// Nobody knows what lies in the database.
    is_lost: bool,
}

#[derive(Debug, Default)]
struct OfStep {
    /// Of stretches that begin after it, those that are not here lie alone nowhere.
    complete_after: i64,
    /// By the number of their GPU.
    rows: HashMap<i64, Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    stretch: i64,
    /// How its blob begins.
    telling: [u8; TELLING_BYTES],
    stored: StoredRollup,
    bytes: usize,
}

impl Fresh {
    /// Nothing yet. `newest`: of each step, where the newest stretch begins that lies alone in the database.
    pub(super) fn new(newest: [Option<i64>; STEPS.len()]) -> Self {
        let of_step = |newest: Option<i64>| OfStep {
            complete_after: newest.unwrap_or(i64::MIN),
            rows: HashMap::new(),
        };
        Self(Mutex::new(State {
            steps: newest.map(of_step),
            bytes: 0,
            max_bytes: MAX_BYTES,
            is_lost: false,
        }))
    }

    /// After a transaction: these were written, or nobody knows.
    pub(super) fn wrote(&self, written: &[Written], is_done: bool) {
        // Unpacked before anybody has to wait.
        let opened = written
            .iter()
            .map(|row| is_done.then(|| row.open()).flatten());
        let opened: Vec<Option<Kept>> = opened.collect();
        let mut state = self.state();
        for (row, kept) in written.iter().zip(opened) {
            state.put(row.step, row.key, kept);
        }
    }

    /// A row was read. It may be gone by now: then it is in sheets, and the same there.
    pub(super) fn read(&self, step: Duration, key: StretchKey, blob: &[u8], stored: &StoredRollup) {
        let kept = Kept::of(key.1, blob, stored);
        let mut state = self.state();
        if let Some(kept) = kept.filter(|_| step == KEPT_STEP && !state.has(step, key)) {
            state.keep(step, key.0, kept);
        }
    }

    /// After a step from rows to sheets: rows are gone, unless they were written anew meanwhile.
    pub(super) fn after_change(&self, dropped: Option<Dropped>, is_done: bool) {
        let Some(dropped) = dropped.filter(|_| is_done) else {
            return;
        };
        let mut state = self.state();
        for ((gpu, stretch), telling) in dropped.rows {
            let is_it = |kept: &Kept| kept.stretch == stretch && kept.telling[..] == telling[..];
            state.remove(dropped.step, gpu, is_it);
        }
    }

    /// After a slice of retention. The last of a step has dropped all that was over before an instant.
    pub(super) fn after_retention(&self, old: Old, done: &StoreResult<Slice>) {
        let (Old::Rollups(step, before, _), Ok(Slice { next: None, .. })) = (old, done) else {
            return;
        };
        let mut state = self.state();
        let gpus: Vec<i64> = state.of(step).rows.keys().copied().collect();
        for gpu in gpus {
            state.remove(step, gpu, |kept| kept.stored.to < before);
        }
    }

    /// The database is out of sight, and another may write to it.
    pub(super) fn lost(&self) {
        self.state().is_lost = true;
    }

    /// It is as it was left.
    pub(super) fn found_again(&self) {
        self.state().is_lost = false;
    }

    /// Those of these stretches that are here, and those that must be looked up. It must be asked before the database is
    /// read: what is laid together in between is then found in both, and not in neither.
    pub(super) fn find(
        &self,
        step: Duration,
        keys: &[StretchKey],
    ) -> (Vec<(StretchKey, StoredRollup)>, Vec<StretchKey>) {
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        let mut state = self.state();
        let is_lost = state.is_lost;
        let of_step = state.of(step);
        // Those of a GPU follow each other.
        let mut latest: Option<(i64, &[Kept])> = None;
        for key in keys {
            let (gpu, stretch) = *key;
            let of_gpu = match latest {
                Some((of, kept)) if of == gpu => kept,
                _ => of_step.rows.get(&gpu).map_or(&[][..], Vec::as_slice),
            };
            latest = Some((gpu, of_gpu));
            match of_gpu.iter().find(|kept| kept.stretch == stretch) {
                Some(kept) => found.push((*key, kept.stored.clone())),
                None if is_lost || stretch <= of_step.complete_after => unknown.push(*key),
                None => {}
            }
        }
        (found, unknown)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(&mut self, step: Duration) -> &mut OfStep {
        let place = STEPS.iter().position(|of| *of == step);
        &mut self.steps[place.unwrap_or_default()]
    }

    /// `kept`: what a row was written anew as, if that is known and to be kept.
    fn put(&mut self, step: Duration, (gpu, stretch): StretchKey, kept: Option<Kept>) {
        self.remove(step, gpu, |kept| kept.stretch == stretch);
        if !kept.is_some_and(|kept| self.keep(step, gpu, kept)) {
            self.of(step).doubt(stretch);
        }
    }

    /// False where there is no room.
    fn keep(&mut self, step: Duration, gpu: i64, kept: Kept) -> bool {
        let has_room = self.bytes + kept.bytes <= self.max_bytes;
        if has_room {
            self.bytes += kept.bytes;
            self.of(step).rows.entry(gpu).or_default().push(kept);
        }
        has_room
    }

    fn has(&mut self, step: Duration, (gpu, stretch): StretchKey) -> bool {
        let mut of_gpu = self.of(step).rows.get(&gpu).into_iter().flatten();
        of_gpu.any(|kept| kept.stretch == stretch)
    }

    fn remove(&mut self, step: Duration, gpu: i64, is_it: impl Fn(&Kept) -> bool) {
        let rows = &mut self.of(step).rows;
        let Some(of_gpu) = rows.get_mut(&gpu) else {
            return;
        };
        let gone = of_gpu.extract_if(.., |kept| is_it(kept));
        let bytes: usize = gone.map(|kept| kept.bytes).sum();
        if of_gpu.is_empty() {
            rows.remove(&gpu);
        }
        self.bytes -= bytes;
    }
}

impl OfStep {
    /// A stretch may lie alone in the database and is not here.
    fn doubt(&mut self, stretch: i64) {
        self.complete_after = self.complete_after.max(stretch);
    }
}

impl Written {
    /// To be kept; `None` of a step that is not, and of what cannot be read.
    fn open(&self) -> Option<Kept> {
        if self.step != KEPT_STEP {
            return None;
        }
        let stored = StoredRollup {
            stretch: Timestamp(self.key.1),
            from: self.from,
            to: self.to,
            sums: Some(Sums::alone(&self.blob)),
        };
        Kept::of(self.key.1, &self.blob, &stored)
    }
}

impl Kept {
    /// `None` of what cannot be summed up, or read: whoever asks is told by the database.
    fn of(stretch: i64, blob: &[u8], stored: &StoredRollup) -> Option<Self> {
        let Some(Sums::Alone(Ok(opened))) = &stored.sums else {
            return None;
        };
        Some(Self {
            stretch,
            telling: *blob.first_chunk()?,
            bytes: size_of::<Self>() + opened.bytes(),
            stored: stored.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use entrenar::metric::POWER;

    use super::*;
    use crate::chunk::{self, Profile};
    use crate::rollup;

    const MINUTE: Duration = KEPT_STEP;

    /// Five minutes of a GPU at one power.
    fn written(gpu: i64, stretch: i64, power: i64) -> Written {
        let values = entrenar::gpu::Values::default().with(POWER, power);
        let at = |n: i64| Timestamp(stretch + 1000 * n);
        let rows: Vec<_> = (0..300).map(|n| (at(n), values.clone())).collect();
        let blob = chunk::encode(&rows, Profile::Exact).unwrap();
        let sums = rollup::of_chunk(&blob, Duration::from_mins(12)).unwrap();
        Written {
            step: MINUTE,
            key: (gpu, stretch),
            from: at(0),
            to: at(299),
            blob: sums
                .into_iter()
                .find(|(step, _)| *step == MINUTE)
                .unwrap()
                .1,
        }
    }

    /// What is found of each, as its power; `?` for what must be looked up, `-` for what is nowhere.
    fn told(fresh: &Fresh, keys: &[StretchKey]) -> String {
        let (found, unknown) = fresh.find(MINUTE, keys);
        let of = |key: &StretchKey| {
            let stored = found.iter().find(|(of, _)| of == key);
            let sums = stored.and_then(|(_, stored)| stored.sums.as_ref());
            match sums {
                Some(sums) => sums.metric(POWER).unwrap()[0].min.to_string(),
                None if unknown.contains(key) => "?".to_owned(),
                None => "-".to_owned(),
            }
        };
        keys.iter().map(of).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_was_written_since_the_start_is_known_without_a_look() {
        let fresh = Fresh::new([Some(1000), None]);
        let keys = [(1, 1000), (1, 2000), (2, 2000)];
        assert_eq!(told(&fresh, &keys), "? - -");
        fresh.wrote(&[written(1, 1000, 7), written(1, 2000, 8)], true);
        assert_eq!(told(&fresh, &keys), "7 8 -");
        fresh.wrote(&[written(1, 2000, 9)], true);
        assert_eq!(told(&fresh, &keys), "7 9 -");
    }

    #[test]
    fn what_may_have_been_written_is_looked_up() {
        let fresh = Fresh::new([None, None]);
        fresh.wrote(&[written(1, 2000, 7)], false);
        assert_eq!(told(&fresh, &[(1, 2000), (2, 1000), (2, 3000)]), "? ? -");
        // Written anew, or not: neither is known.
        fresh.wrote(&[written(3, 3000, 7)], true);
        assert_eq!(told(&fresh, &[(3, 3000)]), "7");
        fresh.wrote(&[written(3, 3000, 8)], false);
        assert_eq!(told(&fresh, &[(3, 3000)]), "?");
        // What nobody can sum up is the database's to tell.
        let damaged = Written {
            blob: Vec::new(),
            ..written(1, 4000, 7)
        };
        fresh.wrote(&[damaged], true);
        assert_eq!(told(&fresh, &[(1, 4000), (1, 5000)]), "? -");
    }

    #[test]
    fn while_the_database_is_out_of_sight_everything_is_looked_up() {
        let fresh = Fresh::new([None, None]);
        fresh.wrote(&[written(1, 1000, 7)], true);
        fresh.lost();
        assert_eq!(told(&fresh, &[(1, 1000), (2, 1000)]), "7 ?");
        fresh.found_again();
        assert_eq!(told(&fresh, &[(1, 1000), (2, 1000)]), "7 -");
    }

    #[test]
    fn rows_that_went_are_forgotten_unless_they_were_written_anew() {
        let fresh = Fresh::new([None, None]);
        let (old, other) = (written(1, 1000, 7), written(2, 1000, 5));
        let rows = [&old, &other].map(|row| (row.key, row.blob[..TELLING_BYTES].to_vec()));
        let dropped = Dropped {
            step: MINUTE,
            rows: rows.to_vec(),
        };
        fresh.wrote(&[old, other], true);
        fresh.wrote(&[written(1, 1000, 8)], true);
        fresh.after_change(Some(dropped), true);
        assert_eq!(told(&fresh, &[(1, 1000), (2, 1000)]), "8 -");
        for (before, is_last, expected) in [
            (300_000, true, "8"),
            (300_001, false, "8"),
            (300_001, true, "-"),
        ] {
            let old = Old::Rollups(MINUTE, Timestamp(before), (0, 0));
            let next = (!is_last).then_some(old);
            fresh.after_retention(old, &Ok(Slice { gone: 0, next }));
            assert_eq!(told(&fresh, &[(1, 1000)]), expected);
        }
        assert_eq!(fresh.state().bytes, 0);
    }

    #[test]
    fn what_was_read_once_is_known_and_what_was_written_is_newer() {
        let fresh = Fresh::new([Some(2000), None]);
        fresh.wrote(&[written(1, 1000, 8)], true);
        for row in [written(1, 1000, 7), written(2, 1000, 5)] {
            let stored = row.open().unwrap().stored;
            fresh.read(MINUTE, row.key, &row.blob, &stored);
        }
        assert_eq!(told(&fresh, &[(1, 1000), (2, 1000), (3, 1000)]), "8 5 ?");
    }

    #[test]
    fn beyond_its_bound_the_database_is_asked() {
        let fresh = Fresh::new([None, None]);
        fresh.wrote(&[written(1, 1000, 7)], true);
        let full = fresh.state().bytes;
        fresh.state().max_bytes = full;
        fresh.wrote(&[written(2, 2000, 8)], true);
        assert_eq!(
            told(&fresh, &[(1, 1000), (2, 2000), (1, 2000), (1, 3000)]),
            "7 ? ? -"
        );
        assert_eq!(fresh.state().bytes, full);
    }
}
