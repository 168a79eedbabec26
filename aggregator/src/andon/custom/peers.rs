//! What a GPU's peers do: the median of each group, found once a second and looked up on arrival. *(pure)*

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Condition, Custom};
use crate::andon::RuleUid;
use crate::andon::fleet::Fleet;
use crate::andon::gpu::Gpu;
use entrenar::unit::Timestamp;

/// Fewer have no median worth the name.
const FEWEST_PEERS: usize = 3;

/// Whom a GPU is held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::andon) enum Peers {
    /// The GPUs of its node.
    Node,
    /// The GPUs of the job that holds it.
    #[default]
    Job,
    /// The GPUs of its model in the whole fleet.
    Model,
}

impl Peers {
    /// The name of a GPU's group; `None`: it has none.
    pub(super) fn group_of(self, gpu: &Gpu) -> Option<&str> {
        match self {
            Self::Node => Some(gpu.at.node.as_str()),
            Self::Job => gpu.holder().map(|holder| holder.job.as_str()),
            Self::Model => Some(gpu.model()),
        }
    }
}

/// Medians by rule and group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct Medians(BTreeMap<RuleUid, BTreeMap<String, f64>>);

impl Medians {
    pub(super) fn of(&self, rule: &RuleUid, group: Option<&str>) -> Option<f64> {
        self.0.get(rule)?.get(group?).copied()
    }

    /// Finds them anew from the latest values of the GPUs that the rules are for.
    pub(in crate::andon) fn find(&mut self, now: Timestamp, fleet: &Fleet, rules: &[Custom]) {
        self.0.clear();
        let is_needed = |rule: &&Custom| matches!(rule.condition, Condition::Deviation { .. });
        if !rules.iter().any(|rule| is_needed(&rule)) {
            return;
        }
        let mut values: BTreeMap<(&RuleUid, &str), Vec<f64>> = BTreeMap::new();
        for node in fleet.nodes.values() {
            let interval = std::time::Duration::from_millis(node.interval_ms as u64);
            for gpu in &node.gpus {
                for state in &gpu.custom {
                    let rule = &rules[usize::from(state.place)];
                    let Condition::Deviation { peers, .. } = rule.condition else {
                        continue;
                    };
                    let recent = state
                        .remembered
                        .recent(now, rule.condition.spacing(interval));
                    if let (Some(value), Some(group)) = (recent, peers.group_of(gpu)) {
                        values.entry((&rule.uid, group)).or_default().push(value);
                    }
                }
            }
        }
        for ((rule, group), mut values) in values {
            if let Some(median) = median(&mut values) {
                let groups = self.0.entry(rule.clone()).or_default();
                groups.insert(group.to_owned(), median);
            }
        }
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    if values.len() < FEWEST_PEERS {
        return None;
    }
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if !even {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_needs_three_and_lies_in_the_middle() {
        assert_eq!(median(&mut [1.0, 2.0]), None);
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 9.0, 1.0, 2.0]), Some(3.0));
    }
}
