//! How time is cut into stretches: aligned to event time, and shifted for each GPU, so that sealing is spread over
//! the length of a stretch instead of falling on one moment for the whole fleet.

use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;

/// Ticks in a full stretch: longer ones gain little in bytes, shorter ones cost double (`bench/RESULTS.md`).
pub const TICKS: u32 = 720;

/// Longest stretch. The journal is kept until a stretch is sealed, for the whole fleet; a GPU that is sampled less
/// often than every 15 s gets stretches of fewer ticks.
pub const MAX_LENGTH: Duration = Duration::from_hours(3);

/// Shortest stretch, so that a tiny interval cannot make a row for every few samples.
pub const MIN_LENGTH: Duration = Duration::from_secs(10);

/// Length of a stretch of a GPU that is sampled at this interval.
pub fn length(interval: Duration) -> Duration {
    (interval * TICKS).clamp(MIN_LENGTH, MAX_LENGTH)
}

/// Start of the stretch that `at` falls in.
pub fn start(gpu: &GpuUuid, length: Duration, at: Timestamp) -> Timestamp {
    let length_ms = length.as_millis().max(1) as i64;
    // Rests on disk as part of a key: the hash must never change.
    let shift = i64::from(crc32fast::hash(gpu.as_str().as_bytes())).rem_euclid(length_ms);
    let into = (at.0.saturating_sub(shift)).rem_euclid(length_ms);
    Timestamp(at.0.saturating_sub(into))
}
