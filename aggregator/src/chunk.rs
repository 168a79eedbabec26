//! A stretch of one GPU's columns as bytes, and back. Drawn in `docs/formats/chunk.md`.
//!
//! One metric is read without decoding the others. It knows nothing of where the bytes rest, nor of which
//! stretch they belong to: that is `stretch`.

mod column;
mod numbers;
pub(crate) mod packed;
pub mod profile;
pub mod stretch;
pub(crate) mod varint;

use std::ops::Range;

use entrenar::gpu::Values;
use entrenar::metric::{METRIC_COUNT, MetricId};
use entrenar::unit::Timestamp;

pub use self::profile::Profile;

/// First byte of every chunk that is written.
pub const VERSION: u8 = 2;

/// The version before: without a profile, and without `pco`. It is read as well.
const VERSION_1: u8 = 1;

/// Most samples that a chunk holds. A longer one is taken for damaged, so that a wrong length cannot eat the memory.
pub const MAX_SAMPLES: usize = 1 << 17;

/// One GPU at one instant.
pub type Sample = (Timestamp, Values);

/// Why bytes are not a chunk. None of it heals: the stretch is lost unless the journal still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("chunk is cut short")]
    Truncated,
    #[error(
        "chunk has version {0}, this build reads {VERSION}: it was written by a newer entrenar"
    )]
    Version(u8),
    #[error("chunk fails its checksum")]
    Checksum,
    #[error("chunk is malformed: {0}")]
    Malformed(&'static str),
    #[error("chunk would hold {0} samples: 1 to {MAX_SAMPLES} are allowed")]
    Length(usize),
}

/// The samples, at least one, as bytes. They may come in any order; of two at the same time the first is kept. `profile`
/// says how they were rounded before; nothing is rounded here.
pub fn encode(samples: &[Sample], profile: Profile) -> Result<Vec<u8>, ChunkError> {
    if samples.is_sorted_by(|a, b| a.0 < b.0) {
        return encode_sorted(samples, profile);
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|s| s.0);
    sorted.dedup_by_key(|s| s.0);
    encode_sorted(&sorted, profile)
}

/// How a chunk's values were rounded before it was written.
pub fn profile_of(blob: &[u8]) -> Result<Profile, ChunkError> {
    Ok(Chunk::parse(blob)?.profile)
}

/// Every sample, ascending by time. Metrics that this build does not know are left out.
pub fn decode_all(blob: &[u8]) -> Result<Vec<Sample>, ChunkError> {
    let columns = decode_columns(blob)?;
    let rows = columns.times.into_iter().map(|t| (t, Values::default()));
    let mut samples: Vec<Sample> = rows.collect();
    for (metric, values) in columns.metrics {
        for (sample, value) in samples.iter_mut().zip(values) {
            sample.1.set(metric, value);
        }
    }
    Ok(samples)
}

/// The samples of a chunk, column by column.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    /// Ascending.
    pub times: Vec<Timestamp>,
    /// By metric, ascending; a place for each time.
    pub metrics: Vec<(MetricId, Vec<Option<i64>>)>,
    /// How the values were rounded before.
    pub profile: Profile,
}

/// Every column of a metric that this build knows.
pub fn decode_columns(blob: &[u8]) -> Result<Columns, ChunkError> {
    let chunk = Chunk::parse(blob)?;
    let times = chunk.times()?;
    let metric = |column: &Column| Ok((column.metric, chunk.metric(column)?));
    let known = chunk.columns[1..]
        .iter()
        .filter(|column| column.metric.slot().is_some());
    let metrics = known.map(metric);
    let metrics = metrics.collect::<Result<_, ChunkError>>()?;
    Ok(Columns {
        times,
        metrics,
        profile: chunk.profile,
    })
}

/// The values of one metric, ascending by time; empty if the chunk has none.
pub fn decode_metric(blob: &[u8], metric: MetricId) -> Result<Vec<(Timestamp, i64)>, ChunkError> {
    let chunk = Chunk::parse(blob)?;
    if chunk.column(metric).is_none() {
        return Ok(Vec::new());
    }
    let times = chunk.times()?;
    chunk.points(metric, &times)
}

/// A chunk that several metrics are read from: its checksum, its table and its times were looked at once.
pub struct Opened {
    chunk: Chunk<Vec<u8>>,
    times: Vec<Timestamp>,
}

