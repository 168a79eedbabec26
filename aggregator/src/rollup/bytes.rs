//! The bytes of a rollup.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use entrenar::metric::{Kind, MetricId};
use entrenar::unit::Timestamp;

use super::{Extent, Rollup, kind_of};
use crate::chunk::packed;
use crate::chunk::varint::{self, unzigzag, zigzag};
use crate::chunk::{ChunkError, Profile};
use crate::query::bucket::Bucket;

/// First byte of every rollup.
pub(super) const VERSION: u8 = 1;

/// Buckets that one rollup may have: a stretch of three hours has 180 minutes, and a wrong number must not eat the memory.
pub(super) const MAX_BUCKETS: usize = 1 << 14;

/// Version, checksum, step in seconds, buckets, metrics, how the rest is written, and how long it is as it stands.
const HEADER: usize = 1 + 4 + 4 + 2 + 1 + 1 + 4;
/// Where the last two are.
const HOW: usize = 12;
const LENGTH: usize = 13;
/// What follows the header is a zstd frame; else it stands as it is.
const PACKED: u8 = 1;
/// The samples were rounded to what sensors mean; else they are exact.
const SENSOR: u8 = 2;
pub(super) const ZSTD_LEVEL: i32 = 3;

/// Metric, shape, length.
const TABLE_ROW: usize = 2 + 1 + 2;

/// Some samples do not have it: a count for each bucket, 0 for none, and unless it is flat the times of its own samples.
const SPARSE: u8 = 1;
/// Every value is the same: it stands once.
const FLAT: u8 = 2;
/// A total that had a reset: what it gained stands for each bucket.
const RESET: u8 = 4;
const KNOWN: u8 = SPARSE | FLAT | RESET;

/// A rollup as bytes.
pub fn encode(rollup: &Rollup) -> Result<Vec<u8>, ChunkError> {
    let n = rollup.starts.len();
    if !(1..=MAX_BUCKETS).contains(&n) {
        return Err(ChunkError::Length(n));
    }
    let (mut table, mut bodies) = (Vec::new(), Vec::new());
    let mut n_metrics: u8 = 0;
    for (metric, buckets) in &rollup.metrics {
        let kind = kind_of(*metric).ok_or(ChunkError::Malformed("unknown metric"))?;
        let (shape, body) = put_metric(kind, buckets, rollup);
        let length = u16::try_from(body.len()).map_err(|_| ChunkError::Length(n))?;
        table.extend(metric.0.to_le_bytes());
        table.push(shape);
        table.extend(length.to_le_bytes());
        bodies.extend(body);
        n_metrics += 1;
    }
    let mut blob = vec![VERSION, 0, 0, 0, 0];
    blob.extend((rollup.step.as_secs() as u32).to_le_bytes());
    blob.extend((n as u16).to_le_bytes());
    blob.push(n_metrics);
    let mut payload = table;
    put_extents(&mut payload, rollup);
    payload.extend(bodies);
    let rounded = match rollup.profile {
        Profile::Exact => 0,
        Profile::Sensor => SENSOR,
    };
    match packed::pack(&payload, ZSTD_LEVEL) {
        Ok(packed) if packed.len() < payload.len() => {
            blob.push(rounded | PACKED);
            blob.extend((payload.len() as u32).to_le_bytes());
            blob.extend(packed);
        }
        _ => {
            blob.push(rounded);
            blob.extend((payload.len() as u32).to_le_bytes());
            blob.extend(payload);
        }
    }
    let sum = checksum(&blob).to_le_bytes();
    blob[1..5].copy_from_slice(&sum);
    Ok(blob)
}

/// How the samples were rounded before they were summed up.
pub fn profile_of(blob: &[u8]) -> Result<Profile, ChunkError> {
    Ok(Frame::parse(blob)?.profile)
}

/// One metric's buckets, ascending; none if the rollup has none of it.
pub fn decode(blob: &[u8], metric: MetricId) -> Result<Vec<Bucket>, ChunkError> {
    let mut buckets = Vec::new();
    Opened::new(blob)?.each(metric, |bucket| buckets.push(bucket))?;
    Ok(buckets)
}

