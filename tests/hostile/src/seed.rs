//! What a fuzzer begins with: blobs of every shape, made by the writers themselves.

use std::time::Duration;

use entrenar::gpu::{GpuInfo, Values};
use entrenar::metric::{ENERGY, POWER, PROCESSES, TEMPERATURE};
use entrenar::report::{
    Batch, Body, GpuEvent, GpuEventKind, Hello, Holder, HolderChange, Inventory, Record, StreamId,
    Tick,
};
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk::{self, Profile, Sample};
use entrenar_aggregator::rollup;
use entrenar_aggregator::store::{JournalEntry, journal};
use entrenar_proto::{encode_hello, encode_record};

const START: i64 = 1_700_000_000;

/// A busy GPU at 1 Hz: a steady metric, a noisy one, a counter that is reset, and one that is absent now and then.
fn busy_gpu(ticks: i64) -> Vec<Sample> {
    let row = |second: i64| {
        let noise = second * 7919 % 257;
        let row = Values::default()
            .with(TEMPERATURE, 64)
            .with(POWER, 650_000 + noise * 100)
            .with(ENERGY, second % 200 * 650_000 + noise)
            .with(PROCESSES, (second % 10 == 0).then_some(second % 3));
        (Timestamp::from_secs(START + second), row)
    };
    (0..ticks).map(row).collect()
}

/// Of one sample, of some, and of so many that noise is worth `pco`.
pub fn chunks() -> Vec<Vec<u8>> {
    let encode = |(ticks, profile)| chunk::encode(&busy_gpu(ticks), profile);
    let cases = [
        (1, Profile::Exact),
        (20, Profile::Sensor),
        (150, Profile::Exact),
    ];
    cases
        .into_iter()
        .filter_map(|case| encode(case).ok())
        .collect()
}

/// Of a part of a minute, and of some minutes.
pub fn rollups() -> Vec<Vec<u8>> {
    let chunks = [1, 20, 300].map(|ticks| chunk::encode(&busy_gpu(ticks), Profile::Exact));
    let sums = |blob: Vec<u8>| rollup::of_chunk(&blob, Duration::from_mins(12)).ok();
    let all = chunks.into_iter().flatten().filter_map(sums).flatten();
    all.map(|(_, blob)| blob).collect()
}

/// Of every kind of entry.
pub fn journals() -> Vec<Vec<u8>> {
    let (stream, received_at) = (StreamId([7; 16]), Timestamp::from_secs(START));
    let entries = [
        JournalEntry::Hello {
            received_at,
            stream,
            bytes: encode_hello(&hello()),
        },
        JournalEntry::Record {
            received_at,
            sent_at: received_at,
            stream,
            bytes: encode_record(&batch()),
        },
        JournalEntry::Advance { to: received_at },
        JournalEntry::Goodbye {
            received_at,
            stream,
        },
    ];
    [&entries[..], &entries[2..], &[]]
        .into_iter()
        .filter_map(|entries| journal::encode(entries).ok())
        .collect()
}

/// Of times, and of metrics.
pub fn sheets() -> Vec<Vec<u8>> {
    let recipes: [&[u8]; 2] = [&[7; 40], b"every good boy deserves fun and a second line"];
    recipes.into_iter().flat_map(crate::sheet::write).collect()
}

/// Of every kind of record, and a hello.
pub fn wires() -> Vec<Vec<u8>> {
    let at = Timestamp::from_secs(START);
    let change = HolderChange {
        at,
        gpu: "GPU-1".into(),
        holder: Some(Holder {
            job: "train".into(),
            pids: vec![7, 8],
            ..Holder::default()
        }),
    };
    let event = GpuEvent {
        at,
        gpu: None,
        what: GpuEventKind::Xid(79),
    };
    let record = |body| encode_record(&Record { seq: 3, body });
    vec![
        encode_record(&batch()),
        record(Body::Event(event)),
        record(Body::Holder(change)),
        record(Body::Inventory(inventory())),
        encode_hello(&hello()),
    ]
}

fn batch() -> Record {
    let samples = busy_gpu(24);
    let tick = |tick: &[Sample]| Tick {
        at: tick[0].0,
        monotonic_ms: 5000,
    };
    let batch = Batch {
        generation: 1,
        gpus: 3,
        n_lost: 2,
        ticks: samples.chunks(3).map(tick).collect(),
        rows: samples.into_iter().map(|(_, row)| row).collect(),
    };
    Record {
        seq: 9,
        body: Body::Batch(batch),
    }
}

fn inventory() -> Inventory {
    let gpu = GpuInfo {
        uuid: "GPU-1".into(),
        index: 0,
        name: "H100".into(),
        pci_bus_id: Some("0000:1b:00.0".into()),
        serial: None,
        memory_total_bytes: Some(80 << 30),
        parent: None,
    };
    Inventory {
        generation: 1,
        gpus: vec![gpu],
    }
}

fn hello() -> Hello {
    Hello {
        stream: StreamId([7; 16]),
        node: "node-1".into(),
        labels: [("rack".to_owned(), "r1".to_owned())].into(),
        inventories: vec![inventory()],
        agent_version: "1.0".into(),
        driver_version: Some("580.1".into()),
        interval_ms: 1000,
        batch_ticks: 1,
        first_seq: 1,
        next_seq: 9,
    }
}
