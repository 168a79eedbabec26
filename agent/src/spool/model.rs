//! A file system that keeps only what was synced, and the stories that the spool lives through on it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use entrenar::gpu::{GpuInfo, Values};
use entrenar::metric::{ENERGY, POWER};
use entrenar::report::{Batch, Body, GpuEvent, GpuEventKind, Inventory, StreamId, Tick};
use entrenar::unit::Timestamp;
use entrenar_proto::{RangeSet, decode_record};
use proptest::prelude::*;

use super::fs::{Append, Fs};
use super::{KEEP_DURABLE, MIN_BYTES, Now, SYNC_EVERY, Spool, Stored};

#[derive(Debug, Default)]
struct Data {
    bytes: Vec<u8>,
    synced: usize,
}

type Shared = Arc<Mutex<Data>>;

#[derive(Debug, Default)]
struct State {
    /// What the process sees.
    names: BTreeMap<String, Shared>,
    /// What a crash leaves of the names.
    synced_names: BTreeMap<String, Shared>,
    /// Whether the disk takes nothing more.
    full: bool,
}

/// The model. Clones are the same disk.
#[derive(Clone, Debug, Default)]
struct Model(Arc<Mutex<State>>);

struct Open {
    data: Shared,
    disk: Model,
}

impl Model {
    fn set_full(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    /// The power goes. Of what was not synced, `chance` decides what is left: a part, or a part and rubbish.
    fn crash(&self, mut chance: u64) {
        let mut state = self.0.lock().unwrap();
        state.names = state.synced_names.clone();
        for data in state.names.values() {
            let mut data = data.lock().unwrap();
            let loose = data.bytes.len() - data.synced;
            let kept = data.synced + chance as usize % (loose + 1);
            data.bytes.truncate(kept);
            if chance & 1 << 40 != 0 && kept > data.synced {
                data.bytes[kept - 1] ^= 0x5a;
            }
            data.synced = data.bytes.len();
            chance = chance.rotate_left(13);
        }
    }
}

impl Fs for Model {
    type File = Open;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let data = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let bytes = data.lock().unwrap().bytes.clone();
        Ok(bytes)
    }

    fn create(&self, name: &str) -> io::Result<Open> {
        let mut state = self.0.lock().unwrap();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(!state.names.contains_key(name), "{name} is there already");
        let data = Shared::default();
        state.names.insert(name.to_owned(), Arc::clone(&data));
        Ok(Open {
            data,
            disk: self.clone(),
        })
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let mut data = state.names[name].lock().unwrap();
        data.bytes.truncate(length as usize);
        data.synced = data.bytes.len();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().names.remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.synced_names = state.names.clone();
        Ok(())
    }
}

impl Append for Open {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full = self.disk.0.lock().unwrap().full;
        let taken = if full {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        self.data.lock().unwrap().bytes.extend(taken);
        if full {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut data = self.data.lock().unwrap();
        data.synced = data.bytes.len();
        Ok(())
    }
}

/// A spool on the model, driven as its thread drives it, in a time of its own.
struct Node {
    disk: Model,
    spool: Spool<Model>,
    now: Duration,
    /// Every record that was put in: number, when, and its bytes.
    told: Vec<(Duration, Stored)>,
}

fn at(now: Duration) -> Now {
    Now {
        wall: Timestamp(1_700_000_000_000) + now,
        monotonic: now,
    }
}

fn open(disk: &Model, now: Duration) -> Spool<Model> {
    Spool::open(disk.clone(), MIN_BYTES, StreamId([7; 16]), at(now)).expect("the model opens")
}

impl Node {
    fn new() -> Self {
        let disk = Model::default();
        Self {
            spool: open(&disk, Duration::ZERO),
            disk,
            now: Duration::ZERO,
            told: Vec::new(),
        }
    }

    /// Time passes; syncs happen when they are due.
    fn wait(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while let Some(due) = self.spool.sync_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.spool.sync(at(self.now));
        }
        self.now = until;
        self.spool.expire(at(self.now));
    }

    fn put(&mut self, body: Body) -> Stored {
        let stored = self.spool.append(body, at(self.now)).expect("it is small");
        self.told.push((self.now, stored.clone()));
        stored
    }

    fn kept(&mut self) -> Vec<Stored> {
        let (mut all, mut next) = (Vec::new(), 1);
        loop {
            let some = self.spool.read(next, u64::MAX, 10_000);
            let Some(last) = some.last() else { return all };
            next = last.seq + 1;
            all.extend(some);
        }
    }

