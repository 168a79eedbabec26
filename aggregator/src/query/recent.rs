//! What the head has of a series: every sample, or what they come to in the steps that are asked for. *(pure)*

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

/// Adds samples to sums, behind which they lie; ascending. The last sum and the first sample may be of one step.
pub fn sum_up(mut points: &[Point], steps: &Steps, sums: &mut Vec<Bucket>) {
    while let Some((at, _)) = points.first() {
        let end = if *at < steps.from() {
            steps.from()
        } else {
            steps.end_at(*at)
        };
        let n_together = points.partition_point(|(at, _)| *at < end).max(1);
        let (together, rest) = points.split_at(n_together);
        if let Some(bucket) = Bucket::of_all(together) {
            match sums.last_mut() {
                Some(last) if steps.end_at(last.began()) == end => *last = last.then(bucket),
                _ => sums.push(bucket),
            }
        }
        points = rest;
    }
}
