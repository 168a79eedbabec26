//! Recent state of every GPU: its latest values, and the stretches that are not sealed yet.
//!
//! Pure: it is told the time. What it holds is in the journal as well, or about to be; a sealed stretch stays here
//! until the commit that keeps it has succeeded, so that a query never misses it.

mod block;
mod numbers;
mod open;
mod read;
mod rows;
mod run;
mod total;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::LazyLock;
use std::time::Duration;

use entrenar::gpu::{GpuUuid, Values};
use entrenar::metric::{CATALOGUE, MetricId, Pace};
use entrenar::unit::Timestamp;

use self::open::OpenStretch;
use crate::chunk::{Profile, stretch};
use crate::store::{JournalPosition, SealedChunk};

/// After its end a stretch waits this long for stragglers, such as the last of a batch of ten ticks; what comes later makes it
/// be sealed again. A full stretch takes twice what one does on average: waiting costs memory.
pub const GRACE: Duration = Duration::from_secs(15);

/// A stretch that is being filled late is sealed after this long without a new sample.
pub const IDLE: Duration = Duration::from_secs(10);

/// Open stretches of one GPU: the present one, and some that are being filled late. Beyond it the one that was left
/// alone longest is sealed at once.
pub const MAX_OPEN_PER_GPU: usize = 4;

/// Samples in an open stretch, at which it is closed and another begun: a GPU that is sampled more often than it
/// said.
pub const MAX_TICKS: usize = 2 * stretch::TICKS as usize;

/// Stretches in memory per GPU, on average, and some for a small fleet. When they are reached, `has_room` is false:
/// the line takes nothing more from agents until the store has caught up.
pub const MAX_STRETCHES_PER_GPU: usize = 6;
const MAX_STRETCHES_SMALL: usize = 2048;

/// Chunks sealed in one call: bounds how long the line is held (about 0.15 ms each in a release build) …
const SEALED_AT_ONCE: usize = 64;
/// … and one more for so many GPUs. Of a fleet that is sampled each second, one GPU in 720 has a stretch that ends within a
/// second, and there are two calls in each: this is nearly three times as many.
const GPUS_PER_SEALED: usize = 512;

/// How often the head looks for what can be sealed. Stretches that are sealed together share pages of the database's indexes,
/// which a commit writes whole.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a slow metric stands for the present.
const SLOW_STANDS: Duration = Duration::from_secs(30);

/// Number of a group commit, given by the line; rises. Known before the journal row that it becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// How and when a sample came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When the GPU was sampled.
    pub at: Timestamp,
    /// When the sample reached us.
    pub received_at: Timestamp,
    /// The group commit that carries it.
    pub group: Group,
    /// How often its agent samples.
    pub interval: Duration,
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Kept, and the newest of its GPU.
    Newest,
    /// Kept; the GPU has a newer one.
    Late,
    /// One of the same GPU and time is here already; dropped.
    Duplicate,
}

/// How much the head holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadSize {
    pub gpus: usize,
    /// Series with values in the newest stretch of their GPU.
    pub series: usize,
    pub stretches: usize,
    /// Estimate of the memory in bytes, without the allocator's own.
    pub bytes: usize,
}

/// Recent state of the fleet.
#[derive(Debug, Default)]
pub struct Head {
    /// Boxed: a table is half empty on average.
    gpus: HashMap<GpuUuid, Box<GpuHead>>,
    n_stretches: usize,
    /// For each group commit: how many stretches begin with it.
    begun_in: BTreeMap<Group, usize>,
    /// Group commits that are durable, ascending; those before the oldest needed are dropped.
    durable: VecDeque<(Group, JournalPosition)>,
    look_at: Timestamp,
    profile: Profile,
}

/// What every sample looks at stands first and together: reading memory is most of what a sample costs here.
#[derive(Debug, Default)]
#[repr(C)]
struct GpuHead {
    stretches: Vec<OpenStretch>,
    latest_at: Option<Timestamp>,
    /// Of the newest sample with slow metrics.
    slow_at: Option<Timestamp>,
    /// Before it there is nothing to seal.
    seal_at: Timestamp,
    latest: Values,
    slow: Values,
}

