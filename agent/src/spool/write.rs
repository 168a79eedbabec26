//! The spool's way onto the disk: entries, segments, syncs, and what happens when the disk takes nothing.

use std::io;
use std::time::Duration;

use entrenar::report::{Body, Record};
use entrenar_proto::encode_record;
use tracing::warn;

use super::fs::{Append, Fs};
use super::record::{Entry, Header, Kind};
use super::segment::{Segment, name};
use super::{DISK_RETRY, MEMORY_RECORDS, Now, SEGMENT_TIME, SYNC_EVERY, Spool, Stored};

impl<F: Fs> Spool<F> {
    /// Writes a record to the newest segment, which is begun if need be.
    pub(super) fn write(&mut self, stored: &Stored, kind: Kind, now: Now) -> io::Result<()> {
        if self.disk_retry_at.is_some_and(|at| now.monotonic < at) {
            return Err(io::Error::other("the disk refused the record before"));
        }
        let full = self
            .segments
            .back()
            .is_some_and(|s| s.bytes >= self.segment_bytes());
        if self.writing.is_none() || full || now.monotonic >= self.begun + SEGMENT_TIME {
            self.begin_segment(stored.seq, now)?;
        }
        let entry = Entry {
            kind,
            seq: stored.seq,
            payload: &stored.bytes,
        };
        self.write_entry(&entry)?;
        self.disk_retry_at = None;
        let generation = self
            .inventories
            .last_key_value()
            .map(|(&generation, _)| generation);
        if let (Some(segment), Some(generation)) = (self.segments.back_mut(), generation)
            && segment.generations.last() != Some(&generation)
        {
            segment.generations.push(generation);
        }
        Ok(())
    }

    fn write_entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let (Some(file), Some(segment)) = (&mut self.writing, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment is being written"));
        };
        // Whether it fails or not, that much of the disk may be used.
        let appended = file.append(&entry.encode());
        self.unsynced = true;
        if let Err(error) = appended {
            segment.bytes += entry.size() as u64;
            return Err(error);
        }
        segment.took(entry);
        Ok(())
    }

    /// Closes the newest segment and begins another. Its header and name are durable before anything older may go:
    /// they carry the stream and the numbers on.
    pub(super) fn begin_segment(&mut self, first_seq: u64, now: Now) -> io::Result<()> {
        if let Some(mut file) = self.writing.take() {
            file.sync()?;
        }
        let id = self.next_id;
        let header = Header {
            stream: self.stream,
            first_seq,
            begun_at: now.wall,
        };
        let begun = self.create(id, &header);
        if begun.is_err() {
            // An empty file that stays is harmless; the next open removes it.
            let _ = self.fs.remove(&name(id));
        }
        let (file, segment) = begun?;
        self.next_id += 1;
        self.begun = now.monotonic;
        self.writing = Some(file);
        self.segments.push_back(segment);
        Ok(())
    }

    fn create(&self, id: u64, header: &Header) -> io::Result<(F::File, Segment)> {
        let mut segment = Segment::new(id, *header);
        let mut bytes = header.encode().to_vec();
        if let Some((&generation, inventory)) = self.inventories.last_key_value() {
            let body = Body::Inventory(inventory.clone());
            let payload = encode_record(&Record { seq: 0, body });
            let entry = Entry {
                kind: Kind::Carried,
                seq: 0,
                payload: &payload,
            };
            bytes.extend(entry.encode());
            segment.took(&entry);
            segment.generations.push(generation);
        }
        let mut file = self.fs.create(&name(id))?;
        file.append(&bytes)?;
        file.sync()?;
        self.fs.sync_names()?;
        Ok((file, segment))
    }

    pub(super) fn disk_failed(&mut self, error: &io::Error, now: Now) {
        if self.disk_retry_at.is_none() {
            warn!(%error, "the spool's disk does not take records; the newest are kept in memory");
        }
        self.stats.disk_errors += 1;
        // What is behind the last good entry is torn; the next record goes into a new segment.
        self.writing = None;
        let due = self.disk_retry_at.is_none_or(|at| at <= now.monotonic);
        if due {
            self.disk_retry_at = Some(now.monotonic + DISK_RETRY);
        }
    }

    pub(super) fn remember(&mut self, stored: Stored) {
        if self.memory.len() >= MEMORY_RECORDS
            && let Some(oldest) = self.memory.pop_front()
        {
            self.forget(&oldest.bytes);
        }
        self.memory.push_back(stored);
    }

    /// When records must be synced; `None` if all are.
    pub fn sync_due(&self) -> Option<Duration> {
        self.unsynced.then(|| self.synced_at + SYNC_EVERY)
    }

    /// Makes all records on disk survive a crash.
    pub fn sync(&mut self, now: Now) {
        self.unsynced = false;
        self.synced_at = now.monotonic;
        if let Some(Err(error)) = self.writing.as_mut().map(Append::sync) {
            self.disk_failed(&error, now);
        }
    }
}
