//! One column of a chunk: which samples have a value, and the values, constant, as differences or as `pco` writes them.

use super::varint::{self, unzigzag, zigzag};
use super::{ChunkError, Profile};
use super::{numbers, packed};

/// Some samples have no value: a bitmap stands first.
const SPARSE: u8 = 1;
/// All values are the same: it stands once.
const CONSTANT: u8 = 2;
/// Differences of differences: for times, and for counters that rise evenly.
const TWICE: u8 = 4;
/// The body is a zstd frame.
const ZSTD: u8 = 8;
/// After the bitmap the values stand as `pco` writes them.
const PCO: u8 = 16;
const KNOWN: u8 = SPARSE | CONSTANT | TWICE | ZSTD | PCO;

/// Fast, and within a few percent of higher levels on differences of sensor values.
pub(super) const ZSTD_LEVEL: i32 = 1;

/// A column that takes at least this many bits a value as differences is noise, and `pco` is tried on it. Below, it is
/// hardly ever shorter, and always slower.
const NOISE_BITS: usize = 2;

/// `pco` needs some values to learn from.
const PCO_LEAST: usize = 64;

/// How a column was written, and its bytes. `None`: no sample has a value.
pub(super) fn encode(values: &[Option<i64>], profile: Profile) -> Option<(u8, Vec<u8>)> {
    let present: Vec<i64> = values.iter().flatten().copied().collect();
    let first = *present.first()?;
    let mut how = 0;
    let mut bitmap = Vec::new();
    if present.len() < values.len() {
        how |= SPARSE;
        put_bitmap(&mut bitmap, values);
    }
    if present.iter().all(|v| *v == first) {
        let mut body = bitmap;
        varint::put(&mut body, zigzag(first));
        return Some(shorter(how | CONSTANT, body));
    }
    let mut body = bitmap.clone();
    body.reserve(present.len() * 2);
    let differences = how | put_differences(&mut body, &present);
    let (chosen, body) = shorter(differences, body);
    if present.len() < PCO_LEAST || body.len() * 8 < present.len() * NOISE_BITS {
        return Some((chosen, body));
    }
    let mut other = bitmap;
    match numbers::put(&mut other, &present, profile) {
        Ok(()) if other.len() < body.len() => Some((how | PCO, other)),
        _ => Some((chosen, body)),
    }
}

/// The body as it is or as a zstd frame.
fn shorter(how: u8, body: Vec<u8>) -> (u8, Vec<u8>) {
    match packed::pack(&body, ZSTD_LEVEL) {
        Ok(smaller) if smaller.len() < body.len() => (how | ZSTD, smaller),
        _ => (how, body),
    }
}

/// One value or absence for each of `n_samples` samples.
pub(super) fn decode(
    how: u8,
    body: &[u8],
    n_samples: usize,
) -> Result<Vec<Option<i64>>, ChunkError> {
    let (present, values) = decode_present(how, body, n_samples)?;
    let Some(present) = present else {
        return Ok(values.into_iter().map(Some).collect());
    };
    let mut values = values.into_iter();
    let place = |there| if there { values.next() } else { None };
    Ok(present.into_iter().map(place).collect())
}

/// The values that there are, and which of `n_samples` samples have one; `None`: all of them.
pub(super) fn decode_present(
    how: u8,
    body: &[u8],
    n_samples: usize,
) -> Result<(Option<Vec<bool>>, Vec<i64>), ChunkError> {
    if how & !KNOWN != 0 {
        return Err(ChunkError::Malformed("unknown column encoding"));
    }
    let plain;
    let mut bytes = if how & ZSTD == 0 {
        body
    } else {
        plain = packed::unpack(body, largest_body(n_samples))
            .map_err(|_| ChunkError::Malformed("column does not inflate"))?;
        plain.as_slice()
    };
    let present = take_bitmap(&mut bytes, how, n_samples)?;
    let there = |present: &Vec<bool>| present.iter().filter(|p| **p).count();
    let count = present.as_ref().map_or(n_samples, there);
    let values = take_values(&mut bytes, how, count)?;
    if !bytes.is_empty() {
        return Err(ChunkError::Malformed("bytes after the last value"));
    }
    Ok((present, values))
}

/// What a column of `n_samples` values takes at most before compression.
fn largest_body(n_samples: usize) -> usize {
    n_samples.div_ceil(8) + (n_samples + 1) * varint::MAX_BYTES
}

fn put_bitmap(body: &mut Vec<u8>, values: &[Option<i64>]) {
    for eight in values.chunks(8) {
        let bits = eight.iter().enumerate();
        body.push(bits.fold(0, |byte, (i, v)| byte | u8::from(v.is_some()) << i));
    }
}

fn take_bitmap(
    bytes: &mut &[u8],
    how: u8,
    n_samples: usize,
) -> Result<Option<Vec<bool>>, ChunkError> {
    if how & SPARSE == 0 {
        return Ok(None);
    }
    let (bitmap, rest) = bytes
        .split_at_checked(n_samples.div_ceil(8))
        .ok_or(ChunkError::Malformed("bitmap cut short"))?;
    *bytes = rest;
    let bit = |i: usize| bitmap[i / 8] >> (i % 8) & 1 == 1;
    Ok(Some((0..n_samples).map(bit).collect()))
}

/// Writes the shorter of first and second differences; returns the flag that says which.
fn put_differences(body: &mut Vec<u8>, values: &[i64]) -> u8 {
    let once = differences(values.to_vec());
    let twice = differences(once.clone());
    let (chosen, flag) = if length(&twice) < length(&once) {
        (twice, TWICE)
    } else {
        (once, 0)
    };
    for difference in chosen {
        varint::put(body, zigzag(difference));
    }
    flag
}

fn take_values(bytes: &mut &[u8], how: u8, count: usize) -> Result<Vec<i64>, ChunkError> {
    let mut take = || {
        varint::take(bytes)
            .map(unzigzag)
            .ok_or(ChunkError::Malformed("value cut short"))
    };
    if how & CONSTANT != 0 {
        return Ok(vec![take()?; count]);
    }
    if how & PCO != 0 {
        return numbers::take(bytes, count);
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(take()?);
    }
    sum_up(&mut values);
    if how & TWICE != 0 {
        sum_up(&mut values);
    }
    Ok(values)
}

/// Each value less the one before it; the first stays. Wraps, and [`sum_up`] wraps back.
fn differences(mut values: Vec<i64>) -> Vec<i64> {
    for i in (1..values.len()).rev() {
        values[i] = values[i].wrapping_sub(values[i - 1]);
    }
    values
}

/// The inverse of [`differences`].
fn sum_up(values: &mut [i64]) {
    for i in 1..values.len() {
        values[i] = values[i].wrapping_add(values[i - 1]);
    }
}

/// Bytes that the differences take as varints.
fn length(differences: &[i64]) -> u32 {
    let bits = differences
        .iter()
        .map(|d| (64 - zigzag(*d).leading_zeros()).max(1));
    bits.map(|b| b.div_ceil(7)).sum()
}
