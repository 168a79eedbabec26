//! One agent's connection, from its hello to its goodbye.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use entrenar::clock::Clock;
use entrenar::report::StreamId;
use entrenar::unit::Timestamp;
use entrenar_proto::convert::{self, record_seq};
use entrenar_proto::wire::agent_message::What;
use entrenar_proto::wire::{self, AgentMessage, AggregatorMessage, SeqRange};
use entrenar_proto::{MAX_MESSAGE_BYTES, decode_record, encode_hello};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use super::Ingest;
use super::pace::Pace;
use crate::access::AgentGrant;
use crate::line::ConnectionId;
use crate::line::handle::{FromAgent, LineHandle};
use crate::line::keep::Progress;
use crate::status::Vitals;

/// Records in one connection that may not be readable before it is ended: its agent is broken, or is none.
const MAX_MALFORMED: u32 = 10;

pub(super) struct Session {
    line: LineHandle,
    clock: Arc<dyn Clock>,
    vitals: Arc<Vitals>,
    pace: Arc<Pace>,
    stop: CancellationToken,
    connection: ConnectionId,
    grant: AgentGrant,
    inbound: Streaming<AgentMessage>,
    answers: mpsc::Sender<Result<AggregatorMessage, Status>>,
    n_malformed: u32,
    /// Records taken since the last acknowledgement.
    n_unsaid: u32,
}

/// What became durable is said at once after this many records, so that catching up is not held back …
const ACK_AFTER_RECORDS: u32 = 16;

/// … and else this often: an agent at one message a second need not be woken for each.
const ACK_EVERY: Duration = Duration::from_secs(3);

/// Why a session ends.
enum End {
    /// The agent left, or the connection broke.
    Gone,
    /// We are leaving.
    Stopping,
    /// The agent is told why.
    Refused(Status),
}

