//! Store and forward: every record lies here before it is sent, and until it is durable elsewhere.
//!
//! A directory of append-only segments, bounded by bytes and age. When it is full the oldest segment is forgotten, and
//! the ticks that nobody had yet are counted; the next batch carries the count. A record that the disk does not take
//! stays in memory, bounded, so that a full disk does not blind the aggregator. [`Spool`] owns no thread and reads no
//! clock; [`worker`] drives it. The files are drawn in `docs/formats/spool.md`.

mod forget;
pub mod fs;
#[cfg(test)]
mod model;
pub mod record;
mod segment;
pub mod worker;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use entrenar::report::{Body, Inventory, Record, StreamId};
use entrenar::unit::Timestamp;
use entrenar_proto::convert::MAX_INVENTORIES;
use entrenar_proto::{RangeSet, encode_record};
use prost::bytes::Bytes;
use tracing::{info, warn};

use self::fs::Fs;
use self::record::{HeaderError, Kind, entries};
use self::segment::{Segment, id_of, name};

/// How long durable records are kept, so that an aggregator whose database was rolled back can have them again.
pub const KEEP_DURABLE: Duration = Duration::from_mins(5);

/// Oldest records that are kept, durable or not. Older ones are forgotten and counted.
pub const MAX_AGE: Duration = Duration::from_hours(7 * 24);

/// Time between two syncs while records come in: what a power cut can take, and less than the second that is promised.
pub const SYNC_EVERY: Duration = Duration::from_millis(500);

/// Longest that a segment is written to, so that durable ones can go.
const SEGMENT_TIME: Duration = Duration::from_mins(10);

/// Largest segment.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Segments in a full spool, at least: what is forgotten at once is this share of it.
const SEGMENTS: u64 = 8;

/// Smallest spool that makes sense: some minutes of a large node.
pub const MIN_BYTES: u64 = 256 * 1024;

/// Records that the disk did not take and that are kept in memory. When there are as many, the oldest is forgotten
/// and counted.
const MEMORY_RECORDS: usize = 600;

/// After the disk refused a record, how long until it is asked again.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall time.
    pub wall: Timestamp,
    /// Monotonic time.
    pub monotonic: Duration,
}

/// Why the spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory does not let itself be read or cleaned.
    #[error(
        "could not open the spool: give this user a directory that it may write with --spool-dir"
    )]
    Open(#[source] io::Error),
    /// A segment of another version of the agent.
    #[error("could not read the spool's segment {name}")]
    Format {
        /// Its file name.
        name: String,
        /// Why.
        source: HeaderError,
    },
}

/// A record that lies in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub seq: u64,
    /// The encoded record.
    pub bytes: Bytes,
}

/// What a hello says about the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The stream.
    pub stream: StreamId,
    /// Inventories that kept records refer to, oldest first; at most [`MAX_INVENTORIES`], the newest.
    pub inventories: Vec<Inventory>,
    /// Oldest record that can be sent; `next_seq` if none can.
    pub first_seq: u64,
    /// Number of the next new record.
    pub next_seq: u64,
    /// Number of the first record since the spool was opened.
    pub opened_seq: u64,
}

/// What the spool says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Bytes on disk.
    pub bytes: u64,
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// Records on disk and in memory.
    pub records: u64,
    /// Records in memory only, because the disk does not take them.
    pub records_in_memory: u64,
    /// Records forgotten before anyone had them.
    pub records_dropped: u64,
    /// Ticks in those.
    pub ticks_dropped: u64,
    /// Writes and syncs that failed.
    pub disk_errors: u64,
    /// Highest record that is durable elsewhere; 0: none.
    pub last_durable_seq: u64,
    /// Number of the next record.
    pub next_seq: u64,
}

