//! A stretch that is not sealed yet: packed, and still open for what comes late.

use std::time::Duration;

use entrenar::gpu::Values;
use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::Group;
use super::run::Run;
use crate::chunk::{self, ChunkError, Profile, Sample};
use crate::query::Point;
use crate::query::recent::SumUp;

/// Ascending runs in a stretch. Late data goes into a run of its own; when there are more runs than this, they are
/// unpacked and packed again as one.
const MAX_RUNS: usize = 6;

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
            newest: Run::new(length),
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
            if self.newest.end() < run.end() {
                std::mem::swap(&mut self.newest, &mut run);
            }
            self.late.push(run);
        }
    }

    /// How many samples it holds.
    pub(super) fn len(&self) -> usize {
        self.runs().map(Run::len).sum()
    }

    pub(super) fn n_series(&self) -> usize {
        let of_runs = self.runs().map(Run::n_series);
        of_runs.max().unwrap_or(0)
    }

    /// When its samples were, ascending.
    pub(super) fn times(&self) -> Vec<Timestamp> {
        let offsets = self.runs().flat_map(Run::offsets);
        let mut times: Vec<Timestamp> = offsets.map(|offset| self.at(offset)).collect();
        times.sort();
        times
    }

    /// As a chunk.
    pub(super) fn encode(
        &self,
        times: &[Timestamp],
        profile: Profile,
    ) -> Result<Vec<u8>, ChunkError> {
        let Some(runs) = self.runs_in_order() else {
            return chunk::encode(&self.samples(), profile);
        };
        let column = |metric, values: &mut Vec<_>| {
            for run in &runs {
                run.column(metric, values);
            }
        };
        chunk::encode_columns(times, column, profile)
    }

    /// All samples, ascending.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(self.len());
        for run in self.runs() {
            let first = samples.len();
            let times = run.offsets().into_iter().map(|offset| self.at(offset));
            samples.extend(times.map(|at| (at, Values::default())));
            let rows = &mut samples[first..];
            run.each(|row, metric, value| rows[row].1.set(metric, value));
        }
        samples.sort_by_key(|sample| sample.0);
        samples
    }

    /// Shows one metric's values between two instants, both included, some dozens at a time; ascending within a run only.
    pub(super) fn each_of(
        &self,
        metric: MetricId,
        extent: (Timestamp, Timestamp),
        mut show: impl FnMut(&[Point]),
    ) {
        for run in self.runs() {
            run.each_of(metric, self.start, extent, &mut show);
        }
    }

    /// Sums them up. Says `false`, and adds nothing, where runs lie within one another.
    pub(super) fn sum_up(
        &self,
        metric: MetricId,
        extent: (Timestamp, Timestamp),
        sums: &mut SumUp<'_>,
    ) -> bool {
        // Nearly always.
        if self.late.is_empty() {
            self.newest.sum_up(metric, self.start, extent, sums);
            return true;
        }
        let runs = self.runs_in_order();
        for run in runs.iter().flatten() {
            run.sum_up(metric, self.start, extent, sums);
        }
        runs.is_some()
    }

    /// Its runs, each later than the one before; `None` where they lie within one another.
    fn runs_in_order(&self) -> Option<Vec<&Run>> {
        let mut runs: Vec<&Run> = self.runs().filter(|run| run.len() > 0).collect();
        runs.sort_unstable_by_key(|run| run.end());
        let are_apart = runs.windows(2).all(|pair| pair[0].end() <= pair[1].first());
        are_apart.then_some(runs)
    }

    /// Whether it has time in common with what lies between two instants, both included.
    pub(super) fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        self.start <= to && from < self.start + self.length
    }

    /// Memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        let late = self.late.capacity() * size_of::<Run>();
        size_of::<Self>() + late + self.runs().map(Run::n_bytes).sum::<usize>()
    }

    fn offset(&self, at: Timestamp) -> u32 {
        (at.0 - self.start.0) as u32
    }

    fn at(&self, offset: u32) -> Timestamp {
        Timestamp(self.start.0 + i64::from(offset))
    }

    fn new_run(&self) -> Run {
        Run::new(self.length)
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        std::iter::once(&self.newest).chain(&self.late)
    }

    fn insert(&mut self, offset: u32, values: &Values) {
        if self.newest.end() <= offset {
            return self.newest.push(offset, values);
        }
        // Of the runs that end before the sample the latest: the others stay free for what is later still.
        let fitting = self.late.iter_mut().filter(|run| run.end() <= offset);
        if let Some(run) = fitting.max_by_key(|run| run.end()) {
            return run.push(offset, values);
        }
        let mut run = self.new_run();
        run.push(offset, values);
        self.late.reserve_exact(1);
        self.late.push(run);
        if self.late.len() >= MAX_RUNS {
            self.pack();
        }
    }

    fn pack(&mut self) {
        let mut run = self.new_run();
        for (at, values) in self.samples() {
            run.push(self.offset(at), &values);
        }
        (self.newest, self.late) = (run, Vec::new());
    }
}
