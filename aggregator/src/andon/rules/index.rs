//! Which set of rules holds for what: found when a thing changes, looked up by number on every tick. *(pure)*

use std::collections::HashMap;
use std::sync::Arc;

use super::selector::Subject;
use super::{RuleBook, RuleSet};
use crate::andon::Kind;

/// The number of a set of rules. The first is that without any override.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetId(u16);

/// A set of rules that holds somewhere.
#[derive(Debug)]
struct Holding {
    rules: Arc<RuleSet>,
    kinds_off: Vec<Kind>,
}

impl Holding {
    fn new(rules: Arc<RuleSet>) -> Self {
        let kinds_off = rules.kinds_off();
        Self { rules, kinds_off }
    }
}

/// The sets of rules that hold somewhere in the fleet.
#[derive(Debug)]
pub(crate) struct RuleIndex {
    book: RuleBook,
    sets: Vec<Holding>,
    /// By the overrides that hold, a bit each.
    by_overrides: HashMap<u64, SetId>,
}

impl RuleIndex {
    pub(crate) fn new(book: RuleBook) -> Self {
        Self {
            sets: vec![Holding::new(Arc::clone(book.base()))],
            by_overrides: HashMap::from([(0, SetId(0))]),
            book,
        }
    }

    pub(crate) fn book(&self) -> &RuleBook {
        &self.book
    }

    /// Whether everything goes by one set.
    pub(crate) fn is_uniform(&self) -> bool {
        self.book.overrides().is_empty() && self.book.custom().is_empty()
    }

    /// The places of the rules of people that are for a thing; `on_node`: the thing is a node.
    pub(in crate::andon) fn custom(&self, subject: Subject<'_>, on_node: bool) -> Vec<u16> {
        let places = (0..).zip(self.book.custom().iter());
        places
            .filter(|(_, rule)| rule.is_for(subject, on_node))
            .map(|(place, _)| place)
            .collect()
    }

    pub(crate) fn set(&self, id: SetId) -> &Arc<RuleSet> {
        &self.sets[usize::from(id.0)].rules
    }

    /// The kinds that a set does not watch for.
    pub(crate) fn kinds_off(&self, id: SetId) -> &[Kind] {
        &self.sets[usize::from(id.0)].kinds_off
    }

    /// The set that holds for a thing. Of each rule, the first override that matches and names it counts.
    pub(crate) fn find(&mut self, subject: Subject<'_>) -> SetId {
        let mut holding = 0_u64;
        for (n, o) in self.book.overrides().iter().enumerate() {
            if o.selector.matches(subject) {
                holding |= 1 << n;
            }
        }
        if let Some(id) = self.by_overrides.get(&holding) {
            return *id;
        }
        let mut set = RuleSet::clone(self.book.base());
        // The first is laid on last.
        for (n, o) in self.book.overrides().iter().enumerate().rev() {
            if holding & (1 << n) != 0 {
                set.take(&o.names, &o.rules);
            }
        }
        // The book has made sure that there are few enough.
        let id = SetId(self.sets.len() as u16);
        self.sets.push(Holding::new(Arc::new(set)));
        self.by_overrides.insert(holding, id);
        id
    }
}
