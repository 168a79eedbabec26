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
use crate::query::recent::Recent;
use crate::query::select::{Filter, Place, Seat};
use crate::query::step::Steps;
use crate::store::NodeEvent;

/// Changes of holder that are remembered here, because they may not be in the store yet. A commit carries all that came in
/// half a second; more than this in two of them are answered a moment later, from the store.
pub(super) const MAX_RECENT_HOLDERS: usize = 4096;

/// Events that history keeps of one commit. Rules hear all of them; what is beyond is in no export, and is counted.
const MAX_EVENTS_A_COMMIT: usize = 4096;

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
        // It is in none of the present inventories, or the engine would know where.
        let is_named = filter.uuid.is_some();
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
            let present = inventories.next().filter(|_| !is_named);
            let present = present.into_iter().flat_map(|i| &i.gpus);
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

    /// One metric of some GPUs, of each what is not sealed yet or only just, ascending; summed up where steps are given and
    /// it can be.
    pub fn recent_of(
        &self,
        gpus: &[GpuUuid],
        metric: MetricId,
        extent: (Timestamp, Timestamp),
        steps: Option<&Steps>,
    ) -> Vec<Recent> {
        let of_gpu = |gpu| self.head.recent(gpu, metric, extent, steps);
        gpus.iter().map(of_gpu).collect()
    }

    /// A GPU's samples that are not sealed yet or only just, ascending.
    pub fn recent_samples(&self, gpu: &GpuUuid, from: Timestamp, to: Timestamp) -> Vec<Sample> {
        self.head.samples(gpu, from, to)
    }

    /// What agents reported last, some of which is not in the store yet.
    pub fn recent_events(&self) -> Vec<NodeEvent> {
        self.recent_events.iter().cloned().collect()
    }

    /// Remembers what history keeps of it.
    pub(super) fn note_event(&mut self, event: NodeEvent) {
        if self.pending_events.len() == MAX_EVENTS_A_COMMIT {
            self.counts.unkept_events += 1;
            return;
        }
        if self.recent_events.len() == MAX_EVENTS_A_COMMIT {
            self.recent_events.pop_front();
        }
        self.recent_events.push_back(event.clone());
        self.pending_events.push(event);
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

#[cfg(test)]
mod tests {
    use entrenar::report::{Hello, Inventory, StreamId};

    use super::*;
    use crate::andon::RuleBook;
    use crate::chunk::Profile;
    use crate::line::{ConnectionId, LineConfig};

    /// Nodes as they introduce themselves one after the other: a name, and the GPUs of each inventory.
    fn fleet(nodes: &[(&str, &[&[&str]])]) -> Line {
        let mut line = Line::new(LineConfig {
            cluster: "test".into(),
            rules: RuleBook::default(),
            routes: crate::notify::route::Routes::default(),
            profile: Profile::Exact,
        });
        let gpu = |(index, uuid): (usize, &&str)| GpuInfo {
            uuid: (*uuid).into(),
            index: index as u32,
            name: "H100".into(),
            pci_bus_id: None,
            serial: None,
            memory_total_bytes: None,
            parent: None,
        };
        for (n, (node, inventories)) in nodes.iter().enumerate() {
            let inventories = inventories
                .iter()
                .enumerate()
                .map(|(generation, gpus)| Inventory {
                    generation: generation as u32,
                    gpus: gpus.iter().enumerate().map(gpu).collect(),
                });
            let hello = Hello {
                stream: StreamId([n as u8; 16]),
                node: (*node).into(),
                labels: Labels::from([("rack".to_owned(), format!("rack of {node}"))]),
                inventories: inventories.collect(),
                agent_version: String::new(),
                driver_version: None,
                interval_ms: 1000,
                batch_ticks: 1,
                first_seq: 1,
                next_seq: 1,
            };
            let (now, connection) = (Timestamp::from_secs(n as i64), ConnectionId(n as u64));
            line.hello(now, connection, hello, Vec::new()).unwrap();
        }
        line
    }

    /// `GPU-1@n1:0`; `GPU-1@n1:0 was` where it sat once; `GPU-1@?` where no place is known.
    fn seats(line: &Line, filter: &Filter) -> Vec<String> {
        let told = |seat: Seat| match seat.place {
            None => format!("{}@?", seat.uuid.as_str()),
            Some(place) => {
                let at = format!("{}@{}:{}", seat.uuid.as_str(), place.node, place.device);
                format!("{at}{}", if seat.is_present { "" } else { " was" })
            }
        };
        line.seats(filter).into_iter().map(told).collect()
    }

    fn named(uuid: &str) -> Filter {
        Filter {
            uuid: Some(uuid.into()),
            ..Filter::default()
        }
    }

    #[test]
    fn a_gpu_is_where_it_sits_now_however_it_is_asked_for() {
        let nodes: &[(&str, &[&[&str]])] = &[
            ("n1", &[&["A", "B", "C"], &["A"]]),
            ("n2", &[&["D"], &["D", "B"]]),
        ];
        let line = fleet(nodes);
        let all = ["A@n1:0", "D@n2:0", "B@n2:1", "C@n1:2 was"];
        assert_eq!(seats(&line, &Filter::default()), all);
        for (uuid, seat) in ["A", "D", "B", "C"].into_iter().zip(all) {
            assert_eq!(seats(&line, &named(uuid)), [seat]);
        }
        assert_eq!(seats(&line, &named("Z")), ["Z@?"]);
        let of_n1 = Filter {
            nodes: vec!["n1".into()],
            ..Filter::default()
        };
        assert_eq!(seats(&line, &of_n1), ["A@n1:0", "C@n1:2 was"]);
    }

    #[test]
    fn a_name_and_a_place_must_both_be_right() {
        let line = fleet(&[("n1", &[&["A", "B"]]), ("n2", &[&["C"]])]);
        let placed = |uuid: &str, rack: &str| Filter {
            labels: vec![("rack".into(), format!("rack of {rack}"))],
            ..named(uuid)
        };
        assert_eq!(seats(&line, &placed("B", "n1")), ["B@n1:1"]);
        assert!(seats(&line, &placed("B", "n2")).is_empty());
    }
}
