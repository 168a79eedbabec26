//! One node of a trace: which GPUs it has shown, and its rows put together into ticks. *(pure)*
//!
//! A tick is whole when every known GPU is in it; one that stays without some GPUs is told when the clock moves on. A
//! GPU that is merely not there has no sample; only its status says that it is lost.

use std::time::Duration;

use entrenar::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use entrenar::metric;
use entrenar::report::{Holder, Inventory, JobKind, Labels};
use entrenar::trace::{Entry, TextId, TextList};
use entrenar::unit::Timestamp;

/// Most GPUs of a node; rows of further ones are counted and left out.
const MOST_GPUS: usize = 1024;
/// Most ticks of a node that wait for rows; beyond, the oldest is told as it is.
pub(super) const MOST_OPEN: usize = 64;
/// Rows of one tick whose GPUs were read one after the other are at most so far apart.
const MOST_SPREAD_MS: i64 = 500;
/// An interval is the median of so many differences.
const STEPS: usize = 5;
/// A longer interval is taken for this one.
const LONGEST_INTERVAL_MS: i64 = 3_600_000;
/// The interval of a trace that does not show one.
const DEFAULT_INTERVAL_MS: i64 = 1000;

/// Who holds a GPU: job, its kind and the rank group. The empty job: nobody.
pub(super) type Hold = (TextId, JobKind, TextId);

/// A GPU of a node, where it sits.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    index: u32,
    uuid_text: TextId,
    model_text: TextId,
    pub(super) uuid: GpuUuid,
    model: String,
    memory_total: Option<u64>,
    /// As last told.
    pub(super) hold: Hold,
    pub(super) is_suspended: bool,
}

/// What a row says beside its values.
#[derive(Clone, Debug, Default)]
pub(super) struct Aside {
    pub(super) is_there: bool,
    pub(super) hold: Hold,
    pub(super) is_suspended: bool,
    pub(super) xids: Vec<u64>,
}

/// Rows of one instant, by slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Tick {
    /// The agent's time, as the trace has it.
    pub(super) time: Timestamp,
    /// The fleet's clock when its last row came.
    pub(super) now: Timestamp,
    pub(super) values: Vec<Values>,
    pub(super) asides: Vec<Aside>,
    filled: usize,
    /// It shows a GPU that was not known.
    grew: bool,
}

/// A node of a trace.
#[derive(Debug)]
pub(super) struct NodeState {
    pub(super) id: NodeId,
    places: [TextId; 3],
    pub(super) labels: Labels,
    pub(super) slots: Vec<Slot>,
    /// What the slots hold has changed since it was told.
    pub(super) is_news: bool,
    /// It has said hello and no goodbye since.
    pub(super) is_met: bool,
    generation: u32,
    interval: Interval,
    open: Vec<Tick>,
    /// The latest that was told.
    last: Option<Tick>,
    /// Its time, corrected.
    pub(super) last_at: Option<Timestamp>,
    /// Room of ticks that were told.
    spare: Vec<Tick>,
    /// Its GPUs are read one after the other, each with its own time.
    is_spread: bool,
    next_slot: usize,
    /// The row at hand is the first of its GPU.
    is_first: bool,
    /// Its clock's offset was worth a word.
    pub(super) is_off: bool,
}

/// What is known of a node's sampling interval.
#[derive(Debug, Default)]
struct Interval {
    /// As told.
    ms: i64,
    is_stated: bool,
    steps: Vec<i64>,
}

/// Where a row belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    Slot(usize),
    /// Another GPU sits in the slot now, or the GPU sits elsewhere: open ticks must be told first.
    Changed,
    /// The node has too many.
    Full,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// Its tick waits for others.
    Waits,
    /// Its tick is whole, and so are, as far as they will be, those before it.
    Whole,
    /// There was one already.
    Repeat,
}

impl NodeState {
    pub(super) fn new(id: NodeId, usual_interval_ms: Option<i64>) -> Self {
        Self {
            id,
            places: [TextId::NONE; 3],
            labels: Labels::new(),
            slots: Vec::new(),
            is_news: true,
            is_met: false,
            generation: 0,
            interval: Interval {
                ms: usual_interval_ms
                    .unwrap_or(DEFAULT_INTERVAL_MS)
                    .clamp(1, LONGEST_INTERVAL_MS),
                ..Interval::default()
            },
            open: Vec::new(),
            last: None,
            last_at: None,
            spare: Vec::new(),
            is_spread: false,
            next_slot: 0,
            is_first: false,
            is_off: false,
        }
    }

    /// What most agents' interval is, as long as its own is not known.
    pub(super) fn take_usual_interval(&mut self, usual_ms: Option<i64>) {
        if let Some(ms) = usual_ms.filter(|_| !self.interval.is_stated) {
            self.interval.ms = ms.clamp(1, LONGEST_INTERVAL_MS);
        }
    }

