//! Reads a trace as a stream of rows, at any length, in bounded memory. *(edge)*

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::column::{Column, Dialect, Header, parse_header};
use super::line::{Cells, LONGEST_LINE, Line, Lines, header_names};
use super::number::parse_scaled;
use super::{Block, Entry, Row, TextId, TextList, TraceError, TraceEvent};
use crate::metric::{self, MetricId, NvmlStatus};
use crate::report::JobKind;
use crate::unit::Timestamp;

/// Most different texts of a trace: a million GPUs with their uuid. A trace with more ends in an error.
const MOST_TEXTS: usize = 1 << 21;
/// What the one node of an nvidia-smi log is called.
const SMI_NODE: &str = "localhost";
/// More malformed rows than one in this many make a trace unusable.
const ONE_MALFORMED_IN: u64 = 100;

/// An iterator over the rows of a trace. A malformed row is an error that is not fatal: iterate on.
pub struct TraceReader {
    lines: Lines,
    header: Header,
    texts: Texts,
    /// Texts that a block has brought.
    told: usize,
    warnings: Vec<String>,
    rows: u64,
    malformed: u64,
    ended: bool,
}

impl TraceReader {
    /// Opens a trace, plain, gzip or zstd, by what its first bytes say.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let open = |source| TraceError::Open {
            path: path.to_owned(),
            source,
        };
        Self::new(File::open(path).map_err(open)?)
    }

    /// Reads a trace from anywhere, plain or compressed.
    pub fn new(source: impl Read + Send + 'static) -> Result<Self, TraceError> {
        let unreadable = |source| TraceError::Read { line: 0, source };
        let mut lines = Lines::new(source).map_err(unreadable)?;
        let first = loop {
            match lines.next_line()? {
                Line::End | Line::TooLong => return Err(TraceError::NoHeader),
                Line::Text if lines.text().trim_ascii().is_empty() => {}
                Line::Text => break lines.text().to_vec(),
            }
        };
        let names = header_names(&first).ok_or(TraceError::NoHeader)?;
        let header = parse_header(&names)?;
        let mut warnings = Vec::new();
        if !header.unknown.is_empty() {
            let unknown = header.unknown.join(", ");
            warnings.push(format!(
                "columns that mean nothing here are ignored: {unknown}"
            ));
        }
        Ok(Self {
            lines,
            texts: Texts::new(header.columns.len()),
            header,
            told: 1,
            warnings,
            rows: 0,
            malformed: 0,
            ended: false,
        })
    }

    /// What is odd about the trace without making it unusable: each thing once. Grows while rows are read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Rows so far, malformed ones among them.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows so far that could not be read.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Fills a block with up to `most` further rows. False when there are no more; an error ends the reading.
    pub fn read_block(&mut self, block: &mut Block, most: usize) -> Result<bool, TraceError> {
        block.clear();
        let read = self.fill(block, most);
        block
            .texts
            .extend_from_slice(self.texts.list.since(self.told));
        self.told = self.texts.list.len();
        self.ended |= !matches!(read, Ok(true));
        read
    }

    fn fill(&mut self, block: &mut Block, most: usize) -> Result<bool, TraceError> {
        while block.entries.len() < most {
            if self.ended {
                return Ok(false);
            }
            block.entries.push(Entry::default());
            let Some(entry) = block.entries.last_mut() else {
                break;
            };
            let read = self.next_entry(entry, &mut block.xids);
            if !matches!(read, Ok(true)) {
                block.entries.pop();
            }
            match read {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => block.malformed.push(error),
            }
        }
        Ok(true)
    }

    /// Reads a row into an empty entry. False: there are no more.
    fn next_entry(&mut self, entry: &mut Entry, xids: &mut Vec<u64>) -> Result<bool, TraceError> {
        loop {
            match self.lines.next_line()? {
                Line::End => return self.end(),
                Line::TooLong => {
                    self.rows += 1;
                    return Err(self.skip(format!("the line is longer than {LONGEST_LINE} bytes")));
                }
                Line::Text if self.lines.text().trim_ascii().is_empty() => {}
                Line::Text => {
                    self.rows += 1;
                    let mut decoder = Decoder {
                        header: &self.header,
                        texts: &mut self.texts,
                        warnings: &mut self.warnings,
                        xids,
                    };
                    let read = decoder.row(self.lines.text(), entry);
                    if MOST_TEXTS <= self.texts.list.len() {
                        return Err(TraceError::TooManyTexts { most: MOST_TEXTS });
                    }
                    return match read {
                        Ok(()) => Ok(true),
                        Err(reason) => Err(self.skip(reason)),
                    };
                }
            }
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        let (mut entry, mut xids) = (Entry::default(), Vec::new());
        let there = self.next_entry(&mut entry, &mut xids)?;
        Ok(there.then(|| self.texts.list.row(&entry, &xids)))
    }

    fn skip(&mut self, reason: String) -> TraceError {
        self.malformed += 1;
        TraceError::Malformed {
            line: self.lines.number,
            reason,
        }
    }

    fn end(&self) -> Result<bool, TraceError> {
        if self.malformed * ONE_MALFORMED_IN > self.rows {
            return Err(TraceError::TooManyMalformed {
                malformed: self.malformed,
                rows: self.rows,
            });
        }
        Ok(false)
    }
}

