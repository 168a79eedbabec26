//! The database after months: as many retention periods in fast-forward, with late data, journal, marks and holders; how full
//! its pages are then, and how long the writer was held by what.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::gpu::{GpuUuid, Values};
use entrenar::report::{Holder, HolderChange, StreamId};
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk::{self, Profile, stretch};
use entrenar_aggregator::store::{
    Flush, Hold, JournalEntry, JournalPosition, Retention, SealedChunk, Snapshot, SqliteStore,
    Store as _,
};
use entrenar_proto::encode_record;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::fleet::{self, GPUS, NodeTicks};
use crate::report::Section;

/// Retention periods that go by: five years of a month each.
const GENERATIONS: u32 = 60;
/// Stretches in each.
const STRETCHES: u32 = 5;
/// Sums by the minute are kept for as many generations; sums by the hour for ever.
const KEEP_MINUTES: u32 = 12;
/// 128 GPUs.
const NODES: u32 = 16;
const INTERVAL: Duration = Duration::from_secs(1);
/// Of each stretch of every eighth GPU the last third comes after it was sealed.
const LATE: usize = 8;
/// Group commits of a stretch.
const COMMITS: u32 = 48;
/// GPUs that were here once, and how often each changed hands.
const PAST_GPUS: u32 = 10_000;
const PAST_CHANGES: u32 = 20;
const START: Timestamp = Timestamp::from_secs(1_700_000_000);
/// The engine's memory of one GPU, and how many commits there are for each time that it is kept.
const SNAPSHOT_BYTES_A_GPU: usize = 1024;
const COMMITS_A_SNAPSHOT: u32 = 8;

/// Fills, drops, and looks at what is left.
pub fn run() -> Result<()> {
    let dir = tempfile::tempdir_in(".")?;
    let database = dir.path().join("entrenar.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (holds, space) = runtime.block_on(async {
        let holds = live(&database).await?;
        Ok::<_, anyhow::Error>((holds, Space::of(&database).await?))
    })?;
    publish(&holds, &space)
}

fn publish(holds: &[Hold], space: &Space) -> Result<()> {
    let mut section = Section::default();
    section.say(format!(
        "{} GPUs at 1 Hz, {GENERATIONS} retention periods of {STRETCHES} stretches in fast-forward, on the disk that the \
         benches run on: chunks go after one period, sums by the minute after {KEEP_MINUTES}, sums by the hour never; of \
         every eighth GPU the last third of a stretch is late; {COMMITS} group commits a stretch, whose journal is forgotten \
         once it is sealed; {PAST_GPUS} GPUs of the past changed hands {PAST_CHANGES} times each. Sums are laid together and retention runs after \
         each stretch.",
        NODES as usize * GPUS,
    ));
    let ms = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1e3);
    let row = |hold: &Hold| {
        [
            hold.work.into(),
            hold.n.to_string(),
            ms(hold.p99),
            ms(hold.max),
        ]
    };
    let rows: Vec<_> = holds.iter().map(row).collect();
    section.table(["the writer was held to", "times", "p99", "longest"], &rows);
    let mb = |bytes: i64| format!("{:.1} MB", bytes as f64 / 1e6);
    let percent = |part: i64, whole: i64| format!("{:.1} %", 100.0 * part as f64 / whole as f64);
    section.table(
        ["what is left", "measured"],
        &[
            ["file".into(), mb(space.file)],
            ["blobs in it: chunks, sums, journal".into(), mb(space.blobs)],
            ["all rows and keys in it".into(), mb(space.payload)],
            [
                "page fill: rows and keys of the file".into(),
                percent(space.payload, space.file),
            ],
            [
                "… blobs of chunks of the pages of chunks".into(),
                percent(space.chunk_blobs, space.chunk_pages),
            ],
            [
                "free pages, used again by what comes next".into(),
                mb(space.free),
            ],
            [
                "bytes a sample of the raw history, its pages alone".into(),
                format!("{:.2}", space.chunk_pages as f64 / space.samples as f64),
            ],
            [
                "… all in: sums, journal, holders, free pages".into(),
                format!("{:.2}", space.file as f64 / space.samples as f64),
            ],
        ],
    );
    section.publish("store")
}

/// Lives through all generations.
async fn live(database: &Path) -> Result<Vec<Hold>> {
    let nodes = fleet::simulate(NODES, stretch::TICKS, INTERVAL)?;
    let store = SqliteStore::open(database).await?;
    past(&store).await?;
    let length = stretch::length(INTERVAL);
    let mut sealed_up_to = JournalPosition::default();
    for n in 0..GENERATIONS * STRETCHES {
        let now = START + length * n;
        let newest = commits(&store, &nodes, now, sealed_up_to).await?;
        let (whole, late) = chunks(&nodes, now)?;
        for sealed in [whole, late] {
            let flush = Flush {
                sealed,
                ..Flush::default()
            };
            store.commit(flush).await?;
        }
        sealed_up_to = newest;
        store.compact(now).await?;
        let generation = length * STRETCHES;
        let retention = Retention {
            chunks_before: now - generation,
            minutes_before: now - generation * KEEP_MINUTES,
            hours_before: START,
            incidents_before: now - generation,
        };
        store.retain(retention).await?;
    }
    let holds = store.holds();
    store.close().await;
    Ok(holds)
}

/// Who held GPUs that are no longer here.
async fn past(store: &SqliteStore) -> Result<()> {
    for n in 0..PAST_CHANGES {
        let change = |gpu: u32| HolderChange {
            at: START - Duration::from_hours(24) + Duration::from_mins(n.into()),
            gpu: format!("GPU-past-{gpu:06}").into(),
            holder: Some(Holder {
                job: format!("job-{n}"),
                ..Holder::default()
            }),
        };
        for first in (0..PAST_GPUS).step_by(500) {
            let flush = Flush {
                holders: (first..first + 500).map(change).collect(),
                ..Flush::default()
            };
            store.commit(flush).await?;
        }
    }
    Ok(())
}

