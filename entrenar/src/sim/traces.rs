//! Sets of labelled traces: which scenarios share a trace, what it shows of them, and how it is written. *(edge)*
//!
//! A seed makes a whole set: every scenario of the catalogue at least once, at various intervals, on various boards,
//! with more or fewer columns, with and without job ids, with lost ticks and wrong clocks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::SimError;
use super::catalogue::{Case, Expect, catalogue};
use super::feed::{Feed, Voice};
use super::normal::normal_fleet;
use super::stage::{Dice, Header, Label, Model, Setting, Stage};
use crate::gpu::Values;
use crate::metric::{self, MetricId};
use crate::report::Holder;
use crate::trace::{TraceError, TraceWriter};
use crate::unit::Timestamp;

/// Which columns a trace has beside those that every NVML gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// GPM ratios.
    pub gpm: bool,
    /// NVLink counters.
    pub nvlink: bool,
    /// Evidence of processes on the host.
    pub processes: bool,
    /// The node's RDMA traffic.
    pub network: bool,
    /// Memory temperature and thermal margin.
    pub heat: bool,
    /// UUIDs.
    pub uuid: bool,
}

const GPM: &[MetricId] = &[
    metric::SM_ACTIVE,
    metric::TENSOR_ACTIVE,
    metric::DRAM_ACTIVE,
];
const NVLINK: &[MetricId] = &[metric::NVLINK_TX, metric::NVLINK_RX];
const PROCESSES: &[MetricId] = &[
    metric::PROCESSES,
    metric::PROCESS_STATE,
    metric::PROCESS_CPU,
    metric::PROCESS_READ,
    metric::PROCESS_WRITE,
];
const HEAT: &[MetricId] = &[metric::MEMORY_TEMPERATURE, metric::THERMAL_MARGIN];

impl Columns {
    /// All of them.
    pub const ALL: Self = Self {
        gpm: true,
        nvlink: true,
        processes: true,
        network: true,
        heat: true,
        uuid: true,
    };

    /// Takes out what the trace does not show.
    pub fn strip(self, values: &mut Values) {
        let groups = [
            (self.gpm, GPM),
            (self.nvlink, NVLINK),
            (self.processes, PROCESSES),
            (self.network, &[metric::NETWORK]),
            (self.heat, HEAT),
        ];
        for (_, metrics) in groups.iter().filter(|(is_there, _)| !is_there) {
            for &metric in *metrics {
                values.set(metric, None);
            }
        }
    }
}

/// A trace that is to be written.
#[derive(Clone, Debug)]
pub struct TracePlan {
    /// Its file name.
    pub name: String,
    /// Its fleet.
    pub setting: Setting,
    /// Its agents.
    pub voice: Voice,
    /// What it shows.
    pub columns: Columns,
    /// The scenarios in it; empty: a normal fleet.
    pub cases: Vec<&'static Case>,
    /// The least number of nodes.
    pub nodes: u32,
}

/// Why a trace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The scenarios do not fit together.
    #[error("cannot set the stage of {trace}")]
    Stage {
        /// Its name.
        trace: String,
        /// Why not.
        source: SimError,
    },
    /// The file cannot be written.
    #[error("cannot write {trace}")]
    Write {
        /// Its name.
        trace: String,
        /// Why not.
        source: TraceError,
    },
}

/// The traces that a seed makes.
pub fn plan_traces(seed: u64) -> Vec<TracePlan> {
    let mut planner = Planner {
        dice: Dice::new(seed ^ 0x7261_6365),
        plans: Vec::new(),
        seed,
    };
    planner.incidents();
    planner.look_alikes();
    planner.normal_day();
    planner.plans
}

struct Planner {
    dice: Dice,
    plans: Vec<TracePlan>,
    seed: u64,
}

type Cases = Vec<&'static Case>;

/// Incidents that share a trace.
const INCIDENTS_A_TRACE: usize = 4;
/// Look-alikes that share a trace of their own.
const LOOK_ALIKES_A_TRACE: usize = 8;

