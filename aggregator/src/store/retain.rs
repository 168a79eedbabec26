//! What grows old.

use std::time::Duration;

use entrenar::unit::Timestamp;

use super::Retention;
use crate::rollup;

/// One kind of it. Everything but `Space` is older than a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Old {
    Chunks(Timestamp),
    /// Sums by this step.
    Rollups(Duration, Timestamp),
    Incidents(Timestamp),
    Notices(Timestamp),
    Holders(Timestamp),
    Cords(Timestamp),
    /// What was freed goes back to the file system.
    Space,
}

impl Old {
    pub(super) fn all(retention: &Retention) -> Vec<Self> {
        let Retention {
            chunks_before,
            minutes_before,
            hours_before,
            incidents_before,
        } = *retention;
        // To whom a sample belonged is known for as long as anything is kept of it.
        let holders_before = chunks_before.min(minutes_before).min(hours_before);
        let rollups = rollup::STEPS.map(|step| Self::Rollups(step, retention.before(step)));
        let rest = [
            Self::Chunks(chunks_before),
            Self::Incidents(incidents_before),
            Self::Notices(incidents_before),
            Self::Holders(holders_before),
            Self::Cords(incidents_before),
            Self::Space,
        ];
        rollups.into_iter().chain(rest).collect()
    }
}