/// The journal of a stretch, with the engine's memory now and then; what was sealed before is forgotten with the first.
async fn commits(
    store: &SqliteStore,
    nodes: &[NodeTicks],
    at: Timestamp,
    sealed_up_to: JournalPosition,
) -> Result<JournalPosition> {
    let ticks_a_commit = (stretch::TICKS / COMMITS) as usize;
    let mut newest = sealed_up_to;
    for n in 0..COMMITS {
        let first = n as usize * ticks_a_commit;
        let at = at + INTERVAL * first as u32;
        let entry = |(number, node): (usize, &NodeTicks)| {
            let ticks = &node.ticks[first..first + ticks_a_commit];
            JournalEntry::Record {
                received_at: at,
                sent_at: at,
                stream: StreamId([number as u8; 16]),
                bytes: encode_record(&fleet::record(1_000_000, at, INTERVAL, ticks)),
            }
        };
        let snapshot = n.is_multiple_of(COMMITS_A_SNAPSHOT).then(|| Snapshot {
            position: JournalPosition::default(),
            taken_at: at,
            bytes: noise(SNAPSHOT_BYTES_A_GPU * nodes.len() * GPUS),
        });
        let flush = Flush {
            journal: nodes.iter().enumerate().map(entry).collect(),
            forget_journal: (n == 0).then_some(sealed_up_to),
            snapshot,
            ..Flush::default()
        };
        newest = store.commit(flush).await?.position;
    }
    Ok(newest)
}

/// Bytes that were packed already.
fn noise(n: usize) -> Vec<u8> {
    let byte = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 29) as u8;
    (0..n as u64).map(byte).collect()
}

/// One stretch of every GPU: what is sealed in time, and what is sealed again for late samples.
fn chunks(nodes: &[NodeTicks], at: Timestamp) -> Result<(Vec<SealedChunk>, Vec<SealedChunk>)> {
    let (mut whole, mut late) = (Vec::new(), Vec::new());
    for (n, node) in nodes.iter().enumerate() {
        for (gpu, info) in node.gpus.iter().enumerate() {
            let uuid = GpuUuid::from(format!("{}-{n:03}", info.uuid));
            let start = stretch::start(&uuid, stretch::length(INTERVAL), at);
            let rows = node.of_gpu(gpu, start, INTERVAL);
            let in_time = if gpu % LATE == 0 {
                rows.len() * 2 / 3
            } else {
                rows.len()
            };
            let (early, rest) = rows.split_at(in_time);
            whole.push(sealed(&uuid, start, early)?);
            if !rest.is_empty() {
                late.push(sealed(&uuid, start, rest)?);
            }
        }
    }
    Ok((whole, late))
}

fn sealed(gpu: &GpuUuid, start: Timestamp, rows: &[(Timestamp, Values)]) -> Result<SealedChunk> {
    let (first, last) = rows
        .first()
        .zip(rows.last())
        .context("a stretch without samples")?;
    Ok(SealedChunk {
        gpu: gpu.clone(),
        stretch: start,
        length_ms: stretch::length(INTERVAL).as_millis() as u32,
        from: first.0,
        to: last.0,
        n_samples: rows.len() as u32,
        blob: chunk::encode(rows, Profile::Exact)?,
    })
}

/// What a closed database takes up, in bytes, and what is in it.
struct Space {
    file: i64,
    /// Pages that hold nothing.
    free: i64,
    blobs: i64,
    /// Of all tables and indexes, as SQLite packs it.
    payload: i64,
    chunk_blobs: i64,
    /// Pages of chunks and their index.
    chunk_pages: i64,
    /// Values of the raw history.
    samples: u64,
}

impl Space {
    async fn of(database: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(database)
            .read_only(true);
        let mut db = options.connect().await?;
        let page = number(&mut db, "SELECT page_size FROM pragma_page_size").await?;
        let free = number(&mut db, "SELECT freelist_count FROM pragma_freelist_count").await?;
        let blobs = "SELECT (SELECT sum(length(blob)) FROM chunk) + (SELECT sum(length(blob)) FROM rollup)
            + (SELECT sum(length(blob)) FROM rollup_sheet_1m) + (SELECT sum(length(blob)) FROM rollup_sheet_1h)
            + (SELECT coalesce(sum(length(entries)), 0) FROM journal) + (SELECT sum(length(bytes)) FROM engine_snapshot)";
        let chunk_pages = "SELECT sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) WHERE tbl_name = 'chunk'";
        let stored: Vec<(Vec<u8>,)> = sqlx::query_as("SELECT blob FROM chunk")
            .fetch_all(&mut db)
            .await?;
        let mut samples = 0;
        for (blob,) in stored {
            let rows = chunk::decode_all(&blob)?;
            samples += rows
                .iter()
                .map(|row| row.1.iter().count() as u64)
                .sum::<u64>();
        }
        Ok(Self {
            file: std::fs::metadata(database)?.len().try_into()?,
            free: free * page,
            blobs: number(&mut db, blobs).await?,
            payload: number(&mut db, "SELECT sum(payload) FROM dbstat").await?,
            chunk_blobs: number(&mut db, "SELECT sum(length(blob)) FROM chunk").await?,
            chunk_pages: number(&mut db, chunk_pages).await?,
            samples,
        })
    }
}

async fn number(db: &mut SqliteConnection, sql: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(sql).fetch_one(db).await?)
}
