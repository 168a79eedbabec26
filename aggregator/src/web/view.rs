//! The shapes of our JSON: never the domain's own types, so that either may change alone.
//!
//! `snake_case`, times RFC 3339 in UTC, units at the end of names, unknown = `null`.

use std::collections::BTreeMap;

use entrenar::gpu::Values;
use entrenar::metric::{CATALOGUE, Metric};
use entrenar::report::{JobKind, Labels};
use entrenar::unit::Timestamp;
use serde::Serialize;

use crate::andon::{Evidence, GpuAt, Light, Resolution, Scope};
use crate::incident::{CloseReason, Incident, NoticeStatus, TimelineEntry};
use crate::line::view;
use crate::query::function::Function;
use crate::query::select::Seat;

/// A GPU's values as JSON.
type Metrics = BTreeMap<&'static str, Option<f64>>;

/// A page of a list.
#[derive(Serialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Give it as `cursor` to get the next page; `null` on the last.
    pub(crate) next: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Node {
    name: String,
    light: Light,
    last_seen: Option<String>,
    agent_version: Option<String>,
    driver_version: Option<String>,
    labels: Labels,
    gpu_count: usize,
    sample_age_seconds: Option<f64>,
    clock_offset_seconds: Option<f64>,
}

impl Node {
    pub(crate) fn of(node: &view::Node, now: Timestamp) -> Self {
        Self {
            name: node.name.to_string(),
            light: node.light,
            last_seen: node.last_received_at.map(Timestamp::rfc3339),
            agent_version: node.agent_version.clone(),
            driver_version: node.driver_version.clone(),
            labels: node.labels.clone(),
            gpu_count: node.gpu_count,
            sample_age_seconds: node.sampled_at.map(|t| now.since(t).as_secs_f64()),
            clock_offset_seconds: node.clock_offset_ms.map(|ms| ms as f64 / 1e3),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Gpu {
    node: String,
    device: u32,
    uuid: String,
    name: String,
    light: Light,
    job: Option<String>,
    sampled_at: Option<String>,
    metrics: Metrics,
}

impl Gpu {
    pub(crate) fn of(gpu: &view::Gpu) -> Self {
        Self {
            node: gpu.at.node.to_string(),
            device: gpu.at.device,
            uuid: gpu.at.uuid.to_string(),
            name: gpu.name.clone(),
            light: gpu.light,
            job: gpu.holder.as_ref().map(|h| h.job.clone()),
            sampled_at: gpu.sampled_at.map(Timestamp::rfc3339),
            metrics: metrics(&gpu.values),
        }
    }
}

/// Every metric under its catalogue name, in display units; `null` where the GPU did not say.
pub(crate) fn metrics(values: &Values) -> Metrics {
    CATALOGUE
        .iter()
        .map(|metric| (metric.name, values.display(metric.id)))
        .collect()
}

#[derive(Serialize)]
pub(crate) struct GpuRef {
    node: String,
    device: u32,
    uuid: String,
}

impl From<&GpuAt> for GpuRef {
    fn from(gpu: &GpuAt) -> Self {
        Self {
            node: gpu.node.to_string(),
            device: gpu.device,
            uuid: gpu.uuid.to_string(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Job {
    #[serde(rename = "job")]
    id: String,
    kind: Option<&'static str>,
    gpus: Vec<GpuRef>,
    light: Light,
    started_at: Option<String>,
    state: String,
}

impl Job {
    pub(crate) fn of(job: &view::Job) -> Self {
        Self {
            id: job.job.clone(),
            kind: (job.kind != JobKind::Unknown).then(|| job.kind.name()),
            gpus: job.gpus.iter().map(GpuRef::from).collect(),
            light: job.light,
            started_at: job.started_at.map(Timestamp::rfc3339),
            state: job.state.clone(),
        }
    }
}

/// The narrowest thing that an incident is about.
#[derive(Default, Serialize)]
pub(crate) struct ScopeView {
    node: Option<String>,
    device: Option<u32>,
    uuid: Option<String>,
    job: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<GpuRef>,
}

impl From<&Scope> for ScopeView {
    fn from(scope: &Scope) -> Self {
        let none = Self::default();
        match scope {
            Scope::Fleet => none,
            Scope::Node { node } => Self {
                node: Some(node.to_string()),
                ..none
            },
            Scope::Gpu { gpu } => Self {
                node: Some(gpu.node.to_string()),
                device: Some(gpu.device),
                uuid: Some(gpu.uuid.to_string()),
                ..none
            },
            Scope::Job { job, gpus } => Self {
                job: Some(job.clone()),
                gpus: gpus.iter().map(GpuRef::from).collect(),
                ..none
            },
            Scope::Nodes { nodes, .. } => Self {
                nodes: nodes.iter().map(ToString::to_string).collect(),
                ..none
            },
        }
    }
}

#[derive(Serialize)]
pub(crate) struct IncidentView {
    id: String,
    rule: String,
    kind: &'static str,
    severity: &'static str,
    state: &'static str,
    flags: Vec<&'static str>,
    light: Light,
    scope: ScopeView,
    labels: Labels,
    job: Option<String>,
    summary: String,
    action: String,
    runbook_url: Option<String>,
    started_at: String,
    fired_at: String,
    acknowledged_at: Option<String>,
    acknowledged_by: Option<String>,
    resolved_at: Option<String>,
    resolution: Option<Resolution>,
    close_reason: Option<CloseReason>,
    culprits: Vec<GpuRef>,
    consequence_of: Option<String>,
    evidence: Vec<Evidence>,
    missing: Vec<String>,
}

impl IncidentView {
    pub(crate) fn of(incident: &Incident, light: Light) -> Self {
        let time = |t: Option<Timestamp>| t.map(Timestamp::rfc3339);
        let flags = [
            ("acknowledged", incident.flags.acknowledged),
            ("silenced", incident.flags.silenced),
            ("unknown", incident.flags.unknown),
            ("maintenance", incident.flags.maintenance),
            ("shadow", incident.flags.shadow),
        ];
        Self {
            id: incident.id.clone(),
            rule: incident.rule.to_string(),
            kind: incident.kind.name(),
            severity: incident.severity.name(),
            state: incident.state.name(),
            flags: flags
                .iter()
                .filter(|(_, set)| *set)
                .map(|(name, _)| *name)
                .collect(),
            light,
            scope: ScopeView::from(&incident.scope),
            labels: incident.labels.clone(),
            job: incident.job.clone(),
            summary: incident.summary.clone(),
            action: incident.action.clone(),
            runbook_url: incident.runbook_url.clone(),
            started_at: incident.started_at.rfc3339(),
            fired_at: incident.fired_at.rfc3339(),
            acknowledged_at: time(incident.acknowledged_at),
            acknowledged_by: incident.acknowledged_by.clone(),
            resolved_at: time(incident.resolved_at),
            resolution: incident.resolution,
            close_reason: incident.close_reason,
            culprits: incident.culprits.iter().map(GpuRef::from).collect(),
            consequence_of: incident.consequence_of.clone(),
            evidence: incident.evidence.clone(),
            missing: incident.missing.clone(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct TimelineView {
    at: String,
    what: String,
    who: String,
    note: Option<String>,
}

impl From<&TimelineEntry> for TimelineView {
    fn from(entry: &TimelineEntry) -> Self {
        Self {
            at: entry.at.rfc3339(),
            what: entry.what.clone(),
            who: entry.who.clone(),
            note: entry.note.clone(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct NotificationView {
    delivery_id: String,
    incident: String,
    kind: &'static str,
    receiver: String,
    event: &'static str,
    state: crate::incident::NoticeState,
    attempts: u32,
    created_at: String,
    next_attempt_at: Option<String>,
    delivered_at: Option<String>,
    last_error: Option<String>,
}

impl From<&NoticeStatus> for NotificationView {
    fn from(status: &NoticeStatus) -> Self {
        let notice = &status.notice;
        Self {
            delivery_id: notice.delivery_id.clone(),
            incident: notice.incident.id.clone(),
            kind: notice.incident.kind.name(),
            receiver: notice.receiver.clone(),
            event: notice.event.name(),
            state: status.state,
            attempts: status.attempts,
            created_at: notice.created_at.rfc3339(),
            next_attempt_at: status.next_attempt_at.map(Timestamp::rfc3339),
            delivered_at: status.delivered_at.map(Timestamp::rfc3339),
            last_error: status.last_error.clone(),
        }
    }
}

/// An incident with its story and its messages.
#[derive(Serialize)]
pub(crate) struct IncidentDetail {
    #[serde(flatten)]
    pub(crate) incident: IncidentView,
    pub(crate) timeline: Vec<TimelineView>,
    pub(crate) notifications: Vec<NotificationView>,
}

/// What is said of all series of an answer.
#[derive(Serialize)]
pub(crate) struct SeriesAnswer {
    /// Where there is one; else each series says it.
    #[serde(flatten)]
    pub(crate) metric: Option<MetricAnswer>,
    /// `null`: every point as it was read.
    pub(crate) step_seconds: Option<f64>,
    /// What it was answered from.
    pub(crate) resolution: &'static str,
    /// How exactly that is kept.
    pub(crate) profile: &'static str,
}

/// What the numbers of a series are.
#[derive(Clone, Serialize)]
pub(crate) struct MetricAnswer {
    metric: &'static str,
    unit: String,
    /// What a step comes to.
    #[serde(rename = "fn")]
    function: Option<&'static str>,
}

impl MetricAnswer {
    pub(crate) fn of(metric: &Metric, function: Function, in_steps: bool) -> Self {
        Self {
            metric: metric.name,
            unit: if in_steps {
                function.unit(metric)
            } else {
                metric.unit.to_owned()
            },
            function: in_steps.then(|| function.name()),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct SeriesView {
    /// Where the answer has several.
    #[serde(flatten)]
    metric: Option<MetricAnswer>,
    /// `null` of a GPU that only the store knows.
    node: Option<String>,
    device: Option<u32>,
    uuid: String,
    /// `[unix seconds, value or null]`, oldest first.
    points: Vec<(f64, Option<f64>)>,
}

impl SeriesView {
    pub(crate) fn of(
        seat: &Seat,
        metric: Option<MetricAnswer>,
        points: Vec<(f64, Option<f64>)>,
    ) -> Self {
        let place = seat.place.as_ref();
        Self {
            metric,
            node: place.map(|place| place.node.to_string()),
            device: place.map(|place| place.device),
            uuid: seat.uuid.to_string(),
            points,
        }
    }
}

/// A GPU's values in a `sample` event.
#[derive(Serialize)]
pub(crate) struct GpuSample {
    device: u32,
    uuid: String,
    metrics: Metrics,
}

impl GpuSample {
    pub(crate) fn of(gpu: &view::Gpu) -> Self {
        Self {
            device: gpu.at.device,
            uuid: gpu.at.uuid.to_string(),
            metrics: metrics(&gpu.values),
        }
    }
}
