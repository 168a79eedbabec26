//! `entrenar up` on a host: from what the driver says to a person, and what it says where there is no driver.

use entrenar_tests::process::{Server, eventually, items, run};
use entrenar_tests::receiver::Hooks;
use fake_nvml::harness::FakeNvml;
use reqwest::Client;
use serde_json::Value;

use super::{FATAL_XID, FREE, directory, log};

#[tokio::test]
async fn an_error_of_the_driver_reaches_a_person_and_a_backup_has_it() {
    let dir = directory();
    let client = Client::new();
    let hooks = Hooks::start(&[]).await;
    let receivers = hooks.file(dir.path(), &["on-call"]);
    let nvml = FakeNvml::install(dir.path(), "gpus 2");
    let (library, data) = (nvml.library(), dir.path().join("data"));
    let (library, data) = (library.display().to_string(), data.display().to_string());
    let mut args = vec!["up", "--nvml-lib", &library, "--data-dir", &data];
    args.extend(["--receivers", &receivers]);
    args.extend(FREE);
    let server = Server::start_logged("entrenar", &args, &dir.path().join("log"));
    let gpus = format!("http://{}/api/v1/gpus", server.http);
    eventually("both GPUs", async || {
        let gpus = items(&client, &gpus).await?;
        let is_read = |g: &Value| g["metrics"]["temperature_celsius"].is_number();
        (gpus.len() == 2 && gpus.iter().all(is_read)).then_some(())
    })
    .await;

    nvml.play(&format!("gpus 2\nevent 1 gpu 1 xid {FATAL_XID}"));
    let page = eventually("a page", async || hooks.seen("on-call").into_iter().next()).await;
    let labels = &page.body["commonLabels"];
    assert_eq!(labels["alertname"], "Xid", "{page:?}");
    assert_eq!(labels["device"], "1", "{page:?}");
    eventually("its outcome recorded", async || {
        let url = format!("http://{}/api/v1/notifications", server.http);
        let notices = items(&client, &url).await?;
        (notices.first()?["state"] == "delivered").then_some(())
    })
    .await;

    // While it runs: a copy from which another aggregator can start.
    let copy = dir.path().join("copy.db").display().to_string();
    let database = format!("sqlite:{data}/entrenar.db");
    let backup = ["backup", "--database-url", &database, "-o", &copy];
    assert_eq!(run("entrenar", &backup), (Some(0), String::new()));
    let (code, said) = run("entrenar", &backup);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("exists already"), "{said}");
    assert!(server.terminate().success());

    let copy = format!("sqlite:{copy}");
    let mut args = vec!["--database-url", &copy, "--receivers", &receivers];
    args.extend(FREE);
    let restored = Server::start_logged("entrenar-aggregator", &args, &dir.path().join("log"));
    let url = format!("http://{}/api/v1/incidents?kind=Xid", restored.http);
    let kept = items(&client, &url).await.expect("a list");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(restored.terminate().success());
    assert_eq!(hooks.seen("on-call").len(), 1, "told once");
    log(dir.path(), "log");
}

#[test]
fn without_a_driver_the_libraries_that_were_tried_are_named_and_the_demo_too() {
    let dir = directory();
    let nowhere = dir.path().join("libnvidia-ml.so.1").display().to_string();
    let (code, said) = run("entrenar", &["up", "--nvml-lib", &nowhere]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&nowhere) && said.contains("entrenar demo"),
        "{said}"
    );
}

#[tokio::test]
async fn a_heartbeat_goes_out_as_long_as_the_aggregator_lives() {
    let dir = directory();
    let hooks = Hooks::start(&[]).await;
    let file = dir.path().join("receivers.yaml");
    let beat = hooks.url("alive");
    let text = format!("heartbeat: {{ url: '{beat}', interval: 100ms }}\n");
    std::fs::write(&file, text).expect("written");
    let receivers = file.display().to_string();
    let server = super::aggregator(dir.path(), &["--receivers", &receivers]);
    eventually("three heartbeats", async || {
        (hooks.seen("alive").len() >= 3).then_some(())
    })
    .await;
    assert!(server.terminate().success());
}
