//! Traces through the engine, as many at once as there are cores.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use entrenar::clock::{Clock, SystemClock};
use entrenar::trace::TraceError;
use entrenar_aggregator::andon::RuleBook;
use entrenar_aggregator::backtest::{Backtest, Outcome};
use rustix::time::{ClockId, clock_gettime};

use super::progress::Progress;
use super::read::{Input, Piece, Reading};

/// Malformed rows of a trace that are shown; further ones are only counted.
const MOST_SHOWN: u64 = 20;

/// A trace that was judged.
pub(super) struct Judged {
    pub(super) path: PathBuf,
    pub(super) outcome: Outcome,
    pub(super) rows: u64,
    pub(super) malformed: u64,
    pub(super) wall: Duration,
    /// Of the whole process meanwhile: the reading thread is in it, and so are other traces.
    pub(super) cpu: Duration,
}

/// Why a trace was not judged.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("could not start a thread")]
    Thread(#[source] std::io::Error),
    #[error("the thread that read the trace died")]
    ReaderDied,
}

impl RunError {
    /// The trace, or its name, is wrong; else something went wrong on the way.
    pub(super) fn is_unusable(&self) -> bool {
        match self {
            Self::Trace(error) => !matches!(error, TraceError::Read { .. }),
            Self::Thread(_) | Self::ReaderDied => false,
        }
    }
}

type Judgement = Result<Judged, RunError>;

/// Judges all traces; the results are in their order.
pub(super) fn all(traces: Vec<Input>, rules: &RuleBook) -> Vec<Judgement> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut progress = Progress::new(traces.iter().map(Input::path));
    let n_traces = traces.len();
    let traces = Mutex::new(traces.into_iter().enumerate());
    let (send, results) = mpsc::sync_channel(n_traces);
    let mut judged = Vec::new();
    thread::scope(|scope| {
        for _ in 0..cores.min(n_traces) {
            let (send, traces, read_bytes) = (send.clone(), &traces, progress.read_bytes());
            scope.spawn(move || {
                while let Some((n, input)) = take(traces) {
                    // Whoever collects the results stays until all are there.
                    let _ = send.send((n, one(input, rules, &read_bytes)));
                }
            });
        }
        drop(send);
        loop {
            match results.recv_timeout(Progress::EVERY) {
                Ok(result) => judged.push(result),
                Err(RecvTimeoutError::Timeout) => progress.show(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    progress.clear();
    judged.sort_by_key(|(n, _)| *n);
    judged.into_iter().map(|(_, judged)| judged).collect()
}

fn take(traces: &Mutex<impl Iterator<Item = (usize, Input)>>) -> Option<(usize, Input)> {
    let mut traces = traces.lock().unwrap_or_else(PoisonError::into_inner);
    traces.next()
}

fn one(input: Input, rules: &RuleBook, read_bytes: &Arc<AtomicU64>) -> Judgement {
    let (began, cpu) = (SystemClock.monotonic(), cpu_time());
    let path = input.path().to_owned();
    let reading = Reading::start(input, Arc::clone(read_bytes)).map_err(RunError::Thread)?;
    let mut backtest = Backtest::new(rules.clone());
    let mut complaints = Complaints::of(&path);
    loop {
        match reading.next().ok_or(RunError::ReaderDied)? {
            Piece::Rows(mut block) => {
                backtest.take(&mut block);
                block.malformed.iter().for_each(|row| complaints.show(row));
                reading.give_back(block);
            }
            Piece::Failed(error) => return Err(error.into()),
            Piece::End {
                warnings,
                rows,
                malformed,
            } => {
                complaints.end(&warnings);
                return Ok(Judged {
                    path,
                    outcome: backtest.finish(),
                    rows,
                    malformed,
                    wall: SystemClock.monotonic().saturating_sub(began),
                    cpu: cpu_time().saturating_sub(cpu),
                });
            }
        }
    }
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What is wrong with a trace without making it unusable, told on standard error.
struct Complaints {
    trace: String,
    malformed: u64,
}

impl Complaints {
    fn of(path: &Path) -> Self {
        Self {
            trace: path.display().to_string(),
            malformed: 0,
        }
    }

    fn show(&mut self, row: &TraceError) {
        self.malformed += 1;
        if self.malformed <= MOST_SHOWN {
            eprintln!("{}: {row}", self.trace);
        }
    }

    fn end(&self, warnings: &[String]) {
        for warning in warnings {
            eprintln!("{}: warning: {warning}", self.trace);
        }
        if self.malformed > MOST_SHOWN {
            let more = self.malformed - MOST_SHOWN;
            eprintln!("{}: {more} more malformed rows were skipped", self.trace);
        }
    }
}
