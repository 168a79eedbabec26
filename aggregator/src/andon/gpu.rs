//! One GPU with all that watches it. *(pure)*
//!
//! What is remembered is bounded, about 3 KB a GPU: windows are bits and small rings, never samples.

use std::time::Duration;

use entrenar::gpu::{GpuInfo, NodeId, Values};
use entrenar::metric::NvmlStatus;
use entrenar::report::{Holder, Labels};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::cooling::is_hot;
use super::custom::CustomState;
use super::effort::Effort;
use super::job::infer::is_inferred;
use super::peers::Peers;
use super::pulse::{Activity, Pulse};
use super::recent::Recent;
use super::rules::RuleSet;
use super::rules::index::SetId;
use super::sample::{Sample, status_of};
use super::watch::{Look, Said, Signal, Telling, Watches};
use super::{GpuAt, Kind};

/// Most processes of a holder that are remembered.
const MOST_PIDS: usize = 12;
/// Device calls that take this long do not merely wait for each other.
const SLOW_US: i64 = 2_000_000;
/// How long a sign of hanging firmware counts.
const HANGS_MS: i64 = 600_000;

/// One GPU with all that watches it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Gpu {
    pub(super) at: GpuAt,
    model: String,
    memory_total: Option<i64>,
    /// A MIG instance: it comes and goes by configuration.
    pub(super) is_partition: bool,
    holder: Option<Holder>,
    /// The scheduler holds its job stopped.
    #[serde(default)]
    suspended: bool,
    /// Event time of the last sample that was looked at.
    pub(super) last_tick: Option<Timestamp>,
    /// By the aggregator's clock: the last time the GPU said something itself.
    pub(super) last_data: Option<Timestamp>,
    /// The device's calls came back, last time.
    answers: bool,
    /// A scheduler, or its processes' owner, has claimed it at least once.
    was_claimed: bool,
    pub(super) pulse: Pulse,
    /// The last tick at which it slowed down for heat.
    #[serde(default)]
    pub(super) hot_at: Option<Timestamp>,
    recent: Recent,
    /// Read at a slower pace, so it is kept.
    limit_mw: Option<i64>,
    /// Its clock, if it works.
    working_mhz: Option<i64>,
    /// When its firmware was last seen to hang.
    hung_at: Option<Timestamp>,
    /// The first tick in a row without it, by both clocks.
    missed: Option<(Timestamp, Timestamp)>,
    pub(super) watches: Watches,
    /// The rules that hold for it.
    #[serde(skip)]
    pub(super) rules: SetId,
    /// What the rules of people remember of it.
    #[serde(default)]
    pub(super) custom: Vec<CustomState>,
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
    pub(super) peers: Peers,
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
            suspended: false,
            last_tick: None,
            last_data: None,
            answers: true,
            was_claimed: false,
            pulse: Pulse::default(),
            hot_at: None,
            recent: Recent::default(),
            limit_mw: None,
            working_mhz: None,
            hung_at: None,
            missed: None,
            watches: Watches::default(),
            rules: SetId::default(),
            custom: Vec::new(),
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

    /// Somebody says that it is theirs; a job that was inferred is nobody's word where programs are counted.
    fn is_claimed(&self) -> bool {
        self.holder
            .as_ref()
            .is_some_and(|holder| !is_inferred(&holder.job) || !self.pulse.counts_programs)
    }

    /// Whether the scheduler holds its job stopped.
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended
    }

    pub(super) fn suspend(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// Takes a new holder; returns the job that it left, if it is another.
    pub(super) fn take_holder(&mut self, holder: Option<Holder>) -> Option<String> {
        let left = self.holder.take().map(|holder| holder.job);
        self.was_claimed |= holder
            .as_ref()
            .is_some_and(|holder| !is_inferred(&holder.job));
        self.holder = holder.map(|mut holder| {
            holder.pids.truncate(MOST_PIDS);
            holder
        });
        let job = self.holder.as_ref().map(|holder| &holder.job);
        if left.is_some() && job == left.as_ref() {
            return None;
        }
        let is_ours = |job: Option<&String>| job.is_some_and(|job| is_inferred(job));
        if is_ours(job) && is_ours(left.as_ref()) {
            // Joined with others, or parted from them: the same programs go on.
            return left;
        }
        self.suspended = false;
        self.pulse.of_new_holder();
        left
    }

    /// Whether a sample is later than all that were looked at.
    pub(super) fn is_news(&self, at: Timestamp) -> bool {
        self.last_tick.is_none_or(|last| last < at)
    }

    /// Looks at a row that is news. What the cords say is added to `said`.
    pub(super) fn observe(
        &mut self,
        tick: Tick<'_>,
        effort: Effort,
        rules: &RuleSet,
        said: &mut Vec<Signal>,
    ) {
        let Tick {
            at, now, interval, ..
        } = tick;
        self.last_tick = Some(at);
        self.missed = None;
        let status = status_of(tick.row);
        self.answers = status == NvmlStatus::Ok;
        let mut sample = Sample::default();
        let mut was_reset = false;
        if status == NvmlStatus::Ok {
            self.last_data = Some(now);
            sample = self.read(tick.row);
            self.recent.push(at, interval.as_millis() as i64, &sample);
            let interval_ms = interval.as_millis() as i64;
            was_reset = self.pulse.observe(at, interval_ms, tick.row, &self.model);
            if is_hot(&sample, &rules.cooling_failure) == Some(true) {
                self.hot_at = Some(at);
            }
        } else {
            self.pulse.observe_nothing();
        }
        if sample.latency_us >= Some(SLOW_US) {
            self.hung_at = Some(at);
        }
        let is_working = self.pulse.activity.is_some_and(Activity::is_work);
        self.working_mhz = sample.clock_mhz.filter(|_| is_working);
        let look = Look {
            status,
            is_working,
            power_mw: self.pulse.watts.map(|watts| (watts * 1e3) as i64),
            was_reset,
            ..self.look(at, interval, &sample, tick.peers)
        };
        self.watches.observe(&look, effort, rules, said);
    }

    /// Nothing came of it in a tick in which others of its node reported. Rows of one tick may come one by one after a
    /// break: it is absent only once both clocks say so.
    pub(super) fn miss(&mut self, tick: Tick<'_>, rules: &RuleSet, said: &mut Vec<Signal>) {
        let first = *self.missed.get_or_insert((tick.at, tick.now));
        let passed = tick.at.since(first.0).min(tick.now.since(first.1));
        let hold = rules.gpu_lost.absent_hold.0.max(tick.interval / 2);
        if passed < hold {
            return;
        }
        self.pulse.observe_nothing();
        self.working_mhz = None;
        let sample = Sample::default();
        let look = Look {
            status: NvmlStatus::NotFound,
            is_absent: true,
            ..self.look(tick.at, tick.interval, &sample, tick.peers)
        };
        self.watches.observe(&look, Effort::All, rules, said);
    }

    fn look<'a>(
        &self,
        at: Timestamp,
        interval: Duration,
        sample: &'a Sample,
        peers: Peers,
    ) -> Look<'a> {
        let is_fresh = |hung: Timestamp| at.0 - hung.0 <= HANGS_MS;
        Look {
            at,
            interval,
            status: NvmlStatus::Ok,
            sample,
            is_absent: false,
            hangs: self.hung_at.is_some_and(is_fresh),
            is_working: false,
            power_mw: None,
            is_held: self.is_claimed(),
            held_since: self.pulse.held_since,
            kind: self.holder.as_ref().map(|holder| holder.kind),
            is_partition: self.is_partition,
            peers,
            was_reset: false,
        }
    }

    /// Whether it has ever reported anything.
    pub(super) fn is_known(&self) -> bool {
        self.last_data.is_some()
    }

    pub(super) fn limit_mw(&self) -> Option<i64> {
        self.limit_mw
    }

    pub(super) fn working_mhz(&self) -> Option<i64> {
        self.working_mhz
    }

    /// A row, with what is read at a slower pace and stays as it is.
    fn read(&mut self, row: &Values) -> Sample {
        let mut sample = Sample::new(row);
        sample.memory_total = sample.memory_total.or(self.memory_total);
        self.limit_mw = sample.power_limit_mw.or(self.limit_mw);
        sample.power_limit_mw = self.limit_mw;
        sample
    }

    /// Whether anybody but the engine itself has ever said who holds it.
    pub(super) fn was_claimed(&self) -> bool {
        self.was_claimed
    }

    /// Whether the device's calls came back, last time.
    pub(super) fn answers(&self) -> bool {
        self.answers
    }

    /// The driver logged an error code for this GPU. What the cords say is added to `said`.
    pub(super) fn hear(
        &mut self,
        at: Timestamp,
        xid: u64,
        rules: &RuleSet,
        said: &mut Vec<Signal>,
    ) {
        if super::unresponsive::GSP_XIDS.contains(&xid) {
            self.hung_at = Some(at);
        }
        self.watches.hear(at, xid, rules, said);
    }

    /// What a report of one of its own cords says: rule, severity, beginning, finding.
    pub(super) fn describe(
        &self,
        kind: Kind,
        at: Timestamp,
        labels: &Labels,
        interval: Duration,
        rules: &RuleSet,
    ) -> Option<Said> {
        let tell = Telling {
            at,
            interval,
            gpu: &self.at,
            labels,
            recent: &self.recent,
        };
        let mut said = self.watches.describe(kind, &tell, rules)?;
        said.3.job = self.holder.as_ref().map(|holder| holder.job.clone());
        Some(said)
    }

    /// Forgets what a rule remembered: it was switched off.
    pub(super) fn reset(&mut self, kind: Kind) {
        self.watches.reset(kind);
    }

    /// Memory in use, in thousandths of all.
    pub(super) fn memory_held(&self) -> Option<u16> {
        self.recent.memory_permille()
    }

    pub(super) fn watts(&self) -> Vec<Option<f64>> {
        self.recent.watts()
    }

    pub(super) fn busy_percent(&self) -> Vec<Option<f64>> {
        self.recent.busy_percent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::andon::Severity;

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
        gpu.take_holder(Some(holder));
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
                peers: Peers::default(),
            };
            gpu.observe(tick, Effort::All, &rules, &mut Vec::new());
            gpu.watches
                .xid
                .note(tick.at, second as u64, Severity::Warning);
        }
        let points = gpu.recent.celsius().len() * 10;
        let pids = gpu
            .holder
            .as_ref()
            .map_or(0, |holder| holder.pids.len() * 4);
        let text = 40 + 40 + 24 + 64;
        let heap = points + pids + text + 4 * 32;
        assert!(
            size_of::<Gpu>() + heap <= 4096,
            "{} + {heap}",
            size_of::<Gpu>()
        );
    }
}
