//! What the head has of a series: every sample, or what they come to in the steps that are asked for. *(pure)*

use entrenar::unit::Timestamp;

use super::Point;
use super::bucket::Bucket;
use super::step::Steps;
use crate::store::StoredRollup;

/// Of one series, ascending.
#[derive(Clone, Debug, PartialEq)]
pub enum Recent {
    /// Every sample.
    Points(Vec<Point>),
    /// What they come to, each within one step or before all steps.
    Sums(Vec<Bucket>),
}

impl Recent {
    /// Whether sums stand where the store has samples as well: late ones, or those that were sealed just now. Then every
    /// sample must be looked at.
    pub(super) fn crosses(&self, stored: &[StoredRollup]) -> bool {
        let Self::Sums(sums) = self else { return false };
        let (Some(first), Some(last)) = (sums.first(), sums.last()) else {
            return false;
        };
        let (began, ended) = (first.began(), last.last.0);
        stored
            .iter()
            .any(|stretch| began <= stretch.to && stretch.from <= ended)
    }
}

/// Steps in which the head has something of a GPU: its open stretch by the minute.
const MOST_USUAL: usize = 8;

/// What samples come to in steps, put together of what is shown one after the other, ascending.
#[derive(Debug)]
pub struct SumUp<'q> {
    steps: &'q Steps,
    sums: Vec<Bucket>,
    /// The end of the step in which the last sum is, and what is added to it.
    end: Timestamp,
}

impl<'q> SumUp<'q> {
    /// Nothing yet.
    pub fn new(steps: &'q Steps) -> Self {
        Self {
            steps,
            // There are many of these at once, and most of them are short.
            sums: Vec::with_capacity(steps.len().min(MOST_USUAL)),
            end: Timestamp(i64::MIN),
        }
    }

    /// When the step ends in which a sample lies: it, and all that come after it and before that, may be added as one. What
    /// lies before all steps is together, too.
    pub fn end_of(&self, at: Timestamp) -> Timestamp {
        if at < self.end {
            self.end
        } else if at < self.steps.from() {
            self.steps.from()
        } else {
            self.steps.end_at(at)
        }
    }

    /// Samples of one step.
    pub fn add(&mut self, bucket: Bucket) {
        let began = bucket.began();
        match self.sums.last_mut() {
            Some(last) if began < self.end => *last = last.then(bucket),
            _ => {
                self.end = self.end_of(began);
                self.sums.push(bucket);
            }
        }
    }

    /// Samples, ascending.
    pub fn points(&mut self, mut points: &[Point]) {
        while let Some((at, _)) = points.first() {
            let end = self.end_of(*at);
            let n_together = points.partition_point(|(at, _)| *at < end).max(1);
            let (together, rest) = points.split_at(n_together);
            if let Some(bucket) = Bucket::of_all(together) {
                self.add(bucket);
            }
            points = rest;
        }
    }

    /// All of it.
    pub fn finish(self) -> Vec<Bucket> {
        self.sums
    }
}
