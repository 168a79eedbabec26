//! Logs go to standard error, as text or as JSON.

use crate::config::LogFormat;

/// Installs the subscriber of this process. Call it once, before anything is logged.
pub fn init(format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would say on standard error that standard error takes nothing, and panic: the disk of a log may be full.
        .log_internal_errors(false)
        .with_max_level(tracing::Level::INFO)
        .with_target(false);
    match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
