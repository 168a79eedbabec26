//! Wiring: every task, in the order in which a start needs them and a stop ends them.
//!
//! Start: bind, open the store, replay the journal telling nobody, but for what the engine's snapshot covers, which is read
//! beside the present, then serve. Stop: agents and browsers are let go,
//! the line commits what it took, decisions are recorded, the outbox ends, the store is closed.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, anyhow};
use entrenar::clock::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::access::{Access, Protection, may_listen};
use crate::alone;
use crate::andon::RuleBook;
use crate::config::Config;
use crate::database::Database;
use crate::ingest::{self, Ingest};
use crate::leave::Leave;
use crate::line::LineConfig;
use crate::line::driver::Driver;
use crate::line::handle::LineHandle;
use crate::notify::decider::Decider;
use crate::notify::heartbeat;
use crate::notify::message::Context as MessageContext;
use crate::notify::outbox::Outbox;
use crate::notify::post::Poster;
use crate::notify::receivers::Receivers;
use crate::reload::{Reload, RulesFile};
use crate::status::Vitals;
use crate::store::{Retention, Store};
use crate::web::{Live, Web};
use crate::{access, replay, tls, web};

/// How often old data is dropped.
const RETAIN_EVERY: Duration = Duration::from_mins(1);

/// How long resolved incidents and their messages are kept.
const KEEP_INCIDENTS: Duration = Duration::from_hours(90 * 24);

/// A process leaves within this time after it was told to.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// How long the store may take to close. Then it is left as after a crash: nothing is lost, and the next start puts it right.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Why a start failed, by what the operator does about it.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong: exit status 2.
    Configuration(anyhow::Error),
    /// Something else is: exit status 1.
    Failed(anyhow::Error),
}

fn configuration(error: impl Into<anyhow::Error>) -> StartError {
    StartError::Configuration(error.into())
}

/// An aggregator that serves.
pub struct Running {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub line: LineHandle,
    /// Notified: the rules file is looked at.
    pub reload: Arc<Notify>,
    /// Cancelled when what is known here is no longer what is in the database: this process must end.
    pub superseded: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    store: Arc<dyn Store>,
}

impl Running {
    /// Waits until everything has ended, after `stop`, and the store is closed.
    pub async fn ended(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                warn!(%error, "a task ended badly");
            }
        }
        let closed = tokio::time::timeout(CLOSE_WITHIN, self.store.close());
        if closed.await.is_err() {
            warn!("left before the database was closed; the next start puts it right");
        }
    }
}