impl Opened {
    /// Looks at a chunk.
    pub fn new(blob: Vec<u8>) -> Result<Self, ChunkError> {
        let chunk = Chunk::parse(blob)?;
        let times = chunk.times()?;
        Ok(Self { chunk, times })
    }

    /// The values of one metric, ascending by time; empty if the chunk has none.
    pub fn metric(&self, metric: MetricId) -> Result<Vec<(Timestamp, i64)>, ChunkError> {
        self.chunk.points(metric, &self.times)
    }

    /// How its values were rounded before it was written.
    pub const fn profile(&self) -> Profile {
        self.chunk.profile
    }
}

/// Both chunks as one, by time; of two samples at the same time the one of `first` is kept.
pub fn merge(first: &[u8], second: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let mut samples = decode_all(first)?;
    samples.extend(decode_all(second)?);
    // Whose values were rounded is not told apart any more.
    encode(&samples, profile_of(first)?.max(profile_of(second)?))
}

/// How many samples a chunk holds, and the first and last time.
pub fn extent(blob: &[u8]) -> Result<(usize, Timestamp, Timestamp), ChunkError> {
    let times = Chunk::parse(blob)?.times()?;
    Ok((times.len(), times[0], times[times.len() - 1]))
}

/// Stands for the time in the table of columns; no metric has it.
const TIME: MetricId = MetricId(0);
/// No metric is ever this: it stands for absence where values are held.
const NO_VALUE: i64 = i64::MIN;
/// Version, checksum, number of samples, number of columns.
const HEADER_1: usize = 1 + 4 + 4 + 2;
/// … and the profile.
const HEADER: usize = HEADER_1 + 1;
/// Metric, encoding, length.
const TABLE_ROW: usize = 2 + 1 + 4;

fn encode_sorted(samples: &[Sample], profile: Profile) -> Result<Vec<u8>, ChunkError> {
    let times: Vec<Timestamp> = samples.iter().map(|sample| sample.0).collect();
    let column = |metric, values: &mut Vec<Option<i64>>| {
        values.extend(samples.iter().map(|sample| sample.1.get(metric)));
    };
    encode_columns(&times, column, profile)
}

/// The same, of samples that are in columns. `times`: ascending, at least one; `column` appends a metric's value for each
/// of them.
pub fn encode_columns(
    times: &[Timestamp],
    mut column: impl FnMut(MetricId, &mut Vec<Option<i64>>),
    profile: Profile,
) -> Result<Vec<u8>, ChunkError> {
    check_length(times.len())?;
    let mut table = Vec::new();
    let mut bodies = Vec::new();
    let mut n_columns: u16 = 0;
    let mut put = |metric: MetricId, values: &[Option<i64>]| {
        if let Some((how, body)) = column::encode(values, profile) {
            table.extend(metric.0.to_le_bytes());
            table.push(how);
            table.extend((body.len() as u32).to_le_bytes());
            bodies.extend(body);
            n_columns += 1;
        }
    };
    let mut values: Vec<Option<i64>> = times.iter().map(|at| Some(at.0)).collect();
    put(TIME, &values);
    for id in 1..=METRIC_COUNT as u16 {
        values.clear();
        column(MetricId(id), &mut values);
        put(MetricId(id), &values);
    }

    let mut blob = Vec::with_capacity(HEADER + table.len() + bodies.len());
    blob.push(VERSION);
    blob.extend([0; 4]);
    blob.extend((times.len() as u32).to_le_bytes());
    blob.extend(n_columns.to_le_bytes());
    blob.push(profile.code());
    blob.extend(table);
    blob.extend(bodies);
    let checksum = checksum(&blob).to_le_bytes();
    blob[1..5].copy_from_slice(&checksum);
    Ok(blob)
}

fn check_length(n_samples: usize) -> Result<(), ChunkError> {
    if (1..=MAX_SAMPLES).contains(&n_samples) {
        Ok(())
    } else {
        Err(ChunkError::Length(n_samples))
    }
}

/// Over everything but itself.
fn checksum(blob: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&blob[..1]);
    crc.update(&blob[5..]);
    crc.finalize()
}

/// A chunk whose checksum and table are in order; columns are still encoded. The first column is the time.
struct Chunk<B> {
    blob: B,
    n_samples: usize,
    profile: Profile,
    columns: Vec<Column>,
}

struct Column {
    metric: MetricId,
    how: u8,
    /// Where it lies in the chunk.
    body: Range<usize>,
}

