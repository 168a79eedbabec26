//! Stories of the catalogue: every scenario can be set, and looks like what its label says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::gpu::Values;
use crate::metric::{self, MetricId, NvmlStatus, clock_reason};
use crate::sim::feed::{Feed, News, NodeTick, Voice};
use crate::sim::node_name;
use crate::sim::stage::{Label, LabelSeverity, Model, Setting};
use crate::unit::Timestamp;

fn setting(seed: u64, lasts_s: u32) -> Setting {
    Setting {
        seed,
        start: Timestamp::from_secs(1_700_000_000),
        lasts: Duration::from_secs(u64::from(lasts_s)),
        interval: Duration::from_secs(10),
        model: Model::H100,
        gpus_per_node: 8,
        has_job_ids: true,
        has_racks: true,
    }
}

fn play(case: &Case, setting: Setting) -> Feed {
    let mut stage = Stage::new(setting);
    if case.takes_all {
        stage.training(2);
        stage.training(1);
    }
    case.set(&mut stage);
    let show = stage.raise().expect("nobody takes a GPU twice");
    Feed::new(show, Voice::default())
}

fn feed_of(id: &str, seed: u64) -> Feed {
    let case = case(id).expect("it is in the catalogue");
    play(case, setting(seed, case.needs_s))
}

/// What a trace says of each GPU: seconds since its start, and the row.
type Told = BTreeMap<(String, u32), Vec<(f64, Values)>>;

fn told(feed: Feed) -> (Told, Vec<NodeTick>) {
    let start = feed.setting().start;
    let names: Vec<_> = feed.nodes().iter().map(|n| n.name.to_string()).collect();
    let ticks: Vec<_> = feed.collect();
    let mut told = Told::new();
    for tick in &ticks {
        let at = (tick.at.0 - start.0) as f64 / 1e3;
        for (gpu, row) in (0..).zip(&tick.rows) {
            let key = (names[tick.node].clone(), gpu);
            told.entry(key).or_default().push((at, row.clone()));
        }
    }
    (told, ticks)
}

fn required(feed: &Feed) -> Vec<Label> {
    let all = feed.labels().iter();
    all.filter(|label| label.required).cloned().collect()
}

fn start_of(label: &Label) -> f64 {
    label.start - 1_700_000_000.0
}

