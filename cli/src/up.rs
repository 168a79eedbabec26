//! `entrenar up`: agent and aggregator for this host's own GPUs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use entrenar::backend::GpuBackend;
use entrenar::nvml::NvmlBackend;
use entrenar_agent::config::Config as AgentConfig;
use entrenar_aggregator::config::{Config, LogFormat, init_logs};
use entrenar_aggregator::{Leave, StartError};
use tokio_util::sync::CancellationToken;

use crate::service::{self, Agent};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where people and scrapers are served. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8470", value_name = "ADDRESS")]
    http: SocketAddr,
    /// Where further agents may connect. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8471", value_name = "ADDRESS")]
    grpc: SocketAddr,
    /// Directory for everything that must survive a restart.
    #[arg(long, default_value = "data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The rules file; without it the built-in rules.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The receivers file: whom to tell.
    #[arg(long, value_name = "FILE")]
    receivers: Option<PathBuf>,
    /// The driver's management library, where it is not found by itself.
    #[arg(long, value_name = "PATH")]
    nvml_lib: Option<PathBuf>,
    /// How logs on standard error are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
}

pub(crate) fn run(args: Args) -> ExitCode {
    let backend: Arc<dyn GpuBackend> = match NvmlBackend::open(args.nvml_lib.as_deref()) {
        Ok(backend) => Arc::new(backend),
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!(
                "This host has no NVIDIA driver that can be read. To see entrenar without a GPU: entrenar demo"
            );
            return ExitCode::FAILURE;
        }
    };
    init_logs(args.log_format, tracing::Level::INFO);
    service::block_on(serve(args, backend))
}

async fn serve(args: Args, backend: Arc<dyn GpuBackend>) -> Result<(), StartError> {
    let stop = CancellationToken::new();
    let config = Config {
        http: args.http,
        grpc: args.grpc,
        rules: args.rules,
        receivers: args.receivers,
        ..Config::local(args.data_dir.clone())
    };
    let running = service::aggregator(config, &stop).await?;
    let aggregator = format!("http://{}", running.grpc);
    let agent = AgentConfig {
        node: None,
        ..AgentConfig::local(aggregator, String::new(), args.data_dir.join("spool"))
    };
    let agent = Agent::start(agent, backend).map_err(StartError::Failed)?;
    let leave = Leave::listen().map_err(StartError::Failed)?;
    println!("ready http={} grpc={}", running.http, running.grpc);
    leave.asked().await;
    // The agent first, so that its goodbye is heard.
    let left = tokio::task::spawn_blocking(move || agent.stop());
    // It has its own deadline; the aggregator ends in any case.
    let _ = left.await;
    service::end(running, &stop).await;
    Ok(())
}
