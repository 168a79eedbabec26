//! Stories of nodes: silence, goodbyes, restarts, clocks.

use std::sync::Arc;
use std::time::Duration;

use entrenar::report::{JobKind, Labels};
use entrenar::unit::Timestamp;

use crate::andon::testing::{BEGIN, Restarts, Stage, idle, inventory, spinning, working};
use crate::andon::{Change, Engine, Kind, Presence, RuleSet, Scope, Severity};

fn names(n: usize) -> Vec<String> {
    (1..=n).map(|n| format!("n{n:02}")).collect()
}

/// So many nodes of one GPU, eight to a rack, that have worked for two minutes.
fn fleet(n: usize, restarts: Restarts) -> (Stage, Vec<String>) {
    let names = names(n);
    let mut stage = Stage::new(RuleSet::default()).restarting(restarts);
    for (i, name) in names.iter().enumerate() {
        let rack = format!("r{}", i / 8);
        stage.hello(name, 1, &[("rack", &rack)]);
    }
    stage.work(&refs(&names), 120);
    (stage, names)
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn presence(stage: &Stage, node: &str) -> Option<Presence> {
    stage.engine.presence(&node.into())
}

#[test]
fn a_node_of_which_nothing_tells_is_lost_after_forty_seconds_and_back_after_three_ticks() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let (mut stage, names) = fleet(20, restarts);
        let others = refs(&names[1..]);
        stage.work(&others, 60);
        assert_eq!(presence(&stage, "n01"), Some(Presence::Silent));
        stage.work(&refs(&names), 10);
        assert_eq!(
            stage.story(),
            "160s Raised critical NodeLost node:n01, 182s Cleared(Recovered) critical NodeLost node:n01",
            "{restarts:?}"
        );
        assert_eq!(presence(&stage, "n01"), Some(Presence::Live));
        stage.assert_times_rise();
    }
}

#[test]
fn a_late_message_is_not_a_lost_node() {
    let (mut stage, names) = fleet(20, Restarts::Never);
    for _ in 0..10 {
        stage.work(&refs(&names[1..]), 4);
        assert_eq!(presence(&stage, "n01"), Some(Presence::Late));
        stage.work(&refs(&names), 2);
    }
    assert_eq!(stage.story(), "");
}

#[test]
fn a_slow_pace_has_more_patience() {
    let mut stage = Stage::new(RuleSet::default()).every(Duration::from_secs(10));
    for node in ["n01", "n02", "n03"] {
        stage.hello(node, 1, &[]);
    }
    stage.work(&["n01", "n02", "n03"], 120);
    stage.work(&["n02", "n03"], 60);
    assert_eq!(stage.story(), "170s Raised critical NodeLost node:n01");
}

#[test]
fn a_rule_that_is_switched_off_holds_no_silent_node() {
    let nodes = ["n01", "n02", "n03", "n04", "n05"];
    let mut stage = Stage::new(RuleSet::default());
    for node in nodes {
        stage.hello(node, 1, &[]);
    }
    stage.work(&nodes, 70);
    stage.work(&nodes[..1], 20);
    let mut rules = RuleSet::default();
    rules.monitoring_fault.enabled = false;
    stage.engine.set_rules(stage.now, rules);
    stage.work(&nodes[..1], 60);
    let said = stage.story();
    let (us, them) = ("MonitoringFault fleet", "NodeLost");
    assert_eq!(said.matches(us).count(), 2, "raised and let go: {said}");
    assert!(said.contains(them), "{said}");
}

#[test]
fn a_goodbye_makes_a_node_grey_not_lost() {
    let (mut stage, names) = fleet(4, Restarts::Often);
    stage.engine.goodbye(stage.now, &"n01".into());
    stage.work(&refs(&names[1..]), 300);
    assert_eq!(stage.story(), "");
    assert_eq!(presence(&stage, "n01"), Some(Presence::Gone));
    stage.hello("n01", 1, &[]);
    assert_eq!(presence(&stage, "n01"), Some(Presence::Live));
    stage.work(&refs(&names), 10);
    assert_eq!(stage.story(), "");
}

