//! Sums of many GPUs, laid together metric by metric. *(pure)*
//!
//! A question about the fleet wants one metric of everybody, and a [rollup](super) has every metric of one GPU. Once the
//! stretches that began in a window of time are over, their rollups are taken apart and put into sheets: one for each
//! metric, and one of times that belongs to all. Nothing is summed up anew: a stretch comes to the same, bit for bit.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::LEAST_INTERVALS;
use super::bytes::{self, MAX_BUCKETS, Opened, ZSTD_LEVEL};
use super::read::{CUT_SHORT, Spans, each_bucket, take};
use super::total::total;
use crate::chunk::stretch::{MAX_LENGTH, TICKS};
use crate::chunk::varint::{self, unzigzag, zigzag};
use crate::chunk::{ChunkError, Profile, packed};
use crate::query::bucket::Bucket;

/// First byte of every sheet.
const VERSION: u8 = 1;

/// Version, checksum, how the rest is written, stretches, and how long the rest is as it stands.
const HEADER: usize = 1 + 4 + 1 + 2 + 4;
const HOW: usize = 5;
const LINES: usize = 6;
const LENGTH: usize = 8;
/// What follows the header is a zstd frame; else it stands as it is.
const PACKED: u8 = 1;

/// What follows the header is never longer as it stands: a wrong number must not eat the memory. Sheets of 128 GPUs that are
/// sampled ten times a second are a tenth of it; what would not fit stays where it is.
const MAX_PAYLOAD: usize = 16 << 20;

/// In the place of a shape: the stretch has nothing of the metric.
const ABSENT: u8 = 0x80;

/// The metric under which times are kept; no real one has this number.
pub const TIMES: MetricId = MetricId(0);

/// GPUs that share sheets: those whose numbers, divided by this, are the same. Fewer would make short sheets, of which a
/// question about the fleet reads many; more, a question about one GPU unpack much for nothing.
pub const GPUS: i64 = 128;

/// Stretches that begin in the same window of time share sheets.
pub fn window(step: Duration) -> Duration {
    if step < Duration::from_hours(1) {
        // A stretch of a GPU that is sampled each second.
        Duration::from_secs(TICKS.into())
    } else {
        MAX_LENGTH
    }
}

/// The longest stretch of which sums by this step are kept, and which may lie in a sheet.
pub fn longest(step: Duration) -> Duration {
    (step / LEAST_INTERVALS * TICKS).min(MAX_LENGTH)
}

/// The start of the window in which a stretch begins.
pub fn window_of(step: Duration, stretch: Timestamp) -> Timestamp {
    let into = stretch.0.rem_euclid(window(step).as_millis() as i64);
    Timestamp(stretch.0.saturating_sub(into))
}

/// Whose sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The GPU's number in its store.
    pub gpu: i64,
    pub stretch: Timestamp,
}

/// A stretch on its way into sheets.
struct Part {
    from: Timestamp,
    to: Timestamp,
    profile: Profile,
    n_buckets: usize,
    extents: Vec<u8>,
    bodies: BTreeMap<MetricId, (u8, Vec<u8>)>,
}

/// Stretches on their way into sheets.
#[derive(Default)]
pub struct Parts(BTreeMap<Key, Part>);

impl Parts {
    /// Puts in a rollup, in the place of one of the same stretch. `from`, `to`: first and last sample.
    pub fn put(&mut self, key: Key, (from, to): (Timestamp, Timestamp), rollup: &Opened) {
        let part = Part {
            from,
            to,
            profile: rollup.profile,
            n_buckets: rollup.n_buckets,
            extents: rollup.extents().to_vec(),
            bodies: rollup
                .bodies()
                .map(|(metric, shape, body)| (metric, (shape, body.to_vec())))
                .collect(),
        };
        self.0.insert(key, part);
    }

