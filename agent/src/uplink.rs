//! The stream to the aggregator: reconnects for ever, sends what [`session`] says, and tells the spool what is durable.
//!
//! It reads no GPU and decides nothing about data; a record that it cannot send stays in the spool.

pub mod backoff;
pub mod connect;
pub mod session;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use entrenar::backend::GpuBackend;
use entrenar::clock::Clock;
use entrenar::gpu::NodeId;
use entrenar::report::{Hello, Labels, StreamId};
use entrenar_proto::wire::{self, AgentMessage, AggregatorMessage, Goodbye, agent_message};
use entrenar_proto::{RangeSet, convert};
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Streaming};
use tracing::{debug, info, warn};

use self::backoff::Backoff;
use self::connect::{ConnectError, Target};
use self::session::{Session, Verdict};
use crate::spool::worker::{Live, SpoolGone, SpoolHandle};
use crate::spool::{Facts, Stored};
use crate::status::Status;

/// Messages between this task and the connection. When there are as many, HTTP/2 flow control holds us back, and
/// records stay in the spool.
const STREAM_QUEUE: usize = 16;

/// Records taken from the live queue and not yet on the stream.
const OUTBOX: usize = 16;

/// Bytes of history that are read from the spool at once.
const READ_BYTES: usize = 128 * 1024;

/// How long the aggregator may take for the first acknowledgement of a connection.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How long the last acknowledgement is waited for when the agent leaves.
pub const GOODBYE_PATIENCE: Duration = Duration::from_secs(3);

/// What the hello says of this agent.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who speaks.
    pub node: NodeId,
    /// What its owner says of it.
    pub labels: Labels,
    /// Sampling interval.
    pub interval: Duration,
    /// Ticks in a message.
    pub batch_ticks: u32,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the aggregator broke off")]
    Status(#[from] Box<tonic::Status>),
    #[error("the aggregator ended the stream")]
    Ended,
    #[error("the aggregator did not answer the hello within {} s", FIRST_ANSWER.as_secs())]
    NoAnswer,
    #[error("the aggregator refuses this stream ({reason:?}): {detail}")]
    Refused {
        reason: wire::refusal::Reason,
        detail: String,
        retry_after: Duration,
    },
    #[error(
        "the aggregator knows records of this stream that were never sent from here; going on under a new stream"
    )]
    NotOurs,
    #[error(transparent)]
    Spool(#[from] SpoolGone),
}

/// How a connection ended well: there was a goodbye.
struct Left;

/// The task that speaks with the aggregator.
pub struct Uplink {
    /// Where it is.
    pub target: Target,
    /// What the hello says.
    pub identity: Identity,
    /// Knows the version of the driver, once it is there.
    pub backend: Arc<dyn GpuBackend>,
    /// Where records come from.
    pub spool: SpoolHandle,
    /// New ones.
    pub live: Live,
    /// What the agent knows of itself.
    pub status: Arc<Status>,
    /// Stamps messages.
    pub clock: Arc<dyn Clock>,
}

impl Uplink {
    /// Speaks until `leave`; then says goodbye, if there is a connection, and waits a little for the answer. All
    /// records must be in the spool by then.
    pub async fn run(mut self, leave: CancellationToken) {
        let Ok(facts) = self.spool.facts().await else {
            return;
        };
        let mut session = Session::new(facts.opened_seq);
        let mut backoff = Backoff::new(seed(&facts.stream, &self.identity.node));
        let mut said = String::new();
        while !leave.is_cancelled() {
            let lost = match self.connection(&mut session, &mut backoff, &leave).await {
                Ok(Left) => return,
                Err(lost) => lost,
            };
            self.status.connected.store(false, Relaxed);
            self.status.in_flight_records.store(0, Relaxed);
            let why = chain(&lost);
            // The same trouble once: an aggregator that is away all night is one line.
            if why == said {
                debug!(%why, "still no connection to the aggregator");
            } else {
                warn!(%why, url = self.target.url(), "no connection to the aggregator; records wait in the spool");
                said = why;
            }
            let asked = match lost {
                Lost::Spool(_) => return,
                Lost::Refused { retry_after, .. } => retry_after,
                _ => Duration::ZERO,
            };
            tokio::select! {
                () = leave.cancelled() => return,
                () = tokio::time::sleep(backoff.next(asked)) => {}
            }
        }
    }

