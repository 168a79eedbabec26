//! A bar on standard error, where somebody looks at it: bytes of the files that were read.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Characters between the brackets.
const WIDTH: usize = 30;

pub(super) struct Progress {
    read_bytes: Arc<AtomicU64>,
    total: u64,
    /// Nobody looks, or nothing was drawn yet.
    is_drawn: bool,
    is_watched: bool,
}

impl Progress {
    /// How often it is drawn.
    pub(super) const EVERY: Duration = Duration::from_millis(200);

    pub(super) fn new<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let sizes = files
            .into_iter()
            .filter_map(|path| Some(fs::metadata(path).ok()?.len()));
        Self {
            read_bytes: Arc::default(),
            total: sizes.sum(),
            is_drawn: false,
            is_watched: io::stderr().is_terminal(),
        }
    }

    /// What readers add to.
    pub(super) fn read_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read_bytes)
    }

    pub(super) fn show(&mut self) {
        if self.is_watched {
            self.is_drawn = true;
            let read = self.read_bytes.load(Ordering::Relaxed);
            draw(&format!("\r{}", bar(read, self.total)));
        }
    }

    /// Leaves no trace of itself.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            draw("\r\x1b[K");
        }
    }
}

fn draw(text: &str) {
    let mut stderr = io::stderr().lock();
    // Without a bar it goes on all the same.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

fn bar(read: u64, total: u64) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    if total == 0 {
        // Of an aggregator's history nobody knows the length.
        return format!("{:.1} MiB", mib(read));
    }
    let share = read.min(total) as f64 / total as f64;
    let filled = (share * WIDTH as f64) as usize;
    format!(
        "[{}{}] {:3.0} %  {:.1} of {:.1} MiB",
        "#".repeat(filled),
        " ".repeat(WIDTH - filled),
        share * 100.0,
        mib(read),
        mib(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_never_overflows() {
        assert!(bar(0, 10 << 20).starts_with("[ "));
        assert!(bar(5 << 20, 10 << 20).ends_with(" 50 %  5.0 of 10.0 MiB"));
        assert_eq!(bar(7 << 20, 0), "7.0 MiB");
        assert!(bar(9 << 20, 3 << 20).contains("100 %"));
    }
}
