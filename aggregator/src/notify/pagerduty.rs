//! A parcel as an event of PagerDuty's Events API v2.
//!
//! One alert per incident, by its key: a second trigger adds a line to it, a resolve closes it. An alert's digest has a
//! key of its own, which is resolved with the last incident in it. Limits: <https://developer.pagerduty.com/docs/send-alert-event>.

use serde_json::{Value, json};

use crate::andon::{Scope, Severity};
use crate::incident::{Incident, Notice, NoticeEvent};
use crate::notify::dedup::{dedup_key, digest_key};
use crate::notify::message::{Context, Digest, Message};
use crate::notify::parcel::{Parcel, ends};
use crate::notify::retry::{Answer, Verdict};

/// Characters of a summary.
const SUMMARY_CHARS: usize = 1024;
/// Bytes of a whole event; PagerDuty takes 512 KB.
const EVENT_BYTES: usize = 512_000;

/// The body of the request. The routing key is a secret.
pub fn body(parcel: &Parcel, routing_key: &str, context: &Context) -> Value {
    let event = if parcel.is_digest() {
        digest(parcel, context)
    } else {
        event(parcel, context)
    };
    with_key(shrunk(event), routing_key)
}

fn event(parcel: &Parcel, context: &Context) -> Value {
    let notice = parcel.first();
    let key = match &parcel.under {
        Some(digest) => digest_key(&context.cluster, digest),
        None => dedup_key(&context.cluster, &notice.incident),
    };
    if ends(notice) {
        return json!({"event_action": "resolve", "dedup_key": key});
    }
    if notice.event == NoticeEvent::Acknowledge {
        return json!({"event_action": "acknowledge", "dedup_key": key});
    }
    let message = Message::of(notice, parcel.unrecorded, context);
    json!({
        "event_action": "trigger",
        "dedup_key": key,
        "payload": payload(notice, &message),
        "client": "entrenar",
        "client_url": message.link,
        "links": links(&message),
    })
}

fn payload(notice: &Notice, message: &Message) -> Value {
    let incident = &notice.incident;
    json!({
        "summary": cut(&format!("[{}] {}", message.cluster, message.headline)),
        "source": message.place,
        "severity": severity(incident.severity),
        "timestamp": incident.fired_at.rfc3339(),
        "component": component(incident),
        "group": message.cluster,
        "class": message.kind,
        "custom_details": details(incident, message),
    })
}

fn details(incident: &Incident, message: &Message) -> Value {
    let evidence = |fact: &crate::notify::message::Fact| {
        let spark = fact.spark.as_deref().unwrap_or_default();
        (
            fact.name.clone(),
            json!(format!("{} {spark}", fact.text).trim()),
        )
    };
    let evidence: serde_json::Map<String, Value> = message.facts.iter().map(evidence).collect();
    json!({
        "cluster": message.cluster,
        "what": message.what,
        "where": message.place,
        "since": message.since,
        "job": message.job,
        "culprits": message.culprits,
        "evidence": evidence,
        "action": message.action,
        "missing_data": message.missing,
        "notes": message.notes,
        "incident": message.link,
        "acknowledge": message.acknowledge_link,
        "rule": incident.rule.to_string(),
        "labels": incident.labels,
    })
}

fn links(message: &Message) -> Value {
    let mut links = vec![json!({"href": message.link, "text": "Incident"})];
    if let Some(link) = &message.acknowledge_link {
        links.push(json!({"href": link, "text": "Acknowledge"}));
    }
    if let Some(link) = &message.runbook_url {
        links.push(json!({"href": link, "text": "Runbook"}));
    }
    Value::Array(links)
}

fn digest(parcel: &Parcel, context: &Context) -> Value {
    let digest = Digest::of(parcel, context);
    let all: Vec<String> = parcel
        .notices
        .iter()
        .map(|notice| Message::of(notice, false, context))
        .map(|message| format!("{} {}", message.headline, message.link))
        .collect();
    json!({
        "event_action": "trigger",
        "dedup_key": digest_key(&context.cluster, &parcel.id),
        "payload": {
            "summary": cut(&digest.headline),
            "source": context.cluster,
            "severity": severity(parcel.severity()),
            "timestamp": parcel.first().incident.fired_at.rfc3339(),
            "group": context.cluster,
            "class": "Digest",
            "custom_details": {"cluster": context.cluster, "incidents": all, "notes": digest.unrecorded},
        },
        "client": "entrenar",
        "client_url": digest.link,
        "links": [{"href": digest.link, "text": "Board"}],
    })
}

