//! A stretch that is not sealed yet: packed, and still open for what comes late.

use std::time::Duration;

use entrenar::gpu::Values;
use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::Group;
use super::tail::Tail;
use crate::chunk::Sample;

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
    runs: Vec<Run>,
}

/// Samples in ascending order.
#[derive(Clone, Debug, Default)]
struct Run {
    /// Milliseconds from the start of the stretch.
    offsets: Vec<u32>,
    tails: Vec<Tail>,
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
            runs: Vec::new(),
        }
    }

    pub(super) fn contains(&self, at: Timestamp) -> bool {
        let offset = self.offset(at);
        self.runs
            .iter()
            .any(|run| run.offsets.binary_search(&offset).is_ok())
    }

    /// Adds a sample that is not there yet.
    pub(super) fn push(&mut self, at: Timestamp, values: &Values, now: Timestamp, group: Group) {
        self.touched_at = self.touched_at.max(now);
        self.last_group = self.last_group.max(group);
        self.insert(self.offset(at), values);
    }

    /// How many samples it holds.
    pub(super) fn len(&self) -> usize {
        self.runs.iter().map(|run| run.offsets.len()).sum()
    }

    pub(super) fn n_series(&self) -> usize {
        self.runs
            .iter()
            .map(|run| run.tails.len())
            .max()
            .unwrap_or(0)
    }

    /// All samples, ascending.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(self.len());
        for run in &self.runs {
            let first = samples.len();
            samples.extend(run.times(self.start).map(|at| (at, Values::default())));
            for tail in &run.tails {
                let rows = samples[first..].iter_mut();
                rows.zip(tail.values())
                    .for_each(|(row, value): (&mut Sample, _)| row.1.set(tail.metric, value));
            }
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
        for run in &self.runs {
            let Some(tail) = run.tails.iter().find(|tail| tail.metric == metric) else {
                continue;
            };
            let values = run.times(self.start).zip(tail.values());
            points.extend(
                values
                    .filter(|(at, _)| from <= *at && *at <= to)
                    .filter_map(|(at, value)| Some((at, value?))),
            );
        }
    }

    /// Memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        let of_run = |run: &Run| {
            size_of::<Run>()
                + run.offsets.capacity() * size_of::<u32>()
                + run.tails.iter().map(Tail::bytes).sum::<usize>()
        };
        size_of::<Self>() + self.runs.iter().map(of_run).sum::<usize>()
    }

    fn offset(&self, at: Timestamp) -> u32 {
        (at.0 - self.start.0) as u32
    }

    fn insert(&mut self, offset: u32, values: &Values) {
        // Of the runs that end before the sample the latest: the others stay free for what is later still.
        let fitting = self
            .runs
            .iter_mut()
            .filter(|run| run.offsets.last().is_some_and(|last| *last < offset))
            .max_by_key(|run| run.offsets.last().copied());
        if let Some(run) = fitting {
            run.push(offset, values);
            return;
        }
        let mut run = Run::default();
        run.push(offset, values);
        self.runs.push(run);
        if self.runs.len() > MAX_RUNS {
            self.pack();
        }
    }

    fn pack(&mut self) {
        let mut run = Run::default();
        for (at, values) in self.samples() {
            run.push(self.offset(at), &values);
        }
        self.runs = vec![run];
    }
}

impl Run {
    fn push(&mut self, offset: u32, values: &Values) {
        let mut known = 0;
        for tail in &mut self.tails {
            let value = values.get(tail.metric);
            known += usize::from(value.is_some());
            tail.push(value);
        }
        if known < values.iter().count() {
            self.add_tails(values);
        }
        if self.offsets.len() == self.offsets.capacity() {
            self.offsets.reserve_exact(64);
        }
        self.offsets.push(offset);
    }

    /// Starts a tail for every metric that is there for the first time.
    fn add_tails(&mut self, values: &Values) {
        for (metric, value) in values.iter() {
            if self.tails.iter().all(|tail| tail.metric != metric) {
                let mut tail = Tail::new(metric, self.offsets.len() as u32);
                tail.push(Some(value));
                self.tails.push(tail);
            }
        }
    }

    fn times(&self, start: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        self.offsets
            .iter()
            .map(move |offset| Timestamp(start.0 + i64::from(*offset)))
    }
}
