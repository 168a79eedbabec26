//! The load: what a simulated fleet reports, in the sampler's rhythm.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use entrenar::backend::Depth;
use entrenar::gpu::{GpuInfo, Values};
use entrenar::report::{Batch, Body, Holder, Record, Tick};
use entrenar::sim::{Scenario, SimFleet, SimNode};
use entrenar::unit::Timestamp;

/// GPUs of a node.
pub const GPUS: usize = 8;

/// Slow metrics are read about this often.
const SLOW_EVERY: Duration = Duration::from_secs(10);

/// A node, and what it reports tick by tick.
pub struct NodeTicks {
    pub gpus: Vec<GpuInfo>,
    /// Who holds each GPU at the first tick.
    pub holders: Vec<Option<Holder>>,
    /// A row per GPU for each tick.
    pub ticks: Vec<Vec<Values>>,
}

impl NodeTicks {
    /// Values that are there, in all ticks.
    pub fn n_samples(&self) -> usize {
        n_samples(&self.ticks)
    }

    /// Series of the node: metrics that a GPU ever reported, over all GPUs.
    pub fn n_series(&self) -> usize {
        let of_gpu = |gpu: usize| {
            let rows = self.ticks.iter().map(|tick| &tick[gpu]);
            let ids: BTreeSet<u16> = rows.flat_map(Values::iter).map(|(id, _)| id.0).collect();
            ids.len()
        };
        (0..self.gpus.len()).map(of_gpu).sum()
    }

    /// One GPU through all ticks.
    pub fn of_gpu(
        &self,
        gpu: usize,
        start: Timestamp,
        interval: Duration,
    ) -> Vec<(Timestamp, Values)> {
        let at = |tick: usize| start + interval * tick as u32;
        let ticks = self.ticks.iter().enumerate();
        ticks.map(|(n, rows)| (at(n), rows[gpu].clone())).collect()
    }
}

/// Values that are there.
pub fn n_samples(ticks: &[Vec<Values>]) -> usize {
    ticks.iter().flatten().map(|row| row.iter().count()).sum()
}

/// A steady fleet with the usual mix of jobs, for some ticks.
pub fn simulate(nodes: u32, ticks: u32, interval: Duration) -> Result<Vec<NodeTicks>> {
    let config = Scenario::Steady.config(nodes, GPUS as u32);
    let mut fleet = SimFleet::new(&config)?;
    let start = fleet.start();
    let nodes = fleet.nodes_mut().iter_mut();
    Ok(nodes
        .map(|node| watch(node, start, ticks, interval))
        .collect())
}

fn watch(node: &mut SimNode, start: Timestamp, ticks: u32, interval: Duration) -> NodeTicks {
    let slow_every = (SLOW_EVERY.as_millis() / interval.as_millis().max(1)).max(1) as u32;
    let holders = (0..GPUS as u32)
        .map(|gpu| node.holder(gpu).cloned())
        .collect();
    let mut tick = |n: u32| {
        node.advance_to(start + interval * n);
        let depth = if n.is_multiple_of(slow_every) {
            Depth::Full
        } else {
            Depth::Fast
        };
        let row = |gpu| node.values(gpu, depth).unwrap_or_default();
        (0..GPUS as u32).map(row).collect()
    };
    let ticks = (0..ticks).map(&mut tick).collect();
    NodeTicks {
        gpus: node.gpus().to_vec(),
        holders,
        ticks,
    }
}

/// Ticks as the record that carries them; the first is at `at`.
pub fn record(seq: u64, at: Timestamp, interval: Duration, ticks: &[Vec<Values>]) -> Record {
    let tick = |n: usize| {
        let after = interval * n as u32;
        Tick {
            at: at + after,
            monotonic_ms: 86_400_000 + seq * 1000 + after.as_millis() as u64,
        }
    };
    Record {
        seq,
        body: Body::Batch(Batch {
            generation: 1,
            gpus: GPUS as u32,
            n_lost: 0,
            ticks: (0..ticks.len()).map(tick).collect(),
            rows: ticks.concat(),
        }),
    }
}
