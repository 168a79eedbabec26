//! Many GPUs at one instant, gathered into groups. *(pure)*

use std::collections::HashMap;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::unit::Timestamp;

use super::aggregate::{Aggregate, Tally};

/// What a group is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// One GPU; without a place where only the store knows it.
    Gpu(Option<(NodeId, u32)>, GpuUuid),
    /// What its GPUs have in common; `None`: that nothing is known of it, as of the job of a GPU that nobody holds.
    Shared(Option<String>),
}

/// A group, and what it comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub name: Name,
    /// `None` where no GPU of the group said anything young enough.
    pub value: Option<f64>,
    /// When the oldest of the values was read.
    pub oldest: Option<Timestamp>,
    /// GPUs whose value is in it, and those that have none or too old a one.
    pub n_gpus: u64,
    pub n_unknown: u64,
}

/// Groups that grow while GPUs are looked at, one after the other.
#[derive(Debug)]
pub struct Gathering<'a> {
    aggregate: Aggregate,
    /// Values before it are too old.
    since: Timestamp,
    places: HashMap<Option<&'a str>, usize>,
    groups: Vec<(Name, Group)>,
    /// GPUs of a node follow each other.
    latest: Option<(Option<&'a str>, usize)>,
}

#[derive(Debug, Default)]
struct Group {
    tally: Tally,
    oldest: Option<Timestamp>,
    n_unknown: u64,
}

impl<'a> Gathering<'a> {
    /// No group yet. What was read before `since` is too old to be told.
    pub fn new(aggregate: Aggregate, since: Timestamp) -> Self {
        Self {
            aggregate,
            since,
            places: HashMap::new(),
            groups: Vec::new(),
            latest: None,
        }
    }

    /// How many groups there are so far.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// A GPU for itself. A value that is too old is not told, its age is.
    pub fn alone(&mut self, name: Name, last: Option<(Timestamp, f64)>) {
        let mut group = Group::default();
        group.take(last, self.since, self.aggregate);
        group.oldest = last.map(|(at, _)| at);
        self.groups.push((name, group));
    }

    /// A GPU of a group.
    pub fn shared(&mut self, key: Option<&'a str>, last: Option<(Timestamp, f64)>) {
        let place = match self.latest {
            Some((latest, place)) if latest == key => place,
            _ => {
                let next = self.groups.len();
                let place = *self.places.entry(key).or_insert(next);
                if place == next {
                    self.begin(key);
                }
                self.latest = Some((key, place));
                place
            }
        };
        self.groups[place].1.take(last, self.since, self.aggregate);
    }

    /// A GPU of a group whose GPUs all follow each other: no look back for it.
    pub fn following(&mut self, key: &'a str, last: Option<(Timestamp, f64)>) {
        let place = match self.latest {
            Some((latest, place)) if latest == Some(key) => place,
            _ => self.begin(Some(key)),
        };
        self.groups[place].1.take(last, self.since, self.aggregate);
    }

    fn begin(&mut self, key: Option<&'a str>) -> usize {
        let place = self.groups.len();
        let name = Name::Shared(key.map(str::to_owned));
        self.groups.push((name, Group::default()));
        self.latest = Some((key, place));
        place
    }

    /// The groups, in the order in which they were first seen.
    pub fn finish(self) -> Vec<Told> {
        let aggregate = self.aggregate;
        let told = self.groups.into_iter().map(|(name, mut group)| Told {
            name,
            value: group.tally.result(aggregate),
            oldest: group.oldest,
            n_gpus: group.tally.n(),
            n_unknown: group.n_unknown,
        });
        told.collect()
    }
}

impl Group {
    fn take(&mut self, last: Option<(Timestamp, f64)>, since: Timestamp, aggregate: Aggregate) {
        match last {
            Some((at, value)) if since <= at => {
                self.tally.take(value, aggregate);
                self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
            }
            _ => self.n_unknown += 1,
        }
    }
}

/// Which end of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The largest, so many.
    Top(usize),
    /// The smallest, so many.
    Bottom(usize),
}

impl Rank {
    /// Keeps the first of them, in order of `value`; what has none is never among them.
    pub fn keep<T>(self, items: &mut Vec<T>, value: impl Fn(&T) -> Option<f64>) {
        items.retain(|item| value(item).is_some());
        let of = |item: &T| value(item).unwrap_or_default();
        let most = match self {
            Self::Top(most) => {
                items.sort_by(|a, b| of(b).total_cmp(&of(a)));
                most
            }
            Self::Bottom(most) => {
                items.sort_by(|a, b| of(a).total_cmp(&of(b)));
                most
            }
        };
        items.truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64, value: f64) -> (Timestamp, f64) {
        (Timestamp::from_secs(secs), value)
    }

    #[test]
    fn a_group_tells_its_oldest_value_and_how_many_it_does_not_know() {
        let mut gathering = Gathering::new(Aggregate::Mean, Timestamp::from_secs(10));
        gathering.shared(Some("n1"), Some(at(20, 1.0)));
        gathering.shared(Some("n1"), Some(at(12, 3.0)));
        gathering.shared(None, None);
        gathering.shared(Some("n1"), Some(at(9, 100.0)));
        let told = gathering.finish();
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].name, Name::Shared(Some("n1".into())));
        assert_eq!(
            (told[0].value, told[0].n_gpus, told[0].n_unknown),
            (Some(2.0), 2, 1)
        );
        assert_eq!(told[0].oldest, Some(Timestamp::from_secs(12)));
        assert_eq!((told[1].value, told[1].n_unknown), (None, 1));
    }

    #[test]
    fn gpus_that_follow_each_other_are_one_group() {
        let mut gathering = Gathering::new(Aggregate::Count, Timestamp(0));
        for node in ["n1", "n1", "n2", "n2", "n2"] {
            gathering.following(node, Some(at(1, 5.0)));
        }
        let told = gathering.finish();
        let counts: Vec<_> = told.iter().map(|group| group.value).collect();
        assert_eq!(counts, [Some(2.0), Some(3.0)]);
    }

    #[test]
    fn a_gpu_that_is_silent_for_long_tells_its_age_and_not_its_value() {
        let mut gathering = Gathering::new(Aggregate::Mean, Timestamp::from_secs(10));
        gathering.alone(Name::Gpu(None, "GPU-1".into()), Some(at(9, 100.0)));
        let told = gathering.finish();
        assert_eq!(
            (told[0].value, told[0].oldest),
            (None, Some(Timestamp::from_secs(9)))
        );
    }

    #[test]
    fn the_first_of_an_order_are_kept_and_the_unknown_are_not_among_them() {
        let check = |rank: Rank, expected: &[f64]| {
            let mut items = vec![Some(2.0), None, Some(5.0), Some(-1.0)];
            rank.keep(&mut items, |item| *item);
            assert_eq!(items.into_iter().flatten().collect::<Vec<_>>(), expected);
        };
        check(Rank::Top(2), &[5.0, 2.0]);
        check(Rank::Bottom(2), &[-1.0, 2.0]);
        check(Rank::Top(9), &[5.0, 2.0, -1.0]);
    }
}