#[test]
fn all_agents_gone_for_twenty_seconds_is_no_page() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let (mut stage, names) = fleet(64, restarts);
        stage.work(&[], 20);
        stage.work(&refs(&names), 120);
        assert_eq!(
            stage.story(),
            "125s Raised info MonitoringFault fleet, 140s Cleared(Recovered) info MonitoringFault fleet",
            "{restarts:?}"
        );
        assert_eq!(stage.pages(), "");
    }
}

#[test]
fn agents_that_stay_away_are_one_finding_after_a_minute() {
    let (mut stage, names) = fleet(20, Restarts::Often);
    stage.work(&refs(&names[12..]), 200);
    let group = "nodes:silent since 22:15:19 UTC";
    assert_eq!(
        stage.story(),
        format!(
            "125s Raised info MonitoringFault fleet, 164s Updated warning MonitoringFault fleet, \
             185s Raised critical NodeLost {group}, 185s Cleared(Explained) warning MonitoringFault fleet"
        )
    );
    stage.work(&refs(&names), 10);
    assert!(stage.story().ends_with(&format!(
        "322s Cleared(Recovered) critical NodeLost {group}"
    )));
}

#[test]
fn silence_that_is_held_loses_nobody_once_the_rule_is_off() {
    let (mut stage, names) = fleet(20, Restarts::Never);
    stage.work(&refs(&names[12..]), 20);
    let mut rules = RuleSet::default();
    rules.node_lost.enabled = false;
    stage.engine.set_rules(stage.now, Arc::new(rules));
    stage.work(&refs(&names[12..]), 120);
    assert_eq!(
        stage.story(),
        "125s Raised info MonitoringFault fleet, 164s Updated warning MonitoringFault fleet, \
         185s Cleared(Explained) warning MonitoringFault fleet"
    );
}

#[test]
fn the_nodes_of_a_rack_that_go_dark_together_are_one_page() {
    // Four of 64 are not enough to doubt the monitoring.
    let (mut stage, names) = fleet(64, Restarts::Never);
    let others: Vec<&str> = refs(&names)
        .into_iter()
        .filter(|n| !["n01", "n02", "n03", "n05"].contains(n))
        .collect();
    stage.work(&others, 60);
    assert_eq!(stage.story(), "160s Raised critical NodeLost nodes:rack r0");
    let raised = &stage.said[0];
    assert!(matches!(&raised.scope, Scope::Nodes { nodes, .. } if nodes.len() == 4));
    assert!(
        raised
            .finding
            .summary
            .starts_with("4 nodes are silent together (rack r0)")
    );
}

#[test]
fn a_restart_with_all_agents_connected_loses_nobody() {
    let (mut stage, names) = fleet(64, Restarts::Never);
    stage.restart();
    stage.now = stage.now + Duration::from_secs(90);
    stage.engine.resume(stage.now);
    // They come back one after the other.
    for n in (0..=names.len()).step_by(2) {
        stage.work(&refs(&names[..n]), 1);
    }
    stage.work(&refs(&names), 120);
    assert_eq!(stage.pages(), "");
    assert!(!stage.story().contains("NodeLost"), "{}", stage.story());
}

#[test]
fn a_quick_restart_gives_agents_time_to_come_back() {
    let (mut stage, names) = fleet(64, Restarts::Never);
    stage.restart();
    stage.now = stage.now + Duration::from_secs(8);
    stage.engine.resume(stage.now);
    stage.work(&[], 12);
    assert_eq!(presence(&stage, "n01"), Some(Presence::Expected));
    stage.work(&refs(&names[1..]), 100);
    assert_eq!(stage.story(), "188s Raised critical NodeLost node:n01");
}

#[test]
fn a_time_in_which_nobody_watched_is_a_warning_unless_it_was_a_restart() {
    let (mut stage, names) = fleet(64, Restarts::Never);
    stage.now = stage.now + Duration::from_mins(4);
    stage.work(&refs(&names), 120);
    assert_eq!(
        stage.story(),
        "360s Raised warning MonitoringFault fleet, 420s Cleared(Recovered) warning MonitoringFault fleet"
    );
}

#[test]
fn a_clock_that_ran_ahead_blinds_nobody_once_it_is_right() {
    let (mut stage, _) = fleet(4, Restarts::Never);
    let ahead = stage.now + Duration::from_hours(1);
    stage
        .engine
        .observe(stage.now, &"n01".into(), ahead, true, &[working()]);
    stage.play(
        &["n01"],
        &crate::andon::testing::failing(entrenar::metric::NvmlStatus::GpuIsLost),
        3,
    );
    assert_eq!(stage.story(), "121s Raised critical GpuLost gpu:GPU-n01-0");
}

