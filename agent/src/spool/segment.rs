//! A segment as the spool reckons with it: what is in the file, and since when nobody needs it.

use std::time::Duration;

use entrenar::report::{Body, Inventory};
use entrenar_proto::{RangeSet, decode_record};

use super::record::{Entry, HEADER_BYTES, Header, HeaderError, Kind, entries};

/// End of a segment's file name.
const SUFFIX: &str = ".seg";

/// A file of the spool.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its ordinal; names sort by it.
    pub(super) id: u64,
    pub(super) header: Header,
    /// Length of the file.
    pub(super) bytes: u64,
    /// Records in it.
    pub(super) seqs: RangeSet,
    pub(super) n_records: u64,
    /// Generations of the inventories in it.
    pub(super) generations: Vec<u32>,
    /// Monotonic time since which every record in it is durable elsewhere.
    pub(super) durable_since: Option<Duration>,
}

/// What a scan of a file found.
pub(super) struct Scan {
    pub(super) segment: Segment,
    pub(super) inventories: Vec<Inventory>,
    /// Bytes behind the last good entry.
    pub(super) damaged: u64,
}

/// The file name of a segment.
pub(super) fn name(id: u64) -> String {
    format!("{id:012}{SUFFIX}")
}

/// The ordinal in a file name; `None` if it is not a segment's.
pub(super) fn id_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

impl Segment {
    pub(super) fn new(id: u64, header: Header) -> Self {
        Self {
            id,
            header,
            bytes: HEADER_BYTES as u64,
            seqs: RangeSet::new(),
            n_records: 0,
            generations: Vec::new(),
            durable_since: None,
        }
    }

    /// Reads what a file holds.
    pub(super) fn scan(id: u64, bytes: &[u8]) -> Result<Scan, HeaderError> {
        let mut segment = Self::new(id, Header::decode(bytes)?);
        let mut inventories = Vec::new();
        for entry in entries(bytes) {
            segment.took(&entry);
            if entry.kind == Kind::Record {
                continue;
            }
            if let Ok(decoded) = decode_record(entry.payload)
                && let Body::Inventory(inventory) = decoded.record.body
            {
                segment.generations.push(inventory.generation);
                inventories.push(inventory);
            }
        }
        let damaged = bytes.len() as u64 - segment.bytes;
        Ok(Scan {
            segment,
            inventories,
            damaged,
        })
    }

    /// Reckons with an entry that is in the file.
    pub(super) fn took(&mut self, entry: &Entry<'_>) {
        self.bytes += entry.size() as u64;
        if entry.kind.is_record() {
            self.seqs.insert(entry.seq);
            self.n_records += 1;
            self.durable_since = None;
        }
    }

    /// Takes in what is durable now.
    pub(super) fn weigh(&mut self, durable: &RangeSet, now: Duration) {
        let covered =
            |(first, last): (u64, u64)| durable.range_of(first).is_some_and(|(_, end)| last <= end);
        if self.seqs.iter().all(covered) {
            self.durable_since.get_or_insert(now);
        } else {
            self.durable_since = None;
        }
    }
}