    fn crash(&mut self, chance: u64) {
        self.disk.crash(chance);
        self.spool = open(&self.disk, self.now);
    }

    fn set_durable(&mut self, first: u64, last: u64) {
        let durable: RangeSet = [(first, last)].into_iter().collect();
        self.spool.set_durable(&durable, at(self.now));
    }
}

fn event(xid: u64) -> Body {
    Body::Event(GpuEvent {
        at: Timestamp(1),
        gpu: None,
        what: GpuEventKind::Xid(xid),
    })
}

/// One tick of eight GPUs, about a hundred bytes.
fn tick(n: u64) -> Body {
    let row = |gpu: i64| {
        let noise = (n as i64 + gpu).wrapping_mul(0x9e37_79b9_7f4a_7c15u64 as i64) >> 33;
        Values::default()
            .with(POWER, 500_000 + noise % 10_000)
            .with(ENERGY, noise)
    };
    Body::Batch(Batch {
        generation: 1,
        gpus: 8,
        n_lost: 0,
        ticks: vec![Tick {
            at: Timestamp(n as i64),
            monotonic_ms: n,
        }],
        rows: (0..8).map(row).collect(),
    })
}

fn inventory(generation: u32) -> Body {
    let gpu = GpuInfo {
        uuid: "GPU-1".into(),
        ..GpuInfo::default()
    };
    Body::Inventory(Inventory {
        generation,
        gpus: vec![gpu],
    })
}