impl Planner {
    fn incidents(&mut self) {
        let look_alikes: Vec<_> = catalogue()
            .filter(|case| case.expect == Expect::Nothing && !case.takes_all)
            .collect();
        let mut cases: Vec<_> = catalogue()
            .filter(|case| case.expect != Expect::Nothing)
            .collect();
        self.dice.shuffle(&mut cases);
        let (whole, mut single): (Cases, Cases) = cases.into_iter().partition(|c| c.takes_all);
        // What needs long traces shares them.
        single.sort_by_key(|case| case.needs_s / 1_000);
        let groups = single.chunks(INCIDENTS_A_TRACE).map(<[_]>::to_vec);
        let groups: Vec<_> = groups
            .chain(whole.into_iter().map(|case| vec![case]))
            .collect();
        for mut group in groups {
            for _ in 0..self.dice.whole(1, 3) {
                let case = self.dice.pick(&look_alikes);
                group.insert(0, case);
            }
            let nodes = self.dice.whole(8, 16);
            self.add("incidents", group, nodes);
        }
    }

    fn look_alikes(&mut self) {
        let (mut whole, mut single): (Cases, Cases) = catalogue()
            .filter(|case| case.expect == Expect::Nothing)
            .partition(|case| case.takes_all);
        self.dice.shuffle(&mut single);
        self.dice.shuffle(&mut whole);
        let groups: Vec<_> = single
            .chunks(LOOK_ALIKES_A_TRACE)
            .map(<[_]>::to_vec)
            .collect();
        for mut group in groups {
            group.extend(whole.pop());
            let nodes = self.dice.whole(8, 16);
            self.add("lookalikes", group, nodes);
        }
    }

    fn normal_day(&mut self) {
        let nodes = self.dice.whole(24, 40);
        self.add("normal", Vec::new(), nodes);
        let plan = self.plans.last_mut().expect("one was added");
        plan.setting.lasts = Duration::from_hours(4);
        plan.setting.interval = Duration::from_secs(10);
        plan.setting.has_job_ids = true;
    }

    fn add(&mut self, what: &str, cases: Vec<&'static Case>, nodes: u32) {
        let dice = &mut self.dice;
        let number = self.plans.len() + 1;
        let needs = cases.iter().map(|case| case.needs_s).max().unwrap_or(0);
        let lasts = (f64::from(needs) * dice.between(1.0, 1.12)).max(2_400.0);
        let interval = if needs <= 2_700 {
            dice.pick(&[1, 1, 5, 5, 10])
        } else {
            dice.pick(&[5, 5, 10, 10])
        };
        let model = dice.pick(&[
            Model::H100,
            Model::H100,
            Model::H100,
            Model::H100,
            Model::A100,
            Model::A100,
            Model::H200,
            Model::B200,
        ]);
        let columns = match dice.whole(0, 9) {
            0 => Columns {
                gpm: false,
                processes: false,
                network: false,
                heat: false,
                ..Columns::ALL
            },
            1 => Columns {
                gpm: false,
                ..Columns::ALL
            },
            2 => Columns {
                nvlink: false,
                gpm: dice.chance(0.5),
                ..Columns::ALL
            },
            3 => Columns {
                processes: false,
                ..Columns::ALL
            },
            4 => Columns {
                network: false,
                uuid: false,
                ..Columns::ALL
            },
            _ => Columns::ALL,
        };
        let ending = dice.pick(&["csv.zst", "csv.zst", "csv.gz"]);
        let start_s = i64::from(dice.whole(1_704_000_000, 1_735_000_000));
        self.plans.push(TracePlan {
            name: format!("s{}-{number:02}-{what}.{ending}", self.seed),
            setting: Setting {
                seed: dice.word(),
                start: Timestamp::from_secs(start_s),
                lasts: Duration::from_secs((lasts / 10.0).round() as u64 * 10),
                interval: Duration::from_secs(interval),
                model,
                gpus_per_node: 8,
                has_job_ids: dice.chance(0.8),
                has_racks: dice.chance(0.25),
            },
            voice: Voice {
                loss: dice.pick(&[0.0, 0.0, 0.005, 0.01, 0.02]),
                skew: Duration::from_millis(dice.pick(&[0, 50, 80, 200])),
                slow_every: 1,
            },
            columns,
            cases,
            nodes,
        });
    }
}

