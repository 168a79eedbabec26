//! Stories of causes: one page for one cause.

use entrenar::metric::{self, NvmlStatus, clock_reason};
use entrenar::report::JobKind;

use crate::andon::testing::{Restarts, Stage, failing, spinning, working};
use crate::andon::{Change, Kind, RuleSet, Severity};

#[test]
fn a_gpu_that_falls_off_the_bus_is_one_page() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let mut stage = Stage::new(RuleSet::default()).restarting(restarts);
        stage.hello("n01", 2, &[]);
        stage.work(&["n01"], 5);
        stage.xid("n01", 0, 79);
        for _ in 0..5 {
            stage.tick("n01", &[failing(NvmlStatus::GpuIsLost), working()]);
            stage.step();
        }
        let gpu = "gpu:GPU-n01-0";
        assert_eq!(
            stage.story(),
            format!(
                "5s Raised critical GpuLost {gpu}, 5s Raised critical Xid {gpu} because gpu_lost"
            ),
            "{restarts:?}"
        );
        // Both are over when the GPU is back.
        stage.work(&["n01"], 125);
        assert!(
            stage
                .story()
                .contains(&format!("130s Cleared(Recovered) critical GpuLost {gpu}")),
            "{}",
            stage.story()
        );
        assert!(
            stage
                .story()
                .contains(&format!("Cleared(Recovered) critical Xid {gpu}")),
            "{}",
            stage.story()
        );
    }
}

#[test]
fn a_lost_gpu_explains_the_idleness_of_its_whole_job() {
    let mut stage = Stage::new(RuleSet::default());
    for node in ["n01", "n02"] {
        stage.hello(node, 2, &[]);
    }
    stage.hold(
        "4711",
        JobKind::Train,
        &[("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)],
    );
    stage.work(&["n01", "n02"], 100);
    for _ in 0..1000 {
        stage.tick("n01", &[spinning(), spinning()]);
        stage.tick("n02", &[spinning(), failing(NvmlStatus::GpuIsLost)]);
        stage.step();
    }
    assert_eq!(
        stage.story(),
        "101s Raised critical GpuLost gpu:GPU-n02-1, 280s Raised critical JobHang job:4711 because gpu_lost, 1000s Raised warning GpuIdle job:4711 because gpu_lost"
    );
    assert_eq!(stage.pages(), "101s Raised critical GpuLost gpu:GPU-n02-1");
}

#[test]
fn what_outlives_its_cause_stands_alone() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 2, &[]);
    stage.hello("n02", 2, &[]);
    stage.hold(
        "4711",
        JobKind::Train,
        &[("n01", 0), ("n01", 1), ("n02", 0), ("n02", 1)],
    );
    stage.work(&["n01", "n02"], 100);
    stage.play(&["n01"], &spinning(), 950);
    assert!(
        stage
            .story()
            .ends_with("Raised warning GpuIdle job:4711 because node_lost"),
        "{}",
        stage.story()
    );
    // The node is back; the job hangs on, and that explains its idleness now.
    stage.play(&["n01", "n02"], &spinning(), 200);
    let hangs_alone = "Updated critical JobHang job:4711";
    assert!(stage.story().contains(hangs_alone), "{}", stage.story());
}

#[test]
fn a_cause_that_comes_later_takes_its_consequence_in() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 2, &[]);
    stage.work(&["n01"], 5);
    for _ in 0..10 {
        stage.tick("n01", &[failing(NvmlStatus::Timeout), working()]);
        stage.step();
    }
    stage.xid("n01", 0, 62);
    let gpu = "gpu:GPU-n01-0";
    assert_eq!(
        stage.story(),
        format!(
            "10s Raised critical GpuUnresponsive {gpu}, 15s Raised critical Xid {gpu}, \
             15s Updated critical GpuUnresponsive {gpu} because xid"
        )
    );
}

#[test]
fn a_hung_driver_is_one_finding_on_its_node() {
    for restarts in [Restarts::Never, Restarts::Often] {
        let mut stage = Stage::new(RuleSet::default()).restarting(restarts);
        stage.hello("n01", 8, &[]);
        stage.work(&["n01"], 5);
        stage.play(&["n01"], &failing(NvmlStatus::Timeout), 20);
        stage.work(&["n01"], 20);
        assert_eq!(
            stage.story(),
            "10s Raised critical GpuUnresponsive node:n01, 29s Cleared(Recovered) critical GpuUnresponsive node:n01",
            "{restarts:?}"
        );
    }
}

