//! Incidents and a summary, for people.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use entrenar::unit::Timestamp;
use entrenar_aggregator::andon::{Kind, Severity};
use entrenar_aggregator::backtest::{Incident, ScopeView};

use super::run::Judged;

/// GPUs or nodes of a scope that are named; of further ones the number is told.
const MOST_NAMED: usize = 4;

/// A trace: its incidents, then what it came to.
pub(super) fn write(out: &mut impl Write, judged: &Judged) -> io::Result<()> {
    writeln!(out, "{}", judged.path.display())?;
    for incident in &judged.outcome.incidents {
        write_incident(out, incident)?;
    }
    write_figures(out, judged)?;
    write_counts(out, &judged.outcome.incidents)?;
    writeln!(out)
}

/// What several traces came to.
pub(super) fn write_sum(out: &mut impl Write, judged: &[Judged]) -> io::Result<()> {
    let sum = |of: fn(&Judged) -> f64| judged.iter().map(of).sum::<f64>();
    let rows = sum(|trace| trace.rows as f64);
    let days = sum(gpu_days);
    writeln!(
        out,
        "{} traces: {rows} rows, {days:.1} GPU-days",
        judged.len()
    )?;
    let incidents: Vec<_> = judged
        .iter()
        .flat_map(|trace| trace.outcome.incidents.iter().cloned())
        .collect();
    write_counts(out, &incidents)
}

fn write_incident(out: &mut impl Write, incident: &Incident) -> io::Result<()> {
    writeln!(
        out,
        "  {}  {:<8}  {:<18} {}  ({})",
        time(incident.fired_at),
        incident.severity.name(),
        incident.kind.name(),
        place(&incident.scope),
        incident.id,
    )?;
    writeln!(out, "      {}", incident.summary)?;
    let began = Duration::from_secs_f64((incident.fired_at - incident.started_at).max(0.0));
    let ended = incident.resolved_at.map_or("still open".to_owned(), |at| {
        format!("resolved {}", time(at))
    });
    write!(
        out,
        "      began {:.0} s before, {ended}",
        began.as_secs_f64()
    )?;
    if let Some(cause) = &incident.consequence_of {
        write!(out, ", a consequence of {cause}")?;
    } else if let Some(culprit) = incident.culprits.first() {
        let gpu = culprit
            .gpu
            .map_or(String::new(), |gpu| format!(" GPU {gpu}"));
        write!(out, ", look first at {}{gpu}", culprit.node)?;
    }
    writeln!(out)
}

fn time(seconds: f64) -> String {
    Timestamp::from_secs_f64(seconds).rfc3339()
}

fn place(scope: &ScopeView) -> String {
    let mut words = Vec::new();
    match (&scope.node, scope.gpu) {
        (Some(node), Some(gpu)) => words.push(format!("{node} GPU {gpu}")),
        (Some(node), None) => words.push(node.clone()),
        _ => {}
    }
    words.extend(listed(&scope.nodes));
    let gpus: Vec<String> = scope
        .gpus
        .iter()
        .map(|gpu| format!("{} GPU {}", gpu.node, gpu.gpu))
        .collect();
    words.extend(listed(&gpus));
    words.extend(scope.job.as_ref().map(|job| format!("job {job}")));
    if words.is_empty() {
        return "the fleet".into();
    }
    words.join(", ")
}

fn listed(names: &[String]) -> Option<String> {
    let shown = names.get(..MOST_NAMED.min(names.len()))?.join(", ");
    match names.len() {
        0 => None,
        n if n > MOST_NAMED => Some(format!("{shown} and {} more", n - MOST_NAMED)),
        _ => Some(shown),
    }
}

fn gpu_days(judged: &Judged) -> f64 {
    judged.outcome.figures.gpu_seconds / 86_400.0
}

fn write_figures(out: &mut impl Write, judged: &Judged) -> io::Result<()> {
    let figures = &judged.outcome.figures;
    let seconds = judged.wall.as_secs_f64().max(1e-9);
    writeln!(
        out,
        "  {} rows of {} GPUs on {} nodes, {:.2} GPU-days; {:.2} s, {:.2} s of CPU, {:.0} rows/s",
        judged.rows,
        figures.gpus,
        figures.nodes,
        gpu_days(judged),
        judged.wall.as_secs_f64(),
        judged.cpu.as_secs_f64(),
        judged.rows as f64 / seconds,
    )?;
    let odd = [
        (judged.malformed, "malformed rows skipped"),
        (figures.repeated_rows, "rows were there already"),
        (
            figures.late_ticks,
            "ticks were older than what their node had said: history only",
        ),
        (
            figures.left_out_rows,
            "rows of nodes with too many GPUs left out",
        ),
        (figures.untold_events, "events without a use"),
    ];
    for (count, what) in odd.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "  {count} {what}")?;
    }
    Ok(())
}

/// How many of each kind and severity; consequences apart.
fn write_counts(out: &mut impl Write, incidents: &[Incident]) -> io::Result<()> {
    let mut counts: BTreeMap<Kind, [u32; 4]> = BTreeMap::new();
    for incident in incidents {
        let column = match (&incident.consequence_of, incident.severity) {
            (Some(_), _) => 3,
            (None, Severity::Critical) => 0,
            (None, Severity::Warning) => 1,
            (None, Severity::Info) => 2,
        };
        counts.entry(incident.kind).or_default()[column] += 1;
    }
    if counts.is_empty() {
        return writeln!(out, "  nothing to report");
    }
    writeln!(
        out,
        "  {:<18} {:>8} {:>8} {:>8} {:>12}",
        "", "critical", "warning", "info", "consequence"
    )?;
    for (kind, [critical, warning, info, consequence]) in counts {
        writeln!(
            out,
            "  {:<18} {critical:>8} {warning:>8} {info:>8} {consequence:>12}",
            kind.name()
        )?;
    }
    Ok(())
}
