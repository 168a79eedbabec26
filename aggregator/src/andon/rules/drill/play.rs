//! A test is played: made-up agents report on a made-up clock to the real engine. *(pure)*

use std::collections::BTreeMap;
use std::time::Duration;

use entrenar::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use entrenar::metric::{self, NvmlStatus};
use entrenar::report::{GpuEvent, GpuEventKind, Holder, HolderChange, Inventory, Labels};
use entrenar::unit::Timestamp;

use super::series::{MOST_STEPS, Step};
use super::{Drill, Event, Gpu, What};
use crate::andon::{Change, Engine, Scope, Transition};

/// When every test begins.
const BEGIN: Timestamp = Timestamp::from_secs(1_700_000_000);

/// How often time is moved where samples are further apart.
const MOVE_EVERY: Duration = Duration::from_secs(1);

/// Most moves of time in a test; a longer one ends there.
const MOST_MOVES: u32 = 2_000_000;

/// A tick on its way.
struct Tick {
    node: NodeId,
    at: Timestamp,
    rows: Vec<Values>,
}

/// The GPUs of each node, by device.
type Nodes<'a> = BTreeMap<&'a str, Vec<&'a Gpu>>;

/// Plays a test; what the watched rules said.
pub(super) fn play(drill: &Drill) -> Vec<Event> {
    let mut nodes = Nodes::new();
    for gpu in &drill.input {
        nodes.entry(&gpu.node).or_default().push(gpu);
    }
    for gpus in nodes.values_mut() {
        gpus.sort_by_key(|gpu| gpu.device);
    }
    let mut stage = Stage {
        drill,
        engine: Engine::new(drill.book.clone(), &drill.cluster),
        late: BTreeMap::new(),
        said: Vec::new(),
    };
    stage.introduce(&nodes);
    let series = drill.input.iter().flat_map(|gpu| &gpu.series);
    let ticks = series.map(|(_, steps)| steps.len()).max().unwrap_or(0);
    let end = drill.interval * ticks.min(MOST_STEPS) as u32;
    let whole = drill.interval.subsec_millis() == 0;
    let step = if whole { MOVE_EVERY } else { drill.interval };
    let mut since = Duration::ZERO;
    for _ in 0..MOST_MOVES {
        if since >= end {
            break;
        }
        stage.act(since, step);
        if since.as_millis().is_multiple_of(drill.interval.as_millis()) {
            let n = (since.as_millis() / drill.interval.as_millis()) as usize;
            stage.tick(since, n, &nodes);
        }
        stage.deliver_late(since);
        stage.engine.advance(BEGIN + since);
        stage.listen();
        since += step;
    }
    stage.said
}

struct Stage<'a> {
    drill: &'a Drill,
    engine: Engine,
    /// By when they arrive.
    late: BTreeMap<Duration, Vec<Tick>>,
    said: Vec<Event>,
}

fn uuid(node: &str, device: u32) -> GpuUuid {
    format!("GPU-{node}-{device}").into()
}

