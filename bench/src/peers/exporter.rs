//! dcgm-exporters of a whole fleet in one process: a page for each node, from values that were simulated before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use entrenar::clock;
use serde::{Deserialize, Serialize};

use super::fleet::{METRICS, NODE_SERIES, simulate};
use super::{labels, orders};
use crate::fleet::NodeTicks;
use crate::load::Tally;
use crate::process::raise_file_limit;

/// What a fleet of exporters is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExporterPlan {
    /// Where it serves.
    pub address: String,
    /// Exporters, each at `/node/N/metrics`.
    pub agents: u32,
    pub interval_ms: u32,
    /// Different nodes that are simulated, and ticks of each.
    pub nodes: u32,
    pub ticks: u32,
}

/// Path of an exporter.
pub fn path(node: u32) -> String {
    format!("/node/{node}/metrics")
}

struct Fleet {
    interval_ms: i64,
    nodes: Vec<NodeTicks>,
    exporters: Vec<Exporter>,
    n_pages: AtomicU64,
    n_bytes: AtomicU64,
}

/// One node's exporter: everything of its page but the values.
struct Exporter {
    /// For each metric its comments, then for each GPU name and labels.
    families: Vec<(String, Vec<String>)>,
    reel: usize,
    ahead: usize,
}

/// Serves until it is told to stop.
pub fn run(plan: &ExporterPlan) -> Result<()> {
    raise_file_limit()?;
    let fleet = Arc::new(Fleet::new(plan)?);
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(&plan.address))
        .with_context(|| format!("could not listen on {}", plan.address))?;
    let router = Router::new()
        .route("/node/{number}/metrics", get(page))
        .with_state(Arc::clone(&fleet));
    runtime.spawn(async move { axum::serve(listener, router).await });
    orders::obey(|| fleet.tally())
}

impl Fleet {
    fn new(plan: &ExporterPlan) -> Result<Self> {
        let interval = std::time::Duration::from_millis(plan.interval_ms.into());
        let nodes = simulate(plan.nodes, plan.ticks, interval)?;
        let exporter = |number: u32| {
            let (reel, copy) = orders::reel_of(number, nodes.len());
            Exporter::new(number, reel, copy, &nodes[reel])
        };
        Ok(Self {
            interval_ms: plan.interval_ms.into(),
            exporters: (0..plan.agents).map(exporter).collect(),
            nodes,
            n_pages: AtomicU64::new(0),
            n_bytes: AtomicU64::new(0),
        })
    }

    fn page(&self, number: usize) -> Option<Vec<u8>> {
        let exporter = self.exporters.get(number)?;
        let ticks = &self.nodes[exporter.reel].ticks;
        let tick = clock::now().0 / self.interval_ms;
        let page = exporter.page(&ticks[(tick as usize + exporter.ahead) % ticks.len()]);
        self.n_pages.fetch_add(1, Relaxed);
        self.n_bytes.fetch_add(page.len() as u64, Relaxed);
        Some(page)
    }

    fn tally(&self) -> Tally {
        let pages = self.n_pages.load(Relaxed);
        Tally {
            series: self.exporters.len() as u64 * NODE_SERIES,
            records: pages,
            samples: pages * NODE_SERIES,
            bytes: self.n_bytes.load(Relaxed),
            ..Tally::default()
        }
    }
}

impl Exporter {
    fn new(number: u32, reel: usize, copy: usize, node: &NodeTicks) -> Self {
        let gpus: Vec<String> = node
            .gpus
            .iter()
            .zip(&node.holders)
            .map(|(gpu, holder)| {
                let labels = labels::of_gpu(number, copy, gpu, holder.as_ref());
                let pairs: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
                format!("{{{}}} ", pairs.join(","))
            })
            .collect();
        let families = METRICS.iter().map(|metric| {
            let (name, kind) = (
                metric.dcgm,
                if metric.is_counter {
                    "counter"
                } else {
                    "gauge"
                },
            );
            let help = metric.id.def().map_or("", |def| def.help);
            let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            (
                head,
                gpus.iter().map(|gpu| format!("{name}{gpu}")).collect(),
            )
        });
        Self {
            families: families.collect(),
            reel,
            ahead: orders::ahead(copy),
        }
    }

    fn page(&self, rows: &[entrenar::gpu::Values]) -> Vec<u8> {
        let mut page = Vec::with_capacity(80 * 1024);
        for ((head, prefixes), metric) in self.families.iter().zip(METRICS) {
            page.extend_from_slice(head.as_bytes());
            for (prefix, values) in prefixes.iter().zip(rows) {
                if let Some(value) = values.get(metric.id) {
                    page.extend_from_slice(prefix.as_bytes());
                    metric.write(value, &mut page);
                    page.push(b'\n');
                }
            }
        }
        page
    }
}

async fn page(State(fleet): State<Arc<Fleet>>, Path(number): Path<usize>) -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    match fleet.page(number) {
        Some(page) => (kind, page).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
