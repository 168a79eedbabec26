//! The samples of a batch as one string of bits: a column per metric, as differences from the best of a few guesses.
//!
//! Drawn in `docs/formats/wire.md`. Pure; never panics on bytes from outside.

use entrenar::gpu::Values;
use entrenar::metric::{CATALOGUE, METRIC_COUNT, MetricId};

mod coding;
mod guess;
mod read;

use self::coding::Coding;
use self::guess::{Guess, Guesses, HEAD_GUESSES, STEP_GUESSES};
pub(crate) use self::read::decode;
use crate::bits::BitWriter;

/// Version in the first byte. A reader refuses others.
const VERSION: u8 = 1;
/// Bits of the numbers of masks and columns, of a mask's place and of a step between ids.
const COUNT_BITS: u32 = 8;
/// Bits of a shift, and of a width less one.
const WIDTH_BITS: u32 = 6;
/// Bits of a guess and of a coding.
const CHOICE_BITS: u32 = 2;

// Every column, and every mask, must be countable in `COUNT_BITS`.
const _: () = assert!(METRIC_COUNT < 1 << COUNT_BITS);

/// Why the bits make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// They end too early.
    #[error("the columns end in the middle of a value")]
    Truncated,
    /// Something is left over.
    #[error("{0} bits are left after the last column")]
    Leftover(usize),
    /// A newer sender: upgrade the aggregator first.
    #[error("columns of version {0} are not known here: upgrade the reader before the sender")]
    Version(u8),
    /// A column refers to a mask that is not there.
    #[error("a column refers to mask {0}, which is not there")]
    NoSuchMask(u64),
    /// Ids run past what an id can be.
    #[error("a metric id is too large")]
    Id,
    /// A choice that no sender makes.
    #[error("a column's coding {0} does not exist")]
    Coding(u64),
}

/// Packs rows: all GPUs of the first tick, then of the second. No rows with a value: no bytes.
pub(crate) fn encode(rows: &[Values], gpus: usize) -> Vec<u8> {
    let columns: Vec<Column> = CATALOGUE
        .iter()
        .map(|metric| Column::of(metric.id, rows))
        .filter(|column| column.cells.iter().any(Option::is_some))
        .collect();
    if columns.is_empty() {
        return Vec::new();
    }
    let mut masks: Vec<Vec<bool>> = Vec::new();
    for column in &columns {
        let mask = column.mask();
        if mask.contains(&false) && !masks.contains(&mask) {
            masks.push(mask);
        }
    }
    let mut out = BitWriter::default();
    out.put(u64::from(VERSION), 8);
    out.put(masks.len() as u64, COUNT_BITS);
    for present in masks.iter().flatten() {
        out.put(u64::from(*present), 1);
    }
    out.put(columns.len() as u64, COUNT_BITS);
    let mut previous: Option<&Column> = None;
    for column in &columns {
        put_column(&mut out, column, previous, &masks, gpus);
        previous = Some(column);
    }
    out.into_bytes()
}

/// One metric of all rows.
struct Column {
    id: MetricId,
    cells: Vec<Option<i64>>,
}

impl Column {
    fn empty(n_rows: usize) -> Self {
        Self {
            id: MetricId(0),
            cells: vec![None; n_rows],
        }
    }

    fn of(id: MetricId, rows: &[Values]) -> Self {
        let cells = rows.iter().map(|row| row.get(id)).collect();
        Self { id, cells }
    }

    fn mask(&self) -> Vec<bool> {
        self.cells.iter().map(Option::is_some).collect()
    }

    /// How many low bits are zero in every value.
    fn shift(&self) -> u32 {
        let any = self.cells.iter().flatten().fold(0, |acc, v| acc | v);
        if any == 0 { 0 } else { any.trailing_zeros() }
    }
}

fn put_column(
    out: &mut BitWriter,
    column: &Column,
    previous: Option<&Column>,
    masks: &[Vec<bool>],
    gpus: usize,
) {
    let step = u64::from(column.id.0 - previous.map_or(0, |p| p.id.0));
    let mask = column.mask();
    let place = masks.iter().position(|m| *m == mask);
    let shift = column.shift();
    let plain = step == 1 && place.is_none() && shift == 0;
    out.put(u64::from(!plain), 1);
    if !plain {
        put_optional(out, step - 1, COUNT_BITS);
        put_optional(out, place.map_or(0, |place| place as u64 + 1), COUNT_BITS);
        put_optional(out, u64::from(shift), WIDTH_BITS);
    }
    let empty = Column::empty(column.cells.len());
    let guesses = Guesses::of(column, previous.unwrap_or(&empty), shift, gpus);
    put_group(out, &guesses.heads, &HEAD_GUESSES);
    put_group(out, &guesses.steps, &STEP_GUESSES);
}

