//! Samples as Prometheus text.
