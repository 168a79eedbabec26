//! The fleet as remote write brings it: live, tick by tick, or a stretch of the past as fast as it is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use entrenar::clock;
use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::fleet::{METRICS, Shared, simulate};
use super::remote_write::{PackedLabels, Receiver};
use super::{labels, orders};
use crate::fleet::NodeTicks;
use crate::load::Tally;

/// Samples of a request at most: Prometheus, as a sender, has 500.
pub const REQUEST_SAMPLES: usize = 480;

/// What is sent, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PushPlan {
    /// The receiver, `127.0.0.1:PORT`, and the path of its remote write.
    pub host: String,
    pub path: String,
    pub agents: u32,
    pub interval_ms: u32,
    /// Different nodes that are simulated, and ticks of each.
    pub nodes: u32,
    pub ticks: u32,
    pub what: What,
}

/// Which ticks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// Each as it comes, until it is told to stop.
    Live,
    /// So many up to an instant, oldest first, at once.
    Past(Past),
}

/// A stretch of the past.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Past {
    /// The last tick, in ms since the Unix epoch.
    pub end_ms: i64,
    pub ticks: u32,
    /// Metrics of all nodes but the first, by id; `None`: all that are compared. The first has all.
    pub only: Option<Vec<u16>>,
    /// Nodes beyond the first join for the last so many ticks.
    pub others_ticks: u32,
}

impl Past {
    /// All nodes in all metrics.
    pub fn whole(end_ms: i64, ticks: u32) -> Self {
        Self {
            end_ms,
            ticks,
            only: None,
            others_ticks: ticks,
        }
    }
}

#[derive(Default)]
struct Counters {
    series: AtomicU64,
    requests: AtomicU64,
    samples: AtomicU64,
    bytes: AtomicU64,
    /// Ticks that were sent later than their time.
    late: AtomicU64,
    /// Ticks of the past that are still to be sent; 0 when everything is taken.
    owed: AtomicU64,
    stop: AtomicBool,
}

impl Counters {
    fn tally(&self) -> Tally {
        Tally {
            series: self.series.load(Relaxed),
            records: self.requests.load(Relaxed),
            samples: self.samples.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            held_back: self.late.load(Relaxed),
            owed: self.owed.load(Relaxed),
            ..Tally::default()
        }
    }
}

/// Sends until everything is sent, or it is told to stop.
pub fn run(plan: PushPlan) -> Result<()> {
    let counters = Arc::new(Counters::default());
    let mut sender = Sender::new(&plan, Arc::clone(&counters))?;
    if let What::Past(past) = &plan.what {
        // One more than ticks: the last request is owed as well.
        counters.owed.store(u64::from(past.ticks) + 1, Relaxed);
    }
    let sending = std::thread::spawn(move || match &plan.what {
        What::Live => sender.live(plan.interval_ms),
        What::Past(past) => sender.past(past, plan.interval_ms),
    });
    // What is refused must not look as if it were only slow.
    let watched = Arc::clone(&counters);
    let watch = std::thread::spawn(move || {
        if let Err(error) = sending.join().unwrap_or_else(|_| Ok(())) {
            eprintln!("remote write ended: {error:#}");
            std::process::exit(1);
        }
        watched.stop.load(Relaxed)
    });
    orders::obey(|| counters.tally())?;
    counters.stop.store(true, Relaxed);
    // It has ended, or ends with this tick.
    let _ = watch.join();
    Ok(())
}

/// A series that a GPU has.
struct Series {
    metric: &'static Shared,
    labels: PackedLabels,
}

struct Node {
    reel: usize,
    ahead: usize,
    gpus: Vec<Vec<Series>>,
}

struct Sender {
    reels: Vec<NodeTicks>,
    nodes: Vec<Node>,
    receiver: Receiver,
    counters: Arc<Counters>,
    request: Vec<u8>,
    n_samples: usize,
}

