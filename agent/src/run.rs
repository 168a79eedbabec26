//! Every task of the agent, every channel between them, and the order in which they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use entrenar::backend::GpuBackend;
use entrenar::clock::{Clock, SystemClock};
use entrenar::gpu::NodeId;
use entrenar::report::{Body, GpuEvent};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::probe::{Probe, ProbeConfig};
use crate::sampler::Sampler;
use crate::sampler::schedule::Schedule;
use crate::spool::fs::Disk;
use crate::spool::worker::{self, SpoolHandle};
use crate::spool::{Now, Spool};
use crate::status::{self, Status};
use crate::uplink::connect::{Dial, Target};
use crate::uplink::{self, Identity, Uplink};

/// How long the first enumeration is waited for, so that the first hello names the GPUs.
const FIRST_ENUMERATION: Duration = Duration::from_secs(2);

/// How long the sampler may take to end: a reading that is on its way has its own deadline, which is shorter.
const SAMPLER_PATIENCE: Duration = Duration::from_millis(1200);

/// How long the last records may take to reach the disk, and the spool to close. With the goodbye, all of it stays
/// below the 5 s that an agent has to leave.
const FLUSH_PATIENCE: Duration = Duration::from_millis(300);

/// What a test, or the demo, may put in place of the world.
#[derive(Clone)]
pub struct Seams {
    /// What tells the time.
    pub clock: Arc<dyn Clock>,
    /// Another way to the aggregator than `--aggregator`.
    pub dial: Option<Dial>,
}

impl Default for Seams {
    /// The world.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            dial: None,
        }
    }
}

/// Runs an agent over `backend` until `stop`, then ends it in order: no more samples, all of them in the spool, a
/// goodbye, out. `ready` is told where `/metrics` is served. Fails when it cannot begin.
pub async fn run(
    config: Config,
    backend: Arc<dyn GpuBackend>,
    seams: Seams,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let clock = Arc::clone(&seams.clock);
    let node = NodeId::from(
        config
            .node_name()
            .context("this host has no name: give --node")?,
    );
    let target = Target::new(&config, seams.dial)?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "could not listen on {}: choose another address with --listen",
            config.listen
        )
    })?;
    let http = listener.local_addr()?;

    let (spool, live, generation) = open_spool(&config, &clock)?;
    let probe_config = ProbeConfig {
        // An inventory without GPUs, until the first enumeration, is a generation of its own.
        generation: generation + 1,
        ..ProbeConfig::for_interval(config.interval)
    };
    let (mut probe, events) = Probe::start(Arc::clone(&backend), Arc::clone(&clock), probe_config)
        .context("could not start the threads that read the GPUs")?;
    if let Err(error) = probe.ready(FIRST_ENUMERATION).await {
        warn!(%node, %error, "no GPUs yet; the agent reports the node and tries again");
    } else {
        let gpus = probe.inventory().gpus.len();
        info!(%node, gpus, backend = backend.name(), "the agent begins");
    }

    let status = Arc::new(Status::new(node.to_string(), config.interval));
    let schedule = Schedule::start(&node, config.interval, clock.now(), clock.monotonic());
    let sampler = Sampler::new(
        probe,
        schedule,
        config.batch_ticks,
        spool.clone(),
        Arc::clone(&status),
        Arc::clone(&clock),
    );
    let uplink = Uplink {
        target,
        identity: Identity {
            node,
            labels: config.label_map(),
            interval: config.interval,
            batch_ticks: config.batch_ticks,
        },
        backend,
        spool: spool.clone(),
        live,
        status: Arc::clone(&status),
        clock: Arc::clone(&clock),
    };
    let (sampling, leaving, serving) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let tasks = Tasks {
        sampler: tokio::spawn(sampler.run(sampling.clone())),
        events: tokio::spawn(forward(events, spool.clone())),
        uplink: tokio::spawn(uplink.run(leaving.clone())),
        server: tokio::spawn(status::serve(listener, status, clock, serving.clone())),
        sampling,
        leaving,
        serving,
        spool,
    };
    ready(http);
    tasks.until(stop).await
}

fn open_spool(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(SpoolHandle, worker::Live, u32)> {
    let dir = &config.spool_dir;
    let disk = Disk::open(dir).with_context(|| {
        format!(
            "could not open the spool directory {}: give this agent one of its own with --spool-dir",
            dir.display()
        )
    })?;
    let now = Now {
        wall: clock.now(),
        monotonic: clock.monotonic(),
    };
    let spool = Spool::open(disk, config.spool_max_bytes, uplink::born(), now)
        .with_context(|| format!("the spool is {}", dir.display()))?;
    let generation = spool.generation();
    let (handle, live) =
        worker::start(spool, Arc::clone(clock)).context("could not start the spool's thread")?;
    Ok((handle, live, generation))
}

/// Events leave at once, even while a tick waits for a GPU that does not answer.
async fn forward(mut events: mpsc::Receiver<GpuEvent>, spool: SpoolHandle) {
    while let Some(event) = events.recv().await {
        // One that is refused is counted by the spool.
        let _ = spool.append(Body::Event(event));
    }
}

/// What runs, and how it is told to end.
struct Tasks {
    sampler: JoinHandle<()>,
    events: JoinHandle<()>,
    uplink: JoinHandle<()>,
    server: JoinHandle<()>,
    sampling: CancellationToken,
    leaving: CancellationToken,
    serving: CancellationToken,
    spool: SpoolHandle,
}

impl Tasks {
    async fn until(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let broken = tokio::select! {
            () = stop.cancelled() => None,
            _ = &mut self.sampler => Some("sampler"),
            _ = &mut self.uplink => Some("uplink"),
        };
        if let Some(task) = broken {
            self.serving.cancel();
            bail!("the {task} ended by itself: this is a bug, and the lines above say where");
        }
        self.sampling.cancel();
        if tokio::time::timeout(SAMPLER_PATIENCE, &mut self.sampler)
            .await
            .is_err()
        {
            warn!("the last reading did not end in time");
            self.sampler.abort();
        }
        if tokio::time::timeout(FLUSH_PATIENCE, self.spool.flush())
            .await
            .is_err()
        {
            warn!("the spool's disk did not take the last records in time");
        }
        self.leaving.cancel();
        // Bounded by the patience of the goodbye.
        let _ = self.uplink.await;
        self.serving.cancel();
        let _ = self.server.await;
        self.events.abort();
        // Whoever starts next may have the spool.
        let _ = tokio::time::timeout(FLUSH_PATIENCE, self.spool.close()).await;
        Ok(())
    }
}