/// The median of a metric between two seconds, in display units.
fn median(rows: &[(f64, Values)], metric: MetricId, from: f64, to: f64) -> f64 {
    let within = rows.iter().filter(|(at, _)| (from..to).contains(at));
    let mut values: Vec<f64> = within.filter_map(|(_, row)| row.display(metric)).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How much a counter grows between two seconds.
fn growth(rows: &[(f64, Values)], metric: MetricId, from: f64, to: f64) -> i64 {
    let within = rows.iter().filter(|(at, _)| (from..to).contains(at));
    let values: Vec<i64> = within.filter_map(|(_, row)| row.get(metric)).collect();
    values.last().expect("reported") - values[0]
}

#[test]
fn names_are_unique_and_the_whole_catalogue_is_there() {
    let ids: BTreeSet<_> = catalogue().map(|case| case.id).collect();
    assert_eq!(ids.len(), catalogue().count());
    let family = |letter: char, last: u32| (1..=last).map(move |n| format!("{letter}{n}"));
    let wanted = family('N', 30)
        .chain(family('H', 12))
        .chain(family('S', 7))
        .chain(family('X', 9))
        .chain(family('L', 4))
        .chain(family('M', 2))
        .chain(family('Z', 1))
        .chain(family('W', 2))
        .chain(family('C', 2));
    for id in wanted {
        assert!(ids.contains(id.as_str()), "{id} is missing");
    }
}

#[test]
fn every_scenario_can_be_set_from_many_seeds_on_every_board() {
    for case in catalogue() {
        for seed in 0..12 {
            for model in [Model::H100, Model::A100, Model::B200] {
                let mut setting = setting(seed, case.needs_s);
                setting.model = model;
                let (start, end) = (1_700_000_000.0, 1_700_000_000.0 + f64::from(case.needs_s));
                let feed = play(case, setting);
                for label in feed.labels() {
                    assert!(
                        start <= label.start && label.start < label.end && label.end <= end,
                        "{case:?} {seed}: {label:?}"
                    );
                    let is_somewhere = !(label.nodes.is_empty() && label.gpus.is_empty());
                    assert!(
                        is_somewhere && label.deadline_s > 0.0,
                        "{case:?}: {label:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_look_alike_has_nothing_that_must_be_found_and_an_incident_has() {
    for case in catalogue() {
        let feed = play(case, setting(5, case.needs_s));
        let labels = required(&feed);
        let worst = labels.iter().map(|label| label.severity).max();
        let expected = match case.expect {
            Expect::Nothing => None,
            Expect::Warning => Some(LabelSeverity::Warning),
            Expect::Page => Some(LabelSeverity::Critical),
        };
        // Of a link that is back at once, something may be said.
        if case.id != "H11-flap" {
            assert_eq!(worst, expected, "{case:?}: {labels:?}");
        }
    }
}

#[test]
fn a_job_that_hangs_spins_at_idle_power_and_its_culprit_does_not() {
    for seed in 1..6 {
        let feed = feed_of("H2", seed);
        let label = required(&feed).remove(0);
        let (told, _) = told(feed);
        let (from, to) = (start_of(&label) + 30.0, start_of(&label) + 500.0);
        let culprit = &label.culprits[0];
        for ((node, gpu), rows) in &told {
            let watts = median(rows, metric::POWER, from, to);
            let busy = median(rows, metric::UTILIZATION, from, to);
            let before = median(rows, metric::POWER, from - 150.0, from - 31.0);
            assert!(before > 110.0, "{before}");
            assert!(watts < 135.0, "{node}/{gpu}: {watts} W");
            let is_culprit = *node == culprit.node && Some(*gpu) == culprit.gpu;
            assert_eq!(busy < 5.0, is_culprit, "{node}/{gpu}: {busy} %");
            assert_eq!(growth(rows, metric::NVLINK_TX, from, to), 0);
        }
    }
}

#[test]
fn a_stuck_checkpoint_begins_like_the_others_and_writes_nothing() {
    let feed = feed_of("H8", 3);
    let label = required(&feed).remove(0);
    let (told, _) = told(feed);
    let writer = &told[&(label.culprits[0].node.clone(), 0)];
    let at = start_of(&label);
    assert!(growth(writer, metric::PCIE_TX, at - 10.0, at + 20.0) > 2_000_000_000);
    assert_eq!(
        growth(writer, metric::PROCESS_WRITE, at + 20.0, at + 500.0),
        0
    );
    assert!(growth(writer, metric::PROCESS_WRITE, 0.0, at) > 2_000_000_000);
}

#[test]
fn a_hot_gpu_is_held_at_its_limit_and_the_others_wait_for_it() {
    for seed in 1..6 {
        let feed = feed_of("S1", seed);
        let label = required(&feed).remove(0);
        let (told, _) = told(feed);
        let (from, to) = (start_of(&label) + 60.0, start_of(&label) + 700.0);
        let culprit = &label.culprits[0];
        let bits = clock_reason::HW_THERMAL | clock_reason::HW_SLOWDOWN;
        for ((node, gpu), rows) in &told {
            let is_culprit = *node == culprit.node && Some(*gpu) == culprit.gpu;
            let clock = median(rows, metric::SM_CLOCK, from, to);
            let hottest = rows
                .iter()
                .filter_map(|(_, row)| row.get(metric::TEMPERATURE));
            let hottest = hottest.max().expect("reported");
            let within = rows.iter().filter(|(at, _)| (from..to).contains(at));
            let cut = within
                .filter_map(|(_, row)| row.get(metric::CLOCK_EVENT_REASONS))
                .filter(|reasons| reasons & bits == bits)
                .count();
            assert_eq!(clock < 1_400.0, is_culprit, "{node}/{gpu}: {clock} MHz");
            assert_eq!(hottest >= 88, is_culprit, "{node}/{gpu}: {hottest}");
            assert!(hottest <= 90, "{hottest}");
            assert_eq!(cut > 20, is_culprit, "{node}/{gpu}: {cut} ticks");
        }
        // Those that wait draw less, and are as busy as ever.
        let peer = told
            .iter()
            .find(|((n, g), _)| *n == culprit.node && Some(*g) != culprit.gpu);
        let rows = peer.expect("a node has eight").1;
        let joules =
            |from: f64, to: f64| growth(rows, metric::ENERGY, from, to) as f64 / (to - from);
        let (calm, slow) = (from - 260.0, from - 200.0);
        assert!(joules(from, to) < 0.85 * joules(calm, slow));
        assert!(median(rows, metric::UTILIZATION, from, to) >= 94.0);
    }
}

#[test]
fn a_gpu_that_is_gone_says_so_or_says_nothing() {
    let answers = |id: &str| -> (BTreeSet<Option<i64>>, usize) {
        let feed = feed_of(id, 2);
        let label = required(&feed).remove(0);
        let (told, ticks) = told(feed);
        let gpu = &label.gpus[0];
        let rows = &told[&(gpu.node.clone(), gpu.gpu.expect("a GPU"))];
        let after = rows.iter().filter(|(at, _)| *at > start_of(&label) + 12.0);
        let status = after.map(|(_, row)| row.get(metric::NVML_STATUS)).collect();
        let is_xid = |news: &&News| matches!(news, News::Xid { .. });
        let xids = ticks.iter().flat_map(|tick| &tick.news).filter(is_xid);
        (status, xids.count())
    };
    let lost = Some(NvmlStatus::GpuIsLost as i64);
    assert_eq!(answers("X1"), (BTreeSet::from([lost]), 1));
    let timeout = Some(NvmlStatus::Timeout as i64);
    assert_eq!(answers("X2"), (BTreeSet::from([timeout]), 1));
    assert_eq!(answers("X8"), (BTreeSet::from([None]), 0));
}

#[test]
fn frozen_readings_stay_to_the_last_bit_and_energy_goes_on() {
    let feed = feed_of("X9", 4);
    let label = required(&feed).remove(0);
    let (told, _) = told(feed);
    let gpu = &label.gpus[0];
    let rows = &told[&(gpu.node.clone(), gpu.gpu.expect("a GPU"))];
    let (from, to) = (start_of(&label) + 1.0, label.end - 1_700_000_000.0);
    let within: Vec<_> = rows
        .iter()
        .filter(|(at, _)| (from..to).contains(at))
        .collect();
    let mut without: Vec<_> = within.iter().map(|(_, row)| row.clone()).collect();
    for row in &mut without {
        row.set(metric::ENERGY, None);
        row.set(metric::NETWORK, None);
    }
    without.dedup();
    assert_eq!(without.len(), 1);
    assert!(growth(rows, metric::ENERGY, from, to) > 100_000 * 500);
}

#[test]
fn memory_climbs_to_the_top_and_its_process_dies() {
    let feed = feed_of("M1", 6);
    let label = required(&feed).remove(0);
    let (told, _) = told(feed);
    let gpu = &label.gpus[0];
    let rows = &told[&(gpu.node.clone(), gpu.gpu.expect("a GPU"))];
    let share = |at: f64| {
        let (_, row) = rows.iter().find(|(t, _)| *t >= at).expect("a row");
        row.display(metric::MEMORY_USED).expect("used") / 85_520_809_984.0
    };
    let (from, to) = (start_of(&label), label.end - 1_700_000_000.0);
    assert!(
        (0.6..0.8).contains(&share(from - 20.0)),
        "{}",
        share(from - 20.0)
    );
    assert!(share(to - 15.0) > 0.96, "{}", share(to - 15.0));
    assert!(share(to + 15.0) < 0.01);
    let warned = label.deadline_s;
    assert!(to - from - warned > 60.0 && warned > 300.0);
}

#[test]
fn a_rack_without_cooling_warms_up_and_is_slowed_down_together() {
    let feed = feed_of("C1", 2);
    let label = required(&feed).remove(0);
    let labels: BTreeSet<_> = feed
        .nodes()
        .iter()
        .map(|n| n.labels["rack"].clone())
        .collect();
    assert_eq!(labels.len(), 1);
    let (told, _) = told(feed);
    let (from, to) = (start_of(&label), label.end - 1_700_000_000.0);
    for rows in told.values() {
        let before = median(rows, metric::TEMPERATURE, 0.0, from);
        let after = median(rows, metric::TEMPERATURE, to - 300.0, to);
        assert!(
            before < 66.0 && (86.0..=90.0).contains(&after),
            "{before} {after}"
        );
        assert!(median(rows, metric::SM_CLOCK, to - 300.0, to) < 1_400.0);
    }
}

#[test]
fn counters_of_errors_only_ever_grow() {
    for id in ["X5", "X7", "S3"] {
        let (told, _) = told(feed_of(id, 8));
        let mut most = 0;
        for rows in told.values() {
            for metric in [
                metric::ECC_CORRECTED,
                metric::NVLINK_CRC_ERRORS,
                metric::NVLINK_RECOVERY,
                metric::PCIE_REPLAY,
            ] {
                let counts: Vec<_> = rows.iter().filter_map(|(_, r)| r.get(metric)).collect();
                assert!(counts.is_sorted(), "{id}: {counts:?}");
                most = most.max(counts.last().copied().unwrap_or(0));
            }
        }
        assert!(most > 20, "{id}: {most}");
    }
}

#[test]
fn agents_that_are_upgraded_say_goodbye_one_after_the_other() {
    let (_, ticks) = told(feed_of("N25", 1));
    let of = |what: &News| {
        let ticks = ticks.iter().filter(|tick| tick.news.contains(what));
        ticks.map(|tick| tick.node).collect::<Vec<_>>()
    };
    let (mut left, mut back) = (of(&News::Goodbye), of(&News::AgentStart));
    assert!(left.len() >= 2, "{left:?}");
    left.sort_unstable();
    back.sort_unstable();
    assert_eq!(left, back);
}

#[test]
fn an_operators_reset_lets_counters_start_from_nothing() {
    let (told, _) = told(feed_of("N27", 1));
    for rows in told.values() {
        let energies: Vec<_> = rows
            .iter()
            .filter_map(|(_, r)| r.get(metric::ENERGY))
            .collect();
        let falls = energies.windows(2).filter(|pair| pair[1] < pair[0]);
        assert_eq!(falls.count(), 1);
    }
}

#[test]
fn names_of_nodes_in_labels_are_the_fleets() {
    let feed = feed_of("H12", 3);
    let label = required(&feed).remove(0);
    let names: Vec<_> = (0..feed.nodes().len() as u32).map(node_name).collect();
    assert!(label.nodes.iter().all(|node| names.contains(node)));
    assert_eq!(label.jobs.len() >= 2, label.job.is_none());
    let json = serde_json::to_value(&label).expect("writable");
    assert_eq!(json["kinds"][0], "NetworkFault");
    assert_eq!(json["severity"], "critical");
    assert_eq!(json["culprits"][0]["gpu"], serde_json::Value::Null);
    assert_eq!(json.get("required"), None);
    assert_eq!(json.get("fleet"), None);
}
