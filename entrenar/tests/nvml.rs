//! The NVML backend over a real shared library with NVML's symbols: what a host with a driver would give.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use entrenar::backend::{Depth, GpuBackend, GpuError, GpuProcess};
use entrenar::gpu::{GpuInfo, Values};
use entrenar::metric::{self, MetricId, NvmlStatus};
use entrenar::nvml::{Limit, NvmlBackend};
use entrenar::report::GpuEventKind;
use fake_nvml::harness::FakeNvml;

/// A host with the library installed.
struct Host {
    nvml: FakeNvml,
    dir: tempfile::TempDir,
}

impl Host {
    fn playing(scenario: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self {
            nvml: FakeNvml::install(dir.path(), scenario),
            dir,
        }
    }

    fn open(&self) -> NvmlBackend {
        NvmlBackend::open(Some(&self.nvml.library())).expect("the library opens")
    }
}

fn gpus(backend: &NvmlBackend) -> Vec<GpuInfo> {
    backend.inventory().expect("an inventory")
}

fn full(backend: &NvmlBackend, gpu: &GpuInfo) -> Values {
    backend.read(gpu, Depth::Full).expect("values")
}

#[test]
fn nvml_keeps_the_contract_of_every_backend() {
    let host = Host::playing("gpus 2");
    entrenar::backend::contract::check(&host.open());
}

#[test]
fn a_gpu_is_described_and_read_in_the_catalogue_s_units() {
    let host = Host::playing("gpus 4\ngpu 2 fan 40\ngpu 2 ecc_corrected 7\n");
    let backend = host.open();
    assert_eq!(backend.driver_version().as_deref(), Some("570.124.06"));

    let gpu = gpus(&backend).remove(2);
    assert_eq!(
        gpu.uuid.as_str(),
        "GPU-00000000-fa4e-4000-8000-000000000002"
    );
    assert_eq!((gpu.index, gpu.name.as_str()), (2, "NVIDIA H100 80GB HBM3"));
    assert_eq!(gpu.pci_bus_id.as_deref(), Some("00000000:06:00.0"));
    assert_eq!(gpu.memory_total_bytes, Some(80 << 30));

    let values = full(&backend, &gpu);
    let expected = [
        (metric::TEMPERATURE, 62),
        (metric::MEMORY_TEMPERATURE, 71),
        (metric::THERMAL_MARGIN, 27),
        (metric::UTILIZATION, 98),
        (metric::MEMORY_UTILIZATION, 45),
        (metric::MEMORY_USED, 60 << 30),
        (metric::MEMORY_TOTAL, 80 << 30),
        (metric::POWER, 645_000),
        (metric::POWER_LIMIT, 700_000),
        (metric::POWER_LIMIT_DEFAULT, 700_000),
        (metric::SM_CLOCK, 1980),
        (metric::MEMORY_CLOCK, 2619),
        (
            metric::CLOCK_EVENT_REASONS,
            metric::clock_reason::SW_POWER_CAP,
        ),
        (metric::PCIE_LINK_WIDTH, 16),
        (metric::PCIE_LINK_GEN, 5),
        (metric::PCIE_REPLAY, 0),
        (metric::NVLINK_ACTIVE_LINKS, 18),
        (metric::NVLINK_CRC_ERRORS, 0),
        (metric::NVLINK_RECOVERY, 0),
        (metric::ECC_CORRECTED, 7),
        (metric::ECC_UNCORRECTED, 0),
        (metric::REMAPPED_ROWS_PENDING, 0),
        (metric::REMAPPED_ROWS_FAILURE, 0),
        (metric::FAN_SPEED, 40),
    ];
    for (metric, value) in expected {
        assert_eq!(
            values.get(metric),
            Some(value),
            "{}",
            metric.def().unwrap().name
        );
    }
    let counters = [
        metric::ENERGY,
        metric::PCIE_TX,
        metric::PCIE_RX,
        metric::NVLINK_TX,
        metric::NVLINK_RX,
    ];
    let later = full(&backend, &gpu);
    for counter in counters {
        assert!(
            later.get(counter) > values.get(counter),
            "{}",
            counter.def().unwrap().name
        );
    }
    assert_eq!(backend.capabilities(), []);
}

