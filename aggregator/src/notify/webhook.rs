//! A parcel as Alertmanager's webhook would send it (version 4), signed, so that every bridge for Alertmanager works.
//!
//! Headers: `X-Entrenar-Delivery` (the same on every attempt: the idempotency key), `X-Entrenar-Incident`,
//! `X-Entrenar-Event`, `X-Entrenar-Attempt` (from 1), `X-Entrenar-Timestamp` (RFC 3339), and for each secret one
//! `X-Entrenar-Signature: keyid=ID,sha256=HEX`, the HMAC-SHA256 of `timestamp.body`.

use std::collections::BTreeMap;

use entrenar::unit::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::andon::{GpuAt, Scope};
use crate::incident::Notice;
use crate::notify::dedup::fingerprint;
use crate::notify::message::{Context, Message};
use crate::notify::parcel::{Parcel, ends};
use crate::notify::retry::{Answer, Verdict};

/// `endsAt` of an alert that still fires.
const NOT_OVER: &str = "0001-01-01T00:00:00Z";

/// Text labels of one alert, or what all alerts have in common.
type Texts = BTreeMap<&'static str, String>;

/// A secret and the name under which the receiver knows it.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub secret: Vec<u8>,
}

/// The body of the request.
pub fn body(parcel: &Parcel, receiver: &str, context: &Context) -> Value {
    let notices = &parcel.notices;
    let labels: Vec<Texts> = notices.iter().map(|n| labels(n, context)).collect();
    let annotations: Vec<Texts> = notices
        .iter()
        .map(|n| annotations(n, parcel.unrecorded, context))
        .collect();
    let alerts: Vec<Value> = notices
        .iter()
        .zip(labels.iter().zip(&annotations))
        .map(|(notice, (labels, annotations))| alert(notice, labels, annotations, context))
        .collect();
    let firing = notices.iter().any(|notice| !ends(notice));
    let group = group_labels(&labels);
    json!({
        "version": "4",
        "groupKey": group_key(&group),
        "truncatedAlerts": 0,
        "status": if firing { "firing" } else { "resolved" },
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": common(&labels),
        "commonAnnotations": common(&annotations),
        "externalURL": context.external_url,
        "alerts": alerts,
    })
}

fn alert(notice: &Notice, labels: &Texts, annotations: &Texts, context: &Context) -> Value {
    let incident = &notice.incident;
    // What is folded into another incident is over as far as this alert goes.
    let over = ends(notice);
    let ended = incident.resolved_at.unwrap_or(notice.created_at);
    json!({
        "status": if over { "resolved" } else { "firing" },
        "labels": labels,
        "annotations": annotations,
        "startsAt": incident.started_at.rfc3339(),
        "endsAt": if over { ended.rfc3339() } else { NOT_OVER.to_owned() },
        "generatorURL": context.link(&incident.id),
        "fingerprint": fingerprint(&context.cluster, incident),
    })
}

fn labels(notice: &Notice, context: &Context) -> Texts {
    let incident = &notice.incident;
    let mut labels = Texts::from([
        ("alertname", incident.kind.name().to_owned()),
        ("cluster", context.cluster.clone()),
        ("severity", incident.severity.name().to_owned()),
        ("rule", incident.rule.to_string()),
    ]);
    match &incident.scope {
        Scope::Fleet => {}
        Scope::Node { node } => {
            labels.insert("node", node.to_string());
        }
        Scope::Gpu { gpu } => label_gpu(&mut labels, gpu),
        Scope::Job { job, .. } => {
            labels.insert("job", job.clone());
        }
        Scope::Nodes { group, .. } => {
            labels.insert("group", group.clone());
        }
    }
    if let Some(job) = &incident.job {
        labels.insert("job", job.clone());
    }
    for known in ["rack", "switch", "power_feed"] {
        if let Some(value) = incident.labels.get(known) {
            labels.insert(known, value.clone());
        }
    }
    labels
}

fn label_gpu(labels: &mut Texts, gpu: &GpuAt) {
    labels.insert("node", gpu.node.to_string());
    labels.insert("device", gpu.device.to_string());
    labels.insert("uuid", gpu.uuid.to_string());
}

fn annotations(notice: &Notice, unrecorded: bool, context: &Context) -> Texts {
    let message = Message::of(notice, unrecorded, context);
    let mut texts = Texts::from([
        ("summary", message.what.clone()),
        ("description", description(&message)),
        ("action", message.action),
        ("where", message.place),
        ("since", message.since),
        ("missing_data", message.missing),
        ("incident_id", notice.incident.id.clone()),
        ("incident_url", message.link),
    ]);
    let more = [
        ("runbook_url", message.runbook_url),
        ("acknowledge_url", message.acknowledge_link),
        ("culprits", message.culprits),
        ("acknowledged_by", notice.incident.acknowledged_by.clone()),
        ("consequence_of", notice.incident.consequence_of.clone()),
    ];
    texts.extend(
        more.into_iter()
            .filter_map(|(name, text)| Some((name, text?))),
    );
    texts
}

/// The evidence and the notes, a line each.
fn description(message: &Message) -> String {
    let evidence = message.facts.iter().map(|fact| {
        let spark = fact.spark.as_deref().unwrap_or_default();
        format!("{}: {} {spark}", fact.name, fact.text)
            .trim()
            .to_owned()
    });
    let lines: Vec<String> = evidence.chain(message.notes.iter().cloned()).collect();
    lines.join("\n")
}

