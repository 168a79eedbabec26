//! The trace format, read and written; the replay backend.
