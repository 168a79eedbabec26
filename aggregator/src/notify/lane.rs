//! What waits for one receiver, and what goes out next: in order within an incident, critical first, and never faster
//! than the receiver's pace. What does not fit goes out as one digest. Pure: told the time, it sends nothing itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use entrenar::unit::Timestamp;

use crate::andon::Severity;
use crate::incident::{Incident, Notice, NoticeState};
use crate::notify::pace::Pace;
use crate::notify::parcel::{DIGEST_MAX, Parcel, begins, ends};
use crate::notify::retry::{GIVE_UP_AFTER, Jitter, Verdict, wait};
use crate::store::Attempt;

/// Requests to one receiver at the same time. When reached, the rest waits for an answer.
const MAX_IN_FLIGHT: usize = 4;
/// Notices that wait in memory for one receiver. When reached, more are left in the store and fetched again later.
const MAX_WAITING: usize = 2000;
/// Ids that are remembered of messages that went out before they were recorded. When reached, the oldest is forgotten,
/// and the receiver may get it twice, with the same id.
const MAX_UNRECORDED: usize = 1000;

/// What a digest may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    /// Any news.
    Everything,
    /// Beginnings only: the receiver keeps a state per message, as PagerDuty does.
    Beginnings,
}

/// What [`Lane::add`] made of a notice.
#[derive(Clone, Debug, PartialEq)]
pub enum Added {
    /// It waits its turn, or was here before.
    Waiting,
    /// There is no room: it stays in the store.
    Full,
    /// It is settled without being sent.
    Settled(Vec<Attempt>),
}

/// One receiver's queue.
#[derive(Debug)]
pub struct Lane {
    pace: Pace,
    merging: Merging,
    /// By incident, in order.
    waiting: BTreeMap<String, VecDeque<Parcel>>,
    n_waiting: usize,
    /// Digests that failed and are to be tried again as they are.
    digests: Vec<Parcel>,
    /// By parcel id.
    in_flight: BTreeMap<String, Parcel>,
    /// Incidents with a parcel in flight, or in a digest that waits.
    busy: BTreeSet<String>,
    /// Taken by the receiver before the store knew of them, oldest first.
    unrecorded: VecDeque<Attempt>,
    /// Open digests: the incidents that their receiver knows by no other name.
    told_in: HashMap<String, String>,
    last_now: Timestamp,
}

impl Lane {
    /// An empty lane. `spacing`: least time between two messages.
    pub fn new(merging: Merging, spacing: Duration, now: Timestamp) -> Self {
        Self {
            pace: Pace::new(spacing, now),
            merging,
            waiting: BTreeMap::new(),
            n_waiting: 0,
            digests: Vec::new(),
            in_flight: BTreeMap::new(),
            busy: BTreeSet::new(),
            unrecorded: VecDeque::new(),
            told_in: HashMap::new(),
            last_now: now,
        }
    }

