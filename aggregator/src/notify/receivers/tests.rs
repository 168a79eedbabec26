//! Receivers files, good and bad.

use super::*;

const SLACK_URL: &str = "https://hooks.slack.com/services/T0/B0/verysecret";

/// A folder with a file of each kind of secret, and what a receivers file in it means.
fn parse(text: &str) -> Result<Receivers, ReceiversError> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("slack", SLACK_URL),
        ("key", "0123456789abcdef0123456789abcdef\n"),
        ("short", "0123"),
        ("empty", "\n"),
        ("metadata", "http://169.254.169.254/"),
    ] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    Receivers::parse(&folder.path().join("receivers.yaml"), text)
}

/// The line and the words of the error.
fn check(text: &str, line: u64, words: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.line, line, "{error}");
    assert!(error.reason.contains(words), "{error}");
    assert!(!error.reason.contains("verysecret"), "{error}");
}

#[test]
fn a_file_says_who_is_told_how_and_about_what() {
    let file = "
heartbeat: { url: https://hc.example/x, interval: 30s }
receivers:
  - { name: oncall, kind: pagerduty, routing_key_file: key }
  - name: chat
    kind: slack
    url_file: slack
    nodes: [rack7-*]
    kinds: [Xid, Gpu*]
  - name: bridge
    kind: webhook
    url: http://127.0.0.1:9000/hook
    min_severity: info
    secrets:
      - { id: '2026-11', secret_file: key }
";
    let parsed = parse(file).expect("a good file");
    let severities: Vec<_> = parsed
        .receivers
        .iter()
        .map(|r| r.route.min_severity)
        .collect();
    assert_eq!(
        severities,
        [Severity::Critical, Severity::Warning, Severity::Info]
    );
    let names: Vec<_> = parsed.receivers.iter().map(|r| r.channel.name()).collect();
    assert_eq!(names, ["pagerduty", "slack", "webhook"]);
    let heartbeat = parsed.heartbeat.expect("a heartbeat");
    assert_eq!(heartbeat.interval, Duration::from_secs(30));
    assert_eq!(parse("# nothing yet\n"), Ok(Receivers::default()));
}

#[test]
fn an_error_names_the_line_and_says_what_to_do() {
    check(
        "receivers:\n  - name: a\n    kind: slak\n",
        3,
        "slack, pagerduty or webhook",
    );
    check(
        "receivers:\n  - name: a\n    kind: slack\n    colour: red\n    url_file: slack\n",
        4,
        "colour",
    );
    check("receivers:\n  - name: a\n    kind: slack\n", 2, "url_file");
    check(
        "receivers:\n  - name: a\n    kind: slack\n    url_file: nowhere\n",
        4,
        "cannot be read",
    );
    check(
        "receivers:\n  - name: a\n    kind: slack\n    url_file: empty\n",
        4,
        "is empty",
    );
    check(
        "receivers:\n  - name: ''\n    kind: slack\n    url_file: slack\n",
        2,
        "name is empty",
    );
    check(
        "receivers:\n  - name: a\n    kind: pagerduty\n    routing_key_file: short\n",
        4,
        "32 letters and digits",
    );
    check(
        "receivers:\n  - { name: a, kind: slack, url_file: slack }\n  - { name: a, kind: slack, url_file: slack }\n",
        3,
        "two receivers named a",
    );
    check(
        "receivers:\n  - { name: a, kind: webhook }\n",
        2,
        "exactly one of url and url_file",
    );
    check(
        "receivers:\n  - { name: a, kind: webhook, url: 'ftp://x/' }\n",
        2,
        "https://",
    );
    check(
        "receivers:\n  - { name: a, kind: slack, url_file: metadata }\n",
        2,
        "metadata",
    );
    check(
        "receivers:\n  - { name: a, kind: slack, url_file: slack,\n      kinds: [Overheating] }\n",
        3,
        "ThermalThrottling",
    );
    check(
        "receivers:\n  - { name: a, kind: slack, url_file: slack, min_severity: page }\n",
        2,
        "info, warning or critical",
    );
    check(
        "heartbeat:\n  url: https://hc.example/x\n  interval: 0s\n",
        3,
        "longer than zero",
    );
    check("receiver: []\n", 1, "receiver");
}

#[test]
fn a_secret_is_never_written_into_the_file_nor_printed() {
    check(
        &format!("receivers:\n  - name: a\n    kind: slack\n    url: {SLACK_URL}\n"),
        4,
        "put it into a file",
    );
    check(
        &format!("receivers:\n  - name: a\n    kind: slack\n    url: [{SLACK_URL}]\n"),
        4,
        "",
    );
    let given = Address::Given(Url::parse(SLACK_URL).expect("a URL"));
    assert_eq!(format!("{given:?}"), "https://hooks.slack.com/…");
}

#[test]
fn the_example_in_deploy_is_a_good_file() {
    let text = include_str!("../../../../deploy/receivers.example.yaml");
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = folder.path().join("secrets");
    fs::create_dir(&secrets).expect("a folder");
    for (name, secret) in [
        ("heartbeat-url", "https://hc.example/x"),
        ("pagerduty-routing-key", "0123456789abcdef0123456789abcdef"),
        ("slack-url", SLACK_URL),
        ("slack-url-datacentre", SLACK_URL),
        ("bridge-2026-11", "old"),
        ("bridge-2026-12", "new"),
    ] {
        fs::write(secrets.join(name), secret).expect("a file");
    }
    let path = folder.path().join("receivers.yaml");
    let parsed = Receivers::parse(&path, text).expect("a good example");
    assert_eq!(parsed.receivers.len(), 4);
    assert!(parsed.heartbeat.is_some());
}
