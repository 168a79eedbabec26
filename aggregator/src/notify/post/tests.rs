//! Each kind of receiver, met by each kind of answer, over real HTTP.

use super::*;
use crate::incident::NoticeEvent;
use crate::notify::testing::server::{Reply, Server, ok, receivers_at};
use crate::notify::testing::{
    ROUTING_KEY, context, parcel, storm, validate_pagerduty, validate_slack, validate_webhook,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn poster() -> Poster {
    let (connect, total) = (Duration::from_secs(10), Duration::from_secs(30));
    Poster::with_timeouts(None, connect, total).expect("a client")
}

async fn send(receiver: &Receiver, parcel: &Parcel) -> Verdict {
    poster().send(receiver, parcel, &context(), NOW).await
}

/// `delivered`, `again`, `again, perhaps taken`, `again after 7 s` or `refused`, and why.
fn in_words(verdict: Verdict) -> (String, String) {
    match verdict {
        Verdict::Delivered => ("delivered".into(), String::new()),
        Verdict::Refused { why } => ("refused".into(), why),
        Verdict::Retry {
            after,
            perhaps_taken,
            why,
        } => {
            let after = after
                .map(|a| format!(" after {} s", a.as_secs()))
                .unwrap_or_default();
            let taken = if perhaps_taken { ", perhaps taken" } else { "" };
            (format!("again{after}{taken}"), why)
        }
    }
}

/// What every kind of receiver makes of one answer.
async fn check(reply: Reply, expected: &str, because: &str) {
    let mut server = Server::start(vec![reply.clone(); 3]).await;
    let folder = tempfile::tempdir().expect("a folder");
    for receiver in receivers_at(folder.path(), &server.url) {
        let verdict = send(&receiver, &parcel(NoticeEvent::Trigger, |_| {})).await;
        let (word, why) = in_words(verdict);
        assert_eq!(word, expected, "{} to {reply:?}: {why}", receiver.name());
        assert!(why.contains(because), "{why}");
        for secret in [server.url.as_str(), ROUTING_KEY, "s3cret"] {
            assert!(!why.contains(secret), "{why}");
        }
        server.next().await;
    }
}

#[tokio::test]
async fn every_answer_has_a_consequence_and_a_reason() {
    check(ok(), "delivered", "").await;
    check(
        Reply::Says(400, "invalid_payload".into()),
        "refused",
        "HTTP 400: invalid_payload",
    )
    .await;
    check(Reply::Says(404, "no_service".into()), "refused", "HTTP 404").await;
    check(
        Reply::Says(500, "rollup_error".into()),
        "again, perhaps taken",
        "HTTP 500",
    )
    .await;
    let busy = Reply::With(429, ("retry-after", "7".into()), r#"{"ok":false}"#.into());
    check(busy, "again after 7 s", "HTTP 429").await;
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let mut elsewhere = Server::start([]).await;
    let moved = Reply::With(307, ("location", elsewhere.url.clone()), String::new());
    check(
        moved,
        "refused",
        "write the final URL into the receivers file",
    )
    .await;
    assert!(elsewhere.rest().is_empty());
}

#[tokio::test]
async fn an_answer_that_repeats_a_secret_does_not_show_it() {
    let server = Server::start([Reply::Says(400, format!("no key {ROUTING_KEY}"))]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = &receivers_at(folder.path(), &server.url)[1];
    let (_, why) = in_words(send(receiver, &parcel(NoticeEvent::Trigger, |_| {})).await);
    assert!(why.ends_with("(HTTP 400: no key …)"), "{why}");
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_given_up_after_a_while_and_may_have_taken_it() {
    let mut server = Server::start([Reply::Never]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = &receivers_at(folder.path(), &server.url)[2];
    let short = Duration::from_millis(300);
    let poster = Poster::with_timeouts(None, short, short).expect("a client");
    let page = parcel(NoticeEvent::Trigger, |_| {});
    let verdict = poster.send(receiver, &page, &context(), NOW).await;
    assert_eq!(in_words(verdict).0, "again, perhaps taken");
    server.next().await;
}

#[tokio::test]
async fn a_receiver_that_is_not_there_has_taken_nothing() {
    // Bound and closed again: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    drop(listener);
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = &receivers_at(folder.path(), &url)[0];
    let (word, why) = in_words(send(receiver, &parcel(NoticeEvent::Trigger, |_| {})).await);
    assert_eq!(word, "again");
    assert!(
        why.starts_with("no connection") && !why.contains(&url),
        "{why}"
    );
}

#[tokio::test]
async fn a_very_long_answer_is_not_read_to_its_end() {
    check(
        Reply::Says(400, "x".repeat(5_000_000)),
        "refused",
        "HTTP 400: xxx",
    )
    .await;
}

#[tokio::test]
async fn each_receiver_gets_its_format() {
    let mut server = Server::start([]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let receivers = receivers_at(folder.path(), &server.url);
    for parcel in [parcel(NoticeEvent::Trigger, |_| {}), storm(30)] {
        let validators = [validate_slack, validate_pagerduty, validate_webhook];
        for (receiver, validate) in receivers.iter().zip(validators) {
            assert_eq!(send(receiver, &parcel).await, Verdict::Delivered);
            let seen = server.next().await;
            assert_eq!(seen.header("content-type"), "application/json");
            validate(&seen.body());
        }
    }
}

#[tokio::test]
async fn a_webhook_can_check_who_sent_it_and_whether_it_has_it_already() {
    let mut server = Server::start([]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = &receivers_at(folder.path(), &server.url)[2];
    let page = parcel(NoticeEvent::Trigger, |_| {});
    send(receiver, &page).await;
    let seen = server.next().await;
    assert_eq!(seen.header("x-entrenar-delivery"), page.id);
    assert_eq!(seen.header("x-entrenar-incident"), page.first().incident.id);
    assert_eq!(seen.header("x-entrenar-attempt"), "1");
    let signed = webhook::sign(b"s3cret", &seen.header("x-entrenar-timestamp"), &seen.bytes);
    assert_eq!(
        seen.header("x-entrenar-signature"),
        format!("keyid=k1,sha256={signed}")
    );
}

#[tokio::test]
async fn a_secret_that_changes_is_used_from_the_next_message_on() {
    let (mut old, mut new) = (Server::start([]).await, Server::start([]).await);
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = &receivers_at(folder.path(), &old.url)[0];
    let page = parcel(NoticeEvent::Trigger, |_| {});
    send(receiver, &page).await;
    old.next().await;

    let url = folder.path().join("url");
    std::fs::write(&url, &new.url).expect("a file");
    send(receiver, &page).await;
    new.next().await;

    std::fs::write(&url, "http://169.254.169.254/latest").expect("a file");
    let (word, why) = in_words(send(receiver, &page).await);
    assert_eq!(word, "again");
    assert!(why.contains("metadata"), "{why}");

    std::fs::remove_file(&url).expect("removed");
    let (word, why) = in_words(send(receiver, &page).await);
    assert_eq!(word, "again");
    assert!(why.contains("cannot be read"), "{why}");
}

#[tokio::test]
async fn a_heartbeat_fails_when_it_is_not_taken() {
    let server = Server::start([ok(), Reply::Says(500, String::new())]).await;
    let url = Url::parse(&server.url).expect("a URL");
    assert_eq!(poster().ping(url.clone(), NOW).await, Ok(()));
    assert!(poster().ping(url, NOW).await.is_err());
}
