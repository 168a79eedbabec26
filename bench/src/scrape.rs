//! What one scrape of `/metrics` costs the aggregator at 512 GPUs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;

use crate::generator::Generator;
use crate::load::Plan;
use crate::process::{Server, aggregator, raise_file_limit};
use crate::report::Section;

const AGENTS: u32 = 64;
const SCRAPES: u32 = 200;

/// Scrapes again and again; what the load alone costs is taken off.
pub fn run() -> Result<()> {
    raise_file_limit()?;
    let dir = tempfile::tempdir_in(".")?;
    let server = Server::start(aggregator(dir.path().to_path_buf())?)?;
    let grpc = server.address("grpc")?.to_owned();
    let plan = Plan {
        grpc,
        agents: AGENTS,
        interval_ms: 1000,
        batch_ticks: 1,
        nodes: 8,
        ticks: 60,
    };
    let load = Generator::start(&plan)?;
    std::thread::sleep(Duration::from_secs(15));
    let idle = cpu_during(&server, || {
        std::thread::sleep(Duration::from_secs(10));
        Ok(0)
    })?;
    let idle_share = idle.0.as_secs_f64() / idle.1.as_secs_f64();
    let http = server.address("http")?.to_owned();
    let busy = cpu_during(&server, || {
        let mut bytes = 0;
        for _ in 0..SCRAPES {
            bytes = scrape(&http)?;
        }
        Ok(bytes)
    })?;
    load.stop()?;
    let own = busy.0.as_secs_f64() - idle_share * busy.1.as_secs_f64();
    let mut section = Section::default();
    section.say(format!(
        "{SCRAPES} scrapes of an aggregator with {AGENTS} live nodes, {} GPUs.",
        AGENTS * 8
    ));
    section.table(
        ["what", "measured", "goal"],
        &[
            [
                "CPU a scrape".into(),
                format!("{:.2} ms", own * 1e3 / f64::from(SCRAPES)),
                "≤ 15 ms".into(),
            ],
            [
                "page".into(),
                format!("{:.2} MB", busy.2 as f64 / 1e6),
                String::new(),
            ],
        ],
    );
    section.publish("scrape")
}

/// CPU that the server used meanwhile, how long it took, and what came back.
fn cpu_during(
    server: &Server,
    work: impl FnOnce() -> Result<usize>,
) -> Result<(Duration, Duration, usize)> {
    let (began, before) = (entrenar::clock::instant(), server.usage()?.cpu());
    let found = work()?;
    Ok((
        server.usage()?.cpu().saturating_sub(before),
        began.elapsed(),
        found,
    ))
}

fn scrape(http: &str) -> Result<usize> {
    let mut tcp = TcpStream::connect(http)?;
    write!(
        tcp,
        "GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n"
    )?;
    let mut page = Vec::new();
    tcp.read_to_end(&mut page)?;
    anyhow::ensure!(page.starts_with(b"HTTP/1.1 200"), "the scrape was refused");
    Ok(page.len())
}
