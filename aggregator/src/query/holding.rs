//! Who held one GPU when, as intervals: changes say only what holds from an instant on. *(pure)*

use std::sync::Arc;

use entrenar::report::{Holder, HolderChange};
use entrenar::unit::Timestamp;

/// The holders of one GPU over some time.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// From when on who; ascending.
    changes: Vec<(Timestamp, Option<Arc<Holder>>)>,
}

impl Holding {
    /// From changes in any order, some of them told twice.
    pub fn of(changes: impl IntoIterator<Item = HolderChange>) -> Self {
        let mut changes: Vec<_> = changes
            .into_iter()
            .map(|change| (change.at, change.holder.map(Arc::new)))
            .collect();
        changes.sort_by_key(|(at, _)| *at);
        changes.dedup_by_key(|(at, _)| *at);
        Self { changes }
    }

    /// Who held it at an instant; `None`: nobody, or not known.
    pub fn at(&self, at: Timestamp) -> Option<&Arc<Holder>> {
        let later = self.changes.partition_point(|(from, _)| *from <= at);
        self.changes[..later].last()?.1.as_ref()
    }

    /// When it changed hands, ascending.
    pub fn changes(&self) -> Vec<Timestamp> {
        self.changes.iter().map(|(at, _)| *at).collect()
    }

    /// Whether this job held it at any time between two instants, both included.
    pub fn is_of(&self, job: &str, from: Timestamp, to: Timestamp) -> bool {
        let is_it = |holder: Option<&Arc<Holder>>| holder.is_some_and(|h| h.job == job);
        let within = |(at, _): &&(Timestamp, Option<Arc<Holder>>)| from <= *at && *at <= to;
        is_it(self.at(from))
            || (self.changes.iter().filter(within)).any(|(_, holder)| is_it(holder.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(secs: i64, job: Option<&str>) -> HolderChange {
        let holder = job.map(|job| Holder {
            job: job.into(),
            ..Holder::default()
        });
        HolderChange {
            at: Timestamp::from_secs(secs),
            gpu: "GPU-1".into(),
            holder,
        }
    }

    #[test]
    fn changes_are_intervals_in_whatever_order_they_come() {
        let holding = Holding::of([
            change(30, None),
            change(10, Some("a")),
            change(20, Some("b")),
            change(10, Some("a")),
        ]);
        let job = |secs| {
            let holder = holding.at(Timestamp::from_secs(secs));
            holder.map_or("-", |holder| holder.job.as_str())
        };
        assert_eq!(
            [9, 10, 19, 20, 29, 30, 99].map(job),
            ["-", "a", "a", "b", "b", "-", "-"]
        );
        let is_of = |job, from, to| {
            holding.is_of(job, Timestamp::from_secs(from), Timestamp::from_secs(to))
        };
        assert!(is_of("a", 0, 10) && is_of("a", 15, 16) && is_of("b", 0, 99));
        assert!(!is_of("a", 0, 9) && !is_of("a", 20, 99) && !is_of("b", 30, 40));
    }
}
