//! The per-node daemon: reads the GPUs, keeps what they say on disk, and streams it to the aggregator.
//!
//! ```text
//! backend ─► probe ─► sampler ─► spool ═► uplink ─► the aggregator
//!               └─ events ─────────┘ (disk)
//! ```

pub mod backend;
pub mod config;
pub mod log;

pub mod evidence;
pub mod holder;
pub mod probe;
pub mod sampler;

pub mod spool;

pub mod uplink;

mod run;
pub mod status;

pub use run::{Seams, run};
