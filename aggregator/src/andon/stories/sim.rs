//! Stories of a simulated fleet: calm stays calm, and each fault is its own finding and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use entrenar::backend::Depth;
use entrenar::gpu::{NodeId, Values};
use entrenar::metric::NvmlStatus;
use entrenar::report::{Holder, HolderChange, Inventory};
use entrenar::sim::{
    Fault, FaultKind, Hang, NodeState, Scenario, SimConfig, SimFleet, SimNode, Target,
};
use entrenar::testing::story;
use entrenar::unit::Timestamp;

use crate::andon::testing::failing;
use crate::andon::{Change, Engine, Kind, RuleBook, RuleSet, Scope, Severity, Transition};

/// A simulated fleet whose agents report to an engine, without a wire between them.
struct SimStage {
    fleet: SimFleet,
    engine: Engine,
    agents: Vec<Agent>,
    now: Timestamp,
    interval: Duration,
    said: Vec<Transition>,
}

/// What an agent remembers of its node.
#[derive(Default)]
struct Agent {
    is_connected: bool,
    holders: Vec<Option<Holder>>,
    ticks: u64,
    last: Option<Timestamp>,
}

impl SimStage {
    fn new(scenario: Scenario, rules: RuleSet, interval: Duration) -> Self {
        Self::with(&scenario.config(8, 8), rules, interval)
    }

    fn with(config: &SimConfig, rules: RuleSet, interval: Duration) -> Self {
        let fleet = SimFleet::new(config).expect("the scenario fits");
        let agents = fleet.nodes().iter().map(|_| Agent::default()).collect();
        Self {
            now: fleet.start(),
            fleet,
            engine: Engine::new(Arc::new(rules), "test"),
            agents,
            interval,
            said: Vec::new(),
        }
    }

    /// Goes on for a while.
    fn play(&mut self, lasts: Duration) {
        let phase_ms = self.interval.as_millis() as i64 / 8;
        let (mut now, end) = (self.now, self.now + lasts);
        while now < end {
            for (n, node) in self.fleet.nodes_mut().iter_mut().enumerate() {
                let at = Timestamp(now.0 + phase_ms * n as i64);
                report(
                    node,
                    &mut self.agents[n],
                    at,
                    self.interval,
                    &mut self.engine,
                );
            }
            now = now + self.interval;
            self.engine.advance(now);
            self.said.extend(self.engine.drain());
        }
        self.now = now;
    }

    /// Kinds of what is raised and not cleared.
    fn still_up(&self) -> Vec<Kind> {
        let mut up = BTreeMap::new();
        for said in &self.said {
            match said.change {
                Change::Cleared { .. } => up.remove(&said.cord()),
                _ => up.insert(said.cord(), said.kind),
            };
        }
        up.into_values().collect()
    }

    /// What was raised: seconds, severity, kind, scope.
    fn raised(&self) -> String {
        self.story_of(|said| said.change == Change::Raised)
    }

    /// What a person hears of.
    fn pages(&self) -> String {
        self.story_of(|said| {
            let speaks = matches!(said.change, Change::Raised | Change::Updated);
            speaks && said.severity > Severity::Info && said.consequence_of.is_none()
        })
    }

    fn story_of(&self, which: impl Fn(&Transition) -> bool) -> String {
        let start = self.fleet.start();
        let line = |said: &Transition| {
            let after = Timestamp((said.at.0 - start.0) / 1000 * 1000);
            let because = said
                .consequence_of
                .as_ref()
                .map_or(String::new(), |cause| format!(" because {}", cause.rule));
            let words = format!(
                "{} {} {}{because}",
                said.severity.name(),
                said.kind.name(),
                place(&said.scope)
            );
            (after, words)
        };
        let lines: Vec<_> = self
            .said
            .iter()
            .filter(|said| which(said))
            .map(line)
            .collect();
        story(&lines)
    }
}

