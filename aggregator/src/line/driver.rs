//! The task that owns the line: where messages, time and commits meet.
//!
//! One group commit is on its way at a time; what arrives meanwhile is the next one. Nothing is acknowledged before
//! its commit survived. When the store stands still, records are no longer read once [`MAX_PENDING_BYTES`] wait, and
//! flow control reaches the agents; rules and people go on. Others see an incident once it is recorded.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use entrenar::clock::Clock;
use entrenar::report::StreamId;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Line;
use super::handle::{FromAgent, Heard, Inbox, LineHandle, Question, Word};
use super::keep::{InFlight, Progress};
use crate::andon::Effort;
use crate::incident::{Decision, Incident, light};
use crate::notify::decider::DeciderHandle;
use crate::status::Vitals;
use crate::store::{Durable, Flush, Store, StoreError, StoreResult};
use crate::web::{IncidentView, Live, LiveEvent, Topic};

/// How often the engine's clock is moved.
const TICK_EVERY: Duration = Duration::from_millis(100);

/// How often a commit is begun. Each rewrites a few pages whatever is in it, and nobody waits for one: rules have seen what
/// waits, decisions go to the store by themselves, and agents keep what is not acknowledged.
pub const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// Bytes of records that may wait for a commit. Beyond it streams are not read.
pub const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that begin a commit at once.
const EAGER_BYTES: usize = 512 * 1024;

/// Messages taken in before the clock is looked at again.
const TURN: usize = 256;

/// What arrives within this time of a turn waits for the next: at thousands of messages a second, waking for each would
/// cost more than taking it in. A message that comes alone is taken at once.
const TURN_EVERY: Duration = Duration::from_millis(5);

/// Wait before a failed commit is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How long a shutdown waits for the last commit.
const LAST_COMMIT: Duration = Duration::from_secs(3);

/// A decision on its way into the store.
struct Deciding {
    incidents: Vec<Incident>,
    recorded: Option<oneshot::Sender<()>>,
    result: StoreResult<()>,
}

type Commit = Pin<Box<dyn Future<Output = (Flush, InFlight, Result<Durable, StoreError>)> + Send>>;

/// The line with its edges.
pub struct Driver {
    line: Line,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    decider: DeciderHandle,
    deciding: FuturesUnordered<BoxFuture<'static, Deciding>>,
    live: Arc<Live>,
    vitals: Arc<Vitals>,
    agents: mpsc::Receiver<Heard>,
    questions: mpsc::Receiver<Question>,
    acks: HashMap<StreamId, watch::Sender<Progress>>,
    commit: Option<Commit>,
    /// Before, one begins only where much waits.
    next_commit: Instant,
    lamps: HashMap<(entrenar::gpu::NodeId, Option<u32>), crate::andon::Light>,
}

impl Driver {
    pub fn new(
        line: Line,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        decider: DeciderHandle,
        live: Arc<Live>,
        vitals: Arc<Vitals>,
    ) -> (Self, LineHandle) {
        let (handle, Inbox { agents, questions }) = LineHandle::new();
        let driver = Self {
            line,
            store,
            clock,
            decider,
            deciding: FuturesUnordered::new(),
            live,
            vitals,
            agents,
            questions,
            acks: HashMap::new(),
            commit: None,
            next_commit: Instant::now(),
            lamps: HashMap::new(),
        };
        (driver, handle)
    }

