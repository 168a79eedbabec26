//! How the line survives: what goes into a group commit, what a commit settles, and how a start begins again.

use std::time::Duration;

use entrenar::report::{HolderChange, StreamId};
use entrenar::unit::Timestamp;

use super::driver::MAX_PENDING_BYTES;
use super::stream::Stream;
use super::{Line, LineConfig};
use crate::andon::Engine;
use crate::head::Group;
use crate::store::{Durable, Flush, JournalEntry, JournalPosition, Recovered, Snapshot};

/// How often the engine's memory and all marks are kept: a start replays at most this much into the engine.
pub const SNAPSHOT_EVERY: Duration = Duration::from_mins(2);

/// How far one stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Inclusive ranges, ascending.
    pub received: Vec<(u64, u64)>,
    pub durable: Vec<(u64, u64)>,
}

/// A flush on its way, and what becomes durable with it.
#[derive(Debug)]
pub struct InFlight {
    /// Streams that spoke, with what was received of them when the flush was made.
    streams: Vec<(StreamId, entrenar_proto::RangeSet)>,
    sealed: Vec<(entrenar::gpu::GpuUuid, Timestamp)>,
    snapshot: Option<Timestamp>,
    group: Group,
}

impl Line {
    /// Bytes that wait to be journalled.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether more may be taken in: not while the store is so far behind that memory would run out.
    pub fn has_room(&self) -> bool {
        self.pending_bytes < MAX_PENDING_BYTES && self.head.has_room()
    }

    /// Whether something waits that an agent wants acknowledged.
    pub fn has_pending(&self) -> bool {
        self.pending
            .iter()
            .any(|e| !matches!(e, JournalEntry::Advance { .. }))
    }

    /// One group commit, with everything that is due. `all_decided`: no decision is on its way to the store; only
    /// then may a snapshot be taken, for it contains them.
    pub fn take_flush(&mut self, now: Timestamp, all_decided: bool) -> Option<(Flush, InFlight)> {
        // A stretch of which a part is still being read would be sealed twice.
        let sealed = if self.awaits_past {
            Vec::new()
        } else {
            self.head.take_sealable(now)
        };
        let snapshot = self.snapshot_due(now) && all_decided && self.effects.decisions.is_empty();
        if !self.has_pending() && sealed.is_empty() && !snapshot {
            return None;
        }
        let streams = self.spoken();
        let mut flush = Flush {
            journal: std::mem::take(&mut self.pending),
            holders: std::mem::take(&mut self.pending_holders),
            events: std::mem::take(&mut self.pending_events),
            ..Flush::default()
        };
        let in_flight = InFlight {
            streams,
            sealed: sealed.iter().map(|c| (c.gpu.clone(), c.stretch)).collect(),
            snapshot: snapshot.then_some(now),
            group: self.group,
        };
        flush.sealed = sealed;
        if snapshot {
            flush.marks = self.dirty_marks();
            // The store puts in the row that this very flush becomes.
            let position = JournalPosition::default();
            flush.snapshot = Some(Snapshot {
                position,
                taken_at: now,
                bytes: self.engine.snapshot(),
            });
        }
        flush.forget_journal = self.take_forgettable();
        self.pending_bytes = 0;
        self.group.0 += 1;
        Some((flush, in_flight))
    }

    /// The last commit of a process: everything that waits, with a snapshot, so that the next start replays nothing into
    /// the engine, and into the head what is not sealed.
    pub fn take_last_flush(&mut self, now: Timestamp) -> Option<(Flush, InFlight)> {
        self.last_snapshot = None;
        self.take_flush(now, true)
    }

    /// The journal row up to which nothing is needed any more, where that is further than what was forgotten before.
    pub fn take_forgettable(&mut self) -> Option<JournalPosition> {
        let row = self.forgettable().filter(|row| *row > self.forgotten)?;
        self.forgotten = row;
        Some(row)
    }

    fn snapshot_due(&self, now: Timestamp) -> bool {
        self.last_snapshot
            .is_none_or(|(_, at)| now.since(at) >= SNAPSHOT_EVERY || now < at)
    }