fn place(scope: &Scope) -> String {
    match scope {
        Scope::Gpu { gpu } => format!("{}/{}", gpu.node, gpu.device),
        Scope::Job { job, gpus } => format!("job {job} ({})", gpus.len()),
        other => other.key(),
    }
}

/// What an agent does at a tick.
fn report(
    node: &mut SimNode,
    agent: &mut Agent,
    at: Timestamp,
    interval: Duration,
    engine: &mut Engine,
) {
    node.advance_to(at);
    let id = node.name().clone();
    match node.state_at(at) {
        NodeState::Up => {}
        NodeState::Lost => return,
        NodeState::Stopped => {
            if std::mem::take(&mut agent.is_connected) {
                engine.goodbye(at, &id);
            }
            return;
        }
    }
    if !agent.is_connected {
        agent.is_connected = true;
        let inventory = Inventory {
            generation: 1,
            gpus: node.gpus().to_vec(),
        };
        engine.hello(
            at,
            &id,
            node.labels(),
            &inventory,
            interval.as_millis() as u32,
        );
        agent.holders = vec![None; node.gpus().len()];
    }
    tell_holders(node, agent, at, &id, engine);
    if let Some(last) = agent.last {
        for event in node.events_between(last, at) {
            engine.event(at, &id, &event);
        }
    }
    agent.last = Some(at);
    let slow_every = (10_000 / interval.as_millis() as u64).max(1);
    let depth = if agent.ticks.is_multiple_of(slow_every) {
        Depth::Full
    } else {
        Depth::Fast
    };
    agent.ticks += 1;
    let rows: Vec<Values> = (0..node.gpus().len() as u32)
        .map(|gpu| row(node, gpu, depth))
        .collect();
    engine.observe(at, &id, at, true, &rows);
}

fn tell_holders(
    node: &SimNode,
    agent: &mut Agent,
    at: Timestamp,
    id: &NodeId,
    engine: &mut Engine,
) {
    for (gpu, known) in agent.holders.iter_mut().enumerate() {
        let holder = node.holder(gpu as u32);
        if holder != known.as_ref() {
            *known = holder.cloned();
            let change = HolderChange {
                at,
                gpu: node.gpus()[gpu].uuid.clone(),
                holder: known.clone(),
            };
            engine.holder(at, id, &change);
        }
    }
}

fn row(node: &SimNode, gpu: u32, depth: Depth) -> Values {
    if node.is_lost(gpu) {
        failing(NvmlStatus::GpuIsLost)
    } else if node.is_silent(gpu) {
        failing(NvmlStatus::Timeout)
    } else {
        node.values(gpu, depth).expect("the GPU is there")
    }
}

fn demo_rules() -> RuleSet {
    let demo = include_str!("../../../../deploy/demo/rules.yaml");
    let book = RuleBook::parse(demo, "deploy/demo/rules.yaml").expect("it is a rules file");
    RuleSet::clone(book.base())
}

#[test]
fn a_calm_day_of_64_gpus_is_silent() {
    let mut stage = SimStage::new(Scenario::Calm, RuleSet::default(), Duration::from_secs(1));
    stage.play(Duration::from_hours(24));
    assert_eq!(stage.pages(), "");
}

#[test]
fn a_calm_day_is_silent_at_a_slow_pace_and_with_the_usual_mix_too() {
    for scenario in [Scenario::Calm, Scenario::Steady] {
        let mut stage = SimStage::new(scenario, RuleSet::default(), Duration::from_secs(10));
        stage.play(Duration::from_hours(24));
        assert_eq!(stage.pages(), "", "{scenario:?}");
    }
}

#[test]
fn checkpoints_alarm_nobody_even_by_the_quick_rules_of_the_demo() {
    let mut stage = SimStage::new(
        Scenario::CheckpointPauses,
        demo_rules(),
        Duration::from_secs(1),
    );
    stage.play(Duration::from_mins(30));
    assert_eq!(stage.pages(), "");
}