#[test]
fn a_fast_tick_makes_at_most_twelve_driver_calls() {
    let host = Host::playing("gpus 1");
    let backend = host.open();
    let gpu = gpus(&backend).remove(0);
    // GPM tells what was between two looks.
    backend.read(&gpu, Depth::Fast).unwrap();
    host.nvml.play(&format!(
        "gpus 1\ntrace {}",
        host.nvml.trace_file().display()
    ));
    let values = backend.read(&gpu, Depth::Fast).unwrap();
    let calls = host.nvml.calls().unwrap();
    assert!(calls.len() <= 12, "{calls:?}");

    let fast = metric::CATALOGUE
        .iter()
        .filter(|m| m.pace == metric::Pace::Fast);
    let elsewhere = [metric::NVML_STATUS, metric::NVML_LATENCY, metric::NETWORK];
    for metric in fast.filter(|m| !elsewhere.contains(&m.id)) {
        assert!(values.get(metric.id).is_some(), "{}", metric.name);
    }
    assert_eq!(values.get(metric::FAN_SPEED), None, "a slow metric");
}

#[test]
fn gpm_tells_the_time_between_two_looks_and_pcie_traffic_beyond_32_bits() {
    let host = Host::playing("gpus 1\ngpu 0 pcie_rx_rate 60000000000000\n");
    let backend = host.open();
    let gpu = gpus(&backend).remove(0);
    let first = backend.read(&gpu, Depth::Fast).unwrap();
    assert_eq!(
        first.get(metric::SM_ACTIVE),
        None,
        "there was no look before"
    );
    assert_eq!(first.get(metric::PCIE_RX), Some(0), "the total begins");
    let second = backend.read(&gpu, Depth::Fast).unwrap();
    let expected = [
        (metric::SM_ACTIVE, 870_000),
        (metric::TENSOR_ACTIVE, 480_000),
        (metric::DRAM_ACTIVE, 360_000),
    ];
    for (metric, ppm) in expected {
        assert_eq!(second.get(metric), Some(ppm));
    }
    // 60 TB/s, so that a few hundred microseconds are more than 32 bits hold.
    let mut now = second;
    while now.get(metric::PCIE_RX) < Some(1 << 33) {
        let before = now.get(metric::PCIE_RX);
        now = backend.read(&gpu, Depth::Fast).unwrap();
        assert!(now.get(metric::PCIE_RX) > before);
    }
}

#[test]
fn a_gpu_before_hopper_has_its_pcie_traffic_from_the_counter() {
    let host = Host::playing("gpus 1\ngpu 0 gpm 0\n");
    let backend = host.open();
    let gpu = gpus(&backend).remove(0);
    let first = backend.read(&gpu, Depth::Fast).unwrap();
    let second = backend.read(&gpu, Depth::Fast).unwrap();
    assert_eq!(second.get(metric::SM_ACTIVE), None);
    assert!(second.get(metric::PCIE_RX) > first.get(metric::PCIE_RX));
    let declined: Vec<MetricId> = backend.capabilities().iter().map(|c| c.metric).collect();
    let gpm = [
        metric::SM_ACTIVE,
        metric::TENSOR_ACTIVE,
        metric::DRAM_ACTIVE,
    ];
    assert_eq!(declined, gpm);
}

#[test]
fn what_a_gpu_declines_is_absent_and_not_asked_for_again() {
    let host = Host::playing(
        "gpus 2\ngpu 1 fan none\ngpu 1 power denied\ngpu 1 memory_temperature none\ngpu 1 utilization none\n",
    );
    let backend = host.open();
    let gpu = gpus(&backend).remove(1);
    let values = full(&backend, &gpu);
    let declined = [
        (metric::MEMORY_TEMPERATURE, Limit::NotSupported),
        (metric::UTILIZATION, Limit::NotSupported),
        (metric::MEMORY_UTILIZATION, Limit::NotSupported),
        (metric::POWER, Limit::NoPermission),
        (metric::FAN_SPEED, Limit::NotSupported),
    ];
    for (metric, _) in declined {
        assert_eq!(values.get(metric), None);
    }
    assert_eq!(values.get(metric::TEMPERATURE), Some(62));
    assert_eq!(values.get(metric::REMAPPED_ROWS_PENDING), Some(0));

    let told: Vec<(u32, MetricId, Limit)> = backend
        .capabilities()
        .iter()
        .map(|c| (c.device, c.metric, c.limit))
        .collect();
    assert_eq!(told, declined.map(|(metric, limit)| (1, metric, limit)));

    host.nvml
        .play(&format!("trace {}", host.nvml.trace_file().display()));
    full(&backend, &gpu);
    let calls = host.nvml.calls().unwrap();
    for call in ["nvmlDeviceGetPowerUsage 1", "nvmlDeviceGetFanSpeed_v2 1"] {
        assert!(
            !calls.iter().any(|c| c == call),
            "{call} was asked for again"
        );
    }
}

