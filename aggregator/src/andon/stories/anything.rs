//! Whatever happens, in whatever order: what the engine says makes sense, and a restart changes none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use entrenar::metric::{self, NvmlStatus, clock_reason};
use entrenar::report::{Holder, JobKind};
use entrenar::unit::Timestamp;
use proptest::prelude::*;

use crate::andon::rules::Span;
use crate::andon::testing::{Stage, failing, idle, inventory, spinning, uuid, working};
use crate::andon::{Change, RuleSet, Transition};

const NODES: [&str; 5] = ["n01", "n02", "n03", "n04", "n05"];
const GPUS: u32 = 3;

/// Something that happens.
#[derive(Clone, Debug)]
enum Deed {
    Hello(usize),
    Goodbye(usize),
    Forget(usize),
    /// A node reports for some seconds: a row by number on each GPU, or on one.
    Report(usize, Option<u32>, u8, u8),
    /// All but one node work for some seconds.
    Others(usize, u8),
    Xid(usize, u32, u64),
    Hold(usize, u32, Option<u8>),
    Enumerate(usize, u32),
    Offset(usize, i64),
    Late(usize, i64),
    Jump(i64),
    Switch(u8),
    Resume,
    Restart,
}

fn deed() -> impl Strategy<Value = Deed> {
    let node = 0..NODES.len();
    let code = prop::sample::select(vec![13, 31, 43, 45, 48, 63, 79, 94, 119, 154, 999]);
    prop_oneof![
        2 => node.clone().prop_map(Deed::Hello),
        1 => node.clone().prop_map(Deed::Goodbye),
        1 => node.clone().prop_map(Deed::Forget),
        8 => (node.clone(), prop::option::of(0..GPUS), 0..8_u8, 1..90_u8)
            .prop_map(|(n, gpu, row, s)| Deed::Report(n, gpu, row, s)),
        4 => (node.clone(), 1..90_u8).prop_map(|(n, s)| Deed::Others(n, s)),
        4 => (node.clone(), 0..GPUS, code).prop_map(|(n, gpu, code)| Deed::Xid(n, gpu, code)),
        3 => (node.clone(), 0..GPUS, prop::option::of(0..3_u8)).prop_map(|(n, g, job)| Deed::Hold(n, g, job)),
        1 => (node.clone(), 0..=GPUS).prop_map(|(n, gpus)| Deed::Enumerate(n, gpus)),
        1 => (node.clone(), -100_000..100_000_i64).prop_map(|(n, ms)| Deed::Offset(n, ms)),
        1 => (node, -100_000..100_000_i64).prop_map(|(n, ms)| Deed::Late(n, ms)),
        1 => (-100..4000_i64).prop_map(Deed::Jump),
        1 => (0..10_u8).prop_map(Deed::Switch),
        1 => Just(Deed::Resume),
        2 => Just(Deed::Restart),
    ]
}

fn row(number: u8) -> entrenar::gpu::Values {
    let hot = clock_reason::HW_SLOWDOWN | clock_reason::HW_THERMAL;
    match number {
        0 => spinning(),
        1 => idle(),
        2 => working().with(metric::CLOCK_EVENT_REASONS, hot),
        3 => failing(NvmlStatus::GpuIsLost),
        4 => failing(NvmlStatus::Timeout),
        5 => entrenar::gpu::Values::default(),
        6 => working().with(metric::MEMORY_USED, 79 << 30),
        _ => working(),
    }
}

/// Rules so quick that a minute is long.
fn quick() -> RuleSet {
    let mut rules = RuleSet::default();
    rules.gpu_idle.hold = Span::secs(20);
    rules.gpu_idle.worked = Span::secs(5);
    rules.thermal_throttling.settle = Span::secs(20);
    rules.gpu_lost.settle = Span::secs(10);
    rules.xid.settle = Span::secs(60);
    rules.xid.critical_settle = Span::secs(200);
    rules
}

fn switch(rules: &mut RuleSet, which: u8) {
    match which {
        0 => rules.thermal_throttling.enabled ^= true,
        1 => rules.memory_pressure.enabled ^= true,
        2 => rules.gpu_idle.enabled ^= true,
        3 => rules.xid.enabled ^= true,
        4 => rules.gpu_lost.enabled ^= true,
        5 => rules.gpu_unresponsive.enabled ^= true,
        6 => rules.node_lost.enabled ^= true,
        7 => rules.monitoring_fault.enabled ^= true,
        _ => rules.gpu_idle.hold = Span::secs(u64::from(which) * 5),
    }
}

