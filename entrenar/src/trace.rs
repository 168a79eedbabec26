//! The trace format, version 1: what a fleet's agents reported, as one file that a person can read. *(edge: files)*
//!
//! UTF-8 CSV with a header, plain or compressed (`.csv`, `.csv.gz`, `.csv.zst`), rows in order of arrival. One row is
//! one GPU at one tick, or, where `gpu` is empty, a node event. Columns are found by name; an empty cell is "not
//! reported", never 0. [`TraceReader`] also takes the log of `nvidia-smi --query-gpu=… --format=csv -l 1`.

mod block;
mod column;
mod line;
mod number;
mod read;
mod replay;
mod write;

pub use block::{Block, Entry, TextId, TextList};
pub use read::TraceReader;
pub use replay::{AtEnd, ReplayBackend};
pub use write::TraceWriter;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::gpu::{GpuUuid, NodeId, Values};
use crate::report::JobKind;
use crate::unit::Timestamp;

/// One row of a trace: a GPU at one tick, or something that happened to a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// When the agent took the sample, by its own clock.
    pub time: Timestamp,
    /// Host name.
    pub node: NodeId,
    /// NVML index on that node; `None`: the row is about the node.
    pub gpu: Option<u32>,
    /// The GPU's identity, where the trace has it.
    pub uuid: Option<GpuUuid>,
    /// Product name.
    pub model: Option<Arc<str>>,
    /// The scheduler's job that holds the GPU; `None`: nobody, or not known.
    pub job: Option<Arc<str>>,
    /// What kind of work that is.
    pub job_kind: JobKind,
    /// Pipeline stage or parallel group, where known.
    pub rank_group: Option<Arc<str>>,
    /// What the GPU said, `nvml_status` among it; an empty status is absent and means OK.
    pub values: Values,
    /// XIDs since the last tick.
    pub xids: Vec<u64>,
    /// What happened.
    pub event: Option<TraceEvent>,
    /// When the aggregator received the row.
    pub arrived: Option<Timestamp>,
    /// The agent's sampling interval.
    pub interval: Option<Duration>,
    /// Where the node hangs.
    pub rack: Option<Arc<str>>,
    /// Where the node hangs.
    pub switch: Option<Arc<str>>,
    /// Where the node hangs.
    pub power_feed: Option<Arc<str>>,
}

impl Row {
    /// A row that says nothing yet.
    pub fn new(time: Timestamp, node: NodeId, gpu: Option<u32>) -> Self {
        Self {
            time,
            node,
            gpu,
            uuid: None,
            model: None,
            job: None,
            job_kind: JobKind::Unknown,
            rank_group: None,
            values: Values::default(),
            xids: Vec::new(),
            event: None,
            arrived: None,
            interval: None,
            rack: None,
            switch: None,
            power_feed: None,
        }
    }
}

/// What the `event` column can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceEvent {
    /// A node's agent started.
    AgentStart,
    /// A node's agent stopped in an orderly way.
    Goodbye,
    /// People work on the node.
    MaintenanceStart,
    /// They are done.
    MaintenanceEnd,
    /// The scheduler holds the GPU's job stopped; repeated on every row while it does.
    JobSuspended,
}

impl TraceEvent {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AgentStart,
        Self::Goodbye,
        Self::MaintenanceStart,
        Self::MaintenanceEnd,
        Self::JobSuspended,
    ];

    /// The word in the `event` column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentStart => "agent_start",
            Self::Goodbye => "goodbye",
            Self::MaintenanceStart => "maintenance_start",
            Self::MaintenanceEnd => "maintenance_end",
            Self::JobSuspended => "job_suspended",
        }
    }
}

/// Why a trace, or a row of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or made.
    #[error("cannot open trace {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Reading or unpacking failed half-way.
    #[error("cannot read on in the trace after line {line}: the file may be damaged or cut off")]
    Read {
        /// The last line that was read.
        line: u64,
        /// Why not.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write the trace")]
    Write {
        /// Why not.
        source: io::Error,
    },
    /// The file is empty, or its first line names no column of a trace.
    #[error(
        "the trace has no header line: its first line must name the columns, `time` and `node` among them"
    )]
    NoHeader,
    /// A column is missing without which rows mean nothing.
    #[error("the trace has no `{column}` column")]
    NoColumn {
        /// Its name.
        column: &'static str,
    },
    /// Two columns have the same name.
    #[error("the trace names the column `{column}` twice")]
    ColumnTwice {
        /// Its name.
        column: String,
    },
    /// One row cannot be read; it was skipped and reading goes on.
    #[error("line {line}: {reason}; the row was skipped")]
    Malformed {
        /// Line in the unpacked file, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// More than 1 % of the rows could not be read.
    #[error("{malformed} of {rows} rows are malformed, more than 1 %: this is not a usable trace")]
    TooManyMalformed {
        /// Rows that were skipped.
        malformed: u64,
        /// All rows.
        rows: u64,
    },
    /// The trace names more nodes, GPUs and jobs than can be told apart.
    #[error("the trace has more than {most} different names of nodes, GPUs and jobs")]
    TooManyTexts {
        /// How many are taken.
        most: usize,
    },
    /// A trace that is to be replayed has nothing about the node.
    #[error("the trace has no GPU rows of node {node}; it has: {nodes}")]
    NoSuchNode {
        /// The node asked for.
        node: String,
        /// Those that are there.
        nodes: String,
    },
}

impl TraceError {
    /// Whether reading ends with it. A malformed row is only skipped.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Malformed { .. })
    }
}

#[cfg(test)]
mod tests;
