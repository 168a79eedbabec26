//! One aggregator under fleets that a large site has: does it keep up, in what memory, and with how much of the machine.

use std::time::Duration;

use anyhow::Result;

use crate::ingest::{Run, asked_seconds};
use crate::process::raise_file_limit;
use crate::report::Section;

/// 20,000 and 100,000 GPUs.
const AGENTS: [u32; 2] = [2500, 12_500];
/// What is measured of each, unless `ENTRENAR_BENCH_SECONDS` says otherwise.
const MEASURED: Duration = Duration::from_mins(10);

/// Measures both.
pub fn run() -> Result<()> {
    raise_file_limit()?;
    let measured = asked_seconds()?.unwrap_or(MEASURED);
    let [a, b] = AGENTS.map(|agents| Run::of(agents, 1, measured));
    let mut section = Section::default();
    section.say(format!(
        "As `ingest`, one tick a message, for {} s each: a gRPC connection for every 8 GPUs, at 1 Hz. Goals: 20,000 GPUs in \
         0.35 of a core and 0.8 GiB, 100,000 in 1.2 cores and 4 GiB; rules behind by 2 s at most, and nothing missing. The \
         process that plays the agents takes about as much CPU as the aggregator.",
        measured.as_secs()
    ));
    let rows: Vec<[String; 3]> = (a?.rows().into_iter())
        .zip(b?.rows())
        .map(|((name, a), (_, b))| [name, a, b])
        .collect();
    section.table(["", "20,000 GPUs", "100,000 GPUs"], &rows);
    section.publish("scale")
}
