//! What every store must hold to, whatever it is made of. Each function is one clause, given an empty store.

mod decisions;
mod history;

use std::time::Duration;

use entrenar::gpu::{GpuUuid, Values};
use entrenar::metric::POWER;
use entrenar::report::{GpuEvent, GpuEventKind, Hello, Holder, HolderChange, Inventory, StreamId};
use entrenar::unit::Timestamp;

use super::*;
use crate::andon::{Kind, Resolution, Severity};
use crate::chunk::{self, stretch};
use crate::incident::testing::incident;
use crate::incident::{Notice, NoticeEvent, State};
use crate::query::bucket::Bucket;
use crate::rollup;

/// Makes a test of each clause, for a store that `$fresh` gives with whatever must live as long.
macro_rules! contract {
    ($fresh:expr) => {
        contract!($fresh;
            what_is_committed_is_found_again
            positions_rise_even_when_everything_is_forgotten
            the_journal_is_read_in_pages_from_after_a_position
            sealing_the_same_stretch_again_merges
            what_a_chunk_comes_to_stands_beside_it_and_outlives_it
            a_chunk_that_cannot_be_summed_up_holds_up_nobody
            a_stretch_in_which_a_longer_one_begins_is_summed_up_by_every_step
            chunks_are_found_by_gpu_and_overlap_oldest_first
            sums_that_are_laid_together_come_to_the_same
            what_was_reported_is_found_by_node_and_time
            a_snapshot_stands_at_the_journal_row_of_its_own_flush
            deciding_twice_is_harmless_and_old_news_are_ignored
            a_cord_has_one_open_incident_and_a_refused_decision_leaves_no_trace
            what_a_person_closed_is_recovered_until_its_cord_has_cleared
            incidents_are_filtered_and_paged_newest_first
            attempts_are_counted_and_a_settled_notice_is_no_longer_pending
            retention_drops_what_is_old_and_keeps_what_is_open_or_current
            a_forgotten_node_is_no_longer_expected
        );
    };
    ($fresh:expr; $($clause:ident)*) => {$(
        #[tokio::test]
        async fn $clause() {
            // None: skipped, and said so.
            let Some((store, _alive)) = $fresh.await else { return };
            $crate::store::contract::$clause(&store).await;
        }
    )*};
}
pub(crate) use contract;

pub(crate) use decisions::*;
pub(crate) use history::*;

/// What 720 ticks at 1 Hz make.
const LENGTH: Duration = Duration::from_mins(12);

pub(crate) const BASE: Timestamp = Timestamp::from_secs(1_700_000_000);

fn at(secs: i64) -> Timestamp {
    Timestamp(BASE.0 + secs * 1000)
}

fn stream(n: u8) -> StreamId {
    StreamId([n; 16])
}

fn entry(n: u8) -> JournalEntry {
    JournalEntry::Record {
        received_at: at(n.into()),
        sent_at: at(0),
        stream: stream(1),
        bytes: vec![n; 5],
    }
}

fn journal(n: u8) -> Flush {
    Flush {
        journal: vec![entry(n), JournalEntry::Advance { to: at(n.into()) }],
        ..Flush::default()
    }
}

pub(crate) fn mark(n: u8, node: &str) -> StreamMark {
    StreamMark {
        hello: Hello {
            stream: stream(n),
            node: node.into(),
            labels: [("rack".to_owned(), "r1".to_owned())].into(),
            inventories: vec![Inventory::default()],
            agent_version: "1.0".into(),
            driver_version: None,
            interval_ms: 1000,
            batch_ticks: 1,
            first_seq: 1,
            next_seq: 9,
        },
        durable: vec![(1, 5), (7, u64::MAX)],
        last_received_at: at(n.into()),
        gone: n.is_multiple_of(2),
    }
}

pub(crate) fn holder(gpu: &str, secs: i64, job: Option<&str>) -> HolderChange {
    HolderChange {
        at: at(secs),
        gpu: gpu.into(),
        holder: job.map(|job| Holder {
            job: job.into(),
            pids: vec![7],
            ..Holder::default()
        }),
    }
}

/// A chunk with a sample at each of these seconds, whose power is `value`.
pub(crate) fn sealed(gpu: &str, secs: impl IntoIterator<Item = i64>, value: i64) -> SealedChunk {
    let gpu = GpuUuid::from(gpu);
    let samples: Vec<_> = secs
        .into_iter()
        .map(|s| (at(s), Values::default().with(POWER, value)))
        .collect();
    SealedChunk {
        stretch: stretch::start(&gpu, LENGTH, samples[0].0),
        length_ms: LENGTH.as_millis() as u32,
        from: samples[0].0,
        to: samples[samples.len() - 1].0,
        n_samples: samples.len() as u32,
        blob: chunk::encode(&samples, chunk::Profile::Exact).unwrap(),
        gpu,
    }
}

/// Chunks before one instant go, and sums with them; incidents before another.
pub(crate) fn until(before: Timestamp, incidents_before: Timestamp) -> Retention {
    Retention {
        chunks_before: before,
        minutes_before: before,
        hours_before: before,
        incidents_before,
    }
}

pub(crate) fn seal(sealed: Vec<SealedChunk>) -> Flush {
    Flush {
        sealed,
        ..Flush::default()
    }
}

/// First second after `BASE` at which a stretch of this GPU begins.
fn stretch_second(gpu: &str) -> i64 {
    let start = stretch::start(&gpu.into(), LENGTH, at(720));
    (start.0 - BASE.0).div_euclid(1000) + 1
}
