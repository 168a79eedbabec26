//! The agent's binary: flags, logs, signals, and [`entrenar_agent::run`].

#![forbid(unsafe_code)]

use std::process::ExitCode;

use entrenar_agent::config::Config;
use entrenar_agent::uplink::connect::Target;
use entrenar_agent::{Seams, backend, log, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Exit status of bad usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let config: Config = entrenar::config::parse();
    log::init(config.log_format);
    if let Err(mistake) = Target::new(&config, None) {
        eprintln!("error: {mistake}");
        return ExitCode::from(USAGE);
    }
    // One thread is enough: reading GPUs and writing to disk have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(serve(config)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            error!("{cause:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let seams = Seams::default();
    let backend = backend::choose(&config, &seams.clock)?;
    let stop = CancellationToken::new();
    // A limit on the size of files is then an error of one write, as a full disk is, and not the end of the process.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        info!("the agent leaves");
        stopping.cancel();
    });
    run(config, backend, seams, stop, announce).await
}

/// The one line on standard output: scripts wait for it.
fn announce(http: std::net::SocketAddr) {
    println!("ready http={http}");
}
