//! Noisy numbers as `pco` writes them: about a tenth shorter than differences in a zstd frame, and as fast to read.

use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, errors::PcoResult};

use super::{ChunkError, Profile};

/// Level 8 is a hundredth shorter at twice the time.
const LEVEL: usize = 4;

/// Appends all values, at least one. How differences are taken is chosen here: `pco` takes as long to choose as to write,
/// and is 4 % shorter for it. Who asked for the small profile gets that.
pub(super) fn put(body: &mut Vec<u8>, values: &[i64], profile: Profile) -> PcoResult<()> {
    let file = FileCompressor::default();
    file.write_header(&mut *body)?;
    let differences = match profile {
        Profile::Exact => DeltaSpec::TryConsecutive(order(values)),
        Profile::Sensor => DeltaSpec::Auto,
    };
    let config = ChunkConfig::default()
        .with_compression_level(LEVEL)
        .with_delta_spec(differences);
    let mut chunk = file.chunk_compressor(values, &config)?;
    chunk.write_meta(&mut *body)?;
    chunk.write_page(0, &mut *body)?;
    Ok(())
}

/// How often differences are taken: as often as makes the numbers smallest.
fn order(values: &[i64]) -> usize {
    let bits = |number: i64| u64::from(i64::BITS - number.unsigned_abs().leading_zeros());
    let (mut before, mut step) = (values[0], 0);
    let mut sizes = [0_u64; 3];
    for value in values {
        // Of a level it is the distance from some other value that counts.
        sizes[0] += bits(value.wrapping_sub(values[0]));
        let next = value.wrapping_sub(before);
        sizes[1] += bits(next);
        sizes[2] += bits(next.wrapping_sub(step));
        (before, step) = (*value, next);
    }
    (0..3).min_by_key(|order| sizes[*order]).unwrap_or(1)
}

/// Takes `count` values, and moves on behind them.
pub(super) fn take(bytes: &mut &[u8], count: usize) -> Result<Vec<i64>, ChunkError> {
    let mut values = vec![0; count];
    match read(bytes, &mut values) {
        Ok(rest) => {
            *bytes = rest;
            Ok(values)
        }
        Err(_) => Err(ChunkError::Malformed("numbers cannot be read")),
    }
}

fn read<'a>(bytes: &'a [u8], values: &mut [i64]) -> PcoResult<&'a [u8]> {
    let (file, rest) = FileDecompressor::new(bytes)?;
    let (mut chunk, rest) = file.chunk_decompressor(rest)?;
    let mut page = chunk.page_decompressor(rest, values.len())?;
    page.read(values)?;
    Ok(page.into_src())
}