/// Starts an aggregator; it serves when this returns. While a Postgres is away it waits, and only says so on `/readyz`.
pub async fn start(
    config: Config,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<Running, StartError> {
    tls::install_provider();
    survive_file_limits().map_err(StartError::Failed)?;
    let people = load_access(&config)?;
    check_listeners(&config, &people)?;
    let (rules_file, rules) = load_rules(&config)?;
    let database = Database::of(&config).map_err(configuration)?;
    let http = bind("HTTP", "--http", config.http).await?;
    let grpc = bind("gRPC", "--grpc", config.grpc).await?;
    let (http_at, grpc_at) = (local(&http)?, local(&grpc)?);
    let external_url = config
        .external_url
        .clone()
        .unwrap_or_else(|| default_url(&config, http_at));
    let vitals = Arc::new(Vitals::default());
    let receivers = load_receivers(&config)?;
    let poster = Poster::new(receivers.proxy.as_ref()).map_err(configuration)?;

    let https = tls::for_http(&config).map_err(StartError::Configuration)?;
    let (opened, http) = database.open(http, https.clone()).await?;
    let store = opened.store;
    let line_config = LineConfig {
        cluster: config.cluster.clone(),
        rules,
        routes: receivers.routes(),
        profile: config.history_profile,
    };
    let (line, past) = replay::recover(&store, line_config, clock.as_ref())
        .await
        .map_err(StartError::Failed)?;
    if let Some(waiting) = opened.waiting {
        waiting.end().await;
    }

    let live = Arc::new(Live::default());
    // Ends after the line, so that what the line still decides is recorded and told.
    let outbox_stop = CancellationToken::new();
    let context = MessageContext::new(&config.cluster, &external_url);
    let (outbox_handle, outbox) = Outbox::new(
        Arc::clone(&store),
        &receivers.receivers,
        poster.clone(),
        context,
        Arc::clone(&clock),
    );
    vitals.watch_outbox(outbox_handle.clone());
    let (decider_handle, decider) = Decider::new(Arc::clone(&store), outbox_handle);
    let (driver, line) = Driver::new(
        line,
        Arc::clone(&store),
        Arc::clone(&clock),
        decider_handle,
        Arc::clone(&live),
        Arc::clone(&vitals),
    );
    let (driver_stop, last_stop) = (stop.clone(), outbox_stop.clone());
    let work = async move {
        driver.run(driver_stop).await;
        last_stop.cancel();
    };
    let mut tasks = vec![alone::spawn("line", work).map_err(StartError::Failed)?];
    let (say_whole, is_whole) = watch::channel(past.is_none());
    if let Some(past) = past {
        let (store, line) = (Arc::clone(&store), line.clone());
        tasks.push(tokio::spawn(replay::read_past(
            store,
            line,
            past,
            say_whole,
            stop.clone(),
        )));
    }
    tasks.push(tokio::spawn(decider.run(outbox_stop.clone())));
    tasks.push(tokio::spawn(outbox.run(outbox_stop.clone())));
    if let Some(beat) = receivers.heartbeat {
        let stats = vitals.heartbeat();
        tasks.push(tokio::spawn(heartbeat::run(
            beat,
            poster,
            Arc::clone(&clock),
            stats,
            stop.clone(),
        )));
    }

    let reload = Arc::new(Notify::new());
    vitals.rules_loaded_at_ms.store(clock.now().0, Relaxed);
    if let Some(file) = rules_file {
        let reload = Reload {
            file,
            line: line.clone(),
            clock: Arc::clone(&clock),
            vitals: Arc::clone(&vitals),
            asked: Arc::clone(&reload),
        };
        tasks.push(tokio::spawn(reload.run(stop.clone())));
    }

    let access = Arc::new(people);
    let ingest = Ingest::new(
        line.clone(),
        Arc::clone(&access),
        Arc::clone(&clock),
        Arc::clone(&vitals),
        stop.clone(),
    );
    tasks.push(ingest::serve(&config, ingest, grpc, stop.clone())?);
    let web = Arc::new(Web {
        line: line.clone(),
        store: Arc::clone(&store),
        live,
        access,
        clock: Arc::clone(&clock),
        vitals,
        cluster: config.cluster.clone(),
        loopback: http_at.ip().is_loopback(),
        metrics_max_gpus: config.metrics_max_gpus,
        profile: config.history_profile,
        gate: web::Gate::new(is_whole),
        stop: stop.clone(),
    });
    let served = web::serve(http, https, web::router(web), stop.clone());
    tasks.push(tokio::spawn(async move {
        if let Err(error) = served.await {
            warn!(%error, "the HTTP server ended");
        }
    }));
    tasks.push(tokio::spawn(retain(
        Arc::clone(&store),
        clock,
        config,
        stop,
    )));
    Ok(Running {
        http: http_at,
        grpc: grpc_at,
        line,
        reload,
        superseded: opened.superseded,
        tasks,
        store,
    })
}

/// A limit on the size of files is an error of one write, as a full disk is, and not the end of the process.
fn survive_file_limits() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let listening = signal(SignalKind::from_raw(libc::SIGXFSZ));
    drop(listening.context("could not listen for SIGXFSZ")?);
    Ok(())
}

fn load_access(config: &Config) -> Result<Access, StartError> {
    match &config.tokens_file {
        Some(path) => access::load(path).map_err(configuration),
        None => Ok(Access::open()),
    }
}

