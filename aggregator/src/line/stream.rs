//! One agent's numbered story: what was received of it, what is durable, how wrong its clock is. Pure.

use entrenar::report::{Hello, Inventory, StreamId};
use entrenar::unit::Timestamp;
use entrenar_proto::RangeSet;
use entrenar_proto::ranges::Insert;

use super::offset::ClockOffset;
use crate::store::StreamMark;

/// Inventories that are remembered of a stream. Older ones are forgotten; a batch that still refers to one is counted
/// as malformed.
pub(crate) const MAX_INVENTORIES: usize = 16;

/// Which connection of which process speaks; unique inside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What admission says of a record's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    New,
    /// Received before: harmless.
    Repeat,
    /// Too many holes to remember one more: not taken, so not acknowledged, so sent again.
    Later,
}

/// An agent's stream, connected or not.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) hello: Hello,
    pub(crate) received: RangeSet,
    pub(crate) durable: RangeSet,
    pub(crate) clock: ClockOffset,
    pub(crate) last_received_at: Timestamp,
    pub(crate) connection: Option<ConnectionId>,
    /// The agent said goodbye last.
    pub(crate) gone: bool,
    /// Its mark in the store is older than what is known here.
    pub(crate) dirty: bool,
    /// More was received than the commits so far carry.
    pub(crate) spoke: bool,
}

impl Stream {
    pub(crate) fn new(hello: Hello, now: Timestamp) -> Self {
        let mut stream = Self {
            hello,
            received: RangeSet::new(),
            durable: RangeSet::new(),
            clock: ClockOffset::default(),
            last_received_at: now,
            connection: None,
            gone: false,
            dirty: true,
            spoke: false,
        };
        stream.skip_what_is_gone();
        stream
    }

    pub(crate) fn restored(mark: StreamMark) -> Self {
        let durable: RangeSet = mark.durable.into_iter().collect();
        Self {
            hello: mark.hello,
            received: durable.clone(),
            durable,
            clock: ClockOffset::default(),
            last_received_at: mark.last_received_at,
            connection: None,
            gone: mark.gone,
            dirty: false,
            spoke: false,
        }
    }

    pub(crate) fn id(&self) -> StreamId {
        self.hello.stream
    }

    /// Takes over a new hello of the same stream; keeps inventories that older records may refer to. Returns how many
    /// numbers the agent can no longer send.
    pub(crate) fn renew(&mut self, hello: Hello, now: Timestamp) -> u64 {
        let known = std::mem::replace(&mut self.hello, hello).inventories;
        let present = std::mem::replace(&mut self.hello.inventories, known);
        for inventory in present {
            self.learn(inventory);
        }
        self.last_received_at = now;
        self.gone = false;
        self.dirty = true;
        self.skip_what_is_gone()
    }

    /// What the agent no longer has will never come: it counts as settled, so that holes do not pile up.
    fn skip_what_is_gone(&mut self) -> u64 {
        let Some(last) = self.hello.first_seq.checked_sub(1).filter(|last| *last > 0) else {
            return 0;
        };
        let lost = self
            .received
            .gaps(1, last)
            .map(|(from, to)| to - from + 1)
            .sum();
        self.received.insert_range(1, last);
        self.spoke = true;
        lost
    }

    pub(crate) fn admit(&mut self, seq: u64) -> Admission {
        match self.received.insert(seq) {
            Insert::New => {
                self.dirty = true;
                self.spoke = true;
                Admission::New
            }
            Insert::Repeat => Admission::Repeat,
            Insert::Full => Admission::Later,
        }
    }

    pub(crate) fn learn(&mut self, inventory: Inventory) {
        let inventories = &mut self.hello.inventories;
        inventories.retain(|i| i.generation != inventory.generation);
        let at = inventories.partition_point(|i| i.generation < inventory.generation);
        inventories.insert(at, inventory);
        if inventories.len() > MAX_INVENTORIES {
            inventories.remove(0);
        }
        self.dirty = true;
    }

    pub(crate) fn inventory(&self, generation: u32) -> Option<&Inventory> {
        self.hello
            .inventories
            .iter()
            .find(|i| i.generation == generation)
    }

    /// The present one; of an agent that has none, an empty one.
    pub(crate) fn present(&self) -> Inventory {
        self.hello.inventories.last().cloned().unwrap_or_default()
    }

    pub(crate) fn mark(&self) -> StreamMark {
        StreamMark {
            hello: self.hello.clone(),
            durable: self.received.iter().collect(),
            last_received_at: self.last_received_at,
            gone: self.gone,
        }
    }
}
