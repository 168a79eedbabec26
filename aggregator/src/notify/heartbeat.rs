//! A URL that is called each minute, so that something outside notices when this process does not live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entrenar::clock::Clock;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::notify::post::Poster;
use crate::notify::receivers::Heartbeat;

/// How it went since the start.
#[derive(Debug, Default)]
pub struct HeartbeatStats {
    pub n_sent: AtomicU64,
    pub n_failed: AtomicU64,
}

/// Calls the URL now and then at its interval, until it is stopped. A call that fails is not repeated before the next.
pub async fn run(
    heartbeat: Heartbeat,
    poster: Poster,
    clock: Arc<dyn Clock>,
    stats: Arc<HeartbeatStats>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(heartbeat.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let beat = async {
            let url = heartbeat.url.read()?;
            poster.ping(url, clock.now()).await
        };
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = beat => result,
        };
        match result {
            Ok(()) => stats.n_sent.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                warn!(%error, "the heartbeat was not taken");
                stats.n_failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}
