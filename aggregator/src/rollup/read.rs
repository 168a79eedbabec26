//! One metric's sums as they are read, bucket by bucket.

use std::time::Duration;

use entrenar::metric::{Kind, MetricId};
use entrenar::unit::Timestamp;

use super::write::{FLAT, KNOWN, RESET, SPARSE};
use super::{Extent, kind_of};
use crate::chunk::ChunkError;
use crate::chunk::varint::{self, unzigzag};
use crate::query::bucket::Bucket;

/// Shows one metric's buckets, from when they are and what it did. Where the bytes are damaged, some may be shown before
/// the error.
pub(super) fn each_bucket(
    mut spans: Spans<'_>,
    metric: MetricId,
    shape: u8,
    mut body: &[u8],
    see: impl FnMut(Bucket),
) -> Result<(), ChunkError> {
    let kind = kind_of(metric).ok_or(UNKNOWN_METRIC)?;
    if shape & !KNOWN != 0 {
        return Err(ChunkError::Malformed("unknown shape of a rollup"));
    }
    if shape & SPARSE == 0 {
        let n = spans.n;
        return each_known(|| spans.take(), n, kind, shape, body, see);
    }
    let whole = spans.all()?;
    let counts = take_counts(&mut body, whole.len())?;
    let has_times = shape & FLAT == 0;
    let known = known_of(&mut body, &whole, &counts, has_times)?;
    let n = known.len();
    let mut known = known.into_iter();
    each_known(|| known.next().ok_or(CUT_SHORT), n, kind, shape, body, see)
}

/// The buckets that a metric is in, whose spans come one by one. What they are stands column by column.
fn each_known(
    mut span: impl FnMut() -> Result<Span, ChunkError>,
    n: usize,
    kind: Kind,
    shape: u8,
    mut body: &[u8],
    mut see: impl FnMut(Bucket),
) -> Result<(), ChunkError> {
    match kind {
        _ if shape & FLAT != 0 => {
            let value = unzigzag(take(&mut body)?);
            for _ in 0..n {
                see(flat_at(value, &span()?.extent));
            }
        }
        Kind::Gauge => {
            let mut gauges = Gauges::new(&mut body, n)?;
            for _ in 0..n {
                let extent = span()?.extent;
                see(gauges.level(&mut body, extent.count)?.within(&extent));
            }
        }
        Kind::Counter => {
            let mut counters = Counters::new(&mut body, n, shape)?;
            for _ in 0..n {
                let extent = span()?.extent;
                see(counters.rise(&mut body)?.within(&extent));
            }
        }
    }
    if body.is_empty() {
        Ok(())
    } else {
        Err(ChunkError::Malformed("bytes after the last bucket"))
    }
}

/// When a bucket begins, and its samples.
#[derive(Clone, Copy)]
pub(super) struct Span {
    start: Timestamp,
    pub(super) extent: Extent,
}

/// When the buckets of a stretch are, one by one.
pub(super) struct Spans<'a> {
    rest: &'a [u8],
    n: usize,
    step_ms: i64,
    /// Of the one before; `None` before the first.
    number: Option<i64>,
}

impl<'a> Spans<'a> {
    pub(super) fn new(rest: &'a [u8], n: usize, step: Duration) -> Self {
        Self {
            rest,
            n,
            step_ms: step.as_millis() as i64,
            number: None,
        }
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.n
    }

    #[inline]
    pub(super) fn take(&mut self) -> Result<Span, ChunkError> {
        let before = self.number.unwrap_or(0);
        let [steps, count, to_first, to_last] = take_some(&mut self.rest)?;
        let number = before.wrapping_add(unzigzag(steps));
        let start = Timestamp(number.saturating_mul(self.step_ms));
        let (first, last) = times_of(start, to_first, to_last);
        let is_in = |at: Timestamp| match number.checked_mul(self.step_ms) {
            Some(start) => start <= at.0 && at.0.wrapping_sub(start) < self.step_ms,
            // At the ends of time a step begins before it.
            None => at.0.div_euclid(self.step_ms) == number,
        };
        let is_within = is_in(first) && is_in(last) && first <= last;
        if count == 0 || !is_within {
            return Err(ChunkError::Malformed("a bucket without its samples"));
        }
        if self.number.is_some() && number <= before {
            return Err(ChunkError::Malformed("buckets out of order"));
        }
        self.number = Some(number);
        let extent = Extent { first, last, count };
        Ok(Span { start, extent })
    }

