//! A store in memory, for tests: it can withhold its answers, and fail on demand.
//!
//! It outlives the aggregator that uses it, so a test can "restart" by starting another one on the same store.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::metric::MetricId;
use entrenar::report::{HolderChange, StreamId};
use entrenar::unit::Timestamp;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::history::rollup;
use super::merge::{length_of_both, sums};
use super::{
    Attempt, Durable, Flush, IncidentFilter, JournalEntry, JournalPosition, JournalRow, NodeEvent,
    Recovered, Retention, SealedChunk, Snapshot, Store, StoreError, StoreResult, StoredRollup,
    StreamMark,
};
use crate::andon::CordKey;
use crate::chunk;
use crate::incident::{Decision, Incident, NoticeState, NoticeStatus, TimelineEntry};

/// How a store under test fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Busy or away.
    Unavailable,
    /// No space.
    Full,
}

impl Failure {
    fn error(self) -> StoreError {
        match self {
            Self::Unavailable => StoreError::Unavailable("on demand".into()),
            Self::Full => StoreError::Full("on demand".into()),
        }
    }
}

/// Everything in memory.
#[derive(Debug)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
    withheld: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Kept {
    failure: Option<Failure>,
    newest: JournalPosition,
    journal: BTreeMap<JournalPosition, Vec<JournalEntry>>,
    chunks: BTreeMap<(GpuUuid, Timestamp), SealedChunk>,
    rollups: BTreeMap<(Duration, GpuUuid, Timestamp), KeptSums>,
    streams: BTreeMap<StreamId, StreamMark>,
    holders: BTreeMap<(GpuUuid, Timestamp), HolderChange>,
    events: Vec<NodeEvent>,
    snapshot: Option<Snapshot>,
    incidents: BTreeMap<String, Incident>,
    timeline: Vec<(String, TimelineEntry)>,
    cords: BTreeMap<CordKey, Timestamp>,
    notices: BTreeMap<String, NoticeStatus>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            withheld: watch::Sender::new(false),
        }
    }
}

impl MemoryStore {
    /// While true, `commit` and `decide` keep what they are given but do not answer.
    pub fn withhold(&self, on: bool) {
        self.withheld.send_replace(on);
    }

    /// From now on every write fails like this and keeps nothing; `None`: works again.
    pub fn fail(&self, how: Option<Failure>) {
        self.kept().failure = how;
    }

    /// How many rows the journal has.
    pub fn journal_len(&self) -> usize {
        self.kept().journal.len()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does it at once, and answers when nothing is withheld.
    fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Kept) -> StoreResult<T>,
    ) -> BoxFuture<'_, StoreResult<T>> {
        let mut kept = self.kept();
        let answer = match kept.failure {
            Some(failure) => Err(failure.error()),
            None => change(&mut kept),
        };
        drop(kept);
        Box::pin(async move {
            let mut withheld = self.withheld.subscribe();
            // An error would mean that the sender is gone, and we hold it.
            let _ = withheld.wait_for(|on| !on).await;
            answer
        })
    }

    fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Kept) -> T,
    ) -> BoxFuture<'_, StoreResult<T>> {
        let found = look(&self.kept());
        Box::pin(std::future::ready(Ok(found)))
    }
}

/// Of a stretch: first and last sample, and the sums.
#[derive(Debug)]
struct KeptSums {
    from: Timestamp,
    to: Timestamp,
    blob: Vec<u8>,
}

/// What a chunk comes to, by step.
fn sum_up(chunk: &SealedChunk) -> Vec<(Duration, KeptSums)> {
    let stored = |(step, blob)| {
        let (from, to) = (chunk.from, chunk.to);
        (step, KeptSums { from, to, blob })
    };
    let sums = sums(&chunk.blob, chunk.length_ms);
    sums.into_iter().map(stored).collect()
}

impl Kept {
    fn commit(&mut self, flush: Flush) -> StoreResult<Durable> {
        for chunk in flush.sealed {
            self.keep_chunk(chunk)?;
        }
        for mark in flush.marks {
            self.streams.insert(mark.hello.stream, mark);
        }
        for change in flush.holders {
            self.holders.insert((change.gpu.clone(), change.at), change);
        }
        for event in flush.events {
            if !self.events.contains(&event) {
                self.events.push(event);
            }
        }
        if !flush.journal.is_empty() {
            self.newest.0 += 1;
            self.journal.insert(self.newest, flush.journal);
        }
        if let Some(snapshot) = flush.snapshot {
            self.snapshot = Some(Snapshot {
                position: self.newest,
                ..snapshot
            });
        }
        if let Some(last) = flush.forget_journal {
            self.journal.retain(|position, _| *position > last);
        }
        Ok(Durable {
            position: self.newest,
        })
    }