/// Plays a scenario for 25 minutes at one second: its faults last ten. Compares what was raised, and whether all of
/// it was over at the end but for these.
fn check(scenario: Scenario, rules: RuleSet, raised: &str, left: &[Kind]) {
    let mut stage = SimStage::new(scenario, rules, Duration::from_secs(1));
    stage.play(Duration::from_mins(25));
    assert_eq!(stage.raised(), raised, "{scenario:?}");
    assert_eq!(stage.still_up(), left, "{scenario:?}");
}

#[test]
fn each_fault_is_its_own_finding_and_nothing_else() {
    let check = |scenario, raised, left| check(scenario, RuleSet::default(), raised, left);
    check(Scenario::Hot, "27s warning ThermalThrottling n02/2", &[]);
    check(
        Scenario::FullMemory,
        "124s warning MemoryPressure n08/0",
        &[],
    );
    check(
        Scenario::LostGpu,
        "60s critical GpuLost n04/7, 60s critical Xid n04/7 because gpu_lost, 153s critical JobHang job 4711 (32) because gpu_lost",
        &[],
    );
    check(Scenario::LostNode, "101s critical NodeLost node:n06", &[]);
    check(
        Scenario::Xid,
        "20s critical EccUncorrectable n04/7, 20s warning RowRemap n04/7 because ecc_uncorrectable",
        &[Kind::EccUncorrectable],
    );
    check(Scenario::HungJob, "151s critical JobHang job 4712 (8)", &[]);
}

#[test]
fn a_gpu_that_stays_hot_becomes_a_page() {
    let mut stage = SimStage::new(Scenario::Hot, RuleSet::default(), Duration::from_secs(1));
    stage.play(Duration::from_mins(5));
    assert_eq!(
        stage.pages(),
        "27s warning ThermalThrottling n02/2, 29s critical ThermalThrottling n02/2"
    );
}

#[test]
fn a_job_that_hangs_for_long_is_found_by_the_usual_rules() {
    for how in [Hang::Spin, Hang::Culprit, Hang::Cold] {
        let fault = Fault {
            at: Duration::from_mins(1),
            duration: None,
            kind: FaultKind::HungJob { how },
            target: Target::Job { job: "4711".into() },
        };
        let config = Scenario::Steady.config(8, 8).faults(vec![fault]);
        let mut stage = SimStage::with(&config, RuleSet::default(), Duration::from_secs(1));
        stage.play(Duration::from_mins(18));
        let (at, said) = stage
            .pages()
            .split_once("s ")
            .map(|(at, said)| (at.to_owned(), said.to_owned()))
            .expect("a page");
        assert!(
            said.starts_with("critical JobHang job 4711 (32)"),
            "{said} {how:?}"
        );
        assert!(
            (150..=260).contains(&at.parse().expect("seconds")),
            "{at} {how:?}"
        );
        let blamed = &stage.said.last().expect("the page").finding.culprits;
        assert_eq!(blamed.len(), usize::from(how == Hang::Culprit), "{how:?}");
    }
}

#[test]
fn the_demo_shows_every_fault_within_two_minutes() {
    check(
        Scenario::DemoDefault,
        demo_rules(),
        "27s warning ThermalThrottling n02/2, 55s warning RowRemap n04/7, 84s warning MemoryPressure n08/0, \
         107s warning GpuIdle job 4712 (8), 111s critical NodeLost node:n06",
        &[],
    );
}

#[test]
fn a_snapshot_takes_about_a_kilobyte_a_gpu_and_changes_nothing() {
    let play = |restart: bool| {
        let mut stage = SimStage::new(Scenario::DemoDefault, demo_rules(), Duration::from_secs(1));
        for _ in 0..10 {
            stage.play(Duration::from_secs(18));
            if restart {
                let bytes = stage.engine.snapshot();
                assert!(bytes.len() < 64 * 1024, "{} bytes for 64 GPUs", bytes.len());
                let rules = stage.engine.rules().clone();
                stage.engine = Engine::restore(rules, &bytes).expect("what was written is read");
            }
        }
        stage.said
    };
    assert_eq!(play(true), play(false));
}
