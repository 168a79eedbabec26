//! The lamp: what a GPU, a node or the fleet looks like from across the room.

use serde::{Deserialize, Serialize};

/// The summary that a lamp shows, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Light {
    /// Nothing is unwelcome.
    Green,
    /// In maintenance.
    Blue,
    /// No data: unknown, which is never "recovered".
    Grey,
    /// Something to look at in working hours.
    Yellow,
    /// Someone is called.
    Red,
}