/// What all have in common.
fn common(texts: &[Texts]) -> Texts {
    let mut common = texts.first().cloned().unwrap_or_default();
    common.retain(|name, value| texts.iter().all(|other| other.get(name) == Some(value)));
    common
}

/// Alerts are grouped by their name, where they share one.
fn group_labels(labels: &[Texts]) -> Texts {
    let mut group = common(labels);
    group.retain(|name, _| matches!(*name, "alertname" | "cluster"));
    group
}

/// As Alertmanager writes it: `{}:{alertname="Xid", cluster="c"}`.
fn group_key(group: &Texts) -> String {
    let pairs: Vec<String> = group
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{{}}:{{{}}}", pairs.join(", "))
}

/// The headers of one attempt; `body` as it is sent.
pub fn headers(
    parcel: &Parcel,
    keys: &[Key],
    body: &[u8],
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let timestamp = now.rfc3339();
    let notice = parcel.first();
    let digest = parcel.is_digest();
    let mut headers = vec![
        ("x-entrenar-delivery", parcel.id.clone()),
        ("x-entrenar-attempt", (parcel.attempts + 1).to_string()),
        (
            "x-entrenar-event",
            if digest {
                "digest"
            } else {
                notice.event.name()
            }
            .to_owned(),
        ),
    ];
    if !digest {
        headers.push(("x-entrenar-incident", notice.incident.id.clone()));
    }
    for key in keys {
        let signature = sign(&key.secret, &timestamp, body);
        headers.push((
            "x-entrenar-signature",
            format!("keyid={},sha256={signature}", key.id),
        ));
    }
    headers.push(("x-entrenar-timestamp", timestamp));
    headers
}

/// HMAC-SHA256 of `timestamp.body`, in hex.
pub fn sign(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// What an answer means: the status says it all.
pub fn judge(answer: &Answer) -> Verdict {
    answer.verdict()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Incident, NoticeEvent, State};
    use crate::notify::testing::{context, parcel, storm, validate_webhook};

    fn body_of(event: NoticeEvent, edit: impl FnOnce(&mut Incident)) -> Value {
        let body = body(&parcel(event, edit), "bridge", &context());
        validate_webhook(&body);
        body
    }

    #[test]
    fn a_firing_alert_carries_names_numbers_and_links() {
        let body = body_of(NoticeEvent::Trigger, |i| {
            i.labels.insert("rack".into(), "r7".into());
        });
        let alert = &body["alerts"][0];
        let label = |name: &str| {
            alert["labels"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        assert_eq!(
            [
                label("alertname"),
                label("node"),
                label("device"),
                label("uuid"),
                label("job"),
                label("rack")
            ],
            ["Xid", "n7", "3", "GPU-n7-3", "train-1", "r7"]
        );
        let description = alert["annotations"]["description"].as_str().expect("text");
        assert_eq!(
            description,
            "temperature_celsius: 94 °C, threshold 90 °C ▁▆·█ 70 … 94"
        );
        assert_eq!(body["groupKey"], r#"{}:{alertname="Xid", cluster="c"}"#);
        assert_eq!(alert["endsAt"], NOT_OVER);
    }

    #[test]
    fn the_end_has_the_fingerprint_of_the_beginning() {
        let begun = body_of(NoticeEvent::Trigger, |_| {});
        let ended = body_of(NoticeEvent::Resolve, |i| {
            i.state = State::Resolved;
            i.resolved_at = Some(Timestamp::from_secs(1_700_000_200));
        });
        assert_eq!(ended["status"], "resolved");
        assert_eq!(ended["alerts"][0]["endsAt"], "2023-11-14T22:16:40.000Z");
        assert_eq!(
            begun["alerts"][0]["fingerprint"],
            ended["alerts"][0]["fingerprint"]
        );
    }

    #[test]
    fn a_digest_holds_every_alert_and_what_they_share() {
        let body = body(&storm(60), "bridge", &context());
        validate_webhook(&body);
        assert_eq!(body["alerts"].as_array().map(Vec::len), Some(60));
        assert_eq!(body["commonLabels"]["cluster"], "c");
        assert_eq!(body["commonLabels"].get("node"), None);
    }

    #[test]
    fn every_active_secret_signs_the_time_and_the_body() {
        // Checked with another implementation (Python's hmac).
        assert_eq!(
            sign(b"key", "2023-11-14T22:13:20.000Z", b"{}"),
            "d04b5cec557b42b216b4de6fd32fcd0d888cd8efad981ead1ec12f42d6de0957"
        );
        let keys = ["old", "new"].map(|id| Key {
            id: id.into(),
            secret: id.into(),
        });
        let now = Timestamp::from_secs(1_700_000_000);
        let headers = headers(&parcel(NoticeEvent::Trigger, |_| {}), &keys, b"{}", now);
        let signatures: Vec<&String> = headers
            .iter()
            .filter(|(name, _)| *name == "x-entrenar-signature")
            .map(|(_, value)| value)
            .collect();
        let time = "2023-11-14T22:13:20.000Z";
        let signed = |id: &str| format!("keyid={id},sha256={}", sign(id.as_bytes(), time, b"{}"));
        assert_eq!(signatures, [&signed("old"), &signed("new")]);
    }
}
