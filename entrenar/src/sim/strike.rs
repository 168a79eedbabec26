//! A fault worked out for each GPU that it touches: who is struck, and who then waits for whom. *(pure)*

use super::effect::{Effect, What};
use super::fault::{Fault, FaultKind, Hang, Target};
use super::job::SimMillis;
use super::plan::{DueXid, FOREVER, NodePlan, Outage, Work};
use super::{SimConfig, SimError, node_name};

/// Ranks notice a missing peer within a step.
const STEP_MS: SimMillis = 1_000;
/// A pause of a fault without an end lasts this long.
const LONGEST_PAUSE_MS: SimMillis = 90_000;
/// XID of a GPU that fell off the bus.
const FALLEN_OFF_THE_BUS: u64 = 79;

/// Works a fault out for each GPU that it touches.
pub(crate) fn strike(
    config: &SimConfig,
    fault: &Fault,
    start: SimMillis,
    nodes: &mut [NodePlan],
) -> Result<(), SimError> {
    let from = start + fault.at.as_millis() as SimMillis;
    let to = fault
        .duration
        .map_or(FOREVER, |span| from + span.as_millis() as SimMillis);
    let mut scene = Scene {
        nodes,
        from,
        to,
        fault,
    };
    match &fault.target {
        Target::Gpu { node, gpu } => {
            let at = scene.gpu(node, *gpu)?;
            scene.strike_gpu(at)
        }
        Target::Node { node } => {
            let node = scene.node(node)?;
            scene.strike_node(node)
        }
        Target::Job { job } => {
            let ranks = config.jobs.iter().find(|spec| spec.job == *job);
            let ranks = &ranks.ok_or_else(|| scene.missing())?.gpus;
            scene.strike_job(ranks)
        }
    }
}

/// A fault at work.
struct Scene<'a> {
    nodes: &'a mut [NodePlan],
    from: SimMillis,
    to: SimMillis,
    fault: &'a Fault,
}

type Place = (usize, usize);

