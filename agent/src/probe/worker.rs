//! One GPU's thread: it reads when asked, and may be abandoned when it does not come back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use entrenar::backend::{Depth, GpuBackend};
use entrenar::clock::Clock;
use entrenar::gpu::{GpuInfo, Values};
use entrenar::metric::{self, NvmlStatus};
use entrenar::report::Holder;
use tokio::sync::oneshot;

use crate::holder::Scout;

/// Stack of a thread that calls the driver. Only what is touched is memory; the driver's own needs are not documented.
pub(super) const STACK_BYTES: usize = 256 * 1024;

/// Requests waiting for a worker. The one being worked on is not among them, and a busy worker is not asked.
const REQUESTS: usize = 1;

/// What a GPU said in one tick.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its values, with status and latency.
    pub(super) values: Values,
    /// Who holds it.
    pub(super) holder: Look,
}

/// A look at who holds a GPU.
#[derive(Debug)]
pub(super) enum Look {
    /// It was not looked at, or could not be: whoever held it holds it still, as far as we know.
    NotTaken,
    /// This one holds it, or nobody.
    Taken(Option<Holder>),
}

struct Request {
    depth: Depth,
    reply: oneshot::Sender<Answer>,
}

/// The asking end of a GPU's thread. Dropping it ends the thread when its present call returns.
#[derive(Debug)]
pub(super) struct Worker {
    requests: SyncSender<Request>,
    busy: Arc<Busy>,
}

/// Since when a worker is inside a request: monotonic microseconds plus one, 0 when it is not.
#[derive(Debug, Default)]
struct Busy(AtomicU64);

impl Worker {
    /// Starts the thread of a GPU.
    pub(super) fn spawn(reader: Reader) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(REQUESTS);
        let busy = Arc::new(Busy::default());
        let flag = Arc::clone(&busy);
        thread::Builder::new()
            .name(format!("gpu-{}", reader.gpu.index))
            .stack_size(STACK_BYTES)
            .spawn(move || work(reader, &inbox, &flag))?;
        Ok(Self { requests, busy })
    }

    /// Asks for a reading; `None` if the thread is inside another, or gone.
    pub(super) fn ask(&self, now: Duration, depth: Depth) -> Option<oneshot::Receiver<Answer>> {
        if self.away_since().is_some() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        self.busy.set(now);
        if self.requests.try_send(Request { depth, reply }).is_err() {
            self.busy.clear();
            return None;
        }
        Some(answer)
    }

    /// When the request began that the thread is inside of.
    pub(super) fn away_since(&self) -> Option<Duration> {
        match self.busy.0.load(Ordering::Acquire) {
            0 => None,
            micros => Some(Duration::from_micros(micros - 1)),
        }
    }

    /// A watch on this worker's thread that outlives the worker.
    pub(super) fn trace(&self) -> Trace {
        Trace(Arc::clone(&self.busy))
    }
}

/// Tells whether an abandoned thread came back.
#[derive(Debug)]
pub(super) struct Trace(Arc<Busy>);

impl Trace {
    /// Whether the thread is still inside the call that it was abandoned in.
    pub(super) fn is_away(&self) -> bool {
        self.0.0.load(Ordering::Acquire) != 0
    }
}

impl Busy {
    fn set(&self, now: Duration) {
        self.0.store(now.as_micros() as u64 + 1, Ordering::Release);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }
}

fn work(mut reader: Reader, inbox: &Receiver<Request>, busy: &Busy) {
    // A backend that panics ends this thread; it must not look as if it were still inside a call.
    struct Clear<'a>(&'a Busy);
    impl Drop for Clear<'_> {
        fn drop(&mut self) {
            self.0.clear();
        }
    }
    while let Ok(request) = inbox.recv() {
        let clear = Clear(busy);
        let answer = reader.read(request.depth);
        drop(clear);
        // Nobody listens any more if the deadline has passed.
        let _ = request.reply.send(answer);
    }
}

/// Reads one GPU: its values, and at full depth its processes and holder.
pub(super) struct Reader {
    pub(super) backend: Arc<dyn GpuBackend>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) gpu: GpuInfo,
    pub(super) scout: Scout,
}

impl Reader {
    /// One reading. It may block for as long as the backend does.
    pub(super) fn read(&mut self, depth: Depth) -> Answer {
        let begun = self.clock.monotonic();
        let mut answer = match self.backend.read(&self.gpu, depth) {
            Ok(values) => self.with_holder(values, depth),
            Err(error) => Answer::only(error.status()),
        };
        if answer.values.get(metric::NVML_STATUS).is_none() {
            answer
                .values
                .set(metric::NVML_STATUS, NvmlStatus::Ok as i64);
        }
        answer.set_latency(self.clock.monotonic().saturating_sub(begun));
        answer
    }

    fn with_holder(&mut self, mut values: Values, depth: Depth) -> Answer {
        let holder = match self.backend.holder(&self.gpu) {
            Some(known) => Look::Taken(known),
            None if depth == Depth::Full => self.look(&mut values),
            None => Look::NotTaken,
        };
        Answer { values, holder }
    }

    /// Looks at the GPU's processes, and adds what they say to the values.
    fn look(&mut self, values: &mut Values) -> Look {
        let Ok(processes) = self.backend.processes(&self.gpu) else {
            return Look::NotTaken;
        };
        let seen = self.scout.look(&processes);
        values.overlay(&seen.values);
        Look::Taken(seen.holder)
    }
}

impl Answer {
    /// A row that says only how it went.
    pub(super) fn only(status: NvmlStatus) -> Self {
        Self {
            values: Values::default().with(metric::NVML_STATUS, status as i64),
            holder: Look::NotTaken,
        }
    }

    /// The row of a GPU that has not answered for so long.
    pub(super) fn timeout(waited: Duration) -> Self {
        let mut answer = Self::only(NvmlStatus::Timeout);
        answer.set_latency(waited);
        answer
    }

    /// Notes how long the calls of the tick took.
    fn set_latency(&mut self, took: Duration) {
        self.values
            .set(metric::NVML_LATENCY, took.as_micros() as i64);
    }
}
