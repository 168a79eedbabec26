//! Numbers of a few bits, written one after another, the lowest bit first. Knows nothing of what they mean.

/// Appends bits to bytes.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that are not among the bytes yet, in the low end.
    pending: u128,
    /// How many, 0 to 63.
    n_pending: u32,
}

impl BitWriter {
    /// Appends the low `width` bits of `value`, 0 to 64.
    pub(crate) fn put(&mut self, value: u64, width: u32) {
        self.pending |= u128::from(mask(value, width)) << self.n_pending;
        self.n_pending += width;
        if self.n_pending >= u64::BITS {
            self.bytes.extend((self.pending as u64).to_le_bytes());
            self.pending >>= u64::BITS;
            self.n_pending -= u64::BITS;
        }
    }

    /// Appends a signed number with its length before it.
    pub(crate) fn put_signed(&mut self, value: i64) {
        let (code, width) = signed(value);
        self.put(code, LENGTH_BITS);
        self.put(zigzag(value), width);
    }

    /// The bytes, the last one filled up with zeros.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        let rest = self.pending.to_le_bytes();
        self.bytes
            .extend(&rest[..self.n_pending.div_ceil(8) as usize]);
        self.bytes
    }
}

/// Takes bits from bytes.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Next bit.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `width` bits, 0 to 64; `None` past the end.
    pub(crate) fn take(&mut self, width: u32) -> Option<u64> {
        if width as usize > self.left() {
            return None;
        }
        let (byte, offset) = (self.at / 8, (self.at % 8) as u32);
        let mut value = self.word(byte) >> offset;
        if width > u64::BITS - offset {
            value |= u64::from(self.bytes[byte + 8]) << (u64::BITS - offset);
        }
        self.at += width as usize;
        Some(mask(value, width))
    }

    /// Eight bytes from here on, the first lowest; zeros where there are none.
    fn word(&self, at: usize) -> u64 {
        let rest = &self.bytes[at..];
        if let Some(eight) = rest.first_chunk() {
            return u64::from_le_bytes(*eight);
        }
        let bytes = rest.iter().rev();
        bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// The next bit.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// A signed number with its length before it.
    pub(crate) fn take_signed(&mut self) -> Option<i64> {
        let width = match self.take(LENGTH_BITS)? as u32 {
            LONGEST => 64,
            width => width,
        };
        self.take(width).map(unzigzag)
    }

    /// Bits that are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }
}

/// Bits of the length before a signed number.
const LENGTH_BITS: u32 = 6;
/// The length that stands for 64; 63 bits are then written as 64.
const LONGEST: u32 = 63;

/// Length code and width of a signed number.
fn signed(value: i64) -> (u64, u32) {
    let width = u64::BITS - zigzag(value).leading_zeros();
    if width < LONGEST {
        (u64::from(width), width)
    } else {
        (u64::from(LONGEST), 64)
    }
}

/// What `put_signed` writes, in bits.
pub(crate) fn signed_cost(value: i64) -> u64 {
    u64::from(LENGTH_BITS + signed(value).1)
}

/// Small numbers of either sign as small numbers.
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(crate) const fn unzigzag(code: u64) -> i64 {
    (code >> 1) as i64 ^ -((code & 1) as i64)
}

const fn mask(value: u64, width: u32) -> u64 {
    if width >= 64 {
        value
    } else {
        value & ((1 << width) - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken(numbers in prop::collection::vec((any::<u64>(), 0u32..=64), 0..50)) {
            let mut writer = BitWriter::default();
            let mut n_bits = 0;
            for (value, width) in &numbers {
                writer.put(*value, *width);
                writer.put_signed(*value as i64);
                n_bits += u64::from(*width) + signed_cost(*value as i64);
            }
            let bytes = writer.into_bytes();
            prop_assert_eq!(bytes.len() as u64, n_bits.div_ceil(8));
            let mut reader = BitReader::new(&bytes);
            for (value, width) in &numbers {
                prop_assert_eq!(reader.take(*width), Some(mask(*value, *width)));
                prop_assert_eq!(reader.take_signed(), Some(*value as i64));
            }
            prop_assert!(reader.left() < 8);
            prop_assert_eq!(reader.take(8), None);
        }
    }

    #[test]
    fn the_ends_of_the_number_line_survive() {
        for value in [0, 1, -1, i64::MAX, i64::MIN, i64::MAX / 2, i64::MIN / 2] {
            let mut writer = BitWriter::default();
            writer.put_signed(value);
            let bytes = writer.into_bytes();
            assert_eq!(BitReader::new(&bytes).take_signed(), Some(value));
        }
    }
}
