//! A parcel as a Slack message: Block Kit within Slack's limits, and a plain line for notifications.
//!
//! Limits: <https://docs.slack.dev/reference/block-kit/blocks>; the text of all blocks together is kept under 8,000
//! characters, because messages of 11,000 were refused.

use serde_json::{Value, json};

use crate::notify::message::{Context, Digest, Message};
use crate::notify::parcel::Parcel;
use crate::notify::retry::{Answer, Verdict};

/// Characters of a header.
const HEADER_CHARS: usize = 150;
/// Characters of one section; Slack takes 3,000.
const SECTION_CHARS: usize = 2000;
/// Characters of one short field.
const FIELD_CHARS: usize = 300;
/// Characters of the plain line.
const TEXT_CHARS: usize = 1000;
/// Characters of one line of a digest: twenty of them stay within the message's limit.
const LINE_CHARS: usize = 280;
/// Characters of what to do.
const ACTION_CHARS: usize = 1500;
/// Characters of the small print.
const NOTES_CHARS: usize = 800;
/// Characters of the evidence.
const EVIDENCE_CHARS: usize = 1800;

/// Failures that Slack reports with status 200 and that pass.
const PASSING_ERRORS: [&str; 5] = [
    "rate_limited",
    "ratelimited",
    "fatal_error",
    "internal_error",
    "request_timeout",
];

/// The body of the request.
pub fn body(parcel: &Parcel, context: &Context) -> Value {
    if parcel.is_digest() {
        digest(&Digest::of(parcel, context))
    } else {
        message(&Message::of(parcel.first(), parcel.unrecorded, context))
    }
}

fn message(message: &Message) -> Value {
    let header = format!("{} {} on {}", message.word, message.kind, message.place);
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": cut(&header, HEADER_CHARS)}}),
        json!({"type": "section", "text": mrkdwn(&message.what, SECTION_CHARS), "fields": fields(message)}),
    ];
    if !message.facts.is_empty() {
        let lines: Vec<String> = message.facts.iter().map(evidence_line).collect();
        blocks.push(section(&lines.join("\n"), EVIDENCE_CHARS));
    }
    if !message.action.is_empty() {
        blocks.push(section(
            &format!("*What to do*\n{}", escape(&message.action)),
            ACTION_CHARS,
        ));
    }
    let mut context: Vec<String> = message.notes.iter().map(|note| escape(note)).collect();
    context.push(format!("Missing data: {}", escape(&message.missing)));
    blocks.push(json!({"type": "context", "elements": [marked(&context.join("\n"), NOTES_CHARS)]}));
    blocks.push(json!({"type": "actions", "elements": buttons(message)}));
    json!({"text": cut(&escape(&message.headline), TEXT_CHARS), "blocks": blocks})
}

fn fields(message: &Message) -> Vec<Value> {
    let mut fields = vec![
        ("Cluster", message.cluster.clone()),
        ("Where", message.place.clone()),
        ("Since", message.since.clone()),
    ];
    fields.extend(message.job.clone().map(|job| ("Job", job)));
    fields.extend(
        message
            .culprits
            .clone()
            .map(|culprits| ("Culprit", culprits)),
    );
    let field = |(name, value): (&str, String)| {
        marked(&format!("*{name}*\n{}", escape(&value)), FIELD_CHARS)
    };
    fields.into_iter().map(field).collect()
}

fn evidence_line(fact: &crate::notify::message::Fact) -> String {
    let line = format!("*{}* {}", escape(&fact.name), escape(&fact.text));
    match &fact.spark {
        Some(spark) => format!("{line}\n`{spark}`"),
        None => line,
    }
}

fn buttons(message: &Message) -> Vec<Value> {
    let mut buttons = vec![button("Open", &message.link)];
    if let Some(link) = &message.acknowledge_link {
        buttons.push(button("Acknowledge", link));
    }
    if let Some(link) = &message.runbook_url {
        buttons.push(button("Runbook", link));
    }
    buttons
}

fn button(text: &str, url: &str) -> Value {
    json!({"type": "button", "text": {"type": "plain_text", "text": text}, "url": url})
}

fn digest(digest: &Digest) -> Value {
    let mut blocks = vec![json!({
        "type": "header", "text": {"type": "plain_text", "text": cut(&digest.headline, HEADER_CHARS)}
    })];
    let line = |(line, link): &(String, String)| {
        // The link must stay whole: only the words are cut.
        let words = LINE_CHARS.saturating_sub(link.chars().count() + 12);
        format!("• {} <{link}|open>", cut(&escape(line), words))
    };
    let lines: Vec<String> = digest.lines.iter().map(line).collect();
    // A section takes 3,000 characters, so ten lines each.
    blocks.extend(
        lines
            .chunks(10)
            .map(|lines| section(&lines.join("\n"), 3000)),
    );
    let more = match digest.n_more {
        0 => "All of them are on the board.".to_owned(),
        n => format!("And {n} more, all of them on the board."),
    };
    let note = digest.unrecorded.clone().unwrap_or_default();
    blocks.push(
        json!({"type": "context", "elements": [marked(&format!("{more} {note}"), NOTES_CHARS)]}),
    );
    blocks.push(json!({"type": "actions", "elements": [button("Open the board", &digest.link)]}));
    json!({"text": cut(&escape(&digest.headline), TEXT_CHARS), "blocks": blocks})
}

