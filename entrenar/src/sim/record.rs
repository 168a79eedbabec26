//! A simulated fleet written down as its agents would report it: the rows of a trace. *(pure)*

use std::sync::Arc;

use super::SimFleet;
use super::node::{NodeState, SimNode};
use crate::backend::Depth;
use crate::metric::{self, NvmlStatus};
use crate::report::GpuEventKind;
use crate::trace::{Row, TraceEvent};
use crate::unit::Timestamp;

/// Turns a fleet into rows, tick by tick.
#[derive(Debug)]
pub struct Recorder {
    last: Timestamp,
}

impl Recorder {
    /// A recorder that starts when the fleet does.
    pub fn new(fleet: &SimFleet) -> Self {
        Self {
            last: fleet.start(),
        }
    }

    /// What the agents report at `now`, after whatever they reported last. A node that is lost or stopped has no
    /// rows but those that say that its agent stopped or started.
    pub fn tick(&mut self, fleet: &mut SimFleet, now: Timestamp) -> Vec<Row> {
        fleet.advance_to(now);
        let mut rows = Vec::new();
        for node in fleet.nodes() {
            let (was, is) = (node.state_at(self.last), node.state_at(now));
            let event = match (was, is) {
                (NodeState::Up, NodeState::Stopped) => Some(TraceEvent::Goodbye),
                (NodeState::Stopped | NodeState::Lost, NodeState::Up) => {
                    Some(TraceEvent::AgentStart)
                }
                _ => None,
            };
            if event.is_some() {
                rows.push(Row {
                    event,
                    ..row_of(node, now, None)
                });
            }
            if is == NodeState::Up {
                rows.extend((0..node.gpus().len()).map(|gpu| self.gpu_row(node, gpu as u32, now)));
            }
        }
        self.last = now;
        rows
    }

    fn gpu_row(&self, node: &SimNode, gpu: u32, now: Timestamp) -> Row {
        let info = &node.gpus()[gpu as usize];
        let mut row = row_of(node, now, Some(gpu));
        row.uuid = Some(info.uuid.clone());
        row.model = Some(info.name.as_str().into());
        if let Some(holder) = node.holder(gpu) {
            row.job = Some(holder.job.as_str().into());
            row.job_kind = holder.kind;
            row.rank_group = holder.rank_group.as_deref().map(Arc::from);
        }
        let silence = if node.is_lost(gpu) {
            Some(NvmlStatus::GpuIsLost)
        } else {
            node.is_silent(gpu).then_some(NvmlStatus::Timeout)
        };
        match silence {
            Some(status) => row.values.set(metric::NVML_STATUS, status as i64),
            None => row.values = node.values(gpu, Depth::Full).unwrap_or_default(),
        }
        for event in node.events_between(self.last, now) {
            let GpuEventKind::Xid(code) = event.what;
            if event.gpu.as_ref() == Some(&info.uuid) {
                row.xids.push(code);
            }
        }
        row
    }
}

fn row_of(node: &SimNode, now: Timestamp, gpu: Option<u32>) -> Row {
    let label = |name: &str| {
        node.labels()
            .get(name)
            .map(|value| Arc::from(value.as_str()))
    };
    Row {
        rack: label("rack"),
        switch: label("switch"),
        power_feed: label("power_feed"),
        ..Row::new(now, node.name().clone(), gpu)
    }
}
