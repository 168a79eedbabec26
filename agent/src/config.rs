//! Parsed values with documented defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use entrenar::config::{duration, size};
use entrenar::report::Labels;

/// Shortest interval: below it the driver's own sampling is slower than ours.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Longest interval: beyond it absence could not be told from slowness.
pub const MAX_INTERVAL: Duration = Duration::from_mins(1);

/// Most ticks in a message.
pub const MAX_BATCH_TICKS: u32 = 600;

/// The per-node daemon of entrenar: reads this host's GPUs and streams them to the aggregator.
///
/// Every flag has an environment variable (`ENTRENAR_` and the flag in capitals) and a key in the `--config` file;
/// precedence: flag, environment, file, default.
#[derive(Parser, Clone, Debug)]
#[allow(rustdoc::bare_urls, reason = "it is the text of --help")]
#[command(version)]
pub struct Config {
    /// The aggregator's gRPC address, for example https://andon.example:8471.
    #[arg(long, value_name = "URL")]
    pub aggregator: String,

    /// Name of this node; by default the host's name.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,

    /// What else is known of this node; repeat for several. The rules know rack, switch and power_feed.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Where the GPUs are: nvml, sim (a simulated node), mock, or replay=FILE (a trace).
    #[arg(long, default_value = "nvml", value_name = "BACKEND")]
    pub backend: BackendChoice,

    /// The driver's management library, where it is not found by itself.
    #[arg(long, value_name = "PATH")]
    pub nvml_lib: Option<PathBuf>,

    /// How often GPUs are sampled: 100ms to 60s.
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = interval)]
    pub interval: Duration,

    /// Ticks in a message: more cost the aggregator less, and arrive later.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BATCH_TICKS)))]
    pub batch_ticks: u32,

    /// Directory of the spool: what the aggregator does not have yet survives there.
    #[arg(long, default_value = "spool", value_name = "DIR")]
    pub spool_dir: PathBuf,

    /// Most bytes in the spool; when they are reached the oldest records are forgotten and counted.
    #[arg(long, default_value = "64MiB", value_name = "SIZE", value_parser = size)]
    pub spool_max_bytes: u64,

    /// Where the agent's own /metrics, /healthz and /readyz are served. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:9400", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// File with the bearer token for the aggregator; read anew on each connection.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// CA of the aggregator's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// Client certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Key of the client certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Speak in clear text with an aggregator that is not on this host.
    #[arg(long)]
    pub insecure: bool,

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

/// Where the GPUs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendChoice {
    Nvml,
    Sim,
    Mock,
    Replay(PathBuf),
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text
            .split_once('=')
            .map_or((text, None), |(kind, file)| (kind, Some(file)))
        {
            ("nvml", None) => Ok(Self::Nvml),
            ("sim", None) => Ok(Self::Sim),
            ("mock", None) => Ok(Self::Mock),
            ("replay", Some(file)) if !file.is_empty() => Ok(Self::Replay(file.into())),
            ("replay", _) => Err("replay needs a trace: replay=FILE".into()),
            _ => Err("choose nvml, sim, mock or replay=FILE".into()),
        }
    }
}

impl Config {
    /// A node that reports to an aggregator on this host, everything else at its default: for tests and the demo.
    pub fn local(aggregator: String, node: String, spool_dir: PathBuf) -> Self {
        Self {
            aggregator,
            node: Some(node),
            labels: Vec::new(),
            backend: BackendChoice::Sim,
            nvml_lib: None,
            interval: Duration::from_secs(1),
            batch_ticks: 1,
            spool_dir,
            spool_max_bytes: 64 * 1024 * 1024,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            token_file: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            insecure: false,
            log_format: LogFormat::Text,
            config: None,
        }
    }

    /// The labels as a map; a later one of a key wins.
    pub fn label_map(&self) -> Labels {
        self.labels.iter().cloned().collect()
    }

    /// `--node`, else the host's name.
    pub fn node_name(&self) -> Option<String> {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = self.node.clone().or_else(host)?;
        Some(name.trim().to_owned()).filter(|n| !n.is_empty())
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("a label's key has letters, digits and _ only".into());
    }
    Ok((key.into(), value.into()))
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
        Ok(interval)
    } else {
        Err("the interval is 100ms to 60s".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_interval_cannot_be_built() {
        let check = |text: &str| {
            Config::try_parse_from([
                "entrenar-agent",
                "--aggregator",
                "http://127.0.0.1:1",
                "--interval",
                text,
            ])
            .map(|c| c.interval)
            .map_err(|e| e.to_string())
        };
        assert_eq!(check("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["0", "0s", "10ms", "2m", "-1s", "fast"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_and_backends_are_parsed_at_the_edge() {
        assert_eq!(label("rack=r07"), Ok(("rack".into(), "r07".into())));
        assert!(label("rack").is_err() && label("=x").is_err() && label("a b=c").is_err());
        assert_eq!(
            "replay=t.csv".parse(),
            Ok(BackendChoice::Replay("t.csv".into()))
        );
        assert!("replay".parse::<BackendChoice>().is_err());
        assert!("cuda".parse::<BackendChoice>().is_err());
    }
}
