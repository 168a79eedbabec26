//! The last few minutes of a GPU, small enough to keep for every GPU: what sparklines are drawn from. *(pure)*

use std::collections::VecDeque;

use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::MOST_POINTS;
use super::sample::Sample;

/// Time between two points; the sampling interval, if that is longer.
const STEP_MS: i64 = 5000;

/// Marks a value that was not reported; no value of ours is so low.
const NONE: i16 = i16::MIN;

/// A GPU at one instant, rounded to what a sparkline can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    celsius: i16,
    /// Memory used, in thousandths of all.
    memory: i16,
    watts: i16,
    busy: i16,
    clock_mhz: i16,
}

const GAP: Point = Point {
    celsius: NONE,
    memory: NONE,
    watts: NONE,
    busy: NONE,
    clock_mhz: NONE,
};

/// At most [`MOST_POINTS`] points; the oldest is forgotten.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    newest_at: Option<Timestamp>,
    points: VecDeque<Point>,
}

impl Recent {
    pub(super) fn push(&mut self, at: Timestamp, interval_ms: i64, sample: &Sample) {
        let step_ms = STEP_MS.max(interval_ms);
        if let Some(newest) = self.newest_at {
            let steps = (at.0 - newest.0 + interval_ms / 2) / step_ms;
            if steps == 0 {
                return;
            }
            for _ in 1..steps.min(MOST_POINTS as i64) {
                self.add(GAP);
            }
        }
        self.newest_at = Some(at);
        self.add(point(sample));
    }

    fn add(&mut self, point: Point) {
        if self.points.len() == MOST_POINTS {
            self.points.pop_front();
        }
        if self.points.len() == self.points.capacity() {
            // All the room at once, and no more than it will ever need.
            self.points.reserve_exact(MOST_POINTS - self.points.len());
        }
        self.points.push_back(point);
    }

    pub(super) fn celsius(&self) -> Vec<Option<f64>> {
        self.series(|p| p.celsius, 1.0)
    }

    /// Memory used, in percent of all.
    pub(super) fn memory_percent(&self) -> Vec<Option<f64>> {
        self.series(|p| p.memory, 0.1)
    }

    /// The newest known share of memory in use, in thousandths.
    pub(super) fn memory_permille(&self) -> Option<u16> {
        let newest = self
            .points
            .iter()
            .rev()
            .find(|point| point.memory != NONE)?;
        u16::try_from(newest.memory).ok()
    }

    pub(super) fn watts(&self) -> Vec<Option<f64>> {
        self.series(|p| p.watts, 1.0)
    }

    pub(super) fn busy_percent(&self) -> Vec<Option<f64>> {
        self.series(|p| p.busy, 1.0)
    }

    pub(super) fn clock_mhz(&self) -> Vec<Option<f64>> {
        self.series(|p| p.clock_mhz, 1.0)
    }

    fn series(&self, of: impl Fn(&Point) -> i16, scale: f64) -> Vec<Option<f64>> {
        let value = |v: i16| (v != NONE).then(|| (f64::from(v) * scale * 10.0).round() / 10.0);
        self.points.iter().map(|point| value(of(point))).collect()
    }
}

/// The newest value of a series.
pub(super) fn last(series: &[Option<f64>]) -> Option<f64> {
    series.iter().rev().find_map(|value| *value)
}

fn point(sample: &Sample) -> Point {
    let small = |value: Option<i64>| {
        value.map_or(NONE, |v| {
            v.clamp(i64::from(NONE) + 1, i64::from(i16::MAX)) as i16
        })
    };
    Point {
        celsius: small(sample.celsius),
        memory: small(
            sample
                .memory_share()
                .map(|share| (share * 1e3).round() as i64),
        ),
        watts: small(sample.power_mw.map(|mw| mw / 1000)),
        busy: small(sample.busy_percent),
        clock_mhz: small(sample.clock_mhz),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_five_seconds_apart_with_gaps_where_nothing_came() {
        let mut recent = Recent::default();
        for second in (0..=10).chain(26..=30) {
            let sample = Sample {
                celsius: Some(second),
                ..Sample::default()
            };
            recent.push(Timestamp::from_secs(second), 1000, &sample);
        }
        let expected = [Some(0.0), Some(5.0), Some(10.0), None, None, Some(26.0)];
        assert_eq!(recent.celsius(), expected);
        assert!(recent.watts().iter().all(Option::is_none));
    }

    #[test]
    fn it_is_bounded() {
        let mut recent = Recent::default();
        for second in 0..100_000 {
            recent.push(
                Timestamp::from_secs(second * 10),
                10_000,
                &Sample::default(),
            );
        }
        assert_eq!(recent.celsius().len(), MOST_POINTS);
    }
}
