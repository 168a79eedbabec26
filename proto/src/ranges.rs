//! Which sequence numbers are there: a set of ranges, bounded. Both sides of the wire reckon with it.

use std::collections::BTreeMap;

use crate::wire::SeqRange;

/// Most ranges that an acknowledgement carries.
pub const MAX_ACK_RANGES: usize = 8;

/// Most ranges that a set holds. A number that would need one more is not taken in, and so is not acknowledged: its
/// sender keeps it and sends it again when holes have closed.
pub const MAX_RANGES: usize = 1024;

/// What became of a number that was offered to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It was not there; now it is.
    New,
    /// It was there.
    Repeat,
    /// The set has [`MAX_RANGES`] and none next to it. It is not in.
    Full,
}

/// A set of sequence numbers as ascending ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// First to last, both included.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self {
            ranges: BTreeMap::new(),
        }
    }

    /// Takes a number in.
    pub fn insert(&mut self, seq: u64) -> Insert {
        if self.contains(seq) {
            Insert::Repeat
        } else if self.insert_range(seq, seq) {
            Insert::New
        } else {
            Insert::Full
        }
    }

    /// Takes in all numbers from `first` to `last`; false, and nothing done, when the set is full or `first > last`.
    pub fn insert_range(&mut self, first: u64, last: u64) -> bool {
        if first > last {
            return false;
        }
        let reach = first.saturating_sub(1);
        let start = match self.ranges.range(..=first).next_back() {
            Some((&start, &end)) if end >= reach => start,
            _ => first,
        };
        let mut end = last;
        let swallowed: Vec<u64> = self
            .ranges
            .range(start..=last.saturating_add(1))
            .map(|(&start, &stop)| {
                end = end.max(stop);
                start
            })
            .collect();
        if swallowed.is_empty() && self.ranges.len() >= MAX_RANGES {
            return false;
        }
        for start in swallowed {
            self.ranges.remove(&start);
        }
        self.ranges.insert(start, end);
        true
    }

    /// Takes out all numbers below `floor`.
    pub fn forget_below(&mut self, floor: u64) {
        let kept = self.ranges.split_off(&floor);
        let cut = self.ranges.last_key_value().map(|(_, &end)| end);
        self.ranges = kept;
        if let Some(end) = cut.filter(|&end| end >= floor) {
            self.ranges.insert(floor, end);
        }
    }

    /// Whether a number is there.
    pub fn contains(&self, seq: u64) -> bool {
        self.range_of(seq).is_some()
    }

    /// The whole range that a number is in.
    pub fn range_of(&self, seq: u64) -> Option<(u64, u64)> {
        let (&first, &last) = self.ranges.range(..=seq).next_back()?;
        (seq <= last).then_some((first, last))
    }

    /// The lowest number at or above `from` that is not there; `None` if there is none.
    pub fn first_missing(&self, from: u64) -> Option<u64> {
        match self.range_of(from) {
            Some((_, last)) => last.checked_add(1),
            None => Some(from),
        }
    }

    /// The holes between `first` and `last`, ascending, both ends included.
    pub fn gaps(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut next = Some(first);
        std::iter::from_fn(move || {
            let start = self.first_missing(next?)?;
            if start > last {
                return None;
            }
            let following = self.ranges.range(start..).next();
            let end = following.map_or(last, |(&f, _)| f - 1).min(last);
            next = end.checked_add(1);
            Some((start, end))
        })
    }

    /// All ranges, ascending, both ends included.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + ExactSizeIterator + '_ {
        self.ranges.iter().map(|(&first, &last)| (first, last))
    }

    /// The `n` highest ranges, ascending.
    pub fn newest(&self, n: usize) -> Vec<(u64, u64)> {
        let skip = self.ranges.len().saturating_sub(n);
        self.iter().skip(skip).collect()
    }

    /// Highest number; `None` when empty.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, &last)| last)
    }

    /// How many ranges.
    pub fn n_ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// As an acknowledgement carries it: the newest [`MAX_ACK_RANGES`].
    pub fn to_wire(&self) -> Vec<SeqRange> {
        self.newest(MAX_ACK_RANGES)
            .into_iter()
            .map(|(first, last)| SeqRange { first, last })
            .collect()
    }

    /// From an acknowledgement. Ranges that make no sense, or are too many, are left out: not having it
    /// acknowledged, the agent sends it once more.
    pub fn from_wire(ranges: &[SeqRange]) -> Self {
        let mut set = Self::new();
        for range in ranges.iter().rev().take(MAX_ACK_RANGES) {
            set.insert_range(range.first, range.last);
        }
        set
    }
}

