//! The aggregator of the trials: tells a sink, and has a fleet to watch meanwhile.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use super::RECEIVERS;
use super::sink::Sink;
use crate::generator::Generator;
use crate::load::Plan;
use crate::process::{Server, aggregator};

/// Nodes that report meanwhile.
const BACKGROUND: u32 = 64;

const RULES: &str = "rules:
  gpu_lost: { ticks: 1 }
  causes: { group_within: 0s }
";

/// An aggregator, whom it tells, and what it watches beside the trials.
pub(super) struct Center {
    pub(super) sink: Sink,
    pub(super) dir: TempDir,
    server: Server,
    load: Generator,
}

impl Center {
    pub(super) fn start() -> Result<Self> {
        // Not in memory: a commit is to wait for a disk.
        let dir = tempfile::tempdir_in(".")?;
        let sink = Sink::start()?;
        let rules = dir.path().join("rules.yaml");
        fs::write(&rules, RULES)?;
        let receivers = dir.path().join("receivers.yaml");
        fs::write(&receivers, self::receivers(&sink))?;
        let mut command = aggregator(data_dir(dir.path()))?;
        command.arg("--rules").arg(rules);
        command.arg("--receivers").arg(receivers);
        let server = Server::start(command)?;
        let load = Generator::start(&Plan {
            grpc: server.address("grpc")?.to_owned(),
            agents: BACKGROUND,
            interval_ms: 1000,
            batch_ticks: 1,
            nodes: BACKGROUND,
            ticks: 120,
        })?;
        Ok(Self {
            sink,
            dir,
            server,
            load,
        })
    }

    /// Where agents report.
    pub(super) fn grpc(&self) -> Result<String> {
        Ok(format!("http://{}", self.server.address("grpc")?))
    }

    /// Ends all of it; says how many nodes it watched beside the trials.
    pub(super) fn stop(self) -> Result<u32> {
        self.load.stop()?;
        self.server.stop()?;
        Ok(BACKGROUND)
    }
}

fn data_dir(dir: &Path) -> std::path::PathBuf {
    dir.join("data")
}

/// A receiver for each of a few names of nodes, all of them the same sink.
fn receivers(sink: &Sink) -> String {
    let mut file = String::from("receivers:\n");
    for n in 0..RECEIVERS {
        let url = sink.url(n);
        let _ = writeln!(
            file,
            "  - {{ name: sink-{n}, kind: webhook, url: \"{url}\", nodes: [\"{}*\"] }}",
            prefix(n)
        );
    }
    file
}

/// How names of nodes begin that a receiver is told of.
pub(super) fn prefix(receiver: usize) -> String {
    format!("trial-{receiver}-")
}
