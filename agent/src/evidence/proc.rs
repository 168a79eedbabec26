//! One process, as `/proc/PID/{stat,io,cgroup,status}` tell it.
//!
//! It reads, and does not judge: who a process works for is decided in [`holder`](crate::holder). A process that is
//! gone, or that may not be looked at, is `None`; a file of it that may not be read leaves its values out.

use std::fs;
use std::path::PathBuf;

/// Clock ticks in a second in `/proc`: a constant of the Linux ABI (`USER_HZ`) on the platforms that have GPUs.
const TICKS_PER_SECOND: u64 = 100;

/// A proc file system: the host's, or a directory tree in tests.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
}

/// What a process is doing: the codes of [`PROCESS_STATE`](entrenar::metric::PROCESS_STATE), better before worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i64)]
pub enum ProcessState {
    /// On a core, or ready to be.
    Running = 0,
    /// Waits, and can be woken.
    Sleeping = 1,
    /// Waits for input or output, and cannot be woken: the D state.
    Blocked = 2,
    /// Stopped by a signal or a debugger.
    Stopped = 3,
}

/// A process at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Name of the executable, at most 15 bytes.
    pub comm: String,
    /// What it is doing.
    pub state: ProcessState,
    /// When it started, in clock ticks since boot: with the pid, its identity.
    pub started_ticks: u64,
    /// CPU time of all its threads, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes it read, of any kind; `None` where the kernel does not let us look.
    pub read_bytes: Option<u64>,
    /// Bytes it wrote, of any kind; `None` where the kernel does not let us look.
    pub write_bytes: Option<u64>,
    /// Its real user id.
    pub uid: Option<u32>,
    /// Its `cgroup` file: one line a hierarchy. Empty where it cannot be read.
    pub cgroup: String,
}

impl Default for Proc {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Proc {
    /// A proc file system mounted at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A process; `None` when it is gone, or dead and not yet reaped.
    pub fn process(&self, pid: u32) -> Option<Process> {
        let mut process = parse_stat(pid, &self.file(pid, "stat")?)?;
        process.uid = self.file(pid, "status").as_deref().and_then(parse_uid);
        process.cgroup = self.file(pid, "cgroup").unwrap_or_default();
        if let Some(io) = self.file(pid, "io") {
            process.read_bytes = field(&io, "rchar:");
            process.write_bytes = field(&io, "wchar:");
        }
        Some(process)
    }

    fn file(&self, pid: u32, name: &str) -> Option<String> {
        let bytes = fs::read(self.root.join(pid.to_string()).join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// `pid (comm) state …`: the name may hold spaces and brackets, so the last bracket ends it. See proc_pid_stat(5).
fn parse_stat(pid: u32, stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let comm = head.split_once('(')?.1;
    // The first field here is the third of the manual, the state.
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let number = |manual: usize| fields.get(manual - 3)?.parse::<u64>().ok();
    Some(Process {
        pid,
        comm: comm.to_owned(),
        state: parse_state(fields.first()?)?,
        started_ticks: number(22)?,
        cpu_ms: (number(14)? + number(15)?) * 1000 / TICKS_PER_SECOND,
        read_bytes: None,
        write_bytes: None,
        uid: None,
        cgroup: String::new(),
    })
}

fn parse_state(letter: &str) -> Option<ProcessState> {
    match letter {
        "R" => Some(ProcessState::Running),
        "S" | "I" | "K" | "W" | "P" => Some(ProcessState::Sleeping),
        "D" => Some(ProcessState::Blocked),
        "T" | "t" => Some(ProcessState::Stopped),
        // Z and X: dead.
        _ => None,
    }
}

fn parse_uid(status: &str) -> Option<u32> {
    field(status, "Uid:").and_then(|uid| uid.try_into().ok())
}

/// The first number after a label at the start of a line.
fn field(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "4242 (pt main) thread) D 1 4242 4242 0 -1 4194304 5 0 0 0 1200 34 0 0 20 0 9 0 777 1 2 3";

    #[test]
    fn a_name_with_a_bracket_in_it_does_not_shift_the_fields() {
        let process = parse_stat(4242, STAT).expect("a stat line");
        assert_eq!(process.comm, "pt main) thread");
        assert_eq!(process.state, ProcessState::Blocked);
        assert_eq!(process.cpu_ms, 12_340);
        assert_eq!(process.started_ticks, 777);
    }

    #[test]
    fn a_dead_process_and_a_cut_line_are_nobody() {
        assert_eq!(parse_stat(1, &STAT.replace(") D ", ") Z ")), None);
        assert_eq!(parse_stat(1, "1 (x) R 2 3"), None);
        assert_eq!(parse_stat(1, ""), None);
    }

    #[test]
    fn what_may_not_be_read_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let proc = Proc::at(dir.path());
        assert_eq!(proc.process(7), None);

        let home = dir.path().join("7");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("stat"), STAT).unwrap();
        fs::write(
            home.join("status"),
            "Name:\tx\nUid:\t1000\t1001\t1000\t1000\n",
        )
        .unwrap();
        let process = proc.process(7).unwrap();
        assert_eq!((process.uid, process.read_bytes), (Some(1000), None));

        fs::write(home.join("io"), "rchar: 11\nwchar: 22\nread_bytes: 3\n").unwrap();
        let process = proc.process(7).unwrap();
        assert_eq!(
            (process.read_bytes, process.write_bytes),
            (Some(11), Some(22))
        );
    }
}