impl Stage<'_> {
    fn introduce(&mut self, nodes: &Nodes<'_>) {
        let interval_ms = self.drill.interval.as_millis() as u32;
        for (name, gpus) in nodes {
            let id = NodeId::from(*name);
            let info = |gpu: &&Gpu| GpuInfo {
                uuid: uuid(name, gpu.device),
                index: gpu.device,
                name: gpu.model.clone(),
                ..GpuInfo::default()
            };
            let inventory = Inventory {
                generation: 1,
                gpus: gpus.iter().map(info).collect(),
            };
            let labels: Labels = gpus.iter().flat_map(|gpu| gpu.labels.clone()).collect();
            self.engine
                .hello(BEGIN, &id, &labels, &inventory, interval_ms);
            for gpu in gpus {
                let Some(job) = &gpu.job else { continue };
                let holder = Holder {
                    job: job.clone(),
                    kind: gpu.job_kind,
                    ..Holder::default()
                };
                let change = HolderChange {
                    at: BEGIN,
                    gpu: uuid(name, gpu.device),
                    holder: Some(holder),
                };
                self.engine.holder(BEGIN, &id, &change);
            }
        }
        self.listen();
    }

    /// What happens at this moment, before its samples.
    fn act(&mut self, since: Duration, step: Duration) {
        let due = |at: Duration| since <= at && at < since + step;
        for action in self.drill.steps.iter().filter(|action| due(action.at)) {
            match &action.what {
                What::Restart => {
                    let bytes = self.engine.snapshot();
                    // What was just written can be read.
                    if let Ok(engine) = Engine::restore(self.drill.book.clone(), &bytes) {
                        self.engine = engine;
                    }
                }
                What::Xid { node, device, code } => {
                    let event = GpuEvent {
                        at: BEGIN + action.at,
                        gpu: Some(uuid(node, *device)),
                        what: GpuEventKind::Xid(*code),
                    };
                    let id = NodeId::from(node.as_str());
                    self.engine.event(BEGIN + since, &id, &event);
                }
                What::Late { .. } | What::Duplicate { .. } => {}
            }
            self.listen();
        }
    }

    /// Every node's tick of this moment.
    fn tick(&mut self, since: Duration, n: usize, nodes: &Nodes<'_>) {
        let at = BEGIN + since;
        for (name, gpus) in nodes {
            let rows: Vec<Values> = gpus.iter().map(|gpu| row(gpu, n)).collect();
            if rows.iter().all(Values::is_empty) {
                continue;
            }
            let id = NodeId::from(*name);
            let now = self.drill.steps.iter().filter(|action| action.at == since);
            let (mut times, mut by) = (1, None);
            for action in now {
                match &action.what {
                    What::Late { node, by: late } if node == name => by = Some(*late),
                    What::Duplicate { node } if node == name => times = 2,
                    _ => {}
                }
            }
            if let Some(by) = by {
                let tick = Tick { node: id, at, rows };
                self.late.entry(since + by).or_default().push(tick);
                continue;
            }
            for _ in 0..times {
                self.engine.observe(at, &id, at, true, &rows);
                self.listen();
            }
        }
    }

    fn deliver_late(&mut self, since: Duration) {
        while let Some(entry) = self
            .late
            .first_entry()
            .filter(|entry| *entry.key() <= since)
        {
            for Tick { node, at, rows } in entry.remove() {
                self.engine.observe(BEGIN + since, &node, at, false, &rows);
                self.listen();
            }
        }
    }

    fn listen(&mut self) {
        for said in self.engine.drain() {
            let rule = said.rule.to_string();
            let is_watched = self.drill.watch.is_empty() || self.drill.watch.contains(&rule);
            let raised = match said.change {
                Change::Raised => true,
                Change::Cleared { .. } => false,
                _ => continue,
            };
            if is_watched {
                self.said.push(Event {
                    at: Duration::from_millis((said.at.0 - BEGIN.0).max(0) as u64),
                    raised,
                    rule,
                    on: place(&said),
                    severity: Some(said.severity),
                });
            }
        }
    }
}

/// One GPU's row of a tick; empty: nothing came.
fn row(gpu: &Gpu, n: usize) -> Values {
    let mut row = Values::default();
    for (metric, steps) in &gpu.series {
        match steps.get(n) {
            Some(Step::Value(value)) => {
                if let Some(value) = metric.from_display(*value) {
                    row = row.with(metric.id, value);
                }
            }
            // The call came back; it only had nothing to say of this metric.
            Some(Step::Stale) if row.get(metric::NVML_STATUS).is_none() => {
                row = row.with(metric::NVML_STATUS, NvmlStatus::Ok as i64);
            }
            Some(Step::Stale | Step::Missing) | None => {}
        }
    }
    row
}

/// `n01/0`, `n01`, `job 4711`, the name of a group, or `fleet`.
fn place(said: &Transition) -> String {
    match &said.scope {
        Scope::Fleet => "fleet".into(),
        Scope::Node { node } => node.to_string(),
        Scope::Gpu { gpu } => format!("{}/{}", gpu.node, gpu.device),
        Scope::Job { job, .. } => format!("job {job}"),
        Scope::Nodes { group, .. } => group.clone(),
    }
}
