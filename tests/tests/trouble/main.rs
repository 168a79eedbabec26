//! What goes wrong from outside, met by the real programs: bytes that make no sense, disks that take nothing, wrong
//! clocks, names that are taken, receivers that do not take a page.

mod clocks;
mod commit;
mod disk;
mod host;
mod postgres;
mod receivers;
mod wire;

use std::path::Path;

use entrenar_tests::process::{Server, eventually, items};
use reqwest::Client;
use serde_json::Value;

/// Free ports of loopback.
const FREE: [&str; 4] = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];

/// The power management unit has halted: critical.
const FATAL_XID: u64 = 62;

fn directory() -> tempfile::TempDir {
    entrenar_tests::choose_cryptography();
    tempfile::tempdir().expect("a directory")
}

/// An aggregator with its data and its log in this directory.
fn aggregator(dir: &Path, more: &[&str]) -> Server {
    let data = dir.join("data").display().to_string();
    let mut args = vec!["--data-dir", data.as_str()];
    args.extend(FREE);
    args.extend(more);
    Server::start_logged("entrenar-aggregator", &args, &dir.join("log"))
}

/// A simulated node's agent; `name` names its files, `node` is what it calls itself.
fn agent(dir: &Path, name: &str, node: &str, grpc: &str) -> Server {
    let spool = dir.join(format!("spool-{name}")).display().to_string();
    let url = format!("http://{grpc}");
    let mut args = vec!["--aggregator", &url, "--node", node, "--backend", "sim"];
    args.extend(["--interval", "200ms", "--listen", "127.0.0.1:0"]);
    args.extend(["--spool-dir", spool.as_str()]);
    Server::start_logged("entrenar-agent", &args, &dir.join(format!("log-{name}")))
}

/// What was logged so far. Nothing in it may be a panic.
fn log(dir: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(dir.join(name)).expect("there is a log");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A node as the API shows it.
async fn node(client: &Client, server: &Server, name: &str) -> Option<Value> {
    let nodes = items(client, &format!("http://{}/api/v1/nodes", server.http)).await?;
    nodes.into_iter().find(|n| n["name"] == name)
}

/// When the first GPU of a node was sampled last.
async fn sampled_at(client: &Client, server: &Server, node: &str) -> Option<String> {
    let url = format!("http://{}/api/v1/gpus?node={node}", server.http);
    let gpus = items(client, &url).await?;
    gpus.first()?["sampled_at"].as_str().map(str::to_owned)
}

/// Waits until a node has a newer sample than it has now: it is served.
async fn is_served(client: &Client, server: &Server, node: &str) {
    let before = sampled_at(client, server, node).await;
    eventually("a newer sample", async || {
        let now = sampled_at(client, server, node).await;
        (now.is_some() && now != before).then_some(())
    })
    .await;
}

/// A number of the aggregator's own metrics.
async fn metric(client: &Client, server: &Server, name: &str) -> Option<f64> {
    let url = format!("http://{}/metrics", server.http);
    let text = client.get(url).send().await.ok()?.text().await.ok()?;
    let line = text.lines().find(|l| l.split(' ').next() == Some(name))?;
    line.rsplit(' ').next()?.parse().ok()
}
