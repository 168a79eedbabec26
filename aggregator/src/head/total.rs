//! What the blocks of a run come to, metric by metric: a question that folds them into one step need not look at them.
//!
//! Blocks lie all over the memory, and most questions about a fleet want all of them summed up.

use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::block::{Bits, Block};
use crate::chunk::varint::{self, unzigzag, zigzag};
use crate::query::bucket::Bucket;

/// Numbers of a metric that always was the same, and of any other.
const FLAT: u32 = 4;
const CHANGING: u32 = FLAT + 5;

/// Of each metric, in their order and as varints: when it was first read, in milliseconds from the start of the stretch; how
/// much later it was last read; how often; its least value. Of one that changed also, above the least, its largest, first and
/// last values and the sum of all; and what it gained.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    /// A bit for each metric, and whether it changed.
    present: u64,
    changing: u64,
    bytes: Box<[u8]>,
}

impl Total {
    /// Adds a block that is later than all.
    pub(super) fn add(&mut self, block: &Block) {
        let mut sum = Self {
            present: self.present | block.present(),
            ..Self::default()
        };
        let mut bytes = Vec::with_capacity(self.bytes.len() + 64);
        let mut old: &[u8] = &self.bytes;
        for slot in Bits(sum.present) {
            // Both are in milliseconds from the start of the stretch.
            let before = (self.present >> slot & 1 == 1)
                .then(|| take(&mut old, self.changing >> slot & 1 == 1, Timestamp(0)))
                .flatten();
            let next = block.sum(MetricId(slot as u16 + 1), Timestamp(0));
            let both = before.zip(next).map(|(before, next)| before.then(next));
            if let Some(bucket) = both.or(before).or(next) {
                sum.changing |= u64::from(bucket.min != bucket.max) << slot;
                put(&mut bytes, &bucket);
            }
        }
        sum.bytes = bytes.into();
        *self = sum;
    }

    /// What one metric comes to; `None` where it is in no block. `start`: of the stretch.
    pub(super) fn of(&self, metric: MetricId, start: Timestamp) -> Option<Bucket> {
        let slot = metric.slot()?;
        if self.present >> slot & 1 == 0 {
            return None;
        }
        let before = (1 << slot) - 1;
        let n_before = (self.present & before).count_ones();
        let n_changing = (self.changing & before).count_ones();
        let mut rest: &[u8] = &self.bytes;
        varint::skip(
            &mut rest,
            FLAT * (n_before - n_changing) + CHANGING * n_changing,
        );
        take(&mut rest, self.changing >> slot & 1 == 1, start)
    }

    /// Memory that it holds beside itself.
    pub(super) fn n_bytes(&self) -> usize {
        self.bytes.len()
    }
}

fn put(bytes: &mut Vec<u8>, bucket: &Bucket) {
    let above = |value: i64| value.wrapping_sub(bucket.min) as u64;
    varint::put(bytes, bucket.first.0.0 as u64);
    varint::put(bytes, (bucket.last.0.0 - bucket.first.0.0) as u64);
    varint::put(bytes, bucket.count);
    varint::put(bytes, zigzag(bucket.min));
    if bucket.min == bucket.max {
        return;
    }
    varint::put(bytes, above(bucket.max));
    varint::put(bytes, above(bucket.first.1));
    varint::put(bytes, above(bucket.last.1));
    let least = i128::from(bucket.min) * i128::from(bucket.count);
    varint::put_long(bytes, bucket.sum.abs_diff(least));
    varint::put_long(bytes, bucket.increase.unsigned_abs());
}

fn take(rest: &mut &[u8], is_changing: bool, start: Timestamp) -> Option<Bucket> {
    let mut number = || varint::take(rest);
    let first = start.0.wrapping_add(number()? as i64);
    let last = first.wrapping_add(number()? as i64);
    let count = number()?;
    let least = unzigzag(number()?);
    let mut bucket = Bucket {
        first: (Timestamp(first), least),
        last: (Timestamp(last), least),
        min: least,
        max: least,
        sum: i128::from(least) * i128::from(count),
        count,
        increase: 0,
    };
    if is_changing {
        bucket.max = least.wrapping_add_unsigned(number()?);
        bucket.first.1 = least.wrapping_add_unsigned(number()?);
        bucket.last.1 = least.wrapping_add_unsigned(number()?);
        bucket.sum = bucket.sum.wrapping_add_unsigned(varint::take_long(rest)?);
        bucket.increase = varint::take_long(rest)? as i128;
    }
    Some(bucket)
}

#[cfg(test)]
mod tests {
    use entrenar::metric::METRIC_COUNT;
    use proptest::prelude::*;

    use super::*;
    use crate::head::rows::Rows;
    use crate::head::rows::tests::row;

    proptest! {
        #[test]
        fn blocks_come_to_what_their_values_come_to(
            blocks in proptest::collection::vec(proptest::collection::vec(row(), 1..20), 1..5),
            start in -1_000_000_i64..1_000_000,
        ) {
            let mut total = Total::default();
            let mut offsets = (0_u32..).map(|n| 1000 * n + n % 7);
            let mut seen = Vec::new();
            for pushed in &blocks {
                let mut rows = Rows::default();
                let offsets: Vec<u32> = offsets.by_ref().take(pushed.len()).collect();
                for row in pushed {
                    rows.push(row);
                }
                seen.extend(offsets.iter().copied().zip(pushed));
                total.add(&Block::of(&offsets, &rows));
            }
            for metric in (0..=METRIC_COUNT as u16 + 1).map(MetricId) {
                let point = |(at, row): &(u32, &entrenar::gpu::Values)| {
                    let at = Timestamp(start + i64::from(*at));
                    Some(Bucket::of((at, row.get(metric)?)))
                };
                let expected = seen.iter().filter_map(point).reduce(Bucket::then);
                prop_assert_eq!(total.of(metric, Timestamp(start)), expected);
            }
        }
    }
}