    fn keep_chunk(&mut self, new: SealedChunk) -> StoreResult<()> {
        let key = (new.gpu.clone(), new.stretch);
        let Some(old) = self.chunks.get_mut(&key) else {
            let sums = sum_up(&new);
            for (step, stored) in sums {
                // Those of a chunk that was dropped know more than a few late samples.
                let place = (step, key.0.clone(), key.1);
                self.rollups.entry(place).or_insert(stored);
            }
            self.chunks.insert(key, new);
            return Ok(());
        };
        let damaged = |error: chunk::ChunkError| StoreError::Corrupt(error.to_string());
        old.blob = chunk::merge(&old.blob, &new.blob).map_err(damaged)?;
        let (n_samples, from, to) = chunk::extent(&old.blob).map_err(damaged)?;
        (old.n_samples, old.from, old.to) = (n_samples as u32, from, to);
        old.length_ms = length_of_both(old.length_ms, new.length_ms);
        let sums = sum_up(old);
        let place = |step| (step, key.0.clone(), key.1);
        self.rollups
            .extend(sums.into_iter().map(|(step, stored)| (place(step), stored)));
        Ok(())
    }

    /// Of one GPU, oldest first.
    fn rollups(
        &self,
        gpu: &GpuUuid,
        step: Duration,
        (from, to): (Timestamp, Timestamp),
    ) -> Vec<StoredRollup> {
        let all = self.rollups.iter();
        let summed = all.filter(|((kept_step, of, _), _)| *kept_step == step && of == gpu);
        let stored = |((_, _, stretch), kept): (&(_, _, Timestamp), &KeptSums)| {
            rollup((stretch.0, kept.from.0, kept.to.0, Some(&kept.blob)))
        };
        let mut found: Vec<StoredRollup> = summed.map(stored).collect();
        let known: Vec<Timestamp> = found.iter().map(|stored| stored.stretch).collect();
        let of_gpu = self.chunks.values().filter(|chunk| chunk.gpu == *gpu);
        let rest = of_gpu.filter(|chunk| !known.contains(&chunk.stretch));
        found.extend(rest.map(|c| rollup((c.stretch.0, c.from.0, c.to.0, None))));
        found.retain(|stored| stored.from <= to && from <= stored.to);
        found.sort_by_key(|stored| stored.from);
        found
    }

