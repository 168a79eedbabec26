//! Stories of how a staged fleet reports.

use std::time::Duration;

use super::*;
use crate::sim::catalogue::case;
use crate::sim::normal::{normal_day, normal_fleet};
use crate::sim::stage::{Model, Stage};
use crate::sim::traces::plan_traces;

fn setting(seed: u64, interval_s: u64, lasts: Duration) -> Setting {
    Setting {
        seed,
        start: Timestamp::from_secs(1_700_000_000),
        lasts,
        interval: Duration::from_secs(interval_s),
        model: Model::H100,
        gpus_per_node: 8,
        has_job_ids: true,
        has_racks: false,
    }
}

fn normal(seed: u64, interval_s: u64, voice: Voice) -> Feed {
    let setting = setting(seed, interval_s, Duration::from_mins(40));
    let show = normal_fleet(setting, 6).raise().expect("it fits");
    Feed::new(show, voice)
}

fn rows_of(feed: Feed) -> Vec<(usize, Timestamp, Vec<Values>)> {
    feed.map(|tick| (tick.node, tick.at, tick.rows)).collect()
}

#[test]
fn a_seed_decides_every_word() {
    let play = |seed| rows_of(normal(seed, 10, Voice::default()));
    assert_eq!(play(4), play(4));
    assert_ne!(play(4), play(5));
}

#[test]
fn every_agent_speaks_once_an_interval_and_in_order() {
    let feed = normal(3, 5, Voice::default());
    let n_nodes = feed.nodes().len();
    let mut last = vec![None; n_nodes];
    let mut n_ticks = vec![0; n_nodes];
    for tick in feed {
        if let Some(last) = last[tick.node] {
            let passed = tick.at.since(last).as_millis();
            assert!(passed > 4_900, "{passed} ms apart");
        }
        last[tick.node] = Some(tick.at);
        n_ticks[tick.node] += usize::from(!tick.rows.is_empty());
    }
    // The last node is under maintenance for a while.
    assert!(
        n_ticks[..n_nodes - 1].iter().all(|&n| n >= 470),
        "{n_ticks:?}"
    );
}

#[test]
fn lost_ticks_are_counted_and_their_xids_come_with_the_next() {
    let mut stage = Stage::new(setting(1, 10, Duration::from_mins(40)));
    case("X4").expect("there").set(&mut stage);
    let voice = Voice {
        loss: 0.3,
        ..Voice::default()
    };
    let mut feed = Feed::new(stage.raise().expect("it fits"), voice);
    let (mut xids, mut ticks) = (0, 0);
    for tick in feed.by_ref() {
        ticks += u64::from(!tick.rows.is_empty());
        let is_xid = |news: &&News| matches!(news, News::Xid { .. });
        xids += tick.news.iter().filter(is_xid).count();
    }
    let gpus: usize = feed.nodes().iter().map(|node| node.gpus.len()).sum();
    assert_eq!(xids, gpus * 4, "two crashes, two codes each");
    let all = ticks + feed.n_lost();
    assert_eq!(all, 240 * feed.nodes().len() as u64);
    let share = feed.n_lost() as f64 / all as f64;
    assert!((0.2..0.4).contains(&share), "{share}");
}

#[test]
fn what_is_held_up_arrives_later_in_the_order_in_which_it_was_said() {
    let mut stage = Stage::new(setting(2, 5, Duration::from_mins(40)));
    stage.training(2);
    stage.training(2);
    case("N26").expect("there").set(&mut stage);
    let feed = Feed::new(stage.raise().expect("it fits"), Voice::default());
    let mut newest = Timestamp(0);
    let mut said = vec![Timestamp(0); feed.nodes().len()];
    let mut n_late = 0;
    for tick in feed {
        assert!(said[tick.node] < tick.at);
        said[tick.node] = tick.at;
        n_late += u32::from(tick.at.0 + 5_000 < newest.0);
        newest = newest.max(tick.at);
    }
    assert!(n_late > 2, "{n_late} ticks came late");
}

