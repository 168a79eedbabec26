//! One aggregator under fleets that a large site has: does it keep up, in what memory, and with how much of the machine.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::ingest::{Run, asked_seconds};
use crate::process::raise_file_limit;
use crate::report::Section;

/// A fleet; each has a section of its own.
struct Size {
    /// As it is asked for: its GPUs.
    name: &'static str,
    section: &'static str,
    /// Each with 8 GPUs.
    agents: u32,
}

const SIZES: [Size; 2] = [
    Size {
        name: "20000",
        section: "scale-20000",
        agents: 2500,
    },
    Size {
        name: "100000",
        section: "scale-100000",
        agents: 12_500,
    },
];

/// What is measured of each, unless `ENTRENAR_BENCH_SECONDS` says otherwise.
const MEASURED: Duration = Duration::from_mins(10);

/// Measures both.
pub fn run_all() -> Result<()> {
    run(&[])
}

/// Measures fleets of so many GPUs; all where none is named.
pub fn run(names: &[&str]) -> Result<()> {
    let known = |name: &&&str| SIZES.iter().any(|size| size.name == **name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let known = SIZES.map(|size| size.name).join(" and ");
        bail!("there is no fleet of {unknown} GPUs: there are {known}");
    }
    raise_file_limit()?;
    let measured = asked_seconds()?.unwrap_or(MEASURED);
    let mut section = Section::default();
    section.say(
        "As `ingest`, one tick a message: a gRPC connection for every 8 GPUs, at 1 Hz. Goals: 20,000 GPUs in 0.35 of a core \
         and 0.8 GiB, 100,000 in 1.2 cores and 4 GiB; rules behind by 2 s at most, and nothing missing. The process that \
         plays the agents takes about as much CPU as the aggregator.",
    );
    section.publish("scale")?;
    for size in SIZES {
        if names.is_empty() || names.contains(&size.name) {
            println!("── scale: {} GPUs", size.name);
            measure(&size, measured)?;
        }
    }
    Ok(())
}

fn measure(size: &Size, measured: Duration) -> Result<()> {
    let mut section = Section::default();
    let run = Run::of(size.agents, 1, measured)?;
    section.say(format!("For {} s.", measured.as_secs()));
    let rows: Vec<[String; 2]> = (run.rows().into_iter())
        .map(|(name, value)| [name, value])
        .collect();
    section.table(["", &format!("{} GPUs", size.name)], &rows);
    section.publish(size.section)
}