fn section(text: &str, limit: usize) -> Value {
    json!({"type": "section", "text": marked(text, limit)})
}

/// Foreign text.
fn mrkdwn(text: &str, limit: usize) -> Value {
    marked(&escape(text), limit)
}

/// Text that is escaped already.
fn marked(text: &str, limit: usize) -> Value {
    json!({"type": "mrkdwn", "text": cut(text, limit)})
}

/// Foreign text must not speak to the channel: `<!channel>` in a host's name is only text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// At most `limit` characters; what is cut ends in `…`, never inside an entity.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    if let Some(start) = kept.rfind('&')
        && !kept[start..].contains(';')
    {
        kept.truncate(start);
    }
    kept.push('…');
    kept
}

/// What an answer means. Slack says `ok`, or in JSON whether it is; a good status alone means nothing.
pub fn judge(answer: &Answer) -> Verdict {
    if !(200..=299).contains(&answer.status) {
        return answer.verdict();
    }
    if answer.body.trim() == "ok" {
        return Verdict::Delivered;
    }
    let said: Option<Value> = serde_json::from_str(&answer.body).ok();
    let said = said.as_ref();
    let ok = said
        .and_then(|said| said.get("ok"))
        .and_then(Value::as_bool);
    let error = said
        .and_then(|said| said.get("error"))
        .and_then(Value::as_str);
    match (ok, error) {
        (Some(true), _) => Verdict::Delivered,
        (Some(false), Some(error)) if PASSING_ERRORS.contains(&error) => answer.try_again(),
        (Some(false), _) => Verdict::Refused {
            why: answer.explain("Slack refused it"),
        },
        // Something else answers in Slack's place, such as a proxy's login page; it may pass.
        (None, _) => Verdict::Retry {
            after: None,
            perhaps_taken: true,
            why: answer.explain("the answer is not Slack's: check the URL and any proxy"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::NoticeEvent;
    use crate::notify::testing::{context, parcel, storm, validate_slack};

    #[test]
    fn a_message_has_everything_and_keeps_slack_s_limits() {
        let body = body(&parcel(NoticeEvent::Trigger, |_| {}), &context());
        validate_slack(&body);
        let text = body.to_string();
        for part in [
            "CRITICAL Xid on n7 GPU 3",
            "*Cluster*",
            "2023-11-14T22:13:20.000Z",
            "94 °C, threshold 90 °C",
            "▁▆·█",
            "Check the fans",
            "Missing data: memory_temperature_celsius",
            "?acknowledge=1",
            "https://wiki.example/thermal",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn foreign_text_can_neither_shout_nor_break_the_limits() {
        let long = "<!channel> & ".repeat(2000);
        let parcel = parcel(NoticeEvent::Trigger, |incident| {
            incident.summary.clone_from(&long);
            incident.action.clone_from(&long);
            incident.missing = vec![long.clone(); 20];
            incident.job = Some(long.clone());
            incident.evidence = vec![incident.evidence[0].clone(); 100];
        });
        let body = body(&parcel, &context());
        validate_slack(&body);
        assert!(!body.to_string().contains("<!channel>"));
    }

    #[test]
    fn a_digest_lists_twenty_and_counts_the_rest() {
        let body = body(&storm(60), &context());
        validate_slack(&body);
        let text = body.to_string();
        assert_eq!(text.matches("|open>").count(), 20);
        assert!(text.contains("And 40 more"), "{text}");
    }

    #[test]
    fn a_cut_never_leaves_half_an_entity() {
        assert_eq!(cut("ab&amp;cd", 5), "ab…");
        assert_eq!(cut("ab&amp;cdef", 9), "ab&amp;c…");
        assert_eq!(cut("abc", 3), "abc");
    }

    #[test]
    fn slack_says_ok_in_its_own_way() {
        let verdict = |status: u16, body: &str| {
            let body = body.to_owned();
            match judge(&Answer {
                status,
                body,
                retry_after: None,
            }) {
                Verdict::Delivered => "delivered",
                Verdict::Retry { .. } => "again",
                Verdict::Refused { .. } => "refused",
            }
        };
        assert_eq!(verdict(200, "ok"), "delivered");
        assert_eq!(verdict(200, r#"{"ok":true}"#), "delivered");
        assert_eq!(
            verdict(200, r#"{"ok":false,"error":"ratelimited"}"#),
            "again"
        );
        assert_eq!(
            verdict(200, r#"{"ok":false,"error":"channel_not_found"}"#),
            "refused"
        );
        assert_eq!(verdict(200, "<html>Log in"), "again");
        assert_eq!(verdict(204, ""), "again");
        assert_eq!(verdict(404, "no_service"), "refused");
        assert_eq!(verdict(500, "rollup_error"), "again");
    }
}
