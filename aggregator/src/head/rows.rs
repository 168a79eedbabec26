//! One GPU's recent samples, packed row by row: what does not change costs a bit, what changes costs its difference.
//!
//! Rows rather than columns, because every GPU gets a row at every tick: that writes to one place in memory, where a
//! column for each metric would write to dozens.

use entrenar::gpu::Values;
use entrenar::metric::{METRIC_COUNT, MetricId};

use crate::chunk::varint::{self, unzigzag, zigzag};

// A row's metrics must fit in one word of bits.
const _: () = assert!(METRIC_COUNT <= u64::BITS as usize);

/// Most bytes of a row but for its differences: its length, which metrics, and which of them changed.
const MOST_HEAD_BYTES: usize = 2 + varint::MAX_BYTES + METRIC_COUNT.div_ceil(8);

// A length takes two bytes at most.
const _: () = assert!(MOST_HEAD_BYTES + METRIC_COUNT * varint::MAX_BYTES < 1 << 14);

/// By so much the room for rows grows, at least: some ten of them.
const GROWTH: usize = 256;

/// Samples in the order in which they were pushed. A row is
///
/// 1. as a varint, how many bytes follow;
/// 2. as a varint, the bits of the metrics that it has and the row before had not, or the other way round;
/// 3. a bit for each metric that it has: whether it is another than when it was last there, in whole bytes;
/// 4. for those, as zigzag varints, by how much; of a metric that was never there, its distance from 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    /// The metrics of the last row.
    present: u64,
    /// What each metric was when it was last there.
    last: Values,
}

impl Rows {
    pub(super) fn push(&mut self, values: &Values) {
        let (mut present, mut changed, mut n_present) = (0, 0_u64, 0_u32);
        for (metric, value) in values.iter() {
            present |= bit(metric);
            changed |= u64::from(self.last.get(metric).unwrap_or(0) != value) << n_present;
            n_present += 1;
        }
        let most = MOST_HEAD_BYTES + changed.count_ones() as usize * varint::MAX_BYTES;
        if self.bytes.capacity() - self.bytes.len() < most {
            // A vector that doubles would waste a third of it on average.
            self.bytes.reserve_exact(most.max(GROWTH));
        }
        let start = self.bytes.len();
        self.bytes.push(0);
        varint::put(&mut self.bytes, present ^ self.present);
        self.bytes
            .extend(&changed.to_le_bytes()[..n_present.div_ceil(8) as usize]);
        for (n, (metric, value)) in values.iter().enumerate() {
            if changed >> n & 1 == 1 {
                let before = self.last.get(metric).unwrap_or(0);
                varint::put(&mut self.bytes, zigzag(value.wrapping_sub(before)));
            }
            self.last.set(metric, value);
        }
        self.present = present;
        self.close(start);
    }

    /// Drops all rows, and keeps the room that they took.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.present, self.last) = (0, Values::default());
    }

    /// Puts the length of a row that begins here before it.
    fn close(&mut self, start: usize) {
        let length = self.bytes.len() - start - 1;
        self.bytes[start] = length as u8;
        if length >= 0x80 {
            self.bytes[start] |= 0x80;
            self.bytes.insert(start + 1, (length >> 7) as u8);
        }
    }

    /// Shows every value with the number of its row, in order.
    pub(super) fn each(&self, mut show: impl FnMut(usize, MetricId, i64)) {
        let mut rest = self.bytes.as_slice();
        let (mut present, mut last) = (0, [0_i64; METRIC_COUNT]);
        for row in 0.. {
            if varint::take(&mut rest).is_none() {
                return;
            }
            present ^= varint::take(&mut rest).unwrap_or(0);
            let mut changed = take_bits(&mut rest, present.count_ones());
            let mut metrics = present;
            while metrics != 0 {
                let slot = metrics.trailing_zeros() as usize;
                metrics &= metrics - 1;
                if changed & 1 == 1 {
                    let difference = varint::take(&mut rest).map_or(0, unzigzag);
                    last[slot] = last[slot].wrapping_add(difference);
                }
                changed >>= 1;
                show(row, MetricId(slot as u16 + 1), last[slot]);
            }
        }
    }

    /// Shows every value of one metric with the number of its row, in order; several times faster than all of them.
    pub(super) fn each_of(&self, metric: MetricId, mut show: impl FnMut(usize, i64)) {
        let Some(slot) = metric.slot() else { return };
        let mut rest = self.bytes.as_slice();
        let (mut present, mut n_present, mut place) = (0_u64, 0, 0);
        let mut last = 0_i64;
        for row in 0.. {
            let Some(length) = varint::take(&mut rest) else {
                return;
            };
            let (mut bytes, after) = rest.split_at(rest.len().min(length as usize));
            rest = after;
            let differing = varint::take(&mut bytes).unwrap_or(0);
            if differing != 0 {
                present ^= differing;
                (n_present, place) = (
                    present.count_ones(),
                    below(present, slot as u32).count_ones(),
                );
            }
            if present >> slot & 1 == 0 {
                continue;
            }
            let changed = take_bits(&mut bytes, n_present);
            if changed >> place & 1 == 1 {
                varint::skip(&mut bytes, below(changed, place).count_ones());
                let difference = varint::take(&mut bytes).map_or(0, unzigzag);
                last = last.wrapping_add(difference);
            }
            show(row, last);
        }
    }

    /// Metrics that any of its rows has.
    pub(super) fn n_series(&self) -> usize {
        self.last.iter().count()
    }

    /// Memory that it holds beside itself.
    pub(super) fn n_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