impl Head {
    /// An empty head that keeps history in this profile. What a GPU says now is always exact.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            ..Self::default()
        }
    }

    /// Takes in one GPU's sample, in whatever order samples come.
    pub fn push(&mut self, gpu: &GpuUuid, arrival: Arrival, values: &Values) -> Pushed {
        let held = match self.gpus.get_mut(gpu) {
            Some(known) => known,
            None => self.gpus.entry(gpu.clone()).or_default(),
        };
        let length = stretch::length(arrival.interval);
        let mut open = None;
        for candidate in &mut held.stretches {
            if candidate.length != length || !candidate.covers(arrival.at) {
                continue;
            }
            if candidate.contains(arrival.at) {
                return Pushed::Duplicate;
            }
            if !candidate.sealing && candidate.len() < MAX_TICKS {
                open = Some(candidate);
            }
        }
        let mut kept = Cow::Borrowed(values);
        if self.profile != Profile::Exact {
            self.profile.round(kept.to_mut());
        }
        if let Some(open) = open {
            open.push(arrival.at, &kept, arrival.received_at, arrival.group);
        } else {
            let start = stretch::start(gpu, length, arrival.at);
            let mut new = OpenStretch::new(start, length, arrival.received_at, arrival.group);
            new.push(arrival.at, &kept, arrival.received_at, arrival.group);
            held.add(new);
            held.seal_at = Timestamp(i64::MIN);
            self.n_stretches += 1;
            *self.begun_in.entry(arrival.group).or_default() += 1;
            if held.stretches.len() > MAX_OPEN_PER_GPU {
                self.look_at = Timestamp(i64::MIN);
            }
        }
        held.note_latest(arrival.at, values)
    }

    /// Takes in what another head has, of group commits before all of this one's. No sample is in both.
    pub fn absorb(&mut self, older: Self) {
        for (gpu, theirs) in older.gpus {
            let held = self.gpus.entry(gpu).or_default();
            for stretch in theirs.stretches {
                let same = |ours: &&mut OpenStretch| {
                    !ours.sealing && ours.start == stretch.start && ours.length == stretch.length
                };
                *self.begun_in.entry(stretch.first_group).or_default() += 1;
                if let Some(ours) = held.stretches.iter_mut().find(same) {
                    release(&mut self.begun_in, ours.first_group);
                    ours.join(stretch);
                } else {
                    held.add(stretch);
                    self.n_stretches += 1;
                }
            }
            if held.latest_at < theirs.latest_at {
                (held.latest_at, held.latest) = (theirs.latest_at, theirs.latest);
            }
            if held.slow_at < theirs.slow_at {
                (held.slow_at, held.slow) = (theirs.slow_at, theirs.slow);
            }
            held.seal_at = Timestamp(i64::MIN);
        }
        let later = std::mem::replace(&mut self.durable, older.durable);
        self.durable.extend(later);
        self.drop_old_groups();
        self.look_at = Timestamp(i64::MIN);
    }

    /// A group commit is durable: what came with it may be sealed, and the journal row is known.
    pub fn committed(&mut self, group: Group, position: JournalPosition) {
        self.durable.push_back((group, position));
        self.drop_old_groups();
    }

    /// Whether there is room for more; if not, sealed stretches must be committed first.
    pub fn has_room(&self) -> bool {
        self.n_stretches < MAX_STRETCHES_SMALL + MAX_STRETCHES_PER_GPU * self.gpus.len()
    }

    /// Stretches that are over and durable in the journal, as chunks. They stay here, closed, until [`Head::sealed`]
    /// or [`Head::reopen`].
    pub fn take_sealable(&mut self, now: Timestamp) -> Vec<SealedChunk> {
        let clock_went_back = now + LOOK_EVERY < self.look_at;
        if now < self.look_at && !clock_went_back {
            return Vec::new();
        }
        self.look_at = now + LOOK_EVERY;
        let Some((durable, _)) = self.durable.back().copied() else {
            return Vec::new();
        };
        let mut chunks = Vec::new();
        let at_once = SEALED_AT_ONCE + self.gpus.len() / GPUS_PER_SEALED;
        for (gpu, held) in &mut self.gpus {
            if now < held.seal_at && !clock_went_back {
                continue;
            }
            while let Some(place) = held.sealable(now, durable) {
                if chunks.len() == at_once {
                    self.look_at = now;
                    return chunks;
                }
                let closing = &mut held.stretches[place];
                closing.sealing = true;
                chunks.push(seal(gpu, closing, self.profile));
            }
            held.seal_at = held.next_over(now);
        }
        chunks
    }

    /// The store has these chunks: they are dropped here.
    pub fn sealed<'a>(&mut self, keys: impl IntoIterator<Item = (&'a GpuUuid, Timestamp)>) {
        for (gpu, start) in keys {
            let Some(held) = self.gpus.get_mut(gpu) else {
                continue;
            };
            let Some(place) = held.closing(start) else {
                continue;
            };
            let gone = held.stretches.swap_remove(place);
            self.n_stretches -= 1;
            release(&mut self.begun_in, gone.first_group);
        }
        self.drop_old_groups();
    }

    /// The store could not keep what was taken for sealing: it is open again, and offered again.
    pub fn reopen(&mut self) {
        for held in self.gpus.values_mut() {
            held.stretches.iter_mut().for_each(|s| s.sealing = false);
            held.seal_at = Timestamp(i64::MIN);
        }
        self.look_at = Timestamp(i64::MIN);
    }

    /// The oldest durable journal row that holds data not sealed yet; `None`: no row is needed.
    pub fn oldest_needed(&self) -> Option<JournalPosition> {
        let (oldest, _) = self.begun_in.first_key_value()?;
        let needed = |(group, _): &&(Group, JournalPosition)| group >= oldest;
        self.durable
            .iter()
            .find(needed)
            .map(|(_, position)| *position)
    }

    /// The newest journal row up to which everything is sealed; the head needs nothing of it and before.
    pub fn forgettable(&self) -> Option<JournalPosition> {
        let oldest = self.begun_in.first_key_value().map(|(group, _)| *group);
        let free = |(group, _): &&(Group, JournalPosition)| oldest.is_none_or(|o| *group < o);
        self.durable
            .iter()
            .rev()
            .find(free)
            .map(|(_, position)| *position)
    }

    /// When a GPU was last sampled, and its values then. Slow metrics stand for up to 30 s.
    pub fn latest(&self, gpu: &GpuUuid) -> Option<(Timestamp, Values)> {
        let held = self.gpus.get(gpu)?;
        let at = held.latest_at?;
        let mut values = Values::default();
        if held
            .slow_at
            .is_some_and(|slow| at.since(slow) <= SLOW_STANDS)
        {
            for metric in SLOW_METRICS.iter() {
                values.set(*metric, held.slow.get(*metric));
            }
        }
        values.overlay(&held.latest);
        Some((at, values))
    }

    /// Every GPU that was heard of.
    pub fn gpus(&self) -> impl Iterator<Item = &GpuUuid> {
        self.gpus.keys()
    }

    /// Forgets what a GPU last said, because its node is no longer part of the fleet. What is not sealed yet still is.
    pub fn forget(&mut self, gpu: &GpuUuid) {
        if let Some(held) = self.gpus.get_mut(gpu) {
            held.latest_at = None;
            held.slow_at = None;
            if held.stretches.is_empty() {
                self.gpus.remove(gpu);
            }
        }
    }

    /// How much it holds. Walks over everything: for a scrape, not for every sample.
    pub fn size(&self) -> HeadSize {
        let mut size = HeadSize {
            gpus: self.gpus.len(),
            stretches: self.n_stretches,
            ..HeadSize::default()
        };
        for (gpu, held) in &self.gpus {
            size.bytes += size_of::<GpuUuid>() + gpu.as_str().len() + size_of::<GpuHead>();
            size.bytes += held.stretches.iter().map(OpenStretch::bytes).sum::<usize>();
            let newest = held.stretches.iter().max_by_key(|s| s.start);
            size.series += newest.map_or(0, OpenStretch::n_series);
        }
        size
    }

    /// Keeps, of the durable groups before the oldest needed one, only the last.
    fn drop_old_groups(&mut self) {
        let oldest = self.begun_in.first_key_value().map(|(group, _)| *group);
        while let Some((second, _)) = self.durable.get(1)
            && oldest.is_none_or(|oldest| *second < oldest)
        {
            self.durable.pop_front();
        }
    }
}

