//! The thread that reads a trace, a file or an aggregator's history: blocks of rows, ahead of the one that judges.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use entrenar::trace::{Block, TraceError, TraceReader};

use crate::remote::Download;

/// Rows of a block.
const BLOCK_ROWS: usize = 1024;
/// Blocks that may wait to be judged; beyond, reading waits.
const BLOCKS_AHEAD: usize = 4;

/// Where a trace comes from.
pub(super) enum Input {
    File(PathBuf),
    /// An aggregator's history, by its address; the answer has begun.
    Remote(PathBuf, Box<Download>),
}

impl Input {
    /// What it is called.
    pub(super) fn path(&self) -> &Path {
        let (Self::File(path) | Self::Remote(path, _)) = self;
        path
    }

    fn open(self) -> Result<Box<dyn Read + Send>, TraceError> {
        match self {
            Self::Remote(_, download) => Ok(download),
            Self::File(path) => match File::open(&path) {
                Ok(file) => Ok(Box::new(file)),
                Err(source) => Err(TraceError::Open { path, source }),
            },
        }
    }
}

/// What the reader hands over.
pub(super) enum Piece {
    Rows(Block),
    End {
        warnings: Vec<String>,
        rows: u64,
        malformed: u64,
    },
    Failed(TraceError),
}

/// A trace that is being read.
pub(super) struct Reading {
    pieces: Receiver<Piece>,
    used: SyncSender<Block>,
}

impl Reading {
    /// Begins to read. `read_bytes` grows with the bytes that were read.
    pub(super) fn start(input: Input, read_bytes: Arc<AtomicU64>) -> io::Result<Self> {
        let (send, pieces) = sync_channel(BLOCKS_AHEAD);
        let (used, room) = sync_channel(BLOCKS_AHEAD + 2);
        let name = format!("read {}", input.path().display());
        thread::Builder::new().name(name).spawn(move || {
            let last = match read(input, read_bytes, &send, &room) {
                Ok(end) => end,
                Err(error) => Piece::Failed(error),
            };
            // Whoever judges has left.
            let _ = send.send(last);
        })?;
        Ok(Self { pieces, used })
    }

    /// The next piece; `None` if the reading thread has died.
    pub(super) fn next(&self) -> Option<Piece> {
        self.pieces.recv().ok()
    }

    /// Gives a block's room back.
    pub(super) fn give_back(&self, block: Block) {
        let _ = self.used.try_send(block);
    }
}

fn read(
    input: Input,
    read_bytes: Arc<AtomicU64>,
    send: &SyncSender<Piece>,
    room: &Receiver<Block>,
) -> Result<Piece, TraceError> {
    let source = input.open()?;
    let mut reader = TraceReader::new(Counted { source, read_bytes })?;
    loop {
        let mut block = room.try_recv().unwrap_or_default();
        let more = reader.read_block(&mut block, BLOCK_ROWS)?;
        if send.send(Piece::Rows(block)).is_err() || !more {
            return Ok(Piece::End {
                warnings: reader.warnings().to_vec(),
                rows: reader.rows(),
                malformed: reader.malformed(),
            });
        }
    }
}

/// A source that counts what is read of it.
struct Counted {
    source: Box<dyn Read + Send>,
    read_bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.read_bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
