//! `entrenar recover` as people run it on a damaged database.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use entrenar::gpu::{GpuUuid, Values};
use entrenar::metric::POWER;
use entrenar::report::StreamId;
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk::{self, Profile, stretch};
use entrenar_aggregator::store::{
    Flush, JournalEntry, JournalPosition, SealedChunk, SqliteStore, Store as _, journal,
};

const GPUS: i64 = 10;
const ROWS: i64 = 40;
const PAGE_BYTES: usize = 4096;
const BEGIN: Timestamp = Timestamp(1_700_000_000_000);

fn gpu(n: i64) -> GpuUuid {
    GpuUuid::from(format!("GPU-{n}"))
}

/// Nine samples of a GPU.
fn sealed(n: i64) -> SealedChunk {
    let at = |second| BEGIN + Duration::from_secs(second);
    let sample = |second| (at(second), Values::default().with(POWER, n * 1000));
    let samples: Vec<_> = (0..9).map(sample).collect();
    let length = stretch::length(Duration::from_secs(1));
    SealedChunk {
        gpu: gpu(n),
        stretch: stretch::start(&gpu(n), length, at(0)),
        length_ms: length.as_millis() as u32,
        from: at(0),
        to: at(8),
        n_samples: 9,
        blob: chunk::encode(&samples, Profile::Exact).expect("encoded"),
    }
}

/// What becomes a journal row of several pages: noise, that no codec makes smaller.
fn entries(n: i64) -> Vec<JournalEntry> {
    let noise = |i: u64| {
        let mixed = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8
    };
    vec![JournalEntry::Hello {
        received_at: Timestamp(n),
        stream: StreamId([n as u8; 16]),
        bytes: (0..9000).map(|i| noise(9000 * n as u64 + i)).collect(),
    }]
}

async fn fill(database: &Path) {
    let store = SqliteStore::open(database).await.expect("a new database");
    let flush = Flush {
        sealed: (0..GPUS).map(sealed).collect(),
        ..Flush::default()
    };
    store.commit(flush).await.expect("kept");
    for n in 1..=ROWS {
        let flush = Flush {
            journal: entries(n),
            ..Flush::default()
        };
        let kept = store.commit(flush).await.expect("kept");
        assert_eq!(kept.position, JournalPosition(n));
    }
    store.close().await;
}

/// Where these bytes, which are there once, lie in a file.
fn place(file: &[u8], bytes: &[u8]) -> usize {
    let places = file.windows(bytes.len()).enumerate();
    let mut found = places.filter_map(|(at, window)| (window == bytes).then_some(at));
    let at = found.next().expect("it is there");
    assert_eq!(found.next(), None, "it is there twice");
    at
}

/// A flipped bit in the chunk of GPU 6, and a page of journal row 17 that is overwritten.
fn damage(database: &Path) {
    let mut file = fs::read(database).expect("read");
    let at = place(&file, &sealed(6).blob);
    file[at + 8] ^= 1;
    let row = journal::encode(&entries(17)).expect("encoded");
    let middle = &row[row.len() / 2..][..64];
    let page = place(&file, middle) / PAGE_BYTES * PAGE_BYTES;
    file[page..page + PAGE_BYTES].fill(0xff);
    fs::write(database, file).expect("written");
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

fn recover(database: &Path, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_entrenar"));
    command.arg("recover").arg("--database-url");
    command.arg(format!("sqlite:{}", database.display()));
    command.arg("--output").arg(out).output().expect("runs")
}

fn text(said: &[u8]) -> String {
    String::from_utf8_lossy(said).into_owned()
}

/// A folder, a database in it, and where the new one is to be.
fn places() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let [database, out] = ["entrenar.db", "new.db"].map(|name| dir.path().join(name));
    (dir, database, out)
}

#[test]
fn all_but_the_damaged_rows_are_in_the_new_database_and_the_lost_ones_are_named() {
    let (_dir, database, out) = places();
    block_on(fill(&database));
    damage(&database);
    let damaged = fs::read(&database).expect("read");

    let output = recover(&database, &out);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    let lost = format!("chunk: lost: GPU-6 from {}", sealed(6).stretch);
    for line in [
        "chunk: 9 rows kept",
        &lost,
        "journal: 39 rows kept",
        "journal: lost: row 17",
        "gpu: 10 rows kept",
    ] {
        assert!(lines.contains(&line), "`{line}` is not in:\n{said}");
    }
    let n_lost = lines.iter().filter(|line| line.contains("lost")).count();
    assert_eq!(n_lost, 2, "{said}");
    assert_eq!(lines.last().copied(), out.to_str());
    assert!(
        fs::read(&database).expect("read") == damaged,
        "the damaged one was changed"
    );

    block_on(async {
        let store = SqliteStore::open(&out).await.expect("a sound database");
        let rows = store.journal(JournalPosition(0), 99).await.expect("read");
        let kept = (1..=ROWS).filter(|n| *n != 17);
        let kept: Vec<_> = kept.map(|n| (JournalPosition(n), entries(n))).collect();
        assert!(rows == kept, "the journal is another");
        for n in 0..GPUS {
            let found = store.chunks(&gpu(n), Timestamp(0), Timestamp(i64::MAX));
            let kept = (n != 6).then(|| sealed(n));
            assert_eq!(found.await.expect("read"), Vec::from_iter(kept));
        }
        store.close().await;
    });
}

#[test]
fn a_database_that_is_not_there_and_a_file_that_is_are_refused_with_what_to_do() {
    let (_dir, database, out) = places();
    let refused = |words: &[&str]| {
        let output = recover(&database, &out);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
        assert_eq!(text(&output.stdout), "");
    };
    let at = database.display().to_string();
    refused(&["there is no database at", &at, "--database-url"]);
    assert!(!database.exists() && !out.exists(), "something was made");

    block_on(fill(&database));
    fs::write(&out, "mine").expect("written");
    refused(&["new.db exists already", "choose another file"]);
    assert_eq!(fs::read(&out).expect("read"), b"mine");
}

#[test]
fn what_is_no_sqlite_address_is_bad_usage() {
    let (_dir, _, out) = places();
    for url in ["postgres://somewhere/fleet", "sqlite:", "entrenar.db"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_entrenar"));
        command.args(["recover", "--database-url", url, "--output"]);
        let output = command.arg(&out).output().expect("runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{url}: {said}");
        assert!(said.contains("give sqlite:PATH"), "{url}: {said}");
    }
}
