//! The per-node daemon: reads the GPUs, keeps what they say on disk, and streams it to the aggregator.

pub mod config;

pub mod evidence;
pub mod holder;
pub mod probe;

pub mod spool;

pub mod status;
pub mod uplink;
