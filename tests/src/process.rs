//! Our binaries as processes: started on free ports, awaited, ended by signal, and never left behind.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::external::program;

/// A machine under load may take this long for what takes moments on an idle one.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// One of our servers, ready.
pub struct Server {
    child: Child,
    /// `HOST:PORT` of its HTTP side.
    pub http: String,
    /// `HOST:PORT` of its gRPC side; empty for an agent.
    pub grpc: String,
}

impl Server {
    /// Starts a binary and waits for its ready line.
    ///
    /// Panics with what it printed when it ends instead.
    pub fn start(name: &str, args: &[&str]) -> Self {
        Self::run(Command::new(program(name)).args(args))
    }

    /// The same; what it logs is added to a file.
    pub fn start_logged(name: &str, args: &[&str], log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log);
        let file = file.expect("the log can be written");
        Self::run(Command::new(program(name)).args(args).stderr(file))
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("invariant: the binary is there");
        let stdout = child.stdout.take().expect("piped");
        let line = BufReader::new(stdout).lines().next();
        let Some(Ok(line)) = line else {
            panic!("{command:?} ended before it was ready: {:?}", child.wait());
        };
        let part = |key: &str| {
            let found = line.split(' ').find_map(|part| part.strip_prefix(key));
            found.unwrap_or_default().to_owned()
        };
        Self {
            http: part("http="),
            grpc: part("grpc="),
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal: `-HUP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Ends it with SIGTERM; how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.child.wait().expect("it ends")
    }
}

/// Allows a process files of at most so many bytes; `None`: as long as it likes. A disk that takes nothing, to one
/// process alone.
pub fn limit_files(pid: u32, bytes: Option<u64>) {
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let limited = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={limit}:")])
        .status()
        .expect("prlimit runs");
    assert!(limited.success());
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of a test that failed; else it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a binary that is expected to end by itself: its status and what it said on standard error.
pub fn run(name: &str, args: &[&str]) -> (Option<i32>, String) {
    run_command(Command::new(program(name)).args(args))
}

/// The same: its status and what it said on standard output.
pub fn output_of(name: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program(name)).args(args).output();
    let output = output.expect("invariant: the binary is there");
    let said = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), said)
}

/// The first for any command.
pub fn run_command(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("invariant: the binary is there");
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    (child.wait().expect("it ends").code(), said)
}

/// Waits until `look` finds what it looks for.
///
/// Panics with `what` when it does not come.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}

/// The items of a list of the API; `None` while it does not answer.
pub async fn items(client: &reqwest::Client, url: &str) -> Option<Vec<Value>> {
    let answer = client.get(url).send().await.ok()?;
    let json: Value = answer.json().await.ok()?;
    json["items"].as_array().cloned()
}
