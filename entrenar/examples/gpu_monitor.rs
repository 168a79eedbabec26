//! Watches this node's GPUs in the terminal, as JSON lines, or as a target for Prometheus.
//!
//! ```bash
//! cargo run --example gpu_monitor -- --help
//! ```

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use entrenar::clock;
use entrenar::metric::{MEMORY_TOTAL, MEMORY_USED, POWER, POWER_LIMIT, TEMPERATURE, UTILIZATION};
use entrenar::monitor::gpu::{
    AndonSystem, GpuAlert, GpuError, GpuMonitor, GpuReading, MockGpuBackend, sparkline_scaled,
};
use entrenar::monitor::prometheus::{ExportError, PrometheusExporter};
use serde_json::{Value, json};

const HELP: &str = "\
Watches this node's GPUs.

Usage: cargo run --example gpu_monitor -- [OPTIONS]

  --interval SECONDS  between samples, at least 1 (5)
  --count N           end after N samples
  --json              a JSON object for each sample, a line each
  --prometheus        serve the metrics at http://ADDR:PORT/metrics
  --port PORT         for --prometheus; 0 takes a free one (9090)
  --bind ADDR         for --prometheus; 0.0.0.0 for all interfaces (127.0.0.1)
  --mock              two made-up GPUs instead of the driver's
  --help              this text

ENTRENAR_GPU_BACKEND=nvml|mock|mock:N chooses the GPUs, ENTRENAR_NVML_LIB=PATH the NVML library.
";

/// Samples that a sparkline shows.
const HISTORY: usize = 30;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}\nhint: without a GPU, --mock shows two made-up ones")]
    NoGpus(GpuError),
    #[error("the driver lists no GPUs\nhint: --mock shows two made-up ones")]
    EmptyNode,
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

struct Options {
    interval: Duration,
    count: Option<u64>,
    json: bool,
    prometheus: bool,
    port: u16,
    bind: IpAddr,
    mock: bool,
}

impl Options {
    /// `None`: the user asks for help.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            interval: Duration::from_secs(5),
            count: None,
            json: false,
            prometheus: false,
            port: 9090,
            bind: IpAddr::from([127, 0, 0, 1]),
            mock: false,
        };
        while let Some(arg) = args.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let takes_value = matches!(flag, "--interval" | "--count" | "--port" | "--bind");
            if inline.is_some() && !takes_value {
                return Err(format!("{arg} is not an option"));
            }
            let mut value = || inline.clone().or_else(|| args.next());
            match flag {
                "--interval" => options.interval = Duration::from_secs(positive(flag, value())?),
                "--count" => options.count = Some(positive(flag, value())?),
                "--port" => options.port = parse(flag, value(), "a port from 0 to 65535")?,
                "--bind" => options.bind = parse(flag, value(), "an IP address")?,
                "--json" => options.json = true,
                "--prometheus" => options.prometheus = true,
                "--mock" => options.mock = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("{arg} is not an option")),
            }
        }
        Ok(Some(options))
    }
}

fn positive(flag: &str, value: Option<String>) -> Result<u64, String> {
    let number: std::num::NonZeroU64 = parse(flag, value, "a whole number of at least 1")?;
    Ok(number.get())
}

fn parse<T: std::str::FromStr>(flag: &str, value: Option<String>, what: &str) -> Result<T, String> {
    value
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{flag} needs {what}"))
}

fn run(options: &Options) -> Result<(), Failure> {
    let monitor = if options.mock {
        GpuMonitor::with_backend(MockGpuBackend::demo(2))
    } else {
        GpuMonitor::new().map_err(Failure::NoGpus)?
    };
    if monitor.inventory().map_err(Failure::NoGpus)?.is_empty() {
        return Err(Failure::EmptyNode);
    }
    if options.prometheus {
        serve(options, &monitor)
    } else {
        watch(options, &monitor)
    }
}

