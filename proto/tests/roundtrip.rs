//! Whatever is sent arrives; whatever else arrives is refused without a panic.

use entrenar::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use entrenar::metric::CATALOGUE;
use entrenar::report::{
    Batch, Body, GpuEvent, GpuEventKind, Hello, Holder, HolderChange, Inventory, JobKind, Record,
    StreamId, Tick,
};
use entrenar::unit::Timestamp;
use entrenar_proto::convert::{MAX_GPUS, MAX_TICKS, record_seq};
use entrenar_proto::{
    ConvertError, decode_hello, decode_record, encode_hello, encode_record, wire,
};
use proptest::prelude::*;
use prost::Message as _;

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 /:.-]{1,40}"
}

fn maybe_text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(text())
}

/// Small numbers, large ones, and the ends.
fn value() -> impl Strategy<Value = i64> {
    prop_oneof![0i64..100, -5_000i64..5_000, (i64::MIN + 1)..=i64::MAX]
}

fn row() -> impl Strategy<Value = Values> {
    prop::collection::vec((0..CATALOGUE.len(), value()), 0..30).prop_map(|cells| {
        cells.into_iter().fold(Values::default(), |row, (slot, v)| {
            row.with(CATALOGUE[slot].id, v)
        })
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    (0u32..5, 0usize..6).prop_flat_map(|(gpus, n_ticks)| {
        let rows = prop::collection::vec(row(), gpus as usize * n_ticks);
        let ticks = prop::collection::vec((any::<i64>(), any::<u64>()), n_ticks);
        (any::<u32>(), any::<u64>(), rows, ticks).prop_map(
            move |(generation, n_lost, rows, ticks)| {
                let tick = |(at, monotonic_ms)| Tick {
                    at: Timestamp(at),
                    monotonic_ms,
                };
                Batch {
                    generation,
                    gpus,
                    n_lost,
                    ticks: ticks.into_iter().map(tick).collect(),
                    rows,
                }
            },
        )
    })
}

fn gpu() -> impl Strategy<Value = GpuInfo> {
    (
        text(),
        any::<u32>(),
        text(),
        maybe_text(),
        maybe_text(),
        any::<Option<u64>>(),
    )
        .prop_map(
            |(uuid, index, name, pci_bus_id, serial, memory_total_bytes)| GpuInfo {
                parent: serial.as_deref().map(GpuUuid::from),
                uuid: GpuUuid::from(uuid),
                index,
                name,
                pci_bus_id,
                serial,
                memory_total_bytes,
            },
        )
}

fn inventory() -> impl Strategy<Value = Inventory> {
    (any::<u32>(), prop::collection::vec(gpu(), 0..9))
        .prop_map(|(generation, gpus)| Inventory { generation, gpus })
}

fn holder() -> impl Strategy<Value = Holder> {
    let kind = prop::sample::select(vec![
        JobKind::Unknown,
        JobKind::Train,
        JobKind::Inference,
        JobKind::Interactive,
    ]);
    let pids = prop::collection::vec(any::<u32>(), 0..8);
    (text(), kind, prop::array::uniform5(maybe_text()), pids).prop_map(
        |(job, kind, texts, pids)| {
            let [rank_group, namespace, pod, container, user] = texts;
            Holder {
                job,
                kind,
                rank_group,
                namespace,
                pod,
                container,
                user,
                pids,
            }
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let event = (any::<i64>(), maybe_text(), any::<u64>()).prop_map(|(at, gpu, xid)| GpuEvent {
        at: Timestamp(at),
        gpu: gpu.map(GpuUuid::from),
        what: GpuEventKind::Xid(xid),
    });
    let change =
        (any::<i64>(), text(), prop::option::of(holder())).prop_map(|(at, gpu, holder)| {
            HolderChange {
                at: Timestamp(at),
                gpu: GpuUuid::from(gpu),
                holder,
            }
        });
    let body = prop_oneof![
        batch().prop_map(Body::Batch),
        event.prop_map(Body::Event),
        change.prop_map(Body::Holder),
        inventory().prop_map(Body::Inventory),
    ];
    (any::<u64>(), body).prop_map(|(seq, body)| Record { seq, body })
}

fn hello() -> impl Strategy<Value = Hello> {
    let labels = prop::collection::btree_map(text(), text(), 0..4);
    let inventories = prop::collection::vec(inventory(), 0..3);
    (
        any::<[u8; 16]>(),
        text(),
        labels,
        inventories,
        maybe_text(),
        any::<[u64; 2]>(),
    )
        .prop_map(
            |(stream, node, labels, inventories, driver_version, [first_seq, next_seq])| Hello {
                stream: StreamId(stream),
                node: NodeId::from(node),
                labels,
                inventories,
                agent_version: "0.1.0".to_owned(),
                driver_version,
                interval_ms: 1000,
                batch_ticks: 1,
                first_seq,
                next_seq,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_record_survives_the_wire(record in record()) {
        let bytes = encode_record(&record);
        prop_assert_eq!(record_seq(&bytes), Some(record.seq));
        let decoded = decode_record(&bytes).expect("our own bytes");
        prop_assert_eq!(decoded.n_unknown_metrics, 0);
        prop_assert_eq!(decoded.record, record);
    }

    #[test]
    fn a_hello_survives_the_wire(hello in hello()) {
        prop_assert_eq!(decode_hello(&encode_hello(&hello)).expect("our own bytes"), hello);
    }

    /// A flipped bit may make another valid message; it never makes a panic.
    #[test]
    fn broken_bytes_break_nothing(record in record(), hello in hello(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        for bytes in [encode_record(&record), encode_hello(&hello)] {
            let cut = &bytes[..at.index(bytes.len() + 1)];
            let _ = (decode_record(cut), decode_hello(cut));
            let mut flipped = bytes.clone();
            if !flipped.is_empty() {
                let at = at.index(flipped.len());
                flipped[at] ^= 1 << bit;
            }
            let _ = (decode_record(&flipped), decode_hello(&flipped), record_seq(&flipped));
        }
    }

    #[test]
    fn columns_of_any_bytes_break_nothing(columns in prop::collection::vec(any::<u8>(), 0..200), gpus in 0u32..9) {
        // The first byte is right, so that what is behind it is looked at.
        let columns: Vec<u8> = std::iter::once(1).chain(columns).collect();
        let batch = wire::Batch { gpus, tick_at_ms: vec![1, 1], tick_monotonic_ms: vec![1, 1], columns: columns.into(), ..Default::default() };
        let record = wire::Record { seq: 1, body: Some(wire::record::Body::Batch(batch)) };
        let _ = decode_record(&record.encode_to_vec());
    }
}

fn refused(batch: wire::Batch) -> ConvertError {
    let record = wire::Record {
        seq: 1,
        body: Some(wire::record::Body::Batch(batch)),
    };
    decode_record(&record.encode_to_vec()).expect_err("it makes no sense")
}

#[test]
fn a_small_message_cannot_ask_for_much_memory() {
    let ticks = |n: usize| vec![1i64; n];
    let batch = |n: usize, gpus: usize| wire::Batch {
        gpus: gpus as u32,
        tick_at_ms: ticks(n),
        tick_monotonic_ms: ticks(n),
        ..Default::default()
    };
    let check = |error: ConvertError, said: &str| {
        assert!(
            error.to_string().contains(said),
            "{error} is not about {said}"
        );
    };
    check(refused(batch(MAX_TICKS + 1, 1)), "ticks");
    check(refused(batch(1, MAX_GPUS + 1)), "GPUs");
    check(refused(batch(1, u32::MAX as usize)), "GPUs");
    check(refused(batch(MAX_TICKS, MAX_GPUS)), "rows");
    let uneven = wire::Batch {
        tick_monotonic_ms: ticks(2),
        ..batch(1, 1)
    };
    check(refused(uneven), "1 wall times and 2 monotonic");
}

#[test]
fn a_record_of_a_later_kind_is_told_apart_from_nonsense() {
    let later = wire::Record { seq: 9, body: None }.encode_to_vec();
    assert!(matches!(
        decode_record(&later),
        Err(ConvertError::UnknownKind(_))
    ));
    assert!(matches!(
        decode_record(&[0xff; 9]),
        Err(ConvertError::Malformed { .. })
    ));
    assert!(matches!(decode_hello(&[]), Err(ConvertError::Missing(_))));
}
