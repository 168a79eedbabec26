//! What the engine's snapshot covers of the journal is read beside the present after a start.
//!
//! The rules need the snapshot and what came after it, at most two minutes. What came before goes into the head only: for
//! history, and to be sealed. Of a large fleet that takes seconds in which nobody need be blind. It is read into a head of its
//! own, which the line's then takes in as a whole. *(pure)*

use entrenar::unit::Timestamp;

use super::replay::Replay;
use super::{Line, LineConfig};
use crate::head::{Group, Head};
use crate::store::{JournalPosition, Recovered, StreamMark};

/// Group commits of the present have larger numbers than those of the past, of which there are never as many.
const FIRST_PRESENT: Group = Group(1 << 40);

/// The journal up to the engine's snapshot, on its way into a head.
pub struct Past {
    line: Line,
    /// The last row that is read here.
    pub upto: JournalPosition,
}

impl Past {
    /// Does a row again; of one after the last, nothing.
    pub fn replay(&mut self, row: Replay) {
        if row.position() <= self.upto {
            self.line.replay(row);
        }
    }

    /// What it came to.
    pub fn into_head(self) -> Head {
        self.line.head
    }
}

impl Line {
    /// Begins again from what the store remembers, and splits off what of the journal need not be read first: what comes
    /// after it follows through [`Line::replay`], and the rest through [`Line::absorb`] when it is read. Until then nothing
    /// is sealed, and no row of the journal forgotten.
    pub fn recover_split(
        config: LineConfig,
        recovered: Recovered,
        now: Timestamp,
    ) -> (Self, Option<Past>) {
        let streams = recovered.streams.clone();
        let oldest = recovered.journal.map(|(oldest, _)| oldest);
        let mut line = Self::recover(config, recovered, now);
        let covered = line.last_snapshot.map(|(snapshot, _)| snapshot);
        let covered = covered.filter(|covered| oldest.is_some_and(|oldest| oldest <= *covered));
        let past = covered.map(|upto| line.split(streams, upto, now));
        (line, past)
    }

    fn split(&mut self, streams: Vec<StreamMark>, upto: JournalPosition, now: Timestamp) -> Past {
        let known = Recovered {
            streams,
            ..Recovered::default()
        };
        let mut line = Self::recover(self.config.clone(), known, now);
        line.last_snapshot = Some((upto, now));
        self.awaits_past = true;
        self.group = FIRST_PRESENT;
        Past { line, upto }
    }

    /// Takes in what was read of the past.
    pub fn absorb(&mut self, past: Head) {
        self.head.absorb(past);
        self.awaits_past = false;
    }
}
