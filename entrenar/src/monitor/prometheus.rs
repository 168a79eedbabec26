//! The page's exporter: this node's GPUs on an HTTP port, for Prometheus to scrape.
//!
//! One label, `device`, and no timestamps. Whose node it is, Prometheus knows from where it scraped; the fleet's
//! endpoint is the aggregator's.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::gpu::{AlertConfig, AndonSystem, GpuAlert, GpuError, GpuMonitor, GpuReading};
use super::http::{self, Response, Status, Stopper};
use crate::expose::{self, LabelText, Page};
use crate::gpu::Values;
use crate::metric::Kind;

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The GPUs could not be listed or read.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// One exporter shows one node.
    #[error("this exporter has its GPU metrics already: make another exporter for another monitor")]
    AlreadyRegistered,
    /// The prefix would make names that Prometheus refuses.
    #[error(
        "{prefix:?} cannot begin the name of a metric: use letters, digits and _, no digit first"
    )]
    BadPrefix {
        /// What was asked for.
        prefix: String,
    },
    /// Someone else listens there.
    #[error("port {} is in use on {}: stop what listens there, or choose another port", addr.port(), addr.ip())]
    PortInUse {
        /// Where to listen.
        addr: SocketAddr,
    },
    /// The address is not this machine's, or the port is not for this user.
    #[error("cannot listen on {addr}")]
    Listen {
        /// Where to listen.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The serving thread could not be started, or died.
    #[error("the metrics server's thread failed: {reason}")]
    Thread {
        /// What happened.
        reason: String,
    },
}

/// Serves a monitor's GPUs at `/metrics`, read afresh at each scrape.
///
/// Every metric of the catalogue that a GPU reports is there as `PREFIX_gpu_NAME{device="N"}`, beside
/// `PREFIX_gpu_info`, `PREFIX_gpu_up`, `PREFIX_gpu_read_errors_total` and, while an alert stands,
/// `PREFIX_gpu_alert_severity`. What a GPU does not report has no line.
///
/// The server runs on threads of its own until it is shut down or the exporter is dropped.
#[derive(Debug)]
pub struct PrometheusExporter {
    prefix: String,
    port: u16,
    bind_addr: IpAddr,
    alert_config: AlertConfig,
    source: Arc<Mutex<Option<Source>>>,
    servers: Mutex<Vec<Stopper>>,
}

impl Default for PrometheusExporter {
    fn default() -> Self {
        Self {
            prefix: "entrenar".to_owned(),
            port: 9090,
            bind_addr: Ipv4Addr::LOCALHOST.into(),
            alert_config: AlertConfig::default(),
            source: Arc::default(),
            servers: Mutex::default(),
        }
    }
}

impl PrometheusExporter {
    /// Names begin with `entrenar`; port 9090 on the loopback interface.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the metrics' names begin with.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// The TCP port; 0 takes a free one, which the [`ServerHandle`] tells.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The address to listen on: `0.0.0.0` for all interfaces. There is no TLS and no password, which is why it is
    /// 127.0.0.1 unless this says otherwise.
    #[must_use]
    pub fn with_bind_addr(mut self, addr: IpAddr) -> Self {
        self.bind_addr = addr;
        self
    }

    /// Thresholds of the alerts that are shown.
    #[must_use]
    pub fn with_alert_config(mut self, config: AlertConfig) -> Self {
        self.alert_config = config;
        self
    }

    /// Shows this monitor's GPUs. Fails if they cannot be listed.
    pub fn register_gpu_metrics(&self, monitor: &GpuMonitor) -> Result<(), ExportError> {
        if lock(&self.source).is_some() {
            return Err(ExportError::AlreadyRegistered);
        }
        monitor.inventory()?;
        *lock(&self.source) = Some(Source {
            monitor: monitor.clone(),
            andon: AndonSystem::with_config(self.alert_config),
            n_read_errors: BTreeMap::new(),
        });
        Ok(())
    }

    /// The page as it is now.
    pub fn export(&self) -> Result<String, ExportError> {
        Ok(export(&self.prefix, &self.source)?)
    }

