//! The bytes of a rollup: a frame with a table of its metrics, what buckets there are, and a body for each metric.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use entrenar::metric::MetricId;

use super::read::{Spans, each_bucket};
use super::total::total;
use super::write::{put_extents, put_metric};
use super::{Rollup, kind_of};
use crate::chunk::packed;
use crate::chunk::varint;
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
        match self.body(metric) {
            Some((shape, body)) => each_bucket(self.spans(), metric, shape, body, see),
            None => Ok(()),
        }
    }

    /// What one metric comes to in all buckets, as [`Sums::total`](super::Sums::total) says it.
    pub(super) fn total(&self, metric: MetricId) -> Result<Option<Bucket>, ChunkError> {
        match self.body(metric) {
            Some((shape, body)) => total(self.spans(), metric, shape, body),
            None => Ok(None),
        }
    }

    fn spans(&self) -> Spans<'_> {
        Spans::new(self.extents(), self.n_buckets, self.step)
    }

    /// Shape and body of a metric.
    fn body(&self, metric: MetricId) -> Option<(u8, &[u8])> {
        let (_, shape, at) = self.table().find(|(of, ..)| *of == metric)?;
        Some((shape, &self.payload[at]))
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
