//! A Postgres for tests: a fresh, empty database each, on one server per test process.
//!
//! The server is the one of `TEST_DATABASE_URL` or `DATABASE_URL`; else a private one, made from the programs in
//! `PG_BINDIR`, the newest of `/usr/lib/postgresql`, or `PATH`. A private server listens on a socket in a folder of its
//! own, needs neither root nor a service, and ends with the process, even one that is killed.

#![forbid(unsafe_code)]

mod citus;
mod cluster;
mod keeper;
mod programs;

use std::str::FromStr as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::time::{sleep, timeout};

pub use citus::Citus;
pub use cluster::{Cluster, GUARDED, Identity};
pub use programs::found;

/// Set to 1, tests that need another program say so and pass.
const SKIP: &str = "ENTRENAR_SKIP_EXTERNAL";

/// Where a server of yours is named. Its user must be allowed to make databases.
const URLS: [&str; 2] = ["TEST_DATABASE_URL", "DATABASE_URL"];

/// A machine under load may take this long for what takes moments on an idle one.
const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks at whether it has happened.
const MOMENT: Duration = Duration::from_millis(20);

/// An empty database, gone when it is dropped or its server ends.
pub struct Database {
    pub url: String,
    /// Of the server where it must be dropped, and its name.
    outlives_us: Option<(PgConnectOptions, String)>,
}

/// A fresh database; `None`, and a line that says so, when the test is to be skipped.
///
/// Panics with what to install when there is no Postgres.
pub async fn database() -> Option<Database> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    if let Some(url) = URLS.iter().find_map(|name| std::env::var(name).ok()) {
        let server = PgConnectOptions::from_str(&url).expect("the URL of a Postgres server");
        return Some(on(&server, true).await);
    }
    if is_skipped() {
        return None;
    }
    match SHARED.get_or_init(Cluster::quick) {
        Some(cluster) => Some(cluster.database().await),
        None => None,
    }
}

/// Whether tests of other programs are to be skipped, which is said then.
fn is_skipped() -> bool {
    let skipped = std::env::var(SKIP).is_ok_and(|value| value == "1");
    if skipped {
        println!("skipped: needs the Debian package postgresql ({SKIP}=1)");
    }
    skipped
}

/// Makes a database on a server.
async fn on(server: &PgConnectOptions, outlives_us: bool) -> Database {
    let name = new_name();
    create(server, &name).await;
    Database {
        url: server.clone().database(&name).to_url_lossy().to_string(),
        outlives_us: outlives_us.then(|| (server.clone(), name)),
    }
}

/// Of a database that there is not yet.
fn new_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (pid, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    format!("entrenar_test_{pid}_{number}")
}

async fn create(server: &PgConnectOptions, name: &str) {
    // Nobody is ever connected to this template, and so nobody is in the way.
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    execute(server, create).await;
}

async fn execute(server: &PgConnectOptions, sql: String) {
    let mut connection = connect(server).await;
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
    done.expect("the server does it");
    // It is done; how the connection ends does not matter.
    let _ = connection.close().await;
}

/// Waits for a server that is starting.
async fn connect(server: &PgConnectOptions) -> PgConnection {
    let connected = async {
        loop {
            match server.clone().disable_statement_logging().connect().await {
                Ok(connection) => return connection,
                Err(_) => sleep(MOMENT).await,
            }
        }
    };
    let connected = timeout(PATIENCE, connected).await;
    connected.expect("the server answers in time")
}

impl Database {
    /// One that is gone when its server ends.
    fn within_server(options: &PgConnectOptions) -> Self {
        Self {
            url: options.to_url_lossy().to_string(),
            outlives_us: None,
        }
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> PgConnection {
        let options = PgConnectOptions::from_str(&self.url).expect("our own URL");
        connect(&options).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some((server, name)) = self.outlives_us.take() else {
            return;
        };
        // A thread of its own, because a test's runtime is not to be blocked from inside.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            runtime.block_on(execute(&server, drop));
        });
        // What could not be dropped was said on standard error.
        let _ = dropped.join();
    }
}