    /// Puts in what lies in sheets already, where nothing newer is known.
    pub fn put_old(&mut self, sheets: &Sheets) -> Result<(), ChunkError> {
        let is_there = |metric| sheets.metrics.iter().any(|(of, _)| of == metric);
        if !sheets.listed.iter().all(is_there) {
            return Err(ChunkError::Malformed("a sheet is missing"));
        }
        for (place, line) in sheets.lines.iter().enumerate() {
            let mut bodies = BTreeMap::new();
            for (metric, sheet) in &sheets.metrics {
                let sheet = sheet.as_ref().map_err(|error| *error)?;
                if let Some((shape, body)) = sheet.body(place) {
                    bodies.insert(*metric, (shape, body.to_vec()));
                }
            }
            self.0.entry(line.key).or_insert_with(|| Part {
                from: line.from,
                to: line.to,
                profile: line.profile,
                n_buckets: line.n_buckets,
                extents: sheets.extents(line).to_vec(),
                bodies,
            });
        }
        Ok(())
    }

    /// First and last sample of all.
    pub fn extent(&self) -> Option<(Timestamp, Timestamp)> {
        let from = self.0.values().map(|part| part.from).min()?;
        Some((from, self.0.values().map(|part| part.to).max()?))
    }

    /// A sheet of times, and one for each metric that any of them has.
    pub fn sheets(&self) -> Result<Vec<(MetricId, Vec<u8>)>, ChunkError> {
        let n = u16::try_from(self.0.len()).map_err(|_| ChunkError::Length(self.0.len()))?;
        let metrics = self.0.values().flat_map(|part| part.bodies.keys());
        let metrics: BTreeSet<MetricId> = metrics.copied().collect();
        let mut sheets = vec![(TIMES, frame(n, &self.times(&metrics))?)];
        for metric in metrics {
            let (mut heads, mut bodies) = (Vec::new(), Vec::<u8>::new());
            for part in self.0.values() {
                match part.bodies.get(&metric) {
                    Some((shape, body)) => {
                        heads.push(*shape);
                        varint::put(&mut heads, body.len() as u64);
                        bodies.extend(body);
                    }
                    None => heads.push(ABSENT),
                }
            }
            heads.extend(bodies);
            sheets.push((metric, frame(n, &heads)?));
        }
        Ok(sheets)
    }

    fn times(&self, metrics: &BTreeSet<MetricId>) -> Vec<u8> {
        let (mut heads, mut extents) = (Vec::new(), Vec::<u8>::new());
        varint::put(&mut heads, metrics.len() as u64);
        for metric in metrics {
            varint::put(&mut heads, metric.0.into());
        }
        let mut before = Key {
            gpu: 0,
            stretch: Timestamp(0),
        };
        for (key, part) in &self.0 {
            varint::put(&mut heads, key.gpu.wrapping_sub(before.gpu) as u64);
            varint::put(
                &mut heads,
                zigzag(key.stretch.0.wrapping_sub(before.stretch.0)),
            );
            varint::put(&mut heads, zigzag(part.from.0.wrapping_sub(key.stretch.0)));
            varint::put(&mut heads, zigzag(part.to.0.wrapping_sub(part.from.0)));
            heads.push(match part.profile {
                Profile::Exact => 0,
                Profile::Sensor => 1,
            });
            varint::put(&mut heads, part.n_buckets as u64);
            varint::put(&mut heads, part.extents.len() as u64);
            extents.extend(&part.extents);
            before = *key;
        }
        heads.extend(extents);
        heads
    }
}

fn frame(n: u16, payload: &[u8]) -> Result<Vec<u8>, ChunkError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(ChunkError::Length(n.into()));
    }
    let mut blob = vec![VERSION, 0, 0, 0, 0];
    let packed = packed::pack(payload, ZSTD_LEVEL).ok();
    let packed = packed.filter(|packed| packed.len() < payload.len());
    blob.push(if packed.is_some() { PACKED } else { 0 });
    blob.extend(n.to_le_bytes());
    blob.extend((payload.len() as u32).to_le_bytes());
    blob.extend(packed.as_deref().unwrap_or(payload));
    let sum = bytes::checksum(&blob).to_le_bytes();
    blob[1..5].copy_from_slice(&sum);
    Ok(blob)
}

