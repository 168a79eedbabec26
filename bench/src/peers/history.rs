//! Stored history of our fleet at 1 s, written through the store as the aggregator itself writes it.

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

const INTERVAL: Duration = Duration::from_secs(1);

/// Chunks in one commit.
const COMMIT_CHUNKS: usize = 512;

/// How much each node has, up to now.
pub struct History {
    pub agents: u32,
    /// Of the first node, and of all others.
    pub first: Duration,
    pub others: Duration,
}

/// Fills a database. Answers the first GPU's name.
pub async fn fill(database: &Path, history: &History, reels: &[NodeTicks]) -> Result<String> {
    let store = SqliteStore::open(database).await?;
    let to = now();
    let mut sealed = Vec::new();
    for number in 0..history.agents {
        let (reel, copy) = orders::reel_of(number, reels.len());
        let length = if number == 0 {
            history.first
        } else {
            history.others
        };
        for gpu in 0..reels[reel].gpus.len() {
            let past = Past {
                uuid: labels::uuid(copy, &reels[reel].gpus[gpu]).into(),
                ticks: reels[reel].ticks.iter().map(|rows| &rows[gpu]).collect(),
                ahead: orders::ahead(copy),
            };
            past.seal(to - length, to, &mut sealed)?;
            if sealed.len() >= COMMIT_CHUNKS {
                commit(&store, &mut sealed).await?;
            }
        }
    }
    commit(&store, &mut sealed).await?;
    store.close().await;
    Ok(labels::uuid(0, &reels[0].gpus[0]))
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
}

impl Past<'_> {
    fn seal(&self, from: Timestamp, to: Timestamp, sealed: &mut Vec<SealedChunk>) -> Result<()> {
        let length = stretch::length(INTERVAL);
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
            at = last.0 + INTERVAL;
        }
        Ok(())
    }

    fn rows(&self, from: Timestamp, end: Timestamp) -> Vec<(Timestamp, Values)> {
        let ticks = end.since(from).as_millis().div_ceil(INTERVAL.as_millis()) as i64;
        let row = |n: i64| {
            let at = Timestamp(from.0 + n * INTERVAL.as_millis() as i64);
            let place = at.0 / INTERVAL.as_millis() as i64;
            let values = self.ticks[(place as usize + self.ahead) % self.ticks.len()];
            (at, values.clone())
        };
        (0..ticks).map(row).collect()
    }
}
