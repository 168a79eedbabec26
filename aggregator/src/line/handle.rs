//! How everyone else speaks to the line: agents' connections tell it, the web side asks.

use entrenar::report::{Hello, Record, StreamId};
use entrenar::unit::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::keep::Progress;
use super::{ConnectionId, HelloRefused, Line};
use crate::incident::Decision;
use crate::incident::book::BookError;

/// Messages from agents that wait for the line; beyond it connections wait.
const AGENT_QUEUE: usize = 4096;

/// Questions of the web side that wait for the line; beyond it requests wait.
const ASK_QUEUE: usize = 256;

/// The line has ended: the process is shutting down.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the line has ended")]
pub struct LineGone;

/// What a connection said, and when it was received.
pub struct Heard {
    pub at: Timestamp,
    pub what: FromAgent,
}

/// What connections say.
pub enum FromAgent {
    Hello {
        connection: ConnectionId,
        hello: Box<Hello>,
        bytes: Vec<u8>,
        reply: oneshot::Sender<Result<watch::Receiver<Progress>, HelloRefused>>,
    },
    Record {
        stream: StreamId,
        sent_at: Timestamp,
        record: Box<Record>,
        n_unknown: u32,
        bytes: Vec<u8>,
    },
    Malformed {
        stream: StreamId,
        seq: Option<u64>,
    },
    Goodbye {
        stream: StreamId,
    },
    Disconnected {
        stream: StreamId,
        connection: ConnectionId,
    },
}

/// A decision that a person made, and where to say that it is recorded.
pub(super) struct Word {
    pub(super) decision: Decision,
    pub(super) recorded: oneshot::Sender<()>,
}

pub(super) type Question = Box<dyn FnOnce(&mut Line, Timestamp) -> Option<Word> + Send>;

/// How everyone else speaks to the line.
#[derive(Clone)]
pub struct LineHandle {
    agents: mpsc::Sender<Heard>,
    questions: mpsc::Sender<Question>,
}

impl LineHandle {
    /// Both ends.
    pub(super) fn new() -> (Self, Inbox) {
        let (agents, from_agents) = mpsc::channel(AGENT_QUEUE);
        let (questions, from_questions) = mpsc::channel(ASK_QUEUE);
        let inbox = Inbox {
            agents: from_agents,
            questions: from_questions,
        };
        (Self { agents, questions }, inbox)
    }

    /// Hands over what an agent said; waits while the line is busy.
    pub async fn tell(&self, at: Timestamp, what: FromAgent) -> Result<(), LineGone> {
        let heard = Heard { at, what };
        self.agents.send(heard).await.map_err(|_| LineGone)
    }

    /// Asks the line something.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Line) -> T + Send + 'static,
    ) -> Result<T, LineGone> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |line, _| {
            // The asker may have gone.
            let _ = reply.send(question(line));
            None
        });
        self.questions.send(question).await.map_err(|_| LineGone)?;
        answer.await.map_err(|_| LineGone)
    }

    /// Lets a person decide something; answers once it is recorded.
    pub async fn decide(
        &self,
        word: impl FnOnce(&mut Line, Timestamp) -> Result<Decision, BookError> + Send + 'static,
    ) -> Result<Result<(), BookError>, LineGone> {
        let (reply, answer) = oneshot::channel();
        let (recorded, done) = oneshot::channel();
        let question: Question = Box::new(move |line, now| match word(line, now) {
            Ok(decision) => {
                let _ = reply.send(Ok(()));
                Some(Word { decision, recorded })
            }
            Err(error) => {
                let _ = reply.send(Err(error));
                None
            }
        });
        self.questions.send(question).await.map_err(|_| LineGone)?;
        if let Err(error) = answer.await.map_err(|_| LineGone)? {
            return Ok(Err(error));
        }
        done.await.map_err(|_| LineGone).map(Ok)
    }
}

/// What was said and asked, at the line's end.
pub(super) struct Inbox {
    pub(super) agents: mpsc::Receiver<Heard>,
    pub(super) questions: mpsc::Receiver<Question>,
}