    fn all(&mut self) -> Result<Vec<Span>, ChunkError> {
        (0..self.n).map(|_| self.take()).collect()
    }

    /// What follows them.
    pub(super) fn skip(mut self) -> Result<&'a [u8], ChunkError> {
        for _ in 0..self.n {
            self.take()?;
        }
        Ok(self.rest)
    }
}

#[inline]
fn take_times(bytes: &mut &[u8], start: Timestamp) -> Result<(Timestamp, Timestamp), ChunkError> {
    let [to_first, to_last] = take_some(bytes)?;
    Ok(times_of(start, to_first, to_last))
}

#[inline]
const fn times_of(start: Timestamp, to_first: u64, to_last: u64) -> (Timestamp, Timestamp) {
    let first = start.0.wrapping_add(to_first as i64);
    (
        Timestamp(first),
        Timestamp(first.wrapping_add(to_last as i64)),
    )
}

fn take_counts(body: &mut &[u8], n: usize) -> Result<Vec<u64>, ChunkError> {
    (0..n).map(|_| take(body)).collect()
}

/// The buckets in which a metric is that is not in every sample. `has_times`: those of its own samples follow.
fn known_of(
    body: &mut &[u8],
    spans: &[Span],
    counts: &[u64],
    has_times: bool,
) -> Result<Vec<Span>, ChunkError> {
    let mut known = Vec::with_capacity(spans.len());
    for (span, count) in spans.iter().zip(counts).filter(|(_, count)| **count > 0) {
        let (first, last) = if has_times {
            take_times(body, span.start)?
        } else {
            (span.extent.first, span.extent.last)
        };
        let count = *count;
        let is_within = |at: Timestamp| span.extent.first <= at && at <= span.extent.last;
        if count > span.extent.count || !is_within(first) || !is_within(last) || last < first {
            return Err(ChunkError::Malformed("values outside their bucket"));
        }
        let extent = Extent { first, last, count };
        known.push(Span { extent, ..*span });
    }
    Ok(known)
}

/// As if every sample were this.
pub(super) fn flat_at(value: i64, extent: &Extent) -> Bucket {
    Bucket {
        first: (extent.first, value),
        last: (extent.last, value),
        min: value,
        max: value,
        sum: i128::from(value) * i128::from(extent.count),
        count: extent.count,
        increase: 0,
    }
}

/// A level: all of its columns but the sums, which are last.
pub(super) struct Gauges {
    /// Steps of the least values; then largest values and last ones, above the least.
    columns: Columns,
    before: i64,
}

/// What a level did in a bucket.
pub(super) struct Level {
    pub(super) least: i64,
    pub(super) most: i64,
    pub(super) last: i64,
    pub(super) sum: i128,
}

impl Gauges {
    pub(super) fn new(body: &mut &[u8], n: usize) -> Result<Self, ChunkError> {
        let columns = Columns::take(body, n, 3)?;
        Ok(Self { columns, before: 0 })
    }

    /// The next, of so many samples.
    #[inline]
    pub(super) fn level(&mut self, sums: &mut &[u8], count: u64) -> Result<Level, ChunkError> {
        let [step, to_most, to_last] = self.columns.next();
        let least = self.before.wrapping_add(unzigzag(step));
        self.before = least;
        let most = least.checked_add_unsigned(to_most).ok_or(OUT_OF_RANGE)?;
        if to_most < to_last {
            return Err(OUT_OF_RANGE);
        }
        let above = take_long(sums)?;
        if u128::from(to_most) * u128::from(count) < above {
            return Err(OUT_OF_RANGE);
        }
        let bottom = i128::from(least) * i128::from(count);
        Ok(Level {
            least,
            most,
            last: least.wrapping_add_unsigned(to_last),
            sum: bottom.wrapping_add_unsigned(above),
        })
    }
}

impl Level {
    pub(super) fn within(self, extent: &Extent) -> Bucket {
        Bucket {
            last: (extent.last, self.last),
            max: self.most,
            sum: self.sum,
            ..flat_at(self.least, extent)
        }
    }
}

