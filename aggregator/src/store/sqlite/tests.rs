mod recovering;

use std::path::PathBuf;
use std::sync::Mutex as StdMutex;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::*;
use crate::store::contract::{contract, seal, sealed, until};
use crate::store::{JournalEntry, StoreError};

contract!(async { Some(fresh().await) });

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("data").join("entrenar.db")
}

async fn fresh() -> (SqliteStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (SqliteStore::open(&path(&dir)).await.unwrap(), dir)
}

fn journal(n: i64) -> Flush {
    Flush {
        journal: vec![JournalEntry::Advance { to: Timestamp(n) }],
        ..Flush::default()
    }
}

/// Runs statements on a database that no store has open.
async fn meddle(path: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

async fn refusal(path: &Path) -> String {
    SqliteStore::open(path).await.unwrap_err().to_string()
}

#[tokio::test]
async fn the_pragmas_that_durability_rests_on_are_set() {
    let (store, dir) = fresh().await;
    let mut opened = open::open(&dir.path().join("other.db")).await.unwrap();
    let mut check = async |pragma: &'static str, expected: &str| {
        let row: String = sqlx::query_scalar(pragma)
            .fetch_one(&mut opened.writer)
            .await
            .unwrap();
        assert_eq!(row, expected, "{pragma}");
    };
    check("SELECT journal_mode FROM pragma_journal_mode", "wal").await;
    check(
        "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous",
        "2",
    )
    .await;
    check(
        "SELECT CAST(auto_vacuum AS TEXT) FROM pragma_auto_vacuum",
        "2",
    )
    .await;
    check(
        "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys",
        "1",
    )
    .await;
    check(
        "SELECT CAST(timeout AS TEXT) FROM pragma_busy_timeout",
        "5000",
    )
    .await;
    check(
        "SELECT CAST(application_id AS TEXT) FROM pragma_application_id",
        "1701737586",
    )
    .await;
    let refused = sqlx::query("DELETE FROM journal")
        .execute(&store.readers)
        .await
        .unwrap_err();
    assert!(matches!(refused.into(), StoreError::ReadOnly(_)));
}

#[tokio::test]
async fn a_closed_store_opens_again_with_all_that_it_had() {
    let (store, dir) = fresh().await;
    let kept = store.commit(journal(7)).await.unwrap();
    store.close().await;
    assert!(matches!(
        store.commit(journal(8)).await,
        Err(StoreError::Unavailable(_))
    ));
    let again = SqliteStore::open(&path(&dir)).await.unwrap();
    let rows = again.journal(JournalPosition(0), 9).await.unwrap();
    assert_eq!(rows, [(kept.position, journal(7).journal)]);
    assert!(kept.position < again.commit(journal(8)).await.unwrap().position);
}

#[tokio::test]
async fn a_second_aggregator_on_the_same_file_is_told_so() {
    let (_store, dir) = fresh().await;
    let told = refusal(&path(&dir)).await;
    assert!(
        told.contains("another aggregator has") && told.contains("--data-dir"),
        "{told}"
    );
}

#[tokio::test]
async fn a_read_only_database_is_refused_with_what_to_do() {
    let (store, dir) = fresh().await;
    store.close().await;
    let mut permissions = std::fs::metadata(path(&dir)).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(path(&dir), permissions).unwrap();
    let told = refusal(&path(&dir)).await;
    assert!(
        told.contains("read-only") && told.contains("chmod u+w"),
        "{told}"
    );
}

#[tokio::test]
async fn a_file_system_that_turns_read_only_is_told_from_a_defect() {
    let (store, _dir) = fresh().await;
    store.writer.execute("PRAGMA query_only = 1").await.unwrap();
    assert!(matches!(
        store.commit(journal(1)).await,
        Err(StoreError::ReadOnly(_))
    ));
    assert!(matches!(
        store.decide(decision()).await,
        Err(StoreError::ReadOnly(_))
    ));
}

#[tokio::test]
async fn a_database_from_a_newer_version_is_refused_and_not_touched() {
    let (store, dir) = fresh().await;
    store.close().await;
    meddle(
        &path(&dir),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'future', true, x'00', 0)",
    )
    .await;
    let told = refusal(&path(&dir)).await;
    assert!(
        told.contains("schema 99") && told.contains("newer version"),
        "{told}"
    );
}

