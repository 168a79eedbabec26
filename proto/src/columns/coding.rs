//! How a group of small numbers is written: all the same, mostly zero, or packed above a base.

use super::{CHOICE_BITS, ColumnsError, WIDTH_BITS};
use crate::bits::{BitReader, BitWriter, signed_cost, unzigzag, zigzag};

/// How much finer than the width of its values the base of packed values is, in bits.
const BASE_GRAIN_BITS: u32 = 3;

/// How the residuals of a group are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// All the same.
    Constant(i64),
    /// Mostly zero: a bit says so; another value has `width` bits, zigzag.
    Sparse { width: u32 },
    /// Each `width` bits above `base << grain(width)`.
    Packed { width: u32, base: i64 },
}

impl Coding {
    /// The cheapest coding, and its cost in bits.
    pub(super) fn cheapest(residuals: impl Iterator<Item = i64>) -> (Self, u64) {
        let (mut low, mut high, mut widest) = (i64::MAX, i64::MIN, 0);
        let (mut n, mut n_zero) = (0u64, 0);
        for residual in residuals {
            low = low.min(residual);
            high = high.max(residual);
            widest = widest.max(zigzag(residual));
            n += 1;
            n_zero += u64::from(residual == 0);
        }
        if n == 0 || low == high {
            return (Self::Constant(low), signed_cost(low));
        }
        let width = bits_of(widest);
        let sparse = u64::from(WIDTH_BITS) + n + (n - n_zero) * u64::from(width);
        let (base, pack) = pack_base(low, high);
        let packed = u64::from(WIDTH_BITS) + signed_cost(base) + n * u64::from(pack);
        if sparse < packed {
            (Self::Sparse { width }, sparse)
        } else {
            (Self::Packed { width: pack, base }, packed)
        }
    }

    pub(super) fn put(self, out: &mut BitWriter) {
        match self {
            Self::Constant(value) => {
                out.put(0, CHOICE_BITS);
                out.put_signed(value);
            }
            Self::Sparse { width } => {
                out.put(1, CHOICE_BITS);
                out.put(u64::from(width - 1), WIDTH_BITS);
            }
            Self::Packed { width, base } => {
                out.put(2, CHOICE_BITS);
                out.put(u64::from(width - 1), WIDTH_BITS);
                out.put_signed(base);
            }
        }
    }

    pub(super) fn put_value(self, out: &mut BitWriter, residual: i64) {
        match self {
            Self::Constant(_) => {}
            Self::Sparse { .. } if residual == 0 => out.put(0, 1),
            Self::Sparse { width } => {
                out.put(1, 1);
                out.put(zigzag(residual), width);
            }
            Self::Packed { width, base } => {
                out.put(residual.wrapping_sub(base << grain(width)) as u64, width);
            }
        }
    }

    pub(super) fn take(bits: &mut BitReader<'_>) -> Result<Self, ColumnsError> {
        let end = ColumnsError::Truncated;
        match bits.take(CHOICE_BITS).ok_or(end)? {
            0 => bits.take_signed().map(Self::Constant).ok_or(end),
            1 => {
                let width = bits.take(WIDTH_BITS).ok_or(end)? as u32 + 1;
                Ok(Self::Sparse { width })
            }
            2 => {
                let width = bits.take(WIDTH_BITS).ok_or(end)? as u32 + 1;
                let base = bits.take_signed().ok_or(end)?;
                Ok(Self::Packed { width, base })
            }
            other => Err(ColumnsError::Coding(other)),
        }
    }

    pub(super) fn take_value(self, bits: &mut BitReader<'_>) -> Option<i64> {
        match self {
            Self::Constant(value) => Some(value),
            Self::Sparse { width } => {
                if bits.flag()? {
                    bits.take(width).map(unzigzag)
                } else {
                    Some(0)
                }
            }
            Self::Packed { width, base } => {
                let above = bits.take(width)? as i64;
                Some((base << grain(width)).wrapping_add(above))
            }
        }
    }
}

/// Finest base and narrowest width with which values from `low` to `high` can be packed.
fn pack_base(low: i64, high: i64) -> (i64, u32) {
    let narrowest = bits_of(high.wrapping_sub(low) as u64);
    (narrowest..64)
        .map(|width| (low >> grain(width), width))
        .find(|(base, width)| bits_of(high.wrapping_sub(base << grain(*width)) as u64) <= *width)
        .unwrap_or((low >> grain(64), 64))
}

/// Low bits of a base that are not written.
const fn grain(width: u32) -> u32 {
    width.saturating_sub(BASE_GRAIN_BITS)
}

const fn bits_of(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}
