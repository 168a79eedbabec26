//! GPM: what a GPU's own performance counters say of the time between two looks, on Hopper and later.
//!
//! A look is a sample that the driver fills; two samples make means over the time between them. Nothing is locked, no
//! profiler is disturbed, and no privilege is needed. It is also the only true word on PCIe traffic: the counter that
//! can be had without it has 32 bits, and a busy link goes round it twelve times a second.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::{Device, GpmSample};

use crate::clock;
use crate::metric::{self, MetricId};

/// What is asked for, and in which unit the answer comes.
const ASKED: [(MetricId, GpmMetricId, Meaning); 5] = [
    (metric::SM_ACTIVE, GpmMetricId::SmUtil, Meaning::Percent),
    (
        metric::TENSOR_ACTIVE,
        GpmMetricId::AnyTensorUtil,
        Meaning::Percent,
    ),
    (
        metric::DRAM_ACTIVE,
        GpmMetricId::DramBwUtil,
        Meaning::Percent,
    ),
    (
        metric::PCIE_TX,
        GpmMetricId::PcieTxPerSec,
        Meaning::MebibytesPerSecond,
    ),
    (
        metric::PCIE_RX,
        GpmMetricId::PcieRxPerSec,
        Meaning::MebibytesPerSecond,
    ),
];

/// The metric whose limits stand for all of GPM: it is asked for or none is.
pub(super) const GATE: MetricId = metric::SM_ACTIVE;

#[derive(Clone, Copy)]
enum Meaning {
    /// Of the time, 0 to 100.
    Percent,
    /// A rate, of which the total is made here.
    MebibytesPerSecond,
}

/// One GPU's last look, and the totals made of rates.
#[derive(Default)]
pub(super) struct Gpm {
    /// Taken out while the driver is asked, so that a call that hangs holds no lock.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    look: Option<(GpmSample<'static>, Instant)>,
    /// Bytes since the first look, by place in [`ASKED`].
    totals: [f64; ASKED.len()],
}

impl Gpm {
    /// Metrics that come from here where GPM is to be had.
    pub(super) fn metrics() -> impl Iterator<Item = MetricId> {
        ASKED.iter().map(|(metric, ..)| *metric)
    }

    /// Looks once more. The first look only begins the totals; `each` gets what is known since the one before, in the
    /// catalogue's integers. A GPU without GPM is [`NvmlError::NotSupported`].
    pub(super) fn read(
        &self,
        device: &Device<'static>,
        each: impl FnMut(MetricId, i64),
    ) -> Result<(), NvmlError> {
        let before = self.last().look.take();
        // Asked once: a GPU that has been looked at has it.
        if before.is_none() && !device.gpm_support()? {
            return Err(NvmlError::NotSupported);
        }
        let look = (device.gpm_sample()?, clock::instant());
        let answers = match &before {
            Some((earlier, _)) => {
                gpm_metrics_get(device.nvml(), earlier, &look.0, &ASKED.map(|(_, id, _)| id))?
            }
            None => Vec::new(),
        };
        let seconds = before.map_or(0.0, |(_, at)| look.1.duration_since(at).as_secs_f64());
        // Two looks within one turn of the counters give no number.
        let values = answers.into_iter().map(|answer| {
            let value = answer.ok()?.value;
            (value.is_finite() && value >= 0.0).then_some(value)
        });
        let mut last = self.last();
        last.tell(&values.collect::<Vec<_>>(), seconds, each);
        last.look = Some(look);
        Ok(())
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    /// `values`: in the order of [`ASKED`], empty at the first look.
    fn tell(&mut self, values: &[Option<f64>], seconds: f64, mut each: impl FnMut(MetricId, i64)) {
        for (place, (metric, _, meaning)) in ASKED.into_iter().enumerate() {
            let value = values.get(place).copied().flatten();
            match (meaning, value) {
                (Meaning::Percent, Some(percent)) => {
                    each(metric, ((percent * 1e4).round() as i64).min(1_000_000));
                }
                (Meaning::Percent, None) => {}
                (Meaning::MebibytesPerSecond, rate) => {
                    self.totals[place] += rate.unwrap_or(0.0) * f64::from(1 << 20) * seconds;
                    each(metric, self.totals[place] as i64);
                }
            }
        }
    }
}