#[test]
fn an_old_driver_without_some_symbols_gives_all_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let nvml = FakeNvml::install(dir.path(), "gpu * fan 30").without_symbols(&[
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetMarginTemperature",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlGpmQueryDeviceSupport",
        "nvmlEventSetFree",
        "nvmlShutdown",
    ]);
    let backend = NvmlBackend::open(Some(&nvml.library())).unwrap();
    let gpu = gpus(&backend).remove(0);
    let values = full(&backend, &gpu);
    // The first form of the call counts what the driver reserves as used.
    assert_eq!(
        values.get(metric::MEMORY_USED),
        Some((60 << 30) + (512 << 20))
    );
    assert_eq!(values.get(metric::CLOCK_EVENT_REASONS), Some(4));
    assert_eq!(values.get(metric::FAN_SPEED), Some(30));
    assert_eq!(values.get(metric::THERMAL_MARGIN), None);
    assert_eq!(values.get(metric::PCIE_TX), None);
    assert!(backend.processes(&gpu).is_err(), "unknown is not none");
    assert!(
        backend
            .capabilities()
            .iter()
            .all(|c| c.limit == Limit::MissingSymbol)
    );
    assert_eq!(backend.events(Duration::from_millis(1)), Ok(vec![]));
}

#[test]
fn a_gpu_that_is_lost_says_so_and_stays_in_the_inventory() {
    let host = Host::playing("gpus 3");
    let backend = host.open();
    let before = gpus(&backend);
    let check = |scenario: &str, error: GpuError, status: NvmlStatus| {
        host.nvml.play(scenario);
        assert_eq!(backend.read(&before[1], Depth::Fast), Err(error.clone()));
        assert_eq!(error.status(), status);
        assert!(backend.read(&before[0], Depth::Fast).is_ok());
        assert_eq!(gpus(&backend), before);
    };
    check(
        "gpus 3\ngpu 1 lost",
        GpuError::Lost { device: 1 },
        NvmlStatus::GpuIsLost,
    );
    check(
        "gpus 3\ngpu 1 call * 28",
        GpuError::Lost { device: 1 },
        NvmlStatus::GpuIsLost,
    );
    check(
        "gpus 3\ngpu 1 reset_required",
        GpuError::ResetRequired { device: 1 },
        NvmlStatus::ResetRequired,
    );
}

#[test]
fn a_gpu_that_is_no_longer_enumerated_is_gone_and_the_next_moves_up() {
    let host = Host::playing("gpus 3");
    let backend = host.open();
    let before = gpus(&backend);
    host.nvml.play("gpus 3\ngpu 1 absent");
    let after = gpus(&backend);
    assert_eq!(after.len(), 2);
    assert_eq!((&after[1].uuid, after[1].index), (&before[2].uuid, 1));
}

#[test]
fn a_value_that_used_to_come_and_now_fails_marks_the_tick() {
    let host = Host::playing("gpus 1\ngpu 0 fan !999");
    let backend = host.open();
    let gpu = gpus(&backend).remove(0);
    // It never answered: a quirk of the board.
    assert_eq!(full(&backend, &gpu).get(metric::NVML_STATUS), None);
    host.nvml.play("gpus 1\ngpu 0 power !999");
    let values = full(&backend, &gpu);
    assert_eq!(
        values.get(metric::NVML_STATUS),
        Some(NvmlStatus::Unknown as i64)
    );
    assert_eq!(values.get(metric::POWER), None);
    assert_eq!(values.get(metric::TEMPERATURE), Some(62));
    host.nvml.play("gpus 1");
    assert_eq!(full(&backend, &gpu).get(metric::NVML_STATUS), None);
}

#[test]
fn an_xid_is_an_event_of_its_gpu_and_is_told_once() {
    let host = Host::playing("gpus 2");
    let backend = host.open();
    let gpu = gpus(&backend).remove(1);
    let wait = |ms| backend.events(Duration::from_millis(ms)).unwrap();
    assert_eq!(wait(1), []);
    host.nvml.play("gpus 2\nevent 1 gpu 1 xid 79");
    let event = wait(5000).remove(0);
    assert_eq!(
        (event.gpu, event.what),
        (Some(gpu.uuid), GpuEventKind::Xid(79))
    );
    assert_eq!(wait(1), []);
}

#[test]
fn a_gpu_without_events_does_not_hide_those_of_the_others() {
    let host = Host::playing("gpus 2\ngpu 0 call nvmlDeviceRegisterEvents 3\nevent 1 gpu 1 xid 48");
    let backend = host.open();
    let gpu = gpus(&backend).remove(1);
    let event = backend.events(Duration::from_secs(5)).unwrap().remove(0);
    assert_eq!(event.gpu, Some(gpu.uuid));
}