#[tokio::test]
async fn a_full_disk_is_said_and_once_there_is_space_it_goes_on() {
    let (store, _dir) = fresh().await;
    store.commit(journal(1)).await.unwrap();
    store
        .writer
        .execute("PRAGMA max_page_count = 1")
        .await
        .unwrap();
    let mut kept = 1;
    let full = loop {
        // Something that does not compress, so that the last pages fill up soon.
        let noise = (0..2000u64).map(|i| (i * i * 2_654_435_761 + kept) as u8 ^ (i >> 3) as u8);
        let flush = Flush {
            snapshot: Some(super::super::Snapshot {
                position: JournalPosition(0),
                taken_at: Timestamp(0),
                bytes: noise.cycle().take(kept as usize * 4096).collect(),
            }),
            ..journal(2)
        };
        match store.commit(flush).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    assert_eq!(
        store.journal(JournalPosition(0), 99).await.unwrap().len(),
        kept as usize
    );
    store
        .writer
        .execute("PRAGMA max_page_count = 1000000")
        .await
        .unwrap();
    store.commit(journal(3)).await.unwrap();
    assert_eq!(
        store.journal(JournalPosition(0), 99).await.unwrap().len(),
        kept as usize + 1
    );
}

#[tokio::test]
async fn garbage_and_another_programs_database_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.db");
    std::fs::write(&garbage, vec![0x42; 8192]).unwrap();
    let told = refusal(&garbage).await;
    assert!(
        told.contains("damaged") && told.contains("restore a backup"),
        "{told}"
    );
    assert_eq!(std::fs::read(&garbage).unwrap(), vec![0x42; 8192]);

    let foreign = dir.path().join("foreign.db");
    meddle(&foreign, "CREATE TABLE theirs (x)").await;
    let told = refusal(&foreign).await;
    assert!(told.contains("another program"), "{told}");
}

#[tokio::test]
async fn a_page_that_was_overwritten_is_found_at_the_start() {
    let (store, dir) = fresh().await;
    store.decide(decision()).await.unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'cord'";
    let page: i64 = sqlx::query_scalar(root)
        .fetch_one(&store.readers)
        .await
        .unwrap();
    store.close().await;
    let mut bytes = std::fs::read(path(&dir)).unwrap();
    let start = (page as usize - 1) * 4096;
    bytes[start..start + 4096].fill(0xff);
    std::fs::write(path(&dir), bytes).unwrap();
    let told = refusal(&path(&dir)).await;
    assert!(told.contains("damaged"), "{told}");
}

fn decision() -> Decision {
    let cord = crate::andon::CordKey {
        rule: "r".into(),
        scope: "fleet".into(),
    };
    Decision {
        cords: vec![(cord, Timestamp(1))],
        ..Decision::default()
    }
}

#[tokio::test]
async fn a_decision_goes_before_commits_that_wait() {
    let (store, _dir) = fresh().await;
    let done = StdMutex::new(Vec::new());
    let commit = async |name| {
        store.commit(journal(1)).await.unwrap();
        done.lock().unwrap().push(name);
    };
    let decide = async {
        store.decide(decision()).await.unwrap();
        done.lock().unwrap().push("decision");
    };
    // One thread: all four are queued before the writer sees the first.
    tokio::join!(commit("first"), commit("second"), commit("third"), decide);
    assert_eq!(
        *done.lock().unwrap(),
        ["decision", "first", "second", "third"]
    );
}

