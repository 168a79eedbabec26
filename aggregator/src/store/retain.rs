//! What grows old, and how much of it goes at once.

use std::time::Duration;

use entrenar::unit::Timestamp;

use super::Retention;
use crate::rollup::{self, sheet};

/// What a slice of maintenance is cut to: a quarter of the 20 ms that the writer may be held, because the next one may hold
/// longer rows.
const AIM: Duration = Duration::from_millis(5);

/// Rows of the first slice, and of the longest.
const FIRST_ROWS: i64 = 16;
const MOST_ROWS: i64 = 256;

/// Where a walk through stretches has come to: the start of a stretch, and the number of a GPU.
pub(super) type Place = (i64, i64);

/// Before all stretches.
const BEGIN: Place = (i64::MIN, i64::MIN);

/// One kind of it, and how far it was looked through. Everything but `Space` is older than a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Old {
    Chunks(Timestamp, Place),
    /// Sums by this step.
    Rollups(Duration, Timestamp, Place),
    /// The same, laid together; of stretches that began before.
    Sheets(Duration, Timestamp),
    Incidents(Timestamp),
    Notices(Timestamp),
    /// Changes of GPUs after this number.
    Holders(Timestamp, i64),
    Events(Timestamp),
    Cords(Timestamp),
    /// What was freed goes back to the file system.
    Space,
}

impl Old {
    pub(super) fn all(retention: &Retention) -> Vec<Self> {
        let Retention {
            chunks_before,
            minutes_before,
            hours_before,
            incidents_before,
        } = *retention;
        // To whom a sample belonged, and what was reported beside it, is known for as long as anything is kept of it.
        let holders_before = chunks_before.min(minutes_before).min(hours_before);
        let rollups = rollup::STEPS.map(|step| Self::Rollups(step, retention.before(step), BEGIN));
        let sheets = rollup::STEPS.map(|step| {
            // What began so long before is over.
            let began_before = retention.before(step) - sheet::window(step) - sheet::longest(step);
            Self::Sheets(step, began_before)
        });
        let rest = [
            Self::Chunks(chunks_before, BEGIN),
            Self::Incidents(incidents_before),
            Self::Notices(incidents_before),
            Self::Holders(holders_before, i64::MIN),
            Self::Events(holders_before),
            Self::Cords(incidents_before),
            Self::Space,
        ];
        rollups.into_iter().chain(sheets).chain(rest).collect()
    }

    /// A word for it, beside those of other work.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Chunks(..) => "drop chunks",
            Self::Rollups(..) => "drop rollups",
            Self::Sheets(..) => "drop sheets",
            Self::Incidents(_) => "drop incidents",
            Self::Notices(_) => "drop notices",
            Self::Holders(..) => "drop holders",
            Self::Events(_) => "drop events",
            Self::Cords(_) => "drop cords",
            Self::Space => "give space back",
        }
    }
}

/// What became of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    /// Rows that went, of those that count.
    pub(super) gone: u64,
    /// Where to go on; `None`: that was all.
    pub(super) next: Option<Old>,
}

/// How many rows a slice may have: more while slices are short, fewer once one was long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rows: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: FIRST_ROWS }
    }
}

impl Pace {
    /// At most so many rows now.
    pub(super) const fn rows(self) -> i64 {
        self.rows
    }

    /// How long the last slice took.
    pub(super) fn took(&mut self, took: Duration) {
        if AIM < took {
            self.rows = (self.rows / 2).max(1);
        } else if took < AIM / 2 {
            self.rows = (self.rows * 2).min(MOST_ROWS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_grow_while_they_are_short_and_shrink_once_one_is_long() {
        let rows = |took_ms: &[u64]| {
            let mut pace = Pace::default();
            for ms in took_ms {
                pace.took(Duration::from_millis(*ms));
            }
            pace.rows()
        };
        assert_eq!(rows(&[]), 16);
        assert_eq!(rows(&[1, 1]), 64);
        assert_eq!(rows(&[1; 99]), 256);
        assert_eq!(rows(&[1, 3, 3]), 32);
        assert_eq!(rows(&[1, 19]), 16);
        assert_eq!(rows(&[19; 99]), 1);
    }
}
