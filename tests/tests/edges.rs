//! The edges with real sockets, real files and real programs.

use std::path::Path;

use entrenar_tests::external::external;
use entrenar_tests::process::{Server, eventually, items, run};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

const FREE: [&str; 4] = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];

fn aggregator(dir: &Path, more: &[&str]) -> Server {
    let data = dir.join("data").display().to_string();
    let mut args = vec!["--data-dir", data.as_str()];
    args.extend(FREE);
    args.extend(more);
    Server::start("entrenar-aggregator", &args)
}

fn agent(dir: &Path, node: &str, url: &str, more: &[&str]) -> Server {
    let spool = dir.join(format!("spool-{node}")).display().to_string();
    let mut args = vec!["--aggregator", url, "--node", node, "--backend", "sim"];
    args.extend(["--spool-dir", spool.as_str(), "--listen", "127.0.0.1:0"]);
    args.extend(more);
    let log = dir.join(format!("log-{node}"));
    Server::start_logged("entrenar-agent", &args, &log)
}

fn directory() -> tempfile::TempDir {
    entrenar_tests::choose_cryptography();
    tempfile::tempdir().expect("a directory")
}

async fn sampled(client: &Client, base: &str, n_gpus: usize) {
    let url = format!("{base}/api/v1/gpus");
    eventually("sampled GPUs", async || {
        let gpus = items(client, &url).await?;
        let sampled = gpus.iter().filter(|g| !g["sampled_at"].is_null()).count();
        (sampled == n_gpus).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_web_page_cannot_act_for_the_user_and_errors_say_what_to_do() {
    let dir = directory();
    let server = aggregator(dir.path(), &[]);
    let (base, client) = (format!("http://{}", server.http), Client::new());
    let close = format!("{base}/api/v1/incidents/0123456789abcdef/close");
    let body = json!({ "reason": "hardware" }).to_string();
    let post = || {
        client
            .post(&close)
            .header(CONTENT_TYPE, "application/json")
            .body(body.clone())
    };

    // A page elsewhere, one without an origin of its own, another server on this host, and this one by another name.
    let port = server.http.rsplit(':').next().expect("a port");
    let aliases = [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://localhost",
        &format!("http://localhost:{port}"),
        &format!("http://127.0.0.1:{port}.evil.example"),
    ];
    for origin in aliases {
        let foreign = post().header(ORIGIN, origin).send().await;
        let foreign = foreign.expect("answered");
        assert_eq!(foreign.status(), StatusCode::FORBIDDEN, "{origin}");
        let problem: Value = foreign.json().await.expect("JSON");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("another origin"), "{detail}");
    }
    // What a form may send without asking first.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
    ] {
        let form = client.post(&close).header(CONTENT_TYPE, kind);
        let form = form.body(body.clone()).send().await.expect("answered");
        assert_eq!(form.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    // To ask first is no use: nothing is allowed.
    let asked = client
        .request(reqwest::Method::OPTIONS, &close)
        .header(ORIGIN, "https://evil.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let asked = asked.send().await.expect("answered");
    assert!(!asked.status().is_success(), "{asked:?}");
    assert!(!asked.headers().contains_key("access-control-allow-origin"));
    for path in ["api/v1/nodes", "metrics", ""] {
        let rebound = client.get(format!("{base}/{path}"));
        let rebound = rebound.header(HOST, format!("evil.example:{port}"));
        let status = rebound.send().await.expect("answered").status();
        assert_eq!(status, StatusCode::FORBIDDEN, "/{path}");
    }
    let own = post().header(ORIGIN, &base).send().await.expect("answered");
    assert_eq!(own.status(), StatusCode::NOT_FOUND);
    assert_eq!(own.headers()[CONTENT_TYPE], "application/problem+json");

    for (path, status, word) in [
        ("api/v1/series?metric=heat", 400, "docs/metrics.md"),
        (
            "api/v1/series?metric=power_watts&from=soon",
            400,
            "RFC 3339",
        ),
        ("api/v1/gpus?colour=red", 400, "colour"),
        ("api/v1/nodes?limit=0", 400, "limit"),
        ("api/v1/incidents?cursor=x", 400, "cursor"),
        ("api/v1/incidents/nope", 404, "nope"),
        ("api/v1/nothing", 404, "nothing"),
        ("api/v1/stream?events=sample", 400, "node="),
    ] {
        let answer = client
            .get(format!("{base}/{path}"))
            .send()
            .await
            .expect("answered");
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let problem: Value = answer.json().await.expect("JSON");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(word), "{path}: {detail}");
    }
    let page = client
        .get(format!("{base}/nodes/host.example/gpus/0"))
        .send()
        .await
        .expect("answered");
    assert!(
        page.text().await.expect("text").contains("<html"),
        "deep links lead to the board"
    );
}

/// What `certs init` makes: the server's certificate, its key, and the CA.
fn certificates(dir: &Path) -> [String; 3] {
    let certs = dir.join("certs").display().to_string();
    let mut args = vec!["certs", "init", "--out", &certs];
    args.extend(["--host", "localhost", "--host", "127.0.0.1"]);
    let made = run("entrenar-aggregator", &args);
    assert_eq!(made.0, Some(0), "{}", made.1);
    ["server.pem", "server.key", "ca.pem"].map(|name| format!("{certs}/{name}"))
}

#[tokio::test]
async fn an_agent_with_a_certificate_needs_no_token_and_one_with_neither_is_not_let_in() {
    let dir = directory();
    let [cert, key, ca] = certificates(dir.path());
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let new_key = || rcgen::KeyPair::generate().expect("a key");
    let (ca_key, agent_key) = (new_key(), new_key());
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let of_ca = authority.self_signed(&ca_key).expect("signed");
    let issuer = rcgen::Issuer::new(authority, ca_key);
    let of_agent = rcgen::CertificateParams::new(vec!["n1".to_owned()]).expect("a name");
    let of_agent = of_agent.signed_by(&agent_key, &issuer).expect("signed");
    let clients = write("clients.pem", of_ca.pem());
    let shown = write("agent.pem", of_agent.pem());
    let shown_key = write("agent.key", agent_key.serialize_pem());

    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let server = aggregator(
        dir.path(),
        &[&tls[..], &["--tls-client-ca", &clients]].concat(),
    );
    let grpc = format!("https://{}", server.grpc);
    let with = [
        "--tls-ca",
        &ca,
        "--tls-cert",
        &shown,
        "--tls-key",
        &shown_key,
    ];
    let _agent = agent(dir.path(), "n1", &grpc, &with);
    let _stranger = agent(dir.path(), "n2", &grpc, &["--tls-ca", &ca]);
    let root = reqwest::Certificate::from_pem(&std::fs::read(&ca).expect("read")).expect("PEM");
    let client = Client::builder().tls_certs_only([root]).build();
    let (client, base) = (
        client.expect("a client"),
        format!("https://{}", server.http),
    );
    sampled(&client, &base, 8).await;
    eventually("the stranger's failure", async || {
        let said = std::fs::read_to_string(dir.path().join("log-n2")).ok()?;
        said.contains("no connection to the aggregator")
            .then_some(())
    })
    .await;
    let nodes = items(&client, &format!("{base}/api/v1/nodes")).await;
    let nodes = nodes.expect("a list");
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    assert_eq!(nodes[0]["name"], "n1");
}

#[tokio::test]
async fn people_and_agents_show_tokens_over_tls() {
    let dir = directory();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("agents.token", "agents-0123456789abcdef0123456789");
    write("n3.token", "n3-0123456789abcdef0123456789abcdef");
    write("alice.token", "alice-0123456789abcdef0123456789");
    write("bob.token", "bob-0123456789abcdef0123456789");
    write(
        "tokens.yaml",
        "people:\n  - {name: alice, role: responder, token_file: alice.token}\n  - {name: bob, role: viewer, token_file: bob.token}\n\
         agents:\n  - {token_file: agents.token}\n  - {node: n3, token_file: n3.token}\n",
    );
    let [cert, key, ca] = certificates(dir.path());
    let (tokens, agents_token) = (file("tokens.yaml"), file("agents.token"));
    let server = aggregator(
        dir.path(),
        &[
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tokens-file",
            &tokens,
        ],
    );
    let grpc = format!("https://{}", server.grpc);
    let _agent = agent(
        dir.path(),
        "n1",
        &grpc,
        &["--tls-ca", &ca, "--token-file", &agents_token],
    );
    let _stranger = agent(dir.path(), "n2", &grpc, &["--tls-ca", &ca]);

    let n3_token = file("n3.token");
    let bound = ["--tls-ca", &ca, "--token-file", &n3_token];
    let _itself = agent(dir.path(), "n3", &grpc, &bound);
    let _another = agent(dir.path(), "n4", &grpc, &bound);

    for (node, why) in [
        ("n2", "no bearer token"),
        ("n4", "this credential speaks for the node"),
    ] {
        let log = dir.path().join(format!("log-{node}"));
        eventually(why, async || {
            let said = std::fs::read_to_string(&log).ok()?;
            said.contains(why).then_some(())
        })
        .await;
    }

    let root = reqwest::Certificate::from_pem(&std::fs::read(&ca).expect("read")).expect("PEM");
    let client = |token: &str| {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert(
            AUTHORIZATION,
            format!("Bearer {token}").parse().expect("a header"),
        );
        let client = Client::builder()
            .tls_certs_only([root.clone()])
            .default_headers(headers);
        client.build().expect("a client")
    };
    let base = format!("https://{}", server.http);
    let (alice, bob) = (
        client("alice-0123456789abcdef0123456789"),
        client("bob-0123456789abcdef0123456789"),
    );
    sampled(&bob, &base, 16).await;
    let nodes = items(&bob, &format!("{base}/api/v1/nodes"))
        .await
        .expect("a list");
    let names: Vec<_> = nodes.iter().map(|n| &n["name"]).collect();
    assert_eq!(
        names,
        ["n1", "n3"],
        "an agent without a token, or with another node's, is not let in"
    );

    let url = format!("{base}/api/v1/incidents/0123456789abcdef/acknowledge");
    let status = async |client: &Client| {
        client
            .post(&url)
            .json(&json!({}))
            .send()
            .await
            .expect("answered")
            .status()
    };
    assert_eq!(status(&client("wrong")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&bob).await, StatusCode::FORBIDDEN);
    assert_eq!(status(&alice).await, StatusCode::NOT_FOUND);
    let probe = client("none")
        .get(format!("{base}/healthz"))
        .send()
        .await
        .expect("answered");
    assert_eq!(probe.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stop_leaves_a_whole_database_in_one_file_and_the_next_start_has_everything() {
    let dir = directory();
    let client = Client::new();
    let server = aggregator(dir.path(), &[]);
    let url = format!("http://{}", server.grpc);
    let agent = agent(dir.path(), "n1", &url, &["--interval", "200ms"]);
    let base = format!("http://{}", server.http);
    sampled(&client, &base, 8).await;
    let series = async |base: &str| -> usize {
        let url = format!("{base}/api/v1/series?metric=power_watts&device=3");
        let answer: Value = client
            .get(url)
            .send()
            .await
            .expect("answered")
            .json()
            .await
            .expect("JSON");
        let points = answer["series"][0]["points"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        points.iter().filter(|p| !p[1].is_null()).count()
    };
    eventually("ten points", async || {
        (series(&base).await >= 10).then_some(())
    })
    .await;
    assert!(agent.terminate().success());
    let before = series(&base).await;
    assert!(dir.path().join("data/entrenar.db-wal").exists());
    assert!(server.terminate().success());
    for left in ["entrenar.db-wal", "entrenar.db-shm"] {
        let left = dir.path().join("data").join(left);
        assert!(!left.exists(), "{}", left.display());
    }

    let server = aggregator(dir.path(), &[]);
    let base = format!("http://{}", server.http);
    assert_eq!(series(&base).await, before);
    let nodes = items(&client, &format!("{base}/api/v1/nodes"))
        .await
        .expect("a list");
    assert_eq!(
        nodes[0]["light"], "grey",
        "an agent that said goodbye is grey, not lost"
    );
}

#[test]
fn whoever_is_told_to_leave_as_soon_as_it_is_ready_leaves_in_good_order() {
    let dir = directory();
    // Each round is another chance for the signal to come first.
    for _ in 0..10 {
        let ended = aggregator(dir.path(), &[]).terminate();
        assert!(ended.success(), "{ended}");
        let ended = agent(dir.path(), "n1", "http://127.0.0.1:1", &[]).terminate();
        assert!(ended.success(), "{ended}");
    }
}

#[test]
fn a_start_that_cannot_be_says_why_and_how_to_mend_it() {
    let dir = directory();
    let data = dir.path().join("data").display().to_string();
    let server = aggregator(dir.path(), &[]);
    let check = |args: &[&str], status: i32, words: &[&str]| {
        let (code, said) = run("entrenar-aggregator", args);
        assert_eq!(code, Some(status), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: {word:?} is not in: {said}");
        }
    };
    let other = dir.path().join("other").display().to_string();
    check(
        &[
            "--data-dir",
            &other,
            "--http",
            &server.http,
            "--grpc",
            "127.0.0.1:0",
        ],
        1,
        &["in use", "--http"],
    );
    check(
        &[
            "--data-dir",
            &other,
            "--http",
            "127.0.0.1:0",
            "--grpc",
            &server.grpc,
        ],
        1,
        &["in use", "--grpc"],
    );
    check(
        &[&["--data-dir", data.as_str()], FREE.as_slice()].concat(),
        1,
        &["entrenar.db"],
    );
    check(&["--http", "0.0.0.0:0"], 2, &["--tls-cert", "--insecure"]);
    check(&["--retention-raw", "soon"], 2, &["retention-raw"]);
    check(
        &["--database-url", "mysql://somewhere"],
        2,
        &["sqlite:PATH", "postgres://"],
    );
    check(
        &["--database-url", "postgres://somewhere/fleet?passwd=secret"],
        2,
        &["--database-url", "`passwd`"],
    );

    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let config = file("config.yaml", "cluster: prod\nretension_raw: 7d\n");
    check(
        &["--config", &config],
        2,
        &["config.yaml:2", "retension_raw", "retention"],
    );
    let rules = file(
        "rules.yaml",
        "rules:\n  memory_pressure:\n    raise_share: 1.4\n  power_limit:\n    shere: 0.9\n",
    );
    let mistakes = [
        "rules.yaml, line 3",
        "write a share between 0 and 1",
        "rules.yaml, line 5",
        "`shere`",
    ];
    check(
        &[&["--rules", rules.as_str()], FREE.as_slice()].concat(),
        2,
        &mistakes,
    );
    let (code, said) = run("entrenar", &["rules", "check", &rules]);
    assert_eq!(code, Some(2), "{said}");
    assert!(mistakes.iter().all(|word| said.contains(word)), "{said}");
    let receivers = file(
        "receivers.yaml",
        "receivers:\n  - {name: a, kind: pigeon}\n",
    );
    check(
        &[&["--receivers", receivers.as_str()], FREE.as_slice()].concat(),
        2,
        &["receivers.yaml:", "pigeon"],
    );
    let garbage = dir.path().join("garbage.db");
    std::fs::write(&garbage, vec![7; 8192]).expect("written");
    let garbage = format!("sqlite:{}", garbage.display());
    check(
        &[&["--database-url", garbage.as_str()], FREE.as_slice()].concat(),
        1,
        &["garbage.db"],
    );

    let zero = file(
        "zero.yaml",
        "aggregator: http://127.0.0.1:1\ninterval: 0s\n",
    );
    let unknown = file(
        "unknown.yaml",
        "aggregator: http://127.0.0.1:1\nintervall: 1s\n",
    );
    let spool = dir.path().join("spool").display().to_string();
    let to_nobody = ["--aggregator", "http://127.0.0.1:1"];
    let in_use = ["--backend", "sim", "--spool-dir", &spool, "--listen"];
    for (args, status, words) in [
        (
            [&to_nobody[..], &["--interval", "0s"]].concat(),
            2,
            ["--interval", "longer than zero"],
        ),
        (
            vec!["--config", &zero],
            2,
            ["zero.yaml:2", "longer than zero"],
        ),
        (
            vec!["--config", &unknown],
            2,
            ["unknown.yaml:2", "did you mean `interval`"],
        ),
        (
            [&to_nobody[..], &in_use, &[server.http.as_str()]].concat(),
            1,
            ["could not listen", "--listen"],
        ),
    ] {
        let (code, said) = run("entrenar-agent", &args);
        assert_eq!(code, Some(status), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: {word:?} is not in: {said}");
        }
    }
}

#[tokio::test]
async fn a_real_prometheus_scrapes_the_fleet() {
    let Some(mut prometheus) = external("prometheus", "prometheus") else {
        return;
    };
    let Some(mut promtool) = external("promtool", "prometheus") else {
        return;
    };
    promtool.args(["check", "metrics"]);
    let dir = directory();
    let client = Client::new();
    let server = aggregator(dir.path(), &[]);
    let url = format!("http://{}", server.grpc);
    let agents = ["n1", "n2", "n3"].map(|node| agent(dir.path(), node, &url, &[]));
    let base = format!("http://{}", server.http);
    sampled(&client, &base, 24).await;

    for page in [
        format!("{base}/metrics"),
        format!("http://{}/metrics", agents[0].http),
    ] {
        let text = client
            .get(page)
            .send()
            .await
            .expect("answered")
            .text()
            .await
            .expect("text");
        let file = dir.path().join("page");
        std::fs::write(&file, &text).expect("written");
        let checked = promtool_check(&mut promtool, &file);
        assert!(checked.is_empty(), "promtool check metrics: {checked}");
    }

    let config = dir.path().join("prometheus.yml");
    let scrape = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: entrenar\n    honor_labels: true\n    static_configs: [{{targets: ['{}']}}]\n",
        server.http
    );
    std::fs::write(&config, scrape).expect("written");
    let port = free_port();
    let child = prometheus
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.path().join("tsdb").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("prometheus starts");
    let _ends = Ends(child);
    let query = format!(
        "http://127.0.0.1:{port}/api/v1/query?query=sum(entrenar_node_up)%20%2B%20count(entrenar_gpu_temperature_celsius)"
    );
    eventually("3 nodes up and 24 temperatures in Prometheus", async || {
        let answer: Value = client.get(&query).send().await.ok()?.json().await.ok()?;
        (answer["data"]["result"][0]["value"][1] == "27").then_some(())
    })
    .await;
}

fn promtool_check(promtool: &mut std::process::Command, page: &Path) -> String {
    let checked = promtool
        .stdin(std::fs::File::open(page).expect("opened"))
        .output()
        .expect("promtool runs");
    String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned()
}

/// A port of loopback that was free a moment ago: Prometheus does not say which one it took.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address").port()
}

/// A program of others that ends with its test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_changed_rules_file_holds_after_a_hangup_and_a_bad_one_is_refused() {
    let dir = directory();
    let file = dir.path().join("rules.yaml");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write("custom: [{ name: warm, threshold: temperature_celsius, above: 70, severity: info }]");
    let path = file.display().to_string();
    let server = aggregator(dir.path(), &["--rules", &path]);
    let (base, client) = (format!("http://{}", server.http), Client::new());
    let url = format!("{base}/api/v1/rules?limit=1000");
    let rule = async |name: &str| {
        let rules = items(&client, &url).await?;
        rules.into_iter().find(|rule| rule["rule"] == name)
    };
    let warm = rule("warm").await.expect("it is listed");
    assert_eq!(warm["kind"], "Custom");
    assert_eq!(warm["built_in"], false);
    assert_eq!(warm["severity"], "info");
    assert_eq!(rule("xid").await.expect("it is listed")["built_in"], true);

    let failures = async || {
        let page = client.get(format!("{base}/metrics")).send().await.ok()?;
        let page = page.text().await.ok()?;
        let name = "entrenar_aggregator_rules_reload_failures_total ";
        let line = page.lines().find_map(|line| line.strip_prefix(name))?;
        line.parse::<f64>().ok()
    };
    assert_eq!(failures().await, Some(0.0));
    write("custom: [{ name: warm, threshold: temperature_celsius }]");
    server.signal("-HUP");
    eventually("a refusal", async || {
        failures().await.filter(|n| *n >= 1.0).map(|_| ())
    })
    .await;
    assert_eq!(rule("warm").await.expect("the old rules stay"), warm);

    write("rules: { xid: { shadow: true } }");
    server.signal("-HUP");
    eventually("the new rules", async || match rule("warm").await {
        None => rule("xid")
            .await
            .filter(|xid| xid["shadow"] == true)
            .map(|_| ()),
        Some(_) => None,
    })
    .await;
    assert!(server.terminate().success());
}
