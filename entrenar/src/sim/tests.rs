//! Stories of the simulated fleet.

use std::time::Duration;

use super::*;
use crate::backend::Depth;
use crate::gpu::Values;
use crate::metric::{self, Kind, clock_reason};
use crate::report::{GpuEventKind, JobKind};

fn fleet(scenario: Scenario) -> SimFleet {
    SimFleet::new(&scenario.config(8, 8)).expect("scenarios fit eight nodes of eight GPUs")
}

fn after(fleet: &mut SimFleet, secs: u64) -> Timestamp {
    let now = fleet.start() + Duration::from_secs(secs);
    fleet.advance_to(now);
    now
}

fn read(fleet: &SimFleet, node: &str, gpu: u32) -> Values {
    let node = fleet.node(node).expect("the node is there");
    node.values(gpu, Depth::Full).expect("the GPU is there")
}

fn all(fleet: &SimFleet) -> Vec<Values> {
    let gpus = fleet
        .nodes()
        .iter()
        .flat_map(|node| (0..8).map(move |gpu| (node, gpu)));
    gpus.map(|(node, gpu)| node.values(gpu, Depth::Full).expect("the GPU is there"))
        .collect()
}

fn get(values: &Values, metric: metric::MetricId) -> i64 {
    values.get(metric).expect("reported")
}

#[test]
fn a_seed_decides_everything() {
    let look = |seed| {
        let mut fleet =
            SimFleet::new(&Scenario::DemoDefault.config(8, 8).seed(seed)).expect("fits");
        after(&mut fleet, 100);
        all(&fleet)
    };
    assert_eq!(look(7), look(7));
    assert_ne!(look(7), look(8));
}

#[test]
fn a_fleet_looks_the_same_at_whatever_steps_it_is_looked_at() {
    let look = |step| {
        let mut fleet = fleet(Scenario::DemoDefault);
        for secs in (0..=1800).step_by(step) {
            after(&mut fleet, secs);
        }
        all(&fleet)
    };
    let every_second = look(1);
    assert_eq!(every_second, look(10));
    assert_eq!(every_second, look(1800));
}

#[test]
fn energy_grows_by_power_times_time() {
    let mut fleet = fleet(Scenario::Steady);
    after(&mut fleet, 0);
    let before = read(&fleet, "n01", 0);
    let mut millijoules = 0;
    for tenth in 0..1000 {
        let now = fleet.start() + Duration::from_millis(100 * tenth + 50);
        fleet.advance_to(now);
        millijoules += get(&read(&fleet, "n01", 0), metric::POWER) / 10;
    }
    after(&mut fleet, 100);
    let grown = get(&read(&fleet, "n01", 0), metric::ENERGY) - get(&before, metric::ENERGY);
    let error = (grown - millijoules).abs() as f64 / grown as f64;
    assert!(
        error < 1e-3,
        "energy grew by {grown} mJ, power says {millijoules} mJ"
    );
}

#[test]
fn counters_only_ever_grow_and_percentages_stay_in_range() {
    let mut fleet = fleet(Scenario::DemoDefault);
    let counters: Vec<_> = metric::CATALOGUE
        .iter()
        .filter(|m| m.kind == Kind::Counter)
        .collect();
    let mut before = all(&fleet);
    for secs in (0..3600).step_by(3) {
        after(&mut fleet, secs);
        let now = all(&fleet);
        for (was, is) in before.iter().zip(&now) {
            for counter in &counters {
                if let (Some(was), Some(is)) = (was.get(counter.id), is.get(counter.id)) {
                    assert!(was <= is, "{} fell from {was} to {is}", counter.name);
                }
            }
            assert!((0..=100).contains(&get(is, metric::UTILIZATION)));
            assert!((0..=100).contains(&get(is, metric::MEMORY_UTILIZATION)));
            assert!(get(is, metric::MEMORY_USED) <= get(is, metric::MEMORY_TOTAL));
            assert!((60_000..=700_000).contains(&get(is, metric::POWER)));
        }
        before = now;
    }
}

#[test]
fn a_fleet_that_starts_has_run_for_hours() {
    let fleet = fleet(Scenario::Steady);
    let training = read(&fleet, "n01", 0);
    assert!(
        (52..=64).contains(&get(&training, metric::TEMPERATURE)),
        "{training:?}"
    );
    assert!((640_000..=700_000).contains(&get(&training, metric::POWER)));
    assert_eq!(
        get(&training, metric::CLOCK_EVENT_REASONS),
        clock_reason::SW_POWER_CAP
    );
    let free = read(&fleet, "n08", 7);
    assert!((68_000..=73_000).contains(&get(&free, metric::POWER)));
    assert_eq!(free.get(metric::PROCESS_STATE), None);
    let node = fleet.node("n08").expect("there");
    assert_eq!(node.holder(7), None);
    assert_eq!(node.holder(0).map(|h| h.kind), Some(JobKind::Interactive));
    assert_eq!(node.labels()["rack"], "r02");
}