    pub(super) fn interval_ms(&self) -> i64 {
        self.interval.ms
    }

    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval.ms as u64)
    }

    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.open.len() >= MOST_OPEN
    }

    /// Where it hangs. True when that is new.
    pub(super) fn take_places(&mut self, entry: &Entry, texts: &TextList) -> bool {
        let places = [entry.rack, entry.switch, entry.power_feed];
        if places == self.places || places == [TextId::NONE; 3] {
            return false;
        }
        self.places = places;
        let named = ["rack", "switch", "power_feed"].into_iter().zip(places);
        self.labels = named
            .filter_map(|(name, id)| Some((name.to_owned(), texts.some(id)?.to_string())))
            .collect();
        true
    }

    /// The slot of a row's GPU. `take` if open ticks are told.
    pub(super) fn seat(&mut self, entry: &Entry, index: u32, texts: &TextList) -> Seat {
        let hinted = self.slots.get(self.next_slot).map(|slot| slot.index) == Some(index);
        let place = if hinted {
            Some(self.next_slot)
        } else {
            self.slots.iter().position(|slot| slot.index == index)
        };
        let Some(place) = place else {
            return self.new_slot(entry, index, texts);
        };
        self.next_slot = place + 1;
        if self.next_slot == self.slots.len() {
            self.next_slot = 0;
        }
        let slot = &self.slots[place];
        let is_same = |was: TextId, says: TextId| was == says || says == TextId::NONE;
        if is_same(slot.uuid_text, entry.uuid) && is_same(slot.model_text, entry.model) {
            return Seat::Slot(place);
        }
        Seat::Changed
    }

    fn new_slot(&mut self, entry: &Entry, index: u32, texts: &TextList) -> Seat {
        if self.has_elsewhere(entry, index) {
            return Seat::Changed;
        }
        if self.slots.len() == MOST_GPUS {
            return Seat::Full;
        }
        self.slots.push(Slot {
            index,
            uuid_text: TextId::NONE,
            model_text: TextId::NONE,
            uuid: GpuUuid::from(format!("GPU-{}-{index}", self.id)),
            model: "unknown".into(),
            memory_total: None,
            hold: Hold::default(),
            is_suspended: false,
        });
        let place = self.slots.len() - 1;
        self.slots[place].identify(entry, texts);
        (self.is_news, self.is_first, self.next_slot) = (true, true, 0);
        Seat::Slot(place)
    }

    fn has_elsewhere(&self, entry: &Entry, index: u32) -> bool {
        let is_it = |slot: &Slot| slot.uuid_text == entry.uuid && slot.index != index;
        entry.uuid.is_some() && self.slots.iter().any(is_it)
    }

    /// A GPU came into a slot, from another slot or from outside. No tick is open.
    pub(super) fn reseat(&mut self, entry: &Entry, index: u32, texts: &TextList) {
        debug_assert!(self.open.is_empty(), "open ticks go by slots");
        if entry.uuid.is_some() {
            self.slots
                .retain(|slot| slot.index == index || slot.uuid_text != entry.uuid);
        }
        (self.next_slot, self.last, self.is_news) = (0, None, true);
        self.spare.clear();
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.index == index) {
            slot.identify(entry, texts);
        }
    }

    /// Puts a row into its tick.
    pub(super) fn place(
        &mut self,
        now: Timestamp,
        slot: usize,
        entry: &mut Entry,
        xids: &[u64],
        is_suspended: bool,
    ) -> Placed {
        let n_slots = self.slots.len();
        let is_first = std::mem::take(&mut self.is_first);
        let Some(tick) = self.tick_for(entry.time, slot) else {
            return Placed::Repeat;
        };
        if tick.values.len() < n_slots {
            tick.values.resize_with(n_slots, Values::default);
            tick.asides.resize_with(n_slots, Aside::default);
        }
        tick.grew |= is_first;
        tick.values[slot] = std::mem::take(&mut entry.values);
        let aside = &mut tick.asides[slot];
        aside.is_there = true;
        aside.hold = (entry.job, entry.job_kind, entry.rank_group);
        aside.is_suspended = is_suspended;
        aside.xids.clear();
        aside.xids.extend_from_slice(xids);
        tick.filled += 1;
        tick.now = now;
        if tick.filled == n_slots && !tick.grew {
            Placed::Whole
        } else {
            Placed::Waits
        }
    }

    /// The open tick of a time in which the slot is still empty; `None`: the row is there already.
    fn tick_for(&mut self, time: Timestamp, slot: usize) -> Option<&mut Tick> {
        let spread_ms = self.spread_ms();
        let is_near = |tick: &Tick| (time.0 - tick.time.0).abs() <= spread_ms;
        let is_in = |tick: &Tick| tick.asides.get(slot).is_some_and(|aside| aside.is_there);
        if let Some(last) = &self.last {
            if last.time == time && is_in(last) {
                return None;
            }
            let apart = time.0 - last.time.0;
            if !self.is_spread && apart > 0 && apart <= self.most_spread_ms() && !is_in(last) {
                self.is_spread = true;
            }
        }
        let near = self
            .open
            .iter()
            .rposition(|tick| tick.time == time || (is_near(tick) && !is_in(tick)));
        if let Some(at) = near {
            let tick = &mut self.open[at];
            return (!is_in(tick)).then_some(tick);
        }
        let mut tick = self.spare.pop().unwrap_or_default();
        tick.time = time;
        self.open.push(tick);
        self.open.last_mut()
    }

    fn most_spread_ms(&self) -> i64 {
        MOST_SPREAD_MS.min(self.interval.ms / 2)
    }

    fn spread_ms(&self) -> i64 {
        if self.is_spread {
            self.most_spread_ms()
        } else {
            0
        }
    }

    /// Open ticks that are ready to be told, oldest first: those up to the whole one that was just filled.
    pub(super) fn take_whole(&mut self) -> Vec<Tick> {
        let n_slots = self.slots.len();
        let is_whole = |tick: &&Tick| tick.filled == n_slots && !tick.grew;
        let until = self
            .open
            .iter()
            .filter(is_whole)
            .map(|tick| tick.time)
            .max();
        self.take_open(|tick| Some(tick.time) <= until)
    }

    /// Open ticks for which no rows will come any more, when the clock moves to `now`.
    pub(super) fn take_stale(&mut self, now: Timestamp) -> Vec<Tick> {
        let spread_ms = self.spread_ms();
        self.take_open(|tick| now.0 - tick.now.0 > spread_ms)
    }

    /// All open ticks.
    pub(super) fn take_all(&mut self) -> Vec<Tick> {
        self.take_open(|_| true)
    }

    fn take_open(&mut self, which: impl Fn(&Tick) -> bool) -> Vec<Tick> {
        let mut taken: Vec<Tick> = self.open.extract_if(.., |tick| which(tick)).collect();
        taken.sort_by_key(|tick| tick.time);
        taken
    }

    /// A tick was told.
    pub(super) fn put_back(&mut self, tick: Tick) {
        let is_later = self.last.as_ref().is_none_or(|last| last.time < tick.time);
        let mut room = if is_later {
            self.last.replace(tick)
        } else {
            Some(tick)
        };
        if let Some(mut tick) = room.take().filter(|_| self.spare.len() < 2) {
            tick.values
                .iter_mut()
                .for_each(|row| *row = Values::default());
            for aside in &mut tick.asides {
                aside.is_there = false;
                aside.is_suspended = false;
                aside.xids.clear();
            }
            (tick.filled, tick.grew) = (0, false);
            self.spare.push(tick);
        }
    }

    /// Looks at the time of a tick in order. True when its interval is not as it was told.
    pub(super) fn note_step(&mut self, time: Timestamp) -> bool {
        let Some(last) = &self.last else {
            return false;
        };
        let step = time.0 - last.time.0;
        let interval = &mut self.interval;
        if step <= 0 || interval.is_stated {
            return false;
        }
        interval.steps.push(step);
        if interval.steps.len() < STEPS {
            return false;
        }
        interval.steps.sort_unstable();
        let median = interval.steps[STEPS / 2].clamp(1, LONGEST_INTERVAL_MS);
        interval.steps.clear();
        let differs = (median - interval.ms).abs() * 5 > interval.ms;
        if differs {
            interval.ms = median;
        }
        differs
    }

    /// What the trace states. True when it is not as it was told.
    pub(super) fn take_interval(&mut self, stated: Option<Duration>) -> bool {
        let Some(stated) = stated else {
            return false;
        };
        let ms = (stated.as_millis() as i64).clamp(1, LONGEST_INTERVAL_MS);
        self.interval.is_stated = true;
        let differs = ms != self.interval.ms;
        self.interval.ms = ms;
        differs
    }

    /// Its GPUs, as an agent would list them.
    pub(super) fn inventory(&mut self, tick: Option<&Tick>) -> Inventory {
        let totals = tick.map_or(&[][..], |tick| &tick.values);
        for (slot, row) in self.slots.iter_mut().zip(totals) {
            let total = row.get(metric::MEMORY_TOTAL);
            slot.memory_total = total
                .and_then(|bytes| u64::try_from(bytes).ok())
                .or(slot.memory_total);
        }
        self.generation += 1;
        Inventory {
            generation: self.generation,
            gpus: self.slots.iter().map(Slot::info).collect(),
        }
    }
}

impl Slot {
    fn identify(&mut self, entry: &Entry, texts: &TextList) {
        if let Some(uuid) = texts.some(entry.uuid) {
            if self.uuid_text != entry.uuid {
                self.hold = Hold::default();
            }
            self.uuid_text = entry.uuid;
            self.uuid = GpuUuid(uuid.clone());
        }
        if let Some(model) = texts.some(entry.model) {
            self.model_text = entry.model;
            self.model = model.to_string();
        }
    }

    fn info(&self) -> GpuInfo {
        GpuInfo {
            uuid: self.uuid.clone(),
            index: self.index,
            name: self.model.clone(),
            memory_total_bytes: self.memory_total,
            ..GpuInfo::default()
        }
    }
}

/// Who holds a GPU, as an agent would say it.
pub(super) fn holder((job, kind, rank_group): Hold, texts: &TextList) -> Option<Holder> {
    Some(Holder {
        job: texts.some(job)?.to_string(),
        kind,
        rank_group: texts.some(rank_group).map(ToString::to_string),
        ..Holder::default()
    })
}
