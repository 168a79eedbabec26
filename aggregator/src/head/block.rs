//! Some dozens of one GPU's samples that are over, packed column by column.
//!
//! Rows cost little to write; but nobody adds to those of half a minute ago, and in columns they take less space, and one metric
//! of them is read without the others.

use entrenar::metric::{METRIC_COUNT, MetricId};
use entrenar::unit::Timestamp;

use super::numbers;
use super::rows::Rows;
use crate::query::Point;
use crate::query::bucket::Bucket;

/// Most rows of a block: which of them have a metric fits in half a word.
pub(super) const MAX_ROWS: usize = u32::BITS as usize;

/// How many rows, and the set of metrics.
const HEADER: usize = 1 + 8;

/// Bytes of a set of rows, and of where a column begins.
const MASK: usize = size_of::<u32>();
const PLACE: usize = 2;

// Where a column begins fits in two bytes, however large the numbers are.
const _: () = assert!((METRIC_COUNT + 1) * (1 + numbers::most_bytes(MAX_ROWS)) < 1 << 16);

// A word has a bit for each metric.
const _: () = assert!(METRIC_COUNT <= u64::BITS as usize);

/// At least one row. In order:
///
/// 1. how many rows; the set of metrics, a bit each; how many sets of rows, and these, a bit for each row: most metrics
///    are in all rows, or in the same ones;
/// 2. for the times and then for each metric where its column begins, in bytes after this table;
/// 3. the columns: the number of its set of rows (0: all), and its [`numbers`].
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// When the first and the last row were.
    pub(super) first: u32,
    pub(super) last: u32,
    bytes: Box<[u8]>,
}

impl Block {
    /// Of one to [`MAX_ROWS`] rows, and when each was, ascending.
    pub(super) fn of(offsets: &[u32], rows: &Rows) -> Self {
        let n_rows = offsets.len();
        debug_assert!((1..=MAX_ROWS).contains(&n_rows), "{n_rows} rows");
        let mut columns = Columns::new();
        rows.each(|row, metric, value| columns.put(row, metric, value));

        let all = all_of(n_rows);
        let mut masks: Vec<u64> = Vec::new();
        let mut present = 0_u64;
        let mut places = Vec::with_capacity((1 + METRIC_COUNT) * PLACE);
        let mut bodies = Vec::with_capacity(rows.n_bytes());
        let times: Vec<i64> = offsets.iter().copied().map(i64::from).collect();
        let mut put = |mask: u64, values: &[i64]| {
            places.extend((bodies.len() as u16).to_le_bytes());
            bodies.push(match masks.iter().position(|of| *of == mask) {
                _ if mask == all => 0,
                Some(place) => place as u8 + 1,
                None => {
                    masks.push(mask);
                    masks.len() as u8
                }
            });
            numbers::put(&mut bodies, values);
        };
        put(all, &times);
        for slot in 0..METRIC_COUNT {
            let mask = columns.masks[slot];
            if mask != 0 {
                present |= 1 << slot;
                put(mask, &columns.values[slot][..mask.count_ones() as usize]);
            }
        }

        let length = HEADER + 1 + masks.len() * MASK + places.len() + bodies.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.push(n_rows as u8);
        bytes.extend(present.to_le_bytes());
        bytes.push(masks.len() as u8);
        bytes.extend(masks.iter().flat_map(|mask| (*mask as u32).to_le_bytes()));
        bytes.extend(places);
        bytes.extend(bodies);
        Self {
            first: offsets[0],
            last: offsets[n_rows - 1],
            bytes: bytes.into(),
        }
    }

    /// How many rows it has.
    pub(super) fn len(&self) -> usize {
        self.bytes[0].into()
    }

