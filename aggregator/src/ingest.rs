//! The gRPC service for agents: reads messages, hands them to the line, sends back what is received and durable.
//!
//! A task per connection decodes, so that the line only takes in. It decides nothing.

mod pace;
mod serve;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use entrenar::clock::Clock;
use entrenar_proto::wire::telemetry_server::Telemetry;
use entrenar_proto::wire::{AgentMessage, AggregatorMessage};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::access::{Access, AgentGrant};
use crate::line::handle::LineHandle;
use crate::status::Vitals;

use pace::Pace;
pub(crate) use serve::serve;
use session::Session;

/// Acknowledgements that wait for a slow agent; the newest says all, so two are enough.
const ACK_QUEUE: usize = 2;

/// What every connection works with.
pub struct Ingest {
    line: LineHandle,
    access: Arc<Access>,
    clock: Arc<dyn Clock>,
    vitals: Arc<Vitals>,
    stop: CancellationToken,
    pace: Arc<Pace>,
    /// Numbers connections.
    connections: AtomicU64,
}

type Answers = Pin<Box<dyn Stream<Item = Result<AggregatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Telemetry for Ingest {
    type ReportStream = Answers;

    async fn report(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let grant = self.grant(&request)?;
        let (answers, rx) = mpsc::channel(ACK_QUEUE);
        let session = Session::new(self, grant, request.into_inner(), answers);
        tokio::spawn(session.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

impl Ingest {
    /// No connection yet.
    pub fn new(
        line: LineHandle,
        access: Arc<Access>,
        clock: Arc<dyn Clock>,
        vitals: Arc<Vitals>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            line,
            access,
            clock,
            vitals,
            stop,
            pace: Arc::default(),
            connections: AtomicU64::new(0),
        }
    }

    /// What the caller may call itself. A client certificate was checked by TLS; it then needs no token.
    fn grant(&self, request: &Request<Streaming<AgentMessage>>) -> Result<AgentGrant, Status> {
        if request.peer_certs().is_some_and(|certs| !certs.is_empty()) {
            return Ok(AgentGrant::AnyNode);
        }
        let authorization = request
            .metadata()
            .get("authorization")
            .and_then(|v| v.to_str().ok());
        self.access
            .agent(authorization)
            .map_err(|denied| Status::unauthenticated(denied.to_string()))
    }
}
