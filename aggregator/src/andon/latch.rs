//! Trouble that is known by single events: up with the first, down when it has been quiet for long. *(pure)*

use std::time::Duration;

use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Change, Resolution};

/// Up since an event, as long as others follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Latch {
    since: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Latch {
    /// Another event. `Raised` with the first.
    pub(super) fn strike(&mut self, at: Timestamp) -> Option<Change> {
        self.last = self.last.max(Some(at));
        let first = self.since.is_none();
        self.since.get_or_insert(at);
        first.then_some(Change::Raised)
    }

    /// Time has passed without an event.
    pub(super) fn settle(&mut self, at: Timestamp, quiet: Duration) -> Option<Change> {
        if at.since(self.last?) < quiet {
            return None;
        }
        *self = Self::default();
        Some(Change::Cleared {
            why: Resolution::Recovered,
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }
}