#[test]
fn a_start_from_the_stored_inventory_finds_the_node_that_died_meanwhile() {
    let mut stage = Stage::new(RuleSet::default());
    let names = names(64);
    for name in &names {
        let labels = Labels::new();
        stage.engine.expect(
            stage.now,
            &name.as_str().into(),
            &labels,
            &inventory(name, 1),
            1000,
        );
    }
    for name in &names[1..] {
        stage.hello(name, 1, &[]);
    }
    assert_eq!(presence(&stage, "n01"), Some(Presence::Expected));
    stage.work(&refs(&names[1..]), 120);
    assert_eq!(stage.story(), "60s Raised critical NodeLost node:n01");
}

#[test]
fn a_restart_after_a_long_outage_finds_the_node_that_died_meanwhile() {
    let (mut stage, names) = fleet(64, Restarts::Never);
    stage.restart();
    stage.now = stage.now + Duration::from_hours(1);
    stage.engine.resume(stage.now);
    let back = stage.now.as_secs_f64() - BEGIN.as_secs_f64();
    stage.work(&refs(&names[1..]), 120);
    assert_eq!(
        stage.pages(),
        format!("{}s Raised critical NodeLost node:n01", back + 60.0)
    );
}

#[test]
fn a_lost_node_stays_lost_over_a_restart_and_is_not_raised_again() {
    let (mut stage, names) = fleet(20, Restarts::Never);
    stage.work(&refs(&names[1..]), 30);
    stage.restart();
    stage.now = stage.now + Duration::from_secs(30);
    stage.work(&refs(&names[1..]), 120);
    stage.work(&refs(&names), 5);
    let said = stage.said.iter().filter(|said| said.kind == Kind::NodeLost);
    let changes: Vec<Change> = said.map(|said| said.change).collect();
    assert!(
        matches!(changes[..], [Change::Raised, Change::Cleared { .. }]),
        "{changes:?}"
    );
}

#[test]
fn a_clock_an_hour_off_makes_nobody_else_look_lost() {
    for hours in [-1, 1] {
        let (mut stage, names) = fleet(20, Restarts::Never);
        let off = Timestamp(hours * 3_600_000);
        for _ in 0..120 {
            let corrected = stage.now;
            stage.engine.clock_offset(stage.now, &"n01".into(), off.0);
            stage
                .engine
                .observe(stage.now, &"n01".into(), corrected, true, &[working()]);
            stage.all(&refs(&names[1..]), &working());
            stage.step();
        }
        assert_eq!(
            stage.story(),
            "120s Raised warning MonitoringFault node:n01"
        );
        // Uncorrected, it still harms only itself.
        for _ in 0..60 {
            let uncorrected = Timestamp(stage.now.0 + off.0);
            stage
                .engine
                .observe(stage.now, &"n01".into(), uncorrected, true, &[working()]);
            stage.all(&refs(&names[1..]), &working());
            stage.step();
        }
        stage.engine.clock_offset(stage.now, &"n01".into(), 5);
        stage.step();
        assert_eq!(
            stage.story(),
            "120s Raised warning MonitoringFault node:n01, 300s Cleared(Recovered) warning MonitoringFault node:n01"
        );
    }
}

#[test]
fn raised_cords_without_data_are_unknown_not_recovered() {
    let (mut stage, names) = fleet(20, Restarts::Often);
    stage.xid("n01", 0, 62);
    stage.work(&refs(&names), 3);
    stage.work(&refs(&names[1..]), 60);
    stage.work(&refs(&names), 5);
    let gpu = "gpu:GPU-n01-0";
    assert_eq!(
        stage.story(),
        format!(
            "120s Raised critical Xid {gpu}, 128s DataLost critical Xid {gpu}, 163s Raised critical NodeLost node:n01, \
             163s Updated critical Xid {gpu} because node_lost, \
             183s DataBack critical Xid {gpu} because node_lost, 185s Cleared(Recovered) critical NodeLost node:n01"
        )
    );
}

