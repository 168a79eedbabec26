//! The probe over the NVML backend and a driver that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use entrenar::backend::{Depth, GpuBackend, GpuError};
use entrenar::clock::SystemClock;
use entrenar::gpu::{GpuInfo, Values};
use entrenar::metric::{self, NvmlStatus};
use entrenar::mock::MockGpuBackend;
use entrenar::nvml::NvmlBackend;
use entrenar::report::{GpuEvent, GpuEventKind};
use entrenar_agent::evidence::proc::Proc;
use entrenar_agent::evidence::rdma::Rdma;
use entrenar_agent::probe::{Probe, ProbeConfig, Sweep};
use fake_nvml::harness::FakeNvml;
use tokio::sync::mpsc;

/// Far more than a healthy reading takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(1);

/// A host with the fake library, and a probe on it.
struct Host {
    nvml: FakeNvml,
    probe: Probe,
    events: mpsc::Receiver<GpuEvent>,
    dir: tempfile::TempDir,
}

impl Host {
    async fn playing(scenario: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let nvml = FakeNvml::install(dir.path(), scenario);
        let backend = NvmlBackend::open(Some(&nvml.library())).expect("the library opens");
        let config = ProbeConfig {
            deadline: DEADLINE,
            discovery_interval: Duration::from_millis(20),
            generation: 0,
            proc: Proc::at(dir.path().join("proc")),
            users: entrenar_agent::holder::Users::default(),
            rdma: Rdma::at(dir.path().join("infiniband")),
        };
        let (mut probe, events) =
            Probe::start(Arc::new(backend), Arc::new(SystemClock), config).expect("threads");
        probe.ready(Duration::from_secs(30)).await.expect("GPUs");
        Self {
            nvml,
            probe,
            events,
            dir,
        }
    }