impl Session {
    pub(super) fn new(
        ingest: &Ingest,
        grant: AgentGrant,
        inbound: Streaming<AgentMessage>,
        answers: mpsc::Sender<Result<AggregatorMessage, Status>>,
    ) -> Self {
        Self {
            line: ingest.line.clone(),
            clock: Arc::clone(&ingest.clock),
            vitals: Arc::clone(&ingest.vitals),
            pace: Arc::clone(&ingest.pace),
            stop: ingest.stop.clone(),
            connection: ConnectionId(ingest.connections.fetch_add(1, Relaxed)),
            grant,
            inbound,
            answers,
            n_malformed: 0,
            n_unsaid: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let (stream, progress) = match self.introduce().await {
            Ok(known) => known,
            Err(end) => return self.end(end).await,
        };
        self.vitals.agents_connected.fetch_add(1, Relaxed);
        let end = self.converse(stream, progress).await;
        self.vitals.agents_connected.fetch_sub(1, Relaxed);
        // The line may have ended first.
        let _ = self
            .line
            .tell(
                self.clock.now(),
                FromAgent::Disconnected {
                    stream,
                    connection: self.connection,
                },
            )
            .await;
        self.end(end).await;
    }

    async fn end(&self, end: End) {
        let status = match end {
            End::Gone => return,
            End::Stopping => {
                Status::unavailable("the aggregator is shutting down: reconnect in a moment")
            }
            End::Refused(status) => status,
        };
        // The agent may have gone.
        let _ = self.answers.send(Err(status)).await;
    }

    /// The first message must be a hello, of a node that this credential may speak for.
    async fn introduce(&mut self) -> Result<(StreamId, watch::Receiver<Progress>), End> {
        let Some(What::Hello(hello)) = self.next().await?.and_then(|m| m.what) else {
            return Err(End::Refused(Status::invalid_argument(
                "the first message must be a hello",
            )));
        };
        let hello = convert::hello_from_wire(hello)
            .map_err(|e| End::Refused(Status::invalid_argument(format!("hello: {e}"))))?;
        if let AgentGrant::Only(node) = &self.grant
            && *node != hello.node
        {
            warn!(node = %hello.node, allowed = %node, "an agent may not speak for this node");
            return Err(End::Refused(Status::permission_denied(format!(
                "this credential speaks for the node {node:?} only, not for {:?}",
                hello.node
            ))));
        }
        let (stream, node) = (hello.stream, hello.node.clone());
        let (reply, answer) = oneshot::channel();
        let bytes = encode_hello(&hello);
        let message = FromAgent::Hello {
            connection: self.connection,
            hello: Box::new(hello),
            bytes,
            reply,
        };
        self.tell(message).await?;
        match answer.await {
            Ok(Ok(progress)) => {
                info!(%node, "agent connected");
                Ok((stream, progress))
            }
            Ok(Err(refused)) => {
                warn!(%node, %refused, "agent turned away");
                Err(End::Refused(Status::already_exists(refused.to_string())))
            }
            Err(_) => Err(End::Stopping),
        }
    }

    async fn next(&mut self) -> Result<Option<AgentMessage>, End> {
        tokio::select! {
            () = self.stop.cancelled() => Err(End::Stopping),
            message = self.inbound.message() => message.map_err(|status| broken(&status)),
        }
    }

    async fn converse(&mut self, stream: StreamId, mut progress: watch::Receiver<Progress>) -> End {
        let stop = self.stop.clone();
        let mut stopped = pin!(stop.cancelled());
        // A timer that is only moved on when it was due: most messages cost it nothing.
        let mut due = pin!(sleep_until(Instant::now()));
        let mut leaving = false;
        // The first word says what was durable before.
        let mut unsaid = true;
        loop {
            let at_once = leaving || self.n_unsaid >= ACK_AFTER_RECORDS;
            tokio::select! {
                biased;
                () = &mut stopped => return End::Stopping,
                changed = progress.changed(), if at_once => {
                    if changed.is_err() {
                        return End::Gone;
                    }
                    unsaid = true;
                }
                () = due.as_mut() => {
                    due.as_mut().reset(Instant::now() + ACK_EVERY);
                    match progress.has_changed() {
                        Ok(changed) => unsaid |= changed,
                        Err(_) => return End::Gone,
                    }
                }
                message = self.inbound.message(), if !leaving => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => return End::Gone,
                        Err(status) => return self.unreadable(stream, &status).await,
                    };
                    match self.take(stream, message).await {
                        Ok(goodbye) => leaving = goodbye,
                        Err(end) => return end,
                    }
                    continue;
                }
            }
            if !unsaid {
                continue;
            }
            let now = progress.borrow_and_update().clone();
            match self.say(&now, leaving).await {
                Ok(()) if leaving && now.received == now.durable => return End::Gone,
                Ok(()) => unsaid = false,
                Err(TrySendError::Full(())) => {}
                Err(TrySendError::Closed(())) => return End::Gone,
            }
        }
    }

    /// Tells the agent what became of its records. One that does not read what it was told hears the newest once there
    /// is room again; nobody waits for that, except for the last word.
    async fn say(&mut self, progress: &Progress, is_last: bool) -> Result<(), TrySendError<()>> {
        let place = if is_last {
            let place = self.answers.reserve().await;
            place.map_err(|_| TrySendError::Closed(()))?
        } else {
            self.answers.try_reserve()?
        };
        place.send(Ok(acknowledgement(progress)));
        self.n_unsaid = 0;
        Ok(())
    }

    /// True for a goodbye.
    async fn take(&mut self, stream: StreamId, message: AgentMessage) -> Result<bool, End> {
        self.pace.heard();
        let sent_at = Timestamp(message.sent_at_ms);
        match message.what {
            Some(What::Record(bytes)) => self.record(stream, sent_at, bytes.to_vec()).await?,
            Some(What::Goodbye(_)) => {
                self.tell(FromAgent::Goodbye { stream }).await?;
                return Ok(true);
            }
            Some(What::Hello(_)) => {
                return Err(End::Refused(Status::invalid_argument(
                    "a second hello on one connection",
                )));
            }
            // Something that a newer agent says: skipping it is safe.
            None => {
                self.tell(FromAgent::Malformed { stream, seq: None })
                    .await?;
            }
        }
        Ok(false)
    }

    /// A message that breaks the stream may have been a record: it counts as one that could not be read.
    async fn unreadable(&self, stream: StreamId, status: &Status) -> End {
        let end = broken(status);
        if let End::Refused(_) = end {
            // The line may have ended first.
            let _ = self.tell(FromAgent::Malformed { stream, seq: None }).await;
        }
        end
    }

    async fn record(
        &mut self,
        stream: StreamId,
        sent_at: Timestamp,
        bytes: Vec<u8>,
    ) -> Result<(), End> {
        match decode_record(&bytes) {
            Ok(decoded) => {
                self.n_unsaid += 1;
                let n_unknown = decoded.n_unknown_metrics;
                let record = Box::new(decoded.record);
                self.tell(FromAgent::Record {
                    stream,
                    sent_at,
                    record,
                    n_unknown,
                    bytes,
                })
                .await
            }
            Err(error) => {
                debug!(%error, "a record could not be read");
                self.tell(FromAgent::Malformed {
                    stream,
                    seq: record_seq(&bytes),
                })
                .await?;
                self.n_malformed += 1;
                if self.n_malformed < MAX_MALFORMED {
                    return Ok(());
                }
                Err(End::Refused(Status::invalid_argument(format!(
                    "{MAX_MALFORMED} records could not be read; the last one: {error}"
                ))))
            }
        }
    }

    async fn tell(&self, message: FromAgent) -> Result<(), End> {
        let now = self.clock.now();
        self.line
            .tell(now, message)
            .await
            .map_err(|_| End::Stopping)
    }
}

/// What became of a stream from which no message could be read. Where bytes came, the agent hears what is wrong with
/// them; else nobody is there to hear it.
fn broken(status: &Status) -> End {
    let refusal = match status.code() {
        Code::OutOfRange => Status::out_of_range(format!(
            "a message has more than {MAX_MESSAGE_BYTES} bytes: send less at once"
        )),
        Code::Internal | Code::Unimplemented => Status::invalid_argument(format!(
            "a message could not be read: send what fleet/v1/telemetry.proto declares, uncompressed ({})",
            status.message()
        )),
        _ => {
            debug!(%status, "agent's stream broke");
            return End::Gone;
        }
    };
    warn!(%refusal, "agent turned away");
    End::Refused(refusal)
}

fn acknowledgement(progress: &Progress) -> AggregatorMessage {
    let ranges = |r: &[(u64, u64)]| {
        r.iter()
            .map(|&(first, last)| SeqRange { first, last })
            .collect()
    };
    AggregatorMessage {
        what: Some(wire::aggregator_message::What::Ack(wire::Ack {
            received: ranges(&progress.received),
            durable: ranges(&progress.durable),
        })),
    }
}
