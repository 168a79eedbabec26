//! What the next value of a column is likely to be, and how far off each guess is.

use super::Column;

/// What a value is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guess {
    /// Nothing: the value itself is written.
    Zero,
    /// The value before it, in the order of rows.
    Row,
    /// The same row of the column before.
    Above,
    /// The same GPU's value before.
    Own,
    /// The same GPU's value before, and the step that led to it once more.
    Linear,
}

/// For the first value of a GPU in a batch; the place is the code.
pub(super) const HEAD_GUESSES: [Guess; 3] = [Guess::Zero, Guess::Row, Guess::Above];
/// For its later values.
pub(super) const STEP_GUESSES: [Guess; 4] = [Guess::Zero, Guess::Row, Guess::Own, Guess::Linear];

impl Guess {
    pub(super) const ALL: usize = 5;

    pub(super) fn slot(self) -> usize {
        self as usize
    }
}

/// The values near the next one, in a column that is being written.
struct Neighbours {
    row: i64,
    own: Vec<Option<(i64, i64)>>,
}

impl Neighbours {
    fn new(gpus: usize) -> Self {
        Self {
            row: 0,
            own: vec![None; gpus],
        }
    }

    fn is_head(&self, gpu: usize) -> bool {
        self.own[gpu].is_none()
    }

    /// A guess per [`Guess`].
    fn guesses(&self, gpu: usize, above: i64) -> [i64; Guess::ALL] {
        let (own, step) = self.own[gpu].unwrap_or((0, 0));
        [0, self.row, above, own, own.wrapping_add(step)]
    }

    fn saw(&mut self, gpu: usize, value: i64) {
        let step = self.own[gpu].map_or(0, |(before, _)| value.wrapping_sub(before));
        self.own[gpu] = Some((value, step));
        self.row = value;
    }
}

/// How far each value is from each guess.
pub(super) struct Guesses {
    pub(super) heads: Vec<[i64; Guess::ALL]>,
    pub(super) steps: Vec<[i64; Guess::ALL]>,
}

impl Guesses {
    pub(super) fn of(column: &Column, previous: &Column, shift: u32, gpus: usize) -> Self {
        let mut near = Neighbours::new(gpus);
        let mut all = Self {
            heads: Vec::with_capacity(gpus),
            steps: Vec::with_capacity(column.cells.len()),
        };
        for (row, cell) in column.cells.iter().enumerate() {
            let Some(value) = cell.map(|v| v >> shift) else {
                continue;
            };
            let above = previous.cells[row].map_or(0, |v| v >> shift);
            let residuals = near
                .guesses(row % gpus, above)
                .map(|guess| value.wrapping_sub(guess));
            if near.is_head(row % gpus) {
                all.heads.push(residuals);
            } else {
                all.steps.push(residuals);
            }
            near.saw(row % gpus, value);
        }
        all
    }
}
