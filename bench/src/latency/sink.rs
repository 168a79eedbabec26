//! A webhook that says when something was posted.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use entrenar::clock::instant;

/// How long a message is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Requests that nobody has asked for yet; beyond it the webhook does not answer.
const POSTED: usize = 1024;

/// The webhook.
pub(super) struct Sink {
    port: u16,
    posted: Receiver<(Instant, String)>,
}

impl Sink {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (tx, posted) = sync_channel(POSTED);
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let tx = tx.clone();
                // A connection that breaks off is the sender's affair: it sends again.
                std::thread::spawn(move || serve(tcp, &tx).unwrap_or_default());
            }
        });
        Ok(Self { port, posted })
    }

    /// Its address for the nth receiver.
    pub(super) fn url(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}/{n}", self.port)
    }

    /// When the first request came that has this word in it.
    pub(super) fn await_post(&self, word: &str) -> Result<Instant> {
        loop {
            let posted = self.posted.recv_timeout(PATIENCE);
            let (at, body) = posted.with_context(|| format!("no message came with {word}"))?;
            if body.contains(word) {
                return Ok(at);
            }
        }
    }
}

/// Requests of one connection, until it is closed.
fn serve(tcp: TcpStream, posted: &SyncSender<(Instant, String)>) -> Result<()> {
    let mut reader = BufReader::new(tcp);
    while let Some(length) = head(&mut reader)? {
        let at = instant();
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        posted.send((at, String::from_utf8_lossy(&body).into_owned()))?;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        reader.get_mut().write_all(answer)?;
    }
    Ok(())
}

/// Length of the body behind a request's head; `None` at the end of the connection.
fn head(reader: &mut impl BufRead) -> Result<Option<usize>> {
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if line == "\r\n" {
            return Ok(Some(length));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        line.clear();
    }
    Ok(None)
}
