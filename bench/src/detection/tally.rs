//! The scores of a set of traces: ours, ours at each interval, and the baselines'. *(pure)*

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::baselines::NAMES;
use super::finding::Finding;
use super::score::Score;
use super::truth::Truth;

/// All scores of a set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    pub ours: Score,
    /// By the sampling interval, in seconds.
    pub by_interval: BTreeMap<u64, Score>,
    pub baselines: [Score; NAMES.len()],
}

/// What everyone said of one trace.
pub struct Trial {
    pub name: String,
    pub gpu_days: f64,
    pub interval_s: u64,
    pub truths: Vec<Truth>,
    pub ours: Vec<Finding>,
    pub baselines: [Vec<Finding>; NAMES.len()],
}

impl Tally {
    /// Judges all of these.
    pub fn of(mut trials: Vec<Trial>) -> Self {
        trials.sort_by(|a, b| a.name.cmp(&b.name));
        let mut tally = Self::default();
        for trial in &trials {
            let (days, truths) = (trial.gpu_days, &trial.truths);
            tally.ours.add(days, &trial.ours, truths);
            let at = tally.by_interval.entry(trial.interval_s).or_default();
            at.add(days, &trial.ours, truths);
            for (score, said) in tally.baselines.iter_mut().zip(&trial.baselines) {
                score.add(days, said, truths);
            }
        }
        tally
    }
}
