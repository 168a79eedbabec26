//! What a baseline sees: the latest reading of each GPU, and who works together. *(pure)*

use std::collections::HashMap;
use std::sync::Arc;

use entrenar::gpu::Values;
use entrenar::metric;
use entrenar_aggregator::andon::Severity;
use entrenar_aggregator::backtest::{Culprit, ScopeView};

use crate::detection::finding::Finding;

/// The fleet.
#[derive(Default)]
pub struct Sight {
    pub gpus: Vec<Gpu>,
    pub groups: Vec<Group>,
    nodes: Vec<Arc<str>>,
    by_place: HashMap<(Arc<str>, u32), usize>,
    by_job: HashMap<String, usize>,
    /// The group of each node, where nobody names jobs.
    by_node: HashMap<usize, usize>,
    names_jobs: bool,
}

/// A GPU.
pub struct Gpu {
    pub node: usize,
    pub index: u32,
    pub group: Option<usize>,
    pub seen: Reading,
    bytes: Option<(i64, i64)>,
}

/// The latest reading; what the GPU did not say is `None`.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    pub utilization: Option<f32>,
    pub celsius: Option<f32>,
    pub clock_mhz: Option<f32>,
    pub watts: Option<f32>,
    /// Kept from the latest tick that said it.
    pub limit_watts: Option<f32>,
    pub memory_share: Option<f32>,
    /// Over NVLink, PCIe and the node's network.
    pub bytes_per_s: Option<f32>,
    /// Kept from the latest tick that said it.
    pub processes: Option<i64>,
}

/// GPUs that work together: a job, or a node where nobody names jobs.
pub struct Group {
    pub job: Option<String>,
    pub gpus: Vec<usize>,
    /// Since when these and no others are in it.
    pub since_ms: i64,
}

impl Sight {
    /// A GPU's place.
    pub fn gpu(&mut self, node: &Arc<str>, index: u32) -> usize {
        if let Some(gpu) = self.by_place.get(&(node.clone(), index)) {
            return *gpu;
        }
        let known = self.nodes.iter().position(|name| name == node);
        let node_place = known.unwrap_or_else(|| {
            self.nodes.push(node.clone());
            self.nodes.len() - 1
        });
        let gpu = self.gpus.len();
        self.by_place.insert((node.clone(), index), gpu);
        self.gpus.push(Gpu {
            node: node_place,
            index,
            group: None,
            seen: Reading::default(),
            bytes: None,
        });
        if !self.names_jobs {
            let next = self.groups.len();
            let group = *self.by_node.entry(node_place).or_insert(next);
            if group == next {
                self.groups.push(Group::new(None));
            }
            self.enter(gpu, Some(group), 0);
        }
        gpu
    }

    /// Who holds a GPU now.
    pub fn hold(&mut self, gpu: usize, job: Option<&str>, now_ms: i64) {
        let Some(job) = job else {
            if self.names_jobs {
                self.enter(gpu, None, now_ms);
            }
            return;
        };
        if !self.names_jobs {
            self.names_jobs = true;
            for gpu in 0..self.gpus.len() {
                self.enter(gpu, None, now_ms);
            }
        }
        if let Some(group) = self.gpus[gpu].group
            && self.groups[group].job.as_deref() == Some(job)
        {
            return;
        }
        let group = self.by_job.get(job).copied().unwrap_or_else(|| {
            self.groups.push(Group::new(Some(job.to_owned())));
            self.by_job.insert(job.to_owned(), self.groups.len() - 1);
            self.groups.len() - 1
        });
        self.enter(gpu, Some(group), now_ms);
    }

    fn enter(&mut self, gpu: usize, group: Option<usize>, now_ms: i64) {
        if self.gpus[gpu].group == group {
            return;
        }
        if let Some(left) = std::mem::replace(&mut self.gpus[gpu].group, group) {
            self.groups[left].gpus.retain(|member| *member != gpu);
            self.groups[left].since_ms = now_ms;
        }
        if let Some(entered) = group {
            self.groups[entered].gpus.push(gpu);
            self.groups[entered].since_ms = now_ms;
        }
    }

