//! The outbox's driver: where notices, answers and time meet. What goes out when is decided in `lane`.
//!
//! At least once: a notice is pending in the store until its delivery is recorded, and a start fetches what is pending.
//! A retry has the same delivery id. Nothing polls: a notice that is fed goes out at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use entrenar::clock::Clock;
use entrenar::unit::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::andon::Severity;
use crate::incident::{Notice, NoticeState, NoticeStatus};
use crate::notify::lane::{Added, Lane};
use crate::notify::message::Context;
use crate::notify::parcel::Parcel;
use crate::notify::post::Poster;
use crate::notify::receivers::Receiver;
use crate::notify::recorder::Recorder;
use crate::notify::retry::{Jitter, Verdict};
use crate::store::{Attempt, Store};

/// Decisions whose notices wait to be taken in. When reached, they are fetched from the store instead, moments later.
const MAX_FED: usize = 1024;
/// A full lane is filled again from the store when fewer notices than this wait in it.
const ROOM_AGAIN: usize = 1000;
/// How long a start waits for what the store still has to deliver, so that old news go before new ones of the same
/// incident. After that, people are told without it.
const LOAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long requests on their way are waited for at the end. What has no answer by then is sent again after the start.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// Longest sleep, so that a clock that is set forward is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// What happened at one receiver since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Notices delivered.
    pub n_delivered: u64,
    /// Attempts that failed and are tried again.
    pub n_retries: u64,
    /// Notices put aside: refused for good, or too old.
    pub n_dead: u64,
    /// Notices not sent because their incident was over before.
    pub n_cancelled: u64,
    /// Requests that held several notices.
    pub n_digests: u64,
    /// Notices that wait or are on their way.
    pub n_waiting: usize,
    pub last_delivered_at: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// What the outbox shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxStats {
    pub receivers: BTreeMap<String, ReceiverStats>,
    /// Notices that did not fit and were fetched from the store again.
    pub n_refetched: u64,
    /// Attempts that could not be recorded; such a notice may be sent again after a restart.
    pub n_attempts_lost: u64,
}

type SharedStats = Arc<Mutex<OutboxStats>>;

fn lock(stats: &SharedStats) -> std::sync::MutexGuard<'_, OutboxStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notices on their way into the outbox.
#[derive(Debug)]
pub(super) struct Fed {
    pub(super) notices: Vec<Notice>,
    pub(super) unrecorded: bool,
}

/// How the others reach the outbox. Cheap to clone.
#[derive(Clone)]
pub struct OutboxHandle {
    fed: mpsc::Sender<Fed>,
    refetch: Arc<tokio::sync::Notify>,
    stats: SharedStats,
}

impl OutboxHandle {
    /// Notices that the store has just taken. Never waits: what does not fit is fetched from the store.
    pub fn feed(&self, notices: Vec<Notice>) {
        self.put(Fed {
            notices,
            unrecorded: false,
        });
    }

    /// Critical pages that the store could not take: they go out from memory, marked so, under the delivery id that
    /// they will have when the store takes them. Others wait for the store.
    pub fn send_unrecorded(&self, notices: &[Notice]) {
        let critical = |n: &&Notice| n.incident.severity == Severity::Critical;
        self.put(Fed {
            notices: notices.iter().filter(critical).cloned().collect(),
            unrecorded: true,
        });
    }

    /// How it goes, by receiver.
    pub fn stats(&self) -> OutboxStats {
        lock(&self.stats).clone()
    }

    /// A handle with nothing behind it but what it was fed.
    #[cfg(test)]
    pub(super) fn with_nothing_behind() -> (Self, mpsc::Receiver<Fed>) {
        let (fed, receiver) = mpsc::channel(MAX_FED);
        let handle = Self {
            fed,
            refetch: Arc::default(),
            stats: SharedStats::default(),
        };
        (handle, receiver)
    }

    fn put(&self, fed: Fed) {
        let n = fed.notices.len() as u64;
        if n > 0 && self.fed.try_send(fed).is_err() {
            lock(&self.stats).n_refetched += n;
            self.refetch.notify_one();
        }
    }
}

/// One receiver with its queue.
struct Told {
    receiver: Arc<Receiver>,
    lane: Lane,
    /// The lane was full: what it could not take is fetched again once there is room.
    starved: bool,
}

/// Something that the outbox waited for.
enum Done {
    Answered {
        receiver: String,
        parcel: String,
        verdict: Verdict,
    },
    Fetched(Option<Vec<NoticeStatus>>),
}

/// The task that sends.
pub struct Outbox {
    fed: mpsc::Receiver<Fed>,
    refetch: Arc<tokio::sync::Notify>,
    stats: SharedStats,
    told: BTreeMap<String, Told>,
    poster: Poster,
    context: Arc<Context>,
    clock: Arc<dyn Clock>,
    jitter: Jitter,
    recorder: Recorder,
    doing: JoinSet<Done>,
    /// What each request is about, should its task fail.
    about: HashMap<Id, (String, String)>,
    /// While pending notices are being fetched: what was settled meanwhile and may still look pending.
    fetching: Option<HashSet<String>>,
    /// Nothing goes out before, unless the first fetch is done earlier.
    hold_until: Timestamp,
}

