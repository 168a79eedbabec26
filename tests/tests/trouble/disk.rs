//! A database that cannot be used: said at the start with what to do, and survived while running.

use std::path::Path;
use std::process::Command;

use entrenar_tests::external::program;
use entrenar_tests::process::{eventually, items, limit_files, run, run_command};
use entrenar_tests::receiver::{Hooks, Post};
use entrenar_tests::talker::{Node, Talker};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use super::{FATAL_XID, FREE, aggregator, directory, log};

/// A database as a first start leaves it.
fn made(dir: &Path) -> std::path::PathBuf {
    assert!(aggregator(dir, &[]).terminate().success());
    dir.join("data/entrenar.db")
}

/// The file, without SQLite's own two counters of openings that set a pragma.
fn content(database: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(database).expect("read");
    bytes[24..28].fill(0);
    bytes[92..96].fill(0);
    bytes
}

fn start_fails(dir: &Path, words: &[&str]) {
    let data = dir.join("data").display().to_string();
    let args = [&["--data-dir", data.as_str()], FREE.as_slice()].concat();
    fails(&run("entrenar-aggregator", &args), words);
}

fn fails((code, said): &(Option<i32>, String), words: &[&str]) {
    assert_eq!(*code, Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_read_only_database_is_named_with_what_to_do_and_left_alone() {
    let dir = directory();
    let database = made(dir.path());
    let before = content(&database);
    let mut permissions = std::fs::metadata(&database).expect("there").permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&database, permissions).expect("set");
    start_fails(dir.path(), &["entrenar.db", "read-only", "chmod u+w"]);
    assert!(content(&database) == before, "it was changed");
}

#[tokio::test]
async fn a_database_from_a_newer_version_is_named_with_what_to_do_and_left_alone() {
    let dir = directory();
    let database = made(dir.path());
    let options = SqliteConnectOptions::new().filename(&database);
    let mut connection = options.connect().await.expect("opened");
    let future =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                  VALUES (99, 'future', true, x'00', 0)";
    sqlx::raw_sql(future)
        .execute(&mut connection)
        .await
        .expect("written");
    sqlx::Connection::close(connection).await.expect("closed");
    let before = content(&database);
    start_fails(
        dir.path(),
        &["schema 99", "newer version", "restore a backup"],
    );
    assert!(content(&database) == before, "it was changed");
}

#[test]
fn a_disk_without_room_for_the_database_is_named_with_what_to_do() {
    let dir = directory();
    let data = dir.path().join("data").display().to_string();
    let mut command = Command::new("prlimit");
    command
        .args(["--fsize=4096", "--"])
        .arg(program("entrenar-aggregator"));
    command.args([&["--data-dir", data.as_str()], FREE.as_slice()].concat());
    fails(&run_command(&mut command), &["entrenar.db", "full"]);
}

/// `text` of every annotation of a post.
fn said(post: &Post) -> String {
    post.body["alerts"].to_string()
}

#[tokio::test]
async fn while_the_disk_takes_nothing_a_page_goes_out_and_once_it_does_nothing_is_missing() {
    let dir = directory();
    let client = Client::new();
    let hooks = Hooks::start(&[]).await;
    let receivers = hooks.file(dir.path(), &["on-call"]);
    let server = aggregator(dir.path(), &["--receivers", &receivers]);
    let node = Node::named("n1");
    let mut talker = Talker::connect(&server.grpc, &node).await.expect("a hello");
    talker.say(&node.sample(1, node.now())).await;
    talker.hear_up_to(1).await.expect("durable");

    limit_files(server.pid(), Some(0));
    talker.say(&node.sample(2, node.now())).await;
    talker.say(&node.xid(3, FATAL_XID)).await;
    let page = eventually("a page", async || hooks.seen("on-call").into_iter().next()).await;
    assert_eq!(page.body["commonLabels"]["alertname"], "Xid", "{page:?}");
    assert_eq!(
        page.body["commonLabels"]["severity"], "critical",
        "{page:?}"
    );
    assert!(said(&page).contains("Not recorded"), "{page:?}");
    let ready = format!("http://{}/readyz", server.http);
    let answer = client.get(&ready).send().await.expect("answered");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem: Value = answer.json().await.expect("JSON");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(
        detail.contains("full") && detail.contains("volume"),
        "{detail}"
    );
    // An hour of waiting could not say more: see the stories of the driver in virtual time.
    assert!(!talker.durable.contains(2) && !talker.durable.contains(3));

    limit_files(server.pid(), None);
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
    assert_eq!(
        of_kind(&hooks, "Xid"),
        1,
        "what went out unrecorded is not sent again"
    );

    // As by kill -9, and back again.
    drop(talker);
    drop(server);
    let server = aggregator(dir.path(), &["--receivers", &receivers]);
    let talker = Talker::connect(&server.grpc, &node).await.expect("a hello");
    assert!(
        talker.durable.gaps(1, 3).next().is_none(),
        "{:?}",
        talker.durable
    );
    let incidents = format!("http://{}/api/v1/incidents?kind=Xid", server.http);
    let kept = items(&client, &incidents).await.expect("a list");
    assert_eq!(kept[0]["id"], open["id"]);
    assert_eq!(of_kind(&hooks, "Xid"), 1);
    log(dir.path(), "log");
}

fn of_kind(hooks: &Hooks, kind: &str) -> usize {
    let posts = hooks.seen("on-call");
    let of_kind = |p: &&Post| p.body["commonLabels"]["alertname"] == kind;
    posts.iter().filter(of_kind).count()
}