    fn decide(&mut self, decision: Decision) -> StoreResult<()> {
        // Checked before anything changes: all of it or none.
        let mut incidents = self.incidents.clone();
        for new in decision.incidents {
            let age = |i: &Incident| (i.last_transition_at, i.ordinal);
            if incidents
                .get(&new.id)
                .is_none_or(|old| age(old) < age(&new))
            {
                incidents.insert(new.id.clone(), new);
            }
        }
        let mut open: Vec<CordKey> = incidents
            .values()
            .filter(|incident| incident.state.is_open())
            .map(Incident::cord)
            .collect();
        open.sort();
        if open.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(StoreError::Refused("two open incidents of one cord".into()));
        }
        self.incidents = incidents;
        for line in decision.timeline {
            if !self.timeline.contains(&line) {
                self.timeline.push(line);
            }
        }
        for notice in decision.notices {
            let fresh = NoticeStatus {
                state: NoticeState::Pending,
                attempts: 0,
                next_attempt_at: None,
                delivered_at: None,
                last_error: None,
                notice,
            };
            self.notices
                .entry(fresh.notice.delivery_id.clone())
                .or_insert(fresh);
        }
        for (cord, at) in decision.cords {
            let newest = self.cords.entry(cord).or_insert(at);
            *newest = at.max(*newest);
        }
        Ok(())
    }

    fn record(&mut self, attempt: Attempt) {
        if let Some(status) = self.notices.get_mut(&attempt.delivery_id) {
            status.state = attempt.state;
            status.attempts += 1;
            status.next_attempt_at = attempt.next_attempt_at;
            status.last_error = attempt.error;
            status.delivered_at = (attempt.state == NoticeState::Delivered).then_some(attempt.at);
        }
    }

    fn retain(&mut self, retention: &Retention) -> u64 {
        let (chunks_before, incidents_before) =
            (retention.chunks_before, retention.incidents_before);
        self.rollups
            .retain(|(step, ..), stored| stored.to >= retention.before(*step));
        let holders_before = chunks_before
            .min(retention.minutes_before)
            .min(retention.hours_before);
        let before = self.chunks.len() + self.incidents.len() + self.notices.len();
        self.chunks.retain(|_, chunk| chunk.to >= chunks_before);
        self.incidents.retain(|_, incident| {
            incident.state.is_open() || incident.last_transition_at >= incidents_before
        });
        let incidents = &self.incidents;
        self.timeline.retain(|(id, _)| incidents.contains_key(id));
        self.notices.retain(|_, status| {
            status.state == NoticeState::Pending || status.notice.created_at >= incidents_before
        });
        let held = self.holders.keys().filter(|(_, at)| *at <= holders_before);
        let held: BTreeMap<GpuUuid, Timestamp> = held.cloned().collect();
        self.holders
            .retain(|(gpu, at), _| *at >= holders_before || held.get(gpu) == Some(at));
        self.events.retain(|kept| kept.event.at >= holders_before);
        let open: Vec<CordKey> = incidents
            .values()
            .filter(|i| i.state.is_open())
            .map(Incident::cord)
            .collect();
        self.cords
            .retain(|cord, at| *at >= incidents_before || open.contains(cord));
        (before - self.chunks.len() - self.incidents.len() - self.notices.len()) as u64
    }

    fn recover(&self) -> Recovered {
        let newest: BTreeMap<&GpuUuid, &HolderChange> = self
            .holders
            .iter()
            .map(|((gpu, _), change)| (gpu, change))
            .collect();
        let open = self
            .incidents
            .values()
            .filter(|i| i.state.is_open() || i.is_held());
        let ends = self
            .journal
            .first_key_value()
            .zip(self.journal.last_key_value());
        Recovered {
            streams: self.streams.values().cloned().collect(),
            snapshot: self.snapshot.clone(),
            open_incidents: open.cloned().collect(),
            cords: self
                .cords
                .iter()
                .map(|(cord, at)| (cord.clone(), *at))
                .collect(),
            holders: newest.into_values().cloned().collect(),
            journal: ends.map(|((first, _), (last, _))| (*first, *last)),
        }
    }

    fn notices(
        &self,
        state: Option<NoticeState>,
        before: Option<&(Timestamp, String)>,
        limit: usize,
    ) -> Vec<NoticeStatus> {
        let key = |s: &NoticeStatus| (s.notice.created_at, s.notice.delivery_id.clone());
        let mut found: Vec<NoticeStatus> = self
            .notices
            .values()
            .filter(|s| state.is_none_or(|state| s.state == state))
            .filter(|s| before.is_none_or(|before| key(s) < *before))
            .cloned()
            .collect();
        found.sort_by_key(|s| std::cmp::Reverse(key(s)));
        found.truncate(limit);
        found
    }
}