    /// When each row was, ascending, in what is given.
    pub(super) fn offsets<'a>(&self, times: &'a mut [i64; MAX_ROWS]) -> &'a [i64] {
        let (_, n) = self.column(0, times);
        &times[..n]
    }

    /// Whether it has a row of this time.
    pub(super) fn contains(&self, offset: u32) -> bool {
        let may = self.first <= offset && offset <= self.last;
        may && (self.offsets(&mut [0; MAX_ROWS])).contains(&offset.into())
    }

    /// One metric's values in order, in what is given, and which rows have them, a bit each; `None`: no row has it.
    pub(super) fn values<'a>(
        &self,
        metric: MetricId,
        values: &'a mut [i64; MAX_ROWS],
    ) -> Option<(u64, &'a [i64])> {
        let slot = metric.slot()?;
        let present = self.present();
        if present >> slot & 1 == 0 {
            return None;
        }
        let before = present & ((1 << slot) - 1);
        let (mask, n) = self.column(1 + before.count_ones() as usize, values);
        Some((mask, &values[..n]))
    }

    /// What one metric's values come to; `None`: no row has it. `start`: of the stretch.
    pub(super) fn sum(&self, metric: MetricId, start: Timestamp) -> Option<Bucket> {
        let (mut values, mut times) = ([0; MAX_ROWS], [0; MAX_ROWS]);
        let (rows, values) = self.values(metric, &mut values)?;
        let (first, last) = if values.len() == self.len() {
            (self.first.into(), self.last.into())
        } else {
            let times = self.offsets(&mut times);
            let (first, after_last) = (rows.trailing_zeros(), u64::BITS - rows.leading_zeros());
            (times[first as usize], times[after_last as usize - 1])
        };
        let at = |offset| Timestamp(start.0 + offset);
        Bucket::of_values(at(first), at(last), values)
    }

    /// Shows one metric's values, ascending. `start`: of the stretch.
    pub(super) fn points(&self, metric: MetricId, start: Timestamp, show: impl FnOnce(&[Point])) {
        let (mut values, mut times) = ([0; MAX_ROWS], [0; MAX_ROWS]);
        let Some((rows, values)) = self.values(metric, &mut values) else {
            return;
        };
        let times = self.offsets(&mut times);
        let mut points = [(Timestamp(0), 0); MAX_ROWS];
        for ((row, value), point) in Bits(rows).zip(values).zip(&mut points) {
            *point = (Timestamp(start.0 + times[row]), *value);
        }
        show(&points[..values.len()]);
    }

    /// Shows every value with the number of its row, metric by metric.
    pub(super) fn each(&self, mut show: impl FnMut(usize, MetricId, i64)) {
        let mut values = [0; MAX_ROWS];
        for slot in Bits(self.present()) {
            let metric = MetricId(slot as u16 + 1);
            if let Some((mask, values)) = self.values(metric, &mut values) {
                Bits(mask)
                    .zip(values)
                    .for_each(|(row, value)| show(row, metric, *value));
            }
        }
    }

    /// How many metrics any of its rows has.
    pub(super) fn n_series(&self) -> usize {
        self.present().count_ones() as usize
    }

    /// Memory that it holds beside itself.
    pub(super) fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The set of metrics that any of its rows has, a bit each.
    pub(super) fn present(&self) -> u64 {
        u64::from_le_bytes(self.bytes[1..HEADER].try_into().expect("eight bytes"))
    }

    /// Reads a column by its place among all; which rows it has, and how many those are.
    fn column(&self, place: usize, values: &mut [i64; MAX_ROWS]) -> (u64, usize) {
        let n_masks = usize::from(self.bytes[HEADER]);
        let (masks, rest) = self.bytes[HEADER + 1..].split_at(n_masks * MASK);
        let n_columns = 1 + self.n_series();
        let (places, bodies) = rest.split_at(n_columns * PLACE);
        let at = |place: usize| {
            let bytes = &places[place * PLACE..];
            usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
        };
        let body = &bodies[at(place)..];
        let mask = match body[0] {
            0 => all_of(self.len()),
            n => {
                let mask = &masks[(usize::from(n) - 1) * MASK..][..MASK];
                u32::from_le_bytes(mask.try_into().expect("four bytes")).into()
            }
        };
        let n = mask.count_ones() as usize;
        numbers::take(&body[1..], &mut values[..n]);
        (mask, n)
    }
}

/// The set of the first `n` rows.
const fn all_of(n: usize) -> u64 {
    u64::MAX >> (u64::BITS as usize - n)
}

/// Places of the bits of a word that are set, ascending.
pub(super) struct Bits(pub(super) u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = (self.0 != 0).then(|| self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(place)
    }
}

/// Rows that are being turned into columns.
struct Columns {
    masks: [u64; METRIC_COUNT],
    /// A place for each metric.
    values: Vec<[i64; MAX_ROWS]>,
}

impl Columns {
    fn new() -> Self {
        Self {
            masks: [0; METRIC_COUNT],
            values: vec![[0; MAX_ROWS]; METRIC_COUNT],
        }
    }

    fn put(&mut self, row: usize, metric: MetricId, value: i64) {
        let Some(slot) = metric.slot() else { return };
        let n = self.masks[slot].count_ones() as usize;
        self.values[slot][n] = value;
        self.masks[slot] |= 1 << row;
    }
}

#[cfg(test)]
mod tests {
    use entrenar::gpu::Values;
    use entrenar::metric::{POWER, TEMPERATURE};
    use proptest::prelude::*;

    use super::*;
    use crate::head::rows::tests::row;

    fn packed(offsets: &[u32], pushed: &[Values]) -> Block {
        let mut rows = Rows::default();
        for row in pushed {
            rows.push(row);
        }
        Block::of(offsets, &rows)
    }

    proptest! {
        #[test]
        fn rows_come_back_as_columns(
            pushed in proptest::collection::vec(row(), 1..=MAX_ROWS),
            gaps in proptest::collection::vec(1..30_u32, MAX_ROWS),
        ) {
            let offsets: Vec<u32> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).take(pushed.len()).collect();
            let block = packed(&offsets, &pushed);
            prop_assert_eq!(block.len(), pushed.len());
            let times: Vec<_> = block.offsets(&mut [0; MAX_ROWS]).iter().map(|at| *at as u32).collect();
            prop_assert_eq!(&times, &offsets);
            prop_assert_eq!((block.first, block.last), (offsets[0], offsets[offsets.len() - 1]));
            for at in 0..300 {
                prop_assert_eq!(block.contains(at), offsets.contains(&at));
            }
            let mut shown = vec![Values::default(); pushed.len()];
            block.each(|row, metric, value| shown[row].set(metric, value));
            prop_assert_eq!(&shown, &pushed);
            for metric in (0..=METRIC_COUNT as u16 + 1).map(MetricId) {
                let mut values = [0; MAX_ROWS];
                let found = block.values(metric, &mut values);
                let found: Vec<_> = found.map_or_else(Vec::new, |(rows, values)| Bits(rows).zip(values.to_vec()).collect());
                let expected: Vec<_> = pushed.iter().enumerate().filter_map(|(n, row)| Some((n, row.get(metric)?))).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn what_does_not_change_costs_a_few_bytes_a_block() {
        let row = Values::default().with(POWER, 80_000).with(TEMPERATURE, 40);
        let offsets: Vec<u32> = (0..32).map(|n| n * 1000).collect();
        let block = packed(&offsets, &vec![row; 32]);
        assert!(block.n_bytes() < 40, "{} bytes", block.n_bytes());
    }
}
