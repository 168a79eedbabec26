//! A series that changes hands: each job's part in steps of its own. *(pure)*

use std::collections::BTreeMap;

use super::bucket::Bucket;
use super::fold::{Closed, Fold};
use super::holding::Holding;
use super::step::Steps;

/// One series on its way into the steps of whoever held the GPU.
pub(super) struct Hands<'a> {
    holding: &'a Holding,
    steps: Steps,
    /// Of the job that holds it, and of those that may come back.
    now: Option<(Option<&'a str>, Fold)>,
    others: BTreeMap<Option<&'a str>, Fold>,
}

impl<'a> Hands<'a> {
    pub(super) const fn new(holding: &'a Holding, steps: Steps) -> Self {
        Self {
            holding,
            steps,
            now: None,
            others: BTreeMap::new(),
        }
    }

    /// The next samples, all of one step and one holder.
    pub(super) fn take(&mut self, bucket: Bucket, mut over: impl FnMut(Option<&str>, &Closed)) {
        let holder = self.holding.at(bucket.began());
        let job = holder.map(|holder| holder.job.as_str());
        if self.now.as_ref().is_none_or(|(of, _)| *of != job) {
            self.others.extend(self.now.take());
            let known = self.others.remove(&job);
            let mut fold = known.unwrap_or_else(|| Fold::new(self.steps));
            fold.part();
            self.now = Some((job, fold));
        }
        if let Some((_, fold)) = &mut self.now {
            fold.bucket(bucket, |closed| over(job, closed));
        }
    }

    /// No more comes.
    pub(super) fn finish(mut self, mut over: impl FnMut(Option<&str>, &Closed)) {
        self.others.extend(self.now.take());
        for (job, fold) in self.others {
            fold.finish(|closed| over(job, closed));
        }
    }
}