impl Iterator for TraceReader {
    type Item = Result<Row, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_row().transpose();
        self.ended = match &next {
            None => true,
            Some(Err(error)) => error.is_fatal(),
            Some(Ok(_)) => false,
        };
        next
    }
}

/// Texts that come again and again, numbered.
struct Texts {
    numbers: HashMap<Box<[u8]>, TextId>,
    list: TextList,
    /// By column: the latest text.
    latest: Vec<TextId>,
    /// By text: the one that came after it in its column, the last time. Nodes and GPUs come round in the same order.
    after: Vec<TextId>,
}

impl Texts {
    fn new(columns: usize) -> Self {
        Self {
            numbers: HashMap::new(),
            list: TextList::default(),
            latest: vec![TextId::NONE; columns],
            after: vec![TextId::NONE],
        }
    }

    /// The number of a cell of a column. It is not empty.
    fn get(&mut self, column: usize, cell: &[u8]) -> Result<TextId, String> {
        let latest = self.latest[column];
        if self.is(latest, cell) {
            return Ok(latest);
        }
        let expected = self.after[latest.0 as usize];
        let id = if self.is(expected, cell) {
            expected
        } else {
            self.look_up(cell)?
        };
        self.after[latest.0 as usize] = id;
        self.latest[column] = id;
        Ok(id)
    }

    fn is(&self, id: TextId, cell: &[u8]) -> bool {
        self.list.get(id).as_bytes() == cell
    }

    fn look_up(&mut self, cell: &[u8]) -> Result<TextId, String> {
        if let Some(id) = self.numbers.get(cell) {
            return Ok(*id);
        }
        let text: Arc<str> = std::str::from_utf8(cell)
            .map_err(|_| "a text is not UTF-8")?
            .into();
        let id = self.list.push(text);
        self.after.push(TextId::NONE);
        self.numbers.insert(cell.into(), id);
        Ok(id)
    }
}

/// Turns a line into a row.
struct Decoder<'a> {
    header: &'a Header,
    texts: &'a mut Texts,
    warnings: &'a mut Vec<String>,
    xids: &'a mut Vec<u64>,
}

impl Decoder<'_> {
    fn row(&mut self, line: &[u8], row: &mut Entry) -> Result<(), String> {
        let header = self.header;
        let is_trace = header.dialect == Dialect::Trace;
        let (mut timed, mut named) = (false, !is_trace);
        if named {
            row.node = self.texts.look_up(SMI_NODE.as_bytes())?;
        }
        let mut cells = Cells { rest: Some(line) };
        let mut unquoted = Vec::new();
        for (n, column) in header.columns.iter().enumerate() {
            // Most cells are numbers, plainly written.
            if let Column::Metric(id, scale) = *column
                && let Some(number) = cells.plain_number(scale)
            {
                row.values.set(id, number);
                continue;
            }
            let cell = cells.next(&mut unquoted)?;
            let mut cell = cell.ok_or_else(|| self.wrong_width())?;
            if !is_trace {
                cell = smi_cell(cell, *column);
            }
            if cell.is_empty() {
                continue;
            }
            timed |= *column == Column::Time;
            named |= *column == Column::Node;
            self.cell(row, (n, *column), cell)?;
        }
        if cells.rest.is_some() {
            return Err(self.wrong_width());
        }
        match (timed, named) {
            (false, _) => Err("the time is missing".to_owned()),
            (_, false) => Err("the node is missing".to_owned()),
            _ => Ok(()),
        }
    }

    fn wrong_width(&self) -> String {
        format!(
            "the row does not have {} cells, as the header has",
            self.header.columns.len()
        )
    }

    fn cell(
        &mut self,
        row: &mut Entry,
        (n, column): (usize, Column),
        cell: &[u8],
    ) -> Result<(), String> {
        match column {
            Column::Metric(id, scale) => row.values.set(id, number(cell, scale, id)?),
            Column::Mebibytes(id) => {
                let bytes = number(cell, 1, id)?.checked_mul(1 << 20);
                row.values.set(
                    id,
                    bytes.ok_or_else(|| wrong(id.def().map_or("", |d| d.name), cell))?,
                );
            }
            Column::Bits(id) => row.values.set(id, bits(cell)?),
            Column::Time => row.time = self.time(cell)?,
            Column::Node => row.node = self.texts.get(n, cell)?,
            Column::Gpu => row.gpu = Some(index(cell)?),
            Column::Uuid => row.uuid = self.texts.get(n, cell)?,
            Column::Model => row.model = self.texts.get(n, cell)?,
            Column::Job => row.job = self.texts.get(n, cell)?,
            Column::JobKind => {
                let word = std::str::from_utf8(cell).map_err(|_| "a text is not UTF-8")?;
                row.job_kind = JobKind::from_name(word);
            }
            Column::RankGroup => row.rank_group = self.texts.get(n, cell)?,
            Column::Status => row.values.set(metric::NVML_STATUS, status(cell)?),
            Column::ProcessState => row.values.set(metric::PROCESS_STATE, process_state(cell)?),
            Column::Xid => {
                let begin = self.xids.len();
                take_xids(cell, self.xids)?;
                row.xids = (begin as u32, (self.xids.len() - begin) as u32);
            }
            Column::Rack => row.rack = self.texts.get(n, cell)?,
            Column::Switch => row.switch = self.texts.get(n, cell)?,
            Column::PowerFeed => row.power_feed = self.texts.get(n, cell)?,
            Column::Arrived => row.arrived = Some(seconds(cell, "arrived")?),
            Column::Interval => {
                let ms = parse_scaled(cell, 1000).and_then(|ms| u64::try_from(ms).ok());
                let ms = ms.ok_or_else(|| wrong("interval_seconds", cell))?;
                row.interval = Some(Duration::from_millis(ms));
            }
            Column::Event => row.event = self.event(cell),
            Column::Unknown => {}
        }
        Ok(())
    }

    fn time(&self, cell: &[u8]) -> Result<Timestamp, String> {
        match self.header.dialect {
            Dialect::Trace => seconds(cell, "time"),
            Dialect::NvidiaSmi => smi_time(cell).ok_or_else(|| wrong("timestamp", cell)),
        }
    }

    /// An event of a later version is no reason to lose the row.
    fn event(&mut self, cell: &[u8]) -> Option<TraceEvent> {
        let known = TraceEvent::ALL
            .into_iter()
            .find(|e| e.name().as_bytes() == cell);
        if known.is_none() {
            let word = String::from_utf8_lossy(cell);
            let warning =
                format!("events that mean nothing here are ignored, the first is: {word}");
            let begins = "events that mean nothing here";
            if !self.warnings.iter().any(|w| w.starts_with(begins)) {
                self.warnings.push(warning);
            }
        }
        known
    }
}

