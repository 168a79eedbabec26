//! One process under one load, from before to after.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use entrenar::clock::instant;

use crate::generator::Generator;
use crate::load::Tally;
use crate::process::Usage;

/// How often resident memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a stretch of time showed.
pub struct Watched {
    before: (Usage, Tally),
    after: (Usage, Tally),
    took: Duration,
    mean_rss_bytes: f64,
    /// Samples that the process itself says it took in meanwhile.
    pub counted: f64,
}

/// Watches a process for a while. `counted`: its own count of samples.
pub fn watch(
    usage: impl Fn() -> Result<Usage>,
    counted: impl Fn() -> Result<f64>,
    load: &mut Generator,
    lasts: Duration,
) -> Result<Watched> {
    let (before, counted_before) = ((usage()?, load.tally()?), counted()?);
    let began = instant();
    let mut seen = Vec::new();
    while began.elapsed() < lasts {
        sleep(LOOK_EVERY);
        seen.push(usage()?.rss_bytes as f64);
    }
    let (after, counted_after) = ((usage()?, load.tally()?), counted()?);
    Ok(Watched {
        before,
        after,
        took: began.elapsed(),
        mean_rss_bytes: seen.iter().sum::<f64>() / seen.len().max(1) as f64,
        counted: counted_after - counted_before,
    })
}

impl Watched {
    /// Samples that were sent.
    pub fn samples(&self) -> f64 {
        (self.after.1.samples - self.before.1.samples) as f64
    }

    pub fn samples_a_second(&self) -> f64 {
        self.samples() / self.took.as_secs_f64()
    }

    pub fn messages_a_second(&self) -> f64 {
        (self.after.1.records - self.before.1.records) as f64 / self.took.as_secs_f64()
    }

    /// Microseconds a sample, in its own code and in the kernel.
    pub fn cpu_us(&self) -> f64 {
        let spent = self.after.0.cpu().saturating_sub(self.before.0.cpu());
        spent.as_secs_f64() * 1e6 / self.samples()
    }

    /// CPU seconds, user and system.
    pub fn cpu_s(&self) -> f64 {
        let spent = self.after.0.cpu().saturating_sub(self.before.0.cpu());
        spent.as_secs_f64()
    }

    pub fn wire_bytes(&self) -> f64 {
        (self.after.1.bytes - self.before.1.bytes) as f64 / self.samples()
    }

    pub fn written_bytes(&self) -> f64 {
        (self.after.0.written_bytes - self.before.0.written_bytes) as f64 / self.samples()
    }

    pub fn series(&self) -> f64 {
        self.after.1.series as f64
    }

    pub fn rss_mib(&self) -> f64 {
        self.mean_rss_bytes / 1024.0 / 1024.0
    }

    pub fn peak_rss_mib(&self) -> f64 {
        self.after.0.peak_rss_bytes as f64 / 1024.0 / 1024.0
    }

    pub fn rss_bytes_a_series(&self) -> f64 {
        self.mean_rss_bytes / self.series()
    }

    /// The most so far, as a multiple of what is usual.
    pub fn peak_ratio(&self) -> f64 {
        self.after.0.peak_rss_bytes as f64 / self.mean_rss_bytes
    }
}