#[test]
fn a_gpu_without_cooling_is_slowed_down_by_its_hardware_and_recovers() {
    let mut fleet = fleet(Scenario::Hot);
    after(&mut fleet, 19);
    let before = read(&fleet, "n02", 2);
    after(&mut fleet, 60);
    let hot = read(&fleet, "n02", 2);
    let bits = clock_reason::HW_SLOWDOWN | clock_reason::HW_THERMAL;
    assert_eq!(get(&hot, metric::CLOCK_EVENT_REASONS), bits);
    assert!(
        (87..=91).contains(&get(&hot, metric::TEMPERATURE)),
        "{hot:?}"
    );
    assert!(get(&hot, metric::THERMAL_MARGIN) < 0);
    assert!(get(&hot, metric::SM_CLOCK) < get(&before, metric::SM_CLOCK) * 6 / 10);
    assert!(get(&hot, metric::POWER) < get(&before, metric::POWER) * 7 / 10);
    after(&mut fleet, 615);
    assert_eq!(
        get(&read(&fleet, "n02", 2), metric::CLOCK_EVENT_REASONS) & bits,
        bits
    );
    after(&mut fleet, 720);
    assert_eq!(
        get(&read(&fleet, "n02", 2), metric::CLOCK_EVENT_REASONS) & bits,
        0
    );
}

#[test]
fn a_job_that_hangs_in_a_collective_is_busy_at_idle_power() {
    let mut fleet = fleet(Scenario::HungJob);
    after(&mut fleet, 64);
    let first = read(&fleet, "n05", 3);
    after(&mut fleet, 300);
    let hung = read(&fleet, "n05", 3);
    assert!(get(&hung, metric::UTILIZATION) >= 95);
    assert!(get(&hung, metric::MEMORY_UTILIZATION) <= 1);
    assert!(
        (125_000..=132_000).contains(&get(&hung, metric::POWER)),
        "{hung:?}"
    );
    assert_eq!(
        get(&hung, metric::NVLINK_TX),
        get(&first, metric::NVLINK_TX)
    );
    assert_eq!(
        get(&hung, metric::MEMORY_USED),
        get(&first, metric::MEMORY_USED)
    );
    assert!(fleet.node("n05").expect("there").holder(3).is_some());
}

#[test]
fn a_memory_fills_up_and_keeps_on_rising() {
    let mut fleet = fleet(Scenario::FullMemory);
    let used = |fleet: &SimFleet| {
        get(&read(fleet, "n08", 0), metric::MEMORY_USED) as f64 / 85_520_809_984.0
    };
    after(&mut fleet, 19);
    assert!(used(&fleet) < 0.3);
    after(&mut fleet, 80);
    let (full, mut last) = (used(&fleet), 0.0);
    assert!(full > 0.975, "{full}");
    for secs in (80..380).step_by(30) {
        after(&mut fleet, secs);
        assert!(used(&fleet) > last);
        last = used(&fleet);
    }
    after(&mut fleet, 700);
    assert!(used(&fleet) < 0.3);
}

#[test]
fn a_lost_gpu_leaves_the_ranks_of_its_job_waiting() {
    let mut fleet = fleet(Scenario::LostGpu);
    let start = fleet.start();
    after(&mut fleet, 70);
    let node = fleet.node("n04").expect("there");
    assert!(node.is_lost(7) && !node.is_lost(6));
    let events = node.events_between(start, node.now());
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].what, GpuEventKind::Xid(79));
    assert_eq!(events[0].at, start + Duration::from_mins(1));
    let peer = read(&fleet, "n01", 0);
    assert!(get(&peer, metric::POWER) < 132_000 && get(&peer, metric::UTILIZATION) >= 95);
}

#[test]
fn a_lost_node_is_silent_for_a_while_and_takes_nobody_with_it() {
    let mut fleet = fleet(Scenario::LostNode);
    let state = |fleet: &SimFleet, secs| {
        let at = fleet.start() + Duration::from_secs(secs);
        fleet.node("n06").expect("there").state_at(at)
    };
    assert_eq!(state(&fleet, 59), NodeState::Up);
    assert_eq!(state(&fleet, 60), NodeState::Lost);
    assert_eq!(state(&fleet, 660), NodeState::Up);
    after(&mut fleet, 100);
    for node in ["n01", "n05"] {
        assert!(get(&read(&fleet, node, 0), metric::POWER) > 400_000);
    }
}