impl<B: AsRef<[u8]>> Chunk<B> {
    fn parse(chunk: B) -> Result<Self, ChunkError> {
        let blob = chunk.as_ref();
        let header = match blob.first() {
            None => return Err(ChunkError::Truncated),
            Some(&VERSION) => HEADER,
            Some(&VERSION_1) => HEADER_1,
            Some(&other) => return Err(ChunkError::Version(other)),
        };
        if blob.len() < header {
            return Err(ChunkError::Truncated);
        }
        if checksum(blob) != u32_at(blob, 1) {
            return Err(ChunkError::Checksum);
        }
        let n_samples = u32_at(blob, 5) as usize;
        check_length(n_samples)?;
        let n_columns = usize::from(u16_at(blob, 9));
        let profile = match header {
            HEADER => Profile::from_code(blob[HEADER_1]),
            _ => Some(Profile::Exact),
        };
        let profile = profile.ok_or(ChunkError::Malformed("unknown profile"))?;
        let columns = Column::table(blob, header, n_columns)?;
        if columns.first().is_none_or(|c| c.metric != TIME) {
            return Err(ChunkError::Malformed("no times"));
        }
        if !columns.is_sorted_by(|a, b| a.metric < b.metric) {
            return Err(ChunkError::Malformed("columns out of order"));
        }
        Ok(Self {
            n_samples,
            profile,
            columns,
            blob: chunk,
        })
    }

    fn times(&self) -> Result<Vec<Timestamp>, ChunkError> {
        let (present, times) = self.present(&self.columns[0])?;
        if present.is_some_and(|present| present.contains(&false)) {
            return Err(ChunkError::Malformed("a sample without a time"));
        }
        let times: Vec<Timestamp> = times.into_iter().map(Timestamp).collect();
        if times.is_sorted_by(|a, b| a < b) {
            Ok(times)
        } else {
            Err(ChunkError::Malformed("times out of order"))
        }
    }

    /// A column that is not the time.
    fn metric(&self, column: &Column) -> Result<Vec<Option<i64>>, ChunkError> {
        let values = self.decode(column)?;
        if values.contains(&Some(NO_VALUE)) {
            return Err(ChunkError::Malformed("a value that stands for none"));
        }
        Ok(values)
    }

    fn column(&self, metric: MetricId) -> Option<&Column> {
        self.columns[1..].iter().find(|c| c.metric == metric)
    }

    /// One metric's values with their times; none if it has none of it.
    fn points(
        &self,
        metric: MetricId,
        times: &[Timestamp],
    ) -> Result<Vec<(Timestamp, i64)>, ChunkError> {
        let Some(column) = self.column(metric) else {
            return Ok(Vec::new());
        };
        let (present, values) = self.present(column)?;
        if values.contains(&NO_VALUE) {
            return Err(ChunkError::Malformed("a value that stands for none"));
        }
        let times = times.iter().copied();
        let Some(present) = present else {
            return Ok(times.zip(values).collect());
        };
        let has_value = times.zip(present).filter(|(_, there)| *there);
        Ok(has_value.map(|(at, _)| at).zip(values).collect())
    }

    fn decode(&self, column: &Column) -> Result<Vec<Option<i64>>, ChunkError> {
        column::decode(column.how, self.body(column), self.n_samples)
    }

    /// The values that there are, and which samples have one; `None`: all of them.
    fn present(&self, column: &Column) -> Result<(Option<Vec<bool>>, Vec<i64>), ChunkError> {
        column::decode_present(column.how, self.body(column), self.n_samples)
    }

    fn body(&self, column: &Column) -> &[u8] {
        &self.blob.as_ref()[column.body.clone()]
    }
}

impl Column {
    /// Cuts the bytes after the header into columns; they must fit to the last byte.
    fn table(blob: &[u8], header: usize, n_columns: usize) -> Result<Vec<Self>, ChunkError> {
        let (table, bodies) = blob[header..]
            .split_at_checked(n_columns * TABLE_ROW)
            .ok_or(ChunkError::Truncated)?;
        let mut begin = blob.len() - bodies.len();
        let mut columns = Vec::with_capacity(n_columns);
        for row in table.chunks_exact(TABLE_ROW) {
            let end = begin.saturating_add(u32_at(row, 3) as usize);
            if end > blob.len() {
                return Err(ChunkError::Truncated);
            }
            columns.push(Self {
                metric: MetricId(u16_at(row, 0)),
                how: row[2],
                body: begin..end,
            });
            begin = end;
        }
        if begin == blob.len() {
            Ok(columns)
        } else {
            Err(ChunkError::Malformed("bytes after the last column"))
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
