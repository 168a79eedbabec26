//! Which column is what: the trace's own names, and nvidia-smi's. *(pure)*

use super::TraceError;
use crate::metric::{self, MetricId};

/// What a cell in a column means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Time,
    Node,
    Gpu,
    Uuid,
    Model,
    Job,
    JobKind,
    RankGroup,
    /// A metric in its display unit; the factor leads to the catalogue's integer unit.
    Metric(MetricId, i64),
    /// nvidia-smi's MiB.
    Mebibytes(MetricId),
    /// nvidia-smi's hexadecimal bitmask.
    Bits(MetricId),
    Status,
    ProcessState,
    Xid,
    Rack,
    Switch,
    PowerFeed,
    Arrived,
    Interval,
    Event,
    Unknown,
}

/// Who wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Trace,
    /// The log of `nvidia-smi --query-gpu`: one node, units in header or cells.
    NvidiaSmi,
}

/// The columns of a trace that are no metrics, in the order in which they are written, around the metrics.
const BEFORE: [(&str, Column); 8] = [
    ("time", Column::Time),
    ("node", Column::Node),
    ("gpu", Column::Gpu),
    ("uuid", Column::Uuid),
    ("model", Column::Model),
    ("job", Column::Job),
    ("job_kind", Column::JobKind),
    ("rank_group", Column::RankGroup),
];
const AFTER: [(&str, Column); 7] = [
    ("xid", Column::Xid),
    ("rack", Column::Rack),
    ("switch", Column::Switch),
    ("power_feed", Column::PowerFeed),
    ("arrived", Column::Arrived),
    ("interval_seconds", Column::Interval),
    ("event", Column::Event),
];

/// Every column that a writer writes.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Column)> {
    let metrics = metric::CATALOGUE.iter().map(|m| (m.name, of_metric(m)));
    BEFORE.into_iter().chain(metrics).chain(AFTER)
}

fn of_metric(metric: &metric::Metric) -> Column {
    match metric.id {
        metric::NVML_STATUS => Column::Status,
        metric::PROCESS_STATE => Column::ProcessState,
        id => Column::Metric(id, metric.scale),
    }
}

/// nvidia-smi's query fields, without the units that follow some of them.
///
/// It prints some under a longer name than they are asked for by.
const NVIDIA_SMI: [(&str, Column); 21] = [
    ("timestamp", Column::Time),
    ("index", Column::Gpu),
    ("uuid", Column::Uuid),
    ("gpu_uuid", Column::Uuid),
    ("name", Column::Model),
    ("gpu_name", Column::Model),
    ("temperature.gpu", Column::Metric(metric::TEMPERATURE, 1)),
    (
        "temperature.memory",
        Column::Metric(metric::MEMORY_TEMPERATURE, 1),
    ),
    ("utilization.gpu", Column::Metric(metric::UTILIZATION, 1)),
    (
        "utilization.memory",
        Column::Metric(metric::MEMORY_UTILIZATION, 1),
    ),
    ("memory.used", Column::Mebibytes(metric::MEMORY_USED)),
    ("memory.total", Column::Mebibytes(metric::MEMORY_TOTAL)),
    ("power.draw", Column::Metric(metric::POWER, 1000)),
    ("power.limit", Column::Metric(metric::POWER_LIMIT, 1000)),
    ("clocks.current.sm", Column::Metric(metric::SM_CLOCK, 1)),
    (
        "clocks.current.memory",
        Column::Metric(metric::MEMORY_CLOCK, 1),
    ),
    ("clocks.sm", Column::Metric(metric::SM_CLOCK, 1)),
    ("clocks.mem", Column::Metric(metric::MEMORY_CLOCK, 1)),
    ("fan.speed", Column::Metric(metric::FAN_SPEED, 1)),
    (
        "clocks_throttle_reasons.active",
        Column::Bits(metric::CLOCK_EVENT_REASONS),
    ),
    (
        "clocks_event_reasons.active",
        Column::Bits(metric::CLOCK_EVENT_REASONS),
    ),
];

/// What a header line says.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) dialect: Dialect,
    pub(crate) columns: Vec<Column>,
    /// Names that mean nothing here.
    pub(crate) unknown: Vec<String>,
}

/// Reads the names of a header line.
pub(crate) fn parse_header(names: &[String]) -> Result<Header, TraceError> {
    let has = |name: &str| names.iter().any(|n| bare(n) == name);
    let dialect = match (has("time"), has("timestamp")) {
        (false, true) => Dialect::NvidiaSmi,
        (true, _) => Dialect::Trace,
        (false, false) if has("node") || has("gpu") => {
            return Err(TraceError::NoColumn { column: "time" });
        }
        (false, false) => return Err(TraceError::NoHeader),
    };
    let mut header = Header {
        dialect,
        columns: Vec::new(),
        unknown: Vec::new(),
    };
    for name in names {
        let column = column_of(dialect, name);
        match column {
            None => header.unknown.push(name.clone()),
            Some(known) if header.columns.contains(&known) => {
                return Err(TraceError::ColumnTwice {
                    column: name.clone(),
                });
            }
            Some(_) => {}
        }
        header.columns.push(column.unwrap_or(Column::Unknown));
    }
    let (needed, column) = match dialect {
        Dialect::Trace => (Column::Node, "node"),
        Dialect::NvidiaSmi => (Column::Gpu, "index"),
    };
    if header.columns.contains(&needed) {
        Ok(header)
    } else {
        Err(TraceError::NoColumn { column })
    }
}

fn column_of(dialect: Dialect, name: &str) -> Option<Column> {
    match dialect {
        Dialect::Trace => all()
            .find(|(known, _)| *known == name.trim())
            .map(|(_, c)| c),
        Dialect::NvidiaSmi => {
            let known = NVIDIA_SMI.iter().find(|(known, _)| *known == bare(name));
            known.map(|(_, column)| *column)
        }
    }
}

/// A name without the unit behind it: ` memory.used [MiB]` is `memory.used`.
fn bare(name: &str) -> &str {
    name.split('[').next().unwrap_or(name).trim()
}