impl GpuHead {
    /// Nearly always the only one.
    fn add(&mut self, stretch: OpenStretch) {
        self.stretches.reserve_exact(1);
        self.stretches.push(stretch);
    }

    fn note_latest(&mut self, at: Timestamp, values: &Values) -> Pushed {
        let newer = |than: Option<Timestamp>| than.is_none_or(|than| than < at);
        if newer(self.slow_at) && SLOW_METRICS.iter().any(|m| values.get(*m).is_some()) {
            self.slow_at = Some(at);
            self.slow.clone_from(values);
        }
        if newer(self.latest_at) {
            self.latest_at = Some(at);
            self.latest.clone_from(values);
            Pushed::Newest
        } else {
            Pushed::Late
        }
    }

    /// Place of a stretch that can be sealed.
    fn sealable(&self, now: Timestamp, durable: Group) -> Option<usize> {
        let free = |s: &&OpenStretch| {
            !s.sealing && s.last_group <= durable && self.closing(s.start).is_none()
        };
        let n_open = self.stretches.iter().filter(|s| !s.sealing).count();
        let left_alone = (n_open > MAX_OPEN_PER_GPU)
            .then(|| {
                self.stretches
                    .iter()
                    .filter(free)
                    .min_by_key(|s| s.touched_at)
            })
            .flatten()
            .map(|s| s.start);
        self.stretches
            .iter()
            .position(|s| free(&s) && (is_over(s, now) || Some(s.start) == left_alone))
    }

