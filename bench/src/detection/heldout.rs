//! Sets of labelled traces that nobody has looked at: straight from the simulator, as they are, or with trouble on the
//! way to us.

use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::sim::{Feed, NodeTick, TracePlan, plan_traces};
use entrenar::unit::Timestamp;

use super::baselines::Baselines;
use super::cores;
use super::finding::Finding;
use super::tally::{Tally, Trial};
use super::truth::Truth;
use super::watch::Watch;

/// Seeds of the report.
pub const SEEDS: std::ops::RangeInclusive<u64> = 11..=15;
/// How long a restart takes: what agents say meanwhile comes at its end.
const RESTART_MS: i64 = 20_000;

/// What happens on the way to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    AsItIs,
    /// One tick in twenty never arrives.
    Loss,
    /// Each agent's clock is off by up to 200 ms.
    Skew,
    /// Half-way the aggregator ends, and is back after 20 s with its snapshot.
    Restart,
}

/// Everything that these seeds make, judged.
pub fn run(seeds: impl Iterator<Item = u64>, way: Way) -> Result<Tally> {
    let plans: Vec<TracePlan> = seeds.flat_map(plan_traces).collect();
    let trials = cores::each(plans, |plan| {
        trial(&plan, way).with_context(|| format!("trace {}", plan.name))
    })?;
    Ok(Tally::of(trials))
}

fn trial(plan: &TracePlan, way: Way) -> Result<Trial> {
    let mut plan = plan.clone();
    match way {
        Way::Loss => plan.voice.loss = 0.05,
        Way::Skew => plan.voice.skew = Duration::from_millis(200),
        Way::AsItIs | Way::Restart => {}
    }
    let feed = plan.feed()?;
    let header = plan.header(&feed);
    let truths: Result<Vec<_>> = plan.labels(&feed).iter().map(Truth::of).collect();
    let (ours, baselines) = hear(&plan, feed, way)?;
    Ok(Trial {
        name: plan.name.clone(),
        gpu_days: header.gpu_days,
        interval_s: plan.setting.interval.as_secs(),
        truths: truths?,
        ours,
        baselines,
    })
}

type Said = (Vec<Finding>, [Vec<Finding>; 5]);

fn hear(plan: &TracePlan, feed: Feed, way: Way) -> Result<Said> {
    let nodes = feed.nodes().to_vec();
    let gpus_per_node = plan.setting.gpus_per_node as usize;
    let mut watch = Watch::new(&nodes, plan.setting.interval.as_millis() as u32);
    let mut beside = Baselines::of(&nodes);
    let half_ms = plan.setting.lasts.as_millis() as i64 / 2;
    let ends = Timestamp(plan.setting.start.0 + half_ms);
    let back = Timestamp(ends.0 + RESTART_MS);
    let mut restarts = way == Way::Restart;
    for mut tick in feed {
        strip(plan, &mut tick);
        if restarts && ends <= tick.arrives {
            restarts = false;
            watch.restart(back)?;
        }
        if way == Way::Restart && (ends..back).contains(&tick.arrives) {
            tick.arrives = back;
        }
        watch.take(&tick);
        beside.take(&tick, gpus_per_node);
    }
    let ours = watch.finish().into_iter().map(Finding::from).collect();
    Ok((ours, beside.finish()))
}

/// A trace does not show everything.
fn strip(plan: &TracePlan, tick: &mut NodeTick) {
    for row in &mut tick.rows {
        plan.columns.strip(row);
    }
}
