//! The wire between agents and aggregator: the generated messages, and conversions to and from the domain's types.
//!
//! Nothing outside this crate sees both. The bytes are drawn in `docs/formats/wire.md`.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bits;
mod codec;
mod columns;
pub mod convert;
pub mod ranges;

pub use columns::ColumnsError;
pub use convert::{
    ConvertError, Decoded, decode_hello, decode_record, encode_hello, encode_record,
};
pub use ranges::RangeSet;

/// The messages as protobuf declares them.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod wire {
    include!("generated/entrenar.fleet.v1.rs");
}

/// The compiled `.proto` files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");

/// Longest message either side takes, in bytes. A longer one ends the stream with `OutOfRange`.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
