//! Many GPUs over many steps, gathered into groups. *(pure)*
//!
//! It holds a number for each group and step, however many GPUs and samples there are; only a quantile must hold every
//! GPU's.

use std::collections::HashMap;

use super::aggregate::{Aggregate, Tally};
use super::gather::Name;

/// A group, and what it comes to in each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    pub name: Name,
    /// `None` where no GPU of the group said anything.
    pub values: Vec<Option<f64>>,
    /// GPUs that said something at some time.
    pub n_gpus: u64,
}

impl Band {
    /// What it is ranked by: the mean of what it has.
    pub fn mean(&self) -> Option<f64> {
        let known: Vec<f64> = self.values.iter().flatten().copied().collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }
}

/// Groups that grow while GPUs are read, one after the other.
#[derive(Debug)]
pub struct Grid {
    aggregate: Aggregate,
    n_steps: usize,
    n_gpus: u64,
    /// Of the GPU that is being read, among those that were asked about.
    place: usize,
    places: HashMap<Option<String>, usize>,
    groups: Vec<Group>,
    latest: Option<usize>,
}

#[derive(Debug)]
struct Group {
    name: Name,
    tallies: Vec<Tally>,
    n_gpus: u64,
    latest_gpu: u64,
    /// Of the first of its GPUs.
    place: usize,
}

impl Grid {
    /// No group yet.
    pub fn new(aggregate: Aggregate, n_steps: usize) -> Self {
        Self {
            aggregate,
            n_steps,
            n_gpus: 0,
            place: 0,
            places: HashMap::new(),
            groups: Vec::new(),
            latest: None,
        }
    }

    /// How many groups there are so far.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// What is taken from here on is another GPU's. `place`: of it among those that were asked about; groups are told in
    /// that order, in whatever order GPUs are read.
    pub const fn next_gpu(&mut self, place: usize) {
        self.n_gpus += 1;
        self.place = place;
    }

    /// A group of its own; its place.
    pub fn alone(&mut self, name: Name) -> usize {
        self.groups.push(Group {
            name,
            tallies: vec![Tally::default(); self.n_steps],
            n_gpus: 0,
            latest_gpu: 0,
            place: self.place,
        });
        self.groups.len() - 1
    }

    /// The place of a group that GPUs share.
    pub fn shared(&mut self, key: Option<&str>) -> usize {
        // GPUs of a group mostly follow each other, and so do the steps of a GPU.
        if let Some(place) = self.latest
            && matches!(&self.groups[place].name, Name::Shared(name) if name.as_deref() == key)
        {
            return place;
        }
        let key = key.map(str::to_owned);
        let place = if let Some(place) = self.places.get(&key) {
            *place
        } else {
            let place = self.alone(Name::Shared(key.clone()));
            self.places.insert(key, place);
            place
        };
        self.latest = Some(place);
        place
    }

    /// One GPU's value in one step.
    pub fn take(&mut self, group: usize, step: usize, value: f64) {
        let group = &mut self.groups[group];
        group.tallies[step].take(value, self.aggregate);
        if group.latest_gpu != self.n_gpus {
            group.latest_gpu = self.n_gpus;
            group.n_gpus += 1;
            group.place = group.place.min(self.place);
        }
    }

    /// The groups, in the order of their first GPUs.
    pub fn finish(mut self) -> Vec<Band> {
        let aggregate = self.aggregate;
        self.groups.sort_by_key(|group| group.place);
        let result = |mut tally: Tally| tally.result(aggregate);
        let band = |group: Group| Band {
            name: group.name,
            values: group.tallies.into_iter().map(result).collect(),
            n_gpus: group.n_gpus,
        };
        self.groups.into_iter().map(band).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_a_group_is_made_of_the_gpus_that_spoke_in_it() {
        let mut grid = Grid::new(Aggregate::Sum, 3);
        let gpus = [
            (2, "b", [5.0, 5.0]),
            (3, "a", [1.0, 2.0]),
            (1, "a", [10.0, 20.0]),
        ];
        for (place, job, values) in gpus {
            grid.next_gpu(place);
            let group = grid.shared(Some(job));
            for (step, value) in values.into_iter().enumerate() {
                grid.take(group, step, value);
            }
        }
        let bands = grid.finish();
        assert_eq!(bands[0].values, [Some(11.0), Some(22.0), None]);
        assert_eq!((bands[0].n_gpus, bands[1].n_gpus), (2, 1));
        assert_eq!(bands[0].mean(), Some(16.5));
        assert_eq!(bands[1].name, Name::Shared(Some("b".into())));
    }
}
