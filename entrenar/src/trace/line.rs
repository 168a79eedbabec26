//! The lines of a file, plain or compressed, and the cells of a line. *(edge)*

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use super::TraceError;
use super::number::plain;

/// A longer line is malformed: a row has about 400 bytes.
pub(crate) const LONGEST_LINE: usize = 64 * 1024;

/// Bytes that are unpacked at once. A line fits, however it lies.
const BUFFER: usize = 256 * 1024;

/// The source without its compression, by its first bytes.
fn unpacked(source: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut source = BufReader::with_capacity(64 * 1024, source);
    Ok(match source.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(source)?),
        _ => Box::new(source),
    })
}

/// The lines of a file, one at a time. A cell cannot hold a line break: a stray quote spoils one row, not the rest.
pub(crate) struct Lines {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What is unpacked and not read yet.
    ahead: Range<usize>,
    line: Range<usize>,
    /// Of the latest line, from 1.
    pub(crate) number: u64,
}

/// How reading a line went.
pub(crate) enum Line {
    /// There is one.
    Text,
    /// There was one, too long to be kept.
    TooLong,
    /// There are no more.
    End,
}

impl Lines {
    pub(crate) fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        Ok(Self {
            source: unpacked(source)?,
            buffer: vec![0; BUFFER],
            ahead: 0..0,
            line: 0..0,
            number: 0,
        })
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.buffer[self.line.clone()]
    }

    pub(crate) fn next_line(&mut self) -> Result<Line, TraceError> {
        let mut searched = 0;
        loop {
            let unsearched = &self.buffer[self.ahead.start + searched..self.ahead.end];
            if let Some(more) = memchr::memchr(b'\n', unsearched) {
                return Ok(self.cut(searched + more, 1));
            }
            searched = self.ahead.len();
            if searched >= LONGEST_LINE {
                return self.skip_long();
            }
            if !self.unpack()? {
                return Ok(match searched {
                    0 => Line::End,
                    _ => self.cut(searched, 0),
                });
            }
        }
    }

    /// The next so many bytes are a line; so many more end it.
    fn cut(&mut self, bytes: usize, line_end: usize) -> Line {
        let begin = self.ahead.start;
        self.number += 1;
        self.ahead.start += bytes + line_end;
        if bytes > LONGEST_LINE {
            return Line::TooLong;
        }
        self.line = begin..begin + bytes;
        if self.text().last() == Some(&b'\r') {
            self.line.end -= 1;
        }
        Line::Text
    }

    fn skip_long(&mut self) -> Result<Line, TraceError> {
        self.number += 1;
        loop {
            let unread = &self.buffer[self.ahead.clone()];
            if let Some(end) = memchr::memchr(b'\n', unread) {
                self.ahead.start += end + 1;
                return Ok(Line::TooLong);
            }
            self.ahead = 0..0;
            if !self.unpack()? {
                return Ok(Line::TooLong);
            }
        }
    }

    /// Unpacks more; false at the end of the file.
    fn unpack(&mut self) -> Result<bool, TraceError> {
        if self.ahead.start > 0 {
            self.buffer.copy_within(self.ahead.clone(), 0);
            self.ahead = 0..self.ahead.len();
        }
        loop {
            match self.source.read(&mut self.buffer[self.ahead.end..]) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.ahead.end += n;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let line = self.number;
                    return Err(TraceError::Read { line, source });
                }
            }
        }
    }
}

/// The names in a header line; `None`: it is no text.
pub(crate) fn header_names(line: &[u8]) -> Option<Vec<String>> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    let mut names = Vec::new();
    let mut cells = Cells { rest: Some(line) };
    let mut unquoted = Vec::new();
    while let Some(cell) = cells.next(&mut unquoted).ok()? {
        names.push(std::str::from_utf8(cell).ok()?.trim().to_owned());
    }
    Some(names)
}

/// The cells of a line, by RFC 4180.
pub(crate) struct Cells<'a> {
    pub(crate) rest: Option<&'a [u8]>,
}

impl<'a> Cells<'a> {
    /// The number in the next cell times `scale`, where it is written plainly. `None`: the cell is still the next.
    pub(crate) fn plain_number(&mut self, scale: i64) -> Option<i64> {
        let rest = self.rest?;
        let (number, length) = plain(rest, scale)?;
        self.rest = rest.get(length + 1..);
        Some(number)
    }

    /// The next cell; `unquoted` holds it if its quotes had to be taken off.
    pub(crate) fn next<'b>(&mut self, unquoted: &'b mut Vec<u8>) -> Result<Option<&'b [u8]>, String>
    where
        'a: 'b,
    {
        let Some(rest) = self.rest else {
            return Ok(None);
        };
        if let [b'"', quoted @ ..] = rest {
            return self.quoted(quoted, unquoted).map(Some);
        }
        let end = rest.iter().position(|b| *b == b',');
        self.rest = end.map(|end| &rest[end + 1..]);
        Ok(Some(&rest[..end.unwrap_or(rest.len())]))
    }

    fn quoted<'b>(
        &mut self,
        mut rest: &'a [u8],
        cell: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], String> {
        cell.clear();
        loop {
            let quote = rest.iter().position(|b| *b == b'"');
            let quote = quote.ok_or("a quoted cell does not end on its line")?;
            cell.extend_from_slice(&rest[..quote]);
            match &rest[quote + 1..] {
                [b'"', more @ ..] => {
                    cell.push(b'"');
                    rest = more;
                }
                [b',', more @ ..] => {
                    self.rest = Some(more);
                    return Ok(cell);
                }
                [] => {
                    self.rest = None;
                    return Ok(cell);
                }
                _ => return Err("text follows a quoted cell".to_owned()),
            }
        }
    }
}