#[test]
fn a_node_that_is_forgotten_takes_its_trouble_along() {
    let (mut stage, names) = fleet(20, Restarts::Never);
    stage.xid("n01", 0, 62);
    stage.work(&refs(&names[1..]), 60);
    stage.engine.forget_node(stage.now, &"n01".into());
    stage.work(&refs(&names[1..]), 60);
    assert!(
        stage
            .story()
            .contains("180s Cleared(Recovered) critical NodeLost node:n01"),
        "{}",
        stage.story()
    );
    assert!(
        stage
            .story()
            .contains("180s Cleared(Decommissioned) critical Xid gpu:GPU-n01-0"),
        "{}",
        stage.story()
    );
    assert_eq!(presence(&stage, "n01"), None);
}

#[test]
fn lost_history_is_named_where_it_may_matter() {
    let (mut stage, _) = fleet(4, Restarts::Often);
    stage.engine.lost_history(stage.now, &"n01".into(), 120);
    stage.xid("n01", 0, 62);
    stage.xid("n02", 0, 62);
    assert_eq!(
        stage.said[0].finding.missing,
        ["120 ticks that n01 could not deliver"]
    );
    assert!(stage.said[1].finding.missing.is_empty());
}

#[test]
fn a_gpu_that_is_no_longer_listed_is_lost_and_one_that_was_replaced_is_not() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 4, &[]);
    stage.work(&["n01"], 10);
    let mut fewer = inventory("n01", 4);
    fewer.generation = 2;
    fewer.gpus.remove(3);
    stage.engine.inventory(stage.now, &"n01".into(), &fewer);
    stage.step();
    assert_eq!(stage.story(), "10s Raised critical GpuLost gpu:GPU-n01-3");
    // A new board in slot 2.
    fewer.gpus[2].uuid = "GPU-new".into();
    stage.engine.inventory(stage.now, &"n01".into(), &fewer);
    stage.step();
    assert_eq!(stage.said.len(), 1);
    // The lost one is back.
    stage.hello("n01", 4, &[]);
    stage.work(&["n01"], 130);
    assert!(
        stage
            .story()
            .ends_with("132s Cleared(Recovered) critical GpuLost gpu:GPU-n01-3"),
        "{}",
        stage.story()
    );
}

#[test]
fn the_same_calls_give_the_same_transitions() {
    let play = || {
        let (mut stage, names) = fleet(30, Restarts::Never);
        stage.xid("n05", 0, 79);
        stage.work(&refs(&names[4..]), 100);
        (stage.said, stage.engine.snapshot())
    };
    let (first, second) = (play(), play());
    assert_eq!(first.0, second.0);
    assert_eq!(first.1, second.1);
}

#[test]
fn a_snapshot_of_another_version_or_with_damage_is_refused() {
    let rules = || Arc::new(RuleSet::default());
    let json = serde_json::json!({ "version": 99, "memory": {} });
    let pack = |plain: &[u8]| zstd::encode_all(plain, 1).expect("encodes");
    let newer = pack(&rmp_serde::to_vec_named(&json).expect("encodes"));
    let older = pack(br#"{"version":1,"memory":{}}"#);
    let said = |bytes: &[u8]| {
        Engine::restore(rules(), bytes)
            .err()
            .map(|wrong| wrong.to_string())
    };
    assert_eq!(
        said(&newer).as_deref(),
        Some("the engine's snapshot has version 99, this build knows 2")
    );
    assert_eq!(
        said(&older).as_deref(),
        Some("the engine's snapshot has version 1, this build knows 2")
    );
    assert_eq!(
        said(b"noise").as_deref(),
        Some("the engine's snapshot cannot be read")
    );
}

#[test]
fn nothing_a_stranger_says_is_held_against_anyone() {
    let mut stage = Stage::new(RuleSet::default());
    stage
        .engine
        .observe(stage.now, &"n99".into(), stage.now, true, &[working()]);
    stage.xid("n99", 0, 79);
    stage.give("n99", 0, None);
    stage.step();
    assert!(
        stage
            .said
            .iter()
            .all(|said| said.severity < Severity::Critical),
        "{}",
        stage.story()
    );
}

#[test]
fn nobody_is_called_for_a_node_that_people_work_on() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let (mut stage, names) = fleet(20, restarts);
        stage.engine.maintenance(stage.now, &"n01".into(), true);
        stage.xid("n01", 0, 62);
        stage.work(&refs(&names[1..]), 300);
        assert_eq!(stage.pages(), "", "{restarts:?}");
        // Still broken when they are done: now it matters.
        stage.work(&refs(&names), 5);
        stage.engine.maintenance(stage.now, &"n01".into(), false);
        stage.work(&refs(&names), 60);
        assert!(
            stage
                .story()
                .contains("425s Updated critical Xid gpu:GPU-n01-0"),
            "{}",
            stage.story()
        );
    }
}

