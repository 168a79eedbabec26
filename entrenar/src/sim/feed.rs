//! A staged fleet as its agents report it: tick after tick, in order of arrival. *(pure)*
//!
//! Nothing is kept but the fleet itself and what waits to be delivered, so that a day of it costs as little memory as
//! a minute. It does not write anything: [`rows`](NodeTick::rows) go to an engine, or through
//! [`trace_rows`](NodeTick::trace_rows) into a trace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::job::SimMillis;
use super::node::{NodeState, SimNode};
use super::noise::{between, hash, unit};
use super::plan::Answer;
use super::stage::{Label, Setting, Show, WARM_UP_MS};
use crate::backend::Depth;
use crate::gpu::{GpuInfo, NodeId, Values};
use crate::metric::{self, NvmlStatus};
use crate::report::{Holder, Labels};
use crate::trace::{Row, TraceEvent};
use crate::unit::Timestamp;

/// How agents and the way to the centre behave.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// Share of ticks that never arrive.
    pub loss: f64,
    /// Agents' clocks are off by at most this much, either way.
    pub skew: Duration,
    /// Every how many ticks slow metrics are read; 1: with every tick.
    pub slow_every: u32,
}

impl Default for Voice {
    /// Nothing is lost, clocks agree, and every tick has every metric.
    fn default() -> Self {
        Self {
            loss: 0.0,
            skew: Duration::ZERO,
            slow_every: 1,
        }
    }
}

/// Something that a tick says beside its samples, before them.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The agent has started: say hello.
    AgentStart,
    /// The agent stops in an orderly way; no samples follow.
    Goodbye,
    /// People begin to work on the node.
    MaintenanceStart,
    /// They are done.
    MaintenanceEnd,
    /// The driver logged an XID on a GPU.
    Xid {
        /// Its index.
        gpu: u32,
        /// NVIDIA's code.
        code: u64,
    },
    /// A GPU was taken, given back, or changed hands.
    Holder {
        /// Its index.
        gpu: u32,
        /// Who holds it now.
        holder: Option<Arc<Holder>>,
    },
}

/// What one agent says at one tick.
#[derive(Clone, Debug)]
pub struct NodeTick {
    /// Place of the node in [`Feed::nodes`].
    pub node: usize,
    /// When, by the agent's clock.
    pub at: Timestamp,
    /// When it arrives.
    pub arrives: Timestamp,
    /// What happened, in order.
    pub news: Vec<News>,
    /// A row per GPU in the order of indices; an empty row: no sample. No rows at all: the agent only spoke.
    pub rows: Vec<Values>,
    /// GPUs whose job the scheduler holds stopped, one bit each.
    pub suspended: u32,
}

/// A node of a feed: what an agent's hello says of it.
#[derive(Clone, Debug)]
pub struct FeedNode {
    /// Its name.
    pub name: NodeId,
    /// Where it hangs.
    pub labels: Labels,
    /// Its GPUs.
    pub gpus: Vec<GpuInfo>,
}

/// A staged fleet that reports.
#[derive(Debug)]
pub struct Feed {
    setting: Setting,
    voice: Voice,
    nodes: Vec<FeedNode>,
    speakers: Vec<Speaker>,
    /// Speakers in the order in which they speak within an interval.
    order: Vec<usize>,
    next: usize,
    tick: u64,
    n_ticks: u64,
    waiting: VecDeque<NodeTick>,
    labels: Vec<Label>,
    n_lost: u64,
}

/// A node and what its agent remembers.
#[derive(Debug)]
struct Speaker {
    node: SimNode,
    phase_ms: SimMillis,
    skew_ms: SimMillis,
    was: NodeState,
    /// Whether the process that spoke last is gone.
    restarts: bool,
    /// When what it said last arrives: words of one agent do not overtake each other.
    arrives: Timestamp,
    /// XIDs and notes told so far.
    n_xids: usize,
    n_notes: usize,
    holders: Vec<Option<Arc<Holder>>>,
    active: Vec<([f64; 3], SimMillis)>,
}

