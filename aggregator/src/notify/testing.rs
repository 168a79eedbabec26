//! Parcels for tests, and validators as strict as the receivers are.

pub(crate) mod server;

use entrenar::unit::Timestamp;
use serde_json::Value;

use crate::andon::{Kind, Severity};
use crate::incident::testing::incident;
use crate::incident::{Incident, Notice, NoticeEvent};
use crate::notify::message::Context;
use crate::notify::parcel::Parcel;

pub(crate) const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn context() -> Context {
    Context::new("c", "https://andon.example/")
}

pub(crate) fn notice(event: NoticeEvent, edit: impl FnOnce(&mut Incident)) -> Notice {
    let mut incident = incident("n7", Kind::Xid, Severity::Critical);
    edit(&mut incident);
    Notice {
        delivery_id: crate::incident::id::delivery_id(&incident.id, incident.ordinal, "r"),
        receiver: "r".into(),
        event,
        created_at: incident.fired_at,
        incident,
    }
}

pub(crate) fn parcel(event: NoticeEvent, edit: impl FnOnce(&mut Incident)) -> Parcel {
    let notice = notice(event, edit);
    let due = notice.created_at;
    Parcel::of(notice, due)
}

/// A digest of the beginnings of `n` incidents on as many nodes.
pub(crate) fn storm(n: usize) -> Parcel {
    let of_node = |n: usize| {
        let incident = incident(&format!("n{n}"), Kind::Xid, Severity::Critical);
        parcel(NoticeEvent::Trigger, |i| *i = incident)
    };
    Parcel::digest((0..n).map(of_node).collect(), Timestamp(0))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    let text = value.get(name).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("{name} is not a text in {value}"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value.get(name).and_then(Value::as_array);
    list.unwrap_or_else(|| panic!("{name} is not a list in {value}"))
}

fn only(value: &Value, allowed: &[&str]) {
    let object = value.as_object().expect("an object");
    for name in object.keys() {
        assert!(
            allowed.contains(&name.as_str()),
            "{name} does not belong in {value}"
        );
    }
}

fn chars(text: &str, limits: std::ops::RangeInclusive<usize>) -> usize {
    let n = text.chars().count();
    assert!(
        limits.contains(&n),
        "{n} characters, not {limits:?}: {text}"
    );
    n
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap_or_else(|| panic!("{text} is not RFC 3339"))
}

/// Slack's limits, as documented, and the undocumented one on all text together.
pub(crate) fn validate_slack(body: &Value) {
    only(body, &["text", "blocks"]);
    chars(text(body, "text"), 1..=40_000);
    let blocks = list(body, "blocks");
    assert!((1..=50).contains(&blocks.len()));
    let all: usize = blocks.iter().map(validate_block).sum();
    assert!(all <= 8000, "{all} characters in all blocks together");
}

fn validate_block(block: &Value) -> usize {
    match text(block, "type") {
        "header" => {
            only(block, &["type", "text"]);
            assert_eq!(text(&block["text"], "type"), "plain_text");
            chars(text(&block["text"], "text"), 1..=150)
        }
        "section" => {
            only(block, &["type", "text", "fields"]);
            let fields = block
                .get("fields")
                .map_or(&[][..], |_| list(block, "fields"));
            assert!(fields.len() <= 10);
            let of_fields: usize = fields.iter().map(|field| mrkdwn(field, 2000)).sum();
            mrkdwn(&block["text"], 3000) + of_fields
        }
        "context" => {
            only(block, &["type", "elements"]);
            let elements = list(block, "elements");
            assert!((1..=10).contains(&elements.len()));
            elements.iter().map(|element| mrkdwn(element, 3000)).sum()
        }
        "actions" => {
            only(block, &["type", "elements"]);
            let buttons = list(block, "elements");
            assert!((1..=25).contains(&buttons.len()));
            buttons.iter().map(validate_button).sum()
        }
        other => panic!("no block of type {other}"),
    }
}

fn validate_button(button: &Value) -> usize {
    only(button, &["type", "text", "url"]);
    assert_eq!(text(button, "type"), "button");
    assert_eq!(text(&button["text"], "type"), "plain_text");
    chars(text(button, "url"), 8..=3000);
    chars(text(&button["text"], "text"), 1..=75)
}

fn mrkdwn(value: &Value, limit: usize) -> usize {
    only(value, &["type", "text"]);
    assert_eq!(text(value, "type"), "mrkdwn");
    let text = text(value, "text");
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        assert!(after.starts_with("http"), "an unescaped < in {text}");
        rest = after;
    }
    for (at, _) in text.match_indices('&') {
        let entity = ["&amp;", "&lt;", "&gt;"]
            .iter()
            .any(|e| text[at..].starts_with(e));
        assert!(entity, "an unescaped & in {text}");
    }
    chars(text, 1..=limit)
}

