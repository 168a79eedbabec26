//! What the node's RDMA ports carried, as `/sys/class/infiniband` counts it.
//!
//! Some drivers ask the adapter's firmware for these counters, and firmware may hang: a thread of its own reads them,
//! which is never joined. While it does not come back there is no value, and nobody waits for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tokio::sync::oneshot;

/// Stack of the reading thread.
const STACK_BYTES: usize = 128 * 1024;

/// InfiniBand counts data in words of four bytes.
const WORD_BYTES: u64 = 4;

/// The RDMA ports of a host, or a directory tree in tests.
#[derive(Clone, Debug)]
pub struct Rdma {
    root: PathBuf,
}

impl Default for Rdma {
    fn default() -> Self {
        Self::at("/sys/class/infiniband")
    }
}

impl Rdma {
    /// Adapters below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Bytes sent and received by all ports since the adapters started. `None` where no port tells.
    pub fn bytes(&self) -> Option<u64> {
        let adapters = children(&self.root);
        let ports = adapters.flat_map(|adapter| children(&adapter.join("ports")));
        ports
            .filter_map(|port| of_port(&port))
            .reduce(u64::wrapping_add)
    }
}

fn of_port(port: &Path) -> Option<u64> {
    let (sent, received) = (
        number(&port.join("counters/port_xmit_data")),
        number(&port.join("counters/port_rcv_data")),
    );
    if let (Some(sent), Some(received)) = (sent, received) {
        return Some(sent.wrapping_add(received).wrapping_mul(WORD_BYTES));
    }
    // Elastic Fabric Adapters count bytes, and in another place.
    let sent = number(&port.join("hw_counters/tx_bytes"))?;
    let received = number(&port.join("hw_counters/rx_bytes"))?;
    Some(sent.wrapping_add(received))
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A thread that reads the ports when it is asked.
pub struct RdmaReader {
    requests: SyncSender<oneshot::Sender<Option<u64>>>,
}

impl RdmaReader {
    /// Starts the thread; it ends when this is dropped and its reading is over.
    pub fn start(rdma: Rdma) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(1);
        thread::Builder::new()
            .name("rdma".into())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&rdma, &inbox))?;
        Ok(Self { requests })
    }

    /// Asks for the bytes of all ports; `None` while the thread has not come back from an earlier question.
    pub fn ask(&self) -> Option<oneshot::Receiver<Option<u64>>> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(reply).ok()?;
        Some(answer)
    }
}

fn serve(rdma: &Rdma, inbox: &Receiver<oneshot::Sender<Option<u64>>>) {
    while let Ok(reply) = inbox.recv() {
        // Whoever gave up waiting is not told; the next question is answered with new figures.
        if !reply.is_closed() {
            let _ = reply.send(rdma.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn all_ports_of_all_adapters_are_added_each_in_its_own_unit() {
        let dir = tempfile::tempdir().expect("a directory");
        file(
            dir.path(),
            "mlx5_0/ports/1/counters/port_xmit_data",
            "1000\n",
        );
        file(dir.path(), "mlx5_0/ports/1/counters/port_rcv_data", "500\n");
        file(dir.path(), "mlx5_1/ports/1/counters/port_xmit_data", "10\n");
        file(dir.path(), "mlx5_1/ports/1/counters/port_rcv_data", "0\n");
        file(dir.path(), "rdmap16s27/ports/1/hw_counters/tx_bytes", "7\n");
        file(dir.path(), "rdmap16s27/ports/1/hw_counters/rx_bytes", "3\n");
        assert_eq!(Rdma::at(dir.path()).bytes(), Some(1510 * 4 + 10));
    }

    #[test]
    fn a_host_without_ports_says_nothing_and_not_zero() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Rdma::at(dir.path()).bytes(), None);
        assert_eq!(Rdma::at(dir.path().join("none")).bytes(), None);
        file(
            dir.path(),
            "mlx5_0/ports/1/counters/port_xmit_data",
            "N/A (no PMA)\n",
        );
        assert_eq!(Rdma::at(dir.path()).bytes(), None);
    }
}
