//! The gRPC server for agents, on a thread of its own.
//!
//! Thousands of connections say a little each. One thread reads some 20,000 messages a second, in turns where many come
//! (`pace.rs`), and so does the line take them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use entrenar_proto::MAX_MESSAGE_BYTES;
use entrenar_proto::wire::telemetry_server::TelemetryServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;
use tracing::warn;

use super::{Ingest, pace};
use crate::alone;
use crate::config::Config;
use crate::run::StartError;
use crate::tls;

/// An idle connection is asked for a sign of life this often, and given this long.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// A connection lives at most this long, so that load moves and revoked certificates end.
const CONNECTION_AGE: Duration = Duration::from_hours(1);

/// Streams of one connection.
const STREAMS_PER_CONNECTION: u32 = 4;

/// Bytes that may be on their way in one stream, and in one connection.
const WINDOWS: (u32, u32) = (256 * 1024, 512 * 1024);

/// Serves agents until `stop`. The task ends when the last connection has.
pub(crate) fn serve(
    config: &Config,
    ingest: Ingest,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let pace = Arc::clone(&ingest.pace);
    let (router, health) = router(config, ingest)?;
    let failed = |error: anyhow::Error| StartError::Failed(error.context("the gRPC server"));
    let listener = listener.into_std().map_err(|e| failed(e.into()))?;
    let work = async move {
        tokio::spawn(pace::keep(pace));
        health.set_serving::<TelemetryServer<Ingest>>().await;
        let incoming = TcpListenerStream::new(TcpListener::from_std(listener)?);
        let served = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
        served.await.map_err(anyhow::Error::from)
    };
    let work = async {
        if let Err(error) = work.await {
            warn!(%error, "the gRPC server ended");
        }
    };
    alone::spawn("ingest", work).map_err(failed)
}

fn router(config: &Config, ingest: Ingest) -> Result<(Router, HealthReporter), StartError> {
    let mut server = Server::builder();
    if let Some(tls) =
        tls::for_grpc(config, ingest.access.asks_agents()).map_err(StartError::Configuration)?
    {
        server = server
            .tls_config(tls)
            .context("--tls-cert, --tls-key")
            .map_err(StartError::Configuration)?;
    }
    let service = TelemetryServer::new(ingest).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(entrenar_proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| StartError::Failed(anyhow!(e)))?;
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let router = server
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_connection_age(CONNECTION_AGE)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .tcp_nodelay(true)
        .add_service(health)
        .add_service(reflection)
        .add_service(service);
    Ok((router, health_reporter))
}
