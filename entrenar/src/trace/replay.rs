//! One node of a trace as if it were hardware, its past shifted to now. *(edge)*

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Row, TraceError, TraceReader};
use crate::backend::{Depth, GpuBackend, GpuError};
use crate::clock::Clock;
use crate::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use crate::metric::{self, NvmlStatus, Pace};
use crate::report::{GpuEvent, GpuEventKind, Holder};
use crate::unit::Timestamp;

/// A GPU has no sample when its latest row is older than this many intervals.
const STALE_INTERVALS: u32 = 3;
/// The sampling interval of a trace that does not show one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Events that wait to be asked for; the oldest are forgotten beyond.
const MOST_EVENTS: usize = 1024;

/// What a replay does when the trace is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// It starts again; counters fall back to where they were.
    Loop,
    /// It has no more samples.
    Stop,
}

/// Replays one node of a trace in real time. It reads the file as it goes, in bounded memory.
pub struct ReplayBackend {
    path: PathBuf,
    past: Past,
    at_end: AtEnd,
    clock: Arc<dyn Clock>,
    began: Duration,
    state: Mutex<State>,
}

/// What a first reading of the whole trace says of the node.
struct Past {
    node: NodeId,
    infos: Vec<GpuInfo>,
    first: Timestamp,
    last: Timestamp,
    interval: Duration,
}

/// How far the replay is.
struct State {
    reader: Option<TraceReader>,
    ahead: Option<Row>,
    round: u128,
    latest: BTreeMap<u32, Row>,
    events: VecDeque<GpuEvent>,
    broken: Option<String>,
}

impl ReplayBackend {
    /// Opens a trace and reads it once. `node` may be `None` if the trace has only one.
    pub fn open(
        path: &Path,
        node: Option<&str>,
        at_end: AtEnd,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TraceError> {
        let past = Past::read(path, node)?;
        Ok(Self {
            state: Mutex::new(State::open(path)?),
            path: path.to_owned(),
            past,
            at_end,
            began: clock.monotonic(),
            clock,
        })
    }

    /// The node that is replayed.
    pub fn node(&self) -> &NodeId {
        &self.past.node
    }

    /// Whether the trace is over; never, if it starts again.
    pub fn is_over(&self) -> bool {
        self.at_end == AtEnd::Stop && self.past.length() <= self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.began)
    }

    /// The replay at the present instant, and that instant in the trace's time.
    fn now(&self) -> (MutexGuard<'_, State>, Timestamp) {
        let elapsed = self.elapsed();
        let length = self.past.length().as_nanos().max(1);
        let (round, into) = match self.at_end {
            AtEnd::Loop => (elapsed.as_nanos() / length, elapsed.as_nanos() % length),
            AtEnd::Stop => (0, elapsed.as_nanos()),
        };
        let at = Timestamp(self.past.first.0 + (into / 1_000_000) as i64);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.round != round {
            match State::open(&self.path) {
                Ok(again) => *state = State { round, ..again },
                Err(error) => state.broken = Some(error.to_string()),
            }
        }
        state.advance(at, &self.past, self.clock.now());
        (state, at)
    }

    fn latest(&self, device: u32) -> Result<Option<Row>, GpuError> {
        let (state, at) = self.now();
        if let Some(reason) = &state.broken {
            let reason = reason.clone();
            return Err(GpuError::Failed { device, reason });
        }
        let row = state.latest.get(&device);
        Ok(row
            .filter(|row| at.since(row.time) <= self.past.stale_after(row))
            .cloned())
    }
}

impl GpuBackend for ReplayBackend {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn may_block(&self) -> bool {
        false
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
        Ok(self.past.infos.clone())
    }

    /// What the latest row says. Nothing while the trace has no sample.
    fn read(&self, gpu: &GpuInfo, depth: Depth) -> Result<Values, GpuError> {
        let device = gpu.index;
        if self.past.infos.iter().all(|info| info.index != device) {
            return Err(GpuError::NotFound { device });
        }
        let Some(row) = self.latest(device)? else {
            return Ok(Values::default());
        };
        let status = row
            .values
            .get(metric::NVML_STATUS)
            .and_then(NvmlStatus::from_code);
        match status.unwrap_or(NvmlStatus::Ok) {
            NvmlStatus::Ok => Ok(of_depth(row.values, depth)),
            NvmlStatus::GpuIsLost => Err(GpuError::Lost { device }),
            NvmlStatus::ResetRequired => Err(GpuError::ResetRequired { device }),
            NvmlStatus::NotFound => Err(GpuError::NotFound { device }),
            NvmlStatus::Timeout => Err(GpuError::Timeout {
                device,
                waited: latency(&row.values),
            }),
            NvmlStatus::Unknown => Err(GpuError::Failed {
                device,
                reason: "the trace says UNKNOWN".to_owned(),
            }),
        }
    }

    fn events(&self, timeout: Duration) -> Result<Vec<GpuEvent>, GpuError> {
        std::thread::sleep(timeout);
        let (mut state, _) = self.now();
        Ok(state.events.drain(..).collect())
    }