    /// Listens, and serves from a thread. When this returns, the port is bound.
    pub fn start(&self) -> Result<ServerHandle, ExportError> {
        if !expose::is_metric_name(&self.prefix) {
            let prefix = self.prefix.clone();
            return Err(ExportError::BadPrefix { prefix });
        }
        let listener = listen(SocketAddr::new(self.bind_addr, self.port))?;
        let (prefix, source) = (self.prefix.clone(), self.source.clone());
        let (stopper, thread) = http::serve(listener, move |path| respond(path, &prefix, &source))
            .map_err(|e| ExportError::Thread {
                reason: e.to_string(),
            })?;
        lock(&self.servers).push(stopper.clone());
        Ok(ServerHandle { stopper, thread })
    }

    /// Listens and serves for as long as the process lives: for command lines.
    pub fn serve(&self) -> Result<(), ExportError> {
        self.start()?.join()
    }
}

impl Drop for PrometheusExporter {
    fn drop(&mut self) {
        for server in lock(&self.servers).iter() {
            server.stop();
        }
    }
}

/// A server that runs. Letting go of the handle does not stop it.
#[derive(Debug)]
pub struct ServerHandle {
    stopper: Stopper,
    thread: JoinHandle<()>,
}

impl ServerHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.stopper.addr()
    }

    /// Takes no more connections.
    pub fn shutdown(&self) {
        self.stopper.stop();
    }

    /// Waits until it was shut down.
    pub fn join(self) -> Result<(), ExportError> {
        self.thread.join().map_err(|_| ExportError::Thread {
            reason: "it panicked".to_owned(),
        })
    }
}

/// What is shown, and what is remembered between scrapes.
#[derive(Debug)]
struct Source {
    monitor: GpuMonitor,
    andon: AndonSystem,
    /// By device: reads without an answer.
    n_read_errors: BTreeMap<u32, u64>,
}

fn listen(addr: SocketAddr) -> Result<TcpListener, ExportError> {
    TcpListener::bind(addr).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ExportError::PortInUse { addr },
        _ => ExportError::Listen { addr, source },
    })
}

fn respond(path: &str, prefix: &str, source: &Mutex<Option<Source>>) -> Response {
    if path != "/metrics" {
        return Response::text(Status::NotFound, "there is only /metrics here");
    }
    match export(prefix, source) {
        Ok(body) => Response {
            status: Status::Ok,
            content_type: expose::CONTENT_TYPE,
            body,
        },
        // Prometheus then shows the target as down, with this status as the reason.
        Err(error) => Response::text(Status::Unavailable, error.to_string()),
    }
}

fn export(prefix: &str, source: &Mutex<Option<Source>>) -> Result<String, GpuError> {
    let mut source = lock(source);
    let Some(source) = source.as_mut() else {
        return Ok(String::new());
    };
    let readings = source.monitor.collect_readings()?;
    let alerts = source.andon.check_readings(&readings);
    for reading in &readings {
        *source.n_read_errors.entry(reading.info.index).or_default() +=
            u64::from(reading.values.is_err());
    }
    Ok(page(prefix, &readings, &alerts, &source.n_read_errors))
}

