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

/// How long it rests between two, and it folds only after something was written. A page that every commit writes goes into
/// the file once each time, and so is the file synced: as seldom as the log stays short.
const RESTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Pages of the log that it lets come together, 8 MiB.
const FOLD_PAGES: u32 = 2048;

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
    let mut rest = RESTS.0;
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            wrote = written.changed() => if wrote.is_err() { break },
        }
        rest = match fold(&mut db).await {
            Ok(folded) => next_rest(rest, folded),
            Err(error) => {
                // It is tried again, and the writer tells what is wrong with the disk.
                debug!(%error, "could not fold the write-ahead log");
                RESTS.0
            }
        };
        tokio::select! {
            _ = stopped.changed() => break,
            () = tokio::time::sleep(rest) => {}
        }
    }
    let _ = db.close().await;
}

/// What there was to fold.
#[derive(Clone, Copy, Debug)]
struct Folded {
    /// Pages of the log, and those of them that are in the file now.
    pages: u32,
    folded: u32,
}

/// As far as readers let it; nobody waits for it.
async fn fold(db: &mut SqliteConnection) -> StoreResult<Folded> {
    let query = sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)");
    let (_is_busy, pages, folded): (i64, i64, i64) = query.fetch_one(db).await?;
    // -1 where there is no log.
    let count = |pages: i64| u32::try_from(pages).unwrap_or(0);
    Ok(Folded {
        pages: count(pages),
        folded: count(folded),
    })
}

/// The rest after which about [`FOLD_PAGES`] will have come together, if as many come as in the last one. It grows slowly:
/// a start that catches up must not find a long one.
fn next_rest(rest: Duration, Folded { pages, folded }: Folded) -> Duration {
    if folded < pages {
        return RESTS.0;
    }
    let fitting = rest * FOLD_PAGES / pages.max(1);
    fitting.min(rest * 2).clamp(RESTS.0, RESTS.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_as_long_as_the_log_stays_short() {
        let next = |secs: u64, pages: u32, folded: u32| {
            next_rest(Duration::from_secs(secs), Folded { pages, folded }).as_secs()
        };
        assert_eq!(next(1, 100, 100), 2);
        assert_eq!(next(4, 100, 100), 5);
        assert_eq!(next(4, 4096, 4096), 2);
        assert_eq!(next(1, 40_960, 40_960), 1);
        assert_eq!(next(5, 1024, 1000), 1, "somebody reads");
        assert_eq!(next(3, 0, 0), 5, "there is no log");
    }
}
