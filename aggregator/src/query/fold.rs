//! Points and rollups of one series, folded into steps as they are read. *(pure)*

use super::Point;
use super::bucket::Bucket;
use super::step::Steps;

/// A step that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which step.
    pub place: usize,
    pub bucket: Bucket,
    /// The series' last sample before it: a counter's gain since then belongs to this step.
    pub before: Option<Point>,
}

/// One series on its way into steps. What it is given comes in order of time; it holds one bucket, however long the
/// series is.
#[derive(Debug)]
pub struct Fold {
    steps: Steps,
    open: Option<Closed>,
    last: Option<Point>,
    is_apart: bool,
}

impl Fold {
    /// Nothing yet.
    pub const fn new(steps: Steps) -> Self {
        Self {
            steps,
            open: None,
            last: None,
            is_apart: false,
        }
    }

    /// The next samples. Those before the first step are only remembered as what was before it.
    pub fn points(&mut self, mut points: &[Point], mut over: impl FnMut(&Closed)) {
        while let Some((at, _)) = points.first() {
            let n_together = match self.steps.place(*at) {
                Some(place) => {
                    let next = self.steps.start_of(place + 1);
                    let together = points.iter().take_while(|(at, _)| *at < next);
                    together.count().max(1)
                }
                None => 1,
            };
            let (together, rest) = points.split_at(n_together);
            if let Some(bucket) = Bucket::of_all(together) {
                self.bucket(bucket, &mut over);
            }
            points = rest;
        }
    }

    /// The next samples, all of one step.
    pub fn bucket(&mut self, next: Bucket, mut over: impl FnMut(&Closed)) {
        let before = self.last.filter(|_| !self.is_apart);
        if let Some(place) = self.steps.place(next.began()) {
            match &mut self.open {
                Some(open) if open.place == place && self.is_apart => {
                    open.bucket = open.bucket.beside(next);
                }
                Some(open) if open.place == place => open.bucket = open.bucket.then(next),
                open => {
                    let new = Closed {
                        place,
                        bucket: next,
                        before,
                    };
                    if let Some(closed) = open.replace(new) {
                        over(&closed);
                    }
                }
            }
        }
        self.last = Some(next.last);
        self.is_apart = false;
    }

    /// What comes next does not follow what came last: in between the series was not this one's.
    pub const fn part(&mut self) {
        self.is_apart = true;
    }

    /// No more comes.
    pub fn finish(self, mut over: impl FnMut(&Closed)) {
        if let Some(closed) = self.open {
            over(&closed);
        }
    }
}
