//! A stretch that is not sealed yet: packed, and still open for what comes late.

use std::time::Duration;

use entrenar::gpu::{GpuUuid, Values};
use entrenar::metric::{MetricId, Pace};
use entrenar::unit::Timestamp;

use super::rows::Rows;
use super::{Group, Head};
use crate::chunk::Sample;

/// Ascending runs in a stretch. Late data goes into a run of its own; when there are more runs than this, they are
/// unpacked and packed again as one.
const MAX_RUNS: usize = 6;

impl Head {
    /// What one metric was when it was last read, and when that was. A fast metric is read at every tick, so one that the
    /// newest sample has not is not known any more; a slow one was read some ticks ago.
    pub fn last(&self, gpu: &GpuUuid, metric: MetricId) -> Option<(Timestamp, i64)> {
        let held = self.gpus.get(gpu)?;
        let at = held.latest_at?;
        if let Some(value) = held.latest.get(metric) {
            return Some((at, value));
        }
        let is_slow = metric.def().is_some_and(|def| def.pace == Pace::Slow);
        let slow = is_slow.then(|| held.slow.get(metric)).flatten()?;
        Some((held.slow_at?, slow))
    }

    /// Every sample that is not in the store yet, ascending, between two instants, both included. Some may be in the store
    /// as well.
    pub fn samples(&self, gpu: &GpuUuid, from: Timestamp, to: Timestamp) -> Vec<Sample> {
        let stretches = self.gpus.get(gpu).into_iter().flat_map(|g| &g.stretches);
        let overlapping = stretches.filter(|stretch| stretch.overlaps(from, to));
        let mut samples: Vec<_> = overlapping.flat_map(OpenStretch::samples).collect();
        samples.retain(|(at, _)| from <= *at && *at <= to);
        samples.sort_by_key(|(at, _)| *at);
        samples.dedup_by_key(|(at, _)| *at);
        samples
    }
}

/// Part of one GPU's past between two instants.
#[derive(Clone, Debug)]
pub(super) struct OpenStretch {
    pub(super) start: Timestamp,
    pub(super) length: Duration,
    /// When the first and the latest sample reached us.
    pub(super) opened_at: Timestamp,
    pub(super) touched_at: Timestamp,
    /// The group commits that carried the first and the latest sample.
    pub(super) first_group: Group,
    pub(super) last_group: Group,
    /// On its way to the store; nothing is added any more.
    pub(super) sealing: bool,
    /// Which nearly every sample is added to.
    newest: Run,
    /// What came late. All of it lies before the end of the newest run.
    late: Vec<Run>,
}

/// Samples in ascending order.
#[derive(Clone, Debug, Default)]
struct Run {
    /// Later than all of them, in milliseconds from the start of the stretch; 0 for none.
    end: u32,
    /// Milliseconds from the start of the stretch.
    offsets: Vec<u32>,
    rows: Rows,
}

impl OpenStretch {
    pub(super) fn new(start: Timestamp, length: Duration, now: Timestamp, group: Group) -> Self {
        Self {
            start,
            length,
            opened_at: now,
            touched_at: now,
            first_group: group,
            last_group: group,
            sealing: false,
            newest: Run::default(),
            late: Vec::new(),
        }
    }

    /// Whether a sample of this time belongs here.
    pub(super) fn covers(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.start + self.length
    }

    /// Whether a sample of this time, which it covers, is here.
    pub(super) fn contains(&self, at: Timestamp) -> bool {
        let offset = self.offset(at);
        self.runs().any(|run| run.contains(offset))
    }

    /// Adds a sample that is not there yet.
    pub(super) fn push(&mut self, at: Timestamp, values: &Values, now: Timestamp, group: Group) {
        self.touched_at = self.touched_at.max(now);
        self.last_group = self.last_group.max(group);
        self.insert(self.offset(at), values);
    }

    /// Takes in the samples of another one of the same time, of which it has none.
    pub(super) fn join(&mut self, other: Self) {
        self.opened_at = self.opened_at.min(other.opened_at);
        self.touched_at = self.touched_at.max(other.touched_at);
        self.first_group = self.first_group.min(other.first_group);
        self.last_group = self.last_group.max(other.last_group);
        for mut run in std::iter::once(other.newest).chain(other.late) {
            if self.newest.end < run.end {
                std::mem::swap(&mut self.newest, &mut run);
            }
            self.late.push(run);
        }
    }

    /// How many samples it holds.
    pub(super) fn len(&self) -> usize {
        self.runs().map(|run| run.offsets.len()).sum()
    }

    pub(super) fn n_series(&self) -> usize {
        let of_runs = self.runs().map(|run| run.rows.n_series());
        of_runs.max().unwrap_or(0)
    }

    /// All samples, ascending.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(self.len());
        for run in self.runs() {
            let first = samples.len();
            let times = (0..run.offsets.len()).map(|row| run.at(row, self.start));
            samples.extend(times.map(|at| (at, Values::default())));
            let rows = &mut samples[first..];
            run.rows
                .each(|row, metric, value| rows[row].1.set(metric, value));
        }
        samples.sort_by_key(|sample| sample.0);
        samples
    }

    /// Appends one metric's values between two instants, both included; ascending within a run only.
    pub(super) fn points(
        &self,
        metric: MetricId,
        from: Timestamp,
        to: Timestamp,
        points: &mut Vec<(Timestamp, i64)>,
    ) {
        if !self.overlaps(from, to) {
            return;
        }
        points.reserve(self.len());
        for run in self.runs() {
            run.rows.each_of(metric, |row, value| {
                let at = run.at(row, self.start);
                points.extend((from <= at && at <= to).then_some((at, value)));
            });
        }
    }

    /// Whether it has time in common with what lies between two instants, both included.
    fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        self.start <= to && from < self.start + self.length
    }

    /// Memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        let of_run = |run: &Run| {
            size_of::<Run>() + run.offsets.capacity() * size_of::<u32>() + run.rows.bytes()
        };
        size_of::<Self>() + self.runs().map(of_run).sum::<usize>()
    }

    fn offset(&self, at: Timestamp) -> u32 {
        (at.0 - self.start.0) as u32
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        std::iter::once(&self.newest).chain(&self.late)
    }

    fn insert(&mut self, offset: u32, values: &Values) {
        if self.newest.end <= offset {
            return self.newest.push(offset, values);
        }
        // Of the runs that end before the sample the latest: the others stay free for what is later still.
        let fitting = self.late.iter_mut().filter(|run| run.end <= offset);
        if let Some(run) = fitting.max_by_key(|run| run.end) {
            return run.push(offset, values);
        }
        let mut run = Run::default();
        run.push(offset, values);
        self.late.push(run);
        if self.late.len() >= MAX_RUNS {
            self.pack();
        }
    }

    fn pack(&mut self) {
        let mut run = Run::default();
        for (at, values) in self.samples() {
            run.push(self.offset(at), &values);
        }
        (self.newest, self.late) = (run, Vec::new());
    }
}

impl Run {
    fn push(&mut self, offset: u32, values: &Values) {
        self.rows.push(values);
        if self.offsets.len() == self.offsets.capacity() {
            self.offsets.reserve_exact(64);
        }
        self.offsets.push(offset);
        self.end = offset.saturating_add(1);
    }

    fn contains(&self, offset: u32) -> bool {
        offset < self.end && self.offsets.binary_search(&offset).is_ok()
    }

    fn at(&self, row: usize, start: Timestamp) -> Timestamp {
        Timestamp(start.0 + i64::from(self.offsets[row]))
    }
}
