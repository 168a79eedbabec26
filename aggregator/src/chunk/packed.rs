//! zstd frames of a few kilobytes, many in a row. Making a context takes longer than such a frame, so each thread keeps its
//! own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

thread_local! {
    /// By level.
    static PACKERS: RefCell<BTreeMap<i32, Compressor<'static>>> = const { RefCell::new(BTreeMap::new()) };
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The bytes as a frame.
pub(crate) fn pack(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    PACKERS.with_borrow_mut(|packers| {
        if let Some(packer) = packers.get_mut(&level) {
            return packer.compress(bytes);
        }
        let mut packer = Compressor::new(level)?;
        let packed = packer.compress(bytes);
        packers.insert(level, packer);
        packed
    })
}

/// What a frame holds; an error where that is more than `most` bytes, or the frame is none.
pub(crate) fn unpack(frame: &[u8], most: usize) -> io::Result<Vec<u8>> {
    UNPACKER.with_borrow_mut(|unpacker| match unpacker {
        Some(unpacker) => unpacker.decompress(frame, most),
        none => none.insert(Decompressor::new()?).decompress(frame, most),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_frame_does_not_spoil_the_next() {
        let text = b"the same, the same, the same, the same".repeat(9);
        for level in [1, 3, 1] {
            let frame = pack(&text, level).unwrap();
            assert!(frame.len() < text.len());
            assert!(unpack(&frame[..frame.len() / 2], text.len()).is_err());
            assert!(unpack(&frame, text.len() - 1).is_err());
            assert_eq!(unpack(&frame, text.len()).unwrap(), text);
        }
    }
}
