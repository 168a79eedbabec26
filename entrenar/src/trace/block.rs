//! Many rows at once, without a text of their own: what a fast reader hands from thread to thread. *(pure)*
//!
//! Node names, jobs and models come again with every row. A reader numbers each text when it first sees it, and a row
//! carries the numbers; a block brings the texts that are new in it, in the order of their numbers.

use std::sync::Arc;
use std::time::Duration;

use super::{Row, TraceError, TraceEvent};
use crate::gpu::{GpuUuid, NodeId, Values};
use crate::report::JobKind;
use crate::unit::Timestamp;

/// A text by its number in the reader's order of first sight; [`TextId::NONE`] is the empty text, an empty cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextId(pub u32);

impl TextId {
    /// The empty text.
    pub const NONE: Self = Self(0);

    /// Whether the cell was not empty.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// A [`Row`] whose texts are numbers and whose XIDs lie in its block.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When the agent took the sample, by its own clock.
    pub time: Timestamp,
    /// When the aggregator received the row.
    pub arrived: Option<Timestamp>,
    /// Host name.
    pub node: TextId,
    /// NVML index on that node; `None`: the row is about the node.
    pub gpu: Option<u32>,
    /// The GPU's identity, where the trace has it.
    pub uuid: TextId,
    /// Product name.
    pub model: TextId,
    /// The scheduler's job that holds the GPU.
    pub job: TextId,
    /// What kind of work that is.
    pub job_kind: JobKind,
    /// Pipeline stage or parallel group, where known.
    pub rank_group: TextId,
    /// Where the node hangs.
    pub rack: TextId,
    /// Where the node hangs.
    pub switch: TextId,
    /// Where the node hangs.
    pub power_feed: TextId,
    /// What happened.
    pub event: Option<TraceEvent>,
    /// The agent's sampling interval.
    pub interval: Option<Duration>,
    /// XIDs since the last tick: where they begin in the block's list, and how many they are.
    pub(crate) xids: (u32, u32),
    /// What the GPU said.
    pub values: Values,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            time: Timestamp(0),
            arrived: None,
            node: TextId::NONE,
            gpu: None,
            uuid: TextId::NONE,
            model: TextId::NONE,
            job: TextId::NONE,
            job_kind: JobKind::Unknown,
            rank_group: TextId::NONE,
            rack: TextId::NONE,
            switch: TextId::NONE,
            power_feed: TextId::NONE,
            event: None,
            interval: None,
            xids: (0, 0),
            values: Values::default(),
        }
    }
}

/// Rows in their order, with the texts that are new in them. Made empty, filled by
/// [`TraceReader::read_block`](super::TraceReader::read_block), and filled again: its room is kept.
#[derive(Debug, Default)]
pub struct Block {
    /// The rows.
    pub entries: Vec<Entry>,
    pub(crate) xids: Vec<u64>,
    /// Texts that no earlier block of the reader had, in the order of their numbers.
    pub texts: Vec<Arc<str>>,
    /// Rows that could not be read.
    pub malformed: Vec<TraceError>,
}

impl Block {
    /// The XIDs of one of its rows.
    pub fn xids(&self, entry: &Entry) -> &[u64] {
        let (begin, count) = (entry.xids.0 as usize, entry.xids.1 as usize);
        self.xids.get(begin..begin + count).unwrap_or(&[])
    }

    /// Forgets its rows, and keeps its room.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.xids.clear();
        self.texts.clear();
        self.malformed.clear();
    }
}

/// The texts of all blocks of a reader so far, by number.
#[derive(Debug)]
pub struct TextList(Vec<Arc<str>>);

impl Default for TextList {
    fn default() -> Self {
        Self(vec![Arc::from("")])
    }
}

impl TextList {
    /// Takes in the texts that are new in a block.
    pub fn extend(&mut self, block: &Block) {
        self.0.extend(block.texts.iter().cloned());
    }

    pub(crate) fn push(&mut self, text: Arc<str>) -> TextId {
        self.0.push(text);
        TextId(self.0.len() as u32 - 1)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn since(&self, count: usize) -> &[Arc<str>] {
        &self.0[count..]
    }

    /// A text. A number that no block brought is the empty text.
    pub fn get(&self, id: TextId) -> &Arc<str> {
        self.0.get(id.0 as usize).unwrap_or(&self.0[0])
    }

    /// A text; `None`: the cell was empty.
    pub fn some(&self, id: TextId) -> Option<&Arc<str>> {
        id.is_some().then(|| self.get(id))
    }

    /// A row with its own texts.
    pub fn row(&self, entry: &Entry, xids: &[u64]) -> Row {
        let text = |id| self.some(id).cloned();
        Row {
            time: entry.time,
            node: NodeId(Arc::clone(self.get(entry.node))),
            gpu: entry.gpu,
            uuid: text(entry.uuid).map(GpuUuid),
            model: text(entry.model),
            job: text(entry.job),
            job_kind: entry.job_kind,
            rank_group: text(entry.rank_group),
            values: entry.values.clone(),
            xids: xids.to_vec(),
            event: entry.event,
            arrived: entry.arrived,
            interval: entry.interval,
            rack: text(entry.rack),
            switch: text(entry.switch),
            power_feed: text(entry.power_feed),
        }
    }
}
