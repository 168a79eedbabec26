//! What grows old.

use entrenar::unit::Timestamp;

/// One kind of it. Everything but `Space` is older than a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Old {
    Chunks(Timestamp),
    Incidents(Timestamp),
    Notices(Timestamp),
    Holders(Timestamp),
    Cords(Timestamp),
    /// What was freed goes back to the file system.
    Space,
}

impl Old {
    pub(super) fn all(chunks_before: Timestamp, incidents_before: Timestamp) -> [Self; 6] {
        [
            Self::Chunks(chunks_before),
            Self::Incidents(incidents_before),
            Self::Notices(incidents_before),
            Self::Holders(chunks_before),
            Self::Cords(incidents_before),
            Self::Space,
        ]
    }
}
