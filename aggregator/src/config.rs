//! Parsed values with documented defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use entrenar::config::duration;

use crate::chunk::Profile;

/// What the operator says. Every flag has an environment variable (`ENTRENAR_` and the flag in capitals) and a key in
/// the `--config` file; precedence: flag, environment, file, default.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Name of this deployment: part of every message and deduplication key.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub cluster: String,

    /// Where the time series and incidents are kept: `sqlite:PATH`, or `postgres://USER@HOST/DATABASE`. By default
    /// `entrenar.db` in the data directory.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,

    /// Directory for everything that must survive a restart.
    #[arg(long, default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Where people and scrapers are served. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8470", value_name = "ADDRESS")]
    pub http: SocketAddr,

    /// Where agents are served. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8471", value_name = "ADDRESS")]
    pub grpc: SocketAddr,

    /// The rules file; without it the built-in rules with their defaults.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// The receivers file: whom to tell. Without it nobody is told.
    #[arg(long, value_name = "FILE")]
    pub receivers: Option<PathBuf>,

    /// How people reach this server: links in messages begin with it. By default the HTTP address.
    #[arg(long, value_name = "URL")]
    pub external_url: Option<String>,

    /// How long raw samples are kept.
    #[arg(long, default_value = "7d", value_name = "DURATION", value_parser = duration)]
    pub retention_raw: Duration,

    /// How long their summaries by the minute are kept.
    #[arg(long = "retention-1m", default_value = "90d", value_name = "DURATION", value_parser = duration)]
    pub retention_1m: Duration,

    /// How long their summaries by the hour are kept.
    #[arg(long = "retention-1h", default_value = "730d", value_name = "DURATION", value_parser = duration)]
    pub retention_1h: Duration,

    /// How exactly history is kept: every digit, or what the sensors mean, in half the space.
    #[arg(long, value_enum, default_value_t = Profile::Exact, value_name = "PROFILE")]
    pub history_profile: Profile,

    /// Certificate chain of both servers, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of both servers, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// CA of the agents' client certificates, PEM. With a tokens file that has agents, a certificate is optional.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// Bearer tokens of people and agents.
    #[arg(long, value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,

    /// Serve off loopback in clear text, or without asking for a credential.
    #[arg(long)]
    pub insecure: bool,

    /// Above this many GPUs, /metrics carries nodes and incidents only, and says so.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub metrics_max_gpus: usize,

    /// How logs on standard error are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// YAML file with any of these flags as keys.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Config {
    /// Everything at its default, in this directory, on free ports of loopback: for tests and the demo.
    pub fn local(data_dir: PathBuf) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            cluster: "default".into(),
            database_url: None,
            data_dir,
            http: free,
            grpc: free,
            rules: None,
            receivers: None,
            external_url: None,
            retention_raw: Duration::from_hours(7 * 24),
            retention_1m: Duration::from_hours(90 * 24),
            retention_1h: Duration::from_hours(730 * 24),
            history_profile: Profile::Exact,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tokens_file: None,
            insecure: false,
            metrics_max_gpus: 2000,
            log_format: LogFormat::Text,
            config: None,
        }
    }
}

/// Logs go to standard error; standard output is for results.
pub fn init_logs(format: LogFormat, level: tracing::Level) {
    let logs = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would say on standard error that standard error takes nothing, and panic: the disk of a log may be full.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(level);
    // A second call, in tests, changes nothing.
    let _ = match format {
        LogFormat::Text => logs.with_target(false).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}