#[tokio::test]
async fn a_backup_is_whole_while_the_writer_goes_on() {
    let (store, dir) = fresh().await;
    for n in 0..20 {
        store.commit(journal(n)).await.unwrap();
    }
    let copy = dir.path().join("copy.db");
    let database = path(&dir);
    let (copied, ()) = tokio::join!(backup(&database, &copy), async {
        for n in 20..40 {
            store.commit(journal(n)).await.unwrap();
        }
    });
    copied.unwrap();
    let again = backup(&path(&dir), &copy).await.unwrap_err().to_string();
    assert!(again.contains("exists already"), "{again}");
    let missing = backup(&dir.path().join("nowhere"), &copy)
        .await
        .unwrap_err()
        .to_string();
    assert!(missing.contains("no database"), "{missing}");

    let restored = SqliteStore::open(&copy).await.unwrap();
    let rows = restored.journal(JournalPosition(0), 99).await.unwrap();
    assert!((20..=40).contains(&rows.len()), "{}", rows.len());
    let entries: Vec<_> = rows.into_iter().flat_map(|(_, entries)| entries).collect();
    let expected: Vec<_> = (0..entries.len() as i64)
        .flat_map(|n| journal(n).journal)
        .collect();
    assert_eq!(entries, expected);
    restored.commit(journal(99)).await.unwrap();
}

#[tokio::test]
async fn space_is_given_back_when_much_was_forgotten() {
    let (store, dir) = fresh().await;
    let snapshot = |n_bytes: u32| super::super::Snapshot {
        position: JournalPosition(0),
        taken_at: Timestamp(0),
        bytes: vec![7; n_bytes as usize],
    };
    for size in [4 << 20, 1] {
        let flush = Flush {
            snapshot: Some(snapshot(size)),
            ..Flush::default()
        };
        store.commit(flush).await.unwrap();
    }
    store
        .retain(until(Timestamp(0), Timestamp(0)))
        .await
        .unwrap();
    store.close().await;
    let length = std::fs::metadata(path(&dir)).unwrap().len();
    assert!(length < 2 << 20, "{length}");
}

#[tokio::test]
async fn a_damaged_chunk_does_not_keep_others_from_being_committed() {
    let (store, _dir) = fresh().await;
    let [first, again] = [sealed("GPU-1", [5], 1), sealed("GPU-1", [6], 2)];
    store.commit(seal(vec![first])).await.unwrap();
    store
        .writer
        .execute("UPDATE chunk SET blob = x'01ff'")
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
async fn a_chunk_goes_as_soon_as_its_last_sample_is_older_than_the_retention() {
    let (store, _dir) = fresh().await;
    let (old, current) = (sealed("GPU-1", [5], 1), sealed("GPU-1", [2000], 2));
    store
        .commit(seal(vec![old.clone(), current.clone()]))
        .await
        .unwrap();
    let boundary = Timestamp(old.stretch.0 + 720_000);
    assert_eq!(
        store.retain(until(boundary, Timestamp(0))).await.unwrap(),
        1
    );
    let left = store.chunks(&old.gpu, old.from, current.to).await.unwrap();
    assert_eq!(left, [current]);
}

#[tokio::test]
async fn a_damaged_row_of_the_journal_or_of_an_agent_is_left_out_and_the_rest_is_read() {
    let (store, _dir) = fresh().await;
    for n in 1..=3 {
        let flush = Flush {
            marks: vec![crate::store::contract::mark(n, "a")],
            ..journal(n.into())
        };
        store.commit(flush).await.unwrap();
    }
    let damage = "UPDATE journal SET entries = substr(entries, 1, 9) WHERE position = 2;
        UPDATE agent_stream SET hello = x'ff' WHERE hex(stream) LIKE '02%'";
    store.writer.execute(damage).await.unwrap();
    let rows = store.journal(JournalPosition(0), 9).await.unwrap();
    let read: Vec<_> = rows.into_iter().map(|(_, entries)| entries).collect();
    assert_eq!(read, [journal(1).journal, vec![], journal(3).journal]);
    let recovered = store.recover().await.unwrap();
    let streams: Vec<_> = recovered
        .streams
        .iter()
        .map(|mark| mark.hello.stream.0[0])
        .collect();
    assert_eq!(streams, [1, 3]);
}

#[tokio::test]
async fn a_journal_row_of_a_newer_version_is_no_damage() {
    let (store, _dir) = fresh().await;
    store.commit(journal(1)).await.unwrap();
    let newer = "UPDATE journal SET entries = x'63' || substr(entries, 2)";
    store.writer.execute(newer).await.unwrap();
    let told = store.journal(JournalPosition(0), 9).await.unwrap_err();
    assert!(told.to_string().contains("a newer entrenar"), "{told}");
}