#[test]
fn during_a_checkpoint_one_rank_writes_and_the_others_wait() {
    let mut fleet = fleet(Scenario::CheckpointPauses);
    after(&mut fleet, 70);
    let (writer, waiter) = (read(&fleet, "n01", 0), read(&fleet, "n01", 1));
    assert!(get(&writer, metric::UTILIZATION) <= 2);
    assert!(get(&waiter, metric::UTILIZATION) >= 95);
    after(&mut fleet, 72);
    let written =
        get(&read(&fleet, "n01", 0), metric::PROCESS_WRITE) - get(&writer, metric::PROCESS_WRITE);
    assert!(written > 2_000_000_000, "{written}");
    after(&mut fleet, 80);
    assert!(get(&read(&fleet, "n01", 1), metric::POWER) > 600_000);
}

#[test]
fn the_demo_shows_five_troubles_and_leaves_the_rest_alone() {
    let mut fleet = fleet(Scenario::DemoDefault);
    let start = fleet.start();
    let now = after(&mut fleet, 100);
    let mut troubled = Vec::new();
    for node in fleet.nodes() {
        if node.state_at(now) == NodeState::Lost {
            troubled.push(format!("{} lost", node.name()));
            continue;
        }
        for event in node.events_between(start, now) {
            troubled.push(format!("{} {:?}", node.name(), event.what));
        }
        for gpu in 0..8 {
            let values = node.values(gpu, Depth::Full).expect("there");
            let kind = node.holder(gpu).map(|h| h.kind);
            if get(&values, metric::CLOCK_EVENT_REASONS) & clock_reason::HW_THERMAL != 0 {
                troubled.push(format!("{}/{gpu} hot", node.name()));
            }
            if kind == Some(JobKind::Train) && get(&values, metric::UTILIZATION) == 0 {
                troubled.push(format!("{}/{gpu} idle", node.name()));
            }
            let full = get(&values, metric::MEMORY_USED) * 100 / get(&values, metric::MEMORY_TOTAL);
            if full >= 97 {
                troubled.push(format!("{}/{gpu} full", node.name()));
            }
        }
    }
    let idle = (0..8).map(|gpu| format!("n05/{gpu} idle"));
    let mut expected = vec!["n02/2 hot".to_owned(), "n04 Xid(63)".to_owned()];
    expected.extend(idle);
    expected.extend(["n06 lost".to_owned(), "n08/0 full".to_owned()]);
    assert_eq!(troubled, expected);
}

#[test]
fn a_calm_day_has_pauses_but_no_slowdown() {
    let mut fleet = fleet(Scenario::Calm);
    let harmless = clock_reason::SW_POWER_CAP | clock_reason::GPU_IDLE;
    let mut pauses = 0;
    for minute in 0..24 * 60 {
        after(&mut fleet, 60 * minute);
        for values in all(&fleet) {
            assert_eq!(get(&values, metric::CLOCK_EVENT_REASONS) & !harmless, 0);
            assert!(get(&values, metric::TEMPERATURE) < 80);
        }
        let waiting = read(&fleet, "n01", 1);
        pauses += u32::from(get(&waiting, metric::POWER) < 140_000);
    }
    assert!(
        (20..=120).contains(&pauses),
        "{pauses} minutes of a day in checkpoints"
    );
}

#[test]
fn every_scenario_fits_fleets_of_every_size() {
    for scenario in Scenario::ALL {
        assert_eq!(Scenario::from_name(scenario.name()), Some(scenario));
        for (nodes, gpus) in [(1, 1), (1, 8), (2, 4), (3, 1), (5, 8), (17, 8)] {
            let built = SimFleet::new(&scenario.config(nodes, gpus));
            assert!(
                built.is_ok(),
                "{} on {nodes} x {gpus}: {built:?}",
                scenario.name()
            );
        }
    }
}

