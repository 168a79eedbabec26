//! What people hear of a whole fleet, from sample to message: nothing on a calm day, and each trouble once.

use std::time::Duration;

use entrenar::metric::POWER;
use entrenar::sim::Scenario;
use entrenar_aggregator::andon::{Effort, Kind, RuleBook, Scope};
use entrenar_aggregator::incident::{NoticeEvent, State};
use entrenar_tests::{Crash, Fleet};

const SECOND: Duration = Duration::from_secs(1);

fn calm() -> Fleet {
    Fleet::of(&Scenario::Calm.config(8, 8))
}

/// 64 nodes, as 64 agents.
fn wide() -> Fleet {
    Fleet::of(&Scenario::Calm.config(64, 1))
}

fn demo() -> Fleet {
    let rules = include_str!("../../deploy/demo/rules.yaml");
    let rules = RuleBook::parse(rules, "deploy/demo/rules.yaml").expect("it is a rules file");
    Fleet::with_rules(&Scenario::DemoDefault.config(8, 8), rules)
}

fn kinds(fleet: &Fleet, event: NoticeEvent) -> Vec<&'static str> {
    let told = fleet.told();
    let of_event = told.iter().filter(|t| t.event == event);
    let mut kinds: Vec<_> = of_event.map(|t| t.incident.kind.name()).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn a_calm_day_of_64_gpus_tells_nobody_anything() {
    let mut fleet = calm().every(10 * SECOND);
    fleet.run(Duration::from_hours(24));
    assert_eq!(fleet.heard(), "");
}

#[test]
fn each_trouble_of_the_demo_is_told_once_and_its_end_too() {
    let mut fleet = demo();
    fleet.run(Duration::from_mins(2));
    let troubles = [
        "GpuIdle",
        "MemoryPressure",
        "NodeLost",
        "RowRemap",
        "ThermalThrottling",
    ];
    assert_eq!(kinds(&fleet, NoticeEvent::Trigger), troubles);
    fleet.run(Duration::from_hours(1));
    assert_eq!(
        kinds(&fleet, NoticeEvent::Trigger),
        troubles,
        "{}",
        fleet.heard()
    );
    let open: Vec<_> = fleet
        .incidents()
        .into_iter()
        .filter(|i| i.state.is_open())
        .collect();
    assert!(open.is_empty(), "{open:?}");
    assert_eq!(
        kinds(&fleet, NoticeEvent::Resolve),
        troubles,
        "{}",
        fleet.heard()
    );
}

#[test]
fn a_restart_with_64_agents_connected_loses_no_node() {
    let mut fleet = wide();
    fleet.run(Duration::from_mins(3));
    fleet.kill_aggregator();
    fleet.run(8 * SECOND);
    fleet.start_aggregator();
    fleet.run(Duration::from_mins(5));
    assert_eq!(fleet.heard(), "");
    assert!(fleet.incidents().iter().all(|i| i.kind != Kind::NodeLost));
}

#[test]
fn all_agents_gone_for_20_s_is_no_page() {
    let mut fleet = wide();
    fleet.run(Duration::from_mins(3));
    fleet.link(false, |_| true);
    fleet.run(20 * SECOND);
    fleet.link(true, |_| true);
    fleet.run(Duration::from_mins(5));
    assert_eq!(
        kinds(&fleet, NoticeEvent::Trigger),
        [] as [&str; 0],
        "{}",
        fleet.heard()
    );
}

#[test]
fn an_aggregator_that_is_behind_says_so_and_takes_nobody_for_silent() {
    let mut fleet = wide();
    fleet.run(60 * SECOND);
    fleet.jam(true);
    fleet.run(20 * SECOND);
    let lag = fleet.line().lag();
    let behind = lag.behind();
    assert!((19 * SECOND..=20 * SECOND).contains(&behind), "{behind:?}");
    assert_eq!(lag.effort(), Effort::CallsOnly);
    fleet.jam(false);
    fleet.run(15 * SECOND);
    let lag = fleet.line().lag();
    assert_eq!((lag.behind(), lag.effort()), (Duration::ZERO, Effort::All));
    assert_eq!(fleet.heard(), "");
    // A minute in which nothing was watched is worth a word about us, and none about the nodes.
    fleet.jam(true);
    fleet.run(60 * SECOND);
    fleet.jam(false);
    fleet.run(15 * SECOND);
    assert_eq!(kinds(&fleet, NoticeEvent::Trigger), ["MonitoringFault"]);
}

