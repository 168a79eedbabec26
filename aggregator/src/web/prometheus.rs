//! The fleet for Prometheus: GPUs under `entrenar_gpu_`, nodes, incidents, and the process itself.
//!
//! A page is copied from the line at one instant and sent in parts, a family or a few each, written as the reader takes
//! them: the text of a large fleet never lies in memory as a whole.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use entrenar::expose::{CONTENT_TYPE, LabelText, Page};
use entrenar::metric::{CATALOGUE, Kind, Metric};
use entrenar::unit::Timestamp;
use futures_util::stream;

use super::Web;
use super::api::Answer;
use crate::andon::Presence;
use crate::incident::Incident;
use crate::line::view;
use crate::status::{Counts, Vitals};

/// `GET /metrics`
pub(super) async fn metrics(State(web): State<Arc<Web>>) -> Answer<Response> {
    let max_gpus = web.metrics_max_gpus;
    let (nodes, (gpus, gpus_omitted), incidents, counts) = web
        .line
        .ask(move |line| {
            let counts = line.counts();
            let omitted = counts.gpus as usize > max_gpus;
            let gpus = if omitted {
                (Vec::new(), counts.gpus)
            } else {
                (line.gpus(), 0)
            };
            (line.nodes(), gpus, line.told_incidents(), counts)
        })
        .await?;
    let fleet = Fleet {
        nodes: nodes.into_iter().map(labelled_node).collect(),
        gpus: gpus.into_iter().map(labelled_gpu).collect(),
        gpus_omitted,
        incidents,
        counts,
        vitals: Arc::clone(&web.vitals),
        now: web.clock.now(),
    };
    let parts = fleet.into_parts().map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(stream::iter(parts)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    Ok(response)
}

/// What a page is written of.
struct Fleet {
    nodes: Vec<(LabelText, view::Node)>,
    gpus: Vec<(LabelText, view::Gpu)>,
    gpus_omitted: u64,
    incidents: Vec<Incident>,
    counts: Counts,
    vitals: Arc<Vitals>,
    now: Timestamp,
}

fn labelled_node(node: view::Node) -> (LabelText, view::Node) {
    (LabelText::new([("node", node.name.as_str())]), node)
}

fn labelled_gpu(gpu: view::Gpu) -> (LabelText, view::Gpu) {
    let device = gpu.at.device.to_string();
    let labels = LabelText::new([("node", gpu.at.node.as_str()), ("device", &device)]);
    (labels, gpu)
}

/// A part of a page, in their order.
enum Part {
    Nodes,
    Gpus(&'static Metric),
    Identities,
    Holders,
    Ages,
    Incidents,
    Process,
}

impl Fleet {
    /// The page in its parts; each is written when it is asked for.
    fn into_parts(self) -> impl Iterator<Item = String> {
        use Part::{Ages, Gpus, Holders, Identities, Incidents, Nodes, Process};
        let gpus = CATALOGUE.iter().map(Gpus);
        let parts = [Nodes].into_iter().chain(gpus);
        let parts = parts.chain([Identities, Holders, Ages, Incidents, Process]);
        let mut page = Page::default();
        let text = parts.map(move |part| {
            self.write(&part, &mut page);
            page.take_text()
        });
        text.filter(|text| !text.is_empty())
    }

    fn write(&self, part: &Part, page: &mut Page) {
        match part {
            Part::Nodes => self.write_nodes(page),
            Part::Gpus(metric) => {
                let rows = self.gpus.iter().map(|(labels, gpu)| (labels, &gpu.values));
                page.gpu_metric("entrenar", metric, rows);
            }
            Part::Identities => self.write_identities(page),
            Part::Holders => self.write_holders(page),
            Part::Ages => self.write_ages(page),
            Part::Incidents => self.write_incidents(page),
            Part::Process => crate::status::write(page, &self.counts, &self.vitals, self.now),
        }
    }

    fn write_nodes(&self, page: &mut Page) {
        let help = "1 while the node's agent is heard of in time.";
        let mut up = page.family("entrenar_node_up", Kind::Gauge, help);
        for (labels, node) in &self.nodes {
            let live = matches!(node.presence, Presence::Live | Presence::Late);
            up.sample(labels, f64::from(u8::from(live)));
        }
        let help = "The agent's clock minus the aggregator's, smallest of a minute.";
        let mut offset = page.family("entrenar_node_clock_offset_seconds", Kind::Gauge, help);
        for (labels, node) in &self.nodes {
            offset.sample(labels, node.clock_offset_ms.map(|ms| ms as f64 / 1e3));
        }
        let help = "GPUs left out of this page because there are more than --metrics-max-gpus.";
        page.family("entrenar_metrics_gpus_omitted", Kind::Gauge, help)
            .sample(LabelText::NONE, self.gpus_omitted as f64);
    }

    fn write_identities(&self, page: &mut Page) {
        let mut info = page.family("entrenar_gpu_info", Kind::Gauge, "Which GPU sits where.");
        for (labels, gpu) in &self.gpus {
            let labels = labels.clone().with("uuid", gpu.at.uuid.as_str());
            info.sample(&labels.with("name", &gpu.name), 1.0);
        }
    }

    fn write_holders(&self, page: &mut Page) {
        let name = "entrenar_gpu_holder_info";
        let mut family = page.family(name, Kind::Gauge, "Who holds which GPU.");
        for (labels, gpu) in &self.gpus {
            let Some(holder) = &gpu.holder else {
                continue;
            };
            let labels = labels
                .clone()
                .with("job", &holder.job)
                .with("namespace", holder.namespace.as_deref().unwrap_or_default())
                .with("pod", holder.pod.as_deref().unwrap_or_default())
                .with("container", holder.container.as_deref().unwrap_or_default())
                .with("user", holder.user.as_deref().unwrap_or_default());
            family.sample(&labels, 1.0);
        }
    }

    fn write_ages(&self, page: &mut Page) {
        let name = "entrenar_gpu_sample_age_seconds";
        let mut age = page.family(name, Kind::Gauge, "Age of the newest sample.");
        for (labels, gpu) in &self.gpus {
            let since = |at: Timestamp| self.now.since(at).as_secs_f64();
            age.sample(labels, gpu.sampled_at.map(since));
        }
    }

    fn write_incidents(&self, page: &mut Page) {
        let mut counted: BTreeMap<_, usize> = BTreeMap::new();
        for incident in &self.incidents {
            let kind = incident.kind.name();
            let what = (kind, incident.severity.name(), incident.state.name());
            *counted.entry(what).or_default() += 1;
        }
        let mut family = page.family("entrenar_andon_incidents", Kind::Gauge, "Open incidents.");
        for ((kind, severity, state), n) in counted {
            let labels = [("kind", kind), ("severity", severity), ("state", state)];
            family.sample(&LabelText::new(labels), n as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use entrenar::gpu::Values;
    use entrenar::metric::{ENERGY, TEMPERATURE};
    use entrenar::report::Holder;

    use super::*;
    use crate::andon::{Kind as Trouble, Light, Severity};
    use crate::incident::testing::{gpu_at, incident};

    fn node(name: &str, presence: Presence) -> view::Node {
        view::Node {
            name: name.into(),
            light: Light::Green,
            presence,
            last_received_at: None,
            sampled_at: None,
            agent_version: None,
            driver_version: None,
            labels: entrenar::report::Labels::new(),
            gpu_count: 1,
            clock_offset_ms: (presence == Presence::Live).then_some(-1500),
        }
    }

    fn gpu(node: &str, values: Values) -> view::Gpu {
        view::Gpu {
            at: gpu_at(node),
            name: "H100".into(),
            light: Light::Green,
            holder: None,
            sampled_at: Some(Timestamp::from_secs(90)),
            interval: Duration::from_secs(1),
            values,
        }
    }

    fn fleet(gpus: Vec<view::Gpu>) -> Fleet {
        let nodes = vec![node("n1", Presence::Live), node("n2", Presence::Silent)];
        Fleet {
            nodes: nodes.into_iter().map(labelled_node).collect(),
            gpus: gpus.into_iter().map(labelled_gpu).collect(),
            gpus_omitted: 0,
            incidents: vec![incident("n1", Trouble::Xid, Severity::Warning)],
            counts: Counts::default(),
            vitals: Arc::default(),
            now: Timestamp::from_secs(92),
        }
    }

    /// The samples of the fleet, without those of the process itself.
    fn samples(fleet: Fleet) -> Vec<String> {
        let page: String = fleet.into_parts().collect();
        let of_fleet = |line: &&str| {
            !line.starts_with('#')
                && !line.starts_with("entrenar_aggregator_")
                && !line.starts_with("entrenar_andon_lag_")
                && !line.starts_with("entrenar_andon_shed_")
        };
        page.lines().filter(of_fleet).map(str::to_owned).collect()
    }

    #[test]
    fn the_parts_are_one_page_in_which_what_is_not_known_is_left_out() {
        let held = view::Gpu {
            holder: Some(Holder {
                job: "train-1".into(),
                user: Some("ada".into()),
                ..Holder::default()
            }),
            ..gpu(
                "n1",
                Values::default().with(TEMPERATURE, 61).with(ENERGY, 1500),
            )
        };
        let silent = view::Gpu {
            sampled_at: None,
            ..gpu("n2", Values::default())
        };
        assert_eq!(
            samples(fleet(vec![held, silent])),
            [
                r#"entrenar_node_up{node="n1"} 1"#,
                r#"entrenar_node_up{node="n2"} 0"#,
                r#"entrenar_node_clock_offset_seconds{node="n1"} -1.5"#,
                "entrenar_metrics_gpus_omitted 0",
                r#"entrenar_gpu_temperature_celsius{node="n1",device="3"} 61"#,
                r#"entrenar_gpu_energy_joules_total{node="n1",device="3"} 1.5"#,
                r#"entrenar_gpu_info{node="n1",device="3",uuid="GPU-n1-3",name="H100"} 1"#,
                r#"entrenar_gpu_info{node="n2",device="3",uuid="GPU-n2-3",name="H100"} 1"#,
                r#"entrenar_gpu_holder_info{node="n1",device="3",job="train-1",namespace="",pod="",container="",user="ada"} 1"#,
                r#"entrenar_gpu_sample_age_seconds{node="n1",device="3"} 2"#,
                r#"entrenar_andon_incidents{kind="Xid",severity="warning",state="firing"} 1"#,
            ]
        );
    }

    #[test]
    fn a_fleet_that_is_too_large_says_how_many_gpus_it_leaves_out() {
        let large = Fleet {
            gpus_omitted: 2001,
            ..fleet(Vec::new())
        };
        let gpus: Vec<_> = samples(large)
            .into_iter()
            .filter(|s| s.contains("gpu"))
            .collect();
        assert_eq!(gpus, ["entrenar_metrics_gpus_omitted 2001"]);
    }

    #[test]
    fn a_part_holds_one_family_of_gpus_however_many_there_are() {
        let row = |n: usize| {
            gpu(
                &format!("n{n}"),
                Values::default().with(TEMPERATURE, 61).with(ENERGY, 1),
            )
        };
        let page = fleet((0..100).map(row).collect());
        let families = |part: &String| {
            part.lines()
                .filter(|l| l.starts_with("# TYPE entrenar_gpu_"))
                .count()
        };
        assert!(page.into_parts().all(|part| families(&part) <= 1));
    }
}