impl Store for MemoryStore {
    fn commit(&self, flush: Flush) -> BoxFuture<'_, StoreResult<Durable>> {
        self.write(|kept| kept.commit(flush))
    }

    fn decide(&self, decision: Decision) -> BoxFuture<'_, StoreResult<()>> {
        self.write(|kept| kept.decide(decision))
    }

    fn recover(&self) -> BoxFuture<'_, StoreResult<Recovered>> {
        self.read(Kept::recover)
    }

    fn journal(
        &self,
        after: JournalPosition,
        limit: usize,
    ) -> BoxFuture<'_, StoreResult<Vec<JournalRow>>> {
        if let Some(failure @ Failure::Unavailable) = self.kept().failure {
            return Box::pin(std::future::ready(Err(failure.error())));
        }
        let from = JournalPosition(after.0.saturating_add(1));
        self.read(|kept| {
            let rows = kept.journal.range(from..).take(limit);
            rows.map(|(position, entries)| (*position, entries.clone()))
                .collect()
        })
    }

    fn chunks(
        &self,
        gpu: &GpuUuid,
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'_, StoreResult<Vec<SealedChunk>>> {
        self.read(|kept| {
            let of_gpu = kept.chunks.values().filter(|chunk| chunk.gpu == *gpu);
            let overlap = of_gpu.filter(|chunk| chunk.from <= to && from <= chunk.to);
            let mut found: Vec<SealedChunk> = overlap.cloned().collect();
            found.sort_by_key(|chunk| chunk.from);
            found
        })
    }

    fn rollups<'a>(
        &'a self,
        gpus: &'a [GpuUuid],
        _metrics: &'a [MetricId],
        step: Duration,
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<Vec<StoredRollup>>>> {
        self.read(|kept| {
            let of_gpu = |gpu| kept.rollups(gpu, step, (from, to));
            gpus.iter().map(of_gpu).collect()
        })
    }

    fn holders<'a>(
        &'a self,
        gpus: &'a [GpuUuid],
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<HolderChange>>> {
        self.read(|kept| {
            let of_gpu = |gpu: &GpuUuid| {
                let all = kept
                    .holders
                    .range((gpu.clone(), Timestamp(i64::MIN))..=(gpu.clone(), to));
                let all: Vec<_> = all.map(|(_, change)| change.clone()).collect();
                let before = all.partition_point(|change| change.at <= from);
                all.into_iter().skip(before.saturating_sub(1))
            };
            gpus.iter().flat_map(of_gpu).collect()
        })
    }

    fn events<'a>(
        &'a self,
        nodes: &'a [NodeId],
        from: Timestamp,
        to: Timestamp,
    ) -> BoxFuture<'a, StoreResult<Vec<NodeEvent>>> {
        self.read(|kept| {
            let is_asked = |kept: &&NodeEvent| {
                from <= kept.event.at && kept.event.at <= to && nodes.contains(&kept.node)
            };
            let mut found: Vec<_> = kept.events.iter().filter(is_asked).cloned().collect();
            found.sort_by_key(|kept| kept.event.at);
            found
        })
    }

    fn incidents(&self, filter: IncidentFilter) -> BoxFuture<'_, StoreResult<Vec<Incident>>> {
        self.read(|kept| {
            let wanted = kept
                .incidents
                .values()
                .filter(|incident| filter.wants(incident));
            let mut found: Vec<Incident> = wanted.cloned().collect();
            found.sort_by(|a, b| (b.fired_at, &b.id).cmp(&(a.fired_at, &a.id)));
            found.truncate(filter.limit);
            found
        })
    }

    fn incident(
        &self,
        id: &str,
    ) -> BoxFuture<'_, StoreResult<Option<(Incident, Vec<TimelineEntry>, Vec<NoticeStatus>)>>> {
        self.read(|kept| {
            let incident = kept.incidents.get(id)?.clone();
            let mut lines: Vec<TimelineEntry> = kept
                .timeline
                .iter()
                .filter(|(of, _)| of == id)
                .map(|(_, line)| line.clone())
                .collect();
            lines.sort_by_key(|line| line.at);
            let mut notices: Vec<NoticeStatus> = kept
                .notices
                .values()
                .filter(|s| s.notice.incident.id == id)
                .cloned()
                .collect();
            notices.sort_by_key(|s| (s.notice.created_at, s.notice.delivery_id.clone()));
            Some((incident, lines, notices))
        })
    }

    fn notices(
        &self,
        state: Option<NoticeState>,
        before: Option<(Timestamp, String)>,
        limit: usize,
    ) -> BoxFuture<'_, StoreResult<Vec<NoticeStatus>>> {
        self.read(|kept| kept.notices(state, before.as_ref(), limit))
    }

    fn pending_notices(&self) -> BoxFuture<'_, StoreResult<Vec<NoticeStatus>>> {
        self.read(|kept| {
            let mut pending = kept.notices(Some(NoticeState::Pending), None, usize::MAX);
            pending.reverse();
            pending
        })
    }

    fn record_attempts(&self, attempts: Vec<Attempt>) -> BoxFuture<'_, StoreResult<()>> {
        self.write(|kept| {
            for attempt in attempts {
                kept.record(attempt);
            }
            Ok(())
        })
    }

    fn retain(&self, retention: Retention) -> BoxFuture<'_, StoreResult<u64>> {
        self.write(|kept| Ok(kept.retain(&retention)))
    }

    fn forget_node(&self, node: &NodeId) -> BoxFuture<'_, StoreResult<()>> {
        self.write(|kept| {
            kept.streams.retain(|_, mark| mark.hello.node != *node);
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::store::contract::contract;

    contract!(async { Some((MemoryStore::default(), ())) });

    #[tokio::test]
    async fn a_withheld_answer_comes_when_it_is_released() {
        let store = MemoryStore::default();
        store.withhold(true);
        let mut commit = store.commit(Flush::default());
        assert!((&mut commit).now_or_never().is_none());
        store.withhold(false);
        assert!(commit.await.is_ok());
    }

    #[tokio::test]
    async fn a_failing_store_keeps_nothing_until_it_works_again() {
        let store = MemoryStore::default();
        let flush = Flush {
            journal: vec![JournalEntry::Advance { to: Timestamp(1) }],
            ..Flush::default()
        };
        store.fail(Some(Failure::Full));
        assert!(matches!(
            store.commit(flush.clone()).await,
            Err(StoreError::Full(_))
        ));
        assert_eq!(store.journal_len(), 0);
        store.fail(None);
        assert!(store.commit(flush).await.is_ok());
        assert_eq!(store.journal_len(), 1);
    }
}
