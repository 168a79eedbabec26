//! The lines of a file, plain or compressed, and the cells of a line. *(edge)*

use std::io::{self, BufRead, BufReader, Read};

use super::TraceError;

/// A longer line is malformed: a row has about 400 bytes.
pub(crate) const LONGEST_LINE: u64 = 64 * 1024;

/// The source without its compression, by its first bytes.
pub(crate) fn unpacked(source: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut source = BufReader::with_capacity(64 * 1024, source);
    Ok(match source.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(source))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(BufReader::new(zstd::Decoder::with_buffer(source)?))
        }
        _ => Box::new(source),
    })
}

/// The lines of a file, one at a time. A cell cannot hold a line break: a stray quote spoils one row, not the rest.
pub(crate) struct Lines {
    source: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
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
    pub(crate) fn new(source: Box<dyn BufRead + Send>) -> Self {
        Self {
            source,
            buffer: Vec::with_capacity(1024),
            number: 0,
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.buffer
    }

    pub(crate) fn next_line(&mut self) -> Result<Line, TraceError> {
        self.buffer.clear();
        let line = self.number;
        let unreadable = |source| TraceError::Read { line, source };
        let read = (&mut self.source)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut self.buffer)
            .map_err(unreadable)?;
        if read == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if read as u64 == LONGEST_LINE {
            self.source.skip_until(b'\n').map_err(unreadable)?;
            return Ok(Line::TooLong);
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        Ok(Line::Text)
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