/// A total: its columns but what was gained, which stands last where there was a reset.
pub(super) struct Counters {
    /// Steps to the first values, and from those to the last ones.
    columns: Columns,
    has_gains: bool,
    before: i64,
}

/// What a total did in a bucket.
pub(super) struct Rise {
    pub(super) first: i64,
    pub(super) last: i64,
    /// Of the two.
    pub(super) least: i64,
    pub(super) most: i64,
    pub(super) increase: i128,
}

impl Counters {
    pub(super) fn new(body: &mut &[u8], n: usize, shape: u8) -> Result<Self, ChunkError> {
        Ok(Self {
            columns: Columns::take(body, n, 2)?,
            has_gains: shape & RESET != 0,
            before: 0,
        })
    }

    /// The next.
    #[inline]
    pub(super) fn rise(&mut self, gains: &mut &[u8]) -> Result<Rise, ChunkError> {
        let [to_first, to_last] = self.columns.next();
        let first = self.before.wrapping_add(unzigzag(to_first));
        let last = first.wrapping_add(unzigzag(to_last));
        self.before = last;
        let increase = if self.has_gains {
            i128::try_from(take_long(gains)?).map_err(|_| OUT_OF_RANGE)?
        } else {
            i128::from(last) - i128::from(first)
        };
        if increase < 0 {
            return Err(OUT_OF_RANGE);
        }
        Ok(Rise {
            first,
            last,
            least: first.min(last),
            most: first.max(last),
            increase,
        })
    }
}

impl Rise {
    pub(super) fn within(self, extent: &Extent) -> Bucket {
        Bucket {
            first: (extent.first, self.first),
            last: (extent.last, self.last),
            min: self.least,
            max: self.most,
            sum: 0,
            count: extent.count,
            increase: self.increase,
        }
    }
}

/// Numbers that stand column by column, and are read row by row.
struct Columns {
    few: [u64; FEW],
    /// Where there are more of them.
    many: Vec<u64>,
    n: usize,
    next: usize,
}

/// Numbers for which no memory is taken: three columns of a stretch's minutes.
const FEW: usize = 48;

impl Columns {
    fn take(bytes: &mut &[u8], n: usize, columns: usize) -> Result<Self, ChunkError> {
        let mut few = [0; FEW];
        let mut many = Vec::new();
        if let Some(few) = few.get_mut(..n * columns) {
            let (pairs, last) = few.as_chunks_mut();
            for pair in pairs {
                *pair = take_some::<2>(bytes)?;
            }
            for number in last {
                *number = take(bytes)?;
            }
        } else {
            // A wrong number must not eat the memory: each of them takes a byte at least.
            many.reserve((n * columns).min(bytes.len()));
            for _ in 0..n * columns {
                many.push(take(bytes)?);
            }
        }
        Ok(Self {
            few,
            many,
            n,
            next: 0,
        })
    }

    /// The next row of as many columns as were taken; there are `n`.
    #[inline]
    fn next<const COLUMNS: usize>(&mut self) -> [u64; COLUMNS] {
        let row = self.next;
        self.next += 1;
        let numbers = if self.many.is_empty() {
            self.few.as_slice()
        } else {
            &self.many
        };
        std::array::from_fn(|column| numbers[column * self.n + row])
    }
}

pub(super) const CUT_SHORT: ChunkError = ChunkError::Malformed("rollup cut short");
pub(super) const OUT_OF_RANGE: ChunkError = ChunkError::Malformed("a sum that no samples come to");
pub(super) const UNKNOWN_METRIC: ChunkError = ChunkError::Malformed("unknown metric");

#[inline]
pub(super) fn take(bytes: &mut &[u8]) -> Result<u64, ChunkError> {
    varint::take(bytes).ok_or(CUT_SHORT)
}

#[inline]
fn take_some<const N: usize>(bytes: &mut &[u8]) -> Result<[u64; N], ChunkError> {
    varint::take_some(bytes).ok_or(CUT_SHORT)
}

#[inline]
fn take_long(bytes: &mut &[u8]) -> Result<u128, ChunkError> {
    varint::take_long(bytes).ok_or(CUT_SHORT)
}
