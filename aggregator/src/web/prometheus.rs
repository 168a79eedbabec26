//! The fleet for Prometheus: GPUs under `entrenar_gpu_`, nodes, incidents, and the process itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use entrenar::expose::{CONTENT_TYPE, LabelText, Page};
use entrenar::metric::Kind;
use entrenar::unit::Timestamp;

use super::Web;
use super::api::Answer;
use crate::incident::Incident;
use crate::line::view;

/// `GET /metrics`
pub(super) async fn metrics(State(web): State<Arc<Web>>) -> Answer<Response> {
    let (nodes, gpus, incidents, counts) = web
        .line
        .ask(|line| {
            (
                line.nodes(),
                line.gpus(),
                line.told_incidents(),
                line.counts(),
            )
        })
        .await?;
    let now = web.clock.now();
    let mut page = Page::default();
    write_nodes(&mut page, &nodes);
    write_gpus(&mut page, &gpus, now, web.metrics_max_gpus);
    write_incidents(&mut page, &incidents);
    crate::status::write(&mut page, &counts, &web.vitals, now);
    let mut response = page.into_text().into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    Ok(response)
}

fn write_nodes(page: &mut Page, nodes: &[view::Node]) {
    let labels: Vec<LabelText> = nodes
        .iter()
        .map(|n| LabelText::new([("node", n.name.as_str())]))
        .collect();
    let mut up = page.family(
        "entrenar_node_up",
        Kind::Gauge,
        "1 while the node's agent is heard of in time.",
    );
    for (node, labels) in nodes.iter().zip(&labels) {
        let live = matches!(
            node.presence,
            crate::andon::Presence::Live | crate::andon::Presence::Late
        );
        up.sample(labels, f64::from(u8::from(live)));
    }
    let mut offset = page.family(
        "entrenar_node_clock_offset_seconds",
        Kind::Gauge,
        "The agent's clock minus the aggregator's, smallest of a minute.",
    );
    for (node, labels) in nodes.iter().zip(&labels) {
        offset.sample(labels, node.clock_offset_ms.map(|ms| ms as f64 / 1e3));
    }
}

fn write_gpus(page: &mut Page, gpus: &[view::Gpu], now: Timestamp, max_gpus: usize) {
    let omitted = if gpus.len() > max_gpus { gpus.len() } else { 0 };
    page.family(
        "entrenar_metrics_gpus_omitted",
        Kind::Gauge,
        "GPUs left out of this page because there are more than --metrics-max-gpus.",
    )
    .sample(LabelText::NONE, omitted as f64);
    if omitted > 0 {
        return;
    }
    let devices: Vec<String> = gpus.iter().map(|g| g.at.device.to_string()).collect();
    let labels: Vec<LabelText> = gpus
        .iter()
        .zip(&devices)
        .map(|(g, device)| LabelText::new([("node", g.at.node.as_str()), ("device", device)]))
        .collect();
    let rows: Vec<_> = labels.iter().zip(gpus.iter().map(|g| &g.values)).collect();
    page.gpu_metrics("entrenar", &rows);
    let mut info = page.family("entrenar_gpu_info", Kind::Gauge, "Which GPU sits where.");
    for (gpu, labels) in gpus.iter().zip(&labels) {
        info.sample(
            &labels
                .clone()
                .with("uuid", gpu.at.uuid.as_str())
                .with("name", &gpu.name),
            1.0,
        );
    }
    let mut holder = page.family(
        "entrenar_gpu_holder_info",
        Kind::Gauge,
        "Who holds which GPU.",
    );
    for (gpu, labels) in gpus.iter().zip(&labels) {
        if let Some(h) = &gpu.holder {
            let text = |t: &Option<String>| t.clone().unwrap_or_default();
            let labels = labels
                .clone()
                .with("job", &h.job)
                .with("namespace", &text(&h.namespace))
                .with("pod", &text(&h.pod))
                .with("container", &text(&h.container))
                .with("user", &text(&h.user));
            holder.sample(&labels, 1.0);
        }
    }
    let mut age = page.family(
        "entrenar_gpu_sample_age_seconds",
        Kind::Gauge,
        "Age of the newest sample.",
    );
    for (gpu, labels) in gpus.iter().zip(&labels) {
        age.sample(labels, gpu.sampled_at.map(|t| now.since(t).as_secs_f64()));
    }
}

fn write_incidents(page: &mut Page, incidents: &[Incident]) {
    let mut counted: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for incident in incidents {
        *counted
            .entry((
                incident.kind.name(),
                incident.severity.name(),
                incident.state.name(),
            ))
            .or_default() += 1;
    }
    let mut family = page.family("entrenar_andon_incidents", Kind::Gauge, "Open incidents.");
    for ((kind, severity, state), n) in counted {
        let labels = LabelText::new([("kind", kind), ("severity", severity), ("state", state)]);
        family.sample(&labels, n as f64);
    }
}