impl Sender {
    fn new(plan: &PushPlan, counters: Arc<Counters>) -> Result<Self> {
        let interval = Duration::from_millis(plan.interval_ms.into());
        let reels = simulate(plan.nodes, plan.ticks, interval)?;
        let only = match &plan.what {
            What::Past(past) => past.only.as_deref(),
            What::Live => None,
        };
        let nodes: Vec<Node> = (0..plan.agents)
            .map(|number| Node::new(number, &reels, only.filter(|_| number > 0)))
            .collect();
        let n_series = nodes.iter().flat_map(|node| &node.gpus).map(Vec::len);
        counters
            .series
            .store(n_series.sum::<usize>() as u64, Relaxed);
        Ok(Self {
            receiver: Receiver::connect(&plan.host, &plan.path)?,
            reels,
            nodes,
            counters,
            request: Vec::new(),
            n_samples: 0,
        })
    }

    fn live(&mut self, interval_ms: u32) -> Result<()> {
        let interval_ms = i64::from(interval_ms);
        let mut at = Timestamp(clock::now().0 / interval_ms * interval_ms);
        while !self.counters.stop.load(Relaxed) {
            at = Timestamp(at.0 + interval_ms);
            let ahead = at.since(clock::now());
            if ahead.is_zero() {
                self.counters.late.fetch_add(1, Relaxed);
            }
            sleep(ahead);
            let tick = (at.0 / interval_ms) as usize;
            self.tick(at, tick, usize::MAX)?;
            self.flush()?;
        }
        Ok(())
    }

    fn past(&mut self, past: &Past, interval_ms: u32) -> Result<()> {
        let interval_ms = i64::from(interval_ms);
        for tick in 0..past.ticks {
            let before_end = i64::from(past.ticks - 1 - tick);
            let joined = past.ticks - tick <= past.others_ticks;
            let at = Timestamp(past.end_ms - before_end * interval_ms);
            self.tick(at, tick as usize, if joined { usize::MAX } else { 1 })?;
            self.counters.owed.fetch_sub(1, Relaxed);
        }
        self.flush()?;
        self.counters.owed.fetch_sub(1, Relaxed);
        Ok(())
    }

    /// One tick of the first so many nodes.
    fn tick(&mut self, at: Timestamp, tick: usize, nodes: usize) -> Result<()> {
        for node in 0..self.nodes.len().min(nodes) {
            let Node { reel, ahead, .. } = self.nodes[node];
            let place = (tick + ahead) % self.reels[reel].ticks.len();
            for gpu in 0..self.nodes[node].gpus.len() {
                let values = &self.reels[reel].ticks[place][gpu];
                for series in &self.nodes[node].gpus[gpu] {
                    let Some(raw) = values.get(series.metric.id) else {
                        continue;
                    };
                    let value = series.metric.value(raw);
                    series.labels.append(at, value, &mut self.request);
                    self.n_samples += 1;
                }
                if self.n_samples + METRICS.len() > REQUEST_SAMPLES {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.n_samples == 0 {
            return Ok(());
        }
        let bytes = self.receiver.send(&self.request)?;
        self.counters.requests.fetch_add(1, Relaxed);
        self.counters.bytes.fetch_add(bytes, Relaxed);
        self.counters
            .samples
            .fetch_add(self.n_samples as u64, Relaxed);
        self.request.clear();
        self.n_samples = 0;
        Ok(())
    }
}

impl Node {
    fn new(number: u32, reels: &[NodeTicks], only: Option<&[u16]>) -> Self {
        let (reel, copy) = orders::reel_of(number, reels.len());
        let wanted = |id: MetricId| only.is_none_or(|only| only.contains(&id.0));
        let gpus = reels[reel].gpus.iter().zip(&reels[reel].holders);
        let gpus = gpus.map(|(gpu, holder)| {
            let of_gpu = labels::of_gpu(number, copy, gpu, holder.as_ref());
            let metrics = METRICS.iter().filter(|metric| wanted(metric.id));
            let series = metrics.map(|metric| Series {
                metric,
                labels: PackedLabels::new(&labels::of_series(metric, number, &of_gpu)),
            });
            series.collect()
        });
        Self {
            reel,
            ahead: orders::ahead(copy),
            gpus: gpus.collect(),
        }
    }
}
