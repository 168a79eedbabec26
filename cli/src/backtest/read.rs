//! The thread that reads a trace: blocks of rows, ahead of the one that judges.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use entrenar::trace::{Block, TraceError, TraceReader};

/// Rows of a block.
const BLOCK_ROWS: usize = 1024;
/// Blocks that may wait to be judged; beyond, reading waits.
const BLOCKS_AHEAD: usize = 4;

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
    /// Begins to read. `read_bytes` grows with the bytes of the file that were read.
    pub(super) fn start(path: PathBuf, read_bytes: Arc<AtomicU64>) -> io::Result<Self> {
        let (send, pieces) = sync_channel(BLOCKS_AHEAD);
        let (used, room) = sync_channel(BLOCKS_AHEAD + 2);
        let name = format!("read {}", path.display());
        thread::Builder::new().name(name).spawn(move || {
            let last = match read(&path, read_bytes, &send, &room) {
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
    path: &Path,
    read_bytes: Arc<AtomicU64>,
    send: &SyncSender<Piece>,
    room: &Receiver<Block>,
) -> Result<Piece, TraceError> {
    let file = File::open(path).map_err(|source| TraceError::Open {
        path: path.to_owned(),
        source,
    })?;
    let mut reader = TraceReader::new(Counted { file, read_bytes })?;
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

/// A file that counts what is read of it.
struct Counted {
    file: File,
    read_bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read_bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