/// A rollup that was unpacked: one of its metrics after the other is read without doing that again.
#[derive(Clone, Debug)]
pub struct Opened {
    pub(super) profile: Profile,
    pub(super) n_buckets: usize,
    step: Duration,
    /// The table, the buckets' extents, and the bodies.
    payload: Box<[u8]>,
    /// Where in it the buckets' extents are.
    extents: Range<usize>,
}

impl Opened {
    /// Checks its checksum and unpacks it.
    pub fn new(blob: &[u8]) -> Result<Self, ChunkError> {
        let frame = Frame::parse(blob)?;
        let payload = frame.payload()?;
        let table_length = frame.n_metrics * TABLE_ROW;
        let (_, rest) = payload
            .split_at_checked(table_length)
            .ok_or(ChunkError::Truncated)?;
        let rest = Spans::new(rest, frame.n_buckets, frame.step).skip()?;
        let opened = Self {
            profile: frame.profile,
            n_buckets: frame.n_buckets,
            step: frame.step,
            extents: table_length..payload.len() - rest.len(),
            payload: payload.into(),
        };
        if !opened.table().is_sorted_by(|a, b| a.0 < b.0) {
            return Err(ChunkError::Malformed("metrics out of order"));
        }
        let end = opened
            .table()
            .last()
            .map_or(opened.extents.end, |row| row.2.end);
        if end != opened.payload.len() {
            return Err(ChunkError::Malformed("bodies of another length"));
        }
        Ok(opened)
    }

    /// How the samples were rounded before they were summed up.
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// Shows one metric's buckets, ascending; none if the rollup has none of it.
    pub fn each(&self, metric: MetricId, see: impl FnMut(Bucket)) -> Result<(), ChunkError> {
        let Some((_, shape, body)) = self.table().find(|(of, ..)| *of == metric) else {
            return Ok(());
        };
        let body = &self.payload[body];
        let spans = Spans::new(self.extents(), self.n_buckets, self.step);
        each_bucket(spans, metric, shape, body, see)
    }

    /// The bytes that say when its buckets are.
    pub(super) fn extents(&self) -> &[u8] {
        &self.payload[self.extents.clone()]
    }

    /// Metric, shape and body of each, by metric.
    pub(super) fn bodies(&self) -> impl Iterator<Item = (MetricId, u8, &[u8])> {
        let body =
            |(metric, shape, at): (MetricId, u8, Range<usize>)| (metric, shape, &self.payload[at]);
        self.table().map(body)
    }

    /// Memory that it holds.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.payload.len()
    }

    /// Metric, shape, and where its body is; by metric.
    fn table(&self) -> impl Iterator<Item = (MetricId, u8, Range<usize>)> {
        let rows = self.payload[..self.extents.start].chunks_exact(TABLE_ROW);
        rows.scan(self.extents.end, |begin, row| {
            let metric = MetricId(u16::from_le_bytes([row[0], row[1]]));
            let length = usize::from(u16::from_le_bytes([row[3], row[4]]));
            let at = *begin..*begin + length;
            *begin = at.end;
            Some((metric, row[2], at))
        })
    }
}

