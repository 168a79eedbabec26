//! Telling people: who is concerned, what they read, when it is sent, and what became of it.

pub mod dedup;
pub mod lane;
pub mod pace;
pub mod parcel;
pub mod retry;
pub mod route;
