//! Trials through real agents: the driver's library reports an XID.

use std::fmt::Write as _;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use entrenar::clock::instant;
use fake_nvml::harness::FakeNvml;
use fake_nvml::scenario::uuid;

use super::center::{Center, prefix};
use super::stream::XID;
use super::{RECEIVERS, TRIALS, pause};
use crate::process::{Server, program};

/// GPUs of each node: one for each trial on it.
const GPUS: usize = TRIALS / RECEIVERS;

/// After it an agent has enumerated its GPUs and waits for their events.
const START: Duration = Duration::from_secs(3);

/// From the moment that the library has an event to the request that tells of it. A node for each receiver.
pub(super) fn trials(center: &Center) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for n in 0..RECEIVERS {
        let dir = center.dir.path().join(format!("node-{n}"));
        fs::create_dir(&dir)?;
        let mut scenario = format!("gpus {GPUS}\nhost {n}\n");
        let fake = FakeNvml::install(&dir, &scenario);
        let mut command = program("entrenar-agent")?;
        command.args(["--aggregator", &center.grpc()?]);
        command.args(["--node", &format!("{}agent", prefix(n))]);
        command.args(["--listen", "127.0.0.1:0", "--spool-dir"]);
        command.arg(dir.join("spool"));
        command.arg("--nvml-lib").arg(fake.library());
        let agent = Server::start(command)?;
        sleep(START);
        for gpu in 0..GPUS {
            pause(n * GPUS + gpu);
            let _ = writeln!(scenario, "event {} gpu {gpu} xid {XID}", gpu + 1);
            let began = instant();
            fake.play(&scenario);
            let told = center.sink.await_post(&uuid(n as u32, gpu))?;
            times.push(told.saturating_duration_since(began));
        }
        agent.stop()?;
    }
    Ok(times)
}
