//! `entrenar demo`: a simulated fleet, with real agents and a real aggregator over real gRPC, in one process.

mod keeper;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::clock::{Clock, SystemClock};
use entrenar::config::duration;
use entrenar::sim::{Scenario, SimConfig, SimFleet, parse_faults};
use entrenar_aggregator::config::{Config, LogFormat, init_logs};
use entrenar_aggregator::{Leave, StartError};
use tokio_util::sync::CancellationToken;

use crate::service;
use keeper::Keepers;

/// The demo's own quick rules: faults become incidents within two minutes.
const RULES: &str = include_str!("../../deploy/demo/rules.yaml");

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes of the simulated fleet.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    nodes: u32,
    /// GPUs of each node.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    gpus: u32,
    /// How often GPUs are sampled.
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = interval)]
    interval: Duration,
    /// The same seed makes the same fleet.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// What goes wrong: default, none, the name of a scenario, or a file of faults.
    #[arg(long, default_value = "default", value_name = "FAULTS")]
    faults: Faults,
    /// Simulated seconds in a second.
    #[arg(long, default_value_t = 1.0, value_name = "X", value_parser = speed)]
    speed: f64,
    /// Keep everything here; without it a temporary directory that is removed at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the board is served. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8470", value_name = "ADDRESS")]
    http: SocketAddr,
    /// Where the agents connect. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8471", value_name = "ADDRESS")]
    grpc: SocketAddr,
    /// Whom to tell; without it nobody.
    #[arg(long, value_name = "FILE")]
    receivers: Option<PathBuf>,
    /// How logs on standard error are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
}

/// What goes wrong.
#[derive(Clone, Debug)]
enum Faults {
    Scenario(Scenario),
    File(PathBuf),
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scenario = match text {
            "default" => Some(Scenario::DemoDefault),
            "none" => Some(Scenario::Steady),
            name => Scenario::from_name(name),
        };
        if let Some(scenario) = scenario {
            return Ok(Self::Scenario(scenario));
        }
        if Path::new(text).is_file() {
            return Ok(Self::File(text.into()));
        }
        let names: Vec<_> = Scenario::ALL.iter().map(|s| s.name()).collect();
        Err(format!(
            "neither a file nor one of default, none, {}",
            names.join(", ")
        ))
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.1..=100.0).contains(&speed) => Ok(speed),
        _ => Err("the speed is 0.1 to 100".into()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if (Duration::from_millis(100)..=Duration::from_mins(1)).contains(&interval) => {
            Ok(interval)
        }
        _ => Err("the interval is 100ms to 60s".into()),
    }
}

pub(crate) fn run(args: Args) -> ExitCode {
    // The board tells the story; here only what goes wrong with the demo itself.
    init_logs(args.log_format, tracing::Level::WARN);
    service::block_on(serve(args))
}

async fn serve(args: Args) -> Result<(), StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let sim = simulation(&args, clock.as_ref()).map_err(StartError::Configuration)?;
    // Removed when this function ends.
    let temporary = match args.data_dir {
        Some(_) => None,
        None => Some(
            tempfile::tempdir()
                .context("could not make a temporary directory")
                .map_err(StartError::Failed)?,
        ),
    };
    let data_dir = match (&args.data_dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.path().to_path_buf(),
        (None, None) => PathBuf::from("data"),
    };
    let rules = write_rules(&data_dir).map_err(StartError::Failed)?;
    let stop = CancellationToken::new();
    let config = Config {
        cluster: "demo".into(),
        http: args.http,
        grpc: args.grpc,
        rules: Some(rules),
        receivers: args.receivers.clone(),
        ..Config::local(data_dir.clone())
    };
    let running = service::aggregator(config, &stop).await?;
    let backends = SimFleet::backends(&sim, &clock, args.speed)
        .map_err(|e| StartError::Configuration(e.into()))?;
    introduce(&args, &sim, running.http);
    let aggregator = format!("http://{}", running.grpc);
    let keepers = Keepers::start(
        backends,
        &aggregator,
        &data_dir.join("spool"),
        args.interval,
    );
    let leave = Leave::listen().map_err(StartError::Failed)?;
    println!("ready http={} grpc={}", running.http, running.grpc);
    leave.asked().await;
    // The agents first, so that their goodbyes are heard.
    let ended = tokio::task::spawn_blocking(move || keepers.end());
    // They have their own deadline; the aggregator ends in any case.
    let _ = ended.await;
    service::end(running, &stop).await;
    Ok(())
}

fn simulation(args: &Args, clock: &dyn Clock) -> Result<SimConfig> {
    let scenario = match &args.faults {
        Faults::Scenario(scenario) => *scenario,
        Faults::File(_) => Scenario::Steady,
    };
    let config = scenario
        .config(args.nodes, args.gpus)
        .seed(args.seed)
        .start(clock.now());
    let Faults::File(path) = &args.faults else {
        return Ok(config);
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read {}", path.display()))?;
    let faults = parse_faults(&text).with_context(|| path.display().to_string())?;
    Ok(config.faults(faults))
}

fn write_rules(data_dir: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("could not make the directory {}", data_dir.display()))?;
    let path = data_dir.join("demo-rules.yaml");
    std::fs::write(&path, RULES).with_context(|| format!("could not write {}", path.display()))?;
    Ok(path)
}

/// Says what is to be seen, and when.
fn introduce(args: &Args, sim: &SimConfig, http: SocketAddr) {
    eprintln!(
        "\n  {} nodes with {} simulated GPUs each; the board: http://{http}\n",
        args.nodes, args.gpus
    );
    for fault in &sim.faults {
        let at = fault.at.as_secs_f64() / args.speed;
        eprintln!("  at {at:>4.0} s: {fault}");
    }
    eprintln!("\n  End it with Ctrl-C.\n");
}