/// The page of one moment.
fn page(
    prefix: &str,
    readings: &[GpuReading],
    alerts: &[GpuAlert],
    n_read_errors: &BTreeMap<u32, u64>,
) -> String {
    let device = |index: u32| LabelText::new([("device", index.to_string().as_str())]);
    let silent = Values::default();
    let labels: Vec<_> = readings.iter().map(|r| device(r.info.index)).collect();
    let values = readings
        .iter()
        .map(|r| r.values.as_ref().unwrap_or(&silent));
    let rows: Vec<_> = labels.iter().zip(values).collect();

    let mut page = Page::default();
    page.gpu_metrics(prefix, &rows);

    let name = format!("{prefix}_gpu_info");
    let mut family = page.family(&name, Kind::Gauge, "What the GPU is.");
    for (labels, reading) in labels.iter().zip(readings) {
        let info = &reading.info;
        let labels = labels
            .clone()
            .with("name", &info.name)
            .with("uuid", info.uuid.as_str());
        family.sample(&labels, 1.0);
    }
    let name = format!("{prefix}_gpu_up");
    let mut family = page.family(&name, Kind::Gauge, "1 when the GPU answered this scrape.");
    for (labels, reading) in labels.iter().zip(readings) {
        family.sample(labels, f64::from(u8::from(reading.values.is_ok())));
    }
    let name = format!("{prefix}_gpu_read_errors_total");
    let mut family = page.family(&name, Kind::Counter, "Scrapes that the GPU did not answer.");
    for (index, n) in n_read_errors {
        family.sample(&device(*index), *n as f64);
    }
    let name = format!("{prefix}_gpu_alert_severity");
    let mut family = page.family(
        &name,
        Kind::Gauge,
        "Severity, up to 100, of each alert that stands.",
    );
    for alert in alerts {
        let labels = device(alert.device()).with("kind", alert.kind());
        family.sample(&labels, f64::from(alert.severity()));
    }
    page.into_text()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A scrape that panicked leaves at most one count out.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::monitor::gpu::MockGpuBackend;

    /// A GPU that reports all but its utilization, beside one that is lost.
    fn exporter() -> PrometheusExporter {
        let mock = MockGpuBackend::new()
            .with_device(0, "Mock \"A\"")
            .with_temperature(83)
            .with_memory(8 << 30, 16 << 30)
            .with_power(250.5, 700.0)
            .with_device(1, "Mock B")
            .with_failure(GpuError::Lost { device: 1 });
        let exporter = PrometheusExporter::new().with_port(0);
        exporter
            .register_gpu_metrics(&GpuMonitor::with_backend(mock))
            .expect("it lists its GPUs");
        exporter
    }

    fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\n\r\n").expect("it takes the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    #[test]
    fn the_page_has_what_the_gpus_report_and_no_line_for_what_they_do_not() {
        let exporter = exporter().with_prefix("x");
        exporter.export().expect("the first scrape");
        let page = exporter.export().expect("the second");
        let lines: Vec<_> = page.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"x_gpu_temperature_celsius{device="0"} 83"#,
                r#"x_gpu_memory_used_bytes{device="0"} 8589934592"#,
                r#"x_gpu_memory_total_bytes{device="0"} 17179869184"#,
                r#"x_gpu_power_watts{device="0"} 250.5"#,
                r#"x_gpu_power_limit_watts{device="0"} 700"#,
                r#"x_gpu_info{device="0",name="Mock \"A\"",uuid="GPU-00000000-0000-0000-0000-000000000000"} 1"#,
                r#"x_gpu_info{device="1",name="Mock B",uuid="GPU-00000000-0000-0000-0000-000000000001"} 1"#,
                r#"x_gpu_up{device="0"} 1"#,
                r#"x_gpu_up{device="1"} 0"#,
                r#"x_gpu_read_errors_total{device="0"} 0"#,
                r#"x_gpu_read_errors_total{device="1"} 2"#,
                r#"x_gpu_alert_severity{device="0",kind="thermal_throttling"} 53"#,
            ]
        );
    }

    #[test]
    fn the_server_outlives_its_handle_and_ends_with_the_exporter() {
        let exporter = exporter();
        let addr = exporter.start().expect("it starts").local_addr();
        let metrics = get(addr, "/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
        assert!(metrics.contains("\nentrenar_gpu_temperature_celsius{device=\"0\"} 83\n"));
        assert!(get(addr, "/").starts_with("HTTP/1.1 404 "));

        let handle = exporter.start().expect("a second one, on another port");
        drop(exporter);
        handle.join().expect("it ended");
    }

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let exporter = exporter();
        let port = exporter.start().expect("it starts").local_addr().port();
        let error = PrometheusExporter::new()
            .with_port(port)
            .start()
            .expect_err("it is taken");
        assert!(matches!(error, ExportError::PortInUse { addr } if addr.port() == port));
        let text = error.to_string();
        assert!(
            text.contains(&port.to_string()) && text.contains("choose another port"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        let bad = PrometheusExporter::new().with_prefix("9-lives").start();
        assert!(matches!(bad, Err(ExportError::BadPrefix { .. })));
        let twice = exporter();
        let monitor = GpuMonitor::with_backend(MockGpuBackend::demo(1));
        let again = twice.register_gpu_metrics(&monitor);
        assert!(matches!(again, Err(ExportError::AlreadyRegistered)));
    }
}
