//! A Citus cluster of two private servers.

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::{Cluster, Database, create, execute, is_skipped, new_name, programs};

/// Shards are what a test waits for when it makes tables. Each database has a worker process of its own.
const SETTINGS: [&str; 3] = [
    "shared_preload_libraries=citus",
    "citus.shard_count=4",
    "max_worker_processes=64",
];

/// A coordinator, and a worker that has the shards.
pub struct Citus {
    coordinator: Cluster,
    worker: Cluster,
}

impl Citus {
    /// Starts both. `None`, and a line that says so, where the server has no Citus: it is not part of Debian, and nobody need have
    /// it.
    pub fn start() -> Option<Self> {
        if is_skipped() {
            return None;
        }
        let has_citus = programs::found().is_some_and(|programs| {
            let library = programs.join("../lib/citus.so");
            library.exists()
        });
        if !has_citus {
            println!("skipped: the server of `cargo xtask test` has no Citus");
            return None;
        }
        Some(Self {
            coordinator: Cluster::listening(&SETTINGS)?,
            worker: Cluster::listening(&SETTINGS)?,
        })
    }

    /// A fresh database on both, in which the coordinator knows the worker. It is reached over loopback.
    pub async fn database(&self) -> Database {
        let name = new_name();
        for server in [&self.worker, &self.coordinator] {
            create(&server.options(), &name).await;
            let within = server.options().database(&name);
            execute(&within, "CREATE EXTENSION citus".to_owned()).await;
        }
        let port = |server: &Cluster| server.port().expect("it listens");
        let join = format!(
            "SELECT citus_set_coordinator_host('localhost', {}); SELECT citus_add_node('localhost', {})",
            port(&self.coordinator),
            port(&self.worker)
        );
        execute(&self.coordinator.options().database(&name), join).await;
        let url = PgConnectOptions::new_without_pgpass()
            .host("localhost")
            .port(port(&self.coordinator))
            .username("postgres")
            .database(&name)
            // The certificate that Citus makes for itself is no use.
            .ssl_mode(PgSslMode::Disable);
        Database::within_server(&url)
    }
}
