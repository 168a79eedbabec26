//! The harness of the stories: a fleet in virtual time, where an hour passes at once; and what real programs need.
//!
//! Agents are the simulator's nodes with a numbered, kept story; the aggregator is the real line over the real
//! in-memory store. Links can be cut, agents can die, the aggregator can restart; what would have been sent is counted.

#![forbid(unsafe_code)]

pub mod external;
mod fleet;
pub mod process;
pub mod receiver;
pub mod talker;

pub use fleet::{Crash, Fleet, Told};

/// HTTP clients want to know once per process which cryptography to use.
pub fn choose_cryptography() {
    // Already chosen by another test: the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