impl TracePlan {
    /// The fleet, ready to report.
    pub fn feed(&self) -> Result<Feed, SimError> {
        let setting = self.setting.clone();
        let stage = if self.cases.is_empty() {
            normal_fleet(setting, self.nodes)
        } else {
            self.stage(setting)
        };
        Ok(Feed::new(stage.raise()?, self.voice))
    }

    fn stage(&self, setting: Setting) -> Stage {
        let mut stage = Stage::new(setting);
        let (whole, single): (Cases, Cases) = self.cases.iter().partition(|c| c.takes_all);
        for case in single {
            case.set(&mut stage);
        }
        // Others are there too, and some GPUs that nobody holds.
        while stage.n_nodes() < self.nodes {
            if stage.dice.chance(0.15) {
                stage.take(1);
            } else {
                let nodes = stage.dice.whole(1, 3);
                stage.training(nodes);
            }
        }
        for case in whole {
            case.set(&mut stage);
        }
        stage
    }

    /// Writes the trace into a folder. Returns what heads it in a file of labels, and its labels.
    pub fn write(&self, folder: &Path) -> Result<(Header, Vec<Label>), MakeError> {
        let stage = |source| MakeError::Stage {
            trace: self.name.clone(),
            source,
        };
        let write = |source| MakeError::Write {
            trace: self.name.clone(),
            source,
        };
        let feed = self.feed().map_err(stage)?;
        let labels = self.labels(&feed);
        let header = self.header(&feed);
        let mut writer = TraceWriter::create(&folder.join(&self.name)).map_err(write)?;
        self.write_rows(feed, &mut writer).map_err(write)?;
        writer.finish().map_err(write)?;
        Ok((header, labels))
    }

    fn write_rows(&self, feed: Feed, writer: &mut TraceWriter) -> Result<(), TraceError> {
        let nodes = feed.nodes().to_vec();
        let mut holders: Vec<Vec<Option<Arc<Holder>>>> = nodes
            .iter()
            .map(|node| vec![None; node.gpus.len()])
            .collect();
        for tick in feed {
            let mut written = Ok(());
            let node = &nodes[tick.node];
            tick.trace_rows(node, &mut holders[tick.node], |mut row| {
                self.columns.strip(&mut row.values);
                if !self.columns.uuid {
                    row.uuid = None;
                }
                if written.is_ok() {
                    written = writer.write(&row);
                }
            });
            written?;
        }
        Ok(())
    }

    /// What truly goes wrong in its feed, by the name of the trace.
    pub fn labels(&self, feed: &Feed) -> Vec<Label> {
        let stem = self.name.split('.').next().unwrap_or(&self.name);
        let named = (1..).zip(feed.labels()).map(|(n, label)| Label {
            trace: self.name.clone(),
            id: format!("{stem}/{n}"),
            ..label.clone()
        });
        named.collect()
    }

    /// What heads it in a file of labels.
    pub fn header(&self, feed: &Feed) -> Header {
        let gpus: usize = feed.nodes().iter().map(|node| node.gpus.len()).sum();
        let lasts_s = self.setting.lasts.as_secs_f64();
        let start = self.setting.start.0 as f64 / 1e3;
        Header {
            trace: self.name.clone(),
            version: 1,
            gpus: gpus as u32,
            gpu_days: gpus as f64 * lasts_s / 86_400.0,
            interval_s: self.setting.interval.as_secs_f64(),
            start,
            end: start + lasts_s,
        }
    }
}
