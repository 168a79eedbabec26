//! What a GPU is, where it sits, and what it says at one instant.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::metric::{METRIC_COUNT, MetricId};

/// A host, by the name it reports under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub Arc<str>);

/// A GPU's identity: its UUID, or a MIG instance's own UUID. Where it sits is not who it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GpuUuid(pub Arc<str>);

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
text_id!(NodeId);
text_id!(GpuUuid);

/// What a GPU is: facts that hold until the driver or the hardware changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInfo {
    /// Identity.
    pub uuid: GpuUuid,
    /// NVML index on its node; `device` in JSON and labels.
    pub index: u32,
    /// Product name, for example `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// PCI address, for example `00000000:04:00.0`.
    pub pci_bus_id: Option<String>,
    /// Board serial number.
    pub serial: Option<String>,
    /// Device memory.
    pub memory_total_bytes: Option<u64>,
    /// The physical GPU, if this is a MIG instance.
    pub parent: Option<GpuUuid>,
}

impl Default for GpuUuid {
    fn default() -> Self {
        Self::from("")
    }
}

/// One GPU's metrics at one instant, in the catalogue's integer units. What the GPU cannot say is absent.
#[derive(Clone, PartialEq, Eq)]
pub struct Values([i64; METRIC_COUNT]);

/// Marks an absent value inside [`Values`]; never visible outside.
const ABSENT: i64 = i64::MIN;

impl Default for Values {
    fn default() -> Self {
        Self([ABSENT; METRIC_COUNT])
    }
}

impl Values {
    /// The value of one metric, in the catalogue's integer unit; `None` when the GPU did not say.
    pub fn get(&self, metric: MetricId) -> Option<i64> {
        self.0.get(metric.slot()?).copied().filter(|v| *v != ABSENT)
    }

    /// Sets or removes one metric. Unknown metrics are ignored.
    pub fn set(&mut self, metric: MetricId, value: impl Into<Option<i64>>) {
        if let Some(slot) = metric.slot() {
            self.0[slot] = value.into().unwrap_or(ABSENT);
        }
    }

    /// The same, by value: `Values::default().with(TEMPERATURE, 45)`.
    #[must_use]
    pub fn with(mut self, metric: MetricId, value: impl Into<Option<i64>>) -> Self {
        self.set(metric, value);
        self
    }

    /// The value in its display unit (watts, seconds, a ratio of 0 to 1); `None` when the GPU did not say.
    pub fn display(&self, metric: MetricId) -> Option<f64> {
        Some(metric.def()?.to_display(self.get(metric)?))
    }

    /// All values that are there.
    pub fn iter(&self) -> impl Iterator<Item = (MetricId, i64)> + '_ {
        (0..METRIC_COUNT)
            .filter(|&i| self.0[i] != ABSENT)
            .map(|i| (MetricId::from_slot(i), self.0[i]))
    }

    /// Takes over what `newer` says; keeps the rest.
    pub fn overlay(&mut self, newer: &Self) {
        for (metric, value) in newer.iter() {
            self.set(metric, value);
        }
    }

    /// Whether nothing at all was said.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|v| *v == ABSENT)
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(m, v)| (m.def().map_or("?", |d| d.name), v)),
            )
            .finish()
    }
}
