//! Reads GPUs that may never answer: a thread per GPU, a deadline per read, and no waiting for the one that hangs.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::{Depth, GpuBackend, GpuError};
use crate::clock;
use crate::gpu::{GpuInfo, Values};

use super::metrics::GpuReading;

/// How long the list of GPUs may take: a driver without persistence wakes every GPU for it.
const INVENTORY_DEADLINE: Duration = Duration::from_secs(30);

/// The GPUs of a node, each with a thread that reads it.
pub(super) struct Readers {
    backend: Arc<dyn GpuBackend>,
    inventory: Option<Worker<Result<Vec<GpuInfo>, GpuError>>>,
    /// `None` until the list of GPUs came. It is then kept: a GPU that falls off the bus stays, as an error.
    gpus: Option<Vec<Reader>>,
}

struct Reader {
    info: GpuInfo,
    /// `None` when no thread could be started.
    worker: Option<Worker<Result<Values, GpuError>>>,
}

impl Readers {
    pub(super) fn new(backend: Arc<dyn GpuBackend>) -> Self {
        Self {
            backend,
            inventory: None,
            gpus: None,
        }
    }

    /// The GPUs that were there when they were first asked for.
    pub(super) fn inventory(&mut self) -> Result<Vec<GpuInfo>, GpuError> {
        Ok(self.gpus()?.iter().map(|gpu| gpu.info.clone()).collect())
    }

    /// Reads all GPUs at once. One that does not answer in time is an error; the others do not wait longer for it.
    pub(super) fn read_all(&mut self, deadline: Duration) -> Result<Vec<GpuReading>, GpuError> {
        let gpus = self.gpus()?;
        let asked_at = clock::instant();
        for gpu in gpus.iter_mut() {
            gpu.ask(asked_at);
        }
        let until = asked_at + deadline;
        Ok(gpus.iter_mut().map(|gpu| gpu.answer(until)).collect())
    }

    fn gpus(&mut self) -> Result<&mut Vec<Reader>, GpuError> {
        if self.gpus.is_none() {
            let list = self.ask_inventory()?;
            let readers = list
                .into_iter()
                .map(|info| Reader::start(&self.backend, info));
            self.gpus = Some(readers.collect());
        }
        Ok(self.gpus.as_mut().expect("set above"))
    }

    fn ask_inventory(&mut self) -> Result<Vec<GpuInfo>, GpuError> {
        let unavailable = |reason: String| GpuError::BackendUnavailable {
            tried: vec![self.backend.name().to_owned()],
            reason,
        };
        if self.inventory.is_none() {
            let backend = self.backend.clone();
            let worker = Worker::start("gpu-inventory", move || backend.inventory())
                .map_err(|e| unavailable(format!("cannot start a thread: {e}")))?;
            self.inventory = Some(worker);
        }
        let worker = self.inventory.as_mut().expect("set above");
        let now = clock::instant();
        worker.ask(now);
        match worker.answer(now + INVENTORY_DEADLINE) {
            Ok(list) => list,
            Err(NoAnswer::Late(waited)) => Err(unavailable(format!(
                "the list of GPUs did not come within {} s; the driver may hang",
                waited.as_secs()
            ))),
            Err(NoAnswer::Gone) => Err(unavailable("the backend panicked".to_owned())),
        }
    }
}

impl Reader {
    fn start(backend: &Arc<dyn GpuBackend>, info: GpuInfo) -> Self {
        let worker = Worker::start(&format!("gpu-{}", info.index), {
            let (backend, info) = (backend.clone(), info.clone());
            move || backend.read(&info, Depth::Full)
        });
        Self {
            info,
            worker: worker.ok(),
        }
    }

    fn ask(&mut self, now: Instant) {
        if let Some(worker) = &mut self.worker {
            worker.ask(now);
        }
    }

    fn answer(&mut self, until: Instant) -> GpuReading {
        let device = self.info.index;
        let failed = |reason: &str| GpuError::Failed {
            device,
            reason: reason.to_owned(),
        };
        let values = match self.worker.as_mut().map(|worker| worker.answer(until)) {
            Some(Ok(values)) => values,
            Some(Err(NoAnswer::Late(waited))) => Err(GpuError::Timeout { device, waited }),
            Some(Err(NoAnswer::Gone)) => Err(failed("the backend panicked")),
            None => Err(failed("no thread could be started to read it")),
        };
        GpuReading {
            info: self.info.clone(),
            values,
        }
    }
}

/// A thread that makes one and the same call each time it is asked, and that can be left behind.
///
/// At most one call is in hand. The thread is never joined: it ends when the worker is dropped, or never, if the call
/// never returns.
struct Worker<T> {
    questions: SyncSender<()>,
    answers: Receiver<T>,
    call: Call,
}

enum Call {
    /// The thread waits for a question.
    None,
    /// Asked for in this round.
    Awaited(Instant),
    /// Given up in an earlier round, and still in hand. Its answer will be out of date.
    Overdue(Instant),
}

enum NoAnswer {
    /// The call has not come back, for so long.
    Late(Duration),
    /// The thread is gone: the call panicked.
    Gone,
}