fn wrong(column: &str, cell: &[u8]) -> String {
    let shown = &cell[..cell.len().min(40)];
    format!(
        "`{}` is not a value of column `{column}`",
        String::from_utf8_lossy(shown)
    )
}

fn number(cell: &[u8], scale: i64, id: MetricId) -> Result<i64, String> {
    parse_scaled(cell, scale).ok_or_else(|| wrong(id.def().map_or("", |d| d.name), cell))
}

fn seconds(cell: &[u8], column: &str) -> Result<Timestamp, String> {
    let ms = parse_scaled(cell, 1000).filter(|ms| *ms >= 0);
    ms.map(Timestamp).ok_or_else(|| wrong(column, cell))
}

fn index(cell: &[u8]) -> Result<u32, String> {
    let index = parse_scaled(cell, 1).and_then(|i| u32::try_from(i).ok());
    index.ok_or_else(|| wrong("gpu", cell))
}

fn bits(cell: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(cell).unwrap_or("");
    let bits = match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    bits.ok_or_else(|| wrong("clock_event_reasons", cell))
}

fn status(cell: &[u8]) -> Result<i64, String> {
    let known = NvmlStatus::ALL
        .into_iter()
        .find(|s| s.name().as_bytes() == cell);
    known
        .map(|s| s as i64)
        .ok_or_else(|| wrong("nvml_status", cell))
}

/// Letters of process states, in the order of their codes.
pub(super) const PROCESS_STATES: &[u8; 4] = b"RSDT";

fn process_state(cell: &[u8]) -> Result<i64, String> {
    let known = PROCESS_STATES.iter().position(|letter| [*letter] == cell);
    known
        .map(|code| code as i64)
        .ok_or_else(|| wrong("process_state", cell))
}

fn take_xids(cell: &[u8], xids: &mut Vec<u64>) -> Result<(), String> {
    for xid in cell.split(|b| *b == b';') {
        let code = parse_scaled(xid.trim_ascii(), 1).and_then(|x| u64::try_from(x).ok());
        xids.push(code.ok_or_else(|| wrong("xid", cell))?);
    }
    Ok(())
}

/// nvidia-smi's cell without its unit; what it cannot say is empty.
fn smi_cell(cell: &[u8], column: Column) -> &[u8] {
    let cell = cell.trim_ascii();
    let absent: [&[u8]; 5] = [
        b"N/A",
        b"[N/A]",
        b"[Not Supported]",
        b"[Unknown Error]",
        b"[GPU is lost]",
    ];
    if absent.contains(&cell) {
        return b"";
    }
    match column {
        Column::Metric(..) | Column::Mebibytes(_) => {
            cell.split(|b| *b == b' ').next().unwrap_or(cell)
        }
        _ => cell,
    }
}

/// `2024/07/16 02:30:02.271`, in the writer's local time, which the log does not name: taken as UTC.
fn smi_time(cell: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(cell).ok()?;
    Timestamp::parse_rfc3339(&format!("{}Z", text.replace('/', "-")))
}
