//! What is Postgres' own, met on a real server.

mod away;
mod citus;
mod encrypted;
mod opening;

use private_postgres::Database;
use sqlx::postgres::PgConnection;

use super::*;
use crate::store::contract::{contract, seal, sealed, until};
use crate::store::{JournalEntry, StoreError};

contract!(fresh());

/// A store on an empty database; `None`: skipped, and said so.
async fn fresh() -> Option<(PostgresStore, Database)> {
    let database = private_postgres::database().await?;
    Some((open(&database).await.unwrap(), database))
}

async fn open(database: &Database) -> StoreResult<PostgresStore> {
    PostgresStore::open(&address(database)).await
}

/// Opens it once the server has let go of the lock of a connection that ended a moment ago.
async fn open_once_free(database: &Database) -> PostgresStore {
    loop {
        match open(database).await {
            Ok(store) => return store,
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

fn address(database: &Database) -> Address {
    Address::parse(&database.url).unwrap()
}

fn journal(n: i64) -> Flush {
    Flush {
        journal: vec![JournalEntry::Advance { to: Timestamp(n) }],
        ..Flush::default()
    }
}

/// Times of the journal, in its order.
async fn journalled(store: &PostgresStore) -> Vec<i64> {
    let rows = store.journal(JournalPosition(0), usize::MAX).await.unwrap();
    let entries = rows.into_iter().flat_map(|(_, entries)| entries);
    let time = |entry| match entry {
        JournalEntry::Advance { to } => to.0,
        other => panic!("{other:?}"),
    };
    entries.map(time).collect()
}

async fn execute(connection: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

async fn ask<T>(connection: &mut PgConnection, sql: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

/// Commits as the line does: again and again while the database is away.
async fn commit(store: &PostgresStore, flush: Flush) -> Durable {
    loop {
        match store.commit(flush.clone()).await {
            Ok(durable) => return durable,
            Err(StoreError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Drops what is older, again where somebody was in the way: the server's own vacuum too.
async fn retained(store: &PostgresStore, before: Timestamp) -> u64 {
    loop {
        match store.retain(until(before, Timestamp(0))).await.unwrap() {
            0 => tokio::task::yield_now().await,
            gone => return gone,
        }
    }
}

const PARTITIONS: &str =
    "SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text)
     FROM pg_inherits WHERE inhparent = 'chunk'::regclass";

#[tokio::test]
async fn days_are_made_ahead_dropped_whole_and_made_again_if_one_is_gone() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    let mut look = database.connect().await;
    let [old, new] = [
        sealed("GPU-1", [5], 1),
        sealed("GPU-1", [5 + 3 * 86_400], 2),
    ];
    store
        .commit(seal(vec![old.clone(), new.clone()]))
        .await
        .unwrap();
    let days: String = ask(&mut look, PARTITIONS).await;
    assert_eq!(
        days,
        "chunk_20231114 chunk_20231115 chunk_20231117 chunk_20231118"
    );
    let stored: String = ask(
        &mut look,
        "SELECT string_agg(DISTINCT attstorage::text, '') FROM pg_attribute
        WHERE attname = 'blob' AND attrelid::regclass::text LIKE 'chunk%'",
    )
    .await;
    assert_eq!(stored, "e", "blobs are stored as they are");

    // The day is over, and its last stretch may be not.
    let midnight = Timestamp::from_secs(1_700_006_400);
    assert_eq!(
        store.retain(until(midnight, Timestamp(0))).await.unwrap(),
        0
    );
    let morning = Timestamp::from_secs(1_700_006_400 + 3 * 3600);
    assert_eq!(retained(&store, morning).await, 1);
    let days: String = ask(&mut look, PARTITIONS).await;
    assert_eq!(days, "chunk_20231115 chunk_20231117 chunk_20231118");

    commit(&store, seal(vec![old.clone()])).await;
    let found = store.chunks(&old.gpu, old.from, new.to).await.unwrap();
    assert_eq!(found, [old, new]);
}

#[tokio::test]
async fn a_dump_that_takes_hours_keeps_neither_new_days_nor_the_writer_waiting() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    let old = sealed("GPU-1", [5], 1);
    store.commit(seal(vec![old.clone()])).await.unwrap();
    let mut dump = database.connect().await;
    execute(&mut dump, "BEGIN; SELECT count(*) FROM chunk").await;

    let new = sealed("GPU-1", [5 + 3 * 86_400], 2);
    store.commit(seal(vec![new.clone()])).await.unwrap();
    let later = Timestamp::from_secs(1_700_100_000);
    assert_eq!(store.retain(until(later, Timestamp(0))).await.unwrap(), 0);
    store.commit(journal(1)).await.unwrap();

    execute(&mut dump, "COMMIT").await;
    assert_eq!(retained(&store, later).await, 1);
    assert_eq!(
        store.chunks(&old.gpu, old.from, new.to).await.unwrap(),
        [new]
    );
}

#[tokio::test]
async fn rows_carry_the_node_where_their_gpu_was_first_seen() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    let mut look = database.connect().await;
    let hello = |node: &str, gpu: &str| {
        let hello = hello_of(node, gpu);
        Flush {
            journal: vec![JournalEntry::Hello {
                received_at: Timestamp(0),
                stream: hello.stream,
                bytes: entrenar_proto::encode_hello(&hello),
            }],
            ..Flush::default()
        }
    };
    store.commit(hello("n1", "GPU-1")).await.unwrap();
    store.commit(hello("n2", "GPU-1")).await.unwrap();
    let chunks = vec![sealed("GPU-1", [5], 1), sealed("GPU-2", [5], 1)];
    store.commit(seal(chunks)).await.unwrap();
    let placed: String = ask(
        &mut look,
        "SELECT string_agg(uuid || ' ' || coalesce(name, '?'), ', ' ORDER BY uuid)
         FROM chunk JOIN gpu ON gpu.id = gpu_id AND gpu.node_id = chunk.node_id LEFT JOIN node ON node.id = chunk.node_id",
    )
    .await;
    assert_eq!(placed, "GPU-1 n1, GPU-2 ?");
}

fn hello_of(node: &str, gpu: &str) -> entrenar::report::Hello {
    use entrenar::gpu::GpuInfo;
    use entrenar::report::{Hello, Inventory, StreamId};
    Hello {
        stream: StreamId([7; 16]),
        node: node.into(),
        labels: [].into(),
        inventories: vec![Inventory {
            generation: 1,
            gpus: vec![GpuInfo {
                uuid: gpu.into(),
                ..GpuInfo::default()
            }],
        }],
        agent_version: "1.0".into(),
        driver_version: None,
        interval_ms: 1000,
        batch_ticks: 1,
        first_seq: 1,
        next_seq: 2,
    }
}

#[tokio::test]
async fn text_that_postgres_cannot_hold_stops_nobody() {
    let Some((store, _database)) = fresh().await else {
        return;
    };
    let job = "tr\0ain";
    let holder = entrenar::report::Holder {
        job: job.into(),
        ..entrenar::report::Holder::default()
    };
    let change = entrenar::report::HolderChange {
        at: Timestamp(1),
        gpu: "GPU-\0".into(),
        holder: Some(holder),
    };
    let flush = Flush {
        holders: vec![change],
        ..journal(1)
    };
    store.commit(flush).await.unwrap();
    let mut incident = crate::incident::testing::incident(
        "n\u{0}1",
        crate::andon::Kind::ThermalThrottling,
        crate::andon::Severity::Warning,
    );
    incident.job = Some(job.into());
    let line = TimelineEntry {
        at: Timestamp(1),
        what: "noted".into(),
        who: "ann".into(),
        note: Some("\0 as long as a page ".repeat(500)),
    };
    let decision = Decision {
        timeline: vec![
            (incident.id.clone(), line.clone()),
            (incident.id.clone(), line),
        ],
        incidents: vec![incident.clone()],
        ..Decision::default()
    };
    store.decide(decision).await.unwrap();
    let all = IncidentFilter {
        limit: 9,
        shadow: Some(false),
        ..IncidentFilter::default()
    };
    assert_eq!(store.incidents(all).await.unwrap().len(), 1);
    let (_, lines, _) = store.incident(&incident.id).await.unwrap().unwrap();
    assert_eq!(lines.len(), 1);
    let recovered = store.recover().await.unwrap();
    assert_eq!(
        recovered.holders[0].holder.as_ref().unwrap().job,
        "tr\u{fffd}ain"
    );
}

#[tokio::test]
async fn a_damaged_chunk_does_not_keep_others_from_being_committed() {
    let Some((store, _database)) = fresh().await else {
        return;
    };
    let [first, again] = [sealed("GPU-1", [5], 1), sealed("GPU-1", [6], 2)];
    store.commit(seal(vec![first])).await.unwrap();
    store
        .writer
        .execute("UPDATE chunk SET blob = '\\x01ff'")
        .await
        .unwrap();
    store
        .commit(seal(vec![again.clone(), sealed("GPU-2", [7], 3)]))
        .await
        .unwrap();
    let found = store
        .chunks(&again.gpu, again.from, again.to)
        .await
        .unwrap();
    assert_eq!(found, [again]);
    assert_eq!(store.n_chunks_lost(), 1);
}

#[tokio::test]
async fn readers_cannot_write_and_what_is_durable_is_synced() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    store.close().await;
    let mut operator = database.connect().await;
    execute(
        &mut operator,
        "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = off'; END $$",
    )
    .await;
    let store = open(&database).await.unwrap();
    store
        .writer
        .execute("DO $$ BEGIN ASSERT current_setting('synchronous_commit') = 'on'; END $$")
        .await
        .unwrap();
    let refused = sqlx::query("DELETE FROM journal")
        .execute(&store.readers)
        .await;
    assert!(refused.unwrap_err().to_string().contains("read-only"));
}
