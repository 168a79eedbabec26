//! The goals, class by class and interval by interval, and what the held-out traces reach of them. *(pure)*

use super::interval::{Wilson, poisson};
use super::normal::Days;
use super::score::Class;
use super::tally::Tally;
use crate::report::Section;

/// What is asked of some classes.
struct Goal {
    name: &'static str,
    kinds: &'static [&'static str],
    recall: f64,
    precision: f64,
    /// At 1 s and at 10 s: median and p95 of the time to detect, in seconds; `None`: nothing is asked.
    within_s: Option<[[f64; 2]; 2]>,
}

const GOALS: [Goal; 8] = [
    Goal {
        name: "node lost",
        kinds: &["NodeLost"],
        recall: 0.999,
        precision: 0.99,
        within_s: Some([[4.0, 6.0], [32.0, 40.0]]),
    },
    Goal {
        name: "GPU lost, XID",
        kinds: &["GpuLost", "Xid"],
        recall: 0.995,
        precision: 0.99,
        within_s: Some([[4.0, 8.0], [12.0, 25.0]]),
    },
    Goal {
        name: "job hang, learned or not",
        kinds: &["JobHang"],
        recall: 0.98,
        precision: 0.98,
        within_s: Some([[35.0, 60.0], [60.0, 100.0]]),
    },
    Goal {
        name: "straggler",
        kinds: &["Straggler"],
        recall: 0.92,
        precision: 0.93,
        within_s: Some([[90.0, 150.0], [120.0, 240.0]]),
    },
    Goal {
        name: "thermal, power brake",
        kinds: &["ThermalThrottling", "PowerBrake"],
        recall: 0.99,
        precision: 0.98,
        within_s: Some([[5.0, 15.0], [25.0, 45.0]]),
    },
    Goal {
        name: "ECC, NVLink, PCIe",
        kinds: &[
            "EccUncorrectable",
            "EccStorm",
            "NvlinkError",
            "PcieDegraded",
        ],
        recall: 0.99,
        precision: 0.98,
        within_s: Some([[2.0, 12.0], [12.0, 25.0]]),
    },
    Goal {
        name: "memory pressure",
        kinds: &["MemoryPressure"],
        recall: 0.95,
        precision: 0.90,
        within_s: None,
    },
    Goal {
        name: "idle waste",
        kinds: &["GpuIdle"],
        recall: 0.98,
        precision: 0.95,
        within_s: Some([[920.0, 920.0], [920.0, 920.0]]),
    },
];

const LEAST_F1: f64 = 0.96;
const MOST_PAGES: f64 = 0.02;
const MOST_WARNINGS: f64 = 0.3;
const LEAST_CULPRITS: f64 = 0.90;
const MOST_PAGES_AN_INCIDENT: f64 = 1.1;

/// The goals and what is reached.
pub fn table(held_out: &Tally, normal: &Days) -> String {
    let mut rows = Vec::new();
    for goal in &GOALS {
        for (n, interval_s) in [1, 10].into_iter().enumerate() {
            let score = held_out.by_interval.get(&interval_s);
            let class = score.map(|score| score.sum(|kind| goal.kinds.contains(&kind)));
            rows.push(row(goal, n, interval_s, &class.unwrap_or_default()));
        }
    }
    let mut section = Section::default();
    section.table(
        [
            "class",
            "interval",
            "incidents",
            "recall",
            "precision",
            "time to detect, median / p95",
            "",
        ],
        &rows,
    );
    section.table(
        ["over all", "goal", "reached", ""],
        &overall(held_out, normal),
    );
    section.into_text()
}

fn row(goal: &Goal, n: usize, interval_s: u64, class: &Class) -> [String; 7] {
    let (recall, precision) = (class.recall().share, class.precision().share);
    let delays = class.delay_s(0.5).zip(class.delay_s(0.95));
    let mut short = Vec::new();
    if recall.is_some_and(|share| share < goal.recall) {
        short.push("recall");
    }
    if precision.is_some_and(|share| share < goal.precision) {
        short.push("precision");
    }
    let asked = goal.within_s.map(|within| within[n]);
    if let (Some([median, p95]), Some(took)) = (asked, delays)
        && (took.0 > median || took.1 > p95)
    {
        short.push("time");
    }
    let verdict = match (class.incidents, short.as_slice()) {
        (0, _) => "not seen".to_owned(),
        (_, []) => "reached".to_owned(),
        (_, short) => format!("falls short: {}", short.join(", ")),
    };
    let share = |share: Option<f64>, goal: f64| {
        let share = share.map_or("–".into(), |share| format!("{share:.3}"));
        format!("{share} (≥ {goal})")
    };
    let took = delays.map_or("–".into(), |(median, p95)| {
        format!("{median:.1} / {p95:.1} s")
    });
    let asked = asked.map_or(String::new(), |[median, p95]| {
        format!(" (≤ {median:.0} / {p95:.0})")
    });
    [
        goal.name.to_owned(),
        format!("{interval_s} s"),
        class.incidents.to_string(),
        share(recall, goal.recall),
        share(precision, goal.precision),
        took + &asked,
        verdict,
    ]
}

fn overall(held_out: &Tally, normal: &Days) -> Vec<[String; 4]> {
    let score = &held_out.ours;
    let total = score.total();
    let f1 = score.macro_f1().unwrap_or(0.0);
    let culprits = Wilson::of(total.blamed_rightly, total.blamed).share;
    let culprits = culprits.unwrap_or(0.0);
    let pages = 1.0 + f64::from(score.duplicates) / f64::from(total.found.max(1));
    let verdict = |holds: bool| if holds { "reached" } else { "falls short" }.to_owned();
    let row = |name: &str, goal: String, value: f64, holds: bool| {
        [name.to_owned(), goal, format!("{value:.3}"), verdict(holds)]
    };
    let least = |name, goal: f64, value: f64| row(name, format!("≥ {goal}"), value, value >= goal);
    let most = |name, goal: f64, value: f64| row(name, format!("≤ {goal}"), value, value <= goal);
    vec![
        least("macro F1, held out", LEAST_F1, f1),
        least("first culprit right, held out", LEAST_CULPRITS, culprits),
        most("pages an incident, held out", MOST_PAGES_AN_INCIDENT, pages),
        rare("false pages", MOST_PAGES, normal, 0),
        rare("false warnings", MOST_WARNINGS, normal, 1),
    ]
}

/// False findings on normal days: a rate is below its goal only if its interval is.
fn rare(what: &str, most: f64, normal: &Days, place: usize) -> [String; 4] {
    let count = normal.false_findings[0][place];
    let per = |count: f64| 1000.0 * count / normal.gpu_days.max(1e-9);
    let (low, high) = poisson(count);
    let verdict = match (per(low) > most, per(high) <= most) {
        (_, true) => "reached",
        (true, _) => "falls short",
        (false, false) => "not decided: the interval holds the goal",
    };
    [
        format!("{what} per 1000 normal GPU-days"),
        format!("≤ {most}"),
        format!(
            "{:.3} ({:.3}–{:.3})",
            per(count as f64),
            per(low),
            per(high)
        ),
        verdict.to_owned(),
    ]
}
