//! Small integers in few bytes: LEB128, and zigzag so that small negatives are small too.

/// Appends `value`, seven bits a byte, lowest first.
pub(crate) fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes one number off the front; `None` if the bytes end inside it, or if it does not fit.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    // Nearly all numbers are short.
    match **bytes {
        [low, ref rest @ ..] if low < 0x80 => {
            *bytes = rest;
            Some(low.into())
        }
        [low, high, ref rest @ ..] if high < 0x80 => {
            *bytes = rest;
            Some(u64::from(low & 0x7f) | u64::from(high) << 7)
        }
        _ => take_any(bytes),
    }
}

fn take_any(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(MAX_BYTES) {
        let low = u64::from(byte & 0x7f);
        let shifted = low << (7 * i);
        if shifted >> (7 * i) != low {
            return None;
        }
        value |= shifted;
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// What a number takes at most.
pub(crate) const MAX_BYTES: usize = 10;

/// The same for a number that may be longer: a short one is written as [`put`] writes it.
pub(crate) fn put_long(bytes: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes one number that may be longer off the front; `None` as [`take`].
pub(crate) fn take_long(bytes: &mut &[u8]) -> Option<u128> {
    // Where it is too long for that, nothing is taken.
    if let Some(short) = take(bytes) {
        return Some(short.into());
    }
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(MAX_LONG_BYTES) {
        let low = u128::from(byte & 0x7f);
        let shifted = low << (7 * i);
        if shifted >> (7 * i) != low {
            return None;
        }
        value |= shifted;
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// What a long number takes at most.
pub(crate) const MAX_LONG_BYTES: usize = 19;

/// 0, -1, 1, -2, … as 0, 1, 2, 3, …
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
