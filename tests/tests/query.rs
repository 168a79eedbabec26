//! Questions about the past and the present, asked of real programs over real sockets.

use std::path::Path;

use entrenar::report::Body;
use entrenar_tests::process::{Server, eventually, output_of, run};
use entrenar_tests::talker::{Node, Talker};
use reqwest::{Client, StatusCode};
use serde_json::Value;

/// An aggregator with two simulated nodes, in racks of their own, that sample fast.
struct Fleet {
    dir: tempfile::TempDir,
    /// Whether it runs is what some tests change.
    server: Option<Server>,
    agents: Vec<Server>,
    client: Client,
}

impl Fleet {
    async fn start() -> Self {
        entrenar_tests::choose_cryptography();
        let dir = tempfile::tempdir().expect("a directory");
        let server = aggregator(dir.path());
        let url = format!("http://{}", server.grpc);
        let agents = ["n1", "n2"].map(|node| agent(dir.path(), node, &url));
        let fleet = Self {
            dir,
            server: Some(server),
            agents: agents.into(),
            client: Client::new(),
        };
        eventually("some seconds of every GPU", async || {
            let answer = fleet.try_ask("series?metric=power_watts").await?;
            let series = answer["series"].as_array()?;
            let has_enough = |s: &Value| s["points"].as_array().is_some_and(|p| p.len() >= 20);
            (series.len() == 16 && series.iter().all(has_enough)).then_some(())
        })
        .await;
        fleet
    }

    fn base(&self) -> String {
        let server = self.server.as_ref().expect("it runs");
        format!("http://{}", server.http)
    }

    async fn try_ask(&self, what: &str) -> Option<Value> {
        let url = format!("{}/api/v1/{what}", self.base());
        self.client.get(url).send().await.ok()?.json().await.ok()
    }

    async fn ask(&self, what: &str) -> Value {
        self.try_ask(what).await.expect("an answer")
    }

    /// What a question is refused with.
    async fn refused(&self, what: &str) -> String {
        let url = format!("{}/api/v1/{what}", self.base());
        let answer = self.client.get(url).send().await.expect("answered");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{what}");
        let problem: Value = answer.json().await.expect("JSON");
        problem["detail"].as_str().expect("a detail").to_owned()
    }

    /// One of its GPUs.
    async fn uuid(&self) -> String {
        let gpus = self.ask("gpus?node=n2").await;
        let uuid = items(&gpus)[5]["uuid"].as_str();
        uuid.expect("a UUID").to_owned()
    }

    /// The agents leave; nothing new is told from here on.
    fn fall_silent(&mut self) {
        for agent in self.agents.drain(..) {
            assert!(agent.terminate().success());
        }
    }
}

fn aggregator(dir: &Path) -> Server {
    let data = dir.join("data").display().to_string();
    let free = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    let args = [&["--data-dir", data.as_str()], free.as_slice()].concat();
    Server::start("entrenar-aggregator", &args)
}

fn agent(dir: &Path, node: &str, url: &str) -> Server {
    let spool = dir.join(node).display().to_string();
    let rack = format!("rack=r-{node}");
    let mut args = vec!["--aggregator", url, "--node", node, "--backend", "sim"];
    args.extend(["--spool-dir", spool.as_str(), "--listen", "127.0.0.1:0"]);
    args.extend(["--interval", "100ms", "--label", rack.as_str()]);
    Server::start("entrenar-agent", &args)
}

fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map_or(&[], Vec::as_slice)
}

fn points(series: &Value) -> Vec<(f64, Option<f64>)> {
    let points = series["points"].as_array().expect("points").iter();
    points
        .map(|p| (p[0].as_f64().expect("a time"), p[1].as_f64()))
        .collect()
}