/// Records that wait to be durable.
#[derive(Debug)]
pub struct Spool<F: Fs> {
    fs: F,
    stream: StreamId,
    max_bytes: u64,
    /// Oldest first. The last one is being written, if `writing` is there.
    segments: VecDeque<Segment>,
    writing: Option<F::File>,
    begun: Duration,
    next_id: u64,
    next_seq: u64,
    opened_seq: u64,
    memory: VecDeque<Stored>,
    inventories: BTreeMap<u32, Inventory>,
    durable: RangeSet,
    /// Durable in a stream that this one follows.
    settled: RangeSet,
    n_lost: u64,
    unsynced: bool,
    synced_at: Duration,
    disk_retry_at: Option<Duration>,
    stats: SpoolStats,
}

impl<F: Fs> Spool<F> {
    /// Opens a directory, heals what a crash left, and goes on where it ended. `born` names the stream if there is
    /// none yet.
    pub fn open(fs: F, max_bytes: u64, born: StreamId, now: Now) -> Result<Self, SpoolError> {
        let mut spool = Self {
            fs,
            stream: born,
            max_bytes: max_bytes.max(MIN_BYTES),
            segments: VecDeque::new(),
            writing: None,
            begun: now.monotonic,
            next_id: 1,
            next_seq: 1,
            opened_seq: 1,
            memory: VecDeque::new(),
            inventories: BTreeMap::new(),
            durable: RangeSet::new(),
            settled: RangeSet::new(),
            n_lost: 0,
            unsynced: false,
            synced_at: now.monotonic,
            disk_retry_at: None,
            stats: SpoolStats::default(),
        };
        let mut ids: Vec<u64> = spool
            .fs
            .list()
            .map_err(SpoolError::Open)?
            .iter()
            .filter_map(|name| id_of(name))
            .collect();
        ids.sort_unstable();
        for id in ids {
            spool.load(id)?;
        }
        if let Some(newest) = spool.segments.back() {
            spool.stream = newest.header.stream;
        }
        spool.opened_seq = spool.next_seq;
        Ok(spool)
    }

    fn load(&mut self, id: u64) -> Result<(), SpoolError> {
        self.next_id = id + 1;
        let bytes = self.fs.read(&name(id)).map_err(SpoolError::Open)?;
        let scan = match Segment::scan(id, &bytes) {
            Ok(scan) => scan,
            Err(HeaderError::Damaged) => {
                warn!(
                    segment = id,
                    bytes = bytes.len(),
                    "spool segment has no whole header; removed"
                );
                return self.fs.remove(&name(id)).map_err(SpoolError::Open);
            }
            Err(source) => {
                let name = name(id);
                return Err(SpoolError::Format { name, source });
            }
        };
        if scan.damaged > 0 {
            info!(
                segment = id,
                bytes = scan.damaged,
                "spool segment has a torn tail; cut off"
            );
            self.fs
                .truncate(&name(id), scan.segment.bytes)
                .map_err(SpoolError::Open)?;
        }
        let segment = scan.segment;
        let after = segment.seqs.last().map_or(0, |last| last + 1);
        self.next_seq = self.next_seq.max(after).max(segment.header.first_seq);
        for inventory in scan.inventories {
            self.inventories.insert(inventory.generation, inventory);
        }
        self.segments.push_back(segment);
        Ok(())
    }

    /// Puts a record in. It has its number from then on, whether the disk took it or memory. A batch takes with it
    /// the count of ticks that were forgotten. `None`, and counted, when it is too large for the wire.
    pub fn append(&mut self, mut body: Body, now: Now) -> Option<Stored> {
        if let Body::Batch(batch) = &mut body {
            batch.n_lost += self.n_lost;
        }
        let seq = self.next_seq;
        let record = Record { seq, body };
        let bytes = Bytes::from(encode_record(&record));
        if bytes.len() > record::MAX_PAYLOAD_BYTES {
            warn!(
                bytes = bytes.len(),
                "a record is too large to be sent; forgotten"
            );
            self.forget(&bytes);
            return None;
        }
        let kind = match record.body {
            Body::Batch(_) => {
                self.n_lost = 0;
                Kind::Record
            }
            Body::Inventory(inventory) => {
                self.inventories.insert(inventory.generation, inventory);
                Kind::Inventory
            }
            Body::Event(_) | Body::Holder(_) => Kind::Record,
        };
        self.next_seq += 1;
        let stored = Stored { seq, bytes };
        self.make_room(stored.bytes.len() as u64);
        if let Err(error) = self.write(&stored, kind, now) {
            self.disk_failed(&error, now);
            self.remember(stored.clone());
        }
        Some(stored)
    }

