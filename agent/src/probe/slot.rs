//! One GPU as the probe works on it: what reads it, its quarantine, the threads that it cost.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use entrenar::backend::Depth;
use entrenar::gpu::GpuInfo;
use entrenar::metric::NvmlStatus;
use tokio::sync::oneshot;

use super::quarantine::{Ask, Quarantine};
use super::worker::{Answer, Reader, Trace, Worker};

/// A GPU as the probe works on it.
pub(super) struct Slot {
    pub(super) gpu: GpuInfo,
    pub(super) quarantine: Quarantine,
    hand: Hand,
    lost: Vec<Trace>,
}

/// What reads a GPU.
enum Hand {
    Thread(Worker),
    InPlace(Box<Reader>),
    /// The system gave no thread; the next sweep tries again.
    None,
}

/// What became of one GPU in a sweep.
#[allow(
    clippy::large_enum_variant,
    reason = "a handful, for the length of a sweep"
)]
pub(super) enum Outcome {
    /// It is being asked.
    Asked(oneshot::Receiver<Answer>),
    /// It is settled already.
    Settled(Answer),
}

impl Slot {
    /// A GPU that nothing is known of.
    pub(super) fn new(gpu: GpuInfo) -> Self {
        let mut hasher = DefaultHasher::new();
        gpu.uuid.hash(&mut hasher);
        Self {
            gpu,
            hand: Hand::None,
            quarantine: Quarantine::new(hasher.finish()),
            lost: Vec::new(),
        }
    }

    /// Whether a new hand is wanted now; the old one's thread is then left where it is.
    pub(super) fn needs_hand(&mut self, now: Duration) -> bool {
        self.lost.retain(Trace::is_away);
        let Hand::Thread(worker) = &self.hand else {
            return matches!(self.hand, Hand::None);
        };
        let away = worker.away_since().is_some();
        let replace = self.quarantine.ask(now, away, self.lost.len()) == Ask::Replace;
        if replace {
            self.lost.push(worker.trace());
        }
        replace
    }

    /// Gives it a fresh hand: a thread where the backend may block.
    pub(super) fn give_hand(&mut self, reader: Reader) {
        self.hand = if reader.backend.may_block() {
            Worker::spawn(reader).map_or(Hand::None, Hand::Thread)
        } else {
            Hand::InPlace(Box::new(reader))
        };
    }

    /// Asks the GPU, or says why it is not asked.
    pub(super) fn read(&mut self, now: Duration, depth: Depth) -> Outcome {
        match &mut self.hand {
            Hand::InPlace(reader) => Outcome::Settled(reader.read(depth)),
            Hand::None => Outcome::Settled(Answer::only(NvmlStatus::Unknown)),
            Hand::Thread(worker) => match (worker.ask(now, depth), worker.away_since()) {
                (Some(answer), _) => Outcome::Asked(answer),
                (None, Some(since)) => Outcome::Settled(Answer::timeout(now.saturating_sub(since))),
                (None, None) => {
                    // The thread is gone: a backend that panicked.
                    self.hand = Hand::None;
                    Outcome::Settled(Answer::only(NvmlStatus::Unknown))
                }
            },
        }
    }

    /// Takes the hand away: its thread ended without an answer.
    pub(super) fn drop_hand(&mut self) {
        self.hand = Hand::None;
    }

    /// Threads that were replaced and have not come back.
    pub(super) fn lost_threads(&self) -> usize {
        self.lost.iter().filter(|thread| thread.is_away()).count()
    }
}
