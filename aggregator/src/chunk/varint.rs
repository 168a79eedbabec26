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
        _ => take_longer(bytes),
    }
}

/// One of two to eight bytes, where eight bytes are there: without a branch for each, which nobody could foresee.
#[inline]
fn take_longer(bytes: &mut &[u8]) -> Option<u64> {
    let Some(word) = bytes.first_chunk() else {
        return take_any(bytes);
    };
    let word = u64::from_le_bytes(*word);
    let ends = !word & HIGH_BITS;
    if ends == 0 {
        return take_any(bytes);
    }
    *bytes = &bytes[ends.trailing_zeros() as usize / 8 + 1..];
    // Everything up to the end of the first number.
    Some(gathered(word & (ends ^ (ends - 1))))
}

/// The number whose bytes these are: groups of 7 bits are pushed together, two by two.
#[inline]
const fn gathered(bytes: u64) -> u64 {
    let sevens = bytes & !HIGH_BITS;
    let twice = sevens & 0x007f_007f_007f_007f | (sevens & 0x7f00_7f00_7f00_7f00) >> 1;
    let fourfold = twice & 0x0000_3fff_0000_3fff | (twice & 0x3fff_0000_3fff_0000) >> 2;
    fourfold & 0x0fff_ffff | (fourfold & 0x0fff_ffff_0000_0000) >> 4
}

/// Takes some numbers off the front; `None` as [`take`], of whichever of them. All at once where they take eight bytes
/// together at most.
#[inline]
pub(crate) fn take_some<const N: usize>(bytes: &mut &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    if let Some(word) = bytes.first_chunk() {
        let word = u64::from_le_bytes(*word);
        let all_ends = !word & HIGH_BITS;
        let before_last = (1..N).fold(all_ends, |ends, _| ends & ends.wrapping_sub(1));
        if before_last != 0 {
            let (mut ends, mut begin) = (all_ends, 0);
            for number in &mut numbers {
                let end = ends.trailing_zeros() + 1;
                ends &= ends - 1;
                *number = gathered(word >> begin & u64::MAX >> (u64::BITS - (end - begin)));
                begin = end;
            }
            *bytes = &bytes[begin as usize / 8..];
            return Some(numbers);
        }
    }
    for number in &mut numbers {
        *number = take(bytes)?;
    }
    Some(numbers)
}

/// Set in every byte of a number but its last.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

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

/// Leaves `n` numbers out, eight bytes at a time; all that there are, where there are fewer.
pub(crate) fn skip(bytes: &mut &[u8], mut n: u32) {
    while n > 0 {
        let Some(word) = bytes.first_chunk() else {
            return skip_one_by_one(bytes, n);
        };
        // A number ends with a byte whose highest bit is not set.
        let mut ends = !u64::from_le_bytes(*word) & HIGH_BITS;
        let n_here = ends.count_ones();
        if n_here < n {
            n -= n_here;
            *bytes = &bytes[size_of::<u64>()..];
            continue;
        }
        for _ in 1..n {
            ends &= ends - 1;
        }
        *bytes = &bytes[ends.trailing_zeros() as usize / 8 + 1..];
        return;
    }
}

fn skip_one_by_one(bytes: &mut &[u8], n: u32) {
    for _ in 0..n {
        let end = bytes.iter().position(|byte| byte & 0x80 == 0);
        *bytes = &bytes[end.map_or(bytes.len(), |end| end + 1)..];
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn some_at_once_are_as_one_by_one(
            numbers in proptest::collection::vec((0..=64_u32, proptest::num::u64::ANY), 0..12),
            cut in 0..8_usize,
        ) {
            let mut bytes = Vec::new();
            let numbers = numbers.into_iter().map(|(bits, n)| n.checked_shr(bits).unwrap_or(0));
            numbers.for_each(|number| put(&mut bytes, number));
            bytes.truncate(bytes.len().saturating_sub(cut));
            let (mut one, mut four) = (bytes.as_slice(), bytes.as_slice());
            loop {
                let singly: Option<Vec<u64>> = (0..4).map(|_| take(&mut one)).collect();
                let together = take_some::<4>(&mut four);
                prop_assert_eq!(together.map(Vec::from), singly.clone());
                if singly.is_none() {
                    break;
                }
                prop_assert_eq!(one, four);
            }
        }
    }
}
