//! What is readable in a damaged database is kept, and what is not is named.

use entrenar::metric::POWER;

use super::*;
use crate::store::contract::{BASE, holder, mark};

/// A database with some of everything, closed.
async fn filled() -> (PathBuf, TempDir) {
    let (store, dir) = fresh().await;
    let chunks = |gpu: i64| sealed(&format!("GPU-{gpu}"), gpu..gpu + 9, gpu);
    store
        .commit(seal((0..100).map(chunks).collect()))
        .await
        .unwrap();
    for n in 0..40 {
        // Of many pages each, so that a page of the table's tree is not the whole table.
        let flush = Flush {
            journal: vec![JournalEntry::Hello {
                received_at: Timestamp(n),
                stream: entrenar::report::StreamId([n as u8; 16]),
                bytes: (0..9000u32)
                    .map(|i| (i.wrapping_mul(i).wrapping_mul(2_654_435_761) >> 9) as u8)
                    .collect(),
            }],
            marks: vec![mark(n as u8, "a")],
            holders: vec![holder("GPU-7", n, Some("train"))],
            ..Flush::default()
        };
        store.commit(flush).await.unwrap();
    }
    store.decide(decision()).await.unwrap();
    store.close().await;
    (path(&dir), dir)
}

/// Overwrites some pages, each the `n`th of some kind of a table.
async fn overwrite(database: &Path, pages: &[(&str, &str, i64)]) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut db = options.connect().await.unwrap();
    let mut bytes = std::fs::read(database).unwrap();
    for (table, kind, n) in pages {
        let page: i64 = sqlx::query_scalar(
            "SELECT pageno FROM dbstat WHERE name = $1 AND pagetype = $2 ORDER BY pageno LIMIT 1 OFFSET $3",
        )
        .bind(*table)
        .bind(*kind)
        .bind(n)
        .fetch_one(&mut db)
        .await
        .unwrap();
        let start = (page as usize - 1) * 4096;
        bytes[start..start + 4096].fill(0xff);
    }
    sqlx::Connection::close(db).await.unwrap();
    std::fs::write(database, bytes).unwrap();
}

/// What was kept of a table, and what was lost.
fn of<'a>(salvaged: &'a [Salvaged], table: &str) -> (u64, &'a [String]) {
    let found = salvaged.iter().find(|one| one.table == table).unwrap();
    (found.n_kept, &found.lost)
}

#[tokio::test]
async fn a_sound_database_is_recovered_as_a_whole() {
    let (database, dir) = filled().await;
    let out = dir.path().join("new.db");
    let salvaged = recover(&database, &out).await.unwrap();
    let lost = salvaged.iter().flat_map(|one| &one.lost);
    assert_eq!(lost.collect::<Vec<_>>(), [] as [&String; 0]);
    let (before, after) = (
        SqliteStore::open(&database).await.unwrap(),
        SqliteStore::open(&out).await.unwrap(),
    );
    assert_eq!(
        before.journal(JournalPosition(0), 99).await.unwrap(),
        after.journal(JournalPosition(0), 99).await.unwrap()
    );
    let [old, new] = [
        before.recover().await.unwrap(),
        after.recover().await.unwrap(),
    ];
    assert_eq!(
        (old.streams, old.holders, old.cords),
        (new.streams, new.holders, new.cords)
    );
    for gpu in 0..100 {
        let gpu = GpuUuid::from(format!("GPU-{gpu}"));
        let all = (Timestamp(0), Timestamp(i64::MAX));
        assert_eq!(
            before.chunks(&gpu, all.0, all.1).await.unwrap(),
            after.chunks(&gpu, all.0, all.1).await.unwrap()
        );
    }
    let next = after.commit(journal(1)).await.unwrap().position;
    assert!(JournalPosition(40) < next, "{next:?}");
}

