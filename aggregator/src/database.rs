//! Which database it is, and waiting for one that is away.
//!
//! A SQLite file that cannot be opened is an error at once. A Postgres may be starting, failing over, or another
//! aggregator's for the moment: that passes, so it is waited for, and `/readyz` says for what. What only the operator can
//! put right (a wrong password, no such database, an old server) is an error for Postgres as well.

mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::waiting::Waiting;
use crate::config::Config;
use crate::run::StartError;
use crate::store::postgres::Address;
use crate::store::{PostgresStore, SqliteStore, Store, StoreError};

/// Waits between attempts: the first, and the longest, to which it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) enum Database {
    Sqlite(PathBuf),
    Postgres(Box<Address>),
}

/// A database in use.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// Cancelled when it is another aggregator's, or no longer has what it had.
    pub(crate) superseded: CancellationToken,
    /// What tells of waiting, where it had to. End it when there is something better to serve.
    pub(crate) waiting: Option<Waiting>,
}

impl Database {
    /// As the operator says. Fails, without a word of its secrets, on a URL that makes no sense.
    pub(crate) fn of(config: &Config) -> anyhow::Result<Self> {
        let Some(url) = config.database_url.as_deref() else {
            return Ok(Self::Sqlite(config.data_dir.join("entrenar.db")));
        };
        if Address::is_meant_by(url) {
            let address = Address::parse(url).map_err(|why| anyhow!("--database-url: {why}"))?;
            return Ok(Self::Postgres(Box::new(address)));
        }
        match url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => {
                Ok(Self::Sqlite(path.trim_start_matches("//").into()))
            }
            _ => Err(anyhow!(
                "--database-url {}: give sqlite:PATH or postgres://USER@HOST/DATABASE",
                url.split(':').next().unwrap_or_default()
            )),
        }
    }

    /// Opens it, and gives the listener back on which it may tell of waiting.
    pub(crate) async fn open(
        self,
        http: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<(Opened, TcpListener), StartError> {
        match self {
            Self::Sqlite(path) => Ok((open_sqlite(path).await.map_err(StartError::Failed)?, http)),
            Self::Postgres(address) => {
                let first = PostgresStore::open(&address).await;
                let Err(StoreError::Unavailable(why)) = first else {
                    return Ok((opened(&address, first)?, http));
                };
                let (waiting, http) =
                    Waiting::start(http, tls).map_err(|e| StartError::Failed(e.into()))?;
                if let Ok(at) = http.local_addr() {
                    warn!(%why, http = %at, "waiting for the database");
                }
                let later = wait(&address, why, &waiting).await;
                let mut opened = opened(&address, later)?;
                waiting.say("it is there, and its journal is read");
                opened.waiting = Some(waiting);
                Ok((opened, http))
            }
        }
    }
}

async fn open_sqlite(path: PathBuf) -> anyhow::Result<Opened> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("could not make the data directory {}", dir.display()))?;
    }
    let store = SqliteStore::open(&path)
        .await
        .with_context(|| format!("could not open the database {}", path.display()))?;
    Ok(Opened {
        store: Arc::new(store),
        superseded: CancellationToken::new(),
        waiting: None,
    })
}

fn opened(
    address: &Address,
    result: Result<PostgresStore, StoreError>,
) -> Result<Opened, StartError> {
    let store = result
        .with_context(|| format!("could not use the database {address}"))
        .map_err(StartError::Failed)?;
    info!(database = %address, "on Postgres");
    let superseded = store.superseded();
    Ok(Opened {
        store: Arc::new(store),
        superseded,
        waiting: None,
    })
}

/// Tries again until it opens, or fails in a way that waiting does not mend. Says for what it waits when that changes.
async fn wait(
    address: &Address,
    mut why: String,
    waiting: &Waiting,
) -> Result<PostgresStore, StoreError> {
    let mut pause = FIRST_PAUSE;
    loop {
        waiting.say(&why);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match PostgresStore::open(address).await {
            Err(StoreError::Unavailable(now)) => {
                if now != why {
                    warn!(why = now, "still waiting for the database");
                    why = now;
                }
            }
            done => return done,
        }
    }
}
