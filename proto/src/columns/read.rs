//! Reads columns: once over the bits, straight into the rows.

use entrenar::gpu::Values;
use entrenar::metric::MetricId;

use super::coding::Coding;
use super::guess::{Guess, HEAD_GUESSES, STEP_GUESSES};
use super::{CHOICE_BITS, COUNT_BITS, ColumnsError, VERSION, WIDTH_BITS};
use crate::bits::BitReader;

/// Fills `rows` from bytes; says how many columns were of metrics that this build does not know.
pub(crate) fn decode(bytes: &[u8], gpus: usize, rows: &mut [Values]) -> Result<u32, ColumnsError> {
    let Some((&version, bytes)) = bytes.split_first() else {
        return Ok(0);
    };
    if version != VERSION {
        return Err(ColumnsError::Version(version));
    }
    let mut bits = BitReader::new(bytes);
    let masks = Masks::take(&mut bits, rows.len()).ok_or(ColumnsError::Truncated)?;
    let n_columns = bits.take(COUNT_BITS).ok_or(ColumnsError::Truncated)?;
    let mut columns = Columns::new(gpus, rows.len());
    let mut before = MetricId(0);
    let mut n_unknown = 0;
    for _ in 0..n_columns {
        let about = About::take(&mut bits, before, &masks)?;
        n_unknown += u32::from(about.id.slot().is_none());
        columns.take(&mut bits, &about, rows)?;
        before = about.id;
    }
    match bits.left() {
        0..8 => Ok(n_unknown),
        left => Err(ColumnsError::Leftover(left)),
    }
}

/// Which rows have a value, for the columns that not all rows have.
struct Masks {
    n: u64,
    n_rows: usize,
    /// One after another, a flag per row.
    flags: Vec<bool>,
}

impl Masks {
    fn take(bits: &mut BitReader<'_>, n_rows: usize) -> Option<Self> {
        let n = bits.take(COUNT_BITS)?;
        let n_flags = n as usize * n_rows;
        // Said before it is made room for.
        if n_flags > bits.left() {
            return None;
        }
        let flags: Option<Vec<bool>> = (0..n_flags).map(|_| bits.flag()).collect();
        flags.map(|flags| Self { n, n_rows, flags })
    }

    fn get(&self, place: u64) -> Option<&[bool]> {
        let from = place as usize * self.n_rows;
        (place < self.n).then(|| &self.flags[from..from + self.n_rows])
    }
}

/// What stands before a column's values.
struct About<'a> {
    id: MetricId,
    /// `None`: every row has a value.
    mask: Option<&'a [bool]>,
    shift: u32,
}

impl<'a> About<'a> {
    fn take(
        bits: &mut BitReader<'_>,
        before: MetricId,
        masks: &'a Masks,
    ) -> Result<Self, ColumnsError> {
        let end = ColumnsError::Truncated;
        let (mut step, mut place, mut shift) = (0, 0, 0);
        if bits.flag().ok_or(end)? {
            step = take_optional(bits, COUNT_BITS).ok_or(end)?;
            place = take_optional(bits, COUNT_BITS).ok_or(end)?;
            shift = take_optional(bits, WIDTH_BITS).ok_or(end)? as u32;
        }
        let id = u64::from(before.0) + step + 1;
        let mask = match place.checked_sub(1) {
            None => None,
            Some(n) => Some(masks.get(n).ok_or(ColumnsError::NoSuchMask(place))?),
        };
        Ok(Self {
            id: MetricId(u16::try_from(id).map_err(|_| ColumnsError::Id)?),
            mask,
            shift,
        })
    }
}

/// A number that is mostly zero: a bit says so.
fn take_optional(bits: &mut BitReader<'_>, width: u32) -> Option<u64> {
    if bits.flag()? {
        bits.take(width)
    } else {
        Some(0)
    }
}

