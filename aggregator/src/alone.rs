//! Work on a thread of its own, with a runtime of its own.
//!
//! What is woken thousands of times a second on the threads that everything else shares wakes a second one each time, to
//! see whether there is more to do; and a long question there would keep it waiting.

use std::thread;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::warn;

/// Runs this on a thread of that name. The task ends with it.
pub(crate) fn spawn(
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.with_context(|| format!("a runtime for the {name}"))?;
    let (ended, has_ended) = oneshot::channel();
    let thread = thread::Builder::new().name(name.into());
    let thread = thread.spawn(move || {
        runtime.block_on(work);
        // Nobody waits for it where the start failed later on.
        let _ = ended.send(());
    });
    thread.with_context(|| format!("a thread for the {name}"))?;
    Ok(tokio::spawn(async move {
        if has_ended.await.is_err() {
            warn!("the {name} broke off");
        }
    }))
}
