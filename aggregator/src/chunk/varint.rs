//! Small integers in few bytes: LEB128, and zigzag so that small negatives are small too.

/// Appends `value`, seven bits a byte, lowest first.
pub(crate) fn put(bytes: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes one number off the front; `None` if the bytes end inside it or it is longer than any that `put` was given
/// by this crate.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u128> {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(MAX_BYTES) {
        value |= u128::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// A 64-bit number with two bits of tag takes at most this many bytes.
pub(crate) const MAX_BYTES: usize = 10;

/// 0, -1, 1, -2, … as 0, 1, 2, 3, …
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
