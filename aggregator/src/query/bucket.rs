//! What is known of one series over one stretch of time, however many samples that were. *(pure)*

use entrenar::unit::Timestamp;

use super::Point;

/// At least one sample, summed up: all that any function of a step asks. Two that follow each other make one, so minutes
/// make an hour, and it does not matter where a sum was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub first: Point,
    pub last: Point,
    pub min: i64,
    pub max: i64,
    pub sum: i128,
    pub count: u64,
    /// What a counter gained from the first sample to the last.
    pub increase: i128,
}

impl Bucket {
    /// One sample.
    pub fn of(point: Point) -> Self {
        let (_, value) = point;
        Self {
            first: point,
            last: point,
            min: value,
            max: value,
            sum: i128::from(value),
            count: 1,
            increase: 0,
        }
    }

    /// Samples that follow each other; `None` of none. The same as one by one, a few times faster.
    pub fn of_all(points: &[Point]) -> Option<Self> {
        let (first, last) = (*points.first()?, *points.last()?);
        let mut all = Self::of(first);
        let mut before = first.1;
        for (_, value) in &points[1..] {
            all.min = all.min.min(*value);
            all.max = all.max.max(*value);
            all.sum += i128::from(*value);
            all.increase += gain(before, *value);
            before = *value;
        }
        all.last = last;
        all.count = points.len() as u64;
        Some(all)
    }

    /// The same, of their values and the times of the first and the last.
    pub fn of_values(first: Timestamp, last: Timestamp, values: &[i64]) -> Option<Self> {
        let (least, most) = (*values.iter().min()?, *values.iter().max()?);
        // Their distances from the least are summed up in 64 bits, where that many fit.
        let range = most.wrapping_sub(least) as u64;
        let sum = if range.leading_zeros() > values.len().ilog2() {
            let above = |value: &i64| value.wrapping_sub(least) as u64;
            i128::from(values.iter().map(above).sum::<u64>())
                + i128::from(least) * values.len() as i128
        } else {
            values.iter().copied().map(i128::from).sum()
        };
        let gains = values.windows(2).map(|pair| gain(pair[0], pair[1]));
        Some(Self {
            first: (first, values[0]),
            last: (last, values[values.len() - 1]),
            min: least,
            max: most,
            sum,
            count: values.len() as u64,
            increase: gains.sum(),
        })
    }

    /// This one and one that follows it.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let between = gain(self.last.1, next.first.1);
        let both = self.beside(next);
        Self {
            increase: both.increase.saturating_add(between),
            ..both
        }
    }

    /// This one and a later one, with something else in between: what a counter gained there is neither's.
    #[must_use]
    pub fn beside(self, next: Self) -> Self {
        Self {
            first: self.first,
            last: next.last,
            min: self.min.min(next.min),
            max: self.max.max(next.max),
            // No samples come near the ends; forged bytes may.
            sum: self.sum.saturating_add(next.sum),
            count: self.count.saturating_add(next.count),
            increase: self.increase.saturating_add(next.increase),
        }
    }

    /// When its first sample was.
    pub const fn began(&self) -> Timestamp {
        self.first.0
    }
}

/// What a counter gained between two readings. One that went down was reset: all that it shows since is gained.
pub fn gain(before: i64, after: i64) -> i128 {
    // Of two numbers of 64 bits the difference fits 64 bits without a sign.
    let gained = if before <= after {
        after.wrapping_sub(before) as u64
    } else {
        after.max(0) as u64
    };
    i128::from(gained)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(values: &[i64], from: usize) -> Option<Bucket> {
        let point = |(n, value): (usize, &i64)| (Timestamp((from + n) as i64), *value);
        let one_by_one = values.iter().enumerate().map(point).map(Bucket::of);
        one_by_one.reduce(Bucket::then)
    }

    #[test]
    fn a_counter_that_went_down_was_reset() {
        let increase = |values: &[i64]| bucket(values, 0).unwrap().increase;
        assert_eq!(increase(&[5]), 0);
        assert_eq!(increase(&[5, 7, 7, 10]), 5);
        assert_eq!(increase(&[90, 100, 4, 6]), 10 + 4 + 2);
        assert_eq!(increase(&[100, 0, 0, 3]), 3);
        assert_eq!(
            increase(&[i64::MIN + 1, i64::MAX]),
            i128::from(u64::MAX) - 1
        );
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_sum_is_cut(
            values in proptest::collection::vec(-5..1000_i64, 1..60),
            cuts in proptest::collection::btree_set(0..60_usize, 0..8),
        ) {
            let whole = bucket(&values, 0);
            let mut edges: Vec<usize> = cuts.into_iter().filter(|cut| *cut < values.len()).collect();
            edges.insert(0, 0);
            edges.push(values.len());
            let parts = edges.windows(2).filter_map(|edge| bucket(&values[edge[0]..edge[1]], edge[0]));
            prop_assert_eq!(parts.reduce(Bucket::then), whole);
        }

        #[test]
        fn many_at_once_are_as_one_by_one(
            values in prop_oneof![
                proptest::collection::vec(proptest::num::i64::ANY, 0..40),
                proptest::collection::vec(-50..50_i64, 0..40),
                proptest::collection::vec(i64::MAX - 9..=i64::MAX, 0..70),
                (0..58_u32).prop_flat_map(|bits| proptest::collection::vec(0..1_i64 << bits, 1..70)),
                (58..63_u32).prop_flat_map(|bits| proptest::collection::vec(0..1_i64 << bits, 1..70)),
            ],
        ) {
            let points: Vec<Point> = (0..).map(Timestamp).zip(values.iter().copied()).collect();
            prop_assert_eq!(Bucket::of_all(&points), bucket(&values, 0));
            let ends = (Timestamp(0), Timestamp(values.len() as i64 - 1));
            prop_assert_eq!(Bucket::of_values(ends.0, ends.1, &values), bucket(&values, 0));
        }

        #[test]
        fn minutes_make_an_hour_in_any_grouping(
            minutes in proptest::collection::vec(proptest::collection::vec(0..1000_i64, 1..6), 3..8),
        ) {
            let mut from = 0;
            let buckets: Vec<Bucket> = minutes
                .iter()
                .filter_map(|minute| {
                    let bucket = bucket(minute, from);
                    from += minute.len();
                    bucket
                })
                .collect();
            let left = buckets.iter().copied().reduce(Bucket::then);
            let right = buckets.iter().rev().copied().reduce(|later, earlier| earlier.then(later));
            prop_assert_eq!(left, right);
            prop_assert_eq!(left, bucket(&minutes.concat(), 0));
        }
    }
}
