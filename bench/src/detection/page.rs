//! `docs/detection.md`: a text written by hand, with the figures in their places.

use std::path::Path;

use anyhow::{Context, Result};

use super::baselines::NAMES;
use super::goals;
use super::heldout::Way;
use super::interval::{Wilson, poisson};
use super::normal::Days;
use super::public::Public;
use super::score::Score;
use super::tally::Tally;
use crate::report::Section;

const TEXT: &str = include_str!("page.txt");

/// Everything that the page tells.
pub struct Figures {
    pub public: Option<Public>,
    pub held_out: Tally,
    pub robust: Vec<(Way, Score)>,
    /// Normal days at 1 s, at longer intervals, and together.
    pub normal: [Days; 3],
}

/// Writes the page.
pub fn write(figures: &Figures) -> Result<()> {
    let public = figures.public.clone().unwrap_or_default();
    let held_out = &figures.held_out;
    let parts = [
        ("{{all}}", summary(&public.tally, held_out)),
        ("{{goals}}", goals::table(held_out, &figures.normal[2])),
        ("{{normal}}", normal(&figures.normal)),
        ("{{kinds}}", kinds(&figures.normal[2])),
        ("{{robust}}", robust(&held_out.ours, &figures.robust)),
        ("{{cost}}", cost(&public, &figures.normal).into_text()),
        ("{{public}}", classes(&public.tally.ours)),
        ("{{held_out}}", classes(&held_out.ours)),
    ];
    let mut text = TEXT.to_owned();
    for (place, part) in parts {
        text = text.replace(place, part.trim_end());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/detection.md");
    std::fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
}

/// Ours and the baselines on the labelled traces.
fn summary(public: &Tally, held_out: &Tally) -> String {
    let mut section = Section::default();
    for (name, tally) in [("Public", public), ("Held out", held_out)] {
        let total = tally.ours.total();
        section.say(format!(
            "**{name}**: {} traces, {:.0} GPU-days, {} incidents.",
            tally.ours.traces, tally.ours.gpu_days, total.incidents
        ));
        let names = std::iter::once("**entrenar**").chain(NAMES);
        let scores = std::iter::once(&tally.ours).chain(&tally.baselines);
        let rows: Vec<_> = names
            .zip(scores)
            .map(|(name, score)| row_of(name, score))
            .collect();
        section.table(
            [
                "",
                "macro F1",
                "recall",
                "precision of pages",
                "false pages / 1000 GPU-days",
                "false warnings",
                "first culprit right",
                "pages an incident",
            ],
            &rows,
        );
    }
    section.into_text()
}

fn row_of(name: &str, score: &Score) -> [String; 8] {
    let total = score.total();
    let blamed = Wilson::of(total.blamed_rightly, total.blamed).share;
    let found = f64::from(total.found.max(1));
    let again = 1.0 + f64::from(score.duplicates) / found;
    [
        name.to_owned(),
        two(score.macro_f1()),
        share(total.recall()),
        share(score.page_precision()),
        format!("{:.1}", score.per_1000_days(score.false_pages)),
        format!("{:.1}", score.per_1000_days(score.false_warnings)),
        two(blamed),
        format!("{again:.2}"),
    ]
}

/// A row a class.
fn classes(score: &Score) -> String {
    let mut section = Section::default();
    let rows: Vec<_> = score
        .classes
        .iter()
        .filter(|(_, class)| class.incidents + class.false_findings > 0)
        .map(|(kind, class)| {
            let delay = |share| class.delay_s(share).map(|secs| format!("{secs:.1}"));
            let delays = delay(0.5).zip(delay(0.95));
            let blamed = Wilson::of(class.blamed_rightly, class.blamed).share;
            [
                kind.clone(),
                class.incidents.to_string(),
                share(class.recall()),
                share(class.precision()),
                two(class.f1()),
                delays.map_or("–".into(), |(median, p95)| format!("{median} / {p95} s")),
                two(blamed),
            ]
        })
        .collect();
    section.table(
        [
            "class",
            "incidents",
            "recall",
            "precision",
            "F1",
            "time to detect, median / p95",
            "culprit named first",
        ],
        &rows,
    );
    section.into_text()
}

/// False findings on normal days.
fn normal(days: &[Days; 3]) -> String {
    let [at_1s, longer, all] = days;
    let mut section = Section::default();
    section.say(format!(
        "{:.0} GPU-days: {:.0} at 1 s and {:.0} at 10 s. {:.0} of them were run with the present detectors and simulator.",
        all.gpu_days, at_1s.gpu_days, longer.gpu_days, all.present
    ));
    let names = std::iter::once("**entrenar**").chain(NAMES);
    let row = |(n, name): (usize, &str)| {
        let cell = |days: &Days, what: usize| rate(days.false_findings[n][what], days.gpu_days);
        [
            name.to_owned(),
            cell(at_1s, 0),
            cell(longer, 0),
            cell(all, 0),
            cell(all, 1),
        ]
    };
    let rows: Vec<_> = names.enumerate().map(row).collect();
    section.table(
        [
            "per 1000 GPU-days",
            "false pages, 1 s",
            "false pages, 10 s",
            "false pages, all",
            "false warnings, all",
        ],
        &rows,
    );
    section.into_text()
}

/// Which classes ours were.
fn kinds(all: &Days) -> String {
    let mut section = Section::default();
    if all.kinds.is_empty() {
        section.say("Ours said nothing at all on them.");
        return section.into_text();
    }
    let row = |(kind, counts): (&String, &[u64; 2])| {
        [kind.clone(), counts[0].to_string(), counts[1].to_string()]
    };
    let rows: Vec<_> = all.kinds.iter().map(row).collect();
    section.table(["ours, by class", "pages", "warnings"], &rows);
    section.into_text()
}

/// The held-out set with trouble on the way.
fn robust(plain: &Score, others: &[(Way, Score)]) -> String {
    let mut section = Section::default();
    let all = std::iter::once((Way::AsItIs, plain)).chain(others.iter().map(|(way, s)| (*way, s)));
    let rows: Vec<_> = all
        .map(|(way, score)| {
            let f1 = score.macro_f1().unwrap_or(0.0);
            [
                way.name().to_owned(),
                format!("{f1:.3}"),
                format!("{:+.3}", f1 - plain.macro_f1().unwrap_or(0.0)),
                score.false_pages.to_string(),
                format!(
                    "{:+}",
                    i64::from(score.false_pages) - i64::from(plain.false_pages)
                ),
                score.false_warnings.to_string(),
            ]
        })
        .collect();
    section.table(
        [
            "",
            "macro F1",
            "change",
            "false pages",
            "change",
            "false warnings",
        ],
        &rows,
    );
    section.into_text()
}

/// CPU of the engine and of back-tests.
pub fn cost(public: &Public, [at_1s, longer, _]: &[Days; 3]) -> Section {
    let mut section = Section::default();
    let row = |name: &str, days: &Days| {
        let [simulator, engine, baselines] = days.cpu_us().map(|us| format!("{us:.2}"));
        [name.to_owned(), engine, baselines, simulator]
    };
    section.table(
        [
            "µs of CPU a GPU and tick",
            "engine, all built-in rules (goal 1)",
            "five baselines",
            "simulator",
        ],
        &[row("1 s", at_1s), row("10 s", longer)],
    );
    section.say(format!(
        "At 10 s a tick carries ten looks at jobs, which the engine takes each second whatever the interval. A back-test \
         of the public traces reads and judges {:.0} GPU rows a CPU second, decompression included (goal: 250,000, which \
         is 500,000 a second on two cores).",
        public.rows as f64 / public.cpu_s.max(1e-9)
    ));
    section
}

/// A count as a rate with its interval.
fn rate(count: u64, gpu_days: f64) -> String {
    if gpu_days <= 0.0 {
        return "–".into();
    }
    let per = |count: f64| 1000.0 * count / gpu_days;
    let (low, high) = poisson(count);
    format!(
        "{:.3} ({:.3}–{:.3})",
        per(count as f64),
        per(low),
        per(high)
    )
}

/// A share with its interval.
fn share(share: Wilson) -> String {
    let Wilson {
        share: Some(value),
        low: Some(low),
        high: Some(high),
    } = share
    else {
        return "–".into();
    };
    format!("{value:.2} ({low:.2}–{high:.2})")
}

fn two(value: Option<f64>) -> String {
    value.map_or("–".into(), |value| format!("{value:.2}"))
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::AsItIs => "as it is",
            Self::Loss => "5 % of ticks lost",
            Self::Skew => "clocks off by up to 200 ms",
            Self::Restart => "a restart half-way, 20 s long",
        }
    }
}
