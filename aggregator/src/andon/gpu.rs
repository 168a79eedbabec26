//! One GPU with all that watches it. *(pure)*
//!
//! What is remembered is bounded, about 2 KB a GPU: windows are bits and small rings, never samples.

use std::time::Duration;

use entrenar::andon::CordChange;
use entrenar::gpu::{GpuInfo, NodeId, Values};
use entrenar::metric::NvmlStatus;
use entrenar::report::{Holder, Labels};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::idle::IdleState;
use super::lost::LostState;
use super::memory::MemoryState;
use super::power::PowerState;
use super::recent::Recent;
use super::rules::index::SetId;
use super::rules::{Rule as _, RuleSet};
use super::sample::{Activity, EnergyMeter, PowerLevels, Sample, activity, status_of};
use super::thermal::{Heat, ThermalState};
use super::unresponsive::UnresponsiveState;
use super::xid::XidState;
use super::{Change, Finding, GpuAt, Kind, Resolution, RuleUid, Severity};

/// Most processes of a holder that are remembered.
const MOST_PIDS: usize = 64;

/// One GPU with all that watches it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Gpu {
    pub(super) at: GpuAt,
    model: String,
    memory_total: Option<i64>,
    /// A MIG instance: it comes and goes by configuration.
    pub(super) is_partition: bool,
    holder: Option<Holder>,
    /// Event time of the last sample that was looked at.
    pub(super) last_tick: Option<Timestamp>,
    /// By the aggregator's clock: the last time the GPU said something itself.
    pub(super) last_data: Option<Timestamp>,
    pub(super) activity: Option<Activity>,
    energy: EnergyMeter,
    recent: Recent,
    pub(super) lost: LostState,
    pub(super) unresponsive: UnresponsiveState,
    pub(super) thermal: ThermalState,
    memory: MemoryState,
    power: PowerState,
    pub(super) idle: IdleState,
    pub(super) xid: XidState,
    /// The rules that hold for it.
    #[serde(skip)]
    pub(super) rules: SetId,
}

/// A cord of a GPU has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal {
    pub(super) kind: Kind,
    pub(super) change: Change,
}

/// A row of a GPU, and when it came.
#[derive(Clone, Copy)]
pub(super) struct Tick<'a> {
    /// Event time.
    pub(super) at: Timestamp,
    /// The aggregator's clock.
    pub(super) now: Timestamp,
    pub(super) interval: Duration,
    pub(super) row: &'a Values,
}