    /// Notices that wait or are on their way.
    pub fn len(&self) -> usize {
        let away = self.in_flight.values().chain(&self.digests);
        self.n_waiting + away.map(|p| p.notices.len()).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a parcel of one notice in. The same delivery id a second time changes nothing, except that it is recorded.
    pub fn add(&mut self, parcel: Parcel, now: Timestamp) -> Added {
        if let Some(at) = self
            .unrecorded
            .iter()
            .position(|a| a.delivery_id == parcel.id)
        {
            return Added::Settled(self.unrecorded.remove(at).into_iter().collect());
        }
        if self.knows(&parcel) {
            return Added::Waiting;
        }
        if ends(parcel.first()) && self.never_began(&parcel.first().incident.id) {
            return Added::Settled(self.cancel(parcel, now));
        }
        if self.n_waiting >= MAX_WAITING {
            return Added::Full;
        }
        let Incident { id, ordinal, .. } = &parcel.first().incident;
        let (incident, ordinal) = (id.clone(), *ordinal);
        let queue = self.waiting.entry(incident).or_default();
        // What a start fetches may be older than what was fed meanwhile.
        let at = queue.partition_point(|p| p.first().incident.ordinal <= ordinal);
        queue.insert(at, parcel);
        self.n_waiting += 1;
        Added::Waiting
    }

    /// What goes out now.
    pub fn next(&mut self, now: Timestamp) -> Vec<Parcel> {
        if now < self.last_now {
            self.clock_went_back(now);
        }
        self.last_now = now;
        let mut out = Vec::new();
        while self.in_flight.len() < MAX_IN_FLIGHT && self.pace.room(now) > 0 {
            let Some(mut parcel) = self.pick(now) else {
                break;
            };
            self.pace.take(now);
            self.name(&mut parcel);
            self.busy.extend(parcel.incidents().map(str::to_owned));
            self.in_flight.insert(parcel.id.clone(), parcel.clone());
            out.push(parcel);
        }
        out
    }

    /// What an attempt came to.
    pub fn settle(
        &mut self,
        parcel: &str,
        verdict: Verdict,
        now: Timestamp,
        jitter: &mut Jitter,
    ) -> Vec<Attempt> {
        let Some(mut parcel) = self.in_flight.remove(parcel) else {
            return Vec::new();
        };
        for incident in parcel.incidents() {
            self.busy.remove(incident);
        }
        let (state, why) = match verdict {
            Verdict::Delivered => (NoticeState::Delivered, None),
            Verdict::Refused { why } => (NoticeState::Dead, Some(why)),
            Verdict::Retry {
                after,
                perhaps_taken,
                why,
            } => {
                parcel.attempts += 1;
                parcel.perhaps_taken |= perhaps_taken;
                parcel.due = now + wait(parcel.attempts, after, jitter);
                if after.is_some() {
                    self.pace.pause(parcel.due);
                }
                return self.put_back(parcel, now, &why);
            }
        };
        let settled = attempts(&parcel.notices, now, state, None, why.as_deref());
        if parcel.unrecorded {
            self.remember_unrecorded(&settled);
        }
        settled
    }

    /// When to ask again, if nothing happens before. `None`: when something is added or settled.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let heads = self.heads().map(|(_, parcel)| parcel);
        let due = heads.chain(&self.digests).map(|parcel| parcel.due).min()?;
        Some(due.max(self.pace.next_at()))
    }

    /// The first parcel of every incident that has none on its way.
    fn heads(&self) -> impl Iterator<Item = (&String, &Parcel)> {
        self.waiting
            .iter()
            .filter(|(incident, _)| !self.busy.contains(*incident))
            .filter_map(|(incident, queue)| Some((incident, queue.front()?)))
    }

    fn pick(&mut self, now: Timestamp) -> Option<Parcel> {
        let ready = self.ready(now);
        if let Some(at) = self.due_digest(&ready, now) {
            return Some(self.digests.swap_remove(at));
        }
        let merge = match self.merging {
            Merging::Everything => ready.clone(),
            Merging::Beginnings => {
                let mut begin = ready.clone();
                begin.retain(|incident| {
                    self.waiting[incident]
                        .front()
                        .is_some_and(|p| begins(p.first()))
                });
                begin
            }
        };
        if self.pace.room(now) == 1 && merge.len() > 1 {
            let parcels = merge
                .iter()
                .take(DIGEST_MAX)
                .filter_map(|incident| self.take(incident))
                .collect();
            return Some(Parcel::digest(parcels, now));
        }
        self.take(ready.first()?)
    }

    /// A digest that is to be tried again, unless something worse is waiting.
    fn due_digest(&self, ready: &[String], now: Timestamp) -> Option<usize> {
        let head = ready
            .first()
            .and_then(|incident| self.waiting[incident].front());
        let worst_waiting = head.map(Parcel::severity);
        self.digests
            .iter()
            .position(|digest| digest.due <= now && worst_waiting <= Some(digest.severity()))
    }

    /// Incidents whose next parcel is due: worst first, then beginnings, then the oldest.
    fn ready(&self, now: Timestamp) -> Vec<String> {
        let mut ready: Vec<(&String, &Parcel)> = self
            .heads()
            .filter(|(_, parcel)| parcel.due <= now)
            .collect();
        ready.sort_by_key(|(incident, parcel)| {
            let first = parcel.first();
            let worst = std::cmp::Reverse::<Severity>(parcel.severity());
            (worst, !begins(first), first.created_at, *incident)
        });
        ready
            .into_iter()
            .map(|(incident, _)| incident.clone())
            .collect()
    }

