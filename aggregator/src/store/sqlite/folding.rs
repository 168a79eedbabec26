//! Folding the write-ahead log into the file beside the writer. It syncs the file, and on a busy disk that takes longer than
//! the writer may be held.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tracing::debug;

use super::open::write_options;
use crate::store::StoreResult;

/// At most so often, and only after something was written.
const FOLD_EVERY: Duration = Duration::from_secs(1);

/// Pages of the log at which the writer folds it itself, 64 MiB: the task beside it is far behind, and a log that grows for
/// ever helps nobody.
pub(super) const WRITER_FOLDS_PAGES: &str = "16384";

/// The task beside the writer.
#[derive(Debug)]
pub(super) struct Folding {
    task: Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl Folding {
    /// Starts it. It ends when told, or when nobody is left who could write. `written` changes with every write.
    pub(super) async fn start(path: &Path, written: watch::Receiver<u64>) -> StoreResult<Self> {
        let db = write_options(path).connect().await?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self {
            task: Mutex::new(Some(tokio::spawn(run(db, written, stopped)))),
            stop,
        })
    }

    /// Ends it; answers when it let go of the file.
    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }
}

async fn run(
    mut db: SqliteConnection,
    mut written: watch::Receiver<u64>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            wrote = written.changed() => if wrote.is_err() { break },
        }
        if let Err(error) = fold(&mut db).await {
            // It is tried again, and the writer tells what is wrong with the disk.
            debug!(%error, "could not fold the write-ahead log");
        }
        tokio::select! {
            _ = stopped.changed() => break,
            () = tokio::time::sleep(FOLD_EVERY) => {}
        }
    }
    let _ = db.close().await;
}

/// As far as readers let it; nobody waits for it.
async fn fold(db: &mut SqliteConnection) -> StoreResult<()> {
    sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .execute(db)
        .await?;
    Ok(())
}
