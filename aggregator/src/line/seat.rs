//! Where every GPU sits, who holds it, and what it last said: seen in place, without copies.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use entrenar::gpu::{GpuInfo, GpuUuid, NodeId};
use entrenar::metric::MetricId;
use entrenar::report::{Holder, HolderChange, Labels};
use entrenar::unit::Timestamp;

use super::Line;
use super::stream::Stream;
use crate::chunk::Sample;
use crate::query::Point;
use crate::query::select::{Filter, Place, Seat};

/// Changes of holder that are remembered here, because they may not be in the store yet. A commit carries all that came in
/// half a second; more than this in two of them are answered a moment later, from the store.
pub(super) const MAX_RECENT_HOLDERS: usize = 4096;

/// A GPU of the fleet, as it stands.
pub struct Seated<'a> {
    line: &'a Line,
    pub node: &'a NodeId,
    pub labels: &'a Labels,
    pub info: &'a GpuInfo,
}

impl<'a> Seated<'a> {
    /// Who holds it.
    pub fn holder(&self) -> Option<&'a Holder> {
        self.line.engine.holder_of(&self.info.uuid)
    }

    /// What one of its metrics was when it was last read, and when that was.
    pub fn last(&self, metric: MetricId) -> Option<Point> {
        self.line.head.last(&self.info.uuid, metric)
    }
}

impl Line {
    /// Shows every GPU that is asked for, by node and index.
    pub fn each_gpu<'a>(&'a self, filter: &Filter, mut see: impl FnMut(Seated<'a>)) {
        for (node, stream) in self.node_streams() {
            let labels = &stream.hello.labels;
            if !filter.takes_node(node.as_str(), labels) {
                continue;
            }
            let present = stream.hello.inventories.last();
            for info in present.into_iter().flat_map(|inventory| &inventory.gpus) {
                if takes(filter, node, info, labels) {
                    see(Seated {
                        line: self,
                        node,
                        labels,
                        info,
                    });
                }
            }
        }
    }

    /// Where the GPUs that are asked for sit, by node and index; then those that sat in one of these nodes before; then,
    /// where one is asked for by its UUID alone and none was found, that one without a place.
    pub fn seats(&self, filter: &Filter) -> Vec<Seat> {
        if let Some(seat) = self.seat_of_named(filter) {
            return vec![seat];
        }
        let mut seats = Vec::new();
        let mut former = Vec::new();
        for (node, stream) in self.node_streams() {
            let labels = &stream.hello.labels;
            if !filter.takes_node(node.as_str(), labels) {
                continue;
            }
            let mut shared = None;
            let mut sit = |info: &GpuInfo, is_present| {
                let labels = shared.get_or_insert_with(|| Arc::new(labels.clone()));
                seat(node, stream, info, labels, is_present)
            };
            let mut inventories = stream.hello.inventories.iter().rev();
            let taken = |info: &&GpuInfo| takes(filter, node, info, labels);
            let present = inventories.next().into_iter().flat_map(|i| &i.gpus);
            seats.extend(present.filter(taken).map(|info| sit(info, true)));
            let earlier = inventories.flat_map(|i| &i.gpus).filter(taken);
            former.extend(earlier.map(|info| sit(info, false)));
        }
        self.drop_moved(&mut former);
        seats.extend(former);
        if seats.is_empty()
            && let Some(uuid) = filter.only_uuid()
        {
            seats.push(Seat {
                uuid,
                place: None,
                interval: Duration::from_secs(1),
                is_present: false,
            });
        }
        seats
    }

    /// The seat of a GPU that is asked for by its UUID, where it sits in the node in which the engine knows it: a question
    /// about one need not look at the whole fleet.
    fn seat_of_named(&self, filter: &Filter) -> Option<Seat> {
        let uuid = filter.uuid.as_deref()?;
        let node = self.engine.node_of(&uuid.into())?;
        let stream = self.streams.get(self.nodes.get(node)?)?;
        let labels = &stream.hello.labels;
        let mut present = stream.hello.inventories.last()?.gpus.iter();
        let info = present.find(|info| info.uuid.as_str() == uuid)?;
        let labels = takes(filter, node, info, labels).then(|| Arc::new(labels.clone()))?;
        Some(seat(node, stream, info, &labels, true))
    }

    /// Of seats in which a GPU sat before, the latest of each that sits nowhere now.
    fn drop_moved(&self, former: &mut Vec<Seat>) {
        if former.is_empty() {
            return;
        }
        let present = self
            .node_streams()
            .filter_map(|(_, s)| s.hello.inventories.last());
        let present = present.flat_map(|inventory| &inventory.gpus);
        let mut seated: HashSet<GpuUuid> = present.map(|info| info.uuid.clone()).collect();
        former.retain(|seat| seated.insert(seat.uuid.clone()));
    }

    /// One metric of some GPUs, of each what is not sealed yet or only just, ascending.
    pub fn recent_of(
        &self,
        gpus: &[GpuUuid],
        metric: MetricId,
        (from, to): (Timestamp, Timestamp),
    ) -> Vec<Vec<Point>> {
        let of_gpu = |gpu| self.head.range(gpu, metric, from, to);
        gpus.iter().map(of_gpu).collect()
    }

    /// A GPU's samples that are not sealed yet or only just, ascending.
    pub fn recent_samples(&self, gpu: &GpuUuid, from: Timestamp, to: Timestamp) -> Vec<Sample> {
        self.head.samples(gpu, from, to)
    }

    /// The latest changes of holder, some of which are not in the store yet.
    pub fn recent_holders(&self) -> Vec<HolderChange> {
        self.recent_holders.iter().cloned().collect()
    }

    pub(super) fn note_holder(&mut self, change: HolderChange) {
        if self.recent_holders.len() == MAX_RECENT_HOLDERS {
            self.recent_holders.pop_front();
        }
        self.recent_holders.push_back(change);
    }
}

fn takes(filter: &Filter, node: &NodeId, info: &GpuInfo, labels: &Labels) -> bool {
    let (uuid, model) = (info.uuid.as_str(), info.name.as_str());
    filter.takes(node.as_str(), info.index, uuid, model, labels)
}

fn seat(
    node: &NodeId,
    stream: &Stream,
    info: &GpuInfo,
    labels: &Arc<Labels>,
    is_present: bool,
) -> Seat {
    Seat {
        uuid: info.uuid.clone(),
        place: Some(Place {
            node: node.clone(),
            device: info.index,
            model: info.name.as_str().into(),
            labels: Arc::clone(labels),
        }),
        interval: Duration::from_millis(u64::from(stream.hello.interval_ms)),
        is_present,
    }
}
