//! A real agent over the fake NVML: what it costs a GPU host.

use std::time::Duration;

use anyhow::{Context, Result};
use fake_nvml::harness::FakeNvml;

use crate::process::{Server, aggregator, program};
use crate::report::Section;

const GPUS: u32 = 8;
const MEASURED: Duration = Duration::from_mins(1);

/// Eight GPUs once a second, for a minute.
pub fn run() -> Result<()> {
    let dir = tempfile::tempdir_in(".")?;
    let fake = FakeNvml::install(dir.path(), "");
    let spent = fake.spent_file();
    fake.play(&format!("gpus {GPUS}\nspent {}\n", spent.display()));
    let center = Server::start(aggregator(dir.path().join("data"))?)?;
    let mut command = program("entrenar-agent")?;
    command
        .args([
            "--aggregator",
            &format!("http://{}", center.address("grpc")?),
        ])
        .args(["--node", "bench", "--listen", "127.0.0.1:0", "--spool-dir"])
        .arg(dir.path().join("spool"))
        .arg("--nvml-lib")
        .arg(fake.library());
    let agent = Server::start(command)?;
    std::thread::sleep(Duration::from_secs(10));
    let (before, driver_before) = (agent.usage()?, fake.spent()?);
    std::thread::sleep(MEASURED);
    let (after, driver_after) = (agent.usage().context("the agent ended")?, fake.spent()?);
    let whole = after.cpu().saturating_sub(before.cpu());
    let driver = driver_after.saturating_sub(driver_before);
    let mut section = Section::default();
    section.say(format!(
        "The release agent over a shared library that plays NVML's part, {GPUS} GPUs at 1 Hz for {} s, connected, with \
         its spool on disk. The library counts the CPU time of its threads inside its calls; the agent's own is \
         the rest of the process, the kernel's work for it included. A real driver adds its own time, about 0.1 ms a \
         call.",
        MEASURED.as_secs()
    ));
    section.table(
        ["what", "measured", "goal"],
        &[
            [
                "CPU of its own code, share of a core".into(),
                format!("**{}**", share(whole.saturating_sub(driver))),
                "≤ 0.3 %".into(),
            ],
            [
                "CPU inside the library that plays NVML".into(),
                share(driver),
                "–".into(),
            ],
            [
                "resident memory (peak)".into(),
                format!(
                    "{:.1} MiB ({:.1} MiB)",
                    mib(after.rss_bytes),
                    mib(after.peak_rss_bytes)
                ),
                "≤ 20 MiB".into(),
            ],
        ],
    );
    section.publish("agent")
}

fn share(cpu: Duration) -> String {
    let share = cpu.as_secs_f64() / MEASURED.as_secs_f64();
    format!("{:.3} %", share * 100.0)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