/// What is needed of one column to read the next, and room that all of them use in turn.
struct Columns {
    gpus: usize,
    /// The column before, a value per row; 0 where it has none.
    above: Vec<i64>,
    /// Each GPU's value before in this column, and the step that led to it.
    own: Vec<Option<(i64, i64)>>,
    /// How far the first value of each GPU is from its guess, in row order.
    heads: Vec<i64>,
}

impl Columns {
    fn new(gpus: usize, n_rows: usize) -> Self {
        Self {
            gpus,
            above: vec![0; n_rows],
            own: vec![None; gpus],
            heads: Vec::with_capacity(gpus),
        }
    }

    fn take(
        &mut self,
        bits: &mut BitReader<'_>,
        about: &About<'_>,
        rows: &mut [Values],
    ) -> Result<(), ColumnsError> {
        let end = ColumnsError::Truncated;
        let (n_heads, n_steps) = self.count(about.mask);
        // In the bits all heads come before all steps; in the rows a late GPU's head stands among steps.
        let of_heads = Group::take(bits, n_heads, &HEAD_GUESSES)?;
        self.heads.clear();
        for _ in 0..n_heads {
            self.heads
                .push(of_heads.coding.take_value(bits).ok_or(end)?);
        }
        let of_steps = Group::take(bits, n_steps, &STEP_GUESSES)?;
        self.own.fill(None);
        let mut heads = self.heads.iter();
        let mut row_before = 0;
        let mut gpu = 0;
        for (row, (values, above)) in rows.iter_mut().zip(&mut self.above).enumerate() {
            let own = &mut self.own[gpu];
            gpu = if gpu + 1 == self.gpus { 0 } else { gpu + 1 };
            if about.mask.is_some_and(|mask| !mask[row]) {
                *above = 0;
                continue;
            }
            let (guess, residual) = match own {
                None => (of_heads.guess, heads.next().copied()),
                Some(_) => (of_steps.guess, of_steps.coding.take_value(bits)),
            };
            let (before, step) = own.unwrap_or_default();
            let guessed = match guess {
                Guess::Zero => 0,
                Guess::Row => row_before,
                Guess::Above => *above >> about.shift,
                Guess::Own => before,
                Guess::Linear => before.wrapping_add(step),
            };
            let value = guessed.wrapping_add(residual.ok_or(end)?);
            *own = Some((value, own.map_or(0, |_| value.wrapping_sub(before))));
            row_before = value;
            *above = value << about.shift;
            values.set(about.id, *above);
        }
        Ok(())
    }

    /// How many values are the first of their GPU, and how many are later ones.
    fn count(&self, mask: Option<&[bool]>) -> (usize, usize) {
        let n_rows = self.above.len();
        let Some(mask) = mask else {
            let n_heads = self.gpus.min(n_rows);
            return (n_heads, n_rows - n_heads);
        };
        let n = mask.iter().filter(|present| **present).count();
        let has_any = |gpu: usize| {
            mask[gpu..]
                .iter()
                .step_by(self.gpus)
                .any(|present| *present)
        };
        let n_heads = (0..self.gpus.min(n_rows))
            .filter(|gpu| has_any(*gpu))
            .count();
        (n_heads, n - n_heads)
    }
}

/// How the first values of all GPUs are written, or all later ones.
struct Group {
    guess: Guess,
    coding: Coding,
}

impl Group {
    /// Of `n` values; an empty group is not written at all.
    fn take(bits: &mut BitReader<'_>, n: usize, guesses: &[Guess]) -> Result<Self, ColumnsError> {
        if n == 0 {
            return Ok(Self {
                guess: Guess::Zero,
                coding: Coding::Constant(0),
            });
        }
        let code = bits.take(CHOICE_BITS).ok_or(ColumnsError::Truncated)?;
        let guess = guesses.get(code as usize);
        Ok(Self {
            guess: *guess.ok_or(ColumnsError::Coding(code))?,
            coding: Coding::take(bits)?,
        })
    }
}