impl<T: Send + 'static> Worker<T> {
    fn start(name: &str, call: impl Fn() -> T + Send + 'static) -> io::Result<Self> {
        // At most one question and one answer are under way: neither channel is ever full.
        let (ask, questions) = sync_channel(1);
        let (reply, answers) = sync_channel(1);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(
                move || {
                    while questions.recv().is_ok() && reply.send(call()).is_ok() {}
                },
            )?;
        Ok(Self {
            questions: ask,
            answers,
            call: Call::None,
        })
    }

    /// Asks, unless an earlier call is still in hand.
    fn ask(&mut self, now: Instant) {
        if let Call::Overdue(_) = self.call
            && let Err(TryRecvError::Empty) = self.answers.try_recv()
        {
            return;
        }
        // A thread that is gone shows when the answer is fetched.
        let _ = self.questions.try_send(());
        self.call = Call::Awaited(now);
    }

    /// The answer to this round's question. A call that was overdue before is not waited for again.
    fn answer(&mut self, until: Instant) -> Result<T, NoAnswer> {
        let now = clock::instant();
        let (asked_at, patience) = match self.call {
            Call::Overdue(asked_at) => return Err(NoAnswer::Late(now - asked_at)),
            Call::Awaited(asked_at) => (asked_at, until.saturating_duration_since(now)),
            Call::None => (now, Duration::ZERO),
        };
        match self.answers.recv_timeout(patience) {
            Ok(answer) => {
                self.call = Call::None;
                Ok(answer)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.call = Call::Overdue(asked_at);
                Err(NoAnswer::Late(clock::instant() - asked_at))
            }
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::metric::TEMPERATURE;

    /// Two GPUs; a read of GPU 1 returns only when the test sends a word. Counts the reads begun.
    struct Stuck {
        release: Mutex<Receiver<()>>,
        begun: AtomicUsize,
    }

    impl GpuBackend for Stuck {
        fn name(&self) -> &'static str {
            "stuck"
        }
        fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
            Ok((0..2)
                .map(|index| GpuInfo {
                    index,
                    ..GpuInfo::default()
                })
                .collect())
        }
        fn read(&self, gpu: &GpuInfo, _: Depth) -> Result<Values, GpuError> {
            if gpu.index == 1 {
                self.begun.fetch_add(1, Ordering::SeqCst);
                let _ = self.release.lock().unwrap().recv();
            }
            Ok(Values::default().with(TEMPERATURE, 50))
        }
    }

    fn stuck() -> (Arc<Stuck>, SyncSender<()>) {
        let (release, waits) = sync_channel(2);
        let begun = AtomicUsize::new(0);
        (
            Arc::new(Stuck {
                release: Mutex::new(waits),
                begun,
            }),
            release,
        )
    }

    fn told(readings: &[GpuReading]) -> Vec<&'static str> {
        readings
            .iter()
            .map(|r| match &r.values {
                Ok(_) => "ok",
                Err(GpuError::Timeout { .. }) => "timeout",
                Err(_) => "error",
            })
            .collect()
    }

    #[test]
    fn a_gpu_that_never_answers_costs_one_deadline_and_then_nothing() {
        let (backend, _release) = stuck();
        let mut readers = Readers::new(backend.clone());
        let short = Duration::from_millis(20);
        let first = readers.read_all(short).expect("the list comes");
        assert_eq!(told(&first), ["ok", "timeout"]);
        // With an hour to answer, a second wait for the same call would hang this test.
        for _ in 0..3 {
            let again = readers
                .read_all(Duration::from_hours(1))
                .expect("the list is kept");
            assert_eq!(told(&again), ["ok", "timeout"]);
        }
        assert_eq!(
            backend.begun.load(Ordering::SeqCst),
            1,
            "no call is made beside one that hangs"
        );
    }

    #[test]
    fn a_gpu_that_comes_back_is_read_again() {
        let (backend, release) = stuck();
        let mut readers = Readers::new(backend.clone());
        let late = readers
            .read_all(Duration::from_millis(20))
            .expect("the list comes");
        assert_eq!(told(&late), ["ok", "timeout"]);
        // A word for the call that hangs, and one for the call after it.
        for _ in 0..2 {
            release.send(()).expect("the backend listens");
        }
        let fresh = std::iter::repeat_with(|| {
            thread::yield_now();
            readers
                .read_all(Duration::from_mins(1))
                .expect("the list is kept")
        })
        .take(10_000_000)
        .find(|readings| readings[1].values.is_ok());
        assert!(fresh.is_some());
        assert_eq!(
            backend.begun.load(Ordering::SeqCst),
            2,
            "the old answer was thrown away"
        );
    }

    #[test]
    fn a_backend_that_panics_is_an_error_and_no_hang() {
        struct Panics;
        impl GpuBackend for Panics {
            fn name(&self) -> &'static str {
                "panics"
            }
            fn inventory(&self) -> Result<Vec<GpuInfo>, GpuError> {
                panic!("on purpose")
            }
            fn read(&self, _: &GpuInfo, _: Depth) -> Result<Values, GpuError> {
                unreachable!("there is no inventory")
            }
        }
        let mut readers = Readers::new(Arc::new(Panics));
        for _ in 0..2 {
            let error = readers.inventory().expect_err("it panicked");
            assert!(error.to_string().contains("panicked"), "{error}");
        }
    }
}
