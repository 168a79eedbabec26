//! Many GPUs, read one after the other: what must be asked of the line and of the store is asked for a batch at a time.

use std::collections::VecDeque;
use std::vec::IntoIter;

use entrenar::metric::Metric;
use entrenar::unit::Timestamp;

use crate::query::fleet::{Fleet, n_at_once};
use crate::query::select::Seat;
use crate::query::source::Source;
use crate::query::step::Steps;
use crate::web::Web;
use crate::web::api::Answer;
use crate::web::history;

/// One metric of many GPUs, on its way into steps.
pub(super) struct Reading<'a> {
    web: &'a Web,
    metric: &'static Metric,
    extent: (Timestamp, Timestamp),
    steps: Steps,
    is_whole: bool,
    seats: IntoIter<Placed<'a>>,
    ready: VecDeque<(Placed<'a>, Source<'a>)>,
}

/// A GPU, and its place among those that were asked about.
type Placed<'a> = (usize, &'a Seat);

impl<'a> Reading<'a> {
    /// `extent`: what must be read for the steps. `is_whole`: it does not matter who held a GPU when.
    pub(super) async fn new(
        web: &'a Web,
        metric: &'static Metric,
        extent: (Timestamp, Timestamp),
        steps: Steps,
        seats: Vec<&'a Seat>,
        is_whole: bool,
    ) -> Answer<Self> {
        let mut seats: Vec<Placed<'a>> = seats.into_iter().enumerate().collect();
        if seats.len() > n_at_once(extent, &steps) {
            let gpus: Vec<_> = seats.iter().map(|(_, seat)| seat.uuid.clone()).collect();
            let cohorts = web.store.cohorts(&gpus).await?;
            seats.sort_by_key(|(place, _)| cohorts[*place]);
        }
        Ok(Self {
            web,
            metric,
            extent,
            steps,
            is_whole,
            seats: seats.into_iter(),
            ready: VecDeque::new(),
        })
    }

    /// Another GPU, in the order in which the store likes to read them: its place among those that were asked about, and
    /// its series.
    pub(super) async fn next(&mut self) -> Answer<Option<(usize, &'a Seat, Source<'a>)>> {
        if self.ready.is_empty() {
            let n = n_at_once(self.extent, &self.steps);
            let batch: Vec<Placed<'a>> = self.seats.by_ref().take(n).collect();
            let gpus: Vec<_> = batch.iter().map(|(_, seat)| seat.uuid.clone()).collect();
            let fleet = Fleet {
                gpus: &gpus,
                metric: self.metric.id,
                extent: self.extent,
                steps: &self.steps,
                is_whole: self.is_whole,
            };
            let sources = history::of_many(self.web, fleet).await?;
            self.ready = batch.into_iter().zip(sources).collect();
        }
        let next = self.ready.pop_front();
        Ok(next.map(|((place, seat), source)| (place, seat, source)))
    }
}
