//! The first command of the README, as a new user runs it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use entrenar_tests::external::{external, program, repository};
use serde_json::Value;

/// The demo's story, told in half a minute instead of two.
const QUICK_FAULTS: &str = "\
faults:
  - { at: 3s, kind: hot_gpu, node: n02, gpu: 2, duration: 10m }
  - { at: 3s, kind: full_memory, node: n08, gpu: 0, rise: 15s, duration: 10m }
  - { at: 3s, kind: hung_job, how: cold, job: \"4712\", duration: 10m }
  - { at: 15s, kind: lost_node, node: n06, duration: 10m }
";

/// A machine under load may take this long for what takes a minute on an idle one.
const PATIENCE: Duration = Duration::from_mins(4);

struct Demo {
    child: Child,
    http: String,
    /// Where it may make its temporary directory.
    temp: tempfile::TempDir,
}

impl Demo {
    fn start(faults: &str) -> Self {
        entrenar_tests::choose_cryptography();
        let temp = tempfile::tempdir().expect("a directory");
        let file = temp.path().join("faults.yaml");
        std::fs::write(&file, faults).expect("written");
        let mut child = Command::new(program("entrenar"))
            .args([
                "demo",
                "--http",
                "127.0.0.1:0",
                "--grpc",
                "127.0.0.1:0",
                "--faults",
            ])
            .arg(&file)
            .env("TMPDIR", temp.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let stdout = child.stdout.take().expect("piped");
        let line = BufReader::new(stdout)
            .lines()
            .next()
            .expect("a line")
            .expect("text");
        let http = line
            .strip_prefix("ready http=")
            .and_then(|l| l.split(' ').next());
        Self {
            http: http.expect("the ready line").to_owned(),
            child,
            temp,
        }
    }

    async fn get(&self, path: &str) -> Vec<Value> {
        let answer = reqwest::get(format!("http://{}/api/v1/{path}", self.http)).await;
        let json: Value = answer.expect("answered").json().await.expect("JSON");
        json["items"].as_array().expect("a list").clone()
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success());
        self.child.wait().expect("it ends")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Of a test that failed; else it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `look` finds what it looks for.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("no {what} in {PATIENCE:?}"))
}

#[tokio::test]
async fn the_demo_shows_64_live_lamps_its_troubles_and_leaves_nothing_behind() {
    let mut demo = Demo::start(QUICK_FAULTS);
    eventually("64 live lamps", async || {
        let gpus = demo.get("gpus").await;
        let lit = gpus
            .iter()
            .filter(|g| g["light"] != "grey" && !g["sampled_at"].is_null());
        (lit.count() == 64).then_some(())
    })
    .await;
    for kind in ["ThermalThrottling", "MemoryPressure", "NodeLost", "GpuIdle"] {
        eventually(kind, async || {
            let open = demo.get("incidents").await;
            open.into_iter().find(|i| i["kind"] == kind)
        })
        .await;
    }
    let idle = demo.get("incidents?kind=GpuIdle").await;
    assert_eq!(idle.len(), 1, "the idle GPUs of one job are one incident");
    assert_eq!(idle[0]["scope"]["job"], "4712");

    if let Some(mut node) = external("node", "nodejs") {
        in_a_browser(&mut node, &demo.http);
    }

    let status = demo.interrupt();
    assert!(status.success(), "{status}");
    let left: Vec<_> = std::fs::read_dir(demo.temp.path())
        .expect("read")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["faults.yaml"], "its temporary directory is removed");
}

/// The board's stories that hold for any server.
fn in_a_browser(node: &mut Command, http: &str) {
    let web = repository().join("web");
    if !Path::new(&web).join("node_modules").is_dir() {
        let installed = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&web)
            .status();
        assert!(installed.expect("npm runs").success());
    }
    let tested = node
        .args(["--test", "test/board.test.mjs"])
        .env("BOARD_URL", format!("http://{http}"))
        .current_dir(&web)
        .status()
        .expect("node runs");
    assert!(tested.success(), "the board's tests fail on the real demo");
}