impl Feed {
    /// A feed from the beginning of the trace.
    pub fn new(show: Show, voice: Voice) -> Self {
        let interval = show.setting.interval.as_millis().max(1) as SimMillis;
        let seed = show.setting.seed;
        let skew = voice.skew.as_millis() as f64;
        let speaker = |(n, node): (u64, SimNode)| {
            let n_gpus = node.gpus().len();
            let xids = &node.plan().xids;
            Speaker {
                phase_ms: between(hash(&[seed, 81, n]), 0.0, interval as f64) as SimMillis,
                skew_ms: between(hash(&[seed, 82, n]), -skew, skew) as SimMillis,
                was: NodeState::Up,
                restarts: false,
                arrives: Timestamp(0),
                n_xids: xids.partition_point(|xid| xid.at <= WARM_UP_MS),
                n_notes: 0,
                holders: vec![None; n_gpus],
                active: vec![([0.0; 3], 0); n_gpus],
                node,
            }
        };
        let speakers: Vec<_> = (0..).zip(show.nodes).map(speaker).collect();
        let nodes = speakers.iter().map(|speaker| FeedNode {
            name: speaker.node.name().clone(),
            labels: speaker.node.labels().clone(),
            gpus: speaker.node.gpus().to_vec(),
        });
        let mut order: Vec<usize> = (0..speakers.len()).collect();
        order.sort_by_key(|&n| speakers[n].phase_ms);
        Self {
            nodes: nodes.collect(),
            n_ticks: (show.setting.lasts.as_millis() as SimMillis / interval) as u64,
            setting: show.setting,
            voice,
            speakers,
            order,
            next: 0,
            tick: 0,
            waiting: VecDeque::new(),
            labels: show.labels,
            n_lost: 0,
        }
    }

    /// The nodes, in the order of their names.
    pub fn nodes(&self) -> &[FeedNode] {
        &self.nodes
    }

    /// What truly goes wrong.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// How the fleet was set.
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// Ticks that never arrived, so far.
    pub fn n_lost(&self) -> u64 {
        self.n_lost
    }

    /// The next tick to be given out, whether or not its agent speaks.
    fn speak(&mut self) -> Option<NodeTick> {
        let interval = self.setting.interval.as_millis().max(1) as SimMillis;
        let index = self.order[self.next];
        let speaker = &mut self.speakers[index];
        let noise = hash(&[self.setting.seed, 83, index as u64, self.tick]);
        // A tick is a few milliseconds early or late; a short interval leaves less room.
        let most = (interval as f64 * 0.02).min(16.0);
        let jitter = between(noise, -most, most) as SimMillis;
        let at = (self.tick as SimMillis * interval + speaker.phase_ms + jitter).max(1);
        let is_lost = unit(hash(&[noise, 1])) < self.voice.loss;
        let is_full = self
            .tick
            .is_multiple_of(u64::from(self.voice.slow_every.max(1)));
        let depth = if is_full { Depth::Full } else { Depth::Fast };
        self.next += 1;
        if self.next == self.order.len() {
            self.next = 0;
            self.tick += 1;
        }
        let origin = self.setting.start;
        let mut tick = NodeTick {
            node: index,
            at: Timestamp(origin.0 + at + speaker.skew_ms),
            arrives: Timestamp(origin.0 + at),
            news: Vec::new(),
            rows: Vec::new(),
            suspended: 0,
        };
        speaker.speak(WARM_UP_MS + at, origin, is_lost, depth, &mut tick);
        if is_lost && tick.rows.is_empty() {
            self.n_lost += 1;
        }
        if tick.rows.is_empty() && tick.news.is_empty() {
            return None;
        }
        let delays = &speaker.node.plan().delays;
        let now = WARM_UP_MS + at;
        if let Some(delay) = delays.iter().find(|d| d.from <= now && now < d.to) {
            let own = hash(&[self.setting.seed, 84, index as u64]) % 900;
            tick.arrives = Timestamp(origin.0 + delay.to - WARM_UP_MS + own as i64);
        }
        tick.arrives = tick.arrives.max(speaker.arrives);
        speaker.arrives = tick.arrives;
        Some(tick)
    }

    /// The next tick that waited long enough.
    fn overdue(&mut self, now: Timestamp) -> Option<NodeTick> {
        let due = self.waiting.front().is_some_and(|tick| tick.arrives <= now);
        if due { self.waiting.pop_front() } else { None }
    }

    /// Lets a tick wait, behind those that arrive before it.
    fn keep(&mut self, tick: NodeTick) {
        let place = self.waiting.partition_point(|t| t.arrives <= tick.arrives);
        self.waiting.insert(place, tick);
    }

