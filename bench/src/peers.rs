//! The same fleet through us, through Prometheus and through VictoriaMetrics, on one machine in one run.
//!
//! Each system runs alone with what loads it. What a number is compared with was measured in the same run; a goal that is
//! missed says so.

pub mod api;
pub mod ask;
pub mod disk;
pub mod exporter;
pub mod files;
pub mod fleet;
pub mod goal;
pub mod history;
pub mod ingest;
pub mod labels;
pub mod options;
pub mod orders;
pub mod push;
pub mod query;
pub mod remote_write;
pub mod server;
pub mod watch;

use anyhow::{Context, Result};

use self::options::Part;
pub use self::orders::{Load, SUBCOMMAND, run as run_load};
use self::server::KINDS;
use crate::process::raise_file_limit;
use crate::report::Section;

/// Runs everything.
pub fn run_all() -> Result<()> {
    run(&[])
}

/// Runs the named parts, or all.
pub fn run(words: &[&str]) -> Result<()> {
    let parts = options::parse(words)?;
    // Before minutes are spent on our own half.
    for kind in KINDS {
        kind.find()?;
    }
    raise_file_limit()?;
    std::fs::create_dir_all("target")?;
    for part in parts {
        println!("── peers: {part:?}");
        match part {
            Part::Ingest => ingest::run().context("ingest")?,
            Part::Disk => disk::run().context("disk")?,
            Part::Query => query::run().context("query")?,
        }
    }
    introduction().publish("peers")
}

/// What is the same in all parts.
fn introduction() -> Section {
    let mut section = Section::default();
    let versions: Vec<_> = KINDS
        .iter()
        .map(|kind| format!("{} {} (Debian)", kind.name(), kind.version()))
        .collect();
    section.say(format!(
        "The same simulated fleet through us, {}: {} metrics a GPU, all at each tick, as dcgm-exporter names its default \
         counters and profiling fields, and the ten labels that it gives them on Kubernetes. Where goals are set they \
         stand beside what was reached; no ratio is to a number of another run. The peers are as old as Debian is, at \
         their defaults: {}.",
        versions.join(" and "),
        fleet::METRICS.len(),
        KINDS.map(server::Kind::command_line).join("; "),
    ));
    section
}