    /// Sweeps until one fits. The tests' only patience is here: whatever they wait for is sure to come.
    async fn sweep_until(&mut self, depth: Depth, fits: impl Fn(&Sweep) -> bool) -> Sweep {
        loop {
            let sweep = self.probe.read_all(depth).await;
            if fits(&sweep) {
                return sweep;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn status(row: &Values) -> NvmlStatus {
    NvmlStatus::from_code(row.get(metric::NVML_STATUS).expect("a status")).expect("a known one")
}

fn statuses(sweep: &Sweep) -> Vec<NvmlStatus> {
    sweep.rows.iter().map(status).collect()
}

use NvmlStatus::{GpuIsLost, NotFound, Ok as Fine, ResetRequired, Timeout};

#[tokio::test]
async fn one_gpu_that_never_answers_does_not_delay_the_others() {
    let mut host = Host::playing("gpus 8").await;
    host.nvml
        .play("gpus 8\ngpu 3 call nvmlDeviceGetPowerUsage hang");
    let sweep = host.probe.read_all(Depth::Fast).await;
    let expected = [Fine, Fine, Fine, Timeout, Fine, Fine, Fine, Fine];
    assert_eq!(statuses(&sweep), expected);
    assert!(sweep.rows[3].get(metric::NVML_LATENCY) >= Some(DEADLINE.as_micros() as i64));
    assert_eq!(
        sweep.rows[3].iter().count(),
        2,
        "status and latency, nothing else"
    );
    assert_eq!(sweep.rows[4].get(metric::TEMPERATURE), Some(62));
    assert_eq!(host.probe.stats().quarantined, 1);

    // From now on it is not waited for: a hundred sweeps take less than one deadline would, were it asked.
    let waited = sweep.rows[3].get(metric::NVML_LATENCY);
    for _ in 0..100 {
        let sweep = host.probe.read_all(Depth::Fast).await;
        assert_eq!(statuses(&sweep), expected);
        assert!(sweep.rows[3].get(metric::NVML_LATENCY) > waited);
    }

    host.nvml.play("gpus 8");
    let sweep = host
        .sweep_until(Depth::Fast, |sweep| status(&sweep.rows[3]) == Fine)
        .await;
    assert_eq!(statuses(&sweep), [Fine; 8]);
    assert_eq!(host.probe.stats().quarantined, 0);
}

#[tokio::test]
async fn what_the_node_s_rdma_ports_carry_stands_in_every_row() {
    let mut host = Host::playing("gpus 2").await;
    let sweep = host.probe.read_all(Depth::Fast).await;
    assert_eq!(
        sweep.rows[0].get(metric::NETWORK),
        None,
        "no port, no value"
    );
    let counters = host.dir.path().join("infiniband/mlx5_0/ports/1/counters");
    std::fs::create_dir_all(&counters).expect("made");
    std::fs::write(counters.join("port_xmit_data"), "1000\n").expect("written");
    std::fs::write(counters.join("port_rcv_data"), "24\n").expect("written");
    let sweep = host.probe.read_all(Depth::Fast).await;
    let network = sweep.rows.iter().map(|row| row.get(metric::NETWORK));
    assert_eq!(network.collect::<Vec<_>>(), [Some(4096); 2]);
}

#[tokio::test]
async fn when_no_gpu_answers_there_is_still_a_row_for_each_within_the_deadline() {
    let mut host = Host::playing("gpus 4").await;
    host.nvml.play("gpus 4\ngpu * call * hang");
    let sweep = host.probe.read_all(Depth::Full).await;
    assert_eq!(statuses(&sweep), [Timeout; 4]);
    assert_eq!(sweep.holder_changes, []);
}

#[tokio::test]
async fn a_lost_gpu_is_a_row_with_its_status_and_a_healthy_one_says_how_long_it_took() {
    let mut host = Host::playing("gpus 2").await;
    host.nvml.play("gpus 2\ngpu 1 lost");
    let sweep = host.probe.read_all(Depth::Fast).await;
    assert_eq!(statuses(&sweep), [Fine, GpuIsLost]);
    assert!(sweep.rows[0].get(metric::NVML_LATENCY) > Some(0));
}

#[tokio::test]
async fn a_gpu_that_is_no_longer_enumerated_is_missed_by_name() {
    let mut host = Host::playing("gpus 3").await;
    let before = host.probe.inventory();
    host.nvml.play("gpus 3\ngpu 2 absent");
    let sweep = host
        .sweep_until(Depth::Fast, |s| statuses(s).contains(&NotFound))
        .await;
    assert_eq!(statuses(&sweep), [Fine, Fine, NotFound]);
    assert_eq!(sweep.inventory, before);

    host.nvml.play("gpus 3\ngpu 0 absent");
    let sweep = host
        .sweep_until(Depth::Fast, |s| s.inventory.generation > 1)
        .await;
    let names = |sweep: &Sweep| -> Vec<_> {
        sweep
            .inventory
            .gpus
            .iter()
            .map(|gpu| gpu.uuid.clone())
            .collect()
    };
    let uuid = |place: usize| before.gpus[place].uuid.clone();
    // The two that moved up come first in their new places; the one that is gone keeps index 0.
    assert_eq!(names(&sweep), [uuid(1), uuid(0), uuid(2)]);
    assert_eq!(statuses(&sweep), [Fine, NotFound, Fine]);
}

#[tokio::test]
async fn an_xid_reaches_the_sampler_at_once() {
    let mut host = Host::playing("gpus 2").await;
    host.nvml.play("gpus 2\nevent 1 gpu 1 xid 79");
    let event = host.events.recv().await.expect("an event");
    assert_eq!(event.what, GpuEventKind::Xid(79));
    assert_eq!(
        event.gpu.as_ref(),
        Some(&host.probe.inventory().gpus[1].uuid)
    );
}

#[tokio::test]
async fn the_processes_on_a_gpu_tell_who_holds_it_and_its_end_gives_it_back() {
    let mut host = Host::playing("gpus 2").await;
    let home = host.dir.path().join("proc/4242");
    std::fs::create_dir_all(&home).unwrap();
    let stat = "4242 (python) D 1 1 1 0 -1 0 0 0 0 0 100 0 0 0 20 0 1 0 77 0";
    std::fs::write(home.join("stat"), stat).unwrap();
    let cgroup = "0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0\n";
    std::fs::write(home.join("cgroup"), cgroup).unwrap();

    host.nvml.play("gpus 2\ngpu 0 process 4242 1073741824");
    let sweep = host.probe.read_all(Depth::Full).await;
    let change = &sweep.holder_changes[0];
    assert_eq!(sweep.holder_changes.len(), 1);
    assert_eq!(change.gpu, host.probe.inventory().gpus[0].uuid);
    let holder = change.holder.as_ref().unwrap();
    assert_eq!(
        (holder.job.as_str(), &holder.pids[..]),
        ("slurm:42", &[4242][..])
    );
    assert_eq!(sweep.rows[0].get(metric::PROCESSES), Some(1));
    assert_eq!(sweep.rows[0].get(metric::PROCESS_STATE), Some(2));
    assert_eq!(sweep.rows[1].get(metric::PROCESSES), Some(0));

    // A list that may not be read gives nothing back: the job is still there, as far as anyone knows.
    host.nvml
        .play("gpus 2\ngpu 0 call nvmlDeviceGetComputeRunningProcesses_v3 999");
    assert_eq!(host.probe.read_all(Depth::Full).await.holder_changes, []);
    assert_eq!(host.probe.restate_holders().len(), 1);

    host.nvml.play("gpus 2");
    let changes = host.probe.read_all(Depth::Full).await.holder_changes;
    assert_eq!(changes[0].holder, None);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_never_blocks_is_read_in_place_and_in_virtual_time() {
    let mock = MockGpuBackend::new()
        .with_device(0, "steady")
        .with_temperature(60)
        .with_device(1, "broken")
        .with_failure(GpuError::ResetRequired { device: 1 });
    let config = ProbeConfig::for_interval(Duration::from_secs(1));
    let (mut probe, _events) =
        Probe::start(Arc::new(mock), Arc::new(SystemClock), config).expect("no thread is needed");
    let inventory = probe.ready(Duration::ZERO).await.expect("GPUs");
    assert_eq!((inventory.generation, inventory.gpus.len()), (1, 2));
    let sweep = probe.read_all(Depth::Fast).await;
    assert_eq!(statuses(&sweep), [Fine, ResetRequired]);
    assert_eq!(sweep.rows[0].get(metric::TEMPERATURE), Some(60));
}

#[tokio::test]
async fn a_driver_that_hangs_as_a_whole_is_told_as_such() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let nvml = FakeNvml::install(dir.path(), "gpus 2\ncall nvmlDeviceGetCount_v2 hang");
    let backend = NvmlBackend::open(Some(&nvml.library())).expect("the library opens");
    let config = ProbeConfig::for_interval(Duration::from_secs(1));
    let (mut probe, _events) =
        Probe::start(Arc::new(backend), Arc::new(SystemClock), config).expect("threads");
    let error = probe
        .ready(Duration::from_millis(50))
        .await
        .expect_err("nothing comes back");
    assert!(
        error.to_string().contains("no enumeration within 50 ms"),
        "{error}"
    );
    assert_eq!(probe.read_all(Depth::Fast).await.rows, []);
}

/// A backend with a bug.
struct Panics;

impl GpuBackend for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
        Ok(vec![GpuInfo::default()])
    }

    fn read(&self, _: &GpuInfo, depth: Depth) -> Result<Values, GpuError> {
        assert!(depth == Depth::Fast, "a bug, for this test");
        Ok(Values::default())
    }
}

#[tokio::test]
async fn a_backend_that_panics_costs_a_row_and_not_the_gpu() {
    let config = ProbeConfig::for_interval(Duration::from_secs(1));
    let (mut probe, _events) =
        Probe::start(Arc::new(Panics), Arc::new(SystemClock), config).expect("threads");
    probe.ready(Duration::from_secs(30)).await.expect("a GPU");
    assert_eq!(
        statuses(&probe.read_all(Depth::Full).await),
        [NvmlStatus::Unknown]
    );
    let mut status = NvmlStatus::Unknown;
    while status != Fine {
        status = statuses(&probe.read_all(Depth::Fast).await)[0];
    }
}
