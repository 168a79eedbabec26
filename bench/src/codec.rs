//! The codecs alone: wire, chunk and journal, on the data of a simulated fleet. CPU time by criterion.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use criterion::{BenchmarkId, Criterion, Throughput};
use entrenar::gpu::Values;
use entrenar::metric::POWER;
use entrenar::report::{Record, StreamId};
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk::stretch::TICKS;
use entrenar_aggregator::chunk::{self, Profile};
use entrenar_aggregator::rollup;
use entrenar_aggregator::store::JournalEntry;
use entrenar_aggregator::store::journal;
use entrenar_proto::wire::{AgentMessage, agent_message::What};
use entrenar_proto::{decode_record, encode_record};
use prost::Message as _;

use crate::fleet::{self, NodeTicks, n_samples};
use crate::measure::CpuTime;
use crate::report::Section;

const SECOND: Duration = Duration::from_secs(1);
const START: Timestamp = Timestamp::from_secs(1_790_000_000);
/// One block of the simulator's usual mix: training, inference, notebooks, idle GPUs.
const NODES: u32 = 8;
/// Records in a group commit: a tenth of a second of 1,000 nodes.
const RECORDS_A_COMMIT: usize = 100;

/// What one codec does with one set of data.
struct Case {
    name: &'static str,
    samples: usize,
    bytes: usize,
    encode: Box<dyn Fn()>,
    decode: Box<dyn Fn()>,
}

/// Measures all of them.
pub fn run() -> Result<()> {
    let nodes = fleet::simulate(NODES, TICKS, SECOND)?;
    let cases = [
        wire(&nodes, 1),
        wire(&nodes, 10),
        chunks(&nodes, Profile::Exact, "chunk, 720 ticks of a GPU, exact")?,
        chunks(&nodes, Profile::Sensor, "chunk, 720 ticks of a GPU, sensor")?,
        rollups(&nodes)?,
        commit(&nodes)?,
    ];
    let home = tempfile::tempdir()?;
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .output_directory(home.path())
        .without_plots()
        .sample_size(20)
        .warm_up_time(SECOND)
        .measurement_time(3 * SECOND);
    let mut rows = Vec::new();
    for case in &cases {
        let encode_ns = measure(&mut criterion, home.path(), case, "encode", &case.encode)?;
        let decode_ns = measure(&mut criterion, home.path(), case, "decode", &case.decode)?;
        rows.push([
            case.name.to_owned(),
            format!("{encode_ns:.1}"),
            format!("{decode_ns:.1}"),
            format!("{:.3}", case.bytes as f64 / case.samples as f64),
        ]);
    }
    publish(&nodes, &rows)
}

fn publish(nodes: &[NodeTicks], rows: &[[String; 4]]) -> Result<()> {
    let mut section = Section::default();
    let all: usize = nodes.iter().map(NodeTicks::n_samples).sum();
    let gpu_ticks = nodes.len() * fleet::GPUS * TICKS as usize;
    section.say(format!(
        "{} nodes of 8 GPUs in the simulator's usual mix, {TICKS} ticks at 1 s, slow metrics at each tenth: {:.1} \
         values a GPU and tick. CPU time of one thread, criterion's median of 20 samples. Goals on the wire: 2.4 B with \
         one tick a message, 1.8 B with ten.",
        nodes.len(),
        all as f64 / gpu_ticks as f64,
    ));
    section.table(
        ["codec", "encode ns/sample", "decode ns/sample", "B/sample"],
        rows,
    );
    section.publish("codec")
}