    fn holder(&self, gpu: &GpuInfo) -> Option<Option<Holder>> {
        let row = self.latest(gpu.index).ok().flatten()?;
        Some(row.job.as_ref().map(|job| Holder {
            job: job.to_string(),
            kind: row.job_kind,
            rank_group: row.rank_group.as_deref().map(str::to_owned),
            ..Holder::default()
        }))
    }
}

fn of_depth(mut values: Values, depth: Depth) -> Values {
    let slow = metric::CATALOGUE.iter().filter(|m| m.pace == Pace::Slow);
    for metric in slow.filter(|_| depth == Depth::Fast) {
        values.set(metric.id, None);
    }
    values
}

fn latency(values: &Values) -> Duration {
    let micros = values.get(metric::NVML_LATENCY).unwrap_or(0);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

impl Past {
    fn read(path: &Path, wanted: Option<&str>) -> Result<Self, TraceError> {
        let mut seen: BTreeMap<NodeId, Seen> = BTreeMap::new();
        for row in TraceReader::open(path)? {
            match row {
                Ok(row) => seen.entry(row.node.clone()).or_default().add(&row),
                Err(error) if error.is_fatal() => return Err(error),
                Err(_) => {}
            }
        }
        seen.retain(|_, seen| !seen.infos.is_empty());
        let names: Vec<_> = seen.keys().map(NodeId::as_str).collect();
        let nodes = names.join(", ");
        let only = (seen.len() == 1).then(|| names[0]);
        let node = wanted.or(only).unwrap_or("(none was named)").to_owned();
        match seen.remove(node.as_str()) {
            Some(seen) => Ok(seen.into_past(node.into())),
            None => Err(TraceError::NoSuchNode { node, nodes }),
        }
    }

    /// From the first sample until the next one would be due.
    fn length(&self) -> Duration {
        self.last.since(self.first) + self.interval
    }

    fn stale_after(&self, row: &Row) -> Duration {
        row.interval.unwrap_or(self.interval) * STALE_INTERVALS
    }
}

/// What is known of a node while its trace is read.
#[derive(Default)]
struct Seen {
    infos: BTreeMap<u32, GpuInfo>,
    first: Option<Timestamp>,
    last: Timestamp,
    ticks: u32,
}

impl Seen {
    fn add(&mut self, row: &Row) {
        let Some(index) = row.gpu else { return };
        let info = self.infos.entry(index).or_insert_with(|| GpuInfo {
            uuid: GpuUuid::from(format!("GPU-{}-{index}", row.node)),
            index,
            name: "unknown".to_owned(),
            ..GpuInfo::default()
        });
        if let Some(uuid) = &row.uuid {
            info.uuid = uuid.clone();
        }
        if let Some(model) = &row.model {
            info.name = model.to_string();
        }
        if let Some(total) = row.values.get(metric::MEMORY_TOTAL) {
            info.memory_total_bytes = u64::try_from(total).ok();
        }
        self.ticks += u32::from(self.last < row.time);
        self.first = Some(self.first.map_or(row.time, |first| first.min(row.time)));
        self.last = self.last.max(row.time);
    }

    fn into_past(self, node: NodeId) -> Past {
        let first = self.first.unwrap_or(self.last);
        let mean = self
            .last
            .since(first)
            .checked_div(self.ticks.saturating_sub(1));
        Past {
            node,
            infos: self.infos.into_values().collect(),
            first,
            last: self.last,
            interval: mean
                .filter(|mean| !mean.is_zero())
                .unwrap_or(DEFAULT_INTERVAL),
        }
    }
}

impl State {
    fn open(path: &Path) -> Result<Self, TraceError> {
        Ok(Self {
            reader: Some(TraceReader::open(path)?),
            ahead: None,
            round: 0,
            latest: BTreeMap::new(),
            events: VecDeque::new(),
            broken: None,
        })
    }

    /// Takes every row of the node up to an instant of the trace. `wall`: what that instant is now.
    fn advance(&mut self, at: Timestamp, past: &Past, wall: Timestamp) {
        while let Some(row) = self.ahead.take().or_else(|| self.next_row(&past.node)) {
            if at < row.time {
                self.ahead = Some(row);
                return;
            }
            self.take(row, at, past, wall);
        }
    }

    fn take(&mut self, row: Row, at: Timestamp, past: &Past, wall: Timestamp) {
        let Some(index) = row.gpu else { return };
        let uuid = past
            .infos
            .iter()
            .find(|info| info.index == index)
            .map(|info| &info.uuid);
        for code in &row.xids {
            if self.events.len() == MOST_EVENTS {
                self.events.pop_front();
            }
            let event = GpuEvent {
                at: wall - at.since(row.time),
                gpu: uuid.cloned(),
                what: GpuEventKind::Xid(*code),
            };
            self.events.push_back(event);
        }
        // A row that came late in the recording is no news.
        if self
            .latest
            .get(&index)
            .is_none_or(|was| was.time <= row.time)
        {
            self.latest.insert(index, row);
        }
    }

    fn next_row(&mut self, node: &NodeId) -> Option<Row> {
        loop {
            match self.reader.as_mut()?.next() {
                Some(Ok(row)) if row.node == *node => return Some(row),
                Some(Err(error)) if error.is_fatal() => {
                    self.broken = Some(error.to_string());
                    self.reader = None;
                }
                Some(_) => {}
                None => self.reader = None,
            }
        }
    }
}
