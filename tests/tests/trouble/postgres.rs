//! The same line on Postgres: a server that goes away and comes back, and a second aggregator beside the first.

use std::path::Path;
use std::process::Command;

use entrenar_tests::external::program;
use entrenar_tests::process::{Server, eventually, items, run};
use entrenar_tests::receiver::Hooks;
use entrenar_tests::talker::{Node, Talker};
use private_postgres::Cluster;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use super::{FATAL_XID, agent, aggregator, directory, is_served, log, node};

#[tokio::test]
async fn while_postgres_is_away_a_page_goes_out_and_once_it_is_back_nothing_is_missing() {
    let Some(cluster) = Cluster::durable() else {
        return;
    };
    let database = cluster.database().await;
    let dir = directory();
    let client = Client::new();
    let hooks = Hooks::start(&[]).await;
    let receivers = hooks.file(dir.path(), &["on-call"]);
    let args = ["--database-url", &database.url, "--receivers", &receivers];
    let server = aggregator(dir.path(), &args);
    let told = Node::named("n1");
    let mut talker = Talker::connect(&server.grpc, &told).await.expect("a hello");
    talker.say(&told.sample(1, told.now())).await;
    talker.hear_up_to(1).await.expect("durable");
    // A whole agent beside it: its spool holds what is not durable.
    let _agent = agent(dir.path(), "whole", "n2", &server.grpc);
    is_served(&client, &server, "n2").await;

    cluster.stop();
    talker.say(&told.sample(2, told.now())).await;
    talker.say(&told.xid(3, FATAL_XID)).await;
    let page = eventually("a page", async || hooks.seen("on-call").into_iter().next()).await;
    assert_eq!(page.body["commonLabels"]["alertname"], "Xid", "{page:?}");
    let ready = format!("http://{}/readyz", server.http);
    let answer = client.get(&ready).send().await.expect("answered");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem: Value = answer.json().await.expect("JSON");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("busy or away"), "{detail}");
    // An hour of waiting could not say more: see the stories of the driver in virtual time.
    assert!(!talker.durable.contains(2) && !talker.durable.contains(3));
    // Rules and the board go on.
    is_served(&client, &server, "n2").await;

    cluster.start();
    talker.hear_up_to(3).await.expect("durable");
    let incidents = format!("http://{}/api/v1/incidents?kind=Xid", server.http);
    let open = eventually("the incident on the board", async || {
        items(&client, &incidents).await?.into_iter().next()
    })
    .await;
    let notices = format!("http://{}/api/v1/notifications", server.http);
    eventually("the page marked as delivered", async || {
        let notices = items(&client, &notices).await?;
        let page = notices.iter().find(|n| n["incident"] == open["id"])?;
        (page["state"] == "delivered").then_some(())
    })
    .await;
    let answer = client.get(&ready).send().await.expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);

    // As by kill -9, and back again.
    drop(talker);
    drop(server);
    let server = aggregator(dir.path(), &args);
    let talker = Talker::connect(&server.grpc, &told).await.expect("a hello");
    let gaps = talker.durable.gaps(1, 3).next();
    assert!(gaps.is_none(), "{:?}", talker.durable);
    let incidents = format!("http://{}/api/v1/incidents?kind=Xid", server.http);
    let kept = items(&client, &incidents).await.expect("a list");
    assert_eq!(kept[0]["id"], open["id"]);
    assert_eq!(hooks.seen("on-call").len(), 1, "told once");
    let known = node(&client, &server, "n2").await;
    assert!(known.is_some(), "the other node is expected");
    log(dir.path(), "log");
}

/// What the aggregator logged to this file, once it says these words.
async fn said(dir: &Path, name: &str, words: &str) -> String {
    eventually(words, async || {
        let text = std::fs::read_to_string(dir.join(name)).ok()?;
        text.contains(words).then_some(text)
    })
    .await
}

/// Where it serves, as it logs while it waits.
fn http(log: &str) -> String {
    let address = log.split("http=").nth(1).expect("where it serves");
    let end = address.find(char::is_whitespace).unwrap_or(address.len());
    address[..end].to_owned()
}

/// Starts one that waits, on a thread that waits for it.
fn start(dir: &Path, url: &str, log: &str) -> tokio::task::JoinHandle<Server> {
    let (data, log) = (dir.join(log).join("data"), dir.join(log));
    std::fs::create_dir_all(&data).expect("made");
    let (data, url) = (data.display().to_string(), url.to_owned());
    tokio::task::spawn_blocking(move || {
        let args = ["--data-dir", &data, "--database-url", &url];
        let args = [args.as_slice(), &super::FREE].concat();
        Server::start_logged("entrenar-aggregator", &args, &log.join("log"))
    })
}

#[tokio::test]
async fn one_that_finds_no_database_waits_and_says_so_and_a_second_one_takes_over() {
    let Some(cluster) = Cluster::durable() else {
        return;
    };
    let database = cluster.database().await;
    cluster.stop();
    let dir = directory();
    let client = Client::new();
    let first = start(dir.path(), &database.url, "first");
    let logged = said(&dir.path().join("first"), "log", "waiting for the database").await;
    let waiting = http(&logged);
    let ask = async |path: &str| client.get(format!("http://{waiting}{path}")).send().await;
    let ready = ask("/readyz").await.expect("answered");
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem: Value = ready.json().await.expect("JSON");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(
        detail.contains("waiting for the database: could not connect"),
        "{detail}"
    );
    assert_eq!(
        ask("/healthz").await.expect("answered").status(),
        StatusCode::OK
    );
    cluster.start();
    let first = first.await.expect("ready");
    assert_eq!(first.http, waiting, "the listener never closed");
    assert_eq!(
        ask("/readyz").await.expect("answered").status(),
        StatusCode::OK
    );
    let told = Node::named("n1");
    let mut talker = Talker::connect(&first.grpc, &told).await.expect("a hello");
    talker.say(&told.sample(1, told.now())).await;
    talker.hear_up_to(1).await.expect("durable");

    let second = start(dir.path(), &database.url, "second");
    said(&dir.path().join("second"), "log", "another aggregator has").await;
    drop(talker);
    assert!(first.terminate().success());
    let second = second.await.expect("ready");
    let talker = Talker::connect(&second.grpc, &told).await.expect("a hello");
    assert!(talker.durable.contains(1), "{:?}", talker.durable);
    drop(talker);
    assert!(second.terminate().success());
}

#[tokio::test]
async fn one_that_waits_leaves_when_it_is_told_to() {
    let dir = directory();
    let log = std::fs::File::create(dir.path().join("log")).expect("a log");
    let mut waiting = Command::new(program("entrenar-aggregator"))
        .args(["--database-url", "postgres://ann:hunter2@127.0.0.1:1/fleet"])
        .args(super::FREE)
        .stderr(log)
        .spawn()
        .expect("it starts");
    let said = said(dir.path(), "log", "waiting for the database").await;
    assert!(!said.contains("hunter2"), "{said}");
    let pid = waiting.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill runs").success());
    let left = tokio::task::spawn_blocking(move || waiting.wait());
    assert!(left.await.expect("waited").expect("ended").success());
}

#[test]
fn a_backup_of_postgres_is_left_to_its_own_tools() {
    let dir = directory();
    let out = dir.path().join("copy").display().to_string();
    let url = "postgres://ann:hunter2@db/fleet";
    let (code, said) = run("entrenar", &["backup", "--database-url", url, "-o", &out]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("pg_dump") && !said.contains("hunter2"),
        "{said}"
    );
}
