//! The rules file while the process runs: a change is taken whole, or refused and told of; the rules of before stay.
//!
//! The file is looked at every few seconds, by its time and size, and at once when the process is asked to (SIGHUP).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use entrenar::clock::Clock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::andon::RuleBook;
use crate::line::handle::LineHandle;
use crate::status::Vitals;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A rules file and how it was when it was last looked at.
#[derive(Debug)]
pub(crate) struct RulesFile {
    path: PathBuf,
    /// Time and size; `None`: it could not be seen.
    stamp: Option<(SystemTime, u64)>,
    /// What was read then, good or bad.
    text: Result<String, String>,
}

/// What a look at the file came to.
#[derive(Debug)]
enum Look {
    Unchanged,
    Good(Box<RuleBook>),
    Bad(String),
}

impl RulesFile {
    /// Reads the file for the first time.
    pub(crate) fn load(path: PathBuf) -> Result<(Self, RuleBook), String> {
        let mut file = Self {
            path,
            stamp: None,
            text: Err(String::new()),
        };
        match file.look(true) {
            Look::Good(book) => Ok((file, *book)),
            Look::Bad(reason) => Err(reason),
            Look::Unchanged => Ok((file, RuleBook::default())),
        }
    }

    /// Looks at the file; `asked`: even if it seems to be as before.
    fn look(&mut self, asked: bool) -> Look {
        let metadata = std::fs::metadata(&self.path);
        let stamp = metadata.and_then(|m| Ok((m.modified()?, m.len()))).ok();
        if stamp == self.stamp && stamp.is_some() && !asked {
            return Look::Unchanged;
        }
        self.stamp = stamp;
        let name = self.path.display().to_string();
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| format!("could not read the rules file {name}: {error}"));
        if text == self.text && !asked {
            return Look::Unchanged;
        }
        self.text.clone_from(&text);
        let book = text.and_then(|text| {
            RuleBook::parse(&text, &name).map_err(|mistakes| mistakes.to_string())
        });
        match book {
            Ok(book) => Look::Good(Box::new(book)),
            Err(reason) => Look::Bad(reason),
        }
    }
}

/// What a reload works with.
pub(crate) struct Reload {
    pub(crate) file: RulesFile,
    pub(crate) line: LineHandle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vitals: Arc<Vitals>,
    /// Notified: somebody asks for a look.
    pub(crate) asked: Arc<Notify>,
}

impl Reload {
    /// Keeps the rules as the file says, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = self.asked.notified() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let file = self.file;
            // Reading a file may take its time.
            let looked = tokio::task::spawn_blocking(move || {
                let mut file = file;
                let look = file.look(asked);
                (file, look)
            });
            let Ok((file, look)) = looked.await else {
                return;
            };
            self.file = file;
            match look {
                Look::Unchanged => {}
                Look::Bad(reason) => self.refuse(&reason),
                Look::Good(book) => {
                    if !self.take(*book).await {
                        return;
                    }
                }
            }
        }
    }

    fn refuse(&self, reason: &str) {
        self.vitals.rules_reload_failures.fetch_add(1, Relaxed);
        for mistake in reason.lines() {
            warn!(
                reason = mistake,
                "the rules file is refused; the rules of before stay"
            );
        }
    }

    /// False when the line has ended.
    async fn take(&self, book: RuleBook) -> bool {
        let now = self.clock.now();
        let custom = book.summaries().len();
        let taken = self.line.ask(move |line| line.set_rules(now, book)).await;
        self.vitals.rules_loaded_at_ms.store(now.0, Relaxed);
        info!(n_rules = custom, file = %self.file.path.display(), "other rules hold from now on");
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_changed_and_a_bad_one_is_refused_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("rules.yaml");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write("rules: { xid: { enabled: false } }");
        let (mut file, book) = RulesFile::load(path.clone()).expect("a good file");
        assert!(!book.base().xid.enabled);
        assert!(matches!(file.look(false), Look::Unchanged));
        assert!(
            matches!(file.look(true), Look::Good(_)),
            "it is read when asked"
        );

        write("rules: { xidd: {} }  # no such rule");
        let Look::Bad(reason) = file.look(false) else {
            panic!("it is refused");
        };
        assert!(reason.contains("line 1: rules has no `xidd`"), "{reason}");
        assert!(
            matches!(file.look(false), Look::Unchanged),
            "it is told of once"
        );

        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(file.look(false), Look::Bad(_)));
        assert!(matches!(file.look(false), Look::Unchanged));

        write("rules: {}");
        assert!(matches!(file.look(false), Look::Good(_)));
        assert!(RulesFile::load(dir.path().join("none.yaml")).is_err());
    }
}