fn n_lost(stored: &Stored) -> u64 {
    match decode_record(&stored.bytes).expect("our own").record.body {
        Body::Batch(batch) => batch.n_lost,
        other => panic!("not a batch: {other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Put,
    Batch,
    Inventory,
    Durable(prop::sample::Index),
    Crash(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u64..700).prop_map(Op::Wait),
        1 => (60_000u64..700_000).prop_map(Op::Wait),
        6 => Just(Op::Put),
        4 => Just(Op::Batch),
        1 => Just(Op::Inventory),
        1 => any::<prop::sample::Index>().prop_map(Op::Durable),
        2 => any::<u64>().prop_map(Op::Crash),
    ]
}

proptest! {
    /// What a crash takes is the end of the story, and no more than its last second.
    #[test]
    fn a_power_cut_takes_at_most_the_last_second(ops in prop::collection::vec(op(), 1..60)) {
        let mut node = Node::new();
        let (mut durable, mut generation) = (0, 0);
        for op in ops {
            match op {
                Op::Wait(ms) => node.wait(ms),
                Op::Put => drop(node.put(event(node.now.as_millis() as u64))),
                Op::Batch => drop(node.put(tick(node.now.as_millis() as u64))),
                Op::Inventory => {
                    generation = node.spool.generation() + 1;
                    node.put(inventory(generation));
                }
                Op::Durable(index) => {
                    durable = durable.max(index.index(node.told.len() + 1) as u64);
                    node.set_durable(1, durable);
                }
                Op::Crash(chance) => {
                    node.crash(chance);
                    // The numbers go on behind what is left.
                    let next = node.spool.facts().next_seq;
                    let lost = node.told.iter().filter(|(_, stored)| stored.seq >= next);
                    for (told_at, stored) in lost {
                        prop_assert!(node.now.saturating_sub(*told_at) <= Duration::from_secs(1), "{} is lost", stored.seq);
                    }
                    node.told.retain(|(_, stored)| stored.seq < next);
                    prop_assert_eq!(node.told.len() as u64, next - 1);
                    prop_assert!(node.spool.generation() <= generation);
                    durable = durable.min(next - 1);
                }
            }
            let kept = node.kept();
            let told = node.told.iter().map(|(_, stored)| stored);
            let expected: Vec<Stored> = match kept.first() {
                Some(first) => told.filter(|s| s.seq >= first.seq).cloned().collect(),
                None => Vec::new(),
            };
            prop_assert_eq!(&kept, &expected);
            let gone_to = kept.first().map_or(node.told.len() as u64, |s| s.seq - 1);
            prop_assert!(gone_to <= durable, "{} is gone, and only {} is durable", gone_to, durable);
        }
    }
}

#[test]
fn syncs_are_less_than_a_second_apart() {
    assert!(SYNC_EVERY < Duration::from_secs(1));
    let mut node = Node::new();
    for _ in 0..50 {
        node.wait(90);
        node.put(event(1));
        let due = node.spool.sync_due().expect("something is not synced");
        assert!(due <= node.now + SYNC_EVERY);
    }
}

#[test]
fn a_full_spool_forgets_the_oldest_and_the_next_batch_says_how_much() {
    let mut node = Node::new();
    let mut reported = 0;
    for n in 0..6_000 {
        reported += n_lost(&node.put(tick(n)));
    }
    let stats = node.spool.stats();
    assert!(stats.bytes <= MIN_BYTES, "{stats:?}");
    assert!(stats.ticks_dropped > 1_000, "{stats:?}");
    assert_eq!(stats.ticks_dropped + stats.records, 6_000);
    let carried: u64 = node.kept().iter().map(n_lost).sum();
    // Batches that carried a count and were forgotten handed it on.
    assert!(reported > carried);
    assert_eq!(carried, stats.ticks_dropped);
}

#[test]
fn what_is_durable_is_no_loss_when_it_is_forgotten() {
    let mut node = Node::new();
    for n in 1..=6_000 {
        node.put(tick(n));
        node.set_durable(1, n);
    }
    assert_eq!(node.spool.stats().ticks_dropped, 0);
}

#[test]
fn durable_records_are_kept_five_minutes_and_the_numbers_for_ever() {
    let mut node = Node::new();
    node.put(tick(1));
    // The next record begins another segment, so that the first can go.
    node.wait(700_000);
    node.put(tick(2));
    node.set_durable(1, 1);
    node.wait(KEEP_DURABLE.as_millis() as u64 - 1);
    assert_eq!(node.kept().len(), 2);
    node.wait(1);
    assert_eq!(node.kept().len(), 1);
    node.set_durable(1, 2);
    node.wait(700_000);
    node.crash(0);
    assert_eq!(node.spool.facts().next_seq, 3);
}

#[test]
fn an_aggregator_that_was_set_back_gets_the_last_minutes_again() {
    let mut node = Node::new();
    node.put(tick(1));
    node.wait(700_000);
    node.put(tick(2));
    node.set_durable(1, 2);
    node.wait(200_000);
    // It lost what it had, and says so; the clock of the first segment starts anew.
    node.spool.set_durable(&RangeSet::new(), at(node.now));
    node.wait(700_000);
    assert_eq!(node.kept().len(), 2);
}

#[test]
fn a_full_disk_leaves_the_newest_records_in_memory() {
    let mut node = Node::new();
    node.put(tick(1));
    node.disk.set_full(true);
    for n in 2..=1_000 {
        node.wait(1000);
        node.put(tick(n));
    }
    let kept = node.kept();
    assert_eq!((kept.len(), kept[0].seq, kept[1].seq), (601, 1, 401));
    node.disk.set_full(false);
    node.wait(2000);
    let told = node.put(tick(1001));
    assert_eq!(n_lost(&told) + kept.iter().map(n_lost).sum::<u64>(), 399);
    node.wait(1000);
    node.crash(0);
    let kept = node.kept();
    assert_eq!(kept.iter().map(|s| s.seq).collect::<Vec<_>>(), [1, 1001]);
    assert_eq!(node.spool.facts().next_seq, 1002);
}

#[test]
fn a_hello_names_every_inventory_that_a_kept_record_needs() {
    let mut node = Node::new();
    let generations = |node: &Node| -> Vec<u32> {
        node.spool
            .facts()
            .inventories
            .iter()
            .map(|i| i.generation)
            .collect()
    };
    node.put(inventory(1));
    node.wait(700_000);
    node.put(tick(1));
    node.put(inventory(2));
    node.set_durable(1, 1);
    node.wait(700_000);
    node.put(tick(2));
    assert_eq!(
        generations(&node),
        [1, 2],
        "the first segment is gone, but the second carries its inventory"
    );
    node.set_durable(1, 4);
    node.wait(700_000);
    assert_eq!(generations(&node), [2]);
    node.crash(0);
    assert_eq!(node.spool.generation(), 2);
}

#[test]
fn numbers_that_were_given_out_twice_begin_a_new_stream() {
    let mut node = Node::new();
    for n in 1..=5 {
        node.put(tick(n));
    }
    node.wait(1000);
    node.crash(0);
    node.put(tick(6));
    node.set_durable(1, 9);
    node.spool.rebirth(StreamId([9; 16]), at(node.now));
    let facts = node.spool.facts();
    assert_eq!(
        (facts.stream, facts.first_seq, facts.next_seq),
        (StreamId([9; 16]), 6, 7)
    );
    node.wait(1000);
    node.crash(0);
    assert_eq!(node.spool.facts().stream, StreamId([9; 16]));
}
