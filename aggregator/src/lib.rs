//! The centre: takes what the agents report, keeps it, watches it with the Andon rules, tells people, and answers
//! browsers, scripts and Prometheus.
//!
//! Modules stand in the order in which a sample travels. Pure ones (`chunk`, `head`, `andon`, `incident`, most of
//! `notify`, `line`) are told the time and touch nothing; the others are edges. `run` wires them.

#![forbid(unsafe_code)]

mod alone;
pub mod certs;
pub mod config;
mod database;
mod leave;
mod reload;
mod replay;
mod run;
mod tls;

pub mod access;
pub mod ingest;
pub mod line;

pub mod chunk;
pub mod head;
pub mod rollup;
pub mod store;

pub mod andon;
pub mod backtest;
pub mod incident;
pub mod notify;

pub mod query;
pub mod status;
pub mod web;

pub use leave::Leave;
pub use run::{Running, StartError, run_until_signal, start};
pub use tls::install_provider as install_crypto_provider;
