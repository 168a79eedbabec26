//! What one question may cost. *(pure)*

use super::QueryError;
use crate::chunk::Profile;

/// Most points of one answer, over all its series: some 15 MB of JSON. More is refused with a word on how to ask for less.
pub const MAX_POINTS: usize = 500_000;

/// Most stored samples that are unpacked for one answer: some seconds of work. An hour of 10,000 GPUs at 1 s is 36
/// million, a week of one GPU 0.6 million; sums count as one each.
pub const MAX_READ: usize = 50_000_000;

/// What one answer may still hold, and what may still be read for it. Shared by all series of the answer.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    left: usize,
    read_limit: usize,
    read_left: usize,
    profile: Profile,
}

impl Budget {
    /// An answer of at most `limit` points.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            left: limit,
            read_limit: MAX_READ,
            read_left: MAX_READ,
            profile: Profile::Exact,
        }
    }

    /// The same, from at most this many stored samples.
    #[must_use]
    pub const fn reading(mut self, samples: usize) -> Self {
        (self.read_limit, self.read_left) = (samples, samples);
        self
    }

    /// So many points go into the answer.
    pub fn spend(&mut self, points: usize) -> Result<(), QueryError> {
        let short = QueryError::TooManyPoints { limit: self.limit };
        self.left = self.left.checked_sub(points).ok_or(short)?;
        Ok(())
    }

    /// Something was read that is kept like this.
    pub fn saw(&mut self, profile: Profile) {
        self.profile = self.profile.max(profile);
    }

    /// The coarsest profile of all that was read.
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// So many samples are about to be read.
    pub fn read(&mut self, samples: usize) -> Result<(), QueryError> {
        let short = QueryError::TooMuchRead {
            limit: self.read_limit,
        };
        self.read_left = self.read_left.checked_sub(samples).ok_or(short)?;
        Ok(())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(MAX_POINTS)
    }
}
