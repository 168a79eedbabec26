//! Sums that lie GPU by GPU are laid together, metric by metric, once the stretches that began in a window are over.
//! *(pure)*

use std::collections::BTreeMap;
use std::time::Duration;

use entrenar::metric::{CATALOGUE, MetricId};
use entrenar::unit::Timestamp;

use crate::chunk::ChunkError;
use crate::rollup::Opened;
use crate::rollup::sheet::{self, GPUS, Key, Parts, Sheets, TIMES};

/// After the last stretch of a window is over, for its sealing and what comes late.
const GRACE: Duration = Duration::from_mins(1);

/// Rows that are looked at in one round. The rest waits for the next, a minute later.
pub(super) const ROWS_A_ROUND: i64 = 100_000;

/// Stretches that share sheets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Group {
    pub(super) window: Timestamp,
    pub(super) cohort: i64,
}

impl Group {
    pub(super) fn of(step: Duration, gpu: i64, stretch: Timestamp) -> Self {
        Self {
            window: sheet::window_of(step, stretch),
            cohort: cohort(gpu),
        }
    }

    /// Starts of its stretches, the end not included.
    pub(super) fn stretches(self, step: Duration) -> (i64, i64) {
        let window = sheet::window(step);
        (self.window.0, (self.window + window).0)
    }

    /// Numbers of its GPUs, both included.
    pub(super) const fn gpus(self) -> (i64, i64) {
        let first = self.cohort * GPUS;
        (first, first + GPUS - 1)
    }
}

/// The cohort of a GPU.
pub(super) const fn cohort(gpu: i64) -> i64 {
    gpu.div_euclid(GPUS)
}

/// Before when a stretch must begin, so that all of its window are over; `longest`: of the stretches that there are.
pub(super) fn due_before(step: Duration, longest: Duration, now: Timestamp) -> Timestamp {
    sheet::window_of(step, now - longest - GRACE)
}

/// Sums that may be laid together with others: where they are, their stretch, and their GPU.
pub(super) type Row = (i64, i64, i64);

/// Rows, ascending by stretch, by the sheets in which they belong. `is_all`: there are no more.
pub(super) fn groups(step: Duration, rows: Vec<Row>, is_all: bool) -> BTreeMap<Group, Vec<Row>> {
    let mut groups: BTreeMap<Group, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let (_, stretch, gpu) = row;
        let group = Group::of(step, gpu, Timestamp(stretch));
        groups.entry(group).or_default().push(row);
    }
    // The last window may go on where the rows end.
    if let Some((last, _)) = groups.last_key_value().filter(|_| !is_all) {
        let window = last.window;
        if groups.keys().any(|group| group.window < window) {
            groups.retain(|group, _| group.window < window);
        }
    }
    groups
}

/// Sums that were laid together.
#[derive(Debug)]
pub(super) struct Compacted {
    pub(super) put: NewSheets,
    /// Rows that go then, with how their blobs begin: one that was written anew meanwhile stays.
    pub(super) rows: Vec<OldRow>,
}

/// What goes into the place of a group's sheets.
#[derive(Debug)]
pub(super) struct NewSheets {
    pub(super) step: Duration,
    pub(super) group: Group,
    /// First and last sample.
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) sheets: Vec<(MetricId, Vec<u8>)>,
}

/// A row whose sums are in sheets.
pub(super) type OldRow = (Row, Vec<u8>);

/// A transaction of the writer on the way from rows to sheets, in this order. What is in both is the same, and rows are
/// right: so each is harmless without those that follow, and what is left after a crash is laid together again.
#[derive(Debug)]
pub(super) enum Change {
    /// New sheets, beside which rows must be looked for.
    Put(NewSheets),
    /// Some rows go.
    Drop(Duration, Group, Vec<OldRow>),
    /// Rows need no longer be looked for, unless there are some.
    Settle(Duration, Group),
}

/// Where it is, stretch, GPU, first and last sample, and the sums.
pub(super) type Loose = (i64, i64, i64, i64, i64, Vec<u8>);

/// Sheets of some rows of a group, and of what lies in its sheets already; `None` where nothing can be done.
pub(super) fn put_together(
    step: Duration,
    group: Group,
    loose: Vec<Loose>,
    old: Option<&Sheets>,
) -> Result<Option<Compacted>, ChunkError> {
    let mut parts = Parts::default();
    let mut rows = Vec::new();
    for (at, stretch, gpu, from, to, blob) in loose {
        let stretch_at = Timestamp(stretch);
        // It may be looked for where its stretch begins, and no longer before than the longest stretch lasts; and what
        // has no sums, or damaged ones, says so where it is.
        let is_long = sheet::longest(step) < Timestamp(to).since(stretch_at);
        let (false, Ok(opened)) = (is_long, Opened::new(&blob)) else {
            continue;
        };
        rows.push(((at, stretch, gpu), blob[..TELLING_BYTES].to_vec()));
        let key = Key {
            gpu,
            stretch: stretch_at,
        };
        parts.put(key, (Timestamp(from), Timestamp(to)), &opened);
    }
    if rows.is_empty() {
        return Ok(None);
    }
    if let Some(old) = old {
        parts.put_old(old)?;
    }
    let sheets = parts.sheets()?;
    Ok(parts.extent().map(|(from, to)| Compacted {
        put: NewSheets {
            step,
            group,
            from,
            to,
            sheets,
        },
        rows,
    }))
}

/// Every sheet that a group may have.
pub(super) fn all_sheets() -> Vec<i64> {
    let metrics = CATALOGUE.iter().map(|metric| metric.id);
    let all = [TIMES].into_iter().chain(metrics);
    all.map(|metric| metric.0.into()).collect()
}

/// All time there is.
pub(super) const ALWAYS: (Timestamp, Timestamp) = (Timestamp(i64::MIN), Timestamp(i64::MAX));

/// Bytes of a blob that tell it from another: its version and checksum.
pub(super) const TELLING_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_window_and_a_cohort_belong_together_once_all_of_them_are_known() {
        let minute = Duration::from_mins(1);
        let window = 720_000;
        let rows = [(1, 0, 127), (2, 5, 128), (3, window - 1, 0), (4, window, 0)];
        let found = |is_all| -> Vec<(i64, i64, Vec<i64>)> {
            let groups = groups(minute, rows.to_vec(), is_all).into_iter();
            let found = |(group, rows): (Group, Vec<Row>)| {
                let at = rows.into_iter().map(|(at, ..)| at);
                (group.window.0, group.cohort, at.collect())
            };
            groups.map(found).collect()
        };
        let first = [(0, 0, vec![1, 3]), (0, 1, vec![2])];
        assert_eq!(found(false), first);
        assert_eq!(found(true)[..2], first);
        assert_eq!(found(true)[2], (window, 0, vec![4]));
        assert_eq!(groups(minute, rows[..3].to_vec(), false).len(), 2);
    }

    #[test]
    fn a_window_is_due_when_its_last_stretch_is_over() {
        let minute = Duration::from_mins(1);
        let due = |now_min: u64| {
            let now = Timestamp(0) + Duration::from_mins(now_min);
            due_before(minute, Duration::from_mins(12), now).0 / 60_000
        };
        // The last stretch of the first window begins before minute 12 and ends before minute 24.
        assert_eq!((due(24), due(25), due(36), due(37)), (0, 12, 12, 24));
    }
}