    /// Whether a tick arrives later than it was said.
    fn is_held_up(&self, tick: &NodeTick) -> bool {
        tick.at.0 - self.speakers[tick.node].skew_ms < tick.arrives.0
    }

    /// When the next tick is due, about.
    fn clock(&self) -> Timestamp {
        let interval = self.setting.interval.as_millis().max(1) as SimMillis;
        let phase = self.speakers[self.order[self.next]].phase_ms;
        Timestamp(self.setting.start.0 + self.tick as SimMillis * interval + phase)
    }
}

impl Iterator for Feed {
    type Item = NodeTick;

    fn next(&mut self) -> Option<NodeTick> {
        if self.order.is_empty() {
            return None;
        }
        loop {
            if self.n_ticks <= self.tick {
                return self.waiting.pop_front();
            }
            if let Some(tick) = self.overdue(self.clock()) {
                return Some(tick);
            }
            match self.speak() {
                Some(tick) if self.is_held_up(&tick) => self.keep(tick),
                Some(tick) => return Some(tick),
                None => {}
            }
        }
    }
}

impl Speaker {
    fn speak(
        &mut self,
        now: SimMillis,
        origin: Timestamp,
        is_lost: bool,
        depth: Depth,
        tick: &mut NodeTick,
    ) {
        let real = Timestamp(origin.0 + now - WARM_UP_MS);
        let is = self.node.state_at(real);
        let was = std::mem::replace(&mut self.was, is);
        if let Some(outage) = self.node.plan().outage(now) {
            self.restarts |= outage.restarts;
        }
        self.tell_notes(now, tick);
        match (was, is) {
            (NodeState::Up, NodeState::Stopped) => tick.news.push(News::Goodbye),
            (NodeState::Stopped | NodeState::Lost, NodeState::Up) if self.restarts => {
                self.restarts = false;
                self.holders.fill(None);
                tick.news.push(News::AgentStart);
            }
            _ => {}
        }
        if is != NodeState::Up || is_lost {
            return;
        }
        self.node.advance_to(real);
        self.tell_xids(now, tick);
        tick.rows.resize(self.node.gpus().len(), Values::default());
        for gpu in 0..self.node.gpus().len() as u32 {
            self.tell_holder(gpu, now, tick);
            self.fill(gpu, now, depth, tick);
        }
    }

    fn tell_notes(&mut self, now: SimMillis, tick: &mut NodeTick) {
        let notes = &self.node.plan().notes;
        while let Some(note) = notes.get(self.n_notes).filter(|note| note.at <= now) {
            self.n_notes += 1;
            match note.event {
                TraceEvent::MaintenanceStart => tick.news.push(News::MaintenanceStart),
                TraceEvent::MaintenanceEnd => tick.news.push(News::MaintenanceEnd),
                // The others are said by the agent itself.
                TraceEvent::AgentStart | TraceEvent::Goodbye | TraceEvent::JobSuspended => {}
            }
        }
    }

    /// XIDs since the last tick that arrived.
    fn tell_xids(&mut self, now: SimMillis, tick: &mut NodeTick) {
        let xids = &self.node.plan().xids;
        while let Some(xid) = xids.get(self.n_xids).filter(|xid| xid.at <= now) {
            self.n_xids += 1;
            tick.news.push(News::Xid {
                gpu: xid.gpu,
                code: xid.code,
            });
        }
    }

    fn tell_holder(&mut self, gpu: u32, now: SimMillis, tick: &mut NodeTick) {
        let slot = self.node.slot(gpu).expect("it is one of the node's GPUs");
        let holder = slot.holder(now);
        let known = &mut self.holders[gpu as usize];
        let is_known = match (&*known, holder) {
            (None, None) => true,
            (Some(known), Some(holder)) => Arc::ptr_eq(known, holder) || known == holder,
            _ => false,
        };
        if !is_known {
            *known = holder.cloned();
            tick.news.push(News::Holder {
                gpu,
                holder: holder.cloned(),
            });
        }
        if slot.is_suspended(now) {
            tick.suspended |= 1 << gpu;
        }
    }

