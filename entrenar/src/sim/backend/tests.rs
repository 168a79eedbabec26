//! Stories of a simulated node behind the backend trait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::backend::{Depth, GpuBackend, GpuError};
use crate::clock::Clock;
use crate::gpu::Values;
use crate::metric;
use crate::sim::{Fault, FaultKind, NodeState, Scenario, SimBackend, SimConfig, SimFleet, Target};
use crate::unit::Timestamp;

fn get(values: &Values, metric: metric::MetricId) -> i64 {
    values.get(metric).expect("reported")
}

/// A clock that stands still until it is moved.
struct Hands(Mutex<Duration>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.monotonic()
    }
    fn monotonic(&self) -> Duration {
        *self.0.lock().expect("not poisoned")
    }
}

fn backend_of(scenario: Scenario, node: &str, speed: f64) -> (Arc<Hands>, Arc<SimBackend>) {
    let hands = Arc::new(Hands(Mutex::new(Duration::from_secs(9))));
    let clock: Arc<dyn Clock> = Arc::clone(&hands) as _;
    let backends = SimFleet::backends(&scenario.config(8, 8), &clock, speed).expect("fits");
    let (_, backend) = backends
        .into_iter()
        .find(|(name, _)| name.as_str() == node)
        .expect("there");
    (hands, backend)
}

fn move_to(hands: &Hands, secs: u64) {
    *hands.0.lock().expect("not poisoned") = Duration::from_secs(9 + secs);
}

#[test]
fn a_simulated_node_keeps_the_contract_of_every_backend() {
    for node in ["n01", "n07", "n08"] {
        let (_hands, backend) = backend_of(Scenario::Steady, node, 1.0);
        crate::backend::contract::check(backend.as_ref());
    }
}

#[test]
fn a_backend_shows_its_node_at_the_time_of_its_clock() {
    let (hands, backend) = backend_of(Scenario::LostGpu, "n04", 1.0);
    let gpus = backend.inventory().expect("there");
    assert_eq!(gpus.len(), 8);
    assert!(backend.holder(&gpus[0]).flatten().is_some());
    assert_eq!(backend.processes(&gpus[0]).expect("there").len(), 1);
    let fast = backend.read(&gpus[7], Depth::Fast).expect("alive");
    assert_eq!(fast.get(metric::PCIE_LINK_WIDTH), None);
    assert!(backend.events(Duration::ZERO).expect("none").is_empty());
    move_to(&hands, 61);
    assert_eq!(
        backend.read(&gpus[7], Depth::Full),
        Err(GpuError::Lost { device: 7 })
    );
    let events = backend.events(Duration::ZERO).expect("one");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].at, Timestamp::from_secs(1_800_000_009 + 60));
    assert_eq!(events[0].gpu.as_ref(), Some(&gpus[7].uuid));
    assert!(backend.events(Duration::ZERO).expect("none").is_empty());
}

#[test]
fn at_ten_times_the_speed_faults_come_sooner_and_power_is_still_what_energy_grows_by() {
    let (hands, backend) = backend_of(Scenario::LostNode, "n01", 10.0);
    let gpu = &backend.inventory().expect("there")[0];
    let before = backend.read(gpu, Depth::Fast).expect("alive");
    move_to(&hands, 7);
    let after = backend.read(gpu, Depth::Fast).expect("alive");
    let watts = (get(&after, metric::ENERGY) - get(&before, metric::ENERGY)) / 7000;
    assert!((640..700).contains(&watts), "{watts} W");
    let (hands, lost) = backend_of(Scenario::LostNode, "n06", 10.0);
    assert_eq!(lost.state(), NodeState::Up);
    move_to(&hands, 7);
    assert_eq!(lost.state(), NodeState::Lost);
}

#[test]
fn a_silent_gpu_answers_nobody_until_the_gate_is_opened() {
    let silent = Fault {
        at: Duration::ZERO,
        duration: None,
        kind: FaultKind::SilentGpu,
        target: Target::Gpu {
            node: "n01".into(),
            gpu: 0,
        },
    };
    let hands: Arc<dyn Clock> = Arc::new(Hands(Mutex::new(Duration::ZERO)));
    let config = SimConfig::new(1, 2).faults(vec![silent]);
    let (_, backend) = SimFleet::backends(&config, &hands, 1.0)
        .expect("fits")
        .remove(0);
    let gpus = backend.inventory().expect("there");
    let (done, waits) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::spawn({
        let (backend, gpu) = (Arc::clone(&backend), gpus[0].clone());
        move || {
            let answer = backend.read(&gpu, Depth::Fast);
            done.send(()).expect("the test waits");
            answer
        }
    });
    assert!(
        backend.read(&gpus[1], Depth::Fast).is_ok(),
        "the other GPU answers"
    );
    let waited = waits.recv_timeout(Duration::from_millis(30));
    assert!(waited.is_err(), "the silent one does not");
    backend.gate().open();
    assert!(reader.join().expect("no panic").is_ok());
}
