//! The page says what it always said, and its shell commands do what it says.
//!
//! Its Rust blocks run as doctests of `docs/gpu-monitoring.md`; the lines that only a test needs are hidden there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use fake_nvml::harness::FakeNvml;

const PAGE: &str = include_str!("../../docs/gpu-monitoring.md");
const KEPT: &str = include_str!("page/gpu-monitoring.md");

/// What a reader sees: the page without the lines that rustdoc hides, which begin with `# ` inside Rust blocks.
fn visible(page: &str) -> String {
    let mut in_rust = false;
    page.split_inclusive('\n')
        .filter(|line| {
            match line.trim_end() {
                "```rust" => in_rust = true,
                "```" => in_rust = false,
                _ => {}
            }
            let is_hidden = line.starts_with("# ") || line.trim_end() == "#";
            !(in_rust && is_hidden)
        })
        .collect()
}

#[test]
fn the_page_reads_as_it_was_agreed_byte_for_byte() {
    for (number, (shown, kept)) in visible(PAGE).lines().zip(KEPT.lines()).enumerate() {
        assert_eq!(shown, kept, "visible line {}", number + 1);
    }
    assert_eq!(visible(PAGE).as_bytes(), KEPT.as_bytes());
}

#[test]
fn lines_are_hidden_in_rust_blocks_only() {
    let page =
        "# Title\n```bash\n# a comment\n```\n```rust\n# hidden\n#\n#[shown]\n  # shown\n```\n";
    assert_eq!(
        visible(page),
        "# Title\n```bash\n# a comment\n```\n```rust\n#[shown]\n  # shown\n```\n"
    );
}

#[test]
fn every_rust_block_is_run_as_it_stands() {
    // An attribute behind the fence (ignore, no_run) would keep a block from running.
    let fences: Vec<_> = PAGE
        .lines()
        .filter(|line| line.starts_with("```"))
        .collect();
    let n_rust = fences.iter().filter(|fence| **fence == "```rust").count();
    let n_bash = fences.iter().filter(|fence| **fence == "```bash").count();
    assert_eq!((n_rust, n_bash, fences.len()), (9, 2, 22));
}

/// `cargo run --example gpu_monitor -- ARGS`, at the root of the repository, as the page says it.
fn example(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["run", "--quiet", "--example", "gpu_monitor", "--"])
        .args(args)
        .env_remove("ENTRENAR_GPU_BACKEND")
        .env_remove("ENTRENAR_NVML_LIB");
    command
}

fn finish(mut command: Command) -> (Output, String, String) {
    let output = command.output().expect("cargo runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

#[test]
fn the_example_shows_each_gpu_and_its_alerts() {
    let (output, stdout, stderr) = finish(example(&["--mock", "--count", "1"]));
    assert!(output.status.success(), "{stderr}");
    for word in ["GPU 0", "GPU 1", "°C", "% util", " GB", "█"] {
        assert!(stdout.contains(word), "{word:?} in {stdout}");
    }
    assert!(
        stderr.contains("ALERT [severity 54]: GPU 1 is hot: 84°C"),
        "{stderr}"
    );
}

#[test]
fn the_example_takes_an_interval_and_writes_json() {
    let args = ["--interval", "1", "--mock", "--count", "2", "--json"];
    let (output, stdout, stderr) = finish(example(&args));
    assert!(output.status.success(), "{stderr}");
    let lines: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    for line in lines {
        assert_eq!(line["gpus"][1]["device_id"], 1);
        assert!(line["gpus"][0]["power_watts"].as_f64() > Some(100.0));
        assert!(line["alerts"].is_array() && line["at"].is_string());
    }
}

/// Ends the example with the test, however the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_example_serves_metrics_to_prometheus() {
    let args = [
        "--prometheus",
        "--port",
        "0",
        "--mock",
        "--interval",
        "60",
        "--count",
        "1",
    ];
    // On Unix `cargo run` becomes the program, so that ending it ends the program.
    let mut running = Running(
        example(&args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo runs"),
    );
    let stdout = running.0.stdout.take().expect("it is piped");
    let mut first = String::new();
    BufReader::new(stdout)
        .read_line(&mut first)
        .expect("it says where it serves");
    let addr = first
        .trim()
        .strip_prefix("ready http=")
        .expect("it says where it serves");

    let mut scrape = TcpStream::connect(addr).expect("it listens");
    scrape
        .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        .expect("it takes a request");
    let mut page = String::new();
    scrape.read_to_string(&mut page).expect("it answers");
    for name in [
        "temperature_celsius",
        "utilization_percent",
        "memory_used_bytes",
        "power_watts",
    ] {
        assert!(
            page.contains(&format!("\nentrenar_gpu_{name}{{device=\"0\"}} ")),
            "{page}"
        );
    }
}

#[test]
fn without_a_driver_the_example_names_what_it_tried_and_points_to_the_mock() {
    let mut command = example(&["--count", "1"]);
    command.env("ENTRENAR_NVML_LIB", "/nowhere/libnvidia-ml.so.1");
    let (output, stdout, stderr) = finish(command);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stdout, "");
    for word in ["/nowhere/libnvidia-ml.so.1", "--mock"] {
        assert!(stderr.contains(word), "{word:?} in {stderr}");
    }
}

/// The example on a host whose driver, found as any program finds it, plays `scenario`.
fn example_on_host(scenario: &str, args: &[&str]) -> (Output, String, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    FakeNvml::install(dir.path(), scenario);
    let mut path = dir.path().as_os_str().to_owned();
    if let Some(cargo_s) = std::env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(cargo_s);
    }
    let mut command = example(args);
    command.env("LD_LIBRARY_PATH", path);
    finish(command)
}

#[test]
fn the_example_reads_the_driver_that_the_loader_finds() {
    let (output, stdout, stderr) = example_on_host("gpus 2\ngpu 1 load hot", &["--count", "1"]);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stdout.contains("GPU 0: 62°C, 98% util, 64.4 GB / 85.9 GB, 645 W / 700 W"),
        "{stdout}"
    );
    assert!(stderr.contains("GPU 1 is hot: 93°C"), "{stderr}");
}

#[test]
fn a_gpu_whose_driver_call_never_returns_is_named_and_the_others_are_shown() {
    let scenario = "gpus 3\ngpu 1 call nvmlDeviceGetPowerUsage hang";
    let (output, stdout, stderr) = example_on_host(scenario, &["--count", "1", "--json"]);
    assert!(output.status.success(), "{stderr}");
    let sample: serde_json::Value = serde_json::from_str(&stdout).expect("a JSON object");
    let temperatures = [0, 1, 2].map(|i| sample["gpus"][i]["temperature_celsius"].as_i64());
    assert_eq!(temperatures, [Some(62), None, Some(62)]);
    let error = sample["gpus"][1]["error"].as_str().expect("it says why");
    assert!(error.starts_with("GPU 1 did not answer within "), "{error}");
}

#[test]
fn bad_usage_is_refused_with_what_to_do() {
    for args in [
        &["--interval", "0"][..],
        &["--port", "70000"],
        &["--colour"],
        &["--count"],
    ] {
        let (output, _, stderr) = finish(example(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains("--help"), "{args:?}: {stderr}");
    }
}