impl Outbox {
    /// An outbox for these receivers, and the way to it. Must be called inside a runtime.
    pub fn new(
        store: Arc<dyn Store>,
        receivers: &[Receiver],
        poster: Poster,
        context: Context,
        clock: Arc<dyn Clock>,
    ) -> (OutboxHandle, Self) {
        let now = clock.now();
        let (sender, fed) = mpsc::channel(MAX_FED);
        let mut seed = [0; 8];
        // Without randomness the waits are the same in every process, which is only less polite.
        let _ = getrandom::fill(&mut seed);
        let told = |receiver: &Receiver| {
            let channel = &receiver.channel;
            let lane = Lane::new(channel.merging(), channel.spacing(), now);
            let told = Told {
                receiver: Arc::new(receiver.clone()),
                lane,
                starved: false,
            };
            (receiver.name().to_owned(), told)
        };
        let outbox = Self {
            fed,
            refetch: Arc::default(),
            stats: SharedStats::default(),
            told: receivers.iter().map(told).collect(),
            poster,
            context: Arc::new(context),
            clock,
            jitter: Jitter(u64::from_le_bytes(seed)),
            recorder: Recorder::start(store),
            doing: JoinSet::new(),
            about: HashMap::new(),
            fetching: None,
            hold_until: now + LOAD_PATIENCE,
        };
        let handle = OutboxHandle {
            fed: sender,
            refetch: outbox.refetch.clone(),
            stats: outbox.stats.clone(),
        };
        (handle, outbox)
    }