fn check_listeners(config: &Config, people: &Access) -> Result<(), StartError> {
    let tls = config.tls_cert.is_some();
    let protect = |credential| Protection {
        tls,
        credential,
        insecure: config.insecure,
    };
    may_listen("HTTP", config.http, protect(people.asks_people())).map_err(configuration)?;
    let agents = people.asks_agents() || config.tls_client_ca.is_some();
    may_listen("gRPC", config.grpc, protect(agents)).map_err(configuration)
}

fn load_receivers(config: &Config) -> Result<Receivers, StartError> {
    match &config.receivers {
        Some(path) => Receivers::load(path).map_err(configuration),
        None => Ok(Receivers::default()),
    }
}

fn load_rules(config: &Config) -> Result<(Option<RulesFile>, RuleBook), StartError> {
    let Some(path) = config.rules.clone() else {
        return Ok((None, RuleBook::default()));
    };
    let loaded = RulesFile::load(path).map_err(|reason| configuration(anyhow!(reason)))?;
    Ok((Some(loaded.0), loaded.1))
}

async fn bind(what: &str, flag: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                ": the port is in use; choose another with {flag}, or stop what listens there"
            ),
            _ => String::new(),
        };
        StartError::Failed(anyhow!(
            "could not serve {what} on {address}: {error}{hint}"
        ))
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|e| StartError::Failed(e.into()))
}

fn default_url(config: &Config, http: SocketAddr) -> String {
    let scheme = if config.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{http}")
}

async fn retain(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: Config,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETAIN_EVERY) => {}
        }
        let now = clock.now();
        let retention = Retention {
            chunks_before: now - config.retention_raw,
            minutes_before: now - config.retention_1m,
            hours_before: now - config.retention_1h,
            incidents_before: now - KEEP_INCIDENTS,
        };
        let work = async {
            // First, so that what goes is dropped with what it lies together with.
            match store.compact(now).await {
                Ok(0) => {}
                Ok(n_rows) => debug!(n_rows, "laid sums together"),
                Err(error) => warn!(%error, "could not lay sums together"),
            }
            store.retain(retention).await
        };
        let dropped = tokio::select! {
            // What is left is done after the next start.
            () = stop.cancelled() => return,
            dropped = work => dropped,
        };
        match dropped {
            Ok(0) => {}
            Ok(n_dropped) => info!(n_dropped, "dropped what is older than the retention"),
            Err(error) => warn!(%error, "could not drop old data"),
        }
    }
}

/// The whole life of the daemon; the exit status says how it went.
pub fn run_until_signal(config: Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), ExitCode::FAILURE),
    };
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let asked = Leave::listen().map_err(StartError::Failed)?.asked();
        tokio::pin!(asked);
        let running = tokio::select! {
            running = start(config, Arc::new(SystemClock), stop.clone()) => running?,
            () = &mut asked => return Ok(()),
        };
        let hangups = hangups().map_err(StartError::Failed)?;
        tokio::spawn(pass_on(hangups, Arc::clone(&running.reload)));
        println!("ready http={} grpc={}", running.http, running.grpc);
        let superseded = running.superseded.clone();
        tokio::select! {
            () = asked => info!("leaving"),
            () = superseded.cancelled() => {}
        }
        stop.cancel();
        if tokio::time::timeout(LEAVE_WITHIN, running.ended())
            .await
            .is_err()
        {
            warn!("did not end in time; what is not committed, agents send again");
        }
        if superseded.is_cancelled() {
            return Err(StartError::Failed(anyhow!(
                "the database is another aggregator's by now, or came back older than it was (see the log): what this one \
                 knows is out of date, and the next start begins with what is there"
            )));
        }
        Ok(())
    });
    // A stuck task does not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Configuration(error)) => fail(&error, ExitCode::from(2)),
        Err(StartError::Failed(error)) => fail(&error, ExitCode::FAILURE),
    }
}

fn fail(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    eprintln!("error: {error:#}");
    code
}

fn hangups() -> anyhow::Result<Signal> {
    signal(SignalKind::hangup()).context("could not listen for SIGHUP")
}

/// Each hangup asks for a look at the rules file.
async fn pass_on(mut hangups: Signal, reload: Arc<Notify>) {
    while hangups.recv().await.is_some() {
        reload.notify_one();
    }
}