fn play(deeds: &[Deed], with_restarts: bool) -> Vec<Transition> {
    let mut stage = Stage::new(quick());
    let labels = [("rack", "r1"), ("switch", "s1")];
    for (n, node) in NODES.iter().enumerate() {
        stage.hello(node, GPUS, &labels[n % 2..=n % 2]);
    }
    stage.work(&NODES, 70);
    for deed in deeds {
        match *deed {
            Deed::Hello(n) => stage.hello(NODES[n], GPUS, &labels),
            Deed::Goodbye(n) => stage.engine.goodbye(stage.now, &NODES[n].into()),
            Deed::Forget(n) => stage.engine.forget_node(stage.now, &NODES[n].into()),
            Deed::Report(n, gpu, number, seconds) => {
                let say = |device| {
                    if gpu.is_none_or(|gpu| gpu == device) {
                        row(number)
                    } else {
                        working()
                    }
                };
                let rows: Vec<_> = (0..GPUS).map(say).collect();
                for _ in 0..seconds {
                    stage.tick(NODES[n], &rows);
                    stage.step();
                }
            }
            Deed::Others(n, seconds) => {
                let others: Vec<_> = NODES.into_iter().filter(|node| *node != NODES[n]).collect();
                stage.work(&others, u64::from(seconds));
            }
            Deed::Xid(n, gpu, code) => stage.xid(NODES[n], gpu, code),
            Deed::Hold(n, gpu, job) => {
                let holder = job.map(|job| Holder {
                    job: job.to_string(),
                    kind: JobKind::Train,
                    ..Holder::default()
                });
                stage.give(NODES[n], gpu, holder);
            }
            Deed::Enumerate(n, gpus) => {
                let listed = inventory(NODES[n], gpus);
                stage.engine.inventory(stage.now, &NODES[n].into(), &listed);
            }
            Deed::Offset(n, ms) => stage.engine.clock_offset(stage.now, &NODES[n].into(), ms),
            Deed::Late(n, ms) => {
                let at = Timestamp(stage.now.0 + ms);
                let rows = vec![row(2); GPUS as usize];
                stage
                    .engine
                    .observe(stage.now, &NODES[n].into(), at, ms % 2 == 0, &rows);
            }
            Deed::Jump(seconds) => stage.now = Timestamp(stage.now.0 + seconds * 1000),
            Deed::Switch(which) => {
                let mut rules = RuleSet::clone(stage.engine.rules().base());
                switch(&mut rules, which);
                stage.engine.set_rules(stage.now, Arc::new(rules));
            }
            Deed::Resume => stage.engine.resume(stage.now),
            Deed::Restart if with_restarts => stage.restart(),
            Deed::Restart => {}
        }
        stage.step();
        let known = stage
            .engine
            .holder_of(&uuid("n01", 0))
            .map(|holder| &holder.job);
        let jobs = stage.engine.jobs();
        assert!(known.is_none_or(|job| jobs.iter().any(|view| view.job == *job)));
    }
    for _ in 0..5 {
        stage.step();
    }
    stage.said
}

/// A cord is raised, says more, and is cleared: in this order, at rising times.
fn assert_makes_sense(said: &[Transition]) {
    let mut up = BTreeSet::new();
    let mut last = BTreeMap::new();
    for transition in said {
        let cord = transition.cord();
        if let Some(before) = last.insert(cord.clone(), transition.at) {
            assert!(before < transition.at, "{transition:?}");
        }
        let was_up = match transition.change {
            Change::Raised => up.insert(cord.clone()),
            Change::Cleared { .. } => up.remove(&cord),
            _ => up.contains(&cord),
        };
        assert!(was_up, "{transition:?}");
        assert_ne!(
            transition.consequence_of.as_ref(),
            Some(&cord),
            "{transition:?}"
        );
        assert!(transition.started_at <= transition.at, "{transition:?}");
        if transition.change == Change::Raised {
            assert!(
                !transition.finding.summary.is_empty() && !transition.finding.action.is_empty()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_makes_sense_and_survives_a_restart(deeds in prop::collection::vec(deed(), 1..40)) {
        let straight = play(&deeds, false);
        assert_makes_sense(&straight);
        prop_assert_eq!(play(&deeds, true), straight);
    }
}

#[test]
fn an_advance_of_a_century_is_no_trouble() {
    let mut stage = Stage::new(quick());
    stage.hello("n01", 2, &[]);
    for far in [
        Timestamp(i64::MAX / 4),
        Timestamp(0),
        Timestamp(i64::MAX / 4),
    ] {
        stage.engine.advance(far);
        stage.now = far;
        stage.tick("n01", &[working(), working()]);
        stage.now = stage.now + Duration::from_secs(1);
    }
}
