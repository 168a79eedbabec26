//! What is read of the head: what is not sealed yet, or only just.

use entrenar::gpu::GpuUuid;
use entrenar::metric::{MetricId, Pace};
use entrenar::unit::Timestamp;

use super::Head;
use super::open::OpenStretch;
use crate::chunk::Sample;
use crate::query::Point;
use crate::query::bucket::Bucket;
use crate::query::recent::{Recent, SumUp};
use crate::query::step::Steps;

impl Head {
    /// One metric's values that are not in the store yet, ascending, between two instants, both included. Some may
    /// be in the store as well: a query drops doubles by time.
    pub fn range(
        &self,
        gpu: &GpuUuid,
        metric: MetricId,
        from: Timestamp,
        to: Timestamp,
    ) -> Vec<Point> {
        let mut points = Vec::new();
        for stretch in self.overlapping(gpu, from, to) {
            points.reserve(stretch.len());
            let more = |some: &[Point]| points.extend_from_slice(some);
            stretch.each_of(metric, (from, to), more);
        }
        points.sort_by_key(|(at, _)| *at);
        points.dedup_by_key(|(at, _)| *at);
        points
    }

    /// The same summed up, of every step once; `None` where samples came late and must be put in order first. Several times
    /// faster than one by one.
    pub fn sums(
        &self,
        gpu: &GpuUuid,
        metric: MetricId,
        (from, to): (Timestamp, Timestamp),
        steps: &Steps,
    ) -> Option<Vec<Bucket>> {
        let mut stretches: Vec<_> = self.overlapping(gpu, from, to).collect();
        stretches.sort_unstable_by_key(|stretch| stretch.start);
        let are_apart = stretches
            .windows(2)
            .all(|pair| pair[0].start + pair[0].length <= pair[1].start);
        let mut sums = SumUp::new(steps);
        let are_ascending = are_apart
            && stretches
                .iter()
                .all(|stretch| stretch.sum_up(metric, (from, to), &mut sums));
        are_ascending.then(|| sums.finish())
    }

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

    /// One of both: summed up, where steps are given and it can be.
    pub fn recent(
        &self,
        gpu: &GpuUuid,
        metric: MetricId,
        extent: (Timestamp, Timestamp),
        steps: Option<&Steps>,
    ) -> Recent {
        let sums = steps.and_then(|steps| self.sums(gpu, metric, extent, steps));
        let points = || Recent::Points(self.range(gpu, metric, extent.0, extent.1));
        sums.map_or_else(points, Recent::Sums)
    }

    /// Every sample that is not in the store yet, ascending, between two instants, both included. Some may be in the store
    /// as well.
    pub fn samples(&self, gpu: &GpuUuid, from: Timestamp, to: Timestamp) -> Vec<Sample> {
        let overlapping = self.overlapping(gpu, from, to);
        let mut samples: Vec<_> = overlapping.flat_map(OpenStretch::samples).collect();
        samples.retain(|(at, _)| from <= *at && *at <= to);
        samples.sort_by_key(|(at, _)| *at);
        samples.dedup_by_key(|(at, _)| *at);
        samples
    }

    fn overlapping(
        &self,
        gpu: &GpuUuid,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = &OpenStretch> {
        let stretches = self.gpus.get(gpu).into_iter().flat_map(|g| &g.stretches);
        stretches.filter(move |stretch| stretch.overlaps(from, to))
    }
}
