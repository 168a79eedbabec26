//! What is read of one GPU at a time, for every metric that is asked about.
//!
//! A chunk holds all metrics of its stretch. Who asks for several reads them side by side, page by page, from one shelf:
//! the store is asked once, and a checksum is taken once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::{Point, QueryError};
use crate::chunk::{ChunkError, Opened, Profile};
use crate::store::{SealedChunk, Store, StoredRollup};

/// Answers of the store that are kept: the page that is being read, and stretches of it that are read sample by sample.
const KEPT: usize = 8;

/// What the store is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// `None`: for samples.
    pub(super) step: Option<Duration>,
}

/// A stored stretch.
pub(super) struct Stored {
    pub(super) stretch: Timestamp,
    pub(super) n_samples: usize,
    opened: Result<Opened, ChunkError>,
}

impl Stored {
    fn open(chunk: SealedChunk) -> Self {
        Self {
            stretch: chunk.stretch,
            n_samples: chunk.n_samples as usize,
            opened: Opened::new(chunk.blob),
        }
    }

    /// One metric's samples, and how they are kept.
    pub(super) fn metric(&self, metric: MetricId) -> Result<(Vec<Point>, Profile), ChunkError> {
        let opened = self.opened.as_ref().map_err(|error| *error)?;
        Ok((opened.metric(metric)?, opened.profile()))
    }
}

/// One GPU's history, as several series of it are read.
pub(super) struct Shelf<'a> {
    store: &'a dyn Store,
    gpu: GpuUuid,
    metrics: Arc<[MetricId]>,
    chunks: Mutex<Kept<Stored>>,
    rollups: Mutex<Kept<StoredRollup>>,
}

type Kept<T> = VecDeque<(Key, Arc<Vec<T>>)>;

impl<'a> Shelf<'a> {
    /// Nothing read yet.
    pub(super) fn new(store: &'a dyn Store, gpu: GpuUuid, metrics: Arc<[MetricId]>) -> Self {
        Self {
            store,
            gpu,
            metrics,
            chunks: Mutex::default(),
            rollups: Mutex::default(),
        }
    }

    pub(super) fn gpu(&self) -> &GpuUuid {
        &self.gpu
    }

    pub(super) async fn chunks(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Arc<Vec<Stored>>, QueryError> {
        let step = None;
        let key = Key { from, to, step };
        if let Some(known) = find(&self.chunks, key) {
            return Ok(known);
        }
        let found = self.store.chunks(&self.gpu, from, to).await?;
        let opened = found.into_iter().map(Stored::open).collect();
        Ok(keep(&self.chunks, key, opened))
    }

    /// What lies here already of a page of sums.
    pub(super) fn lying(&self, page: Key) -> Arc<Vec<StoredRollup>> {
        find(&self.rollups, page).unwrap_or_default()
    }

    pub(super) async fn rollups(
        &self,
        step: Duration,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Arc<Vec<StoredRollup>>, QueryError> {
        let key = Key {
            from,
            to,
            step: Some(step),
        };
        if let Some(known) = find(&self.rollups, key) {
            return Ok(known);
        }
        let gpu = std::slice::from_ref(&self.gpu);
        let asked = self.store.rollups(gpu, &self.metrics, step, from, to);
        let found = asked.await?.into_iter().flatten().collect();
        Ok(keep(&self.rollups, key, found))
    }
}

/// Shelves of some GPUs on which one page lies already: the store was asked once for all of them.
pub(super) async fn stocked<'a>(
    store: &'a dyn Store,
    gpus: &[GpuUuid],
    metric: MetricId,
    page: Key,
) -> Result<Vec<Shelf<'a>>, QueryError> {
    let metrics: Arc<[MetricId]> = [metric].into();
    let shelf = |gpu: &GpuUuid| Shelf::new(store, gpu.clone(), Arc::clone(&metrics));
    let shelves: Vec<Shelf<'a>> = gpus.iter().map(shelf).collect();
    let Key { from, to, step } = page;
    if let Some(step) = step {
        let found = store.rollups(gpus, &metrics, step, from, to).await?;
        for (shelf, of_gpu) in shelves.iter().zip(found) {
            keep(&shelf.rollups, page, of_gpu);
        }
    } else {
        let found = store.chunks_of(gpus, from, to).await?;
        for (shelf, of_gpu) in shelves.iter().zip(found) {
            let opened = of_gpu.into_iter().map(Stored::open).collect();
            keep(&shelf.chunks, page, opened);
        }
    }
    Ok(shelves)
}

fn find<T>(kept: &Mutex<Kept<T>>, key: Key) -> Option<Arc<Vec<T>>> {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, found) = kept.iter().find(|(of, _)| *of == key)?;
    Some(Arc::clone(found))
}

fn keep<T>(kept: &Mutex<Kept<T>>, key: Key, found: Vec<T>) -> Arc<Vec<T>> {
    let found = Arc::new(found);
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back((key, Arc::clone(&found)));
    found
}
