//! The line as others see it: copies of nodes, GPUs and jobs with their lamps.

use std::time::Duration;

use entrenar::gpu::{GpuUuid, NodeId};

use super::stream::Stream;
use super::{Line, view};
use crate::andon::{GpuAt, Light, Presence};
use crate::incident::light::{Lights, Standing};
use crate::query::{Point, Question};

/// A node's lamp, or that of one of its GPUs.
pub(super) type Lamp = (NodeId, Option<(u32, GpuUuid)>, Light);

impl Line {
    /// Every node, by name.
    pub fn nodes(&self) -> Vec<view::Node> {
        let lights = Lights::of(self.book.open());
        self.node_streams()
            .map(|(node, stream)| self.node_view(&lights, node, stream))
            .collect()
    }

    /// Every GPU, by node and index.
    pub fn gpus(&self) -> Vec<view::Gpu> {
        let lights = Lights::of(self.book.open());
        self.node_streams()
            .flat_map(|(node, stream)| self.gpu_views(&lights, node, stream))
            .collect()
    }

    /// The GPUs of one node, by index.
    pub fn gpus_of(&self, node: &NodeId) -> Vec<view::Gpu> {
        let lights = Lights::of(self.book.open());
        let stream = self.nodes.get(node).and_then(|id| self.streams.get(id));
        stream
            .map(|s| self.gpu_views(&lights, node, s))
            .unwrap_or_default()
    }

    /// Every lamp: of nodes, and of GPUs by UUID.
    pub fn lamps(&self) -> Vec<Lamp> {
        let lights = Lights::of(self.book.open());
        let mut lamps = Vec::new();
        for (node, stream) in self.node_streams() {
            let gpus = self.gpu_lights(&lights, node, stream);
            lamps.push((
                node.clone(),
                None,
                self.node_light(&lights, node, gpus.iter().map(|(_, l)| *l)),
            ));
            lamps.extend(
                gpus.into_iter()
                    .map(|(at, l)| (node.clone(), Some((at.device, at.uuid)), l)),
            );
        }
        lamps
    }

    /// Every job, by id.
    pub fn jobs(&self) -> Vec<view::Job> {
        let lights = Lights::of(self.book.open());
        let mut jobs: Vec<_> = self
            .engine
            .jobs()
            .into_iter()
            .map(|job| view::Job {
                light: lights.job(
                    &job.job,
                    job.gpus
                        .iter()
                        .map(|g| lights.gpu(&g.uuid, self.standing(g))),
                ),
                job: job.job,
                kind: job.kind,
                gpus: job.gpus,
                started_at: Some(job.started_at),
                state: job.state.name().into(),
            })
            .collect();
        jobs.sort_by(|a, b| a.job.cmp(&b.job));
        jobs
    }

    /// Points of one metric that are not sealed yet or only just, oldest first.
    pub fn recent(&self, asked: &Question) -> Vec<Point> {
        self.head
            .range(&asked.gpu, asked.metric, asked.from, asked.to)
    }

    pub(super) fn node_streams(&self) -> impl Iterator<Item = (&NodeId, &Stream)> {
        self.nodes
            .iter()
            .filter_map(|(node, id)| Some((node, self.streams.get(id)?)))
    }

    fn presence(&self, node: &NodeId) -> Presence {
        self.engine.presence(node).unwrap_or(Presence::Expected)
    }

    fn standing(&self, gpu: &GpuAt) -> Standing {
        Standing {
            presence: self.presence(&gpu.node),
            hint: self.engine.hint(&gpu.uuid),
            maintenance: false,
        }
    }

    fn node_light(
        &self,
        lights: &Lights,
        node: &NodeId,
        gpus: impl IntoIterator<Item = Light>,
    ) -> Light {
        let standing = Standing {
            presence: self.presence(node),
            hint: None,
            maintenance: false,
        };
        lights.node(node, standing, gpus)
    }

    fn gpu_lights(&self, lights: &Lights, node: &NodeId, stream: &Stream) -> Vec<(GpuAt, Light)> {
        let inventory = stream.hello.inventories.last();
        inventory
            .into_iter()
            .flat_map(|i| &i.gpus)
            .map(|info| {
                let at = GpuAt {
                    node: node.clone(),
                    device: info.index,
                    uuid: info.uuid.clone(),
                };
                let light = lights.gpu(&at.uuid, self.standing(&at));
                (at, light)
            })
            .collect()
    }

    fn gpu_views(&self, lights: &Lights, node: &NodeId, stream: &Stream) -> Vec<view::Gpu> {
        let interval = Duration::from_millis(u64::from(stream.hello.interval_ms));
        let names = stream
            .hello
            .inventories
            .last()
            .into_iter()
            .flat_map(|i| &i.gpus)
            .map(|g| g.name.clone());
        self.gpu_lights(lights, node, stream)
            .into_iter()
            .zip(names)
            .map(|((at, light), name)| {
                let (sampled_at, values) = self
                    .head
                    .latest(&at.uuid)
                    .map_or_else(Default::default, |(t, v)| (Some(t), v));
                let holder = self.engine.holder_of(&at.uuid).cloned();
                view::Gpu {
                    at,
                    name,
                    light,
                    holder,
                    sampled_at,
                    interval,
                    values,
                }
            })
            .collect()
    }

    fn node_view(&self, lights: &Lights, node: &NodeId, stream: &Stream) -> view::Node {
        let gpus = self.gpu_lights(lights, node, stream);
        let newest = gpus
            .iter()
            .filter_map(|(at, _)| Some(self.head.latest(&at.uuid)?.0))
            .max();
        view::Node {
            name: node.clone(),
            light: self.node_light(lights, node, gpus.iter().map(|(_, l)| *l)),
            presence: self.presence(node),
            last_received_at: Some(stream.last_received_at),
            sampled_at: newest,
            agent_version: Some(stream.hello.agent_version.clone()).filter(|v| !v.is_empty()),
            driver_version: stream.hello.driver_version.clone(),
            labels: stream.hello.labels.clone(),
            gpu_count: gpus.len(),
            clock_offset_ms: stream.clock.offset_ms(),
        }
    }
}
