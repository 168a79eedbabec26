//! Bytes a sample costs on the wire, on a node of eight GPUs that train. Counted is the whole message, not only the
//! columns.

use std::collections::BTreeSet;

use entrenar::gpu::Values;
use entrenar::metric::{self, MetricId};
use entrenar::report::{Batch, Body, Record, Tick};
use entrenar::unit::Timestamp;
use entrenar_proto::{encode_record, wire};
use prost::Message as _;

const GPUS: usize = 8;
/// Ticks between two that read everything, in the sampler's rhythm.
const SLOW_EVERY: usize = 10;

/// A small generator of chance (xorshift64*), so that every run counts the same bytes.
struct Chance(u64);

impl Chance {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal, by the sum of twelve uniforms.
    fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.uniform()).sum();
        mean + deviation * (sum - 6.0)
    }
}

/// One GPU of a node in the middle of a training run: at its power cap, in step with the others.
struct Gpu {
    energy_mj: f64,
    pcie: [f64; 2],
    nvlink_kib: [f64; 2],
    temperature: f64,
    memory_pages: f64,
    corrected: f64,
    cpu_ms: f64,
}

impl Gpu {
    /// `uptime_s` after the driver was loaded.
    fn new(chance: &mut Chance, uptime_s: f64) -> Self {
        let mut total = |per_second: f64, spread: f64| {
            chance.normal(per_second * uptime_s, per_second * uptime_s * spread)
        };
        let (energy_mj, pcie) = (total(6.4e5, 0.02), [total(4e9, 0.01), total(4e9, 0.01)]);
        let (ring, cpu_ms) = (total(9e7, 0.005), total(1.2e3, 0.01));
        Self {
            energy_mj,
            pcie,
            // A ring sends what it receives; NVML counts KiB.
            nvlink_kib: [ring, ring * chance.normal(1.0, 1e-4)],
            cpu_ms,
            temperature: chance.normal(64.0, 3.0),
            memory_pages: chance.normal(36_000.0, 40.0).round(),
            corrected: 0.0,
        }
    }

    fn second(&mut self, chance: &mut Chance, power_mw: f64, traffic: f64) {
        self.energy_mj += power_mw;
        for (counter, mean) in self.pcie.iter_mut().zip([4e9, 4e9]) {
            *counter += mean * traffic * chance.normal(1.0, 0.03);
        }
        let ring = 9e7 * traffic;
        for counter in &mut self.nvlink_kib {
            *counter += ring * chance.normal(1.0, 0.01);
        }
        self.cpu_ms += chance.normal(1200.0, 30.0);
        self.temperature += chance.normal(0.0, 0.25);
    }
}

/// Ticks of a whole node, a row per GPU; slow metrics in one tick of `slow_every`.
fn node(seed: u64, n_ticks: usize, slow_every: usize) -> Vec<Vec<Values>> {
    let mut chance = Chance(seed);
    // A week since the driver was loaded: counters are large, and half of what a message with one tick costs.
    let uptime_s = 7.0 * 86_400.0;
    let mut gpus: Vec<Gpu> = (0..GPUS).map(|_| Gpu::new(&mut chance, uptime_s)).collect();
    let mut network = 5e10 * uptime_s;
    let mut tick = |tick: usize| {
        let traffic = chance.normal(1.0, 0.05);
        network += 5e10 * traffic;
        let row = |gpu: &mut Gpu| {
            let power_mw = chance.normal(690_000.0, 6_000.0);
            gpu.second(&mut chance, power_mw, traffic);
            let mut row = fast(gpu, &mut chance, power_mw, network);
            if tick.is_multiple_of(slow_every) {
                row.overlay(&slow(gpu, &mut chance));
            }
            row
        };
        gpus.iter_mut().map(row).collect()
    };
    (0..n_ticks).map(&mut tick).collect()
}

fn fast(gpu: &Gpu, chance: &mut Chance, power_mw: f64, network: f64) -> Values {
    let ppm = |value: f64| (value * 1e6) as i64;
    let clock = 1980 - 15 * (chance.normal(18.0, 2.0) as i64);
    Values::default()
        .with(metric::TEMPERATURE, gpu.temperature as i64)
        .with(metric::UTILIZATION, 97 + (chance.uniform() * 4.0) as i64)
        .with(metric::MEMORY_UTILIZATION, chance.normal(55.0, 3.0) as i64)
        .with(metric::MEMORY_USED, gpu.memory_pages as i64 * (2 << 20))
        .with(metric::MEMORY_TOTAL, 85_520_809_984)
        .with(metric::POWER, power_mw as i64)
        .with(metric::ENERGY, gpu.energy_mj as i64)
        .with(metric::SM_CLOCK, clock)
        .with(
            metric::CLOCK_EVENT_REASONS,
            metric::clock_reason::SW_POWER_CAP,
        )
        .with(metric::PCIE_TX, gpu.pcie[0] as i64)
        .with(metric::PCIE_RX, gpu.pcie[1] as i64)
        .with(metric::NVLINK_TX, gpu.nvlink_kib[0] as i64 * 1024)
        .with(metric::NVLINK_RX, gpu.nvlink_kib[1] as i64 * 1024)
        .with(metric::SM_ACTIVE, ppm(chance.normal(0.82, 0.02)))
        .with(metric::TENSOR_ACTIVE, ppm(chance.normal(0.47, 0.02)))
        .with(metric::DRAM_ACTIVE, ppm(chance.normal(0.38, 0.02)))
        .with(metric::NVML_STATUS, 0)
        .with(metric::NVML_LATENCY, chance.normal(1_200.0, 80.0) as i64)
        .with(metric::NETWORK, network as i64)
}