#[test]
fn clocks_that_are_off_stay_off_by_the_same_time() {
    let voice = Voice {
        skew: Duration::from_millis(200),
        ..Voice::default()
    };
    let mut offsets = vec![None; 7];
    for tick in normal(9, 10, voice).filter(|tick| !tick.rows.is_empty()) {
        let offset = tick.at.0 - tick.arrives.0;
        if offset.abs() <= 200 {
            assert_eq!(*offsets[tick.node].get_or_insert(offset), offset);
        }
    }
    offsets.dedup();
    assert!(offsets.len() > 3, "{offsets:?}");
}

#[test]
fn energy_grows_by_power_whatever_the_interval() {
    let total = |interval_s| {
        let mut joules = 0;
        let mut first = std::collections::BTreeMap::new();
        for tick in normal(7, interval_s, Voice::default()) {
            for (gpu, row) in tick.rows.iter().enumerate() {
                if let Some(energy) = row.get(metric::ENERGY) {
                    let before = first.insert((tick.node, gpu), energy).unwrap_or(energy);
                    joules += energy - before;
                }
            }
        }
        joules as f64
    };
    let (fine, coarse) = (total(1), total(10));
    assert!((fine / coarse - 1.0).abs() < 0.02, "{fine} and {coarse}");
}

#[test]
fn a_normal_day_has_jobs_that_start_and_end_and_nothing_that_must_be_found() {
    let setting = setting(11, 10, Duration::from_hours(6));
    let feed = Feed::new(
        normal_fleet(setting, 24).raise().expect("it fits"),
        Voice::default(),
    );
    assert!(feed.labels().iter().all(|label| !label.required));
    let mut jobs = std::collections::BTreeSet::new();
    let mut given_back = 0;
    for tick in feed {
        for row in &tick.rows {
            let reasons = row.get(metric::CLOCK_EVENT_REASONS).unwrap_or(0);
            assert_eq!(reasons & 0xe8, 0, "nothing slows down on a normal day");
        }
        for news in tick.news {
            match news {
                News::Holder {
                    holder: Some(holder),
                    ..
                } => drop(jobs.insert(holder.job.clone())),
                News::Holder { holder: None, .. } => given_back += 1,
                News::Xid { .. } => panic!("no XID on a normal day"),
                _ => {}
            }
        }
    }
    assert!(jobs.len() > 15, "{}", jobs.len());
    assert!(given_back > 16, "{given_back}");
}

#[test]
fn days_differ_from_seed_to_seed_and_can_be_watched_from_their_first_tick() {
    let day = |seed| normal_day(seed, Duration::from_secs(10)).expect("it fits");
    let sizes: std::collections::BTreeSet<_> = (0..20).map(|n| day(n).nodes().len()).collect();
    assert!(sizes.len() > 8, "{sizes:?}");
    let mut feed = day(3);
    let n_nodes = feed.nodes().len();
    let ticks: Vec<_> = feed.by_ref().take(n_nodes * 3).collect();
    let full = ticks.iter().flat_map(|tick| &tick.rows);
    assert!(full.clone().count() > n_nodes * 8);
    assert!(feed.labels().iter().all(|label| !label.required));
}

#[test]
fn a_set_of_traces_shows_every_scenario_and_writes_labels_beside_it() {
    let plans = plan_traces(3);
    for case in crate::sim::catalogue() {
        let shown = plans
            .iter()
            .any(|p| p.cases.iter().any(|c| c.id == case.id));
        assert!(shown, "{case:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let plan = plans
        .iter()
        .find(|plan| plan.setting.interval.as_secs() == 10);
    let plan = plan.expect("some are slow");
    let (header, labels) = plan.write(folder.path()).expect("it can be written");
    let path = folder.path().join(&plan.name);
    let rows = crate::trace::TraceReader::open(&path).expect("it can be read");
    let mut n_rows = 0;
    for row in rows {
        let row = row.expect("well formed");
        n_rows += 1;
        assert!(row.time.0 as f64 / 1e3 > header.start - 1.0);
        assert!((row.time.0 as f64 / 1e3) < header.end + 61.0);
    }
    let most = f64::from(header.gpus) * (header.end - header.start) / 10.0;
    assert!(f64::from(n_rows) > 0.6 * most, "{n_rows} of {most}");
    assert!(
        labels
            .iter()
            .all(|l| l.trace == plan.name && l.id.contains('/'))
    );
}