    /// One connection, from its hello to its end.
    async fn connection(
        &mut self,
        session: &mut Session,
        backoff: &mut Backoff,
        leave: &CancellationToken,
    ) -> Result<Left, Lost> {
        let mut stream = tokio::select! {
            () = leave.cancelled() => return Ok(Left),
            stream = self.open(session) => stream?,
        };
        if self.first_answer(session, &mut stream.inbound).await? == Verdict::NotOurs {
            let facts = self.spool.rebirth(born()).await?;
            *session = Session::new(facts.next_seq);
            return Err(Lost::NotOurs);
        }
        backoff.reset();
        self.status.connected.store(true, Relaxed);
        self.status.connections.fetch_add(1, Relaxed);
        info!(url = self.target.url(), "connected to the aggregator");
        self.talk(session, stream, leave).await
    }

    async fn open(&mut self, session: &mut Session) -> Result<Stream, Lost> {
        let mut client = self.target.connect().await?;
        let (outbound, messages) = mpsc::channel(STREAM_QUEUE);
        // What waited for a connection lies in the spool, and the session will ask for it.
        while self.live.records.try_recv().is_ok() {}
        let facts = self.spool.facts().await?;
        session.connected(facts.first_seq, facts.next_seq);
        let hello = convert::hello_to_wire(&self.hello(facts));
        // The queue is new and has room.
        let _ = outbound.try_send(self.message(agent_message::What::Hello(hello)));
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(authorization) = self.target.authorization()? {
            request
                .metadata_mut()
                .insert("authorization", authorization);
        }
        let answered = tokio::time::timeout(FIRST_ANSWER, client.report(request)).await;
        let inbound = answered.map_err(|_| Lost::NoAnswer)?.map_err(Box::new)?;
        Ok(Stream {
            outbound,
            inbound: inbound.into_inner(),
        })
    }

    async fn first_answer(
        &mut self,
        session: &mut Session,
        inbound: &mut Streaming<AggregatorMessage>,
    ) -> Result<Verdict, Lost> {
        let first = tokio::time::timeout(FIRST_ANSWER, inbound.message()).await;
        let message = first.map_err(|_| Lost::NoAnswer)?.map_err(Box::new)?;
        self.heard(session, message)
    }

