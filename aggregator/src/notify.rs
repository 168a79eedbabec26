//! Telling people: who is concerned, what they read, when it is sent, and what became of it.
//!
//! `route`, `message`, `pace`, `retry`, `parcel`, `lane` and the three formats are pure; `receivers` reads the
//! operator's file, `target` guards where requests go, `post`, `outbox` and `heartbeat` are the edges.

pub mod decider;
pub mod dedup;
pub mod heartbeat;
pub mod lane;
pub mod message;
pub mod outbox;
pub mod pace;
pub mod pagerduty;
pub mod parcel;
pub mod post;
pub mod receivers;
mod recorder;
pub mod retry;
pub mod route;
pub mod slack;
pub mod target;
#[cfg(test)]
pub(crate) mod testing;
pub mod webhook;
