//! The fleets that peers are given run as processes of their own, like [`crate::load`], and take the same orders.

use std::io::BufRead as _;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::exporter::{self, ExporterPlan};
use super::push::{self, PushPlan};
use crate::load::{self, Backlog, Tally};

/// The argument that makes a bench such a fleet.
pub const SUBCOMMAND: &str = "peers-load";

/// What to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Load {
    /// Our agents, with what they have in their spools.
    Agents(load::Plan, Backlog),
    /// Exporters that are scraped.
    Exporters(ExporterPlan),
    /// What sends by remote write.
    Push(PushPlan),
}

/// Lives as it until it is told to stop.
pub fn run(load: Load) -> Result<()> {
    match load {
        Load::Agents(plan, backlog) => {
            let interval = Duration::from_millis(plan.interval_ms.into());
            let nodes = super::fleet::simulate(plan.nodes, plan.ticks, interval)?;
            load::play(&plan, nodes, backlog)
        }
        Load::Exporters(plan) => exporter::run(&plan),
        Load::Push(plan) => push::run(plan),
    }
}

/// Says that it reports, answers how far it is, and returns when it is told to stop, with its last word said.
pub(super) fn obey(tally: impl Fn() -> Tally) -> Result<()> {
    load::answer("connected")?;
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "tally" => load::answer(&serde_json::to_string(&tally())?)?,
            _ => break,
        }
    }
    load::answer(&serde_json::to_string(&tally())?)
}

/// Which simulated node a node plays, and the how manieth it is to do so.
pub(super) fn reel_of(number: u32, reels: usize) -> (usize, usize) {
    (number as usize % reels, number as usize / reels)
}

/// Ticks that a copy is ahead of the first, so that no two say the same at one time.
pub(super) fn ahead(copy: usize) -> usize {
    copy * 37
}
