//! Sweeps → records: which batch a tick belongs to, what goes before it, and what is lost. Pure.

use std::sync::Arc;

use entrenar::gpu::Values;
use entrenar::metric::{NVML_STATUS, NvmlStatus};
use entrenar::report::{Batch, Body, HolderChange, Inventory, Tick};
use entrenar_proto::convert::{MAX_ROWS, MAX_TICKS};

use crate::probe::Sweep;

/// The batch that is being filled, and what must be told around it.
#[derive(Debug)]
pub struct Batcher {
    batch_ticks: usize,
    /// The inventory that was told last; `None` before the first tick.
    inventory: Option<Arc<Inventory>>,
    n_lost: u64,
    ticks: Vec<Tick>,
    rows: Vec<Values>,
}

impl Batcher {
    /// For messages of this many ticks, at least 1.
    pub fn new(batch_ticks: u32) -> Self {
        Self {
            batch_ticks: batch_ticks as usize,
            inventory: None,
            n_lost: 0,
            ticks: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Ticks that were due and are lost: the next batch says so.
    pub fn lost(&mut self, n_ticks: u64) {
        self.n_lost += n_ticks;
    }

    /// A batch that found no place is lost with all that it would have said.
    pub fn refused(&mut self, body: &Body) {
        match body {
            Body::Batch(batch) => self.lost(batch.n_lost + batch.ticks.len() as u64),
            // It is told again with the next tick.
            Body::Inventory(_) => self.inventory = None,
            Body::Event(_) | Body::Holder(_) => {}
        }
    }

    /// Takes in a tick. Answers with the records that are ready, in their order: a batch speaks of one inventory, and
    /// an inventory goes before the batches that speak of it.
    pub fn take(&mut self, tick: Tick, sweep: Sweep) -> Vec<Body> {
        let mut ready = Vec::new();
        let known = self
            .inventory
            .as_ref()
            .map(|inventory| inventory.generation);
        if known != Some(sweep.inventory.generation) {
            ready.extend(self.close());
            ready.push(Body::Inventory((*sweep.inventory).clone()));
        }
        if known.is_none() {
            ready.extend(held_by_nobody(&sweep, tick).map(Body::Holder));
        }
        self.inventory = Some(sweep.inventory);
        ready.extend(sweep.holder_changes.into_iter().map(Body::Holder));
        self.ticks.push(tick);
        self.rows.extend(sweep.rows);
        if self.ticks.len() >= self.most_ticks() {
            ready.extend(self.close());
        }
        ready
    }

    /// Ends the batch; `None` when there is nothing in it.
    pub fn close(&mut self) -> Option<Body> {
        let inventory = self.inventory.as_ref().filter(|_| !self.ticks.is_empty())?;
        Some(Body::Batch(Batch {
            generation: inventory.generation,
            gpus: inventory.gpus.len() as u32,
            n_lost: std::mem::take(&mut self.n_lost),
            ticks: std::mem::take(&mut self.ticks),
            rows: std::mem::take(&mut self.rows),
        }))
    }

    fn most_ticks(&self) -> usize {
        let gpus = self
            .inventory
            .as_ref()
            .map_or(0, |inventory| inventory.gpus.len());
        let most = MAX_ROWS / gpus.max(1);
        self.batch_ticks.min(most).clamp(1, MAX_TICKS)
    }
}

/// GPUs that nobody holds at the first look of this process: while it was away they may have been given back.
fn held_by_nobody(sweep: &Sweep, tick: Tick) -> impl Iterator<Item = HolderChange> + '_ {
    let answered = |row: &Values| row.get(NVML_STATUS) == Some(NvmlStatus::Ok as i64);
    let taken = |gpu| sweep.holder_changes.iter().any(|change| change.gpu == gpu);
    let gpus = sweep.inventory.gpus.iter().zip(&sweep.rows);
    gpus.filter(move |(gpu, row)| answered(row) && !taken(gpu.uuid.clone()))
        .map(move |(gpu, _)| HolderChange {
            at: tick.at,
            gpu: gpu.uuid.clone(),
            holder: None,
        })
}

#[cfg(test)]
mod tests {
    use entrenar::gpu::GpuInfo;
    use entrenar::report::Holder;
    use entrenar::unit::Timestamp;

    use super::*;