#[test]
fn a_node_that_is_silent_when_people_are_done_has_time_to_come_back() {
    let (mut stage, names) = fleet(20, Restarts::Never);
    stage.engine.maintenance(stage.now, &"n01".into(), true);
    stage.work(&refs(&names[1..]), 600);
    stage.engine.maintenance(stage.now, &"n01".into(), false);
    stage.work(&refs(&names[1..]), 4);
    stage.work(&refs(&names), 60);
    assert_eq!(stage.story(), "");
}

/// Nodes of two GPUs with one job on each four of them, that have worked for two minutes.
fn fleet_with_jobs(n: usize, restarts: Restarts) -> (Stage, Vec<String>) {
    let names = names(n);
    let mut stage = Stage::new(RuleSet::default()).restarting(restarts);
    for name in &names {
        stage.hello(name, 2, &[]);
    }
    for (job, nodes) in names.chunks(4).enumerate() {
        let gpus: Vec<(&str, u32)> = nodes
            .iter()
            .flat_map(|node| [(node.as_str(), 0), (node.as_str(), 1)])
            .collect();
        stage.hold(&format!("job{job}"), JobKind::Train, &gpus);
    }
    stage.work(&refs(&names), 120);
    (stage, names)
}

/// Some nodes wait busily while others work.
fn play_two(stage: &mut Stage, waiting: &[&str], at_work: &[&str], seconds: u64) {
    for _ in 0..seconds {
        stage.all(waiting, &spinning());
        stage.all(at_work, &working());
        stage.step();
    }
}

#[test]
fn a_node_whose_job_stops_with_it_is_lost_within_four_seconds() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let (mut stage, names) = fleet_with_jobs(20, restarts);
        let names = refs(&names);
        play_two(&mut stage, &[], &names[1..], 1);
        play_two(&mut stage, &names[1..4], &names[4..], 30);
        assert_eq!(
            stage.story(),
            "123s Raised critical NodeLost node:n01",
            "{restarts:?}"
        );
    }
}

#[test]
fn an_agent_that_dies_while_its_job_works_on_is_no_page() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let (mut stage, names) = fleet_with_jobs(20, restarts);
        let names = refs(&names);
        stage.work(&names[1..], 100);
        // The job pauses much later: that says nothing of the node.
        play_two(&mut stage, &names[1..4], &names[4..], 30);
        stage.work(&names, 10);
        assert_eq!(
            stage.story(),
            "181s Raised warning MonitoringFault node:n01, 252s Cleared(Recovered) warning MonitoringFault node:n01",
            "{restarts:?}"
        );
    }
}

#[test]
fn a_rolling_upgrade_during_a_checkpoint_calls_nobody() {
    let (mut stage, names) = fleet_with_jobs(20, Restarts::Never);
    let names = refs(&names);
    // The job pauses, and ten seconds later an agent is replaced without a goodbye.
    play_two(&mut stage, &names[..4], &names[4..], 10);
    play_two(&mut stage, &names[1..4], &names[4..], 20);
    play_two(&mut stage, &names[..4], &names[4..], 20);
    stage.work(&names, 60);
    assert_eq!(stage.story(), "");
}

#[test]
fn a_node_that_nobody_used_is_missed_as_a_warning() {
    let names = names(20);
    let names = refs(&names);
    let mut stage = Stage::new(RuleSet::default());
    for name in &names {
        stage.hello(name, 2, &[]);
    }
    stage.play(&names, &idle(), 120);
    stage.play(&names[1..], &idle(), 120);
    assert_eq!(stage.story(), "181s Raised warning NodeLost node:n01");
}

