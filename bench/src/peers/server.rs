//! Prometheus and VictoriaMetrics as Debian ships them, at their defaults, each with its data in a directory of ours.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::exporter;
use super::labels::{JOB, node_name};
use crate::http;
use crate::process::Usage;

/// Where `cargo xtask bench peers` unpacks what is not installed, from the repository's root.
const UNPACKED: &str = "target/tools";

/// Path of the remote write receiver of both.
pub const RECEIVER: &str = "/api/v1/write";

/// How long a start may take.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Prometheus,
    Victoria,
}

/// Both, in the order of their columns.
pub const KINDS: [Kind; 2] = [Kind::Prometheus, Kind::Victoria];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prometheus => "Prometheus",
            Self::Victoria => "VictoriaMetrics",
        }
    }

    /// Its program, which has the name of its package.
    pub fn program(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Victoria => "victoria-metrics",
        }
    }

    fn is_ready(self) -> &'static str {
        match self {
            Self::Prometheus => "/-/ready",
            Self::Victoria => "/health",
        }
    }

    /// Its arguments, which are all but its defaults.
    fn args(self, dir: &str, address: &str) -> Vec<String> {
        match self {
            Self::Prometheus => vec![
                format!("--config.file={dir}/scrape.yml"),
                format!("--storage.tsdb.path={dir}/data"),
                format!("--web.listen-address={address}"),
                "--web.enable-remote-write-receiver".into(),
                "--web.enable-admin-api".into(),
            ],
            Self::Victoria => vec![
                format!("-promscrape.config={dir}/scrape.yml"),
                format!("-storageDataPath={dir}/data"),
                format!("-httpListenAddr={address}"),
            ],
        }
    }

    /// How it is started, for people.
    pub fn command_line(self) -> String {
        format!(
            "`{} {}`",
            self.program(),
            self.args("DIR", "127.0.0.1:PORT").join(" ")
        )
    }

    /// What Debian calls the version that is run.
    pub fn version(self) -> String {
        let package = self.program();
        self.installed_version()
            .or_else(|| unpacked_version(package))
            .unwrap_or_else(|| "of unknown version".into())
    }

    fn installed_version(self) -> Option<String> {
        on_path(self.program())?;
        let out = Command::new("dpkg-query")
            .args(["--show", "--showformat=${Version}", self.program()])
            .output()
            .ok()?;
        let version = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        (out.status.success() && !version.is_empty()).then_some(version)
    }

    /// Where its program is; fails with how to get it.
    pub fn find(self) -> Result<PathBuf> {
        let program = self.program();
        let unpacked = Path::new(UNPACKED).join("usr/bin").join(program);
        on_path(program)
            .or_else(|| unpacked.is_file().then_some(unpacked))
            .with_context(|| {
                format!("{program} is missing: `cargo xtask bench peers` gets the Debian package {program}")
            })
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// From the name of its archive, `PACKAGE_VERSION_MACHINE.deb`.
fn unpacked_version(package: &str) -> Option<String> {
    let archives = fs::read_dir(Path::new(UNPACKED).join("archives")).ok()?;
    let mut names = archives.flatten().map(|entry| entry.file_name());
    let version = |name: &str| {
        let rest = name.strip_prefix(package)?.strip_prefix('_')?;
        Some(rest.split('_').next()?.replace("%3a", ":"))
    };
    names.find_map(|name| version(&name.to_string_lossy()))
}

/// A peer that runs.
pub struct Peer {
    pub kind: Kind,
    child: Child,
    pub address: String,
    /// Its data.
    pub data: PathBuf,
}

impl Peer {
    /// Starts it, to scrape a fleet or none.
    pub fn start(kind: Kind, dir: &Path, scrape: Option<&Targets>) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let config = scrape.map_or("scrape_configs: []\n".into(), Targets::config);
        fs::write(dir.join("scrape.yml"), config)?;
        let address = free_address()?;
        let log = dir.join("log");
        let child = Command::new(kind.find()?)
            .args(kind.args(&dir.to_string_lossy(), &address))
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("could not start {}", kind.program()))?;
        let mut peer = Self {
            kind,
            child,
            address,
            data: dir.join("data"),
        };
        peer.await_ready(&log)?;
        Ok(peer)
    }

    fn await_ready(&mut self, log: &Path) -> Result<()> {
        let name = self.kind.name();
        let began = entrenar::clock::instant();
        while http::get(&self.address, self.kind.is_ready()).is_err() {
            let over = began.elapsed() > READY_WITHIN;
            if over || self.child.try_wait()?.is_some() {
                let said = fs::read_to_string(log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("nothing");
                bail!("{name} did not become ready; it said: {last}");
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    /// Samples that it says it has taken in, by scrape or by remote write, since its start. Those that a scrape adds
    /// about itself are among them.
    pub fn n_samples(&self) -> Result<f64> {
        let page = http::get(&self.address, "/metrics")?;
        Ok(match self.kind {
            Kind::Prometheus => {
                http::metric_sum(&page, "prometheus_tsdb_head_samples_appended_total")
            }
            Kind::Victoria => http::metric_sum(&page, "vm_rows_inserted_total"),
        })
    }

    /// Ends it in good order.
    pub fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("could not signal")?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exporters to scrape.
pub struct Targets {
    /// Where all of them are.
    pub address: String,
    pub nodes: u32,
    pub interval_s: u32,
}

impl Targets {
    fn config(&self) -> String {
        let Self {
            address,
            interval_s,
            ..
        } = self;
        let target = |node: u32| {
            let (path, name) = (exporter::path(node), node_name(node));
            format!(
                "  - targets: ['{address}']\n    labels: {{__metrics_path__: '{path}', instance: '{name}'}}\n"
            )
        };
        format!(
            "global: {{scrape_interval: {interval_s}s, scrape_timeout: {interval_s}s}}\n\
             scrape_configs:\n- job_name: {JOB}\n  static_configs:\n{}",
            (0..self.nodes).map(target).collect::<String>()
        )
    }
}

/// A port of loopback that was free a moment ago.
pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.to_string())
}