    /// The records from `first` to `last` that are there, ascending, from `first` on and about `max_bytes` of them.
    /// None: not one is there. A number that is skipped is gone.
    pub fn read(&mut self, first: u64, last: u64, max_bytes: usize) -> Vec<Stored> {
        let mut found = Vec::new();
        let has = |segment: &&Segment| segment.seqs.last().is_some_and(|end| end >= first);
        if let Some(segment) = self.segments.iter().find(has)
            && let Ok(bytes) = self.fs.read(&name(segment.id))
        {
            let wanted =
                entries(&bytes).filter(|e| e.kind.is_record() && (first..=last).contains(&e.seq));
            let mut n_bytes = 0;
            for entry in wanted.take_while(|entry| {
                let fits = n_bytes < max_bytes;
                n_bytes += entry.payload.len();
                fits
            }) {
                let bytes = Bytes::copy_from_slice(entry.payload);
                found.push(Stored {
                    seq: entry.seq,
                    bytes,
                });
            }
        }
        let end = found.last().map_or(last, |stored: &Stored| stored.seq);
        let unwritten = self
            .memory
            .iter()
            .filter(|s| (first..=end).contains(&s.seq));
        found.extend(unwritten.cloned());
        found.sort_unstable_by_key(|stored| stored.seq);
        found
    }

    /// Leaves the stream for a new one, because its numbers were given out twice: the directory was copied, or
    /// set back. What was durable stays so; everything else is offered again under the new name.
    pub fn rebirth(&mut self, born: StreamId, now: Now) {
        self.stream = born;
        for (first, last) in self
            .durable
            .iter()
            .filter(|(first, _)| *first < self.opened_seq)
        {
            self.settled
                .insert_range(first, last.min(self.opened_seq - 1));
        }
        self.durable = self.settled.clone();
        if let Err(error) = self.begin_segment(self.next_seq, now) {
            self.disk_failed(&error, now);
        }
    }

    /// What a hello says.
    pub fn facts(&self) -> Facts {
        let lowest = |set: &RangeSet| set.iter().next().map(|(first, _)| first);
        let on_disk = self
            .segments
            .iter()
            .find_map(|segment| lowest(&segment.seqs));
        let in_memory = self.memory.front().map(|stored| stored.seq);
        let first = on_disk.into_iter().chain(in_memory).min();
        let first_unsettled = first.and_then(|first| self.settled.first_missing(first));
        let skip = self.inventories.len().saturating_sub(MAX_INVENTORIES);
        Facts {
            stream: self.stream,
            inventories: self.inventories.values().skip(skip).cloned().collect(),
            first_seq: first_unsettled.unwrap_or(self.next_seq).min(self.next_seq),
            next_seq: self.next_seq,
            opened_seq: self.opened_seq,
        }
    }

    /// Generation of the newest inventory; 0: there is none.
    pub fn generation(&self) -> u32 {
        self.inventories
            .last_key_value()
            .map_or(0, |(&generation, _)| generation)
    }

    /// What the spool says about itself.
    pub fn stats(&self) -> SpoolStats {
        let in_memory = self.memory.len() as u64;
        SpoolStats {
            bytes: self.bytes(),
            max_bytes: self.max_bytes,
            records: self.segments.iter().map(|s| s.n_records).sum::<u64>() + in_memory,
            records_in_memory: in_memory,
            last_durable_seq: self.durable.last().unwrap_or(0),
            next_seq: self.next_seq,
            ..self.stats
        }
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES.min(self.max_bytes / SEGMENTS)
    }
}
