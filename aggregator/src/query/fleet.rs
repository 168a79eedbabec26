//! One metric of many GPUs: the store is asked for a page of all of them at once.

use std::sync::Arc;
use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::recent::Recent;
use super::shelf::{Shelf, stocked};
use super::source::{PAGE_STEPS, Source, sums_of};
use super::step::Steps;
use super::{QueryError, Question};
use crate::store::Store;

/// GPUs of which a question reads samples at once where it asks about many …
const GPUS_AT_ONCE: u128 = 64;

/// … and hours of history of them, together: some ten megabytes.
const GPU_HOURS_AT_ONCE: u128 = 128;

/// The same where sums may stand for samples.
const SUMMED_GPUS_AT_ONCE: u128 = 1024;
const SUMMED_GPU_HOURS_AT_ONCE: u128 = 1024;

/// How many GPUs' history is read at once between two instants, in these steps.
pub fn n_at_once((from, to): (Timestamp, Timestamp), steps: &Steps) -> usize {
    let hours = 1 + to.since(from).as_millis() / Duration::from_hours(1).as_millis();
    let (gpus, gpu_hours) = match sums_of(steps) {
        Some(_) => (SUMMED_GPUS_AT_ONCE, SUMMED_GPU_HOURS_AT_ONCE),
        None => (GPUS_AT_ONCE, GPU_HOURS_AT_ONCE),
    };
    (gpu_hours / hours).clamp(1, gpus) as usize
}

/// Some GPUs' series of one metric, as they are to be read.
#[derive(Clone, Copy)]
pub struct Fleet<'q> {
    pub gpus: &'q [GpuUuid],
    pub metric: MetricId,
    /// Both included.
    pub extent: (Timestamp, Timestamp),
    /// Into which they will be folded …
    pub steps: &'q Steps,
    /// … whoever held a GPU when.
    pub is_whole: bool,
}

impl Fleet<'_> {
    /// Whether what the head has may come summed up: it must be in the same page as all that is stored.
    fn may_be_summed(&self) -> bool {
        let is_page = |step| self.extent.1.since(self.extent.0) < step * (PAGE_STEPS - 1);
        self.is_whole && sums_of(self.steps).is_some_and(is_page)
    }

    /// The first page of all is read at once. `recent`: of each what the head has of this time, asked before.
    async fn read<'a>(
        &self,
        store: &'a dyn Store,
        recent: Vec<Recent>,
    ) -> Result<Vec<Read<'a>>, QueryError> {
        let question = |gpu: &GpuUuid| Question {
            gpu: gpu.clone(),
            metric: self.metric,
            from: self.extent.0,
            to: self.extent.1,
        };
        let Some(first) = self.gpus.first() else {
            return Ok(Vec::new());
        };
        let first = Source::new(store, question(first), Vec::new());
        let page = first.in_steps(self.steps, Vec::new()).first_page();
        let shelves = stocked(store, self.gpus, self.metric, page).await?;
        let all = self.gpus.iter().zip(shelves).zip(recent);
        let read = |((gpu, shelf), head): ((_, Shelf<'a>), Recent)| Read {
            is_crossed: head.crosses(&shelf.lying(page)),
            source: Source::of(Arc::new(shelf), question(gpu), head),
        };
        Ok(all.map(read).collect())
    }
}

struct Read<'a> {
    source: Source<'a>,
    /// What the head has comes summed up, and the store has something of the same time.
    is_crossed: bool,
}

/// One metric of some GPUs, in their order. `head` tells what the head has of these GPUs between the two instants, summed up
/// where steps are given and it can be; it is asked before the store is.
pub async fn of_many<'a, E, F>(
    store: &'a dyn Store,
    fleet: Fleet<'_>,
    head: impl Fn(Vec<GpuUuid>, Option<Steps>) -> F,
) -> Result<Vec<Source<'a>>, E>
where
    E: From<QueryError>,
    F: Future<Output = Result<Vec<Recent>, E>>,
{
    let summed = fleet.may_be_summed().then_some(*fleet.steps);
    let recent = head(fleet.gpus.to_vec(), summed).await?;
    let mut read = fleet.read(store, recent).await?;
    let crossed = (0..read.len()).filter(|place| read[*place].is_crossed);
    let crossed: Vec<usize> = crossed.collect();
    if !crossed.is_empty() {
        let gpus: Vec<GpuUuid> = crossed.iter().map(|at| fleet.gpus[*at].clone()).collect();
        let recent = head(gpus.clone(), None).await?;
        let gpus = &gpus;
        let again = Fleet { gpus, ..fleet }.read(store, recent).await?;
        for (place, again) in crossed.into_iter().zip(again) {
            read[place] = again;
        }
    }
    Ok(read.into_iter().map(|read| read.source).collect())
}