#[tokio::test]
async fn the_fleet_is_asked_by_group_and_a_restart_changes_no_answer() {
    let mut fleet = Fleet::start().await;
    let by_node = fleet.ask("query?metric=power_watts&by=node&agg=max").await;
    assert_eq!(by_node["unit"], "watts");
    let nodes: Vec<_> = items(&by_node).iter().map(|g| &g["node"]).collect();
    assert_eq!(nodes, ["n1", "n2"]);
    assert!(
        items(&by_node)
            .iter()
            .all(|g| g["gpus"] == 8 && g["value"].is_number())
    );
    let racks = fleet
        .ask("query?metric=power_watts&by=rack&agg=count")
        .await;
    assert_eq!(racks["unit"], "gpus");
    assert_eq!(items(&racks)[1]["rack"], "r-n2");
    let top = fleet.ask("query?metric=power_watts&top=3").await;
    let values: Vec<_> = items(&top).iter().map(|g| g["value"].as_f64()).collect();
    assert!(
        values.len() == 3 && values.is_sorted_by(|a, b| a >= b),
        "{values:?}"
    );
    let one = fleet
        .ask("query?metric=power_watts&label.rack=r-n1&device=3")
        .await;
    assert_eq!(items(&one).len(), 1);

    fleet.fall_silent();
    let questions = [
        "series?metric=power_watts&device=3",
        "series?metric=power_watts&device=3&step=1s&fn=max",
        "series?metric=energy_joules_total&node=n1&step=2s&fn=increase",
        "query?metric=power_watts&by=node&step=1s",
        "query?metric=pcie_tx_bytes_total&by=rack&agg=sum&step=2s",
        "query?metric=power_watts&quantile=0.9&step=5s",
        "series?metric=all&node=n1&device=0&step=2s",
        "series?metric=all&node=n1&device=0",
    ];
    let now = fleet.ask("query?metric=power_watts&agg=max").await;
    let at = now["at"].as_str().expect("a time").to_owned();
    let fixed = |question: &str| format!("{question}&to={at}&from={}", earlier(&at));
    let mut before = Vec::new();
    for question in questions {
        before.push(fleet.ask(&fixed(question)).await);
    }
    let some = |answer: &Value| points(&answer["series"][0]).iter().any(|p| p.1.is_some());
    assert!(before.iter().all(some));
    let stopped = fleet.server.take().expect("it runs").terminate();
    assert!(stopped.success());
    fleet.server = Some(aggregator(fleet.dir.path()));
    for (question, before) in questions.iter().zip(before) {
        assert_eq!(fleet.ask(&fixed(question)).await, before, "{question}");
    }
}

#[tokio::test]
async fn several_metrics_are_answered_as_each_alone() {
    let mut fleet = Fleet::start().await;
    fleet.fall_silent();
    let metrics = ["power_watts", "energy_joules_total", "temperature_celsius"];
    for words in ["", "&step=2s"] {
        let ask = async |metrics: &str| {
            let question = format!(
                "series?metric={metrics}&uuid={}{words}&from=-1h",
                fleet.uuid().await
            );
            fleet.ask(&question).await
        };
        let together = ask(&metrics.join(",")).await;
        assert!(together.get("unit").is_none(), "each series has its own");
        for (place, metric) in metrics.into_iter().enumerate() {
            let (one, alone) = (&together["series"][place], ask(metric).await);
            assert_eq!(one["metric"], metric);
            for word in ["metric", "unit", "fn"] {
                assert_eq!(one[word], alone[word], "{metric}: {word}");
            }
            let known = |series: &Value| -> Vec<_> {
                let points = points(series).into_iter();
                points.filter(|(_, value)| value.is_some()).collect()
            };
            assert!(!known(one).is_empty());
            assert_eq!(known(one), known(&alone["series"][0]), "{metric}{words}");
        }
    }
}