/// Serves until killed, or for `--count` intervals.
fn serve(options: &Options, monitor: &GpuMonitor) -> Result<(), Failure> {
    let exporter = PrometheusExporter::new()
        .with_port(options.port)
        .with_bind_addr(options.bind);
    exporter.register_gpu_metrics(monitor)?;
    let server = exporter.start()?;
    writeln!(io::stdout(), "ready http={}", server.local_addr())?;
    match options.count {
        None => server.join()?,
        Some(count) => {
            for _ in 0..count {
                std::thread::sleep(options.interval);
            }
        }
    }
    Ok(())
}

/// Shows sample after sample.
fn watch(options: &Options, monitor: &GpuMonitor) -> Result<(), Failure> {
    let andon = AndonSystem::default();
    let mut history = History::default();
    let mut n_samples = 0;
    loop {
        let readings = monitor.collect_readings()?;
        let alerts = andon.check_readings(&readings);
        if options.json {
            writeln!(io::stdout(), "{}", as_json(&readings, &alerts))?;
        } else {
            show(&readings, &mut history)?;
            for alert in &alerts {
                eprintln!("ALERT [severity {}]: {}", alert.severity(), alert.message());
            }
        }
        n_samples += 1;
        if options.count == Some(n_samples) {
            return Ok(());
        }
        std::thread::sleep(options.interval);
    }
}

/// Recent utilization by device; `None` where a GPU did not say.
#[derive(Default)]
struct History(HashMap<u32, VecDeque<Option<f64>>>);

impl History {
    /// Takes in a value and draws what is known.
    fn draw(&mut self, device: u32, utilization: Option<f64>) -> String {
        let values = self.0.entry(device).or_default();
        if values.len() == HISTORY {
            values.pop_front();
        }
        values.push_back(utilization);
        sparkline_scaled(values.make_contiguous(), 0.0, 100.0)
    }
}

fn show(readings: &[GpuReading], history: &mut History) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for GpuReading { info, values } in readings {
        let device = info.index;
        let values = match values {
            Ok(values) => values,
            Err(error) => {
                writeln!(out, "GPU {device}: no answer: {error}")?;
                continue;
            }
        };
        let told = |metric, decimals: usize, per: f64| {
            let value = values
                .display(metric)
                .map(|v| format!("{:.decimals$}", v / per));
            value.unwrap_or_else(|| "?".to_owned())
        };
        writeln!(
            out,
            "GPU {device}: {}°C, {}% util, {} GB / {} GB, {} W / {} W  {}  {}",
            told(TEMPERATURE, 0, 1.0),
            told(UTILIZATION, 0, 1.0),
            told(MEMORY_USED, 1, 1e9),
            told(MEMORY_TOTAL, 1, 1e9),
            told(POWER, 0, 1.0),
            told(POWER_LIMIT, 0, 1.0),
            history.draw(device, values.display(UTILIZATION)),
            info.name,
        )?;
    }
    Ok(())
}

/// What is unknown is `null`.
fn as_json(readings: &[GpuReading], alerts: &[GpuAlert]) -> Value {
    let gpus: Vec<_> = readings.iter().map(gpu_as_json).collect();
    let alerts: Vec<_> = alerts
        .iter()
        .map(|alert| {
            json!({
                "device": alert.device(),
                "kind": alert.kind(),
                "severity": alert.severity(),
                "level": alert.level(),
                "message": alert.message(),
            })
        })
        .collect();
    json!({ "at": clock::now().rfc3339(), "gpus": gpus, "alerts": alerts })
}

fn gpu_as_json(reading: &GpuReading) -> Value {
    let values = reading.values.as_ref().ok();
    let whole = |metric| values.and_then(|v| v.get(metric));
    let watts = |metric| values.and_then(|v| v.display(metric));
    json!({
        "device_id": reading.info.index,
        "name": reading.info.name,
        "uuid": reading.info.uuid,
        "temperature_celsius": whole(TEMPERATURE),
        "utilization_percent": whole(UTILIZATION),
        "memory_used_bytes": whole(MEMORY_USED),
        "memory_total_bytes": whole(MEMORY_TOTAL),
        "power_watts": watts(POWER),
        "power_limit_watts": watts(POWER_LIMIT),
        "error": reading.values.as_ref().err().map(ToString::to_string),
    })
}
