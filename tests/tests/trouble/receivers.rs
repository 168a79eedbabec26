//! Receivers that do not take a page at once, or never.

use entrenar_tests::process::{Server, eventually, items};
use entrenar_tests::receiver::{Answers, Hooks};
use entrenar_tests::talker::{Node, Talker};
use reqwest::Client;
use serde_json::Value;

use super::{FATAL_XID, aggregator, directory, log};

const PATHS: [&str; 6] = ["well", "rejects", "busy", "broken", "silent", "moved"];

/// What became of the page to a receiver.
async fn notice(client: &Client, server: &Server, receiver: &str) -> Option<Value> {
    let url = format!("http://{}/api/v1/notifications", server.http);
    let notices = items(client, &url).await?;
    let of = |n: &Value| n["receiver"] == receiver && n["kind"] == "Xid";
    notices.into_iter().find(of)
}

#[tokio::test]
async fn each_receiver_is_told_as_it_can_be_and_none_waits_for_another() {
    let dir = directory();
    let client = Client::new();
    let hooks = Hooks::start(&[
        ("rejects", Answers::Always(400, vec![])),
        (
            "busy",
            Answers::Once(429, vec![("retry-after", "1".into())]),
        ),
        ("broken", Answers::Once(500, vec![])),
        ("silent", Answers::Never),
        (
            "moved",
            Answers::Always(307, vec![("location", "/elsewhere".into())]),
        ),
    ])
    .await;
    let receivers = hooks.file(dir.path(), &PATHS);
    let server = aggregator(dir.path(), &["--receivers", &receivers]);
    let node = Node::named("n1");
    let talker = Talker::connect(&server.grpc, &node).await.expect("a hello");
    talker.say(&node.xid(1, FATAL_XID)).await;

    for (receiver, state, attempts, because) in [
        ("well", "delivered", 1, ""),
        ("rejects", "dead", 1, "HTTP 400"),
        (
            "moved",
            "dead",
            1,
            "write the final URL into the receivers file",
        ),
        ("busy", "delivered", 2, ""),
        ("broken", "delivered", 2, ""),
    ] {
        let found = eventually(receiver, async || {
            let found = notice(&client, &server, receiver).await?;
            (found["state"] == state).then_some(found)
        })
        .await;
        assert_eq!(found["attempts"], attempts, "{found}");
        let error = found["last_error"].as_str().unwrap_or_default();
        assert!(error.contains(because), "{found}");
        let posts = hooks.seen(receiver);
        assert_eq!(posts.len(), attempts, "{receiver}");
        assert!(posts.iter().all(|p| p.delivery == posts[0].delivery));
    }
    assert_eq!(hooks.seen("silent").len(), 1);
    let silent = notice(&client, &server, "silent")
        .await
        .expect("it is kept");
    assert_eq!(silent["state"], "pending", "{silent}");
    assert!(hooks.seen("elsewhere").is_empty());
    log(dir.path(), "log");
}