#[test]
fn a_blackout_that_lasts_is_one_page_for_all_its_nodes() {
    let mut fleet = wide();
    fleet.run(Duration::from_mins(3));
    fleet.power(false, |n| n < 20);
    fleet.run(Duration::from_mins(4));
    let lost: Vec<_> = fleet
        .incidents()
        .into_iter()
        .filter(|i| i.kind == Kind::NodeLost)
        .collect();
    assert_eq!(lost.len(), 1, "{}", fleet.heard());
    assert!(matches!(&lost[0].scope, Scope::Nodes { nodes, .. } if nodes.len() == 20));
    let pages = fleet
        .told()
        .into_iter()
        .filter(|t| t.incident.kind == Kind::NodeLost);
    assert_eq!(pages.filter(|t| t.event == NoticeEvent::Trigger).count(), 1);
}

#[test]
fn a_node_that_died_while_the_aggregator_was_away_is_found() {
    let mut fleet = wide();
    fleet.run(Duration::from_mins(3));
    fleet.kill_aggregator();
    fleet.power(false, |n| n == 7);
    fleet.run(30 * SECOND);
    fleet.start_aggregator();
    fleet.run(Duration::from_mins(2));
    assert_eq!(
        kinds(&fleet, NoticeEvent::Trigger),
        ["NodeLost"],
        "{}",
        fleet.heard()
    );
}

#[test]
fn a_goodbye_is_not_a_loss() {
    let mut fleet = wide();
    fleet.run(Duration::from_mins(3));
    fleet.goodbye(|n| n < 4);
    fleet.run(Duration::from_mins(5));
    assert_eq!(fleet.heard(), "");
}

#[test]
fn an_agents_clock_an_hour_off_makes_nobody_look_lost() {
    for off_by_ms in [3_600_000, -3_600_000] {
        let mut fleet = wide();
        fleet.clock(off_by_ms, |n| n == 3);
        fleet.run(Duration::from_mins(10));
        let kinds: Vec<_> = fleet.incidents().iter().map(|i| i.kind).collect();
        assert_eq!(
            kinds,
            [Kind::MonitoringFault],
            "{off_by_ms} ms: {}",
            fleet.heard()
        );
    }
}

#[test]
fn a_gap_of_ten_minutes_fills_to_the_last_sample_while_live_data_is_current() {
    let mut fleet = calm();
    fleet.run(Duration::from_mins(2));
    fleet.kill_aggregator();
    fleet.run(Duration::from_mins(10));
    fleet.start_aggregator();
    // Back-off is the agent's own affair; from the reconnection on, two seconds are enough for the present.
    fleet.run(SECOND);
    for _ in 0..300 {
        fleet.run(SECOND);
        for gpu in fleet.line().gpus() {
            let age = fleet.now().since(gpu.sampled_at.expect("sampled"));
            assert!(age <= 2 * SECOND, "{} is {age:?} behind", gpu.at.uuid);
        }
    }
    for gpu in fleet.gpus() {
        let (kept, sampled) = (fleet.series(&gpu, POWER), fleet.sampled(&gpu, POWER));
        assert_eq!(kept.len(), sampled.len(), "{gpu}");
        assert_eq!(kept, sampled, "{gpu}");
    }
}

#[test]
fn a_crash_at_any_step_of_deciding_leaves_the_same_incidents() {
    let story = |crash: Option<Crash>| {
        let mut fleet = demo();
        if let Some(crash) = crash {
            fleet.crash_at_decisions(crash);
        }
        fleet.run(Duration::from_mins(4));
        let mut kinds: Vec<_> = fleet
            .incidents()
            .iter()
            .map(|i| (i.kind, i.scope.key()))
            .collect();
        kinds.sort();
        let mut deliveries: Vec<_> = fleet
            .told()
            .iter()
            .map(|t| (t.incident.id.clone(), t.event.name()))
            .collect();
        deliveries.sort();
        deliveries.dedup();
        assert_eq!(
            deliveries.len(),
            fleet.told().len(),
            "something was told twice: {}",
            fleet.heard()
        );
        (kinds, fleet.n_crashes())
    };
    let (calm, _) = story(None);
    for crash in [
        Crash::NothingKept,
        Crash::Decided,
        Crash::Committed,
        Crash::AllKept,
    ] {
        let (kinds, n_crashes) = story(Some(crash));
        assert!(n_crashes >= 5, "{crash:?} struck {n_crashes} times only");
        assert_eq!(kinds, calm, "{crash:?}");
    }
}

#[test]
fn an_incident_that_a_person_closed_stays_closed_over_a_restart() {
    let mut fleet = demo();
    fleet.run(Duration::from_mins(2));
    let closed = fleet.close_all("not ours");
    assert_eq!(closed, 5);
    fleet.kill_aggregator();
    fleet.run(5 * SECOND);
    fleet.start_aggregator();
    fleet.run(Duration::from_mins(2));
    let states: Vec<_> = fleet.incidents().iter().map(|i| i.state).collect();
    assert_eq!(states, [State::Closed; 5], "{}", fleet.heard());
}