fn bit(metric: MetricId) -> u64 {
    metric.slot().map_or(0, |slot| 1 << slot)
}

/// The bits below the one at a place.
const fn below(bits: u64, place: u32) -> u64 {
    bits & ((1 << place) - 1)
}

/// `n` bits, the lowest first, of as many bytes as they need.
fn take_bits(rest: &mut &[u8], n: u32) -> u64 {
    let (bytes, after) = rest.split_at(rest.len().min(n.div_ceil(8) as usize));
    // Bits beyond are not set, and what follows the bytes is cut off.
    let word = match rest.first_chunk() {
        Some(word) if n < u64::BITS => below(u64::from_le_bytes(*word), n),
        _ => {
            let bytes = bytes.iter().rev();
            bytes.fold(0, |bits, byte| bits << 8 | u64::from(*byte))
        }
    };
    *rest = after;
    word
}

#[cfg(test)]
pub(super) mod tests {
    use entrenar::metric::{POWER, TEMPERATURE};
    use proptest::prelude::*;

    use super::*;

    fn shown(rows: &Rows) -> Vec<(usize, MetricId, i64)> {
        let mut all = Vec::new();
        rows.each(|row, metric, value| all.push((row, metric, value)));
        all
    }

    pub(in crate::head) fn row() -> impl Strategy<Value = Values> {
        let value = prop_oneof![3 => -2..3_i64, 1 => i64::MIN + 1..=i64::MAX];
        let cell = (1..=METRIC_COUNT as u16, value);
        proptest::collection::vec(cell, 0..METRIC_COUNT).prop_map(|cells| {
            let with = |row: Values, (id, value)| row.with(MetricId(id), value);
            cells.into_iter().fold(Values::default(), with)
        })
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_were_pushed(pushed in proptest::collection::vec(row(), 0..40)) {
            let mut rows = Rows::default();
            for row in &pushed {
                rows.push(row);
            }
            let flat = |(n, row): (usize, &Values)| row.iter().map(|(m, v)| (n, m, v)).collect::<Vec<_>>();
            let expected: Vec<_> = pushed.iter().enumerate().flat_map(flat).collect();
            for metric in (0..=METRIC_COUNT as u16 + 1).map(MetricId) {
                let mut of_metric = Vec::new();
                rows.each_of(metric, |row, value| of_metric.push((row, metric, value)));
                let expected: Vec<_> = expected.iter().filter(|(_, of, _)| *of == metric).copied().collect();
                prop_assert_eq!(of_metric, expected);
            }
            prop_assert_eq!(shown(&rows), expected);
        }
    }

    #[test]
    fn a_row_that_stays_costs_three_bytes() {
        let mut rows = Rows::default();
        let row = Values::default().with(POWER, 80).with(TEMPERATURE, 40);
        (0..720).for_each(|_| rows.push(&row));
        assert!(rows.bytes.len() <= 3 * 720 + 16);
    }
}
