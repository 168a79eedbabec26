//! Writes a trace, row by row. *(edge)*

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::column::{self, Column};
use super::number::write_scaled;
use super::read::PROCESS_STATES;
use super::{Row, TraceError};
use crate::metric::{self, NvmlStatus};

/// zstd's own default: four fifths of what the slow levels reach, at disk speed.
const ZSTD_LEVEL: i32 = 3;

/// Writes rows as a trace, every column that there is. Call [`finish`](Self::finish) at the end: a compressed file
/// without its end cannot be read whole.
pub struct TraceWriter {
    sink: Sink,
    line: Vec<u8>,
}

enum Sink {
    Plain(Box<dyn Write + Send>),
    Gzip(flate2::write::GzEncoder<Box<dyn Write + Send>>),
    Zstd(zstd::Encoder<'static, Box<dyn Write + Send>>),
}

impl TraceWriter {
    /// Makes a trace file; its name decides about compression: `.gz`, `.zst`, else plain.
    pub fn create(path: &Path) -> Result<Self, TraceError> {
        let open = |source| TraceError::Open {
            path: path.to_owned(),
            source,
        };
        let file: Box<dyn Write + Send> =
            Box::new(BufWriter::new(File::create(path).map_err(open)?));
        let sink = match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Sink::Gzip(flate2::write::GzEncoder::new(
                file,
                flate2::Compression::default(),
            )),
            Some("zst") => Sink::Zstd(zstd::Encoder::new(file, ZSTD_LEVEL).map_err(open)?),
            _ => Sink::Plain(file),
        };
        Self::onto(sink)
    }

    /// Writes a plain trace to anywhere.
    pub fn new(sink: impl Write + Send + 'static) -> Result<Self, TraceError> {
        Self::onto(Sink::Plain(Box::new(sink)))
    }

    /// Writes a trace to anywhere, compressed with gzip: on a wire, where speed goes before size.
    pub fn gzip(sink: impl Write + Send + 'static) -> Result<Self, TraceError> {
        let level = flate2::Compression::fast();
        Self::onto(Sink::Gzip(flate2::write::GzEncoder::new(
            Box::new(sink),
            level,
        )))
    }

    fn onto(sink: Sink) -> Result<Self, TraceError> {
        let names: Vec<&str> = column::all().map(|(name, _)| name).collect();
        let mut writer = Self {
            sink,
            line: names.join(",").into_bytes(),
        };
        writer.write_line()?;
        Ok(writer)
    }

    /// Writes one row.
    pub fn write(&mut self, row: &Row) -> Result<(), TraceError> {
        self.line.clear();
        for (n, (_, column)) in column::all().enumerate() {
            if n > 0 {
                self.line.push(b',');
            }
            write_cell(&mut self.line, row, column);
        }
        self.write_line()
    }

    fn write_line(&mut self) -> Result<(), TraceError> {
        self.line.push(b'\n');
        let written = match &mut self.sink {
            Sink::Plain(sink) => sink.write_all(&self.line),
            Sink::Gzip(sink) => sink.write_all(&self.line),
            Sink::Zstd(sink) => sink.write_all(&self.line),
        };
        written.map_err(|source| TraceError::Write { source })
    }

    /// Writes the end of the file and everything that still waits.
    pub fn finish(self) -> Result<(), TraceError> {
        let finish = || -> io::Result<()> {
            match self.sink {
                Sink::Plain(sink) => Ok(sink),
                Sink::Gzip(sink) => sink.finish(),
                Sink::Zstd(sink) => sink.finish(),
            }?
            .flush()
        };
        finish().map_err(|source| TraceError::Write { source })
    }
}

fn write_cell(out: &mut Vec<u8>, row: &Row, column: Column) {
    match column {
        Column::Metric(id, scale) => {
            if let Some(value) = row.values.get(id) {
                write_scaled(out, value, scale);
            }
        }
        Column::Time => write_scaled(out, row.time.0, 1000),
        Column::Node => write_text(out, row.node.as_str()),
        Column::Gpu => write_number(out, row.gpu.map(i64::from)),
        Column::Uuid => write_text(out, row.uuid.as_ref().map_or("", |uuid| uuid.as_str())),
        Column::Model => write_text(out, row.model.as_deref().unwrap_or("")),
        Column::Job => write_text(out, row.job.as_deref().unwrap_or("")),
        Column::JobKind => write_text(out, row.job_kind.name()),
        Column::RankGroup => write_text(out, row.rank_group.as_deref().unwrap_or("")),
        Column::Status => {
            let status = row
                .values
                .get(metric::NVML_STATUS)
                .and_then(NvmlStatus::from_code);
            write_text(out, status.map_or("", NvmlStatus::name));
        }
        Column::ProcessState => {
            let code = row
                .values
                .get(metric::PROCESS_STATE)
                .map(|code| code as usize);
            out.extend(code.and_then(|code| PROCESS_STATES.get(code)));
        }
        Column::Xid => write_xids(out, &row.xids),
        Column::Rack => write_text(out, row.rack.as_deref().unwrap_or("")),
        Column::Switch => write_text(out, row.switch.as_deref().unwrap_or("")),
        Column::PowerFeed => write_text(out, row.power_feed.as_deref().unwrap_or("")),
        Column::Arrived => {
            if let Some(arrived) = row.arrived {
                write_scaled(out, arrived.0, 1000);
            }
        }
        Column::Interval => {
            if let Some(interval) = row.interval {
                write_scaled(out, interval.as_millis() as i64, 1000);
            }
        }
        Column::Event => write_text(out, row.event.map_or("", |event| event.name())),
        // A writer writes its own columns alone.
        Column::Mebibytes(_) | Column::Bits(_) | Column::Unknown => {}
    }
}

fn write_number(out: &mut Vec<u8>, number: Option<i64>) {
    if let Some(number) = number {
        write_scaled(out, number, 1);
    }
}

fn write_xids(out: &mut Vec<u8>, xids: &[u64]) {
    for (n, xid) in xids.iter().enumerate() {
        if n > 0 {
            out.push(b';');
        }
        write_scaled(out, i64::try_from(*xid).unwrap_or(i64::MAX), 1);
    }
}

/// A text as a cell. A line break in it becomes a space: a row is one line.
fn write_text(out: &mut Vec<u8>, text: &str) {
    let needs_quotes = text.contains([',', '"']);
    if needs_quotes {
        out.push(b'"');
    }
    for byte in text.bytes() {
        match byte {
            b'\n' | b'\r' => out.push(b' '),
            b'"' => out.extend(b"\"\""),
            byte => out.push(byte),
        }
    }
    if needs_quotes {
        out.push(b'"');
    }
}
