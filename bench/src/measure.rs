//! CPU time, and what is said of many measurements.

use std::time::Duration;

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread: what a busy machine does not add to.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The value below which a share of all values lies; `None` without values.
pub fn quantile(values: &[Duration], share: f64) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

/// Lets criterion count CPU time of the thread instead of wall time.
pub struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        thread_cpu()
    }

    fn end(&self, began: Duration) -> Duration {
        thread_cpu().saturating_sub(began)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Nanoseconds
    }
}

/// Shows nanoseconds, or nanoseconds of CPU an element.
struct Nanoseconds;

impl ValueFormatter for Nanoseconds {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "ns"
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        let (Throughput::Elements(n) | Throughput::Bytes(n)) = *throughput else {
            return "ns";
        };
        for ns in values {
            *ns /= n as f64;
        }
        "ns/element"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "ns"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let at = |share| quantile(&values, share).map(|d| d.as_millis());
        assert_eq!(at(0.0), Some(1));
        assert_eq!(at(0.5), Some(51));
        assert_eq!(at(0.99), Some(99));
        assert_eq!(at(1.0), Some(100));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