    /// When the next of its stretches is over; now, where one is and waits for something else.
    fn next_over(&self, now: Timestamp) -> Timestamp {
        let n_open = self.stretches.iter().filter(|s| !s.sealing).count();
        if n_open > MAX_OPEN_PER_GPU {
            return now;
        }
        let open = self.stretches.iter().filter(|s| !s.sealing);
        open.map(|s| if is_over(s, now) { now } else { over_at(s) })
            .min()
            .unwrap_or(Timestamp(i64::MAX))
    }

    /// Place of the stretch of this start that is on its way to the store.
    fn closing(&self, start: Timestamp) -> Option<usize> {
        self.stretches
            .iter()
            .position(|s| s.sealing && s.start == start)
    }
}

/// Whether a stretch will hardly get more.
fn is_over(stretch: &OpenStretch, now: Timestamp) -> bool {
    over_at(stretch) <= now || stretch.len() >= MAX_TICKS
}

/// When a stretch will hardly get more, by its time. One in the future, from a wrong clock, does not keep the journal
/// for ever.
fn over_at(stretch: &OpenStretch) -> Timestamp {
    let end = (stretch.start + stretch.length).min(stretch.opened_at + stretch.length);
    (end + GRACE).max(stretch.touched_at + IDLE)
}

fn seal(gpu: &GpuUuid, closing: &OpenStretch, profile: Profile) -> SealedChunk {
    let times = closing.times();
    SealedChunk {
        gpu: gpu.clone(),
        stretch: closing.start,
        length_ms: closing.length.as_millis() as u32,
        from: *times.first().expect("a stretch begins with a sample"),
        to: *times.last().expect("a stretch begins with a sample"),
        n_samples: times.len() as u32,
        blob: closing
            .encode(&times, profile)
            .expect("an open stretch holds 1 to MAX_TICKS samples"),
    }
}

fn release(begun_in: &mut BTreeMap<Group, usize>, group: Group) {
    if let Some(count) = begun_in.get_mut(&group) {
        *count -= 1;
        if *count == 0 {
            begun_in.remove(&group);
        }
    }
}

/// Metrics that are not read at every tick.
static SLOW_METRICS: LazyLock<Vec<MetricId>> = LazyLock::new(|| {
    let slow = CATALOGUE.iter().filter(|metric| metric.pace == Pace::Slow);
    slow.map(|metric| metric.id).collect()
});

#[cfg(test)]
mod tests;
