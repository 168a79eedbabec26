//! What each lamp shows, from the open incidents and from how its node stands with us.
//!
//! A critical incident is red, a warning yellow, a record leaves the lamp alone. Silence is grey: no data is never
//! "recovered". Maintenance is blue, whatever else is true.

use std::collections::HashMap;

use entrenar::gpu::{GpuUuid, NodeId};

use crate::andon::{Light, Presence, Scope, Severity};
use crate::incident::Incident;

/// How a lamp's owner stands, apart from incidents.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub presence: Presence,
    /// What the engine would show with no incident: a GPU at 80 °C is yellow and worth no message.
    pub hint: Option<Light>,
    pub maintenance: bool,
}

impl Standing {
    /// Live, nothing special.
    pub const LIVE: Self = Self {
        presence: Presence::Live,
        hint: None,
        maintenance: false,
    };

    fn light(self) -> Light {
        match self.presence {
            Presence::Live | Presence::Late => self.hint.unwrap_or(Light::Green),
            Presence::Expected | Presence::Silent | Presence::Gone => Light::Grey,
        }
    }
}

/// The worst of some lights; green when there are none.
pub fn worst(lights: impl IntoIterator<Item = Light>) -> Light {
    lights.into_iter().max().unwrap_or(Light::Green)
}

/// The light of an incident by itself.
pub fn of_incident(incident: &Incident) -> Light {
    match incident.severity {
        _ if !incident.state.is_open() || incident.flags.shadow => Light::Green,
        _ if incident.flags.maintenance => Light::Blue,
        Severity::Critical => Light::Red,
        Severity::Warning => Light::Yellow,
        Severity::Info => Light::Green,
    }
}

/// What the open incidents alone make of every lamp.
#[derive(Clone, Debug, Default)]
pub struct Lights {
    gpus: HashMap<GpuUuid, Light>,
    nodes: HashMap<NodeId, Light>,
    jobs: HashMap<String, Light>,
    fleet: Option<Light>,
}

impl Lights {
    /// Reads the open incidents once.
    pub fn of<'a>(open: impl IntoIterator<Item = &'a Incident>) -> Self {
        let mut lights = Self::default();
        for incident in open {
            lights.add(incident, of_incident(incident));
        }
        lights
    }

    fn add(&mut self, incident: &Incident, light: Light) {
        self.fleet = self.fleet.max(Some(light));
        if let Some(job) = &incident.job {
            raise(&mut self.jobs, job.clone(), light);
        }
        match &incident.scope {
            Scope::Fleet => {}
            Scope::Node { node } => raise(&mut self.nodes, node.clone(), light),
            Scope::Gpu { gpu } => raise(&mut self.gpus, gpu.uuid.clone(), light),
            Scope::Nodes { nodes, .. } => {
                for node in nodes {
                    raise(&mut self.nodes, node.clone(), light);
                }
            }
            Scope::Job { job, gpus } => {
                raise(&mut self.jobs, job.clone(), light);
                // Where a culprit is known, the others of its job are only held up.
                let named = !incident.culprits.is_empty();
                let others = if named {
                    light.min(Light::Yellow)
                } else {
                    light
                };
                for gpu in gpus {
                    raise(&mut self.gpus, gpu.uuid.clone(), others);
                }
                for gpu in &incident.culprits {
                    raise(&mut self.gpus, gpu.uuid.clone(), light);
                }
            }
        }
    }

    /// One GPU's lamp. `standing`: its node's presence, its own hint.
    pub fn gpu(&self, gpu: &GpuUuid, standing: Standing) -> Light {
        lamp(self.gpus.get(gpu), standing, [])
    }

    /// One node's lamp: the worst of its own and those of its GPUs.
    pub fn node(
        &self,
        node: &NodeId,
        standing: Standing,
        gpus: impl IntoIterator<Item = Light>,
    ) -> Light {
        lamp(self.nodes.get(node), standing, gpus)
    }

    /// One job's lamp: the worst of its own and those of its GPUs.
    pub fn job(&self, job: &str, gpus: impl IntoIterator<Item = Light>) -> Light {
        worst(self.jobs.get(job).copied().into_iter().chain(gpus))
    }

    /// The whole fleet's lamp: the worst of all incidents and of its nodes.
    pub fn fleet(&self, nodes: impl IntoIterator<Item = Light>) -> Light {
        worst(self.fleet.into_iter().chain(nodes))
    }
}

fn raise<K: Eq + std::hash::Hash>(lights: &mut HashMap<K, Light>, key: K, light: Light) {
    let shown = lights.entry(key).or_insert(light);
    *shown = light.max(*shown);
}