    /// Sends until it is stopped or nobody can feed it any more.
    pub async fn run(mut self, stop: CancellationToken) {
        self.fetch();
        loop {
            self.send_due();
            let nap = self.nap();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.doing.join_next_with_id(), if !self.doing.is_empty() => self.done(done),
                fed = self.fed.recv() => match fed {
                    Some(fed) => self.take_in(fed),
                    None => break,
                },
                () = self.refetch.notified() => self.fetch(),
                () = tokio::time::sleep(nap) => {}
            }
        }
        self.leave().await;
    }

    fn fetch(&mut self) {
        if self.fetching.is_some() {
            return;
        }
        self.fetching = Some(HashSet::new());
        let found = self.recorder.fetch();
        self.doing.spawn(async { Done::Fetched(found.await.ok()) });
    }

    /// Everything that is fed at this moment, so that what is critical among it goes first.
    fn take_in(&mut self, first: Fed) {
        let mut fed = Some(first);
        while let Some(Fed {
            notices,
            unrecorded,
        }) = fed
        {
            let now = self.clock.now();
            for notice in notices {
                let parcel = Parcel {
                    unrecorded,
                    ..Parcel::of(notice, now)
                };
                self.add(parcel, now);
            }
            fed = self.fed.try_recv().ok();
        }
    }

    fn add(&mut self, parcel: Parcel, now: Timestamp) {
        let name = parcel.first().receiver.clone();
        let Some(told) = self.told.get_mut(&name) else {
            let why =
                format!("no receiver is named {name}: it was taken out of the receivers file");
            let gone = Attempt {
                delivery_id: parcel.id,
                at: now,
                state: NoticeState::Dead,
                next_attempt_at: None,
                error: Some(why),
            };
            return self.record(&name, vec![gone]);
        };
        // Once something had to stay in the store, what comes after it stays there too: order within an incident.
        let added = if told.starved {
            Added::Full
        } else {
            told.lane.add(parcel, now)
        };
        match added {
            Added::Waiting => {}
            Added::Full => {
                told.starved = true;
                lock(&self.stats).n_refetched += 1;
            }
            Added::Settled(attempts) => {
                let dead = attempts
                    .iter()
                    .filter(|a| a.state == NoticeState::Dead)
                    .count() as u64;
                self.of(&name, |stats| stats.n_cancelled += dead);
                self.hand_over(attempts);
            }
        }
    }

    fn send_due(&mut self) {
        let now = self.clock.now();
        if self.fetching.is_some() && now < self.hold_until {
            return;
        }
        let mut fetch = false;
        for (name, told) in &mut self.told {
            for parcel in told.lane.next(now) {
                if parcel.is_digest() {
                    lock(&self.stats)
                        .receivers
                        .entry(name.clone())
                        .or_default()
                        .n_digests += 1;
                }
                let (poster, context) = (self.poster.clone(), self.context.clone());
                let receiver = told.receiver.clone();
                let about = (name.clone(), parcel.id.clone());
                let task = self.doing.spawn(async move {
                    let verdict = poster.send(&receiver, &parcel, &context, now).await;
                    Done::Answered {
                        receiver: receiver.name().to_owned(),
                        parcel: parcel.id,
                        verdict,
                    }
                });
                self.about.insert(task.id(), about);
            }
            if told.starved && told.lane.len() < ROOM_AGAIN && self.fetching.is_none() {
                told.starved = false;
                fetch = true;
            }
            let n_waiting = told.lane.len();
            lock(&self.stats)
                .receivers
                .entry(name.clone())
                .or_default()
                .n_waiting = n_waiting;
        }
        if fetch {
            self.fetch();
        }
    }

    /// How long there is nothing to do, unless something happens.
    fn nap(&self) -> Duration {
        let now = self.clock.now();
        let due = self
            .told
            .values()
            .filter_map(|told| told.lane.poll_timeout())
            .min();
        let due = match self.fetching {
            Some(_) if now < self.hold_until => Some(self.hold_until),
            _ => due,
        };
        due.map_or(LONGEST_SLEEP, |due| due.since(now).min(LONGEST_SLEEP))
    }

    fn done(&mut self, done: Result<(Id, Done), JoinError>) {
        match done {
            Ok((
                id,
                Done::Answered {
                    receiver,
                    parcel,
                    verdict,
                },
            )) => {
                self.about.remove(&id);
                self.settle(&receiver, &parcel, verdict);
            }
            Ok((_, Done::Fetched(found))) => self.fetched(found),
            Err(failed) => {
                error!(error = %failed, "a task of the outbox failed");
                let why = "a defect of ours: see the log".to_owned();
                if let Some((receiver, parcel)) = self.about.remove(&failed.id()) {
                    let verdict = Verdict::Retry {
                        after: None,
                        perhaps_taken: true,
                        why,
                    };
                    self.settle(&receiver, &parcel, verdict);
                }
            }
        }
    }

    fn settle(&mut self, receiver: &str, parcel: &str, verdict: Verdict) {
        let now = self.clock.now();
        if let Some(told) = self.told.get_mut(receiver) {
            let attempts = told.lane.settle(parcel, verdict, now, &mut self.jitter);
            self.record(receiver, attempts);
        }
    }

    fn fetched(&mut self, found: Option<Vec<NoticeStatus>>) {
        let settled = self.fetching.take().unwrap_or_default();
        let Some(found) = found else {
            return self.fetch();
        };
        let now = self.clock.now();
        let fresh = found
            .into_iter()
            .filter(|status| !settled.contains(&status.notice.delivery_id));
        for status in fresh {
            let parcel = Parcel {
                attempts: status.attempts,
                // It may have been on its way when the last process ended.
                perhaps_taken: true,
                ..Parcel::of(status.notice, status.next_attempt_at.unwrap_or(now))
            };
            self.add(parcel, now);
        }
    }

    /// Counts what became of notices, and has it written down.
    fn record(&mut self, receiver: &str, attempts: Vec<Attempt>) {
        for attempt in &attempts {
            let why = attempt.error.as_deref().unwrap_or_default();
            match attempt.state {
                NoticeState::Delivered => {}
                NoticeState::Pending => warn!(receiver, error = why, "a message was not taken"),
                NoticeState::Dead => error!(receiver, error = why, "a message was given up"),
            }
            self.of(receiver, |stats| stats.count(attempt));
        }
        self.hand_over(attempts);
    }

    fn hand_over(&mut self, attempts: Vec<Attempt>) {
        if let Some(settled) = &mut self.fetching {
            let done = attempts.iter().filter(|a| a.state != NoticeState::Pending);
            settled.extend(done.map(|a| a.delivery_id.clone()));
        }
        let n = attempts.len() as u64;
        if !self.recorder.record(attempts) {
            lock(&self.stats).n_attempts_lost += n;
        }
    }

    fn of(&self, receiver: &str, change: impl FnOnce(&mut ReceiverStats)) {
        change(
            lock(&self.stats)
                .receivers
                .entry(receiver.to_owned())
                .or_default(),
        );
    }

    /// Waits a moment for answers, then lets go: what has none is still pending in the store.
    async fn leave(mut self) {
        let deadline = tokio::time::sleep(LEAVE_WITHIN);
        tokio::pin!(deadline);
        while !self.about.is_empty() {
            tokio::select! {
                Some(done) = self.doing.join_next_with_id() => self.done(done),
                () = &mut deadline => break,
            }
        }
        self.doing.shutdown().await;
        self.recorder.leave().await;
    }
}

impl ReceiverStats {
    fn count(&mut self, attempt: &Attempt) {
        match attempt.state {
            NoticeState::Delivered => {
                self.n_delivered += 1;
                self.last_delivered_at = Some(attempt.at);
            }
            NoticeState::Pending => self.n_retries += 1,
            NoticeState::Dead => self.n_dead += 1,
        }
        if attempt.error.is_some() {
            self.last_error.clone_from(&attempt.error);
        }
    }
}

#[cfg(test)]
mod tests;