    /// Takes in a row.
    pub fn read(&mut self, gpu: usize, now_ms: i64, row: &Values) {
        let gpu = &mut self.gpus[gpu];
        let plain = |metric| row.get(metric).map(|value| value as f32);
        let seen = &mut gpu.seen;
        seen.utilization = plain(metric::UTILIZATION);
        seen.celsius = plain(metric::TEMPERATURE);
        seen.clock_mhz = plain(metric::SM_CLOCK);
        seen.watts = plain(metric::POWER).map(|milliwatts| milliwatts / 1e3);
        let limit = plain(metric::POWER_LIMIT).map(|milliwatts| milliwatts / 1e3);
        seen.limit_watts = limit.or(seen.limit_watts);
        let used = plain(metric::MEMORY_USED).zip(plain(metric::MEMORY_TOTAL));
        seen.memory_share = used.map(|(used, total)| used / total.max(1.0));
        seen.processes = row.get(metric::PROCESSES).or(seen.processes);
        let links = [
            metric::NVLINK_TX,
            metric::NVLINK_RX,
            metric::PCIE_TX,
            metric::PCIE_RX,
            metric::NETWORK,
        ];
        let said = links.map(|link| row.get(link));
        let bytes = said.iter().any(Option::is_some);
        let bytes = bytes.then(|| said.into_iter().flatten().sum::<i64>());
        seen.bytes_per_s = None;
        if let Some(bytes) = bytes {
            if let Some((was, then_ms)) = gpu.bytes
                && then_ms < now_ms
            {
                let secs = (now_ms - then_ms) as f32 / 1e3;
                seen.bytes_per_s = Some((bytes - was).max(0) as f32 / secs);
            }
            gpu.bytes = Some((bytes, now_ms));
        }
    }

    /// Whether somebody works with these GPUs, as far as the stream says.
    pub fn is_held(&self, group: &Group) -> bool {
        let has_process = |gpu: &usize| self.gpus[*gpu].seen.processes != Some(0);
        !group.gpus.is_empty() && (group.job.is_some() || group.gpus.iter().any(has_process))
    }

    /// What a rule says of a whole group.
    pub fn about_group(
        &self,
        group: &Group,
        now_ms: i64,
        kinds: &[&'static str],
        words: &str,
    ) -> Finding {
        let node = match group.job {
            Some(_) => None,
            None => group.gpus.first().map(|gpu| self.node_of(*gpu)),
        };
        Finding {
            kinds: kinds.to_vec(),
            severity: Severity::Critical,
            scope: ScopeView {
                node,
                job: group.job.clone(),
                ..ScopeView::default()
            },
            fired_at: now_ms as f64 / 1e3,
            culprits: Vec::new(),
            is_consequence: false,
            summary: words.to_owned(),
        }
    }

    /// What a rule says of a GPU, or of its node.
    pub fn about_device(
        &self,
        (gpu, whole_node): (usize, bool),
        now_ms: i64,
        kinds: &[&'static str],
        (severity, words): (Severity, &str),
    ) -> Finding {
        let node = self.node_of(gpu);
        let index = (!whole_node).then_some(self.gpus[gpu].index);
        Finding {
            kinds: kinds.to_vec(),
            severity,
            scope: ScopeView {
                node: Some(node.clone()),
                gpu: index,
                ..ScopeView::default()
            },
            fired_at: now_ms as f64 / 1e3,
            culprits: vec![Culprit { node, gpu: index }],
            is_consequence: false,
            summary: words.to_owned(),
        }
    }

    fn node_of(&self, gpu: usize) -> String {
        self.nodes[self.gpus[gpu].node].to_string()
    }
}

impl Group {
    fn new(job: Option<String>) -> Self {
        Self {
            job,
            gpus: Vec::new(),
            since_ms: 0,
        }
    }
}

/// State of a rule for a group, which begins anew when the group's GPUs change.
#[derive(Default)]
pub struct OfGroup<T> {
    pub since_ms: i64,
    pub state: T,
}

/// State of a rule for a group as it is now.
pub fn of_group<'a, T: Default>(
    states: &'a mut Vec<OfGroup<T>>,
    sight: &Sight,
    group: usize,
) -> &'a mut T {
    let of = state_of(states, group);
    let since_ms = sight.groups[group].since_ms;
    if of.since_ms != since_ms {
        *of = OfGroup {
            since_ms,
            state: T::default(),
        };
    }
    &mut of.state
}

/// State of a rule for each GPU or group, made when it is first asked for.
pub fn state_of<T: Default>(states: &mut Vec<T>, place: usize) -> &mut T {
    if states.len() <= place {
        states.resize_with(place + 1, T::default);
    }
    &mut states[place]
}
