//! What must hold of any bytes, for each format that comes from outside or from a disk.
//!
//! A target takes bytes and looks at them in two ways: as a blob to read, once as it stands and once with its checksum put
//! right, so that what is behind the checksum is looked at too; and as a recipe for values to write and read again. It
//! panics where something does not hold. Property tests and `cargo xtask fuzz` call the same functions.

#![forbid(unsafe_code)]

mod bytes;
mod chunk;
mod journal;
mod rollup;
mod sheet;
mod wire;

pub mod seed;

pub use self::bytes::{damaged, dressed};
pub use self::chunk::chunk;
pub use self::journal::journal;
pub use self::rollup::rollup;
pub use self::sheet::sheet;
pub use self::wire::wire;

/// One format.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// Panics where these bytes make something not hold.
    pub check: fn(&[u8]),
    /// Whole blobs to begin with, made by the writer itself.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Of a format that carries its own checksum.
    pub checked: Option<Checked>,
}

/// A format that notices every damage.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// What the writer makes of a recipe.
    pub write: fn(&[u8]) -> Vec<Vec<u8>>,
    /// Whether the reader takes a blob in any way.
    pub reads: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "chunk",
        check: chunk,
        seeds: seed::chunks,
        checked: Some(Checked {
            write: chunk::write,
            reads: chunk::reads,
        }),
    },
    Target {
        name: "rollup",
        check: rollup,
        seeds: seed::rollups,
        checked: Some(Checked {
            write: rollup::write,
            reads: rollup::reads,
        }),
    },
    Target {
        name: "journal",
        check: journal,
        seeds: seed::journals,
        checked: Some(Checked {
            write: journal::write,
            reads: journal::reads,
        }),
    },
    Target {
        name: "sheet",
        check: sheet,
        seeds: seed::sheets,
        checked: Some(Checked {
            write: sheet::write,
            reads: sheet::reads,
        }),
    },
    Target {
        name: "wire",
        check: wire,
        seeds: seed::wires,
        checked: None,
    },
];
