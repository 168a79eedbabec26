//! Our own programs as processes: started as a person starts them, watched through `/proc`, stopped by a signal.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use entrenar::clock::instant;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// A server that said it is ready.
pub struct Server {
    child: Child,
    /// Kept open: a program that finds its standard output closed may end.
    _stdout: BufReader<ChildStdout>,
    addresses: BTreeMap<String, String>,
    /// From its start to the line in which it said that it is ready.
    pub ready_after: Duration,
}

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// In its own code.
    pub user: Duration,
    /// In the kernel, on its behalf.
    pub system: Duration,
    pub rss_bytes: u64,
    pub peak_rss_bytes: u64,
    /// Handed to the disk; a temporary file that lives in memory counts as nothing.
    pub written_bytes: u64,
}

impl Usage {
    /// User and system time.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }

    /// Of a process that lives.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("could not read {path}"))
        };
        let (user, system) = cpu_of(&read("stat")?).context("/proc/PID/stat has another form")?;
        let status = read("status")?;
        let kib = |key| number_after(&status, key).map_or(0, |kib| kib * 1024);
        Ok(Self {
            user,
            system,
            rss_bytes: kib("VmRSS:"),
            peak_rss_bytes: kib("VmHWM:"),
            written_bytes: number_after(&read("io")?, "write_bytes:").unwrap_or(0),
        })
    }
}

/// User and system time from `/proc/PID/stat`; the name in it may contain blanks and brackets.
fn cpu_of(stat: &str) -> Option<(Duration, Duration)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |n: usize| fields.split(' ').nth(n)?.parse::<f64>().ok();
    let a_second = rustix::param::clock_ticks_per_second() as f64;
    let time = |n| Some(Duration::from_secs_f64(ticks(n)? / a_second));
    Some((time(11)?, time(12)?))
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A program that cargo built beside this one.
pub fn program(name: &str) -> Result<Command> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.is_file() {
        return Ok(Command::new(path));
    }
    bail!(
        "{} is not there: run `cargo xtask bench`, which builds it first",
        path.display()
    );
}

/// An aggregator with its data in a directory, on free ports of loopback, and everything else at its default.
pub fn aggregator(data_dir: PathBuf) -> Result<Command> {
    let mut command = program("entrenar-aggregator")?;
    command.arg("--data-dir").arg(data_dir);
    command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    Ok(command)
}

impl Server {
    /// Starts a program and waits until it is ready. Its log goes where ours goes when `ENTRENAR_BENCH_LOG` is set,
    /// and nowhere otherwise.
    pub fn start(mut command: Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let logs = std::env::var_os("ENTRENAR_BENCH_LOG").is_some();
        let stderr = if logs {
            Stdio::inherit()
        } else {
            Stdio::null()
        };
        let began = instant();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("could not start {shown}"))?;
        let stdout = child.stdout.take().context("a pipe for standard output")?;
        let mut stdout = BufReader::new(stdout);
        let addresses = await_ready(&mut stdout);
        let server = Self {
            child,
            _stdout: stdout,
            addresses: addresses.unwrap_or_default(),
            ready_after: began.elapsed(),
        };
        if server.addresses.is_empty() {
            bail!("{shown} ended before it was ready: set ENTRENAR_BENCH_LOG=1 to see why");
        }
        Ok(server)
    }

    /// Where it serves `http` or `grpc`: `127.0.0.1:40123`.
    pub fn address(&self, what: &str) -> Result<&str> {
        let address = self.addresses.get(what);
        Ok(address.ok_or_else(|| anyhow!("the server said no {what} address"))?)
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    /// Ends it in good order; says how long that took.
    pub fn stop(mut self) -> Result<Duration> {
        let began = instant();
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("could not signal")?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the server ended badly: {status}");
        }
        Ok(began.elapsed())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of a line `ready http=HOST:PORT grpc=HOST:PORT`.
fn await_ready(stdout: &mut BufReader<ChildStdout>) -> Option<BTreeMap<String, String>> {
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(rest) = line.strip_prefix("ready ") {
            let pairs = rest
                .split_whitespace()
                .filter_map(|word| word.split_once('='));
            return Some(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
        }
    }
}

/// Lets this process, and those that it starts, open as many files as the system allows.
pub fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most).context("could not raise the limit of open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse_the_times() {
        let fields = "R 1 1 1 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100";
        let second = rustix::param::clock_ticks_per_second() as f64;
        let (user, system) = cpu_of(&format!("77 (a) b) {fields}")).unwrap();
        assert_eq!(user, Duration::from_secs_f64(250.0 / second));
        assert_eq!(system, Duration::from_secs_f64(50.0 / second));
    }

    #[test]
    fn our_own_usage_can_be_read() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.peak_rss_bytes >= usage.rss_bytes);
    }
}
