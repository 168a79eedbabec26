//! Being told to leave, by SIGTERM or SIGINT.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears both signals from the moment it is made: make it before anybody is told that the process is ready.
pub struct Leave {
    terminate: Signal,
    interrupt: Signal,
}

impl Leave {
    /// Fails where the system gives no signal handlers.
    pub fn listen() -> anyhow::Result<Self> {
        let listen =
            |kind, name| signal(kind).with_context(|| format!("could not listen for {name}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
        })
    }

    /// Waits for the first of them.
    pub async fn asked(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
