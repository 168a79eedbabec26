//! The journal is done again after a start. Its messages are read and decoded a page ahead of who does them: that saves up to a
//! fifth of the time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use entrenar::clock::{Clock, SystemClock};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::line::handle::LineHandle;
use crate::line::past::Past;
use crate::line::replay::Replay;
use crate::line::{Line, LineConfig};
use crate::store::{JournalPosition, Store, StoreError, StoreResult};

/// Journal rows of a page: some seconds of a fleet. Two pages are in memory at once, and samples take more of it decoded.
const PAGE: usize = 8;

/// Wait before the journal is read again that could not be read.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Snapshot and journal become a line again, but for what the snapshot covers.
pub(crate) async fn recover(
    store: &Arc<dyn Store>,
    config: LineConfig,
    clock: &dyn Clock,
) -> anyhow::Result<(Line, Option<Past>)> {
    let began = clock.monotonic();
    let recovered = store
        .recover()
        .await
        .context("could not read what the database remembers")?;
    let (mut line, past) = Line::recover_split(config, recovered, clock.now());
    let after = past.as_ref().map_or(JournalPosition(0), |past| past.upto);
    let mut pages = Pages::after(after, Arc::clone(store));
    loop {
        let page = pages.next().await.context("could not read the journal")?;
        if page.is_empty() {
            break;
        }
        line = done(page, line, Line::replay)
            .await
            .context("the journal could not be done again")?;
    }
    line.start(clock.now());
    if pages.n_rows > 0 {
        let took_ms = clock.monotonic().saturating_sub(began).as_millis() as u64;
        info!(n_rows = pages.n_rows, took_ms, "journal replayed");
    }
    Ok((line, past))
}

/// Reads what the snapshot covers of the journal, and hands it to the line. A database that is away is waited for: until then
/// nothing is sealed.
pub(crate) async fn read_past(
    store: Arc<dyn Store>,
    line: LineHandle,
    mut past: Past,
    is_whole: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let began = SystemClock.monotonic();
    let mut pages = Pages::after(JournalPosition(0), store);
    while pages.shown < past.upto {
        let page = tokio::select! {
            () = stop.cancelled() => return,
            page = pages.next() => page,
        };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                warn!(%error, "could not read the journal of the last minutes; trying again");
                tokio::time::sleep(READ_AGAIN_AFTER).await;
                continue;
            }
        };
        if page.is_empty() {
            break;
        }
        match done(page, past, Past::replay).await {
            Ok(further) => past = further,
            Err(error) => {
                error!(%error, "reading the journal of the last minutes broke off: restart the aggregator");
                return;
            }
        }
    }
    let head = past.into_head();
    // Where the line is gone, the next start reads it again.
    if line.ask(move |line| line.absorb(head)).await.is_ok() {
        is_whole.send_replace(true);
        let took_ms = SystemClock.monotonic().saturating_sub(began).as_millis() as u64;
        info!(
            n_rows = pages.n_rows,
            took_ms, "journal of the time before the snapshot read"
        );
    }
}

/// Does a page again, on a thread that may be kept.
async fn done<T: Send + 'static>(
    page: Vec<Replay>,
    mut on: T,
    row: fn(&mut T, Replay),
) -> Result<T, JoinError> {
    let done = spawn_blocking(move || {
        for replay in page {
            row(&mut on, replay);
        }
        on
    });
    done.await
}

/// The journal, page by page, each read while the one before is done.
struct Pages {
    store: Arc<dyn Store>,
    /// The page that is being read; `None` at the end, and after one that could not be: who asks again says when.
    ahead: Option<JoinHandle<StoreResult<Vec<Replay>>>>,
    /// The last row that was shown, and how many were.
    shown: JournalPosition,
    n_rows: usize,
}

impl Pages {
    fn after(position: JournalPosition, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            ahead: None,
            shown: position,
            n_rows: 0,
        }
    }

    /// The next page; an empty one at the end. What could not be read is read again by the next call.
    async fn next(&mut self) -> StoreResult<Vec<Replay>> {
        let ahead = self.ahead.take().unwrap_or_else(|| self.begin());
        let page = ahead.await.map_err(|error| broken(&error)).flatten()?;
        self.n_rows += page.len();
        self.shown = page.last().map_or(self.shown, Replay::position);
        self.ahead = (!page.is_empty()).then(|| self.begin());
        Ok(page)
    }

    fn begin(&self) -> JoinHandle<StoreResult<Vec<Replay>>> {
        tokio::spawn(read(Arc::clone(&self.store), self.shown))
    }
}

async fn read(store: Arc<dyn Store>, after: JournalPosition) -> StoreResult<Vec<Replay>> {
    let rows = store.journal(after, PAGE).await?;
    // Some tens of milliseconds of a large fleet.
    let decoded = spawn_blocking(move || {
        let decode = |(position, entries)| Replay::of(position, entries);
        rows.into_iter().map(decode).collect()
    });
    decoded.await.map_err(|error| broken(&error))
}

fn broken(error: &JoinError) -> StoreError {
    StoreError::Unavailable(format!("reading the journal broke off: {error}"))
}

#[cfg(test)]
mod tests {
    use entrenar::unit::Timestamp;

    use super::*;
    use crate::store::memory::{Failure, MemoryStore};
    use crate::store::{Flush, JournalEntry};

    /// A store with so many rows in its journal.
    async fn with_rows(n: usize) -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::default());
        for n in 0..n {
            let to = Timestamp(n as i64);
            let journal = vec![JournalEntry::Advance { to }];
            let flush = Flush {
                journal,
                ..Flush::default()
            };
            store.commit(flush).await.unwrap();
        }
        store
    }

    async fn shown(pages: &mut Pages) -> Vec<usize> {
        let mut positions = Vec::new();
        loop {
            let page = pages.next().await.unwrap();
            if page.is_empty() {
                return positions;
            }
            positions.extend(page.iter().map(|row| row.position().0 as usize));
        }
    }

    #[tokio::test]
    async fn every_row_is_shown_once_and_in_order() {
        for n in [0, 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE] {
            let store = with_rows(n).await;
            let mut pages = Pages::after(JournalPosition(0), store.clone());
            let expected: Vec<_> = (1..=n).collect();
            assert_eq!(shown(&mut pages).await, expected);
            assert_eq!(pages.n_rows, n);
            let mut later = Pages::after(JournalPosition(n as i64 / 2), store);
            assert_eq!(shown(&mut later).await, expected[n / 2..]);
        }
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_read_again_and_nothing_is_left_out() {
        let store = with_rows(3 * PAGE).await;
        let mut pages = Pages::after(JournalPosition(0), store.clone());
        let first = pages.next().await.unwrap();
        assert_eq!(first.len(), PAGE);
        // The page ahead may be here already; what comes after it is not.
        store.fail(Some(Failure::Unavailable));
        let mut n_shown = PAGE;
        while let Ok(page) = pages.next().await {
            n_shown += page.len();
        }
        assert!(pages.next().await.is_err());
        store.fail(None);
        n_shown += shown(&mut pages).await.len();
        assert_eq!(n_shown, 3 * PAGE);
    }
}
