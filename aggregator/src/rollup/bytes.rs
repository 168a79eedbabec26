//! The bytes of a rollup.

use std::time::Duration;

use entrenar::metric::{Kind, MetricId};
use entrenar::unit::Timestamp;

use super::{Counter, Gauge, Rollup, Summary, kind_of};
use crate::chunk::ChunkError;
use crate::chunk::varint::{self, unzigzag, zigzag};

/// First byte of every rollup.
pub(super) const VERSION: u8 = 1;

/// Buckets that one rollup may have: a stretch of three hours has 180 minutes, and a wrong number must not eat the memory.
const MAX_BUCKETS: usize = 1 << 14;

/// Version, checksum, step in seconds, buckets, metrics.
const HEADER: usize = 1 + 4 + 4 + 2 + 1;
/// Metric, shape, length.
const TABLE_ROW: usize = 2 + 1 + 2;

/// Some buckets have no value: each says first how many samples it has, and 0 is none.
const SPARSE: u8 = 1;
/// Every value is the same: it stands once.
const FLAT: u8 = 2;
/// A total that had a reset: what it rose by stands for each bucket.
const RESET: u8 = 4;
const KNOWN: u8 = SPARSE | FLAT | RESET;

/// A rollup as bytes.
pub fn encode(rollup: &Rollup) -> Result<Vec<u8>, ChunkError> {
    let n = rollup.starts.len();
    if !(1..=MAX_BUCKETS).contains(&n) {
        return Err(ChunkError::Length(n));
    }
    let counts = common_counts(rollup);
    let (mut table, mut bodies) = (Vec::new(), Vec::new());
    let mut n_metrics: u8 = 0;
    for (metric, buckets) in &rollup.metrics {
        let (shape, body) = put_metric(buckets, &counts);
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
    blob.extend(table);
    put_times(&mut blob, rollup, &counts);
    blob.extend(bodies);
    let sum = checksum(&blob).to_le_bytes();
    blob[1..5].copy_from_slice(&sum);
    Ok(blob)
}

/// The step, and one metric's buckets, ascending; none if the rollup has none of it.
pub fn decode(
    blob: &[u8],
    metric: MetricId,
) -> Result<(Duration, Vec<(Timestamp, Summary)>), ChunkError> {
    let frame = Frame::parse(blob)?;
    let step = Duration::from_secs(frame.step_s.into());
    let mut rest = frame.rest;
    let (starts, counts) = take_times(&mut rest, frame.n_buckets, frame.step_s)?;
    let kind = kind_of(metric);
    for row in frame.table.chunks_exact(TABLE_ROW) {
        let length = usize::from(u16::from_le_bytes([row[3], row[4]]));
        let (mut body, after) = rest.split_at_checked(length).ok_or(ChunkError::Truncated)?;
        rest = after;
        if u16::from_le_bytes([row[0], row[1]]) != metric.0 {
            continue;
        }
        let kind = kind.ok_or(ChunkError::Malformed("unknown metric"))?;
        let buckets = take_metric(&mut body, row[2], kind, &counts)?;
        let known = starts.into_iter().zip(buckets);
        let known = known.filter_map(|(at, bucket)| Some((at, bucket?)));
        return Ok((step, known.collect()));
    }
    Ok((step, Vec::new()))
}

/// How many samples each bucket has: of the metric that has most, which is there at every tick.
fn common_counts(rollup: &Rollup) -> Vec<u32> {
    let count = |bucket: &Option<Summary>| bucket.as_ref().map_or(0, Summary::count);
    let of = |place: usize| {
        let metrics = rollup.metrics.iter();
        metrics.map(|(_, buckets)| count(&buckets[place])).max()
    };
    (0..rollup.starts.len())
        .map(|place| of(place).unwrap_or(0))
        .collect()
}

/// The first start in steps from the epoch, then how many steps further each is; and the counts.
fn put_times(blob: &mut Vec<u8>, rollup: &Rollup, counts: &[u32]) {
    let step_ms = rollup.step.as_millis() as i64;
    let mut before = 0;
    for start in &rollup.starts {
        let number = start.0.div_euclid(step_ms);
        varint::put(blob, zigzag(number.wrapping_sub(before)));
        before = number;
    }
    for count in counts {
        varint::put(blob, u64::from(*count));
    }
}

fn take_times(
    rest: &mut &[u8],
    n: usize,
    step_s: u32,
) -> Result<(Vec<Timestamp>, Vec<u32>), ChunkError> {
    let step_ms = i64::from(step_s) * 1000;
    let mut number = 0_i64;
    let mut starts = Vec::with_capacity(n);
    for _ in 0..n {
        number = number.wrapping_add(unzigzag(take(rest)?));
        starts.push(Timestamp(number.saturating_mul(step_ms)));
    }
    let counts = (0..n).map(|_| take_count(rest)).collect::<Result<_, _>>()?;
    Ok((starts, counts))
}

fn put_metric(buckets: &[Option<Summary>], counts: &[u32]) -> (u8, Vec<u8>) {
    let mut body = Vec::new();
    let mut shape = 0;
    let is_full = |(bucket, count): (&Option<Summary>, &u32)| {
        bucket.as_ref().is_some_and(|known| known.count() == *count)
    };
    if !buckets.iter().zip(counts).all(is_full) {
        shape |= SPARSE;
        for bucket in buckets {
            varint::put(&mut body, bucket.as_ref().map_or(0, |b| b.count().into()));
        }
    }
    let known = || buckets.iter().flatten();
    let first = known().next().map_or(0, Summary::first);
    if known().all(|bucket| bucket.is_flat_at(first)) {
        varint::put(&mut body, zigzag(first));
        return (shape | FLAT, body);
    }
    if known().any(Summary::has_reset) {
        shape |= RESET;
    }
    let mut before = 0_i64;
    for bucket in known() {
        match bucket {
            Summary::Gauge(gauge) => {
                varint::put(&mut body, zigzag(gauge.min.wrapping_sub(before)));
                varint::put(&mut body, gauge.max.wrapping_sub(gauge.min) as u64);
                varint::put(&mut body, gauge.last.wrapping_sub(gauge.min) as u64);
                let least = gauge.min.wrapping_mul(i64::from(gauge.count));
                varint::put(&mut body, zigzag(gauge.sum.wrapping_sub(least)));
                before = gauge.min;
            }
            Summary::Counter(counter) => {
                varint::put(&mut body, zigzag(counter.first.wrapping_sub(before)));
                varint::put(&mut body, zigzag(counter.last.wrapping_sub(counter.first)));
                if shape & RESET != 0 {
                    varint::put(&mut body, zigzag(counter.increase));
                }
                before = counter.last;
            }
        }
    }
    (shape, body)
}

fn take_metric(
    body: &mut &[u8],
    shape: u8,
    kind: Kind,
    common: &[u32],
) -> Result<Vec<Option<Summary>>, ChunkError> {
    if shape & !KNOWN != 0 {
        return Err(ChunkError::Malformed("unknown shape of a rollup"));
    }
    let counts: Vec<u32> = if shape & SPARSE == 0 {
        common.to_vec()
    } else {
        let counts = common.iter().map(|_| take_count(body));
        counts.collect::<Result<_, _>>()?
    };
    let flat = if shape & FLAT == 0 {
        None
    } else {
        Some(unzigzag(take(body)?))
    };
    let mut before = 0_i64;
    let mut buckets = Vec::with_capacity(counts.len());
    for count in counts {
        buckets.push(match (count, flat) {
            (0, _) => None,
            (count, Some(value)) => Some(Summary::flat(kind, value, count)),
            (count, None) => Some(take_bucket(body, shape, kind, count, &mut before)?),
        });
    }
    if body.is_empty() {
        Ok(buckets)
    } else {
        Err(ChunkError::Malformed("bytes after the last bucket"))
    }
}

fn take_bucket(
    body: &mut &[u8],
    shape: u8,
    kind: Kind,
    count: u32,
    before: &mut i64,
) -> Result<Summary, ChunkError> {
    let begin = before.wrapping_add(unzigzag(take(body)?));
    Ok(match kind {
        Kind::Gauge => {
            *before = begin;
            Summary::Gauge(Gauge {
                min: begin,
                max: begin.wrapping_add(take(body)? as i64),
                last: begin.wrapping_add(take(body)? as i64),
                sum: begin
                    .wrapping_mul(i64::from(count))
                    .wrapping_add(unzigzag(take(body)?)),
                count,
            })
        }
        Kind::Counter => {
            let step = unzigzag(take(body)?);
            let last = begin.wrapping_add(step);
            *before = last;
            let increase = if shape & RESET == 0 {
                step
            } else {
                unzigzag(take(body)?)
            };
            Summary::Counter(Counter {
                first: begin,
                last,
                increase,
                count,
            })
        }
    })
}

fn take(bytes: &mut &[u8]) -> Result<u64, ChunkError> {
    varint::take(bytes).ok_or(ChunkError::Malformed("rollup cut short"))
}

fn take_count(bytes: &mut &[u8]) -> Result<u32, ChunkError> {
    u32::try_from(take(bytes)?).map_err(|_| ChunkError::Malformed("too many samples"))
}

impl Summary {
    fn count(&self) -> u32 {
        match self {
            Self::Gauge(gauge) => gauge.count,
            Self::Counter(counter) => counter.count,
        }
    }

    fn first(&self) -> i64 {
        match self {
            Self::Gauge(gauge) => gauge.min,
            Self::Counter(counter) => counter.first,
        }
    }

    fn flat(kind: Kind, value: i64, count: u32) -> Self {
        match kind {
            Kind::Gauge => Self::Gauge(Gauge {
                min: value,
                max: value,
                sum: value.saturating_mul(i64::from(count)),
                last: value,
                count,
            }),
            Kind::Counter => Self::Counter(Counter {
                first: value,
                last: value,
                increase: 0,
                count,
            }),
        }
    }

    fn is_flat_at(&self, value: i64) -> bool {
        let kind = match self {
            Self::Gauge(_) => Kind::Gauge,
            Self::Counter(_) => Kind::Counter,
        };
        *self == Self::flat(kind, value, self.count())
    }

    fn has_reset(&self) -> bool {
        match self {
            Self::Gauge(_) => false,
            Self::Counter(counter) => counter.increase != counter.last.wrapping_sub(counter.first),
        }
    }
}

/// Over everything but itself.
pub(super) fn checksum(blob: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&blob[..1]);
    crc.update(&blob[5..]);
    crc.finalize()
}

/// The parts of a rollup whose checksum is in order.
struct Frame<'a> {
    step_s: u32,
    n_buckets: usize,
    table: &'a [u8],
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
        let step_s = word(5);
        let n_buckets = usize::from(u16::from_le_bytes([blob[9], blob[10]]));
        if step_s == 0 || !(1..=MAX_BUCKETS).contains(&n_buckets) {
            return Err(ChunkError::Length(n_buckets));
        }
        let (table, rest) = blob[HEADER..]
            .split_at_checked(usize::from(blob[11]) * TABLE_ROW)
            .ok_or(ChunkError::Truncated)?;
        Ok(Self {
            step_s,
            n_buckets,
            table,
            rest,
        })
    }
}