impl Gpu {
    pub(super) fn new(node: &NodeId, info: &GpuInfo) -> Self {
        Self {
            at: GpuAt {
                node: node.clone(),
                device: info.index,
                uuid: info.uuid.clone(),
            },
            model: info.name.clone(),
            memory_total: info.memory_total_bytes.map(|bytes| bytes as i64),
            is_partition: info.parent.is_some(),
            holder: None,
            last_tick: None,
            last_data: None,
            activity: None,
            energy: EnergyMeter::default(),
            recent: Recent::default(),
            lost: LostState::default(),
            unresponsive: UnresponsiveState::default(),
            thermal: ThermalState::default(),
            memory: MemoryState::default(),
            power: PowerState::default(),
            idle: IdleState::default(),
            xid: XidState::default(),
            rules: SetId::default(),
        }
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The same GPU where it now sits.
    pub(super) fn at_place(mut self, node: &NodeId, info: &GpuInfo) -> Self {
        self.at.node = node.clone();
        self.at.device = info.index;
        self.memory_total = info.memory_total_bytes.map(|bytes| bytes as i64);
        self
    }

    /// Whether an inventory's line is this GPU, unchanged.
    pub(super) fn is(&self, info: &GpuInfo) -> bool {
        self.at.uuid == info.uuid && self.at.device == info.index && self.model == info.name
    }

    pub(super) fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Takes a new holder; returns the job that it left, if it is another.
    pub(super) fn take_holder(&mut self, at: Timestamp, holder: Option<Holder>) -> Option<String> {
        let left = self.holder.take().map(|holder| holder.job);
        self.holder = holder.map(|mut holder| {
            holder.pids.truncate(MOST_PIDS);
            holder
        });
        let stays =
            left.is_some() && self.holder.as_ref().map(|holder| &holder.job) == left.as_ref();
        if stays {
            return None;
        }
        self.idle = IdleState::new(at);
        left
    }

    /// Whether a sample is later than all that were looked at.
    pub(super) fn is_news(&self, at: Timestamp) -> bool {
        self.last_tick.is_none_or(|last| last < at)
    }

    /// Looks at a row that is news. What the cords say is added to `said`.
    pub(super) fn observe(&mut self, tick: Tick<'_>, rules: &RuleSet, said: &mut Vec<Signal>) {
        let Tick {
            at, now, interval, ..
        } = tick;
        self.last_tick = Some(at);
        let status = status_of(tick.row);
        let mut say = |kind, change: Option<Change>| {
            said.extend(change.map(|change| Signal { kind, change }));
        };
        if rules.gpu_lost.enabled {
            let change = self.lost.observe(at, status, interval, &rules.gpu_lost);
            say(Kind::GpuLost, change.map(Change::from));
        }
        if rules.gpu_unresponsive.enabled {
            let rule = &rules.gpu_unresponsive;
            let change = self.unresponsive.observe(at, status, interval, rule);
            say(Kind::GpuUnresponsive, change.map(Change::from));
        }
        if status != NvmlStatus::Ok {
            self.activity = None;
            return;
        }
        self.last_data = Some(now);
        let mut sample = Sample::new(tick.row);
        sample.memory_total = sample.memory_total.or(self.memory_total);
        self.recent.push(at, interval.as_millis() as i64, &sample);
        self.note_work(at, interval, &sample);

        if rules.thermal_throttling.enabled {
            let rule = &rules.thermal_throttling;
            let heat = self.thermal.observe(at, &sample, interval, rule);
            say(Kind::ThermalThrottling, heat.map(Change::from));
        }
        if rules.memory_pressure.enabled {
            let rule = &rules.memory_pressure;
            let change = self.memory.observe(at, &sample, interval, rule);
            say(Kind::MemoryPressure, change.map(Change::from));
        }
        if rules.power_limit.enabled {
            let change = self
                .power
                .observe(at, &sample, interval, &rules.power_limit);
            say(Kind::PowerLimit, change.map(Change::from));
        }
    }

    fn note_work(&mut self, at: Timestamp, interval: Duration, sample: &Sample) {
        self.power.limit_mw = sample.power_limit_mw.or(self.power.limit_mw);
        if let Some(energy) = sample.energy_mj
            && self.energy.push(at, energy)
        {
            self.xid.note_reset();
        }
        let levels = PowerLevels::of(&self.model, self.power.limit_mw);
        self.activity = activity(sample, self.energy.mean_mw(), levels);
        self.idle.observe(at, self.activity, interval);
    }

    /// What a report of one of its own cords says: rule, severity, beginning, finding.
    pub(super) fn describe(
        &self,
        kind: Kind,
        at: Timestamp,
        labels: &Labels,
        interval: Duration,
        rules: &RuleSet,
    ) -> Option<(RuleUid, Severity, Timestamp, Finding)> {
        let mut described = match kind {
            Kind::ThermalThrottling => {
                let rule = &rules.thermal_throttling;
                let state = &self.thermal;
                let finding = state.finding(at, &self.at, labels, interval, &self.recent, rule);
                (
                    rule.uid(),
                    state.severity(rule),
                    state.started_at(at),
                    finding,
                )
            }
            Kind::MemoryPressure => {
                let rule = &rules.memory_pressure;
                let finding = self.memory.finding(&self.at, labels, &self.recent, rule);
                (
                    rule.uid(),
                    rule.severity,
                    self.memory.started_at(at),
                    finding,
                )
            }
            Kind::PowerLimit => {
                let rule = &rules.power_limit;
                let finding = self.power.finding(&self.at, labels, &self.recent, rule);
                (
                    rule.uid(),
                    rule.severity,
                    self.power.started_at(at),
                    finding,
                )
            }
            Kind::GpuLost => {
                let rule = &rules.gpu_lost;
                let finding = self.lost.finding(&self.at, labels, rule);
                (rule.uid(), rule.severity, self.lost.started_at(at), finding)
            }
            Kind::GpuUnresponsive => {
                let rule = &rules.gpu_unresponsive;
                let finding = self.unresponsive.finding(at, &self.at, labels, rule);
                (
                    rule.uid(),
                    rule.severity,
                    self.unresponsive.started_at(at),
                    finding,
                )
            }
            Kind::Xid => {
                let rule = &rules.xid;
                let place = super::finding::gpu_on_node(&self.at);
                let mut finding = self.xid.finding(&place, labels, rule);
                finding.culprits.push(self.at.clone());
                (
                    rule.uid(),
                    self.xid.severity(),
                    self.xid.started_at(at),
                    finding,
                )
            }
            _ => return None,
        };
        described.3.job = self.holder.as_ref().map(|holder| holder.job.clone());
        Some(described)
    }

    /// Forgets what a rule remembered: it was switched off.
    pub(super) fn reset(&mut self, kind: Kind) {
        match kind {
            Kind::ThermalThrottling => self.thermal = ThermalState::default(),
            Kind::MemoryPressure => self.memory = MemoryState::default(),
            Kind::PowerLimit => self.power.reset(),
            Kind::GpuLost => self.lost = LostState::default(),
            Kind::GpuUnresponsive => self.unresponsive = UnresponsiveState::default(),
            Kind::Xid => self.xid = XidState::default(),
            _ => {}
        }
    }

    pub(super) fn watts(&self) -> Vec<Option<f64>> {
        self.recent.watts()
    }

    pub(super) fn busy_percent(&self) -> Vec<Option<f64>> {
        self.recent.busy_percent()
    }
}

impl From<Heat> for Change {
    fn from(heat: Heat) -> Self {
        match heat {
            Heat::Changed(change) => change.into(),
            Heat::Worse => Self::Updated,
        }
    }
}

impl From<CordChange> for Change {
    fn from(change: CordChange) -> Self {
        match change {
            CordChange::Raised => Self::Raised,
            CordChange::Recovering => Self::Recovering,
            CordChange::Relapsed => Self::Relapsed,
            CordChange::Cleared => Self::Cleared {
                why: Resolution::Recovered,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_gpu_is_bounded() {
        let info = GpuInfo {
            uuid: "GPU-0b6b1c3e-6d0e-4c6c-9d5e-0123456789ab".into(),
            name: "NVIDIA H100 80GB HBM3".into(),
            ..GpuInfo::default()
        };
        let mut gpu = Gpu::new(&"node-with-a-long-name.cluster.example".into(), &info);
        let holder = Holder {
            job: "4711".into(),
            pids: (0..10_000).collect(),
            ..Holder::default()
        };
        gpu.take_holder(Timestamp(0), Some(holder));
        let rules = RuleSet::default();
        let row = Values::default()
            .with(entrenar::metric::TEMPERATURE, 60)
            .with(entrenar::metric::UTILIZATION, 99);
        for second in 0..10_000 {
            let tick = Tick {
                at: Timestamp::from_secs(second * 5),
                now: Timestamp::from_secs(second * 5),
                interval: Duration::from_secs(5),
                row: &row,
            };
            gpu.observe(tick, &rules, &mut Vec::new());
            gpu.xid.note(tick.at, second as u64, Severity::Warning);
        }
        let points = gpu.recent.celsius().len() * 10;
        let pids = gpu
            .holder
            .as_ref()
            .map_or(0, |holder| holder.pids.len() * 4);
        let text = 40 + 40 + 24 + 64;
        // Rings double as they grow.
        let heap = 2 * points + pids + text + 8 * 32;
        assert!(
            size_of::<Gpu>() + heap <= 4096,
            "{} + {heap}",
            size_of::<Gpu>()
        );
    }
}