#[test]
fn a_partition_whose_jobs_stop_elsewhere_is_one_page_however_large_its_share_is() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let (mut stage, names) = fleet_with_jobs(16, restarts);
        let names = refs(&names);
        // Two nodes of each of two jobs, a quarter of the fleet; the jobs' other nodes wait.
        let waiting = [names[2], names[3], names[6], names[7]];
        play_two(&mut stage, &waiting, &names[8..], 200);
        let raised = stage.pages();
        assert!(
            raised.starts_with("123s Raised critical NodeLost nodes:silent since"),
            "{raised}"
        );
        assert_eq!(raised.matches("Raised").count(), 1, "{raised}");
        let nodes = stage.said.iter().find_map(|said| match &said.scope {
            Scope::Nodes { nodes, .. } => Some(nodes.len()),
            _ => None,
        });
        assert_eq!(nodes, Some(4));
    }
}

#[test]
fn nodes_that_are_late_while_their_jobs_work_on_are_a_fault_of_the_monitoring() {
    let (mut stage, names) = fleet_with_jobs(16, Restarts::Never);
    let names = refs(&names);
    let heard: Vec<&str> = names.iter().copied().skip(1).step_by(2).collect();
    stage.work(&heard, 200);
    stage.work(&names, 20);
    let story = stage.story();
    assert!(!story.contains("NodeLost"), "{story}");
    assert_eq!(
        story,
        "125s Raised info MonitoringFault fleet, 164s Updated warning MonitoringFault fleet, \
         320s Cleared(Recovered) warning MonitoringFault fleet"
    );
}

#[test]
fn a_fleet_of_which_nothing_is_heard_is_our_fault_for_as_long_as_it_lasts() {
    let (mut stage, names) = fleet_with_jobs(16, Restarts::Often);
    stage.work(&[], 1000);
    let story = stage.story();
    assert!(!story.contains("NodeLost"), "{story}");
    assert!(
        story.ends_with("1019s Updated critical MonitoringFault fleet"),
        "{story}"
    );
    stage.work(&refs(&names), 20);
    assert!(
        stage
            .story()
            .ends_with("1120s Cleared(Recovered) critical MonitoringFault fleet"),
        "{}",
        stage.story()
    );
}

#[test]
fn a_node_that_comes_and_goes_flaps_and_calls_nobody_each_time() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let (mut stage, names) = fleet_with_jobs(16, restarts);
        let names = refs(&names);
        for _ in 0..5 {
            stage.work(&names[1..], 30);
            stage.work(&names, 30);
        }
        assert_eq!(
            stage.story(),
            "270s Raised warning NodeFlapping node:n01",
            "{restarts:?}"
        );
        stage.work(&names, 1900);
        assert!(
            stage
                .story()
                .ends_with("Cleared(Recovered) warning NodeFlapping node:n01"),
            "{}",
            stage.story()
        );
    }
}

#[test]
fn nodes_that_get_hot_together_are_one_page_that_explains_their_end() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let (mut stage, names) = fleet_with_jobs(16, restarts);
        let names = refs(&names);
        let (hot, cool) = names.split_at(4);
        let warm = working().with(
            entrenar::metric::CLOCK_EVENT_REASONS,
            entrenar::metric::clock_reason::SW_THERMAL,
        );
        // One after the other, a minute apart.
        for minute in 1..=4 {
            for _ in 0..60 {
                stage.all(&hot[..minute], &warm);
                stage.all(&hot[minute..], &working());
                stage.all(cool, &working());
                stage.step();
            }
        }
        // They shut down; their job goes with them.
        stage.work(cool, 1000);
        let critical: Vec<String> = stage
            .said
            .iter()
            .filter(|said| said.severity == Severity::Critical && said.consequence_of.is_none())
            .filter(|said| said.change == Change::Raised)
            .map(|said| said.kind.name().to_owned())
            .collect();
        assert_eq!(
            critical,
            ["CoolingFailure"],
            "{restarts:?} {}",
            stage.story()
        );
        let lost = stage.said.iter().find(|said| said.kind == Kind::NodeLost);
        let cause = lost.and_then(|said| said.consequence_of.as_ref());
        assert!(
            cause.is_some_and(|cause| &*cause.rule.0 == "cooling_failure"),
            "{}",
            stage.story()
        );
    }
}