    fn fill(&mut self, gpu: u32, now: SimMillis, depth: Depth, tick: &mut NodeTick) {
        let slot = self.node.slot(gpu).expect("it is one of the node's GPUs");
        let row = &mut tick.rows[gpu as usize];
        if slot.is_missing(now) {
            return;
        }
        let is_frozen = slot.is_frozen(now);
        let noise = hash(&[tick.at.0 as u64, u64::from(gpu)]);
        let mut fail = |status: NvmlStatus, latency_s: f64| {
            row.set(metric::NVML_STATUS, status as i64);
            row.set(metric::NVML_LATENCY, (latency_s * 1e6) as i64);
        };
        match slot.answer(now) {
            Answer::Lost => fail(NvmlStatus::GpuIsLost, between(noise, 0.003, 0.008)),
            Answer::NotBefore(_) => fail(NvmlStatus::Timeout, between(noise, 5.0, 30.0)),
            Answer::Yes => {
                self.node.read_into(gpu, depth, row);
                if !is_frozen {
                    self.average_activity(gpu, now, &mut tick.rows[gpu as usize]);
                }
            }
        }
    }

    /// GPM ratios are means since the last look, not levels of the instant.
    fn average_activity(&mut self, gpu: u32, now: SimMillis, values: &mut Values) {
        if values.get(metric::SM_ACTIVE).is_none() {
            return;
        }
        let secs = self.node.active_secs(gpu);
        let (before, then) = std::mem::replace(&mut self.active[gpu as usize], (secs, now));
        let passed = (now - then) as f64 / 1e3;
        let is_usable = then != 0 && passed > 0.05 && before[0] <= secs[0];
        if !is_usable {
            return;
        }
        let metrics = [
            metric::SM_ACTIVE,
            metric::TENSOR_ACTIVE,
            metric::DRAM_ACTIVE,
        ];
        for (n, metric) in metrics.into_iter().enumerate() {
            let mean = ((secs[n] - before[n]) / passed).clamp(0.0, 1.0);
            values.set(metric, (mean * 1e6) as i64);
        }
    }
}

impl NodeTick {
    /// The same as rows of a trace.
    ///
    /// `holders`: who holds the node's GPUs, as the caller was last told; brought up to date here.
    pub fn trace_rows(
        &self,
        node: &FeedNode,
        holders: &mut [Option<Arc<Holder>>],
        mut write: impl FnMut(Row),
    ) {
        let label = |name: &str| node.labels.get(name).map(|v| Arc::from(v.as_str()));
        let blank = |gpu: Option<u32>| Row {
            rack: label("rack"),
            switch: label("switch"),
            power_feed: label("power_feed"),
            ..Row::new(self.at, node.name.clone(), gpu)
        };
        let mut event = |event: TraceEvent| {
            write(Row {
                event: Some(event),
                ..blank(None)
            });
        };
        for news in &self.news {
            match news {
                News::AgentStart => event(TraceEvent::AgentStart),
                News::Goodbye => event(TraceEvent::Goodbye),
                News::MaintenanceStart => event(TraceEvent::MaintenanceStart),
                News::MaintenanceEnd => event(TraceEvent::MaintenanceEnd),
                News::Holder { gpu, holder } => holders[*gpu as usize].clone_from(holder),
                News::Xid { .. } => {}
            }
        }
        for (gpu, values) in (0..).zip(&self.rows) {
            let xids: Vec<u64> = self.news.iter().filter_map(|n| n.xid_of(gpu)).collect();
            if values.is_empty() && xids.is_empty() {
                continue;
            }
            let info = &node.gpus[gpu as usize];
            let mut row = blank(Some(gpu));
            row.uuid = Some(info.uuid.clone());
            row.model = Some(info.name.as_str().into());
            if let Some(holder) = &holders[gpu as usize] {
                row.job = Some(holder.job.as_str().into());
                row.job_kind = holder.kind;
                row.rank_group = holder.rank_group.as_deref().map(Arc::from);
            }
            row.values = values.clone();
            row.xids = xids;
            if self.suspended >> gpu & 1 == 1 {
                row.event = Some(TraceEvent::JobSuspended);
            }
            write(row);
        }
    }
}

impl News {
    /// The XID, if it is one of this GPU's.
    fn xid_of(&self, of: u32) -> Option<u64> {
        match self {
            Self::Xid { gpu, code } if *gpu == of => Some(*code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