/// Number of stretches, and what follows the header.
fn open(blob: &[u8]) -> Result<(usize, Cow<'_, [u8]>), ChunkError> {
    match blob.first() {
        Some(&VERSION) if blob.len() >= HEADER => {}
        None | Some(&VERSION) => return Err(ChunkError::Truncated),
        Some(&other) => return Err(ChunkError::Version(other)),
    }
    let word = |at: usize| u32::from_le_bytes([blob[at], blob[at + 1], blob[at + 2], blob[at + 3]]);
    if bytes::checksum(blob) != word(1) {
        return Err(ChunkError::Checksum);
    }
    let n = usize::from(u16::from_le_bytes([blob[LINES], blob[LINES + 1]]));
    let length = word(LENGTH) as usize;
    if length > MAX_PAYLOAD {
        return Err(ChunkError::Length(n));
    }
    let rest = &blob[HEADER..];
    let payload = match blob[HOW] {
        0 => Cow::Borrowed(rest),
        PACKED => {
            let plain = packed::unpack(rest, length);
            Cow::Owned(plain.map_err(|_| ChunkError::Malformed("sheet does not inflate"))?)
        }
        _ => return Err(ChunkError::Malformed("unknown packing of a sheet")),
    };
    if payload.len() == length {
        Ok((n, payload))
    } else {
        Err(ChunkError::Truncated)
    }
}

/// Checks a sheet's checksum.
pub fn check(blob: &[u8]) -> Result<(), ChunkError> {
    open(blob).map(drop)
}

/// Sheets of one window and some GPUs, unpacked: their times, and the metrics that were asked for.
#[derive(Clone, Debug)]
pub struct Sheets {
    step: Duration,
    /// Metrics that any stretch has, ascending: each has a sheet.
    listed: Vec<MetricId>,
    lines: Vec<Line>,
    times: Vec<u8>,
    metrics: Vec<(MetricId, Result<Sheet, ChunkError>)>,
}

/// A stretch in sheets.
#[derive(Clone, Debug)]
pub struct Line {
    pub key: Key,
    /// First and last sample.
    pub from: Timestamp,
    pub to: Timestamp,
    pub profile: Profile,
    pub(super) n_buckets: usize,
    extents: Range<usize>,
}

/// One metric of the stretches.
#[derive(Clone, Debug)]
struct Sheet {
    payload: Vec<u8>,
    /// Shape, and where the body is.
    bodies: Vec<(u8, Range<usize>)>,
}

impl Sheets {
    /// From the sheet of times. `step`: of the sums.
    pub fn open(step: Duration, times: &[u8]) -> Result<Self, ChunkError> {
        let (n, payload) = open(times)?;
        let mut rest: &[u8] = &payload;
        let n_metrics = take(&mut rest)?;
        let mut listed = Vec::new();
        for _ in 0..n_metrics {
            let metric = u16::try_from(take(&mut rest)?);
            listed.push(MetricId(
                metric.map_err(|_| ChunkError::Malformed("unknown metric"))?,
            ));
        }
        let mut lines: Vec<Line> = Vec::new();
        let mut before = Key {
            gpu: 0,
            stretch: Timestamp(0),
        };
        let mut end = 0_usize;
        for _ in 0..n {
            let (line, length) = take_line(&mut rest, before, end)?;
            before = line.key;
            end = end.checked_add(length).ok_or(CUT_SHORT)?;
            lines.push(line);
        }
        if !lines.is_sorted_by(|a, b| a.key < b.key) {
            return Err(ChunkError::Malformed("stretches out of order"));
        }
        if end != rest.len() {
            return Err(ChunkError::Malformed("extents of another length"));
        }
        Ok(Self {
            step,
            listed,
            lines,
            times: rest.to_vec(),
            metrics: Vec::new(),
        })
    }

    /// Adds a metric's sheet. One that is damaged is told to whoever reads the metric.
    pub fn add(&mut self, metric: MetricId, blob: &[u8]) {
        let sheet = Sheet::open(blob).and_then(|sheet| {
            if sheet.bodies.len() == self.lines.len() {
                Ok(sheet)
            } else {
                Err(ChunkError::Malformed(
                    "another number of stretches than times",
                ))
            }
        });
        self.metrics.push((metric, sheet));
    }

    /// Metrics that any of its stretches has: each has a sheet, which must be added before it is read.
    pub fn listed(&self) -> &[MetricId] {
        &self.listed
    }