impl Scene<'_> {
    fn missing(&self) -> SimError {
        SimError::FaultOutside {
            target: self.fault.target.to_string(),
        }
    }

    fn misplaced(&self) -> SimError {
        SimError::FaultMisplaced {
            kind: self.fault.kind.name(),
            target: self.fault.target.to_string(),
        }
    }

    fn node(&self, name: &str) -> Result<usize, SimError> {
        (0..self.nodes.len())
            .find(|&n| node_name(n as u32) == name)
            .ok_or_else(|| self.missing())
    }

    fn gpu(&self, node: &str, gpu: u32) -> Result<Place, SimError> {
        let node = self.node(node)?;
        if (gpu as usize) < self.nodes[node].slots.len() {
            Ok((node, gpu as usize))
        } else {
            Err(self.missing())
        }
    }

    fn add(&mut self, (node, gpu): Place, from: SimMillis, what: What) {
        let to = self.to;
        self.add_until((node, gpu), from, to, what);
    }

    fn add_until(&mut self, (node, gpu): Place, from: SimMillis, to: SimMillis, what: What) {
        let effect = Effect { from, to, what };
        self.nodes[node].slots[gpu].effects.push(effect);
    }

    /// Every GPU of the job that holds this one, without itself.
    fn peers(&self, place: Place) -> Vec<Place> {
        let job = |place: Place| {
            let holder = self.work(place)?.holder.as_ref()?;
            Some(holder.job.as_str())
        };
        let Some(own) = job(place) else {
            return Vec::new();
        };
        let places =
            (0..self.nodes.len()).flat_map(|n| (0..self.nodes[n].slots.len()).map(move |g| (n, g)));
        places
            .filter(|p| *p != place)
            .filter(|p| job(*p) == Some(own))
            .collect()
    }

    fn work(&self, (node, gpu): Place) -> Option<&Work> {
        self.nodes[node].slots[gpu].works.first()
    }

    fn is_synchronous(&self, place: Place) -> bool {
        self.work(place)
            .is_some_and(|work| work.play.is_synchronous())
    }

    fn strike_gpu(&mut self, at: Place) -> Result<(), SimError> {
        match self.fault.kind {
            FaultKind::HotGpu => self.add(at, self.from, What::CoolingLost),
            FaultKind::FullMemory { rise, job_dies } => {
                if self.work(at).is_none() {
                    return Err(SimError::NobodyHolds {
                        target: self.fault.target.to_string(),
                    });
                }
                let rise_ms = (rise.as_millis() as SimMillis).max(1);
                self.add(at, self.from, What::Memory { rise_ms });
                if job_dies && self.to != FOREVER {
                    for place in self.peers(at).into_iter().chain([at]) {
                        self.add_until(place, self.to, FOREVER, What::Gone);
                    }
                }
            }
            FaultKind::LostGpu => {
                self.xid(at, FALLEN_OFF_THE_BUS);
                self.add(at, self.from, What::Lost);
                if self.is_synchronous(at) {
                    for peer in self.peers(at) {
                        self.add(peer, self.from + STEP_MS, What::Spin);
                    }
                }
            }
            FaultKind::Xid { code } => {
                self.xid(at, code);
                match code {
                    63 => self.add(at, self.from, What::RemapPending),
                    48 | 94 | 95 => {
                        self.add(at, self.from, What::RemapPending);
                        self.add(at, self.from, What::Uncorrected);
                    }
                    _ => {}
                }
            }
            FaultKind::SilentGpu => self.add(at, self.from, What::Silent),
            _ => return Err(self.misplaced()),
        }
        Ok(())
    }

    fn xid(&mut self, (node, gpu): Place, code: u64) {
        self.nodes[node].xids.push(DueXid {
            at: self.from,
            gpu: gpu as u32,
            code,
        });
    }

    fn strike_node(&mut self, node: usize) -> Result<(), SimError> {
        let gpus = 0..self.nodes[node].slots.len();
        let planned = self.fault.kind == FaultKind::AgentStop;
        match self.fault.kind {
            FaultKind::PowerBrake => {
                for gpu in gpus {
                    self.add((node, gpu), self.from, What::Brake);
                }
                return Ok(());
            }
            FaultKind::LostNode => {
                for gpu in gpus {
                    self.wait_elsewhere((node, gpu));
                }
            }
            FaultKind::AgentStop => {}
            _ => return Err(self.misplaced()),
        }
        self.nodes[node].outages.push(Outage {
            from: self.from,
            to: self.to,
            planned,
            restarts: true,
        });
        Ok(())
    }

    /// The ranks of its job on other nodes wait for one that is gone.
    fn wait_elsewhere(&mut self, at: Place) {
        if !self.is_synchronous(at) {
            return;
        }
        for peer in self.peers(at) {
            if peer.0 != at.0 {
                self.add(peer, self.from + STEP_MS, What::Spin);
            }
        }
    }

    fn strike_job(&mut self, ranks: &[(u32, u32)]) -> Result<(), SimError> {
        for (number, &(node, gpu)) in ranks.iter().enumerate() {
            let what = match self.fault.kind {
                FaultKind::HungJob { how: Hang::Cold } => What::Stuck,
                FaultKind::HungJob { how: Hang::Culprit } if number == 0 => What::Stuck,
                FaultKind::HungJob { .. } => What::Spin,
                FaultKind::CheckpointPause => What::Pause,
                _ => return Err(self.misplaced()),
            };
            let at = (node as usize, gpu as usize);
            match what {
                // A pause without an end would be a hang.
                What::Pause => {
                    let to = self.to.min(self.from + LONGEST_PAUSE_MS);
                    self.add_until(at, self.from, to, what);
                }
                _ => self.add(at, self.from, what),
            }
        }
        Ok(())
    }
}
