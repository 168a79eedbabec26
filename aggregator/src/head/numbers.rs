//! A few dozen numbers, each in as many bits as the largest of them needs. *(pure)*
//!
//! Either the numbers less the least of them, or their differences less the least of those: whichever is narrower. Simple
//! enough that it costs a few nanoseconds a number to write and one or two to read.

use crate::chunk::varint::{self, unzigzag, zigzag};

/// The first byte is the width in bits, and this where it is that of differences.
const DIFFERENCES: u8 = 0x80;

/// Most bytes of `n` numbers: the first byte, the first number, the least difference, and all of them in full.
pub(super) const fn most_bytes(n: usize) -> usize {
    1 + 2 * varint::MAX_BYTES + n * size_of::<i64>()
}

/// Appends at least one number.
pub(super) fn put(bytes: &mut Vec<u8>, values: &[i64]) {
    let plain = Span::of(values.iter().copied());
    let differences = values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let steps = Span::of(differences.clone());
    if plain.width() <= steps.width() {
        bytes.push(plain.width() as u8);
        varint::put(bytes, zigzag(plain.least));
        pack(bytes, values.iter().copied(), &plain);
    } else {
        bytes.push(steps.width() as u8 | DIFFERENCES);
        varint::put(bytes, zigzag(values[0]));
        varint::put(bytes, zigzag(steps.least));
        pack(bytes, differences, &steps);
    }
}

/// Reads as many numbers as there is room for; as many were put.
pub(super) fn take(mut bytes: &[u8], values: &mut [i64]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    bytes = rest;
    let width = u32::from(first & !DIFFERENCES);
    let mut number = || varint::take(&mut bytes).map_or(0, unzigzag);
    if first & DIFFERENCES == 0 {
        let least = number();
        unpack(bytes, width, values, |packed| {
            least.wrapping_add(packed as i64)
        });
        return;
    }
    let (mut last, least) = (number(), number());
    if let Some((first, rest)) = values.split_first_mut() {
        *first = last;
        unpack(bytes, width, rest, |packed| {
            last = last.wrapping_add(least).wrapping_add(packed as i64);
            last
        });
    }
}

/// How far numbers lie apart.
struct Span {
    least: i64,
    most: i64,
}

impl Span {
    /// Of no numbers, that of a single 0.
    fn of(mut values: impl Iterator<Item = i64>) -> Self {
        let first = values.next().unwrap_or(0);
        values.fold(
            Self {
                least: first,
                most: first,
            },
            |span, value| Self {
                least: span.least.min(value),
                most: span.most.max(value),
            },
        )
    }

    const fn width(&self) -> u32 {
        u64::BITS - (self.most.wrapping_sub(self.least) as u64).leading_zeros()
    }
}

/// Appends each number's distance from the least, the lowest bit first.
fn pack(bytes: &mut Vec<u8>, values: impl Iterator<Item = i64>, span: &Span) {
    let width = span.width();
    if width == 0 {
        return;
    }
    let (mut held, mut n_held) = (0_u128, 0);
    for value in values {
        held |= u128::from(value.wrapping_sub(span.least) as u64) << n_held;
        n_held += width;
        if n_held >= u64::BITS {
            bytes.extend((held as u64).to_le_bytes());
            held >>= u64::BITS;
            n_held -= u64::BITS;
        }
    }
    bytes.extend(&(held as u64).to_le_bytes()[..n_held.div_ceil(8) as usize]);
}

/// Reads distances, and keeps what `of` makes of each.
fn unpack(bytes: &[u8], width: u32, values: &mut [i64], mut of: impl FnMut(u64) -> i64) {
    if width == 0 {
        return values.iter_mut().for_each(|value| *value = of(0));
    }
    let mask = u64::MAX >> (u64::BITS - width);
    for (n, value) in values.iter_mut().enumerate() {
        let bit = n * width as usize;
        *value = of((word_at(bytes, bit / 8) >> (bit % 8)) as u64 & mask);
    }
}

/// Sixteen bytes, of which those beyond the end are 0.
#[inline]
fn word_at(bytes: &[u8], at: usize) -> u128 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(word) = rest.first_chunk() {
        return u128::from_le_bytes(*word);
    }
    let mut word = [0; 16];
    word[..rest.len()].copy_from_slice(rest);
    u128::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_whatever_follows_them(
            values in prop_oneof![
                proptest::collection::vec(-40..40_i64, 1..65),
                proptest::collection::vec(proptest::num::i64::ANY, 1..65),
                (0..i64::MAX, proptest::collection::vec(-3..900_i64, 1..65)).prop_map(|(first, steps)| {
                    steps.iter().scan(first, |last, step| { *last = last.wrapping_add(*step); Some(*last) }).collect()
                }),
            ],
            after in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
        ) {
            let mut bytes = Vec::new();
            put(&mut bytes, &values);
            prop_assert!(bytes.len() <= most_bytes(values.len()));
            bytes.extend(after);
            let mut read = vec![0; values.len()];
            take(&bytes, &mut read);
            prop_assert_eq!(read, values);
        }
    }

    #[test]
    fn what_goes_on_steadily_takes_no_bits() {
        let check = |values: &[i64], expected: usize| {
            let mut bytes = Vec::new();
            put(&mut bytes, values);
            assert_eq!(bytes.len(), expected, "{values:?}");
        };
        check(&[7; 64], 2);
        check(&(0..64).map(|n| 1000 * n).collect::<Vec<_>>(), 4);
        // Between 30 and 45: four bits each.
        check(
            &(0..64).map(|n| 30 + n * n % 16).collect::<Vec<_>>(),
            2 + 32,
        );
    }
}
