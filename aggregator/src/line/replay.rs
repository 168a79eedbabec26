//! A row of the journal is done again after a start. *(pure)*
//!
//! What its messages say is found out first, by whoever has time.

use entrenar::report::{Hello, Record, StreamId};
use entrenar::unit::Timestamp;
use entrenar_proto::{decode_hello, decode_record};

use super::Line;
use crate::store::{JournalEntry, JournalPosition};

/// A row of the journal that can be done again.
pub struct Replay {
    position: JournalPosition,
    steps: Vec<Step>,
}

/// What came, or when the engine's clock was moved.
enum Step {
    Hello {
        received_at: Timestamp,
        /// `None`: its bytes are of a version that is not read any more.
        hello: Option<Box<Hello>>,
    },
    Record {
        received_at: Timestamp,
        sent_at: Timestamp,
        stream: StreamId,
        record: Option<Box<Record>>,
    },
    Goodbye {
        received_at: Timestamp,
        stream: StreamId,
    },
    Advance {
        to: Timestamp,
    },
}

impl Replay {
    /// Decodes a row's messages.
    pub fn of(position: JournalPosition, entries: Vec<JournalEntry>) -> Self {
        let steps = entries.into_iter().map(Step::of).collect();
        Self { position, steps }
    }

    /// Which row it is.
    pub const fn position(&self) -> JournalPosition {
        self.position
    }
}

impl Step {
    fn of(entry: JournalEntry) -> Self {
        match entry {
            JournalEntry::Hello {
                received_at, bytes, ..
            } => Self::Hello {
                received_at,
                hello: decode_hello(&bytes).ok().map(Box::new),
            },
            JournalEntry::Record {
                received_at,
                sent_at,
                stream,
                bytes,
            } => Self::Record {
                received_at,
                sent_at,
                stream,
                record: decode_record(&bytes)
                    .ok()
                    .map(|decoded| decoded.record.into()),
            },
            JournalEntry::Goodbye {
                received_at,
                stream,
            } => Self::Goodbye {
                received_at,
                stream,
            },
            JournalEntry::Advance { to } => Self::Advance { to },
        }
    }
}

impl Line {
    /// Does a row again. Rows that the engine's snapshot covers reach the head only.
    pub fn replay(&mut self, row: Replay) {
        let covered = self
            .last_snapshot
            .is_some_and(|(snapshot, _)| row.position <= snapshot);
        for step in row.steps {
            self.replay_step(step, !covered);
        }
        self.head.committed(self.group, row.position);
        self.group.0 += 1;
        self.effects.sampled.clear();
        self.pending_holders.clear();
        self.pending_events.clear();
    }

    fn replay_step(&mut self, step: Step, evaluate: bool) {
        let now = match step {
            Step::Hello { received_at, hello } => {
                if let Some(hello) = hello {
                    self.introduce(received_at, *hello, evaluate);
                }
                received_at
            }
            Step::Record {
                received_at,
                sent_at,
                stream,
                record,
            } => {
                if let (Some(record), Some(known)) = (record, self.streams.get_mut(&stream)) {
                    // Marks are as old as the snapshot: after it, this is what admission saw.
                    let in_order = known
                        .received
                        .last()
                        .is_none_or(|newest| record.seq > newest);
                    known.received.insert(record.seq);
                    known.durable.insert(record.seq);
                    known.last_received_at = received_at;
                    self.take_in(
                        received_at,
                        sent_at,
                        stream,
                        record.body,
                        in_order,
                        evaluate,
                    );
                }
                received_at
            }
            Step::Goodbye {
                received_at,
                stream,
            } => {
                self.leave(received_at, stream, evaluate);
                received_at
            }
            Step::Advance { to } => {
                if evaluate {
                    self.move_to(to);
                }
                to
            }
        };
        self.settle(now);
    }
}