#[test]
fn a_fleet_that_cannot_be_is_refused_in_words() {
    let check = |config: SimConfig, expected: &str| {
        let error = SimFleet::new(&config).expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(SimConfig::new(0, 8), "at least 1 node");
    check(SimConfig::new(1, 17), "at least 1 node");
    let strike = |kind, target| {
        SimConfig::new(8, 8).faults(vec![Fault {
            at: Duration::ZERO,
            duration: None,
            kind,
            target,
        }])
    };
    let node = |node: &str| Target::Node { node: node.into() };
    let gpu = |node: &str, gpu| Target::Gpu {
        node: node.into(),
        gpu,
    };
    check(
        strike(FaultKind::LostNode, node("n09")),
        "node n09, which this fleet does not have",
    );
    check(
        strike(FaultKind::HotGpu, gpu("n01", 8)),
        "GPU 8 of node n01, which",
    );
    let full = FaultKind::FullMemory {
        rise: Duration::ZERO,
        job_dies: false,
    };
    check(strike(full, gpu("n08", 7)), "which nobody holds");
    check(
        strike(FaultKind::HotGpu, node("n01")),
        "cannot strike node n01",
    );
}

#[test]
fn a_power_brake_halves_the_clocks_of_a_whole_node() {
    let brake = Fault {
        at: Duration::from_secs(5),
        duration: Some(Duration::from_mins(1)),
        kind: FaultKind::PowerBrake,
        target: Target::Node { node: "n01".into() },
    };
    let mut fleet = SimFleet::new(&SimConfig::new(8, 8).faults(vec![brake])).expect("fits");
    after(&mut fleet, 10);
    for gpu in 0..8 {
        let values = read(&fleet, "n01", gpu);
        let bits = clock_reason::HW_SLOWDOWN | clock_reason::HW_POWER_BRAKE;
        assert_eq!(get(&values, metric::CLOCK_EVENT_REASONS), bits);
        assert!(get(&values, metric::SM_CLOCK) <= 990 && get(&values, metric::POWER) < 420_000);
    }
    assert_eq!(
        get(&read(&fleet, "n02", 0), metric::CLOCK_EVENT_REASONS),
        clock_reason::SW_POWER_CAP
    );
    after(&mut fleet, 70);
    assert_eq!(
        get(&read(&fleet, "n01", 0), metric::CLOCK_EVENT_REASONS),
        clock_reason::SW_POWER_CAP
    );
}

#[test]
fn a_job_that_dies_of_a_full_memory_gives_its_gpus_back() {
    let full = Fault {
        at: Duration::from_secs(5),
        duration: Some(Duration::from_mins(1)),
        kind: FaultKind::FullMemory {
            rise: Duration::from_secs(30),
            job_dies: true,
        },
        target: Target::Gpu {
            node: "n05".into(),
            gpu: 2,
        },
    };
    let mut fleet = SimFleet::new(&SimConfig::new(8, 8).faults(vec![full])).expect("fits");
    after(&mut fleet, 64);
    assert!(fleet.node("n05").expect("there").holder(0).is_some());
    after(&mut fleet, 90);
    for gpu in 0..8 {
        assert_eq!(fleet.node("n05").expect("there").holder(gpu), None);
        assert!(get(&read(&fleet, "n05", gpu), metric::POWER) < 75_000);
    }
    assert!(fleet.node("n06").expect("there").holder(0).is_some());
}

#[test]
fn a_rank_that_is_stuck_on_its_host_keeps_the_others_spinning() {
    let hang = Fault {
        at: Duration::from_secs(5),
        duration: None,
        kind: FaultKind::HungJob { how: Hang::Culprit },
        target: Target::Job { job: "4712".into() },
    };
    let mut fleet = SimFleet::new(&SimConfig::new(8, 8).faults(vec![hang])).expect("fits");
    after(&mut fleet, 3600);
    let busy: Vec<_> = (0..8)
        .map(|gpu| get(&read(&fleet, "n05", gpu), metric::UTILIZATION) > 90)
        .collect();
    assert_eq!(busy, [false, true, true, true, true, true, true, true]);
}

#[test]
fn an_agent_that_is_stopped_says_goodbye_and_comes_back() {
    let stop = Fault {
        at: Duration::from_secs(5),
        duration: Some(Duration::from_secs(15)),
        kind: FaultKind::AgentStop,
        target: Target::Node { node: "n01".into() },
    };
    let mut fleet = SimFleet::new(&SimConfig::new(1, 1).faults(vec![stop])).expect("fits");
    let mut recorder = Recorder::new(&fleet);
    let start = fleet.start();
    let story: Vec<_> = (1..=30)
        .flat_map(|secs| {
            let now = start + Duration::from_secs(secs);
            recorder.tick(&mut fleet, now)
        })
        .filter_map(|row| Some((row.time.since(start).as_secs(), row.event?.name())))
        .collect();
    assert_eq!(story, [(5, "goodbye"), (20, "agent_start")]);
}
