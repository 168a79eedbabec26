//! A stage for stories: a small fleet whose agents say what a test wants, an engine that listens, and what it said as
//! one line.

use std::collections::BTreeMap;
use std::time::Duration;

use entrenar::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use entrenar::metric::{self, NvmlStatus};
use entrenar::report::{GpuEvent, GpuEventKind, Holder, HolderChange, Inventory, JobKind, Labels};
use entrenar::testing::story;
use entrenar::unit::Timestamp;

use super::{Change, Engine, RuleBook, Severity, Transition};

/// When every story begins: stories count their seconds from here.
pub(super) const BEGIN: Timestamp = Timestamp::from_secs(1_700_000_000);

/// How a story's engine is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restarts {
    Never,
    /// Its memory goes through a snapshot after every seventh step.
    Often,
}

/// An engine, its time, and what it said.
pub(super) struct Stage {
    pub(super) engine: Engine,
    pub(super) now: Timestamp,
    pub(super) interval: Duration,
    pub(super) said: Vec<Transition>,
    restarts: Restarts,
    steps: u64,
    sizes: BTreeMap<NodeId, usize>,
}

pub(super) fn uuid(node: &str, device: u32) -> GpuUuid {
    format!("GPU-{node}-{device}").into()
}

pub(super) fn inventory(node: &str, gpus: u32) -> Inventory {
    let info = |index| GpuInfo {
        uuid: uuid(node, index),
        index,
        name: "NVIDIA H100 80GB HBM3".into(),
        memory_total_bytes: Some(80 << 30),
        ..GpuInfo::default()
    };
    Inventory {
        generation: 1,
        gpus: (0..gpus).map(info).collect(),
    }
}

/// A GPU in healthy training.
pub(super) fn working() -> Values {
    Values::default()
        .with(metric::TEMPERATURE, 62)
        .with(metric::UTILIZATION, 99)
        .with(metric::MEMORY_UTILIZATION, 45)
        .with(metric::MEMORY_USED, 60 << 30)
        .with(metric::MEMORY_TOTAL, 80 << 30)
        .with(metric::POWER, 690_000)
        .with(metric::POWER_LIMIT, 700_000)
        .with(metric::SM_CLOCK, 1755)
        .with(
            metric::CLOCK_EVENT_REASONS,
            metric::clock_reason::SW_POWER_CAP,
        )
}

/// A GPU that waits busily in a collective.
pub(super) fn spinning() -> Values {
    working()
        .with(metric::UTILIZATION, 100)
        .with(metric::MEMORY_UTILIZATION, 0)
        .with(metric::POWER, 128_000)
        .with(metric::CLOCK_EVENT_REASONS, 0)
}

/// A GPU with a context on which nothing runs.
pub(super) fn idle() -> Values {
    spinning()
        .with(metric::UTILIZATION, 0)
        .with(metric::POWER, 120_000)
}

/// A GPU whose device calls ended in an error.
pub(super) fn failing(status: NvmlStatus) -> Values {
    Values::default().with(metric::NVML_STATUS, status as i64)
}

impl Stage {
    pub(super) fn new(rules: impl Into<RuleBook>) -> Self {
        Self {
            engine: Engine::new(rules, "test"),
            now: BEGIN,
            interval: Duration::from_secs(1),
            said: Vec::new(),
            restarts: Restarts::Never,
            steps: 0,
            sizes: BTreeMap::new(),
        }
    }

    pub(super) fn restarting(mut self, restarts: Restarts) -> Self {
        self.restarts = restarts;
        self
    }

    pub(super) fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// A node with so many GPUs introduces itself.
    pub(super) fn hello(&mut self, node: &str, gpus: u32, labels: &[(&str, &str)]) {
        let labels: Labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        self.sizes.insert(node.into(), gpus as usize);
        let interval_ms = self.interval.as_millis() as u32;
        let inventory = inventory(node, gpus);
        self.engine
            .hello(self.now, &node.into(), &labels, &inventory, interval_ms);
        self.listen();
    }

