//! `docs/metrics.md` is written from the catalogue, and stays what it says.

use std::fmt::Write as _;
use std::path::Path;

use entrenar::metric::{CATALOGUE, Kind, Pace};

fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Every metric once: its name in traces and in the API; `entrenar_gpu_` + name in Prometheus. Written from the \
         catalogue by a test (`UPDATE_PAGES=1 cargo test -p entrenar-gpu --test metrics_page`).\n\n\
         A metric that a GPU cannot report is absent everywhere: no line in Prometheus, a gap in a chart, \"unknown\" in \
         a rule. On the wire and on disk a value is an integer: the shown value times the scale.\n\n\
         | id | name | unit | kind | scale | read | what | from |\n|---|---|---|---|---|---|---|---|\n",
    );
    for metric in CATALOGUE {
        let kind = match metric.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let pace = match metric.pace {
            Pace::Fast => "each tick",
            Pace::Slow => "each 10 s",
        };
        writeln!(
            page,
            "| {} | `{}` | {} | {kind} | {} | {pace} | {} | {} |",
            metric.id.0, metric.name, metric.unit, metric.scale, metric.help, metric.source
        )
        .expect("a String takes every write");
    }
    page
}

#[test]
fn the_page_of_metrics_is_what_the_catalogue_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(&path, page()).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == page(),
        "docs/metrics.md is stale: run with UPDATE_PAGES=1"
    );
}
