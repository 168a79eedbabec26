//! Sums of some GPUs, put together of what a database finds. *(pure)*

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::compact::Group;
use super::fresh::Fresh;
use super::history::{possible_starts, rollup};
use super::{StoreError, StoreResult, StoredRollup};
use crate::chunk::ChunkError;
use crate::rollup::Sums;
use crate::rollup::sheet::{self, Sheets, TIMES};

/// Which sums.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) gpus: &'a [GpuUuid],
    pub(super) metrics: &'a [MetricId],
    pub(super) step: Duration,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Asked<'_> {
    /// Numbers of the sheets that tell it.
    pub(super) fn sheets(&self) -> Vec<i64> {
        let metrics = [TIMES].into_iter().chain(self.metrics.iter().copied());
        metrics.map(|metric| metric.0.into()).collect()
    }

    fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        from <= self.to && self.from <= to
    }
}

/// A GPU that has a number.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) number: i64,
    /// Of all its stretches, in milliseconds.
    pub(super) lengths: Arc<[i64]>,
}

/// Number of a GPU, and start of a stretch.
pub(super) type StretchKey = (i64, i64);

/// The group in whose sheets it belongs.
pub(super) fn group_of(step: Duration, (number, start): StretchKey) -> Group {
    Group::of(step, number, Timestamp(start))
}

/// Places of GPUs by their numbers.
pub(super) fn places(known: &[Option<Known>]) -> HashMap<i64, usize> {
    let place = |(place, gpu): (usize, &Option<Known>)| Some((gpu.as_ref()?.number, place));
    known.iter().enumerate().filter_map(place).collect()
}

/// Where stretches of these GPUs and of some lengths may lie. `ends`: the first and the last start of anybody.
pub(super) fn keys(
    gpus: &[GpuUuid],
    known: &[Option<Known>],
    ends: (i64, i64),
    (from, to): (Timestamp, Timestamp),
    is_wanted: impl Fn(i64) -> bool,
) -> Vec<StretchKey> {
    let (first, last) = (Timestamp(ends.0.max(from.0)), Timestamp(ends.1.min(to.0)));
    let mut keys = Vec::new();
    for (gpu, known) in gpus.iter().zip(known) {
        let Some(known) = known else { continue };
        let lengths = known
            .lengths
            .iter()
            .copied()
            .filter(|length| is_wanted(*length));
        let starts = possible_starts(gpu, lengths, first, last);
        keys.extend(starts.into_iter().map(|start| (known.number, start)));
    }
    keys
}

/// The first and the last start of a chunk, of sums that lie alone, and the first and the last window of sheets.
pub(super) type Ends = (
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

/// The first and the last start of a stretch of anybody.
pub(super) fn of_anybody(step: Duration, ends: Ends) -> Option<(i64, i64)> {
    let last_in_window = sheet::window(step).as_millis() as i64 - 1;
    let in_sheets = ends.5.map(|window| window + last_in_window);
    let first = [ends.0, ends.2, ends.4].into_iter().flatten().min()?;
    let last = [ends.1, ends.3, in_sheets].into_iter().flatten().max()?;
    Some((first, last))
}

/// Sheets of a group.
pub(super) struct Found {
    /// Some of its sums lie alone.
    has_late: bool,
    /// `None`: none of their samples is asked for.
    sheets: Option<Arc<Sheets>>,
}

impl Found {
    /// All that there is, if any of it is asked for.
    pub(super) fn into_sheets(self) -> Option<Arc<Sheets>> {
        self.sheets
    }
}

/// Window, cohort, metric, whether there are late ones (0 or 1), and the sheet where its samples are asked for.
pub(super) type SheetRow = (i64, i64, i64, i64, Option<Vec<u8>>);

/// Sheets by their group, whatever the order of the rows.
pub(super) fn open(step: Duration, rows: Vec<SheetRow>) -> StoreResult<HashMap<Group, Found>> {
    let mut opened: HashMap<Group, (bool, Option<Sheets>)> = HashMap::new();
    let is_times = |row: &SheetRow| row.2 == i64::from(TIMES.0);
    let (times, of_metrics): (Vec<SheetRow>, Vec<SheetRow>) = rows.into_iter().partition(is_times);
    for (window, cohort, _, has_late, blob) in times {
        let window = Timestamp(window);
        let sheets = blob.map(|blob| Sheets::open(step, &blob)).transpose();
        let sheets = sheets.map_err(|error| damaged(step, window, &error))?;
        opened.insert(Group { window, cohort }, (has_late != 0, sheets));
    }
    for (window, cohort, metric, _, blob) in of_metrics {
        let window = Timestamp(window);
        let there = opened.get_mut(&Group { window, cohort });
        if let (Some((_, Some(sheets))), Some(blob)) = (there, blob) {
            sheets.add(MetricId(metric as u16), &blob);
        }
    }
    let found = |(group, (has_late, sheets)): (Group, (bool, Option<Sheets>))| {
        let sheets = sheets.map(Arc::new);
        (group, Found { has_late, sheets })
    };
    Ok(opened.into_iter().map(found).collect())
}

/// Without its times a sheet says nothing.
fn damaged(step: Duration, window: Timestamp, error: &ChunkError) -> StoreError {
    StoreError::Corrupt(format!(
        "the sums by {} s of what began from {window} on: {error}; `entrenar recover` leaves them out",
        step.as_secs()
    ))
}

/// What is asked for, as it is found.
pub(super) struct Gathering<'a> {
    asked: Asked<'a>,
    memory: &'a Fresh,
    places: HashMap<i64, usize>,
    /// Where sums may lie.
    summed: Vec<StretchKey>,
    /// Those that are in memory, which lie alone.
    fresh: Vec<(StretchKey, StoredRollup)>,
    /// Where sums may lie alone that are not.
    loose: Vec<StretchKey>,
    /// Where samples may lie that are too far apart for sums by this step.
    unsummed: Vec<StretchKey>,
    found: Vec<Vec<StoredRollup>>,
}

