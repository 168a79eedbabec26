//! Samples in ascending order: those of the last half a minute row by row, older ones in blocks of columns.

use std::time::Duration;

use entrenar::gpu::Values;
use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::block::{Bits, Block, MAX_ROWS};
use super::rows::Rows;
use super::total::Total;
use crate::chunk::stretch;
use crate::query::Point;
use crate::query::recent::SumUp;

/// A block is of so many ticks, counted from the beginning of the stretch: stretches of different GPUs begin at different
/// times, and so their blocks are not all packed at the same one. One metric is read from rows
/// several times slower than from a block; shorter blocks take more memory.
const TICKS_A_BLOCK: u32 = 30;

/// Fewer rows than this wait for the next block, unless that gets too many.
const LEAST_ROWS: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Later than all, in milliseconds from the start of the stretch; 0 for none.
    end: u32,
    /// How long a block is.
    block_ms: u32,
    blocks: Vec<Block>,
    /// Samples in blocks: these lie all over the memory, and every push asks how many there are.
    n_in_blocks: usize,
    /// What the blocks come to.
    total: Total,
    /// Of the rows, in milliseconds from the start of the stretch.
    offsets: Vec<u32>,
    rows: Rows,
}

impl Run {
    /// None yet. `length`: of the stretch.
    pub(super) fn new(length: Duration) -> Self {
        let tick_ms = length.as_millis() as u32 / stretch::TICKS;
        Self {
            end: 0,
            block_ms: (tick_ms * TICKS_A_BLOCK).max(1),
            blocks: Vec::new(),
            n_in_blocks: 0,
            total: Total::default(),
            offsets: Vec::new(),
            rows: Rows::default(),
        }
    }

    /// Later than all, in milliseconds from the start of the stretch; 0 for none.
    pub(super) const fn end(&self) -> u32 {
        self.end
    }

    /// When the first was; as for none, where there is none.
    pub(super) fn first(&self) -> u32 {
        let of_block = self.blocks.first().map(|block| block.first);
        of_block.or(self.offsets.first().copied()).unwrap_or(0)
    }

    /// Adds a sample that is later than all.
    pub(super) fn push(&mut self, offset: u32, values: &Values) {
        let is_next = self.end.saturating_sub(1) / self.block_ms != offset / self.block_ms;
        let n_rows = self.offsets.len();
        if n_rows == MAX_ROWS || is_next && n_rows >= LEAST_ROWS {
            self.blocks.reserve_exact(1);
            let block = Block::of(&self.offsets, &self.rows);
            self.total.add(&block);
            self.blocks.push(block);
            self.n_in_blocks += n_rows;
            self.offsets.clear();
            self.rows.clear();
        }
        self.rows.push(values);
        if self.offsets.capacity() == 0 {
            self.offsets.reserve_exact(MAX_ROWS);
        }
        self.offsets.push(offset);
        self.end = offset.saturating_add(1);
    }

    pub(super) fn contains(&self, offset: u32) -> bool {
        let is_here = || {
            let next = self.blocks.partition_point(|block| block.last < offset);
            let in_block = |block: &Block| block.contains(offset);
            self.blocks.get(next).is_some_and(in_block)
                || self.offsets.binary_search(&offset).is_ok()
        };
        offset < self.end && is_here()
    }

    pub(super) const fn len(&self) -> usize {
        self.n_in_blocks + self.offsets.len()
    }

    /// Metrics that any of the latest samples has.
    pub(super) fn n_series(&self) -> usize {
        let before = self.blocks.last().map_or(0, Block::n_series);
        before.max(self.rows.n_series())
    }

    /// When each sample was, in milliseconds from the start of the stretch.
    pub(super) fn offsets(&self) -> Vec<u32> {
        let mut offsets = Vec::with_capacity(self.len());
        for block in &self.blocks {
            let mut times = [0; MAX_ROWS];
            offsets.extend(block.offsets(&mut times).iter().map(|time| *time as u32));
        }
        offsets.extend_from_slice(&self.offsets);
        offsets
    }