/// Shows one metric's buckets, from when they are and what it did. Where the bytes are damaged, some may be shown before
/// the error.
pub(super) fn each_bucket(
    mut spans: Spans<'_>,
    metric: MetricId,
    shape: u8,
    mut body: &[u8],
    see: impl FnMut(Bucket),
) -> Result<(), ChunkError> {
    let kind = kind_of(metric).ok_or(ChunkError::Malformed("unknown metric"))?;
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
                see(gauges.take(&mut body, &span()?.extent)?);
            }
        }
        Kind::Counter => {
            let mut counters = Counters::new(&mut body, n, shape)?;
            for _ in 0..n {
                see(counters.take(&mut body, &span()?.extent)?);
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
struct Span {
    start: Timestamp,
    extent: Extent,
}

/// For each bucket: how many steps after the one before it begins, its samples, and when the first and the last were.
fn put_extents(blob: &mut Vec<u8>, rollup: &Rollup) {
    let step_ms = rollup.step.as_millis() as i64;
    let mut before = 0;
    for (start, extent) in rollup.starts.iter().zip(&rollup.extents) {
        let number = start.0.div_euclid(step_ms);
        varint::put(blob, zigzag(number.wrapping_sub(before)));
        before = number;
        varint::put(blob, extent.count);
        put_times(blob, *start, extent.first, extent.last);
    }
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

    #[inline]
    fn take(&mut self) -> Result<Span, ChunkError> {
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
    fn skip(mut self) -> Result<&'a [u8], ChunkError> {
        for _ in 0..self.n {
            self.take()?;
        }
        Ok(self.rest)
    }
}

fn put_times(bytes: &mut Vec<u8>, start: Timestamp, first: Timestamp, last: Timestamp) {
    varint::put(bytes, first.0.abs_diff(start.0));
    varint::put(bytes, last.0.abs_diff(first.0));
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

fn put_metric(kind: Kind, buckets: &[Option<Bucket>], rollup: &Rollup) -> (u8, Vec<u8>) {
    let mut body = Vec::new();
    let mut shape = 0;
    let is_full = |(bucket, extent): (&Option<Bucket>, &Extent)| {
        bucket.is_some_and(|known| known.count == extent.count)
    };
    if !buckets.iter().zip(&rollup.extents).all(is_full) {
        shape |= SPARSE;
        for bucket in buckets {
            varint::put(&mut body, bucket.map_or(0, |known| known.count));
        }
    }
    let known = || buckets.iter().flatten();
    let value = known().next().map_or(0, |bucket| bucket.min);
    if known().all(|bucket| bucket.min == value && bucket.max == value) {
        varint::put(&mut body, zigzag(value));
        return (shape | FLAT, body);
    }
    let has_reset = |b: &Bucket| b.increase != i128::from(b.last.1) - i128::from(b.first.1);
    if kind == Kind::Counter && known().any(has_reset) {
        shape |= RESET;
    }
    if shape & SPARSE != 0 {
        for (start, bucket) in rollup.starts.iter().zip(buckets) {
            if let Some(bucket) = bucket {
                put_times(&mut body, *start, bucket.first.0, bucket.last.0);
            }
        }
    }
    // Like beside like: that packs better.
    match kind {
        Kind::Gauge => put_gauges(&mut body, known),
        Kind::Counter => put_counters(&mut body, known, shape),
    }
    (shape, body)
}

fn put_gauges<'a, I: Iterator<Item = &'a Bucket>>(body: &mut Vec<u8>, known: impl Fn() -> I) {
    let mut before = 0_i64;
    for bucket in known() {
        varint::put(body, zigzag(bucket.min.wrapping_sub(before)));
        before = bucket.min;
    }
    for bucket in known() {
        varint::put(body, bucket.max.wrapping_sub(bucket.min) as u64);
    }
    for bucket in known() {
        varint::put(body, bucket.last.1.wrapping_sub(bucket.min) as u64);
    }
    for bucket in known() {
        let least = i128::from(bucket.min) * i128::from(bucket.count);
        varint::put_long(body, bucket.sum.abs_diff(least));
    }
}

fn put_counters<'a, I: Iterator<Item = &'a Bucket>>(
    body: &mut Vec<u8>,
    known: impl Fn() -> I,
    shape: u8,
) {
    let mut before = 0_i64;
    for bucket in known() {
        varint::put(body, zigzag(bucket.first.1.wrapping_sub(before)));
        before = bucket.last.1;
    }
    for bucket in known() {
        varint::put(body, zigzag(bucket.last.1.wrapping_sub(bucket.first.1)));
    }
    if shape & RESET != 0 {
        for bucket in known() {
            varint::put_long(body, bucket.increase.unsigned_abs());
        }
    }
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

fn flat_at(value: i64, extent: &Extent) -> Bucket {
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
struct Gauges {
    /// Steps of the least values; then largest values and last ones, above the least.
    columns: Columns,
    before: i64,
}

impl Gauges {
    fn new(body: &mut &[u8], n: usize) -> Result<Self, ChunkError> {
        let columns = Columns::take(body, n, 3)?;
        Ok(Self { columns, before: 0 })
    }

    #[inline]
    fn take(&mut self, sums: &mut &[u8], extent: &Extent) -> Result<Bucket, ChunkError> {
        let [step, to_most, to_last] = self.columns.next();
        let least = self.before.wrapping_add(unzigzag(step));
        self.before = least;
        let mut bucket = flat_at(least, extent);
        let above = least.checked_add_unsigned(to_most);
        bucket.max = above.ok_or(OUT_OF_RANGE)?;
        let above = least.checked_add_unsigned(to_last);
        let is_level = |last: &i64| *last <= bucket.max;
        bucket.last.1 = above.filter(is_level).ok_or(OUT_OF_RANGE)?;
        let most = i128::from(bucket.max) * i128::from(bucket.count);
        let above = bucket.sum.checked_add_unsigned(take_long(sums)?);
        let is_sum = |sum: &i128| *sum <= most;
        bucket.sum = above.filter(is_sum).ok_or(OUT_OF_RANGE)?;
        Ok(bucket)
    }
}

/// A total: its columns but what was gained, which stands last where there was a reset.
struct Counters {
    /// Steps to the first values, and from those to the last ones.
    columns: Columns,
    has_gains: bool,
    before: i64,
}

impl Counters {
    fn new(body: &mut &[u8], n: usize, shape: u8) -> Result<Self, ChunkError> {
        Ok(Self {
            columns: Columns::take(body, n, 2)?,
            has_gains: shape & RESET != 0,
            before: 0,
        })
    }

    #[inline]
    fn take(&mut self, gains: &mut &[u8], extent: &Extent) -> Result<Bucket, ChunkError> {
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
        Ok(Bucket {
            first: (extent.first, first),
            last: (extent.last, last),
            min: first.min(last),
            max: first.max(last),
            sum: 0,
            count: extent.count,
            increase,
        })
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
const OUT_OF_RANGE: ChunkError = ChunkError::Malformed("a sum that no samples come to");

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

/// Over everything but itself.
pub(super) fn checksum(blob: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&blob[..1]);
    crc.update(&blob[5..]);
    crc.finalize()
}

/// A rollup whose checksum is in order.
struct Frame<'a> {
    step: Duration,
    profile: Profile,
    n_buckets: usize,
    n_metrics: usize,
    is_packed: bool,
    /// Of the payload as it stands.
    length: usize,
    rest: &'a [u8],
}

impl<'a> Frame<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self, ChunkError> {
        match blob.first() {
            Some(&VERSION) if blob.len() >= HEADER => {}
            None | Some(&VERSION) => return Err(ChunkError::Truncated),
            Some(&other) => return Err(ChunkError::Version(other)),
        }
        let word =
            |at: usize| u32::from_le_bytes([blob[at], blob[at + 1], blob[at + 2], blob[at + 3]]);
        if checksum(blob) != word(1) {
            return Err(ChunkError::Checksum);
        }
        let step = Duration::from_secs(word(5).into());
        let n_buckets = usize::from(u16::from_le_bytes([blob[9], blob[10]]));
        let n_metrics = usize::from(blob[HOW - 1]);
        let length = word(LENGTH) as usize;
        let is_sound = !step.is_zero()
            && (1..=MAX_BUCKETS).contains(&n_buckets)
            && length <= largest_payload(n_metrics, n_buckets);
        if !is_sound {
            return Err(ChunkError::Length(n_buckets));
        }
        let how = blob[HOW];
        if how & !(PACKED | SENSOR) != 0 {
            return Err(ChunkError::Malformed("unknown packing of a rollup"));
        }
        Ok(Self {
            step,
            profile: match how & SENSOR {
                0 => Profile::Exact,
                _ => Profile::Sensor,
            },
            n_buckets,
            n_metrics,
            is_packed: how & PACKED != 0,
            length,
            rest: &blob[HEADER..],
        })
    }

    /// The table and what follows it.
    fn payload(&self) -> Result<Cow<'a, [u8]>, ChunkError> {
        let payload = if self.is_packed {
            let plain = packed::unpack(self.rest, self.length);
            Cow::Owned(plain.map_err(|_| ChunkError::Malformed("rollup does not inflate"))?)
        } else {
            Cow::Borrowed(self.rest)
        };
        if payload.len() == self.length {
            Ok(payload)
        } else {
            Err(ChunkError::Truncated)
        }
    }
}

/// What a table of so many metrics, the extents of the buckets and a body for each metric take at most.
const fn largest_payload(n_metrics: usize, n_buckets: usize) -> usize {
    const EXTENT: usize = 4 * varint::MAX_BYTES;
    n_metrics * (TABLE_ROW + u16::MAX as usize) + n_buckets * EXTENT
}
