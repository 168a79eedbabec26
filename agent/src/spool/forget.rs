//! What leaves the spool: durable segments in their time, the oldest when it is full, and the count of what nobody had.

use entrenar_proto::{RangeSet, wire};
use prost::Message as _;
use tracing::warn;

use super::fs::Fs;
use super::record::{ENTRY_HEAD_BYTES, HEADER_BYTES, entries};
use super::segment::{Segment, name};
use super::{KEEP_DURABLE, MAX_AGE, Now, Spool};

impl<F: Fs> Spool<F> {
    /// Counts a record that nobody will have. What it would have said is lost goes on to the next batch.
    pub(super) fn forget(&mut self, record: &[u8]) {
        let body = wire::Record::decode(record)
            .ok()
            .and_then(|record| record.body);
        let (ticks, n_lost) = match body {
            Some(wire::record::Body::Batch(batch)) => (batch.tick_at_ms.len() as u64, batch.n_lost),
            _ => (0, 0),
        };
        self.stats.records_dropped += 1;
        self.stats.ticks_dropped += ticks;
        self.n_lost += ticks + n_lost;
    }

    /// Forgets the oldest segments until another payload fits.
    pub(super) fn make_room(&mut self, payload: u64) {
        let more = payload + (ENTRY_HEAD_BYTES + HEADER_BYTES) as u64;
        while self.bytes() + more > self.max_bytes && self.segments.len() > 1 {
            self.drop_oldest("the spool is full");
        }
    }

    fn drop_oldest(&mut self, why: &str) {
        let Some(segment) = self.segments.pop_front() else {
            return;
        };
        let before = self.stats;
        if let Ok(bytes) = self.fs.read(&name(segment.id)) {
            for entry in entries(&bytes).filter(|entry| entry.kind.is_record()) {
                if !self.durable.contains(entry.seq) {
                    self.forget(entry.payload);
                }
            }
        } else {
            // Nobody knows what was in it: as if each record had been a tick.
            self.stats.records_dropped += segment.n_records;
            self.stats.ticks_dropped += segment.n_records;
            self.n_lost += segment.n_records;
        }
        let records = self.stats.records_dropped - before.records_dropped;
        let ticks = self.stats.ticks_dropped - before.ticks_dropped;
        if records > 0 {
            warn!(
                segment = segment.id,
                records, ticks, why, "spool dropped its oldest segment"
            );
        }
        self.remove(&segment);
    }

    fn remove(&mut self, segment: &Segment) {
        if let Err(error) = self.fs.remove(&name(segment.id)) {
            self.stats.disk_errors += 1;
            warn!(%error, segment = segment.id, "could not remove a spool segment");
        }
        let kept = |generation: &u32| {
            let newest = self.inventories.last_key_value();
            newest.is_some_and(|(last, _)| last == generation)
                || self
                    .segments
                    .iter()
                    .any(|s| s.generations.contains(generation))
        };
        let gone: Vec<u32> = segment
            .generations
            .iter()
            .copied()
            .filter(|g| !kept(g))
            .collect();
        for generation in gone {
            self.inventories.remove(&generation);
        }
    }

    /// Takes in all that is durable elsewhere: the whole set, which may be smaller than before.
    pub fn set_durable(&mut self, durable: &RangeSet, now: Now) {
        self.durable = self.settled.iter().chain(durable.iter()).collect();
        let durable = &self.durable;
        self.memory.retain(|stored| !durable.contains(stored.seq));
        for segment in &mut self.segments {
            segment.weigh(durable, now.monotonic);
        }
    }

    /// Forgets what is durable long enough, or too old. Never the newest segment: it carries the numbers on.
    pub fn expire(&mut self, now: Now) {
        while self.segments.len() > 1 {
            let (oldest, next) = (&self.segments[0], &self.segments[1]);
            let unneeded = oldest.seqs.is_empty()
                || oldest
                    .durable_since
                    .is_some_and(|since| since + KEEP_DURABLE <= now.monotonic);
            let too_old = next.header.begun_at + MAX_AGE < now.wall;
            if unneeded {
                if let Some(segment) = self.segments.pop_front() {
                    self.remove(&segment);
                }
            } else if too_old {
                self.drop_oldest("older than the spool keeps");
            } else {
                return;
            }
        }
    }
}
