//! From the processes on a GPU to its holder, and to the metrics about them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use entrenar::backend::GpuProcess;
use entrenar::gpu::Values;
use entrenar::metric;
use entrenar::report::{Holder, JobKind};

use crate::evidence::proc::{Proc, Process};

use super::{container, slurm};

/// Most pids in a [`Holder`]; the rest are counted in [`metric::PROCESSES`] only.
const MAX_PIDS: usize = 64;

/// Digits of a container id in a job's name, as people know it from their tools.
const SHORT_ID_LEN: usize = 12;

/// Names of users, from a `passwd` file that is read once.
#[derive(Clone, Debug, Default)]
pub struct Users(Arc<BTreeMap<u32, String>>);

impl Users {
    /// Reads `name:x:uid:…` lines. A file that cannot be read knows nobody.
    pub fn read(passwd: &Path) -> Self {
        Self::parse(&fs::read_to_string(passwd).unwrap_or_default())
    }

    fn parse(passwd: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
        };
        Self(Arc::new(passwd.lines().filter_map(user).collect()))
    }

    /// The name of a user id, else the number as text.
    pub fn name(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

/// What the processes on a GPU say: who holds it, and how they are.
#[derive(Debug, PartialEq)]
pub struct Seen {
    /// Who holds the GPU; `None`: nobody.
    pub holder: Option<Holder>,
    /// The metrics about processes.
    pub values: Values,
}

/// Looks at the processes of one GPU, time after time.
///
/// CPU time and bytes are running totals over all processes that it has seen, so that they do not fall when one
/// ends. What a process did before it was first seen is not in them.
#[derive(Debug)]
pub struct Scout {
    proc: Proc,
    users: Users,
    last: HashMap<(u32, u64), Counts>,
    total: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    cpu_ms: u64,
    read_bytes: Option<u64>,
    write_bytes: Option<u64>,
}

impl Scout {
    /// Looks into this proc file system.
    pub fn new(proc: Proc, users: Users) -> Self {
        Self {
            proc,
            users,
            last: HashMap::new(),
            total: Counts::default(),
        }
    }

    /// Looks at the processes that a GPU has now.
    pub fn look(&mut self, on_gpu: &[GpuProcess]) -> Seen {
        let alive: Vec<(Process, u64)> = on_gpu
            .iter()
            .filter_map(|p| Some((self.proc.process(p.pid)?, p.memory_used_bytes.unwrap_or(0))))
            .collect();
        self.add_up(&alive);
        Seen {
            holder: self.holder(on_gpu, &alive),
            values: self.values(on_gpu, &alive),
        }
    }

    /// Adds what each process did since the last look.
    fn add_up(&mut self, alive: &[(Process, u64)]) {
        let mut now = HashMap::with_capacity(alive.len());
        for (process, _) in alive {
            let key = (process.pid, process.started_ticks);
            let counts = Counts::of(process);
            if let Some(before) = self.last.get(&key) {
                self.total.add(counts, *before);
            } else {
                self.total.begin(counts);
            }
            now.insert(key, counts);
        }
        self.last = now;
    }

    fn values(&self, on_gpu: &[GpuProcess], alive: &[(Process, u64)]) -> Values {
        let mut values = Values::default().with(metric::PROCESSES, on_gpu.len() as i64);
        if let Some(worst) = alive.iter().map(|(process, _)| process.state).max() {
            values.set(metric::PROCESS_STATE, worst as i64);
            values.set(metric::PROCESS_CPU, self.total.cpu_ms as i64);
            values.set(
                metric::PROCESS_READ,
                self.total.read_bytes.map(|b| b as i64),
            );
            values.set(
                metric::PROCESS_WRITE,
                self.total.write_bytes.map(|b| b as i64),
            );
        }
        values
    }

    /// The job that holds most of the GPU's memory; among equals the oldest process decides.
    fn holder(&self, on_gpu: &[GpuProcess], alive: &[(Process, u64)]) -> Option<Holder> {
        let mut memory_of: BTreeMap<String, u64> = BTreeMap::new();
        let mut named: Vec<Holder> = Vec::with_capacity(alive.len());
        for (process, memory) in alive {
            let holder = self.works_for(process);
            *memory_of.entry(holder.job.clone()).or_default() += memory;
            named.push(holder);
        }
        let first = (0..named.len()).min_by_key(|&i| {
            let memory = memory_of.get(&named[i].job).copied().unwrap_or(0);
            (
                std::cmp::Reverse(memory),
                alive[i].0.started_ticks,
                alive[i].0.pid,
            )
        });
        let mut holder = match first {
            Some(i) => named.swap_remove(i),
            // There are processes, but none that may be looked at.
            None if !on_gpu.is_empty() => Holder {
                job: "unknown".to_owned(),
                ..Holder::default()
            },
            None => return None,
        };
        holder.pids = on_gpu.iter().map(|p| p.pid).take(MAX_PIDS).collect();
        holder.pids.sort_unstable();
        Some(holder)
    }

    /// Who a process works for: Slurm job, pod, container, else its user.
    fn works_for(&self, process: &Process) -> Holder {
        let paths = || {
            process
                .cgroup
                .lines()
                .filter_map(|line| line.splitn(3, ':').nth(2))
        };
        let user = process.uid.map(|uid| self.users.name(uid));
        let place = paths()
            .map(container::place)
            .find(|place| *place != container::Place::default())
            .unwrap_or_default();
        let job = if let Some(id) = paths().find_map(slurm::job_id) {
            format!("slurm:{id}")
        } else if let Some(pod) = &place.pod {
            format!("pod:{pod}")
        } else if let Some(id) = &place.container {
            format!("container:{}", &id[..id.len().min(SHORT_ID_LEN)])
        } else {
            let who = user.as_deref().unwrap_or("?");
            format!("user:{who}/{}", process.comm)
        };
        Holder {
            job,
            kind: JobKind::Unknown,
            rank_group: None,
            namespace: None,
            pod: place.pod,
            container: place.container,
            user,
            pids: Vec::new(),
        }
    }
}

impl Counts {
    fn of(process: &Process) -> Self {
        Self {
            cpu_ms: process.cpu_ms,
            read_bytes: process.read_bytes,
            write_bytes: process.write_bytes,
        }
    }

    /// A process is seen for the first time: its bytes count from here on, if they can be read at all.
    fn begin(&mut self, now: Self) {
        self.read_bytes = self.read_bytes.or(now.read_bytes.map(|_| 0));
        self.write_bytes = self.write_bytes.or(now.write_bytes.map(|_| 0));
    }

    fn add(&mut self, now: Self, before: Self) {
        let grown = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        let plus = |total: Option<u64>, more: Option<u64>| match (total, more) {
            (Some(total), Some(more)) => Some(total + more),
            (total, more) => total.or(more),
        };
        self.cpu_ms += now.cpu_ms.saturating_sub(before.cpu_ms);
        self.read_bytes = plus(self.read_bytes, grown(now.read_bytes, before.read_bytes));
        self.write_bytes = plus(self.write_bytes, grown(now.write_bytes, before.write_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proc tree in a temporary directory.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn scout(&self) -> Scout {
            let users = Users::parse("root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh\n");
            Scout::new(Proc::at(self.0.path()), users)
        }

        /// A process of user 1000 named `python`.
        fn run(&self, pid: u32, state: char, cpu_ticks: u64, rchar: u64, cgroup: &str) {
            let home = self.0.path().join(pid.to_string());
            fs::create_dir_all(&home).unwrap();
            let stat = format!(
                "{pid} (python) {state} 1 1 1 0 -1 0 0 0 0 0 {cpu_ticks} 0 0 0 20 0 1 0 {pid} 0"
            );
            fs::write(home.join("stat"), stat).unwrap();
            fs::write(home.join("status"), "Uid:\t1000\t1000\t1000\t1000\n").unwrap();
            fs::write(home.join("io"), format!("rchar: {rchar}\nwchar: 5\n")).unwrap();
            fs::write(home.join("cgroup"), cgroup).unwrap();
        }

        fn end(&self, pid: u32) {
            fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
        }
    }

    fn on_gpu(pids: &[(u32, u64)]) -> Vec<GpuProcess> {
        let process = |&(pid, bytes): &(u32, u64)| GpuProcess {
            pid,
            memory_used_bytes: Some(bytes),
        };
        pids.iter().map(process).collect()
    }

    const POD: &str = "0::/kubepods/pod0f3b6a52-7c1d-4e8f-9a0b-1c2d3e4f5a6b/4f1b2a3c4d5e6f70\n";

    #[test]
    fn a_process_works_for_its_scheduler_before_its_container_before_its_user() {
        let check = |cgroup: &str, job: &str| {
            let host = Host::new();
            host.run(7, 'R', 0, 0, cgroup);
            let seen = host.scout().look(&on_gpu(&[(7, 1)]));
            assert_eq!(seen.holder.expect("a holder").job, job, "{cgroup}");
        };
        check(
            "0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0\n",
            "slurm:42",
        );
        check(
            "9:devices:/slurm/uid_1000/job_42/step_0\n0::/\n",
            "slurm:42",
        );
        check(POD, "pod:0f3b6a52-7c1d-4e8f-9a0b-1c2d3e4f5a6b");
        check("0::/docker/4f1b2a3c4d5e6f70\n", "container:4f1b2a3c4d5e");
        check(
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "user:ada/python",
        );
        check("", "user:ada/python");
    }

    #[test]
    fn a_pod_s_holder_names_pod_container_user_and_pids() {
        let host = Host::new();
        host.run(7, 'R', 0, 0, POD);
        host.run(5, 'R', 0, 0, POD);
        let holder = host
            .scout()
            .look(&on_gpu(&[(7, 1), (5, 1)]))
            .holder
            .unwrap();
        assert_eq!(
            holder.pod.as_deref(),
            Some("0f3b6a52-7c1d-4e8f-9a0b-1c2d3e4f5a6b")
        );
        assert_eq!(holder.container.as_deref(), Some("4f1b2a3c4d5e6f70"));
        assert_eq!(holder.user.as_deref(), Some("ada"));
        assert_eq!(holder.pids, [5, 7]);
    }

    #[test]
    fn a_shared_gpu_is_held_by_the_job_with_most_memory() {
        let host = Host::new();
        host.run(1, 'R', 0, 0, "0::/slurm/uid_0/job_1/x\n");
        host.run(2, 'R', 0, 0, "0::/slurm/uid_0/job_2/x\n");
        host.run(3, 'R', 0, 0, "0::/slurm/uid_0/job_2/x\n");
        let mut scout = host.scout();
        let job = |seen: Seen| seen.holder.unwrap().job;
        assert_eq!(
            job(scout.look(&on_gpu(&[(1, 10), (2, 6), (3, 6)]))),
            "slurm:2"
        );
        assert_eq!(
            job(scout.look(&on_gpu(&[(1, 10), (2, 5), (3, 5)]))),
            "slurm:1"
        );
    }

    #[test]
    fn nobody_holds_a_gpu_without_processes_and_somebody_one_whose_processes_are_hidden() {
        let mut scout = Host::new().scout();
        let idle = scout.look(&[]);
        assert_eq!(idle.holder, None);
        assert_eq!(idle.values, Values::default().with(metric::PROCESSES, 0));
        let hidden = scout.look(&on_gpu(&[(99, 1)]));
        assert_eq!(hidden.holder.unwrap().job, "unknown");
        assert_eq!(hidden.values.get(metric::PROCESS_STATE), None);
    }

    #[test]
    fn totals_grow_and_never_fall_when_a_process_ends() {
        let host = Host::new();
        let mut scout = host.scout();
        let both = on_gpu(&[(7, 1), (8, 1)]);
        host.run(7, 'R', 500, 1000, "");
        host.run(8, 'S', 500, 1000, "");
        let first = scout.look(&both).values;
        assert_eq!(first.get(metric::PROCESS_CPU), Some(0));
        assert_eq!(first.get(metric::PROCESS_STATE), Some(1));

        host.run(7, 'D', 600, 1500, "");
        host.run(8, 'S', 500, 1000, "");
        let second = scout.look(&both).values;
        assert_eq!(second.get(metric::PROCESS_CPU), Some(1000));
        assert_eq!(second.get(metric::PROCESS_READ), Some(500));
        assert_eq!(second.get(metric::PROCESS_STATE), Some(2));

        host.end(7);
        let third = scout.look(&on_gpu(&[(8, 1)])).values;
        assert_eq!(third.get(metric::PROCESS_CPU), Some(1000));
        assert_eq!(third.get(metric::PROCESS_READ), Some(500));
    }
}