    /// The stretches, by GPU and time.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether there are sums of a stretch.
    pub fn knows(&self, key: Key) -> bool {
        self.lines
            .binary_search_by_key(&key, |line| line.key)
            .is_ok()
    }

    /// Shows one metric's buckets in a stretch, ascending; none if it has nothing of it.
    pub fn each(
        &self,
        place: usize,
        metric: MetricId,
        see: impl FnMut(Bucket),
    ) -> Result<(), ChunkError> {
        match self.body(place, metric)? {
            Some((shape, body)) => each_bucket(self.spans(place), metric, shape, body, see),
            None => Ok(()),
        }
    }

    /// What one metric comes to in a stretch, as [`Sums::total`](super::Sums::total) says it.
    pub(super) fn total(
        &self,
        place: usize,
        metric: MetricId,
    ) -> Result<Option<Bucket>, ChunkError> {
        match self.body(place, metric)? {
            Some((shape, body)) => total(self.spans(place), metric, shape, body),
            None => Ok(None),
        }
    }

    fn spans(&self, place: usize) -> Spans<'_> {
        let line = &self.lines[place];
        Spans::new(self.extents(line), line.n_buckets, self.step)
    }

    /// Shape and body of a metric in a stretch.
    fn body(&self, place: usize, metric: MetricId) -> Result<Option<(u8, &[u8])>, ChunkError> {
        let found = self.metrics.iter().find(|(of, _)| *of == metric);
        let Some((_, sheet)) = found else {
            return if self.listed.contains(&metric) {
                Err(ChunkError::Malformed("its sheet is missing"))
            } else {
                Ok(None)
            };
        };
        Ok(sheet.as_ref().map_err(|error| *error)?.body(place))
    }

    fn extents(&self, line: &Line) -> &[u8] {
        &self.times[line.extents.clone()]
    }
}

fn take_line(rest: &mut &[u8], before: Key, begin: usize) -> Result<(Line, usize), ChunkError> {
    let gpu = before.gpu.wrapping_add(take(rest)? as i64);
    let stretch = before.stretch.0.wrapping_add(unzigzag(take(rest)?));
    let from = stretch.wrapping_add(unzigzag(take(rest)?));
    let to = from.wrapping_add(unzigzag(take(rest)?));
    let profile = match take(rest)? {
        0 => Profile::Exact,
        1 => Profile::Sensor,
        _ => return Err(ChunkError::Malformed("unknown profile")),
    };
    let n_buckets = take(rest)? as usize;
    let length = take(rest)? as usize;
    if n_buckets > MAX_BUCKETS || to < from {
        return Err(ChunkError::Malformed("a stretch without its samples"));
    }
    let line = Line {
        key: Key {
            gpu,
            stretch: Timestamp(stretch),
        },
        from: Timestamp(from),
        to: Timestamp(to),
        profile,
        n_buckets,
        extents: begin..begin.checked_add(length).ok_or(CUT_SHORT)?,
    };
    Ok((line, length))
}

impl Sheet {
    fn open(blob: &[u8]) -> Result<Self, ChunkError> {
        let (n, payload) = open(blob)?;
        let mut rest: &[u8] = &payload;
        let mut lengths = Vec::new();
        for _ in 0..n {
            let (shape, after) = rest.split_first().ok_or(CUT_SHORT)?;
            rest = after;
            let length = if *shape == ABSENT {
                0
            } else {
                take(&mut rest)?
            };
            lengths.push((*shape, length as usize));
        }
        let mut begin = payload.len() - rest.len();
        let mut bodies = Vec::with_capacity(lengths.len());
        for (shape, length) in lengths {
            let end = begin.checked_add(length).ok_or(CUT_SHORT)?;
            bodies.push((shape, begin..end));
            begin = end;
        }
        if begin != payload.len() {
            return Err(ChunkError::Malformed("bodies of another length"));
        }
        Ok(Self {
            bodies,
            payload: payload.into_owned(),
        })
    }

    fn body(&self, place: usize) -> Option<(u8, &[u8])> {
        let (shape, at) = self.bodies.get(place)?;
        (*shape != ABSENT).then(|| (*shape, &self.payload[at.clone()]))
    }
}
