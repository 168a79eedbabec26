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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use entrenar::clock::SystemClock;
    use reqwest::Url;

    use super::*;
    use crate::notify::receivers::Address;
    use crate::notify::testing::server::{Reply, Server, ok};

    #[tokio::test]
    async fn it_beats_on_and_counts_what_failed() {
        let mut server = Server::start([ok(), Reply::Says(500, String::new())]).await;
        let heartbeat = Heartbeat {
            url: Address::Given(Url::parse(&server.url).expect("a URL")),
            interval: Duration::from_millis(1),
        };
        let poster = Poster::new(None).expect("a client");
        let (stats, stop) = (Arc::<HeartbeatStats>::default(), CancellationToken::new());
        let (counted, clock) = (stats.clone(), Arc::new(SystemClock));
        let task = tokio::spawn(run(heartbeat, poster, clock, counted, stop.clone()));
        // The third call begins when the first two are counted.
        for _ in 0..3 {
            server.next().await;
        }
        stop.cancel();
        task.await.expect("no panic");
        assert_eq!(stats.n_failed.load(Ordering::Relaxed), 1);
        assert!(stats.n_sent.load(Ordering::Relaxed) >= 1);
    }
}