impl FromIterator<(u64, u64)> for RangeSet {
    /// Of ranges in any order; those beyond [`MAX_RANGES`] are left out.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut set = Self::new();
        for (first, last) in ranges {
            set.insert_range(first, last);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// `1-3 7 9-12` as ranges.
    fn set(text: &str) -> RangeSet {
        text.split_whitespace()
            .map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (first.parse().unwrap(), last.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let check = |before: &str, seq: u64, after: &str| {
            let mut ranges = set(before);
            ranges.insert(seq);
            assert_eq!(ranges, set(after), "{before} + {seq}");
        };
        check("", 5, "5");
        check("1-3", 4, "1-4");
        check("5-6", 4, "4-6");
        check("1-3 5-6", 4, "1-6");
        check("1-3 6", 4, "1-4 6");
        check("1-3", 2, "1-3");
        check("0", 1, "0-1");
    }

    #[test]
    fn holes_are_found_inside_bounds() {
        let check = |ranges: &str, first, last, holes: &str| {
            let found: RangeSet = set(ranges).gaps(first, last).collect();
            assert_eq!(found, set(holes), "{ranges} in {first}-{last}");
        };
        check("", 1, 9, "1-9");
        check("1-9", 1, 9, "");
        check("3-4 7", 1, 9, "1-2 5-6 8-9");
        check("1-100", 50, 120, "101-120");
        check("1-3 200", 2, 90, "4-90");
    }

    #[test]
    fn what_is_below_the_floor_is_forgotten() {
        let check = |before: &str, floor, after: &str| {
            let mut ranges = set(before);
            ranges.forget_below(floor);
            assert_eq!(ranges, set(after), "{before} from {floor}");
        };
        check("1-9", 4, "4-9");
        check("1-3 5-9", 4, "5-9");
        check("1-3 5-9", 5, "5-9");
        check("1-3", 4, "");
    }

    #[test]
    fn an_acknowledgement_carries_the_newest_eight() {
        let odd: RangeSet = (0..20).map(|i| (2 * i, 2 * i)).collect();
        let sent = odd.to_wire();
        assert_eq!((sent.len(), sent[0].first, sent[7].last), (8, 24, 38));
        assert_eq!(RangeSet::from_wire(&sent).newest(99), odd.newest(8));
        let nonsense = [SeqRange { first: 9, last: 2 }];
        assert!(RangeSet::from_wire(&nonsense).is_empty());
    }

    #[test]
    fn a_full_set_takes_only_what_touches_it() {
        let mut full: RangeSet = (1..=MAX_RANGES as u64).map(|i| (3 * i, 3 * i)).collect();
        assert_eq!(full.insert(1), Insert::Full);
        assert!(!full.contains(1));
        assert_eq!(full.insert(4), Insert::New);
        assert_eq!(full.insert(4), Insert::Repeat);
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_numbers(ops in prop::collection::vec((0u64..60, 0u64..8, 0u8..8), 0..60)) {
            let (mut ranges, mut model) = (RangeSet::new(), BTreeSet::new());
            for (first, length, op) in ops {
                if op == 0 {
                    ranges.forget_below(first);
                    model.retain(|seq| *seq >= first);
                } else {
                    prop_assert!(ranges.insert_range(first, first + length));
                    model.extend(first..=first + length);
                }
                let members: Vec<u64> = ranges.iter().flat_map(|(a, b)| a..=b).collect();
                prop_assert_eq!(&members, &model.iter().copied().collect::<Vec<_>>());
                let apart = ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.1 + 1 < b.0);
                prop_assert!(apart);
                let holes: Vec<u64> = ranges.gaps(5, 50).flat_map(|(a, b)| a..=b).collect();
                let expected: Vec<u64> = (5..=50).filter(|seq| !model.contains(seq)).collect();
                prop_assert_eq!(holes, expected);
            }
        }
    }
}
