//! The façade of the page `docs/gpu-monitoring.md`: one node, plain integers, a clock of its own.
//!
//! It converts once, holds the lock, the clock and the threads, and leaves what it knows to the rest of the crate. The
//! fleet's rules are not here: the thresholds of this façade are the page's.

pub mod gpu;
pub mod prometheus;

mod alert;
mod andon;
mod http;
mod line;
mod metrics;
mod reader;

/// The page's Rust blocks, run as they stand by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/gpu-monitoring.md")]
mod page {}
