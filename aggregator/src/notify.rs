//! Telling people: who is concerned, what they read, when it is sent, and what became of it.
//!
//! `route`, `message`, `pace`, `retry`, `parcel`, `lane` and the three formats are pure; `receivers` reads the
//! operator's file, `target` guards where requests go, `post`, `outbox` and `heartbeat` are the edges.

pub mod dedup;
pub mod lane;
pub mod message;
pub mod pace;
pub mod pagerduty;
pub mod parcel;
pub mod receivers;
pub mod retry;
pub mod route;
pub mod slack;
pub mod target;
#[cfg(test)]
pub(crate) mod testing;
pub mod webhook;
