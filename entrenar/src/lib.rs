//! GPU monitoring that stops the line: the shared vocabulary, the ways to read a GPU, and the single-node library of
//! `docs/gpu-monitoring.md`.
//!
//! This crate has no server in it: no async runtime, no gRPC, no database. Modules stand in the order in which a
//! sample travels.

#![deny(missing_docs)]

pub mod clock;
pub mod unit;

pub mod gpu;
pub mod metric;
pub mod report;

pub mod backend;
pub mod mock;
pub mod nvml;
pub mod sim;
pub mod trace;

pub mod andon;
pub mod expose;
pub mod spark;
pub mod window;

pub mod monitor;
pub mod train;

#[cfg(feature = "config")]
pub mod config;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
