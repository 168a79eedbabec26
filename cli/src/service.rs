//! An aggregator and agents in one process, until a signal.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use entrenar::backend::GpuBackend;
use entrenar::clock::SystemClock;
use entrenar_agent::Seams;
use entrenar_agent::config::Config as AgentConfig;
use entrenar_aggregator::config::Config;
use entrenar_aggregator::{Running, StartError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A process leaves within this time after it was told to.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Runs something until it ends; the exit status says how.
pub(crate) fn block_on(work: impl Future<Output = Result<(), StartError>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), ExitCode::FAILURE),
    };
    let outcome = runtime.block_on(work);
    // A stuck task does not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Configuration(error)) => fail(&error, ExitCode::from(2)),
        Err(StartError::Failed(error)) => fail(&error, ExitCode::FAILURE),
    }
}

pub(crate) fn fail(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    eprintln!("error: {error:#}");
    code
}

/// Starts an aggregator with the machine's clock.
pub(crate) async fn aggregator(
    config: Config,
    stop: &CancellationToken,
) -> Result<Running, StartError> {
    entrenar_aggregator::start(config, Arc::new(SystemClock), stop.clone()).await
}

/// Ends the aggregator: what it took is committed.
pub(crate) async fn end(running: Running, stop: &CancellationToken) {
    stop.cancel();
    if tokio::time::timeout(LEAVE_WITHIN, running.ended())
        .await
        .is_err()
    {
        warn!("the aggregator did not end in time");
    }
}

/// An agent on a thread and a runtime of its own, so that it can be stopped in order, or die as if its power was cut.
pub(crate) struct Agent {
    stop: CancellationToken,
    kill: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Agent {
    pub(crate) fn start(config: AgentConfig, backend: Arc<dyn GpuBackend>) -> Result<Self> {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (stopping, killed) = (stop.clone(), kill.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let name = config.node.clone().unwrap_or_default();
        let thread = std::thread::Builder::new().name(format!("agent {name}")).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = killed.cancelled() => {}
                    ended = entrenar_agent::run(config, backend, Seams::default(), stopping, |_| {}) => {
                        if let Err(error) = ended {
                            warn!(node = name, "the agent ended: {error:#}");
                        }
                    }
                }
            });
            // Whatever it still had in hand is dropped, connection included.
            runtime.shutdown_background();
        })?;
        Ok(Self { stop, kill, thread })
    }

    /// Cuts its power: no goodbye.
    pub(crate) fn kill(self) {
        self.kill.cancel();
        join(self.thread);
    }

    /// Lets it say goodbye.
    pub(crate) fn stop(self) {
        self.stop.cancel();
        join(self.thread);
    }
}

fn join(thread: std::thread::JoinHandle<()>) {
    if thread.join().is_err() {
        warn!("an agent's thread panicked");
    }
}
