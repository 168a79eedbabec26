//! Benchmarks: the codecs alone, and whole processes under the load that they are made for.
//!
//! Nothing here asserts a time. Each bench prints its table and rewrites its own section of `bench/RESULTS.md`.

#![forbid(unsafe_code)]

pub mod measure;
pub mod process;
pub mod report;

pub mod fleet;
pub mod generator;
pub mod http;
pub mod load;

pub mod agent;
pub mod codec;
pub mod detection;
pub mod ingest;
pub mod latency;
pub mod peers;
pub mod query;
pub mod scale;
pub mod scrape;
pub mod startup;
pub mod store;

/// A bench, by its name.
pub struct Bench {
    pub name: &'static str,
    /// What it measures, in a few words.
    pub what: &'static str,
    pub run: fn() -> anyhow::Result<()>,
}

/// All of them, in the order of their sections.
pub const BENCHES: &[Bench] = &[
    Bench {
        name: "codec",
        what: "wire, chunk and journal alone",
        run: codec::run,
    },
    Bench {
        name: "ingest",
        what: "a whole aggregator under 1,000 connections",
        run: ingest::run,
    },
    Bench {
        name: "scale",
        what: "20,000 and 100,000 GPUs at one aggregator",
        run: scale::run_all,
    },
    Bench {
        name: "scrape",
        what: "/metrics at 512 GPUs",
        run: scrape::run,
    },
    Bench {
        name: "query",
        what: "questions about 10,000 GPUs, and about hours of history",
        run: query::run,
    },
    Bench {
        name: "agent",
        what: "an agent at 8 GPUs",
        run: agent::run,
    },
    Bench {
        name: "latency",
        what: "from a sample or an XID to the message",
        run: latency::run,
    },
    Bench {
        name: "store",
        what: "a database after 60 retention periods",
        run: store::run,
    },
    Bench {
        name: "startup",
        what: "starts after a crash: with a day of history, and with 10,000 GPUs",
        run: startup::run,
    },
    Bench {
        name: "detection",
        what: "how well it detects, beside five baselines",
        run: detection::run_all,
    },
    Bench {
        name: "peers",
        what: "the same fleet through Prometheus and VictoriaMetrics",
        run: peers::run_all,
    },
];
