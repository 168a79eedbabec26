//! Stored history of our fleet, written through the store as the aggregator itself writes it.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use entrenar::clock::now;
use entrenar::gpu::{GpuUuid, Values};
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk::{self, stretch};
use entrenar_aggregator::store::{Flush, SealedChunk, SqliteStore, Store};

use super::{labels, orders};
use crate::fleet::NodeTicks;

/// Chunks in one commit.
const COMMIT_CHUNKS: usize = 512;

/// What some nodes have.
pub struct History {
    /// Their numbers.
    pub nodes: Range<u32>,
    pub interval: Duration,
    pub length: Duration,
}

/// Fills a database, up to an instant.
pub async fn fill(
    database: &Path,
    histories: &[History],
    to: Timestamp,
    reels: &[NodeTicks],
) -> Result<()> {
    let store = SqliteStore::open(database).await?;
    let mut sealed = Vec::new();
    for history in histories {
        for number in history.nodes.clone() {
            let (reel, copy) = orders::reel_of(number, reels.len());
            for gpu in 0..reels[reel].gpus.len() {
                let past = Past {
                    uuid: labels::uuid(copy, &reels[reel].gpus[gpu]).into(),
                    ticks: reels[reel].ticks.iter().map(|rows| &rows[gpu]).collect(),
                    ahead: orders::ahead(copy),
                    interval: history.interval,
                };
                past.seal(to - history.length, to, &mut sealed)?;
                if sealed.len() >= COMMIT_CHUNKS {
                    commit(&store, &mut sealed).await?;
                }
            }
        }
    }
    commit(&store, &mut sealed).await?;
    // As the aggregator's own maintenance would have done by now, minute by minute.
    store.compact(now()).await?;
    store.close().await;
    Ok(())
}

async fn commit(store: &SqliteStore, sealed: &mut Vec<SealedChunk>) -> Result<()> {
    let flush = Flush {
        sealed: std::mem::take(sealed),
        ..Flush::default()
    };
    store.commit(flush).await?;
    Ok(())
}

/// One GPU's, from a reel that begins again at its end.
struct Past<'a> {
    uuid: GpuUuid,
    ticks: Vec<&'a Values>,
    ahead: usize,
    interval: Duration,
}

impl Past<'_> {
    fn seal(&self, from: Timestamp, to: Timestamp, sealed: &mut Vec<SealedChunk>) -> Result<()> {
        let length = stretch::length(self.interval);
        let mut at = from;
        while at < to {
            let start = stretch::start(&self.uuid, length, at);
            let end = (start + length).min(to);
            let rows = self.rows(at, end);
            let Some(last) = rows.last() else { break };
            sealed.push(SealedChunk {
                gpu: self.uuid.clone(),
                stretch: start,
                length_ms: length.as_millis() as u32,
                from: at,
                to: last.0,
                n_samples: rows.len() as u32,
                blob: chunk::encode(&rows, chunk::Profile::Exact)?,
            });
            at = last.0 + self.interval;
        }
        Ok(())
    }

    fn rows(&self, from: Timestamp, end: Timestamp) -> Vec<(Timestamp, Values)> {
        let interval_ms = self.interval.as_millis() as i64;
        let ticks = (end.since(from).as_millis() as i64 + interval_ms - 1) / interval_ms;
        let row = |n: i64| {
            let at = Timestamp(from.0 + n * interval_ms);
            let place = (at.0 / interval_ms) as usize + self.ahead;
            let values = self.ticks[place % self.ticks.len()];
            (at, values.clone())
        };
        (0..ticks).map(row).collect()
    }
}
