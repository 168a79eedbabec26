//! The only place that reads time. Everything that decides is told `now` instead.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::unit::Timestamp;

/// Wall time and monotonic time, behind a seam so that tests can make an hour pass at once.
pub trait Clock: Send + Sync + 'static {
    /// Wall time; may jump.
    fn now(&self) -> Timestamp;
    /// Time since some fixed point in the past of this process; never goes backwards.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        now()
    }

    fn monotonic(&self) -> Duration {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(instant).elapsed()
    }
}

/// The machine's wall time.
#[allow(clippy::disallowed_methods, reason = "the one place that may")]
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

/// The machine's monotonic clock, for façades that must measure by themselves.
#[allow(clippy::disallowed_methods, reason = "the one place that may")]
pub fn instant() -> Instant {
    Instant::now()
}
