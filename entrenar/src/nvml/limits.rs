//! What a GPU declines to report, remembered so that it is asked once and not on each tick. Pure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nvml_wrapper::error::NvmlError;

use crate::metric::{METRIC_COUNT, MetricId, NvmlStatus};

const _: () = assert!(METRIC_COUNT <= 64, "one bit per metric");

/// Why a GPU does not report a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The product has no such thing.
    NotSupported,
    /// The user who runs this may not see it.
    NoPermission,
    /// This driver's library does not know the call: a newer driver would.
    MissingSymbol,
}

impl Limit {
    /// A few words for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotSupported => "not supported by this GPU",
            Self::NoPermission => "not permitted for this user",
            Self::MissingSymbol => "needs a newer driver",
        }
    }
}

/// A metric that a GPU does not report, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// NVML index.
    pub device: u32,
    /// Which metric.
    pub metric: MetricId,
    /// Why not.
    pub limit: Limit,
}

/// What one answer that is no value means for the GPU it came from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Never ask again.
    Declined(Limit),
    /// No value this time, and no wonder.
    Absent,
    /// No value this time; the tick is marked.
    Trouble(NvmlStatus),
    /// Nothing more is to be had from this GPU now.
    Fatal,
}

/// Judges an answer that is no value.
pub(super) fn judge(error: &NvmlError) -> Verdict {
    match error {
        NvmlError::NotSupported | NvmlError::VgpuEccNotSupported => {
            Verdict::Declined(Limit::NotSupported)
        }
        NvmlError::NoPermission => Verdict::Declined(Limit::NoPermission),
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => {
            Verdict::Declined(Limit::MissingSymbol)
        }
        // 25 ARGUMENT_VERSION_MISMATCH and 26 DEPRECATED: the library knows another form of the call.
        NvmlError::UnexpectedVariant(25 | 26) => Verdict::Declined(Limit::MissingSymbol),
        NvmlError::GpuLost
        | NvmlError::ResetRequired
        | NvmlError::UnexpectedVariant(super::GPU_NOT_FOUND)
        | NvmlError::LibRmVersionMismatch
        | NvmlError::Uninitialized
        | NvmlError::DriverNotLoaded
        | NvmlError::OperatingSystem => Verdict::Fatal,
        NvmlError::Timeout => Verdict::Trouble(NvmlStatus::Timeout),
        // 27 NOT_READY: a state of the moment, not a fault.
        NvmlError::NotFound | NvmlError::NoData | NvmlError::UnexpectedVariant(27) => {
            Verdict::Absent
        }
        _ => Verdict::Trouble(NvmlStatus::Unknown),
    }
}

/// A GPU's limits: a bit per metric for the fast path, the reasons beside it.
#[derive(Default)]
pub(super) struct Limits {
    declined: AtomicU64,
    answered: AtomicU64,
    reasons: Mutex<Vec<(MetricId, Limit)>>,
}

impl Limits {
    /// Whether a metric is worth a call.
    pub(super) fn allows(&self, metric: MetricId) -> bool {
        self.declined.load(Ordering::Relaxed) & bit(metric) == 0
    }

    /// Why a metric is not to be had, if it is not.
    pub(super) fn of(&self, metric: MetricId) -> Option<Limit> {
        if self.allows(metric) {
            return None;
        }
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let found = reasons.iter().find(|(declined, _)| *declined == metric);
        found.map(|(_, limit)| *limit)
    }

    /// A metric was reported.
    pub(super) fn answered(&self, metric: MetricId) {
        self.answered.fetch_or(bit(metric), Ordering::Relaxed);
    }

    /// Whether a metric was ever reported: a call that always failed is a quirk, one that starts to fail is news.
    pub(super) fn ever_answered(&self, metric: MetricId) -> bool {
        self.answered.load(Ordering::Relaxed) & bit(metric) != 0
    }

    /// Remembers that a metric is not to be had.
    pub(super) fn decline(&self, metric: MetricId, limit: Limit) {
        let before = self.declined.fetch_or(bit(metric), Ordering::Relaxed);
        if before & bit(metric) == 0 {
            let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            reasons.push((metric, limit));
        }
    }

    /// All limits of the GPU at `device`.
    pub(super) fn list(&self, device: u32) -> Vec<Capability> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let capability = |&(metric, limit): &(MetricId, Limit)| Capability {
            device,
            metric,
            limit,
        };
        reasons.iter().map(capability).collect()
    }
}

fn bit(metric: MetricId) -> u64 {
    metric.slot().map_or(0, |slot| 1 << slot)
}
