//! What is unwelcome, and one cord watching for it. *(pure)*
//!
//! A [`Threshold`] judges a value, a [`Patience`] says how long trouble must last and how long it must be gone, and a
//! [`Cord`] puts the two together for one thing that is watched. None of them reads a clock: time arrives with the
//! sample.

mod cord;
mod light;
mod rule;

pub use cord::{Cord, CordChange};
pub use light::Light;
pub use rule::{Patience, Threshold, Verdict};