/// A number that is mostly zero: a bit says so.
fn put_optional(out: &mut BitWriter, value: u64, width: u32) {
    out.put(u64::from(value > 0), 1);
    if value > 0 {
        out.put(value, width);
    }
}

/// Writes a group with the cheapest guess and coding. An empty group is not written at all.
fn put_group(out: &mut BitWriter, residuals: &[[i64; Guess::ALL]], guesses: &[Guess]) {
    let best = guesses
        .iter()
        .enumerate()
        .map(|(code, guess)| {
            let of_guess = residuals.iter().map(|r| r[guess.slot()]);
            let (coding, cost) = Coding::cheapest(of_guess);
            (cost, code, *guess, coding)
        })
        .min_by_key(|(cost, ..)| *cost);
    let Some((_, code, guess, coding)) = best.filter(|_| !residuals.is_empty()) else {
        return;
    };
    out.put(code as u64, CHOICE_BITS);
    coding.put(out);
    for residual in residuals {
        coding.put_value(out, residual[guess.slot()]);
    }
}

#[cfg(test)]
mod tests {
    use entrenar::metric::{ENERGY, POWER, TEMPERATURE};

    use super::*;

    fn there_and_back(rows: &[Values], gpus: usize) -> Vec<u8> {
        let bytes = encode(rows, gpus);
        let mut back = vec![Values::default(); rows.len()];
        assert_eq!(decode(&bytes, gpus, &mut back), Ok(0));
        assert_eq!(back, rows);
        bytes
    }

    #[test]
    fn a_value_that_all_gpus_share_costs_a_few_bytes() {
        let row = Values::default().with(POWER, 700_000);
        assert!(there_and_back(&vec![row; 80], 8).len() <= 12);
    }

    #[test]
    fn nothing_said_is_nothing_sent() {
        assert_eq!(there_and_back(&vec![Values::default(); 8], 8), b"");
        assert_eq!(there_and_back(&[], 0), b"");
    }

    #[test]
    fn a_steady_counter_costs_its_first_values() {
        let rows: Vec<Values> = (0..80)
            .map(|i| {
                Values::default().with(ENERGY, (1 << 40) + (i % 8) * 1_234_567 + (i / 8) * 700_000)
            })
            .collect();
        assert!(there_and_back(&rows, 8).len() <= 50);
    }

    #[test]
    fn extremes_and_holes_survive() {
        let rows: Vec<Values> = (0..24)
            .map(|i: i64| {
                let wild = [i64::MAX, i64::MIN + 1, 0, -1][i as usize % 4];
                Values::default()
                    .with(TEMPERATURE, (i % 3 != 0).then_some(wild))
                    .with(POWER, (i % 5 == 0).then_some(i - 12))
                    .with(ENERGY, wild)
            })
            .collect();
        there_and_back(&rows, 8);
    }

    #[test]
    fn a_column_of_an_unknown_metric_is_skipped_and_counted() {
        let mut out = BitWriter::default();
        out.put(u64::from(VERSION), 8);
        out.put(0, COUNT_BITS);
        out.put(2, COUNT_BITS);
        for (step, value) in [(1, 45), (200, 7)] {
            out.put(1, 1);
            put_optional(&mut out, step - 1, COUNT_BITS);
            out.put(0, 2); // neither masked nor shifted
            out.put(0, 2 * CHOICE_BITS); // as it is, constant
            out.put_signed(value);
        }
        let mut rows = vec![Values::default()];
        assert_eq!(decode(&out.into_bytes(), 1, &mut rows), Ok(1));
        assert_eq!(rows, [Values::default().with(TEMPERATURE, 45)]);
    }

    #[test]
    fn a_newer_version_is_refused() {
        assert_eq!(decode(&[2, 0], 1, &mut []), Err(ColumnsError::Version(2)));
    }
}