/// PagerDuty's Events API v2, as documented.
pub(crate) fn validate_pagerduty(body: &Value) {
    assert!(body.to_string().len() <= 512_000, "more than 512 KB");
    let key = text(body, "routing_key");
    assert!(key.len() == 32 && key.chars().all(|c| c.is_ascii_alphanumeric()));
    let dedup = text(body, "dedup_key");
    assert!(dedup.len() == 64 && dedup.chars().all(|c| c.is_ascii_hexdigit()));
    match text(body, "event_action") {
        "acknowledge" | "resolve" => only(body, &["routing_key", "event_action", "dedup_key"]),
        "trigger" => validate_trigger(body),
        other => panic!("no action {other}"),
    }
}

fn validate_trigger(body: &Value) {
    only(
        body,
        &[
            "routing_key",
            "event_action",
            "dedup_key",
            "payload",
            "client",
            "client_url",
            "links",
        ],
    );
    let payload = &body["payload"];
    only(
        payload,
        &[
            "summary",
            "source",
            "severity",
            "timestamp",
            "component",
            "group",
            "class",
            "custom_details",
        ],
    );
    chars(text(payload, "summary"), 1..=1024);
    chars(text(payload, "source"), 1..=1024);
    assert!(["critical", "error", "warning", "info"].contains(&text(payload, "severity")));
    time(text(payload, "timestamp"));
    assert!(payload["custom_details"].is_object());
    for link in list(body, "links") {
        only(link, &["href", "text"]);
        assert!(text(link, "href").starts_with("http"));
    }
}

/// Alertmanager's webhook, version 4, as its own templates expect it.
pub(crate) fn validate_webhook(body: &Value) {
    only(
        body,
        &[
            "version",
            "groupKey",
            "truncatedAlerts",
            "status",
            "receiver",
            "groupLabels",
            "commonLabels",
            "commonAnnotations",
            "externalURL",
            "alerts",
        ],
    );
    assert_eq!(text(body, "version"), "4");
    assert!(text(body, "groupKey").starts_with("{}:{"));
    assert!(body["truncatedAlerts"].is_u64());
    let alerts = list(body, "alerts");
    let firing = alerts.iter().any(|alert| alert["status"] == "firing");
    assert_eq!(
        text(body, "status"),
        if firing { "firing" } else { "resolved" }
    );
    for common in ["commonLabels", "commonAnnotations"] {
        let of_alert = if common == "commonLabels" {
            "labels"
        } else {
            "annotations"
        };
        for (name, value) in texts(&body[common]) {
            assert!(
                alerts.iter().all(|alert| alert[of_alert][name] == value),
                "{name} is not common"
            );
        }
    }
    texts(&body["groupLabels"]);
    alerts.iter().for_each(validate_alert);
}

fn validate_alert(alert: &Value) {
    only(
        alert,
        &[
            "status",
            "labels",
            "annotations",
            "startsAt",
            "endsAt",
            "generatorURL",
            "fingerprint",
        ],
    );
    chars(text(&alert["labels"], "alertname"), 1..=200);
    texts(&alert["labels"]);
    texts(&alert["annotations"]);
    let starts = time(text(alert, "startsAt"));
    match text(alert, "status") {
        "firing" => assert_eq!(text(alert, "endsAt"), "0001-01-01T00:00:00Z"),
        "resolved" => assert!(starts <= time(text(alert, "endsAt"))),
        other => panic!("no status {other}"),
    }
    let fingerprint = text(alert, "fingerprint");
    assert!(fingerprint.len() == 16 && fingerprint.chars().all(|c| c.is_ascii_hexdigit()));
}

/// An object of texts with names that Prometheus takes.
fn texts(value: &Value) -> Vec<(&str, &str)> {
    let pairs = value.as_object().expect("an object").iter();
    pairs
        .map(|(name, value)| {
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                "{name}"
            );
            (name.as_str(), value.as_str().expect("a text"))
        })
        .collect()
}