    fn take(&mut self, incident: &str) -> Option<Parcel> {
        let queue = self.waiting.get_mut(incident)?;
        let parcel = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(incident);
        }
        self.n_waiting -= usize::from(parcel.is_some());
        parcel
    }

    /// Puts a parcel that failed where it was; what grew too old in it is given up.
    fn put_back(&mut self, mut parcel: Parcel, now: Timestamp, why: &str) -> Vec<Attempt> {
        let too_old = |notice: &Notice| GIVE_UP_AFTER <= now.since(notice.created_at);
        let (dead, kept): (Vec<Notice>, Vec<Notice>) = parcel.notices.drain(..).partition(too_old);
        let gave_up = format!("given up after {} h: {why}", GIVE_UP_AFTER.as_secs() / 3600);
        let mut settled = attempts(&dead, now, NoticeState::Dead, None, Some(&gave_up));
        settled.extend(attempts(
            &kept,
            now,
            NoticeState::Pending,
            Some(parcel.due),
            Some(why),
        ));
        if kept.is_empty() {
            return settled;
        }
        parcel.notices = kept;
        // A digest keeps its id, and so it stays one, even of a single notice.
        if parcel.id == parcel.first().delivery_id {
            let incident = parcel.first().incident.id.clone();
            self.waiting.entry(incident).or_default().push_front(parcel);
            self.n_waiting += 1;
        } else {
            self.busy.extend(parcel.incidents().map(str::to_owned));
            self.digests.push(parcel);
        }
        settled
    }

    /// Whether the beginning of an incident still waits, and no attempt of it was ever made.
    fn never_began(&self, incident: &str) -> bool {
        let first = self.waiting.get(incident).and_then(VecDeque::front);
        !self.busy.contains(incident)
            && first.is_some_and(|p| begins(p.first()) && p.attempts == 0 && !p.perhaps_taken)
    }

    /// It began and ended unheard: saying either now would be noise.
    fn cancel(&mut self, end: Parcel, now: Timestamp) -> Vec<Attempt> {
        let queue = self.waiting.remove(&end.first().incident.id);
        let mut unsent: Vec<Notice> = Vec::new();
        for parcel in queue.into_iter().flatten().chain([end]) {
            unsent.extend(parcel.notices);
        }
        self.n_waiting -= unsent.len() - 1;
        let why = "not sent: it was over before its beginning could be delivered";
        attempts(&unsent, now, NoticeState::Dead, None, Some(why))
    }

    fn knows(&mut self, parcel: &Parcel) -> bool {
        let queue = self.waiting.get_mut(&parcel.first().incident.id);
        let waiting = queue.into_iter().flatten();
        for known in waiting
            .chain(&mut self.digests)
            .chain(self.in_flight.values_mut())
        {
            if known.notices.iter().any(|n| n.delivery_id == parcel.id) {
                known.unrecorded &= parcel.unrecorded;
                return true;
            }
        }
        false
    }

    /// The store does not know them yet. When it does, it must hear that they are done.
    fn remember_unrecorded(&mut self, attempts: &[Attempt]) {
        self.unrecorded.extend(attempts.iter().cloned());
        while self.unrecorded.len() > MAX_UNRECORDED {
            self.unrecorded.pop_front();
        }
    }

    /// Finds the name under which the receiver knows the incident. A digest's name ends with its last incident.
    fn name(&mut self, parcel: &mut Parcel) {
        if self.merging == Merging::Everything {
            return;
        }
        if parcel.is_digest() {
            for incident in parcel.incidents() {
                self.told_in.insert(incident.to_owned(), parcel.id.clone());
            }
            return;
        }
        let incident = parcel.first().incident.id.clone();
        if !ends(parcel.first()) {
            parcel.under = self.told_in.get(&incident).cloned();
        } else if let Some(digest) = self.told_in.remove(&incident) {
            let others = self.told_in.values().any(|other| *other == digest);
            parcel.under = (!others).then_some(digest);
        }
    }

    fn clock_went_back(&mut self, now: Timestamp) {
        self.pace.clock_went_back(now);
        for parcel in self.waiting.values_mut().flatten().chain(&mut self.digests) {
            parcel.due = parcel.due.min(now);
        }
    }
}

fn attempts(
    notices: &[Notice],
    at: Timestamp,
    state: NoticeState,
    next_attempt_at: Option<Timestamp>,
    error: Option<&str>,
) -> Vec<Attempt> {
    let attempt = |notice: &Notice| Attempt {
        delivery_id: notice.delivery_id.clone(),
        at,
        state,
        next_attempt_at,
        error: error.map(str::to_owned),
    };
    notices.iter().map(attempt).collect()
}

#[cfg(test)]
mod tests;