/// Drops the details of an event that would be too large; a page without details is still a page.
fn shrunk(mut event: Value) -> Value {
    // Room for the key, which is added last.
    if event.to_string().len() + 100 > EVENT_BYTES
        && let Some(details) = event.pointer_mut("/payload/custom_details")
    {
        *details = json!({"note": "the details were too large for PagerDuty: follow the link"});
    }
    event
}

fn with_key(mut event: Value, routing_key: &str) -> Value {
    event["routing_key"] = json!(routing_key);
    event
}

fn cut(text: &str) -> String {
    if text.chars().count() <= SUMMARY_CHARS {
        return text.to_owned();
    }
    let kept: String = text.chars().take(SUMMARY_CHARS - 1).collect();
    format!("{kept}…")
}

fn severity(severity: Severity) -> &'static str {
    severity.name()
}

fn component(incident: &Incident) -> String {
    match &incident.scope {
        Scope::Gpu { gpu } => format!("gpu{}", gpu.device),
        Scope::Node { .. } => "node".into(),
        Scope::Job { job, .. } => format!("job {job}"),
        Scope::Nodes { group, .. } => group.clone(),
        Scope::Fleet => "fleet".into(),
    }
}

/// What an answer means: the status says it all.
pub fn judge(answer: &Answer) -> Verdict {
    answer.verdict()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::testing::{ROUTING_KEY, context, parcel, storm, validate_pagerduty};

    fn event_of(event: NoticeEvent, edit: impl FnOnce(&mut Incident)) -> Value {
        let body = body(&parcel(event, edit), ROUTING_KEY, &context());
        validate_pagerduty(&body);
        body
    }

    #[test]
    fn a_trigger_says_everything() {
        let body = event_of(NoticeEvent::Trigger, |_| {});
        assert_eq!(body["payload"]["source"], "n7 GPU 3");
        assert_eq!(body["payload"]["severity"], "critical");
        let details = &body["payload"]["custom_details"];
        assert_eq!(
            details["evidence"]["temperature_celsius"],
            "94 °C, threshold 90 °C ▁▆·█ 70 … 94"
        );
        assert_eq!(details["missing_data"], "memory_temperature_celsius");
        assert_eq!(details["cluster"], "c");
    }

    #[test]
    fn one_incident_is_one_alert_from_its_trigger_to_its_end() {
        let key = |event| event_of(event, |_| {})["dedup_key"].clone();
        let trigger = key(NoticeEvent::Trigger);
        assert_eq!(trigger, key(NoticeEvent::Acknowledge));
        assert_eq!(trigger, key(NoticeEvent::Resolve));
        let other = event_of(NoticeEvent::Trigger, |incident| {
            incident.id = "other".into();
        });
        assert_ne!(trigger, other["dedup_key"]);
    }

    #[test]
    fn a_folded_page_is_resolved() {
        let folded = event_of(NoticeEvent::Update, |i| i.consequence_of = Some("x".into()));
        assert_eq!(folded["event_action"], "resolve");
        let risen = event_of(NoticeEvent::Update, |_| {});
        assert_eq!(risen["event_action"], "trigger");
    }

    #[test]
    fn an_event_that_is_too_large_loses_its_details_only() {
        let body = event_of(NoticeEvent::Trigger, |incident| {
            incident.summary = "ü".repeat(5000);
            incident.action = "x".repeat(600_000);
        });
        assert!(
            body["payload"]["summary"]
                .as_str()
                .expect("text")
                .ends_with('…')
        );
    }

    #[test]
    fn a_digest_is_one_alert_that_names_every_incident() {
        let body = body(&storm(60), ROUTING_KEY, &context());
        validate_pagerduty(&body);
        let incidents = body["payload"]["custom_details"]["incidents"].as_array();
        assert_eq!(incidents.map(Vec::len), Some(60));
    }
}