    fn sweep(generation: u32, gpus: usize) -> Sweep {
        let gpu = |index| GpuInfo {
            uuid: format!("G{index}").into(),
            ..GpuInfo::default()
        };
        let row = Values::default().with(NVML_STATUS, NvmlStatus::Ok as i64);
        Sweep {
            inventory: Arc::new(Inventory {
                generation,
                gpus: (0..gpus).map(gpu).collect(),
            }),
            rows: vec![row; gpus],
            holder_changes: Vec::new(),
        }
    }

    fn told(body: &Body) -> String {
        match body {
            Body::Inventory(inventory) => format!("I{}", inventory.generation),
            Body::Batch(batch) if batch.n_lost > 0 => {
                format!("B{}-{}", batch.ticks.len(), batch.n_lost)
            }
            Body::Batch(batch) => format!("B{}", batch.ticks.len()),
            Body::Holder(change) => match &change.holder {
                Some(holder) => format!("{}={}", change.gpu, holder.job),
                None => format!("{}=", change.gpu),
            },
            Body::Event(event) => format!("{event:?}"),
        }
    }

    /// Ticks of a node with two GPUs: `1` a tick under inventory 1, `1a` with GPU 0 taken by job a, `-3` three ticks
    /// lost, `!` the last record found no place. What comes out: inventories, batches by length (`-` and what is
    /// lost), holders; the batch that is open at the end behind a bar.
    fn check(batch_ticks: u32, ticks: &str, expected: &str) {
        let mut batcher = Batcher::new(batch_ticks);
        let mut all: Vec<Body> = Vec::new();
        for (second, word) in ticks.split_whitespace().enumerate() {
            if let Some(lost) = word.strip_prefix('-') {
                batcher.lost(lost.parse().unwrap());
            } else if word == "!" {
                batcher.refused(&all.pop().unwrap());
            } else {
                let (generation, job) = word.split_at(1);
                let mut sweep = sweep(generation.parse().unwrap(), 2);
                let tick = Tick {
                    at: Timestamp::from_secs(second as i64),
                    monotonic_ms: 0,
                };
                if !job.is_empty() {
                    sweep.holder_changes.push(HolderChange {
                        at: tick.at,
                        gpu: "G0".into(),
                        holder: Some(Holder {
                            job: job.to_owned(),
                            ..Holder::default()
                        }),
                    });
                }
                all.extend(batcher.take(tick, sweep));
            }
        }
        let mut words: Vec<String> = all.iter().map(told).collect();
        if let Some(open) = batcher.close() {
            words.extend(["|".to_owned(), told(&open)]);
        }
        assert_eq!(words.join(" "), expected, "{ticks}");
    }

    #[test]
    fn one_tick_is_one_batch_and_its_inventory_goes_before_it() {
        check(1, "1 1", "I1 G0= G1= B1 B1");
        check(1, "1 2", "I1 G0= G1= B1 I2 B1");
    }

    #[test]
    fn a_batch_speaks_of_one_inventory() {
        check(3, "1 1 1 1", "I1 G0= G1= B3 | B1");
        check(3, "1 1 2 2 2", "I1 G0= G1= B2 I2 B3");
    }

    #[test]
    fn a_gpu_that_nobody_holds_at_the_first_look_is_said_to_be_free() {
        check(1, "1a 1b", "I1 G1= G0=a B1 G0=b B1");
    }

    #[test]
    fn what_is_lost_travels_with_the_next_batch() {
        check(1, "1 -3 1 1", "I1 G0= G1= B1 B1-3 B1");
        check(1, "1 -2 1 ! 1", "I1 G0= G1= B1 B1-3");
        check(2, "1 -2 1 ! 1", "I1 G0= G1= | B1-4");
    }

    #[test]
    fn a_batch_never_passes_what_the_wire_takes() {
        let mut batcher = Batcher::new(u32::MAX);
        let tick = Tick {
            at: Timestamp(0),
            monotonic_ms: 0,
        };
        let longest = (0..2 * MAX_TICKS)
            .flat_map(|_| batcher.take(tick, sweep(1, 64)))
            .filter_map(|body| match body {
                Body::Batch(batch) => Some(batch.rows.len()),
                _ => None,
            })
            .max();
        assert_eq!(longest, Some(MAX_ROWS));
    }
}
