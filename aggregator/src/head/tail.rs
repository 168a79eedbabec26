//! One metric's recent values, packed: what does not change costs nothing, what changes costs its difference.

use entrenar::metric::MetricId;

use crate::chunk::varint::{self, unzigzag, zigzag};

/// Low two bits of a token say what it is.
const VALUE: u128 = 0;
const SAME: u128 = 1;
const ABSENT: u128 = 2;

/// Values in the order in which they were pushed; absence is one of them.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) metric: MetricId,
    tokens: Vec<u8>,
    last: i64,
    /// How often the last thing, value or absence, was repeated and not yet written down.
    repeats: u32,
    absent: bool,
}

impl Tail {
    /// A metric that was absent in the first `n_absent` samples.
    pub(super) fn new(metric: MetricId, n_absent: u32) -> Self {
        Self {
            metric,
            tokens: Vec::new(),
            last: 0,
            repeats: n_absent,
            absent: true,
        }
    }

    pub(super) fn push(&mut self, value: Option<i64>) {
        match value {
            None => self.repeat(true),
            Some(same) if same == self.last => self.repeat(false),
            Some(new) => {
                self.write_repeats();
                let difference = zigzag(new.wrapping_sub(self.last));
                self.write(u128::from(difference) << 2 | VALUE);
                self.last = new;
                self.absent = false;
            }
        }
    }

    /// All values, in order.
    pub(super) fn values(&self) -> Vec<Option<i64>> {
        let mut values = Vec::new();
        let mut tokens = self.tokens.as_slice();
        let mut last: i64 = 0;
        while let Some(token) = varint::take(&mut tokens) {
            let body = (token >> 2) as u64;
            match token & 3 {
                VALUE => {
                    last = last.wrapping_add(unzigzag(body));
                    values.push(Some(last));
                }
                SAME => values.resize(values.len() + body as usize, Some(last)),
                _ => values.resize(values.len() + body as usize, None),
            }
        }
        let pending = if self.absent { None } else { Some(self.last) };
        values.resize(values.len() + self.repeats as usize, pending);
        values
    }

    /// Memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.tokens.capacity()
    }

    fn repeat(&mut self, absent: bool) {
        if self.absent != absent {
            self.write_repeats();
            self.absent = absent;
        }
        self.repeats += 1;
    }

    fn write_repeats(&mut self) {
        if self.repeats > 0 {
            let what = if self.absent { ABSENT } else { SAME };
            self.write(u128::from(self.repeats) << 2 | what);
            self.repeats = 0;
        }
    }

    fn write(&mut self, token: u128) {
        // A vector that doubles would waste a third of the head on average.
        if self.tokens.capacity() - self.tokens.len() < varint::MAX_BYTES {
            self.tokens.reserve_exact(32 + self.tokens.len() / 8);
        }
        varint::put(&mut self.tokens, token);
    }
}

#[cfg(test)]
mod tests {
    use entrenar::metric::POWER;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_come_back_as_they_were_pushed(
            n_absent in 0..5u32,
            values in proptest::collection::vec(
                prop_oneof![3 => (-2..3i64).prop_map(Some), 1 => (i64::MIN + 1..=i64::MAX).prop_map(Some), 2 => Just(None)],
                0..100,
            ),
        ) {
            let mut tail = Tail::new(POWER, n_absent);
            for value in &values {
                tail.push(*value);
            }
            let mut expected = vec![None; n_absent as usize];
            expected.extend(values);
            prop_assert_eq!(tail.values(), expected);
        }
    }

    #[test]
    fn a_metric_that_stays_costs_no_bytes() {
        let mut tail = Tail::new(POWER, 0);
        (0..720).for_each(|_| tail.push(Some(80)));
        assert!(tail.tokens.len() <= 2);
    }
}