#[test]
fn processes_are_listed_and_not_found_means_none() {
    let host = Host::playing("gpu 0 process 4242 1073741824\ngpu 0 process 4343 5\n");
    let backend = host.open();
    let gpu = gpus(&backend).remove(0);
    let process = |pid, bytes| GpuProcess {
        pid,
        memory_used_bytes: Some(bytes),
    };
    assert_eq!(
        backend.processes(&gpu),
        Ok(vec![process(4242, 1 << 30), process(4343, 5)])
    );
    host.nvml
        .play("gpu 0 call nvmlDeviceGetComputeRunningProcesses_v3 6");
    assert_eq!(backend.processes(&gpu), Ok(vec![]));
    host.nvml
        .play("gpu 0 call nvmlDeviceGetComputeRunningProcesses_v3 4");
    assert_eq!(
        backend.processes(&gpu),
        Err(GpuError::NoPermission { device: 0 })
    );
}

#[test]
fn a_call_that_never_returns_blocks_its_own_gpu_only() {
    let host = Host::playing("gpus 2");
    let backend = Arc::new(host.open());
    let gpus = gpus(&backend);
    host.nvml
        .play("gpus 2\ngpu 0 call nvmlDeviceGetPowerUsage hang");
    let (there, back) = std::sync::mpsc::sync_channel(1);
    let hung = (Arc::clone(&backend), gpus[0].clone());
    std::thread::spawn(move || {
        let answer = hung.0.read(&hung.1, Depth::Fast);
        there.send(answer.map(Box::new)).expect("the test waits");
    });
    assert!(backend.read(&gpus[1], Depth::Fast).is_ok());
    assert!(back.try_recv().is_err(), "still inside");
    host.nvml.play("gpus 2");
    assert!(back.recv_timeout(Duration::from_secs(10)).unwrap().is_ok());
}

#[test]
fn a_gpu_that_hangs_from_the_start_does_not_hide_the_others() {
    let host = Host::playing("gpus 3\ngpu 1 call * hang");
    let backend = host.open();
    let indices = || -> Vec<u32> { gpus(&backend).iter().map(|gpu| gpu.index).collect() };
    assert_eq!(indices(), [0, 2]);
    host.nvml.play(&format!(
        "gpus 3\ngpu 1 call * hang\ntrace {}",
        host.nvml.trace_file().display()
    ));
    assert_eq!(indices(), [0, 2]);
    // Its thread is away, so no other is lost to it, and who is known says little.
    let asked = host.nvml.calls().unwrap();
    let of = |gpu: &str| asked.iter().filter(|call| call.ends_with(gpu)).count();
    assert_eq!((of(" 1"), of(" 0")), (0, 2), "{asked:?}");

    host.nvml.play("gpus 3");
    while indices().len() < 3 {
        std::thread::yield_now();
    }
    assert_eq!(indices(), [0, 1, 2]);
}

#[test]
fn a_gpu_that_hangs_from_the_start_is_named_by_the_kernel() {
    let host = Host::playing("gpus 2\ngpu 1 call * hang");
    for index in [0, 1] {
        let gpu = host
            .dir
            .path()
            .join(format!("gpus/0000:0{}:00.0", 4 + index));
        std::fs::create_dir_all(&gpu).unwrap();
        let uuid = format!("GPU-00000000-fa4e-4000-8000-{index:012}");
        std::fs::write(gpu.join("information"), format!("GPU UUID: \t {uuid}\n")).unwrap();
    }
    let backend = host.open().with_kernel_list(host.dir.path().join("gpus"));
    let listed = gpus(&backend);
    assert_eq!(
        listed[1].uuid.as_str(),
        "GPU-00000000-fa4e-4000-8000-000000000001"
    );
    assert_eq!((listed[1].index, listed.len()), (1, 2));
}

#[test]
fn when_no_gpu_says_who_it_is_there_is_an_error_and_not_an_empty_node() {
    let host = Host::playing("gpus 2\ngpu * lost");
    assert_eq!(host.open().inventory(), Err(GpuError::Lost { device: 0 }));
}

#[test]
fn without_a_library_the_names_that_were_tried_are_told() {
    let missing = Path::new("/nonexistent/libnvidia-ml.so.1");
    let Err(GpuError::BackendUnavailable { tried, .. }) = NvmlBackend::open(Some(missing)) else {
        panic!("there is nothing to open");
    };
    assert_eq!(tried, ["/nonexistent/libnvidia-ml.so.1"]);
}

#[test]
fn a_library_that_refuses_says_why() {
    let check = |scenario: &str, expected: &str| {
        let error = NvmlBackend::open(Some(&Host::playing(scenario).nvml.library()))
            .err()
            .unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("init 9", "NVIDIA driver is not loaded");
    check(
        "init 18",
        "the driver and its library have different versions",
    );
}
