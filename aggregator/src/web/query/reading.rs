//! Many GPUs, read one after the other: what must be asked of the line and of the store is asked for a batch at a time.

use std::collections::VecDeque;
use std::vec::IntoIter;

use entrenar::metric::Metric;
use entrenar::unit::Timestamp;

use crate::query::select::Seat;
use crate::query::source::{Source, n_at_once};
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
    seats: IntoIter<&'a Seat>,
    ready: VecDeque<(&'a Seat, Source<'a>)>,
}

impl<'a> Reading<'a> {
    /// `extent`: what must be read for the steps.
    pub(super) fn new(
        web: &'a Web,
        metric: &'static Metric,
        extent: (Timestamp, Timestamp),
        steps: Steps,
        seats: Vec<&'a Seat>,
    ) -> Self {
        Self {
            web,
            metric,
            extent,
            steps,
            seats: seats.into_iter(),
            ready: VecDeque::new(),
        }
    }

    /// The next GPU, and its series.
    pub(super) async fn next(&mut self) -> Answer<Option<(&'a Seat, Source<'a>)>> {
        if self.ready.is_empty() {
            let batch: Vec<&Seat> = (self.seats.by_ref().take(n_at_once(self.extent))).collect();
            let (metric, steps) = (self.metric, &self.steps);
            let sources = history::of_many(self.web, &batch, metric, self.extent, steps).await?;
            self.ready = batch.into_iter().zip(sources).collect();
        }
        Ok(self.ready.pop_front())
    }
}