    /// Runs until `stop`; then commits what is there.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = Vec::with_capacity(TURN);
        let mut next_turn = Instant::now();
        self.forward().await;
        loop {
            let reads = self.line.has_room();
            let agents = &mut self.agents;
            let turn_comes = async {
                sleep_until(next_turn).await;
                agents.recv_many(&mut turn, TURN).await
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                done = wait_for(&mut self.commit) => self.settle_commit(done),
                Some(decided) = self.deciding.next(), if !self.deciding.is_empty() => self.show(decided),
                _ = tick.tick() => self.tick(reads),
                Some(question) = self.questions.recv() => {
                    if let Some(Word { decision, recorded }) = question(&mut self.line, self.clock.now()) {
                        self.decide(decision, Some(recorded)).await;
                    }
                }
                n = turn_comes, if reads => {
                    if n == 0 {
                        break;
                    }
                    if n < TURN {
                        next_turn = Instant::now() + TURN_EVERY;
                    }
                    for message in turn.drain(..) {
                        self.take(message);
                    }
                    if self.line.pending_bytes() >= EAGER_BYTES {
                        self.begin_commit();
                    }
                }
            }
            self.forward().await;
        }
        self.finish().await;
    }

    fn take(&mut self, Heard { at: now, what }: Heard) {
        self.line.took(now);
        match what {
            FromAgent::Hello {
                connection,
                hello,
                bytes,
                reply,
            } => {
                let stream = hello.stream;
                let answer = self.line.hello(now, connection, *hello, bytes).map(|()| {
                    let progress = self.line.progress(stream).unwrap_or_default();
                    let (tx, rx) = watch::channel(progress);
                    self.acks.insert(stream, tx);
                    rx
                });
                let _ = reply.send(answer);
            }
            FromAgent::Record {
                stream,
                sent_at,
                record,
                n_unknown,
                bytes,
            } => {
                self.line
                    .record(now, sent_at, stream, *record, n_unknown, bytes);
            }
            FromAgent::Malformed { stream, seq } => self.line.malformed(now, stream, seq),
            FromAgent::Goodbye { stream } => {
                self.line.goodbye(now, stream);
                self.begin_commit();
            }
            FromAgent::Disconnected { stream, connection } => {
                if self.line.disconnected(stream, connection) {
                    self.acks.remove(&stream);
                }
            }
        }
    }

    fn tick(&mut self, reads: bool) {
        let effort = self.line.lag().effort();
        // What came in since the last look counts as waiting only where it is more than a turn.
        for _ in 0..if reads { TURN } else { 0 } {
            match self.agents.try_recv() {
                Ok(heard) => self.take(heard),
                Err(_) => break,
            }
        }
        let others_wait = !self.agents.is_empty();
        self.line.advance(self.clock.now(), others_wait);
        self.say_effort(effort);
        if Instant::now() >= self.next_commit {
            self.begin_commit();
        }
        self.show_lamps();
    }

    /// Says once that rules are left out, or looked at again.
    fn say_effort(&self, before: Effort) {
        let lag = self.line.lag();
        let (effort, behind) = (lag.effort(), lag.behind().as_secs_f64());
        match effort {
            _ if effort == before => {}
            Effort::All => info!("the rules keep up again: all of them are looked at"),
            Effort::NoTrends => warn!(
                behind,
                "the rules are behind by seconds: those over minutes and hours are left out; give the aggregator more CPU or \
                 a faster disk"
            ),
            Effort::CallsOnly => warn!(
                behind,
                "the rules are far behind by seconds: only those that may call somebody are looked at; give the aggregator \
                 more CPU or a faster disk"
            ),
        }
    }

    fn begin_commit(&mut self) {
        if self.commit.is_some() {
            return;
        }
        self.next_commit = Instant::now() + COMMIT_EVERY;
        let idle = self.deciding.is_empty();
        let Some((flush, in_flight)) = self.line.take_flush(self.clock.now(), idle) else {
            return;
        };
        self.commit = Some(self.start_commit(flush, in_flight, Duration::ZERO));
    }

    fn start_commit(&self, flush: Flush, in_flight: InFlight, wait: Duration) -> Commit {
        let store = Arc::clone(&self.store);
        Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let result = store.commit(flush.clone()).await;
            (flush, in_flight, result)
        })
    }

    fn settle_commit(
        &mut self,
        (flush, in_flight, result): (Flush, InFlight, Result<Durable, StoreError>),
    ) {
        self.commit = None;
        match result {
            Ok(durable) => {
                self.vitals.set_trouble(None);
                self.vitals.count_commit(&flush);
                for stream in self.line.committed(in_flight, durable) {
                    if let (Some(ack), Some(progress)) =
                        (self.acks.get(&stream), self.line.progress(stream))
                    {
                        ack.send_replace(progress);
                    }
                }
            }
            Err(error) => {
                self.vitals.commit_failures.fetch_add(1, Relaxed);
                if self.vitals.not_ready().is_none() {
                    error!(%error, "could not commit; agents keep their data until it works again");
                }
                self.vitals.set_trouble(Some(error.to_string()));
                self.commit = Some(self.start_commit(flush, in_flight, RETRY_AFTER));
            }
        }
    }

    /// Sends on what the line wants to happen.
    async fn forward(&mut self) {
        let effects = self.line.take_effects();
        let together = effects.decisions.into_iter().reduce(Decision::and);
        if let Some(decision) = together.filter(|d| !d.is_empty()) {
            self.decide(decision, None).await;
        }
        if !self.live.has_clients() {
            return;
        }
        let mut sampled = effects.sampled;
        sampled.sort();
        sampled.dedup();
        for node in sampled.into_iter().filter(|n| self.live.is_watched(n)) {
            let gpus = self.line.gpus_of(&node);
            let at = gpus.iter().filter_map(|g| g.sampled_at).max();
            let rows: Vec<_> = gpus.iter().map(crate::web::GpuSample::of).collect();
            let data = serde_json::json!({ "node": node, "at": at.map(entrenar::unit::Timestamp::rfc3339), "gpus": rows }).to_string();
            self.live.send(LiveEvent {
                topic: Topic::Sample,
                node: Some(node),
                data,
            });
        }
    }

    /// Hands a decision to the store; waits only while too many wait.
    async fn decide(&mut self, decision: Decision, recorded: Option<oneshot::Sender<()>>) {
        let incidents = decision.incidents.clone();
        let answer = self.decider.put(decision).await;
        self.deciding.push(Box::pin(async move {
            // The decider ends only with the process; the replay decides again.
            let gone = |_| Err(StoreError::Unavailable("the process is ending".into()));
            let result = answer.await.unwrap_or_else(gone);
            Deciding {
                incidents,
                recorded,
                result,
            }
        }));
    }

    /// A decision is recorded: now others may see it.
    fn show(&self, decided: Deciding) {
        if decided.result.is_err() {
            return;
        }
        for incident in decided.incidents.iter().filter(|i| !i.flags.shadow) {
            let view = IncidentView::of(incident, light::of_incident(incident));
            if let Ok(data) = serde_json::to_string(&view) {
                self.live.send(LiveEvent {
                    topic: Topic::Incident,
                    node: None,
                    data,
                });
            }
        }
        if let Some(recorded) = decided.recorded {
            // Whoever asked may have gone.
            let _ = recorded.send(());
        }
    }

    /// Sends lamps that changed.
    fn show_lamps(&mut self) {
        if !self.live.has_clients() {
            // A client fetches all lamps when it comes.
            self.lamps.clear();
            return;
        }
        let mut changed = Vec::new();
        for (node, gpu, light) in self.line.lamps() {
            let (device, uuid) = gpu.map_or((None, None), |(d, u)| (Some(d), Some(u)));
            if self.lamps.insert((node.clone(), device), light) != Some(light) {
                changed.push(serde_json::json!({ "node": node, "device": device, "uuid": uuid, "light": light }));
            }
        }
        if !changed.is_empty() {
            let data = serde_json::json!({ "lights": changed }).to_string();
            self.live.send(LiveEvent {
                topic: Topic::Light,
                node: None,
                data,
            });
        }
    }

    /// The last commit: what was taken is kept, if the store lets us.
    async fn finish(mut self) {
        let last = async {
            while let Some(commit) = self.commit.take() {
                let done = commit.await;
                if done.2.is_err() {
                    return;
                }
                self.settle_commit(done);
            }
            self.forward().await;
            while let Some(decided) = self.deciding.next().await {
                self.show(decided);
            }
            if let Some((flush, in_flight)) = self.line.take_last_flush(self.clock.now()) {
                let result = self.store.commit(flush.clone()).await;
                self.settle_commit((flush, in_flight, result));
            }
            // Its snapshot covers more than the one before, but that it is kept is known only now.
            if let Some(row) = self.line.take_forgettable() {
                let forgets = Flush {
                    forget_journal: Some(row),
                    ..Flush::default()
                };
                // Where it fails the next start reads some rows more.
                let _ = self.store.commit(forgets).await;
            }
        };
        if tokio::time::timeout(LAST_COMMIT, last).await.is_err() {
            warn!("left before the last commit was done; agents will send that data again");
        }
    }
}

async fn wait_for(commit: &mut Option<Commit>) -> (Flush, InFlight, Result<Durable, StoreError>) {
    match commit {
        Some(commit) => commit.await,
        None => std::future::pending().await,
    }
}
