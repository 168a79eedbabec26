//! Metrics about the aggregator itself.