    /// Shows every value with the number of its sample.
    pub(super) fn each(&self, mut show: impl FnMut(usize, MetricId, i64)) {
        let mut first = 0;
        for block in &self.blocks {
            block.each(|row, metric, value| show(first + row, metric, value));
            first += block.len();
        }
        self.rows
            .each(|row, metric, value| show(first + row, metric, value));
    }

    /// Appends one metric's value of each sample.
    pub(super) fn column(&self, metric: MetricId, column: &mut Vec<Option<i64>>) {
        for block in &self.blocks {
            let mut values = [0; MAX_ROWS];
            let before = column.len();
            column.resize(before + block.len(), None);
            if let Some((rows, values)) = block.values(metric, &mut values) {
                for (row, value) in Bits(rows).zip(values) {
                    column[before + row] = Some(*value);
                }
            }
        }
        let before = column.len();
        column.resize(before + self.offsets.len(), None);
        self.rows.each_of(metric, |row, value| {
            column[before + row] = Some(value);
        });
    }

    /// Shows one metric's values between two instants, both included, ascending and some dozens at a time. `start`: of the
    /// stretch.
    pub(super) fn each_of(
        &self,
        metric: MetricId,
        start: Timestamp,
        extent: (Timestamp, Timestamp),
        mut show: impl FnMut(&[Point]),
    ) {
        for block in self.overlapping(start, extent) {
            block.points(metric, start, |some| show(within(some, extent)));
        }
        self.latest(metric, start, |some| show(within(some, extent)));
    }

    /// The same summed up. Of blocks in one step it is known already what they come to, and of a block in one step the values are
    /// enough: nobody asks when each was.
    pub(super) fn sum_up(
        &self,
        metric: MetricId,
        start: Timestamp,
        extent: (Timestamp, Timestamp),
        sums: &mut SumUp<'_>,
    ) {
        let is_one = |sums: &SumUp<'_>, first: u32, last: u32| {
            let (first, last) = (at(start, first), at(start, last));
            extent.0 <= first && last <= extent.1 && last < sums.end_of(first)
        };
        let ends = self.blocks.first().zip(self.blocks.last());
        if ends.is_some_and(|(first, last)| is_one(sums, first.first, last.last)) {
            if let Some(total) = self.total.of(metric, start) {
                sums.add(total);
            }
        } else {
            for block in self.overlapping(start, extent) {
                if !is_one(sums, block.first, block.last) {
                    block.points(metric, start, |some| sums.points(within(some, extent)));
                } else if let Some(sum) = block.sum(metric, start) {
                    sums.add(sum);
                }
            }
        }
        self.latest(metric, start, |some| sums.points(within(some, extent)));
    }

    /// Blocks that have samples between two instants.
    fn overlapping(
        &self,
        start: Timestamp,
        (from, to): (Timestamp, Timestamp),
    ) -> impl Iterator<Item = &Block> {
        let overlaps =
            move |block: &&Block| from <= at(start, block.last) && at(start, block.first) <= to;
        self.blocks.iter().filter(overlaps)
    }

    /// Shows one metric's values in the rows.
    fn latest(&self, metric: MetricId, start: Timestamp, show: impl FnOnce(&[Point])) {
        let mut points = [(Timestamp(0), 0); MAX_ROWS];
        let mut n = 0;
        self.rows.each_of(metric, |row, value| {
            points[n] = (at(start, self.offsets[row]), value);
            n += 1;
        });
        show(&points[..n]);
    }

    /// Memory that it holds beside itself.
    pub(super) fn n_bytes(&self) -> usize {
        let blocks = self.blocks.capacity() * size_of::<Block>();
        let packed: usize = self.blocks.iter().map(Block::n_bytes).sum();
        blocks
            + packed
            + self.total.n_bytes()
            + self.offsets.capacity() * size_of::<u32>()
            + self.rows.n_bytes()
    }
}

fn at(start: Timestamp, offset: u32) -> Timestamp {
    Timestamp(start.0 + i64::from(offset))
}

/// Of ascending points those between two instants, both included.
fn within(points: &[Point], (from, to): (Timestamp, Timestamp)) -> &[Point] {
    let begin = points.partition_point(|(at, _)| *at < from);
    let end = points.partition_point(|(at, _)| *at <= to);
    points.get(begin..end).unwrap_or_default()
}