/// Number of a GPU, stretch, first and last sample, and the sums; `None`: a chunk that has none.
pub(super) type NumberedRollup = (i64, i64, i64, i64, Option<Vec<u8>>);

impl<'a> Gathering<'a> {
    /// What is in memory; the database must be read after it. `known`: what is known of each GPU that is asked about;
    /// `ends`: the first and the last start of anybody.
    pub(super) fn new(
        asked: Asked<'a>,
        known: &[Option<Known>],
        ends: (i64, i64),
        memory: &'a Fresh,
    ) -> Self {
        let longest_ms = sheet::longest(asked.step).as_millis() as i64;
        let extent = (asked.from, asked.to);
        let is_summed = |length| length <= longest_ms;
        let summed = keys(asked.gpus, known, ends, extent, is_summed);
        let (fresh, loose) = memory.find(asked.step, &summed);
        let n_stretches = summed.len() / asked.gpus.len().max(1) + 1;
        Self {
            places: places(known),
            summed,
            fresh,
            loose,
            unsummed: keys(asked.gpus, known, ends, extent, |length| {
                longest_ms < length
            }),
            found: asked
                .gpus
                .iter()
                .map(|_| Vec::with_capacity(n_stretches))
                .collect(),
            asked,
            memory,
        }
    }

    /// Groups whose sheets are to be read.
    pub(super) fn groups(&self) -> BTreeSet<Group> {
        let step = self.asked.step;
        self.summed.iter().map(|key| group_of(step, *key)).collect()
    }

    /// Those that were read. Where there are sheets and nothing late, there is nothing else.
    pub(super) fn sheets(&mut self, there: &HashMap<Group, Found>) {
        for sheets in there.values().filter_map(|found| found.sheets.as_ref()) {
            for (n, line) in sheets.lines().iter().enumerate() {
                let place = self.places.get(&line.key.gpu);
                if let Some(place) = place.filter(|_| self.asked.overlaps(line.from, line.to)) {
                    self.found[*place].push(StoredRollup {
                        stretch: line.key.stretch,
                        from: line.from,
                        to: line.to,
                        sums: Some(Sums::Together(Arc::clone(sheets), n)),
                    });
                }
            }
        }
        let step = self.asked.step;
        let is_all = |key: &StretchKey| {
            let there = there.get(&group_of(step, *key));
            there.is_some_and(|found| !found.has_late)
        };
        self.loose.retain(|key| !is_all(key));
        for ((number, _), stored) in std::mem::take(&mut self.fresh) {
            if self.asked.overlaps(stored.from, stored.to) {
                self.put(number, stored, true);
            }
        }
    }

    /// Where sums are to be looked for that lie alone, and where chunks that have none.
    pub(super) fn left(&self) -> Option<(&[StretchKey], &[StretchKey])> {
        let is_all = self.loose.is_empty() && self.unsummed.is_empty();
        (!is_all).then_some((&self.loose, &self.unsummed))
    }

    /// Those that were found there.
    pub(super) fn rows(&mut self, rows: Vec<NumberedRollup>) {
        for (number, stretch, from, to, blob) in rows {
            let stored = rollup((stretch, from, to, blob.as_deref()));
            if let Some(blob) = &blob {
                let key = (number, stretch);
                self.memory.read(self.asked.step, key, blob, &stored);
            }
            self.put(number, stored, blob.is_some());
        }
    }

    fn put(&mut self, number: i64, stored: StoredRollup, is_summed: bool) {
        let Some(place) = self.places.get(&number) else {
            return;
        };
        let of_gpu = &mut self.found[*place];
        let mut known = of_gpu.iter();
        match known.position(|other| other.stretch == stored.stretch) {
            // What lies alone came later than the sheet.
            Some(same) if is_summed => of_gpu[same] = stored,
            // Stretches of two lengths began together, and there are sums of both.
            Some(_) => {}
            None => of_gpu.push(stored),
        }
    }

    /// Of each GPU, oldest first.
    pub(super) fn finish(mut self) -> Vec<Vec<StoredRollup>> {
        for of_gpu in &mut self.found {
            of_gpu.sort_by_key(|stored| stored.from);
        }
        self.found
    }
}