    /// Sends and hears until the connection breaks, or until the goodbye is answered.
    async fn talk(
        &mut self,
        session: &mut Session,
        mut stream: Stream,
        leave: &CancellationToken,
    ) -> Result<Left, Lost> {
        let mut outbox: VecDeque<Stored> = VecDeque::new();
        let mut history: VecDeque<Stored> = VecDeque::new();
        let mut reading: OptionFuture<BoxFuture<'static, ReadBack>> = None.into();
        let mut is_reading = false;
        loop {
            if !is_reading
                && history.is_empty()
                && let Some((first, last)) = session.next_history()
            {
                let spool = self.spool.clone();
                reading = Some(Box::pin(async move {
                    let found = spool.read(first, last, READ_BYTES).await;
                    ReadBack { first, last, found }
                }) as BoxFuture<'static, ReadBack>)
                .into();
                is_reading = true;
            }
            let has_some = !outbox.is_empty() || !history.is_empty();
            tokio::select! {
                biased;
                message = stream.inbound.message() => {
                    let verdict = self.heard(session, message.map_err(Box::new)?)?;
                    if verdict == Verdict::NotOurs {
                        return Err(Lost::NotOurs);
                    }
                }
                Some(stored) = self.live.records.recv(), if outbox.len() < OUTBOX => {
                    session.grown_to(stored.seq + 1);
                    outbox.push_back(stored);
                }
                // Live records are all out when the sampler has stopped and the queue is empty.
                () = leave.cancelled(), if outbox.is_empty() => break,
                Ok(permit) = stream.outbound.reserve(), if has_some => {
                    let live = outbox.pop_front().filter(|stored| session.wants_live(stored.seq));
                    let old = || history.pop_front().filter(|stored| session.wants_live(stored.seq));
                    if let Some(stored) = live.or_else(old) {
                        session.sent(stored.seq);
                        self.status.sent_records.fetch_add(1, Relaxed);
                        self.status.in_flight_records.store(session.n_in_flight() as u64, Relaxed);
                        permit.send(self.message(agent_message::What::Record(stored.bytes)));
                    }
                }
                Ok(()) = self.live.next_seq.changed() => {
                    session.grown_to(*self.live.next_seq.borrow_and_update());
                }
                Some(back) = &mut reading, if is_reading => {
                    is_reading = false;
                    history = back.into_history(session)?;
                }
            }
        }
        self.goodbye(session, stream).await
    }

    /// Says that nothing follows, and waits until the aggregator has made all it got durable.
    async fn goodbye(&mut self, session: &mut Session, mut stream: Stream) -> Result<Left, Lost> {
        let goodbye = Goodbye {
            reason: "shutdown".to_owned(),
        };
        let message = self.message(agent_message::What::Goodbye(goodbye));
        let wait = async {
            if stream.outbound.send(message).await.is_err() {
                return;
            }
            // The stream is half closed: the aggregator sees its end behind the goodbye.
            drop(stream.outbound);
            while let Ok(Some(message)) = stream.inbound.message().await {
                if self.heard(session, Some(message)).is_err() || session.is_settled() {
                    return;
                }
            }
        };
        if tokio::time::timeout(GOODBYE_PATIENCE, wait).await.is_err() {
            info!(
                "the aggregator did not answer the goodbye in time; what it lacks stays in the spool"
            );
        }
        Ok(Left)
    }

    /// Takes in a message of the aggregator; `None` is the end of its stream.
    fn heard(
        &self,
        session: &mut Session,
        message: Option<AggregatorMessage>,
    ) -> Result<Verdict, Lost> {
        use wire::aggregator_message::What;
        match message.ok_or(Lost::Ended)?.what {
            Some(What::Ack(ack)) => {
                let received = RangeSet::from_wire(&ack.received);
                let durable = RangeSet::from_wire(&ack.durable);
                let verdict = session.acknowledged(&received, &durable);
                if verdict == Verdict::Fine {
                    self.spool.set_durable(session.durable().clone());
                    self.status
                        .in_flight_records
                        .store(session.n_in_flight() as u64, Relaxed);
                    let durable_seq = session.durable().last().unwrap_or(0);
                    self.status.durable_seq.store(durable_seq, Relaxed);
                }
                Ok(verdict)
            }
            Some(What::Refusal(refusal)) => Err(Lost::Refused {
                reason: refusal.reason(),
                retry_after: Duration::from_millis(u64::from(refusal.retry_after_ms)),
                detail: refusal.detail,
            }),
            // A later aggregator's word that this agent does not know.
            None => Ok(Verdict::Fine),
        }
    }

    fn hello(&self, facts: Facts) -> Hello {
        Hello {
            stream: facts.stream,
            node: self.identity.node.clone(),
            labels: self.identity.labels.clone(),
            inventories: facts.inventories,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            driver_version: self.backend.driver_version(),
            interval_ms: self.identity.interval.as_millis() as u32,
            batch_ticks: self.identity.batch_ticks,
            first_seq: facts.first_seq,
            next_seq: facts.next_seq,
        }
    }

    fn message(&self, what: agent_message::What) -> AgentMessage {
        AgentMessage {
            sent_at_ms: self.clock.now().as_millis(),
            what: Some(what),
        }
    }
}

/// Both directions of a connection.
struct Stream {
    outbound: mpsc::Sender<AgentMessage>,
    inbound: Streaming<AggregatorMessage>,
}

/// What came back from the spool for a range of numbers.
struct ReadBack {
    first: u64,
    last: u64,
    found: Result<Vec<Stored>, SpoolGone>,
}

impl ReadBack {
    /// The records, once what is not among them is given up.
    fn into_history(self, session: &mut Session) -> Result<VecDeque<Stored>, SpoolGone> {
        let found = self.found?;
        let mut next = self.first;
        for stored in &found {
            if next < stored.seq {
                session.missing(next, stored.seq - 1);
            }
            next = stored.seq + 1;
        }
        if found.is_empty() {
            session.missing(self.first, self.last);
        }
        Ok(found.into())
    }
}

/// 128 bits of chance for a new stream.
pub fn born() -> StreamId {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("invariant: the system has randomness");
    StreamId(id)
}

/// Different for each stream and node.
fn seed(stream: &StreamId, node: &NodeId) -> u64 {
    let node = node.as_str().bytes();
    stream
        .0
        .iter()
        .copied()
        .chain(node)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