/// Runs one of a case's two halves; nanoseconds of CPU a sample.
fn measure(
    criterion: &mut Criterion<CpuTime>,
    home: &Path,
    case: &Case,
    half: &str,
    work: &dyn Fn(),
) -> Result<f64> {
    let mut group = criterion.benchmark_group(half);
    group.throughput(Throughput::Elements(case.samples as u64));
    let id = case.name.replace([' ', ','], "_");
    group.bench_function(BenchmarkId::from_parameter(&id), |bencher| {
        bencher.iter(work);
    });
    group.finish();
    let path = home.join(half).join(&id).join("new/estimates.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("criterion left no estimates in {}", path.display()))?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    let ns = estimates["median"]["point_estimate"].as_f64();
    Ok(ns.context("criterion's estimates have another form")? / case.samples as f64)
}

/// Whole messages, from domain values to bytes and back.
fn wire(nodes: &[NodeTicks], ticks_a_message: usize) -> Case {
    let name = match ticks_a_message {
        1 => "wire, 1 tick a message",
        _ => "wire, 10 ticks a message",
    };
    // Two minutes of each node are plenty.
    let ticks: Vec<_> = nodes
        .iter()
        .flat_map(|node| node.ticks[..120].chunks(ticks_a_message))
        .collect();
    let samples = ticks.iter().map(|ticks| n_samples(ticks)).sum();
    let records: Vec<_> = (1_000_000..)
        .zip(&ticks)
        .map(|(seq, ticks)| fleet::record(seq, START, SECOND, ticks))
        .collect();
    let messages: Vec<Vec<u8>> = records.iter().map(message).collect();
    Case {
        name,
        samples,
        bytes: messages.iter().map(Vec::len).sum(),
        encode: Box::new(move || {
            for record in &records {
                std::hint::black_box(message(record));
            }
        }),
        decode: Box::new(move || {
            for message in &messages {
                let message = AgentMessage::decode(message.as_slice());
                let Ok(AgentMessage {
                    what: Some(What::Record(bytes)),
                    ..
                }) = message
                else {
                    unreachable!("a message that was just encoded");
                };
                std::hint::black_box(decode_record(&bytes).is_ok());
            }
        }),
    }
}

/// A record as the message that carries it.
fn message(record: &Record) -> Vec<u8> {
    let what = What::Record(encode_record(record).into());
    let message = AgentMessage {
        sent_at_ms: START.0 + 4,
        what: Some(what),
    };
    message.encode_to_vec()
}

/// A full stretch of each of eight GPUs, one from each node, kept in a profile; and the summaries that stand beside it.
fn chunks(nodes: &[NodeTicks], profile: Profile, name: &'static str) -> Result<Case> {
    let stretches = stretches(nodes, profile);
    let samples = n_values(&stretches);
    let encode = move |samples: &Stretch| chunk::encode(samples, profile);
    let blobs: Vec<_> = stretches.iter().map(encode).collect::<Result<_, _>>()?;
    Ok(Case {
        name,
        samples,
        bytes: blobs.iter().map(Vec::len).sum(),
        encode: Box::new(move || {
            for samples in &stretches {
                std::hint::black_box(encode(samples).is_ok());
            }
        }),
        decode: Box::new(move || {
            for blob in &blobs {
                std::hint::black_box(chunk::decode_all(blob).is_ok());
            }
        }),
    })
}

/// Made of chunks as a store does it; read for one metric.
fn rollups(nodes: &[NodeTicks]) -> Result<Case> {
    let stretches = stretches(nodes, Profile::Exact);
    let samples = n_values(&stretches);
    let encode = |samples: &Stretch| chunk::encode(samples, Profile::Exact);
    let chunks: Vec<_> = stretches.iter().map(encode).collect::<Result<_, _>>()?;
    let length = SECOND * TICKS;
    let made: Vec<_> = chunks
        .iter()
        .map(|chunk| rollup::of_chunk(chunk, length))
        .collect::<Result<_, _>>()?;
    let blobs: Vec<Vec<u8>> = made.into_iter().flatten().map(|(_, blob)| blob).collect();
    Ok(Case {
        name: "rollups of it by minute and hour, from the chunk",
        samples,
        bytes: blobs.iter().map(Vec::len).sum(),
        encode: Box::new(move || {
            for chunk in &chunks {
                std::hint::black_box(rollup::of_chunk(chunk, length).is_ok());
            }
        }),
        decode: Box::new(move || {
            for blob in &blobs {
                std::hint::black_box(rollup::decode(blob, POWER).is_ok());
            }
        }),
    })
}

type Stretch = Vec<(Timestamp, Values)>;

fn stretches(nodes: &[NodeTicks], profile: Profile) -> Vec<Stretch> {
    let of = |(gpu, node): (usize, &NodeTicks)| node.of_gpu(gpu % fleet::GPUS, START, SECOND);
    let mut stretches: Vec<Stretch> = nodes.iter().enumerate().map(of).collect();
    for (_, values) in stretches.iter_mut().flatten() {
        profile.round(values);
    }
    stretches
}

fn n_values(stretches: &[Stretch]) -> usize {
    let values = stretches.iter().flatten();
    values.map(|(_, values)| values.iter().count()).sum()
}

/// A group commit: a tenth of a second of a large fleet, each record of another node and time.
fn commit(nodes: &[NodeTicks]) -> Result<Case> {
    let mut samples = 0;
    let entry = |n: usize| {
        let node = &nodes[n % nodes.len()];
        let tick = &node.ticks[7 * n..=7 * n];
        samples += n_samples(tick);
        let at = Timestamp(START.0 + n as i64);
        JournalEntry::Record {
            received_at: Timestamp(at.0 + 3),
            sent_at: Timestamp(at.0 + 2),
            stream: StreamId([n as u8; 16]),
            bytes: encode_record(&fleet::record(1_000_000, at, SECOND, tick)),
        }
    };
    let entries: Vec<_> = (0..RECORDS_A_COMMIT).map(entry).collect();
    let row = journal::encode(&entries)?;
    Ok(Case {
        name: "journal, 100 records a commit",
        samples,
        bytes: row.len(),
        encode: Box::new(move || {
            std::hint::black_box(journal::encode(&entries).is_ok());
        }),
        decode: Box::new(move || {
            std::hint::black_box(journal::decode(&row).is_ok());
        }),
    })
}
