//! Keeps each simulated node's agent in the state that the simulation says: up, dead, or stopped in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use entrenar::backend::GpuBackend;
use entrenar::gpu::NodeId;
use entrenar::sim::{NodeState, SimBackend};
use entrenar_agent::config::Config as AgentConfig;
use tracing::{info, warn};

use crate::service::Agent;

/// How often the simulation is asked how its nodes stand.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One keeper per node.
pub(super) struct Keepers {
    leaving: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Keepers {
    pub(super) fn start(
        backends: Vec<(NodeId, Arc<SimBackend>)>,
        aggregator: &str,
        spools: &Path,
        interval: Duration,
    ) -> Self {
        let leaving = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (node, backend) in backends {
            let config = AgentConfig {
                labels: backend.labels().clone().into_iter().collect(),
                interval,
                ..AgentConfig::local(
                    aggregator.to_owned(),
                    node.to_string(),
                    spools.join(node.as_str()),
                )
            };
            let leaving = Arc::clone(&leaving);
            let keeper = std::thread::Builder::new().name(format!("keeper {node}"));
            match keeper.spawn(move || keep(&node, &backend, &config, &leaving)) {
                Ok(thread) => threads.push(thread),
                Err(error) => warn!(%error, "could not start a node"),
            }
        }
        Self { leaving, threads }
    }

    /// Lets every agent say goodbye.
    pub(super) fn end(self) {
        self.leaving.store(true, Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                warn!("a keeper panicked");
            }
        }
    }
}

fn keep(node: &NodeId, backend: &Arc<SimBackend>, config: &AgentConfig, leaving: &AtomicBool) {
    let mut agent: Option<Agent> = None;
    while !leaving.load(Relaxed) {
        match (backend.state(), agent.take()) {
            (NodeState::Up, None) => {
                agent = Agent::start(config.clone(), Arc::clone(backend) as Arc<dyn GpuBackend>)
                    .inspect_err(|error| warn!(%node, "could not start the agent: {error:#}"))
                    .ok();
            }
            (NodeState::Lost, Some(running)) => {
                info!(%node, "the simulation cuts this node's power");
                running.kill();
            }
            (NodeState::Stopped, Some(running)) => {
                info!(%node, "the simulation stops this node's agent");
                running.stop();
            }
            (_, kept) => agent = kept,
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // Calls that the simulation holds return now.
    backend.gate().open();
    if let Some(running) = agent {
        running.stop();
    }
}