#[test]
fn many_hot_gpus_of_one_rack_are_one_finding_that_leads() {
    let mut rules = RuleSet::default();
    rules.cooling_failure.enabled = false;
    let mut stage = Stage::new(rules);
    for node in ["n01", "n02", "n03", "n04"] {
        stage.hello(node, 2, &[("rack", "r1")]);
    }
    stage.hello("n05", 2, &[("rack", "r2")]);
    let all = ["n01", "n02", "n03", "n04", "n05"];
    stage.work(&all, 60);
    let hot = working().with(metric::TEMPERATURE, 92).with(
        metric::CLOCK_EVENT_REASONS,
        clock_reason::HW_SLOWDOWN | clock_reason::HW_THERMAL,
    );
    for _ in 0..70 {
        stage.all(&all[..4], &hot);
        stage.all(&["n05"], &working());
        stage.step();
    }
    assert_eq!(
        stage.pages(),
        "62s Raised warning ThermalThrottling gpu:GPU-n01-0"
    );
    let raised = stage
        .said
        .iter()
        .filter(|said| said.change == Change::Raised);
    assert_eq!(raised.count(), 8);
    let leads = |said: &&crate::andon::Transition| said.consequence_of.is_none();
    let last = stage.said.iter().rfind(leads).expect("the first leads");
    assert_eq!(last.severity, Severity::Critical);
    assert!(
        last.finding
            .summary
            .contains("also GPU 1 on n01, GPU 0 on n02"),
        "{}",
        last.finding.summary
    );
    assert!(
        last.finding
            .summary
            .ends_with("all in rack r1, likely one cause"),
        "{}",
        last.finding.summary
    );

    // The first is cool again, the others are not: the finding stays.
    for _ in 0..400 {
        stage.tick("n01", &[working(), hot.clone()]);
        stage.all(&all[1..4], &hot);
        stage.all(&["n05"], &working());
        stage.step();
    }
    assert!(!stage.story().contains("Cleared"), "{}", stage.story());
    stage.work(&all, 400);
    let cleared = stage
        .said
        .iter()
        .filter(|said| matches!(said.change, Change::Cleared { .. }));
    assert_eq!(cleared.count(), 8);
    let end = stage.said.last().expect("the end");
    assert!(
        end.consequence_of.is_none(),
        "the one that led goes last: {end:?}"
    );
    assert!(
        stage.story().matches("Raised").count() == 8,
        "nothing is raised again"
    );
}

#[test]
fn trouble_in_different_racks_is_not_one() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[("rack", "r1")]);
    stage.hello("n02", 1, &[("rack", "r2")]);
    stage.work(&["n01", "n02"], 5);
    stage.xid("n01", 0, 95);
    stage.xid("n02", 0, 95);
    assert_eq!(stage.pages().matches("Raised critical Xid").count(), 2);
}

#[test]
fn a_worse_xid_raises_the_severity_of_the_same_finding() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    for code in [94, 62, 45, 154] {
        stage.xid("n01", 0, code);
        stage.work(&["n01"], 1);
    }
    let gpu = "gpu:GPU-n01-0";
    assert_eq!(
        stage.story(),
        format!("0s Raised warning Xid {gpu}, 1s Updated critical Xid {gpu}")
    );
    let finding = &stage.said[1].finding;
    assert_eq!(
        finding.summary,
        "XID 62 on GPU 0 on n01: internal micro-controller halt (2 events)"
    );
    assert!(finding.action.contains("reset"));
}

#[test]
fn a_victim_s_code_alone_is_a_record_and_a_detail_is_nothing() {
    let mut stage = Stage::new(RuleSet::default());
    stage.hello("n01", 1, &[]);
    stage.xid("n01", 0, 154);
    assert_eq!(stage.story(), "");
    stage.xid("n01", 0, 45);
    assert_eq!(stage.story(), "0s Raised info Xid gpu:GPU-n01-0");
}

#[test]
fn many_lost_gpus_within_a_minute_are_one_page_where_nothing_is_known_of_their_place() {
    let mut stage = Stage::new(RuleSet::default());
    let nodes = ["n01", "n02", "n03", "n04"];
    for node in nodes {
        stage.hello(node, 1, &[]);
    }
    stage.work(&nodes, 5);
    for node in nodes {
        stage.xid(node, 0, 79);
        stage.work(&nodes, 1);
    }
    let leads: Vec<bool> = stage
        .said
        .iter()
        .filter(|said| said.kind == Kind::GpuLost)
        .map(|said| said.consequence_of.is_none())
        .collect();
    // Two calls, then the third shows that they are one: the second is folded, the fourth follows at once.
    let folded = stage
        .said
        .iter()
        .rfind(|said| said.cord().scope == "gpu:GPU-n02-0" && said.kind == Kind::GpuLost);
    assert!(leads[0] && !leads[leads.len() - 1], "{}", stage.story());
    assert!(
        folded.is_some_and(|said| said.consequence_of.is_some()),
        "{}",
        stage.story()
    );
    let first = stage
        .said
        .iter()
        .rfind(|said| said.cord().scope == "gpu:GPU-n01-0" && said.kind == Kind::GpuLost);
    assert!(
        first.is_some_and(|said| said.finding.summary.contains("one moment")),
        "{}",
        stage.story()
    );
}
