//! One series' past, piece by piece: the store's pages and what the head still holds, as one ascending line.

use std::time::Duration;

use entrenar::unit::Timestamp;

use super::bucket::Bucket;
use super::budget::Budget;
use super::{Point, QueryError, Question};
use crate::chunk;
use crate::store::{SealedChunk, Store};

/// The store is asked for this much history at a time: what is in memory at once, and how often a question can be given up.
const PAGE: Duration = Duration::from_hours(6);

/// A stretch of a series, ascending.
///
/// Rollups join here: where the steps that are asked for are whole minutes or hours, a page's whole minutes or hours that
/// are stored as sums come as `Buckets`, the rest of it as `Points`, and whoever folds them does not see the difference. A sum
/// has no times of its first and last sample: those of its minute stand for them, and then for points of such steps too,
/// so that a rate is the same on both sides of the seam.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Points(Vec<Point>),
    /// Each within one step, with the times of its first and last sample.
    Buckets(Vec<Bucket>),
}

/// A series that is being read. Dropping it between two pieces ends the reading.
pub struct Source<'a> {
    store: &'a dyn Store,
    question: Question,
    /// What the head has and was not shown yet, the latest first.
    head: Vec<Point>,
    from: Timestamp,
    page: Duration,
    is_over: bool,
}

impl<'a> Source<'a> {
    /// `head` is what the head answered to the same question, ascending, and it must have been asked *before* this is
    /// made: what is sealed in between is then seen twice, and not never.
    pub fn new(store: &'a dyn Store, question: Question, mut head: Vec<Point>) -> Self {
        head.reverse();
        Self {
            store,
            head,
            from: question.from,
            page: PAGE,
            is_over: question.to < question.from,
            question,
        }
    }

    /// The next piece that is not empty; `None` at the end.
    pub async fn next(&mut self, budget: &mut Budget) -> Result<Option<Piece>, QueryError> {
        while !self.is_over {
            let to = self.question.to.min(self.from + self.page);
            let points = self.read(self.from, to, budget).await?;
            self.is_over = to == self.question.to;
            self.from = to + Duration::from_millis(1);
            if !points.is_empty() {
                return Ok(Some(Piece::Points(points)));
            }
        }
        Ok(None)
    }

    async fn read(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        budget: &mut Budget,
    ) -> Result<Vec<Point>, QueryError> {
        let chunks = self.store.chunks(&self.question.gpu, from, to).await?;
        // Through years without data in longer and longer steps.
        self.page = if chunks.is_empty() {
            self.page * 2
        } else {
            PAGE
        };
        let mut points = Vec::new();
        for chunk in &chunks {
            budget.read(chunk.n_samples as usize)?;
            let stored = self.decode(chunk)?;
            points.extend(
                stored
                    .into_iter()
                    .filter(|(at, _)| from <= *at && *at <= to),
            );
        }
        let of_page = self.head.iter().rposition(|(at, _)| to < *at);
        let recent = self.head.split_off(of_page.map_or(0, |later| later + 1));
        budget.read(recent.len())?;
        points.extend(recent.into_iter().rev());
        Ok(in_order(points))
    }

    fn decode(&self, chunk: &SealedChunk) -> Result<Vec<Point>, QueryError> {
        let points = chunk::decode_metric(&chunk.blob, self.question.metric);
        points.map_err(|source| QueryError::Damaged {
            gpu: chunk.gpu.clone(),
            stretch: chunk.stretch,
            source,
        })
    }
}

/// By time; of two at the same time the one that stood first, which is the stored one.
fn in_order(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by_key(|(at, _)| *at);
    points.dedup_by_key(|(at, _)| *at);
    points
}