    /// Journal rows up to here are in sealed chunks, in a kept snapshot, and in kept marks.
    fn forgettable(&self) -> Option<JournalPosition> {
        if self.awaits_past {
            return None;
        }
        let (snapshot, _) = self.last_snapshot?;
        Some(snapshot.min(self.head.forgettable()?))
    }

    fn spoken(&mut self) -> Vec<(StreamId, entrenar_proto::RangeSet)> {
        let spoke = self.streams.values_mut().filter(|s| s.spoke);
        spoke
            .map(|stream| {
                stream.spoke = false;
                (stream.id(), stream.received.clone())
            })
            .collect()
    }

    fn dirty_marks(&mut self) -> Vec<crate::store::StreamMark> {
        let dirty = self.streams.values_mut().filter(|s| s.dirty);
        dirty
            .map(|stream| {
                stream.dirty = false;
                stream.mark()
            })
            .collect()
    }

    /// A flush survived: its records may be acknowledged. Returns the streams that got further.
    pub fn committed(&mut self, done: InFlight, durable: Durable) -> Vec<StreamId> {
        self.head
            .sealed(done.sealed.iter().map(|(gpu, stretch)| (gpu, *stretch)));
        self.head.committed(done.group, durable.position);
        if let Some(at) = done.snapshot {
            self.last_snapshot = Some((durable.position, at));
        }
        let mut further = Vec::new();
        for (id, received) in done.streams {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.durable = received;
                further.push(id);
            }
        }
        further
    }

    /// How far a stream is; `None` for one that is not known.
    pub fn progress(&self, stream: StreamId) -> Option<Progress> {
        let stream = self.streams.get(&stream)?;
        let newest = |ranges: &entrenar_proto::RangeSet| {
            ranges.newest(entrenar_proto::ranges::MAX_ACK_RANGES)
        };
        Some(Progress {
            received: newest(&stream.received),
            durable: newest(&stream.durable),
        })
    }

    /// Begins again from what the store remembers; the journal follows through [`Line::replay`].
    pub fn recover(config: LineConfig, recovered: Recovered, now: Timestamp) -> Self {
        let mut line = Self::new(config);
        if let Some(snapshot) = &recovered.snapshot {
            match Engine::restore(line.config.rules.clone(), &snapshot.bytes) {
                Ok(engine) => {
                    line.engine = engine;
                    line.last_snapshot = Some((snapshot.position, now));
                }
                // The journal still holds what is not sealed: hold times begin again, nothing else is lost.
                Err(error) => {
                    tracing::warn!(%error, "could not read the engine's snapshot; it starts afresh");
                }
            }
        }
        for mark in recovered.streams {
            let stream = Stream::restored(mark);
            line.nodes.insert(stream.hello.node.clone(), stream.id());
            line.streams.insert(stream.id(), stream);
        }
        line.book.load(recovered.open_incidents, recovered.cords);
        if line.last_snapshot.is_none() {
            line.recover_holders(&recovered.holders);
        }
        line
    }

    /// Without a snapshot the engine learns from the store who holds what.
    fn recover_holders(&mut self, holders: &[HolderChange]) {
        for stream in self.streams.values() {
            let inventory = stream.present();
            let here = |c: &&HolderChange| inventory.gpus.iter().any(|g| g.uuid == c.gpu);
            for change in holders.iter().filter(here) {
                self.engine.holder(change.at, &stream.hello.node, change);
            }
        }
    }

    /// The replay is over and the present begins: nodes of which nothing was heard yet are expected, and given time.
    pub fn start(&mut self, now: Timestamp) {
        for stream in self.streams.values() {
            let hello = &stream.hello;
            if stream.gone {
                continue;
            }
            self.engine.expect(
                now,
                &hello.node,
                &hello.labels,
                &stream.present(),
                hello.interval_ms,
            );
        }
        self.engine.resume(now);
        self.counts = crate::status::Counts::default();
        self.settle(now);
    }
}