fn lamp(own: Option<&Light>, standing: Standing, parts: impl IntoIterator<Item = Light>) -> Light {
    if standing.maintenance {
        return Light::Blue;
    }
    worst(
        parts
            .into_iter()
            .chain(own.copied())
            .chain([standing.light()]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::andon::{GpuAt, Kind};
    use crate::incident::State;
    use crate::incident::testing::incident;

    fn standing(presence: Presence) -> Standing {
        Standing {
            presence,
            ..Standing::LIVE
        }
    }

    #[test]
    fn a_rule_on_trial_moves_no_lamp() {
        let mut lost = incident("a", Kind::GpuLost, Severity::Critical);
        lost.flags.shadow = true;
        assert_eq!(of_incident(&lost), Light::Green);
        let gpu = &GpuUuid::from("GPU-a-3");
        assert_eq!(Lights::of([&lost]).gpu(gpu, Standing::LIVE), Light::Green);
        assert_eq!(Lights::of([&lost]).job("train-1", []), Light::Green);
    }

    #[test]
    fn a_lamp_shows_the_worst_of_its_incidents() {
        let mut hot = incident("a", Kind::ThermalThrottling, Severity::Warning);
        let lost = incident("a", Kind::GpuLost, Severity::Critical);
        let gpu = &GpuUuid::from("GPU-a-3");
        assert_eq!(Lights::of([&hot]).gpu(gpu, Standing::LIVE), Light::Yellow);
        assert_eq!(
            Lights::of([&hot, &lost]).gpu(gpu, Standing::LIVE),
            Light::Red
        );
        hot.state = State::Resolved;
        assert_eq!(Lights::of([&hot]).gpu(gpu, Standing::LIVE), Light::Green);
        let record = incident("a", Kind::PowerLimit, Severity::Info);
        assert_eq!(Lights::of([&record]).gpu(gpu, Standing::LIVE), Light::Green);
    }

    #[test]
    fn silence_is_grey_and_never_green_but_does_not_hide_trouble() {
        let gpu = &GpuUuid::from("GPU-a-3");
        for presence in [Presence::Expected, Presence::Silent, Presence::Gone] {
            assert_eq!(Lights::default().gpu(gpu, standing(presence)), Light::Grey);
        }
        let late = standing(Presence::Late);
        assert_eq!(Lights::default().gpu(gpu, late), Light::Green);
        let lost = incident("a", Kind::GpuLost, Severity::Critical);
        let silent = standing(Presence::Silent);
        assert_eq!(Lights::of([&lost]).gpu(gpu, silent), Light::Red);
    }

    #[test]
    fn a_hint_colours_a_gpu_that_has_no_incident() {
        let warm = Standing {
            hint: Some(Light::Yellow),
            ..Standing::LIVE
        };
        let lights = Lights::default();
        assert_eq!(lights.gpu(&"GPU-a-3".into(), warm), Light::Yellow);
        assert_eq!(
            lights.node(&"a".into(), Standing::LIVE, [Light::Green, Light::Yellow]),
            Light::Yellow
        );
    }

    #[test]
    fn maintenance_is_blue_whatever_else_is_true() {
        let lost = incident("a", Kind::GpuLost, Severity::Critical);
        let drained = Standing {
            maintenance: true,
            ..standing(Presence::Silent)
        };
        assert_eq!(
            Lights::of([&lost]).gpu(&"GPU-a-3".into(), drained),
            Light::Blue
        );
    }

    #[test]
    fn in_a_hung_job_the_culprit_is_red_and_the_ranks_that_wait_are_yellow() {
        let at = |device: u32| GpuAt {
            node: "a".into(),
            device,
            uuid: format!("GPU-{device}").into(),
        };
        let mut hung = incident("a", Kind::GpuIdle, Severity::Critical);
        hung.scope = Scope::Job {
            job: "train-1".into(),
            gpus: vec![at(0), at(1)],
        };
        let gpu = |hung: &Incident, device: u32| {
            Lights::of([hung]).gpu(&format!("GPU-{device}").into(), Standing::LIVE)
        };
        assert_eq!((gpu(&hung, 0), gpu(&hung, 1)), (Light::Red, Light::Red));
        hung.culprits = vec![at(1)];
        assert_eq!((gpu(&hung, 0), gpu(&hung, 1)), (Light::Yellow, Light::Red));
        assert_eq!(Lights::of([&hung]).job("train-1", []), Light::Red);
        assert_eq!(Lights::of([&hung]).job("train-2", []), Light::Green);
    }
}