    /// A job takes these GPUs.
    pub(super) fn hold(&mut self, job: &str, kind: JobKind, gpus: &[(&str, u32)]) {
        for (node, device) in gpus {
            let holder = Holder {
                job: job.into(),
                kind,
                ..Holder::default()
            };
            self.give(node, *device, Some(holder));
        }
    }

    pub(super) fn give(&mut self, node: &str, device: u32, holder: Option<Holder>) {
        let change = HolderChange {
            at: self.now,
            gpu: uuid(node, device),
            holder,
        };
        self.engine.holder(self.now, &node.into(), &change);
        self.listen();
    }

    pub(super) fn xid(&mut self, node: &str, device: u32, code: u64) {
        let event = GpuEvent {
            at: self.now,
            gpu: Some(uuid(node, device)),
            what: GpuEventKind::Xid(code),
        };
        self.engine.event(self.now, &node.into(), &event);
        self.listen();
    }

    /// A tick of one node, now.
    pub(super) fn tick(&mut self, node: &str, rows: &[Values]) {
        self.engine
            .observe(self.now, &node.into(), self.now, true, rows);
        self.listen();
    }

    /// A tick of each of these nodes in which every GPU says the same.
    pub(super) fn all(&mut self, nodes: &[&str], row: &Values) {
        for node in nodes {
            let rows = vec![row.clone(); self.sizes[*node]];
            self.tick(node, &rows);
        }
    }

    /// Time passes by an interval.
    pub(super) fn step(&mut self) {
        self.engine.advance(self.now);
        self.listen();
        self.now = self.now + self.interval;
        self.steps += 1;
        if self.restarts == Restarts::Often && self.steps.is_multiple_of(7) {
            self.restart();
        }
    }

    /// The nodes work in peace for a while.
    pub(super) fn work(&mut self, nodes: &[&str], seconds: u64) {
        self.play(nodes, &working(), seconds);
    }

    /// Every GPU of these nodes says the same for a while.
    pub(super) fn play(&mut self, nodes: &[&str], row: &Values, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.all(nodes, row);
            self.step();
        }
    }

    /// Memory goes through a snapshot.
    pub(super) fn restart(&mut self) {
        let bytes = self.engine.snapshot();
        let rules = self.engine.rules().clone();
        self.engine = Engine::restore(rules, &bytes).expect("what was written is read");
    }

    fn listen(&mut self) {
        self.said.extend(self.engine.drain());
    }

    /// What was said, as one line: seconds since the beginning, change, severity, kind, scope.
    pub(super) fn story(&self) -> String {
        self.story_of(|_| true)
    }

    /// The same, of what is worth a message: warnings and worse that nothing else explains.
    pub(super) fn pages(&self) -> String {
        self.story_of(|said| {
            said.change == Change::Raised
                && said.severity > Severity::Info
                && said.consequence_of.is_none()
        })
    }

    fn story_of(&self, which: impl Fn(&Transition) -> bool) -> String {
        let line = |said: &Transition| {
            let at = Timestamp(said.at.0 - BEGIN.0);
            (at, words(said))
        };
        let lines: Vec<_> = self
            .said
            .iter()
            .filter(|said| which(said))
            .map(line)
            .collect();
        story(&lines)
    }

    /// Within one cord, time rises strictly: deciding twice is harmless.
    pub(super) fn assert_times_rise(&self) {
        let mut last = BTreeMap::new();
        for said in &self.said {
            if let Some(before) = last.insert(said.cord(), said.at) {
                assert!(before < said.at, "{said:?}");
            }
        }
    }
}

fn words(said: &Transition) -> String {
    let change = match said.change {
        Change::Cleared { why } => format!("Cleared({why:?})"),
        change => format!("{change:?}"),
    };
    let because = said
        .consequence_of
        .as_ref()
        .map_or(String::new(), |cause| format!(" because {}", cause.rule));
    let (severity, kind) = (said.severity.name(), said.kind.name());
    format!("{change} {severity} {kind} {}{because}", said.scope.key())
}