#[tokio::test]
async fn all_but_the_damaged_rows_are_recovered_and_those_are_named() {
    let (database, dir) = filled().await;
    meddle(&database, "UPDATE chunk SET blob = x'0102' WHERE id = 7").await;
    let pages = [
        ("journal", "overflow", 3),
        ("rollup", "leaf", 1),
        ("cord", "leaf", 0),
    ];
    overwrite(&database, &pages).await;
    let before = std::fs::read(&database).unwrap();
    let out = dir.path().join("new.db");
    let salvaged = recover(&database, &out).await.unwrap();
    assert!(
        std::fs::read(&database).unwrap() == before,
        "it was changed"
    );

    let told = refusal(&database).await;
    assert!(told.contains("entrenar recover"), "{told}");

    let (n_chunks, lost) = of(&salvaged, "chunk");
    assert_eq!(n_chunks, 99);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].starts_with("GPU-6 from 2023-11-"), "{lost:?}");
    let (n_rows, lost) = of(&salvaged, "journal");
    assert_eq!((n_rows, lost.len()), (39, 1), "{lost:?}");
    let (n_sums, lost) = of(&salvaged, "rollup");
    assert!((100..200).contains(&n_sums), "{n_sums}");
    assert!(lost[0].starts_with("whatever was in rows "), "{lost:?}");
    let (n_cords, lost) = of(&salvaged, "cord");
    assert_eq!((n_cords, lost.len()), (0, 1));

    let again = SqliteStore::open(&out).await.unwrap();
    assert_eq!(again.recover().await.unwrap().streams.len(), 40);
    assert_eq!(
        again.journal(JournalPosition(0), 99).await.unwrap().len(),
        39
    );
}

#[tokio::test]
async fn sums_of_which_a_part_is_damaged_are_left_out_and_their_samples_are_read() {
    let (database, dir) = filled().await;
    let store = SqliteStore::open(&database).await.unwrap();
    let far = BASE + Duration::from_hours(999);
    assert!(store.compact(far).await.unwrap() > 0);
    store.close().await;
    let sql = "UPDATE rollup_sheet_1m SET blob = x'0102' WHERE metric > 0";
    meddle(&database, sql).await;
    let out = dir.path().join("new.db");
    let salvaged = recover(&database, &out).await.unwrap();
    let (n_kept, lost) = of(&salvaged, "rollup_sheet_1m");
    assert_eq!((n_kept, lost.is_empty()), (0, false));
    let damaged = format!("metric {} of cohort 0 from ", POWER.0);
    assert!(lost[0].starts_with(&damaged), "{lost:?}");
    assert!(
        lost.last().unwrap().contains("belong to a lost one"),
        "{lost:?}"
    );
    let (n_kept, lost) = of(&salvaged, "rollup_sheet_1h");
    assert_eq!((n_kept > 0, lost), (true, &[][..]));

    let again = SqliteStore::open(&out).await.unwrap();
    let gpus = [GpuUuid::from("GPU-7")];
    let has_sums = async |step| {
        let asked = again.rollups(&gpus, &[POWER], step, BASE, far);
        let found = asked.await.unwrap().concat();
        found
            .iter()
            .map(|stored| stored.sums.is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(has_sums(Duration::from_mins(1)).await, [false]);
    assert_eq!(has_sums(Duration::from_hours(1)).await, [true]);
    let samples = again.chunks(&gpus[0], BASE, far).await.unwrap();
    assert_eq!(samples[0].n_samples, 9);
}

#[tokio::test]
async fn a_database_in_use_is_not_recovered_and_nothing_is_overwritten() {
    let (store, dir) = fresh().await;
    let out = dir.path().join("new.db");
    let told = recover(&path(&dir), &out).await.unwrap_err().to_string();
    assert!(told.contains("another aggregator has"), "{told}");
    store.close().await;
    drop(store);
    std::fs::write(&out, "mine").unwrap();
    let told = recover(&path(&dir), &out).await.unwrap_err().to_string();
    assert!(told.contains("exists already"), "{told}");
    assert_eq!(std::fs::read(&out).unwrap(), b"mine");
}