/// Ten minutes before.
fn earlier(at: &str) -> String {
    let at = entrenar::unit::Timestamp::parse_rfc3339(at).expect("RFC 3339");
    (at - std::time::Duration::from_mins(10)).rfc3339()
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_says_what_could() {
    let fleet = Fleet::start().await;
    for (question, hint) in [
        ("query?metric=power_watts&by=shelf", "power_feed"),
        ("query?metric=power_watts&agg=median", "quantile"),
        ("query?metric=power_watts&fn=rate", "mean, min, max"),
        ("query?metric=power_watts&from=-1h&at=now", "at="),
        ("query?metric=power_watts&nodes=n1", "node"),
        ("query?metric=power_watts&top=1&bottom=1", "not both"),
        (
            "query?metric=power_watts&step=1s&from=-30d",
            "a longer `step`",
        ),
        ("query", "docs/metrics.md"),
        ("series?metric=power_watts,heat", "docs/metrics.md"),
        ("series?metric=all&step=1m&fn=rate", "gauge"),
        ("series?metric=power_watts&fn=max", "step="),
        ("series?metric=power_watts&step=soon", "like 30s"),
        ("export?from=tomorrow", "RFC 3339"),
    ] {
        let told = fleet.refused(question).await;
        assert!(told.contains(hint), "{question}: {told}");
    }
}

#[tokio::test]
async fn what_is_recorded_is_what_was_stored_and_is_judged_without_a_file() {
    let mut fleet = Fleet::start().await;
    fleet.fall_silent();
    let path = |name: &str| fleet.dir.path().join(name).display().to_string();
    let base = fleet.base();
    let mut recorded = Vec::new();
    for name in ["t.csv", "t.csv.gz", "t.csv.zst"] {
        let trace = path(name);
        let args = [
            "record", "--url", &base, "--from", "-1h", "--node", "n1", "-o", &trace,
        ];
        assert_eq!(run("entrenar", &args), (Some(0), String::new()));
        let rows = entrenar::trace::TraceReader::open(Path::new(&trace)).expect("a trace");
        let rows: Vec<_> = rows.map(|row| row.expect("a row")).collect();
        assert!(rows.is_sorted_by_key(|row| row.time));
        recorded.push(rows);
    }
    assert!(recorded[0] == recorded[1] && recorded[0] == recorded[2]);
    let rows = &recorded[0];
    assert!(
        rows.iter()
            .all(|row| row.node.as_str() == "n1" && row.rack.as_deref() == Some("r-n1"))
    );
    let answer = fleet
        .ask("series?metric=power_watts&node=n1&device=3")
        .await;
    let stored: Vec<_> = points(&answer["series"][0])
        .into_iter()
        .filter_map(|(at, value)| Some((at, value?)))
        .collect();
    let power = entrenar::metric::POWER;
    let of_gpu = rows.iter().filter(|row| row.gpu == Some(3));
    let of_gpu: Vec<_> = of_gpu
        .filter_map(|row| Some((row.time.as_secs_f64(), row.values.display(power)?)))
        .collect();
    assert_eq!(of_gpu, stored);

    let backtest = [
        "backtest", "--url", &base, "--from", "-1h", "--format", "jsonl",
    ];
    assert_eq!(run("entrenar", &backtest), (Some(0), String::new()));
    let nobody = [
        "record", "--url", &base, "--from", "-1h", "--node", "n9", "-o", "-",
    ];
    let (code, told) = run("entrenar", &nobody);
    assert!(code == Some(1) && told.contains("/api/v1/gpus"), "{told}");
    let nonsense = ["backtest", "--url", &base, "--from", "someday"];
    let (code, told) = run("entrenar", &nonsense);
    assert!(code == Some(2) && told.contains("RFC 3339"), "{told}");
    let nowhere = ["record", "--url", "gpu-monitor", "--from", "-1h", "-o", "-"];
    assert_eq!(run("entrenar", &nowhere).0, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xid_is_in_what_is_recorded_and_rules_find_it_there() {
    entrenar_tests::choose_cryptography();
    let dir = tempfile::tempdir().expect("a directory");
    let server = aggregator(dir.path());
    let node = Node::named("x1");
    let mut talker = Talker::connect(&server.grpc, &node).await.expect("welcome");
    let before = node.now() - std::time::Duration::from_secs(2);
    talker.say(&node.sample(1, before)).await;
    talker.say(&node.xid(2, 48)).await;
    let last = node.now();
    talker.say(&node.sample(3, last)).await;
    let mut after = node.xid(4, 79);
    if let Body::Event(event) = &mut after.body {
        event.at = last + std::time::Duration::from_millis(5);
    }
    talker.say(&after).await;
    talker.hear_up_to(4).await.expect("all of it is durable");
    drop(talker);
    assert!(server.terminate().success());

    // From the database alone.
    let server = aggregator(dir.path());
    let base = format!("http://{}", server.http);
    let trace = dir.path().join("x1.csv").display().to_string();
    let args = ["record", "--url", &base, "--from", "-1h", "-o", &trace];
    assert_eq!(run("entrenar", &args), (Some(0), String::new()));
    let rows = entrenar::trace::TraceReader::open(Path::new(&trace)).expect("a trace");
    let told = rows.map(|row| {
        let row = row.expect("a row");
        let has_power = row.values.get(entrenar::metric::POWER).is_some();
        (row.gpu, row.uuid, row.xids, has_power)
    });
    let gpu = || Some(node.gpu());
    let expected = [
        (Some(0), gpu(), vec![], true),
        (Some(0), gpu(), vec![48], true),
        (Some(0), gpu(), vec![79], false),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);

    let backtest = [
        "backtest", "--url", &base, "--from", "-1h", "--format", "jsonl",
    ];
    let (code, said) = output_of("entrenar", &backtest);
    assert!(code == Some(0) && said.contains("GpuLost"), "{said}");
}