fn slow(gpu: &mut Gpu, chance: &mut Chance) -> Values {
    gpu.corrected += f64::from(u8::from(chance.uniform() < 0.01));
    let zero = [
        metric::PCIE_REPLAY,
        metric::NVLINK_CRC_ERRORS,
        metric::NVLINK_RECOVERY,
        metric::ECC_UNCORRECTED,
        metric::REMAPPED_ROWS_PENDING,
        metric::REMAPPED_ROWS_FAILURE,
        metric::PROCESS_STATE,
    ];
    zero.into_iter()
        .fold(Values::default(), |row, id| row.with(id, 0))
        .with(metric::MEMORY_TEMPERATURE, gpu.temperature as i64 + 11)
        .with(metric::THERMAL_MARGIN, 87 - gpu.temperature as i64)
        .with(metric::POWER_LIMIT, 700_000)
        .with(metric::POWER_LIMIT_DEFAULT, 700_000)
        .with(metric::MEMORY_CLOCK, 2619)
        .with(metric::PCIE_LINK_WIDTH, 16)
        .with(metric::PCIE_LINK_GEN, 5)
        .with(metric::NVLINK_ACTIVE_LINKS, 18)
        .with(metric::ECC_CORRECTED, gpu.corrected as i64)
        .with(metric::PROCESSES, 1)
        .with(metric::PROCESS_CPU, gpu.cpu_ms as i64)
        .with(metric::PROCESS_READ, (gpu.cpu_ms * 9e4) as i64)
        .with(
            metric::PROCESS_WRITE,
            (gpu.cpu_ms * 2e3) as i64 / 4096 * 4096,
        )
}

/// The messages of these ticks, and what they cost: bytes and samples.
fn cost(ticks: &[Vec<Values>], per_message: usize) -> (usize, usize) {
    let start = 1_790_000_000_000;
    let mut bytes = 0;
    for (n, rows) in ticks.chunks(per_message).enumerate() {
        let at = |i: usize| start + ((n * per_message + i) * 1000 + i % 3) as i64;
        let record = Record {
            seq: 1_000_000 + n as u64,
            body: Body::Batch(Batch {
                generation: 1,
                gpus: GPUS as u32,
                n_lost: 0,
                ticks: (0..rows.len())
                    .map(|i| Tick {
                        at: Timestamp(at(i)),
                        monotonic_ms: (at(i) - start) as u64 + 86_400_000,
                    })
                    .collect(),
                rows: rows.concat(),
            }),
        };
        let message = wire::AgentMessage {
            sent_at_ms: at(rows.len() - 1) + 4,
            what: Some(wire::agent_message::What::Record(
                encode_record(&record).into(),
            )),
        };
        bytes += message.encoded_len();
    }
    let samples = ticks.iter().flatten().map(|row| row.iter().count()).sum();
    (bytes, samples)
}

/// Bytes a sample, printed; `what` names the data.
fn bytes_a_sample(what: &str, ticks: &[Vec<Values>], per_message: usize) -> f64 {
    let (bytes, samples) = cost(ticks, per_message);
    let each = bytes as f64 / samples as f64;
    println!("{what}, {per_message} ticks a message: {each:.3} bytes a sample of {samples}");
    each
}

/// What boards without a profiling counter and without RDMA report, 24 metrics, all of them at every tick.
#[test]
fn a_sample_of_a_common_set_costs_at_most_2_4_bytes_alone_and_1_8_in_tens() {
    let left_out = [
        metric::SM_ACTIVE,
        metric::TENSOR_ACTIVE,
        metric::DRAM_ACTIVE,
        metric::NETWORK,
        metric::NVML_LATENCY,
        metric::THERMAL_MARGIN,
        metric::POWER_LIMIT_DEFAULT,
        metric::NVLINK_CRC_ERRORS,
        metric::NVLINK_RECOVERY,
        metric::NVLINK_ACTIVE_LINKS,
        metric::PROCESSES,
        metric::PROCESS_STATE,
        metric::PROCESS_CPU,
        metric::PROCESS_READ,
        metric::PROCESS_WRITE,
    ];
    let mut ticks = node(7, 600, 1);
    for row in ticks.iter_mut().flatten() {
        for id in left_out {
            row.set(id, None);
        }
        assert_eq!(row.iter().count(), 24);
    }
    assert!(bytes_a_sample("24 metrics", &ticks, 1) <= 2.4);
    assert!(bytes_a_sample("24 metrics", &ticks, 10) <= 1.8);
}

/// A Hopper board in the sampler's rhythm: 19 metrics at every tick, 12 of them noise, and the other 20 at each
/// tenth. Alone, a tick must carry five counters whole, and so costs more than that of a common set.
#[test]
fn a_sample_of_the_whole_catalogue_costs_little_more() {
    let ticks = node(7, 600, SLOW_EVERY);
    let kinds: BTreeSet<MetricId> = ticks[0]
        .iter()
        .flat_map(Values::iter)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(kinds.len(), 39);
    assert!(bytes_a_sample("whole catalogue", &ticks, 1) <= 2.6);
    assert!(bytes_a_sample("whole catalogue", &ticks, 10) <= 1.8);
}
