//! What a question costs a server: asked again and again for a while, a connection each.

use std::time::Duration;

use anyhow::Result;
use entrenar::clock::instant;

use crate::http;
use crate::measure::quantile;
use crate::process::Usage;

/// How long a question is asked again and again, at least, and how often.
const ASKED_FOR: Duration = Duration::from_secs(4);
const ASKED_TIMES: usize = 10;
/// How long a server is watched without a question.
const QUIET: Duration = Duration::from_secs(8);

/// A server that is asked.
pub struct Asked<'a> {
    pub address: &'a str,
    pub usage: &'a dyn Fn() -> Result<Usage>,
    /// CPU seconds a second without a question.
    quiet: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub cpu_ms: f64,
    /// Median.
    pub wall_ms: f64,
    pub answer_bytes: usize,
    pub times: usize,
}

impl<'a> Asked<'a> {
    /// Learns first what the server does without a question.
    pub fn new(address: &'a str, usage: &'a dyn Fn() -> Result<Usage>) -> Result<Self> {
        let (began, before) = (instant(), usage()?.cpu());
        std::thread::sleep(QUIET);
        let spent = usage()?.cpu().saturating_sub(before);
        Ok(Self {
            address,
            usage,
            quiet: spent.as_secs_f64() / began.elapsed().as_secs_f64(),
        })
    }

    /// Asks one question.
    pub fn ask(&self, path: &str) -> Result<Cost> {
        let once = || Ok::<_, anyhow::Error>(http::get(self.address, path)?.len());
        // The first time finds nothing in any cache.
        let answer_bytes = once()?;
        let (began, before) = (instant(), (self.usage)()?.cpu());
        let mut took = Vec::new();
        while began.elapsed() < ASKED_FOR || took.len() < ASKED_TIMES {
            let asked = instant();
            once()?;
            took.push(asked.elapsed());
        }
        let spent = (self.usage)()?.cpu().saturating_sub(before).as_secs_f64();
        let own = spent - self.quiet * began.elapsed().as_secs_f64();
        Ok(Cost {
            cpu_ms: own.max(0.0) * 1e3 / took.len() as f64,
            wall_ms: quantile(&took, 0.5).unwrap_or_default().as_secs_f64() * 1e3,
            answer_bytes,
            times: took.len(),
        })
    }
}
