//! All that a rules file says: the built-in rules with their parameters, and where other parameters hold. *(pure)*

use std::fmt;
use std::sync::Arc;

use super::reader::{Mistake, Reader};
use super::selector::Selector;
use super::tree::{Key, Tree};
use super::{RuleSet, RuleSummary};
use crate::andon::custom::{self, Custom, Customs};

/// Most overrides of a file.
pub const MOST_OVERRIDES: usize = 64;

/// Most different sets of parameters that the overrides of a file may combine to: some 4 KB each.
pub const MOST_SETS: usize = 4096;

/// Longest file, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// A rules file, read and checked. Cheap to copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleBook {
    base: Arc<RuleSet>,
    overrides: Arc<[Override]>,
    custom: Customs,
}

/// Other parameters for some of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Override {
    pub(super) selector: Selector,
    /// The rules that it names, and what they are then.
    pub(super) names: Vec<&'static str>,
    pub(super) rules: RuleSet,
}

/// Why a rules file cannot be used: everything that is wrong with it, by line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RulesError {
    /// The file, as it was named.
    pub file: String,
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Mistake { line, reason }) in self.mistakes.iter().enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{}, line {line}: {reason}", self.file)?;
        }
        Ok(())
    }
}

impl From<Arc<RuleSet>> for RuleBook {
    fn from(base: Arc<RuleSet>) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }
}

impl From<RuleSet> for RuleBook {
    fn from(base: RuleSet) -> Self {
        Arc::new(base).into()
    }
}

/// What stands at the top of a file.
pub(crate) const TOP: [&str; 3] = ["rules", "overrides", "custom"];

impl RuleBook {
    /// Reads a rules file. What it does not name keeps its default; a name that nothing has is an error.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, RulesError> {
        let mut reader = Reader::default();
        let book = Self::read(text, &mut reader);
        let mistakes = reader.finish();
        if mistakes.is_empty() {
            return Ok(book);
        }
        let file = file_name.into();
        Err(RulesError { file, mistakes })
    }

    fn read(text: &str, reader: &mut Reader) -> Self {
        if text.len() > MOST_BYTES {
            reader.wrong(1, format!("the file has more than {MOST_BYTES} bytes"));
            return Self::default();
        }
        match Tree::parse(text) {
            Ok(tree) => Self::read_tree(&tree, reader),
            Err(wrong) => {
                reader.wrong(wrong.line, wrong.reason);
                Self::default()
            }
        }
    }

    /// Reads what stands under `rules`, `overrides` and `custom`.
    pub(crate) fn read_tree(tree: &Tree, reader: &mut Reader) -> Self {
        let entries = reader.entries(tree, "the file");
        let named = |name: &str| entries.iter().find(|(key, _)| key.text == name);
        for (key, _) in entries {
            if !TOP.contains(&key.text.as_str()) {
                reader.unknown(key, "the file", TOP);
            }
        }
        let mut base = RuleSet::default();
        if let Some((_, tree)) = named("rules") {
            base.read(tree, true, reader);
        }
        let mut overrides = Vec::new();
        if let Some((key, tree)) = named("overrides") {
            let items = reader.items(tree, "overrides");
            if items.len() > MOST_OVERRIDES {
                let reason = format!(
                    "{} overrides: a file has at most {MOST_OVERRIDES}; patterns let one stand for several",
                    items.len()
                );
                reader.wrong(key.line, reason);
            } else {
                overrides.extend(items.iter().map(|item| Override::read(item, &base, reader)));
                check_sets(&overrides, key, reader);
            }
        }
        let mut rules = Vec::new();
        if let Some((key, tree)) = named("custom") {
            rules = custom::read(key, tree, reader);
        }
        Self {
            base: base.into(),
            overrides: overrides.into(),
            custom: rules.into(),
        }
    }

    /// The rules where no override says otherwise.
    pub fn base(&self) -> &Arc<RuleSet> {
        &self.base
    }

    pub(crate) fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// The rules that people wrote.
    pub(in crate::andon) fn custom(&self) -> &Customs {
        &self.custom
    }

    /// What each rule says of itself.
    pub fn summaries(&self) -> Vec<RuleSummary> {
        let mut summaries = self.base.summaries();
        for summary in &mut summaries {
            let named = |o: &&Override| o.names.contains(&&*summary.rule.0);
            summary.overrides = self.overrides.iter().filter(named).count();
        }
        summaries.extend(self.custom.iter().map(Custom::summary));
        summaries
    }
}

impl Override {
    fn read(tree: &Tree, base: &RuleSet, reader: &mut Reader) -> Self {
        let mut selector = None;
        let (mut rules, mut names) = (base.clone(), Vec::new());
        for (key, tree) in reader.entries(tree, "an override") {
            match key.text.as_str() {
                "match" => selector = Some(read_selector(tree, reader)),
                "rules" => names = rules.read(tree, false, reader),
                _ => reader.unknown(key, "an override", ["match", "rules"]),
            }
        }
        if selector.is_none() {
            let reason = "an override needs `match`: what is for everything stands under `rules`";
            reader.wrong(tree.line, reason);
        }
        Self {
            selector: selector.unwrap_or_default(),
            names,
            rules,
        }
    }
}

pub(crate) fn read_selector(tree: &Tree, reader: &mut Reader) -> Selector {
    let entries = reader.entries(tree, "match");
    let selector = reader.part(&Selector::default(), entries, "match");
    selector.unwrap_or_default()
}

/// How many sets of parameters the overrides may combine to, at most: overrides that ask for different values of one
/// name never come together.
fn check_sets(overrides: &[Override], key: &Key, reader: &mut Reader) {
    use std::collections::BTreeMap;
    let mut exact: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    let mut free = 0_u32;
    for o in overrides {
        match o.selector.exact() {
            Some((name, value)) => {
                *exact.entry(name).or_default().entry(value).or_default() += 1;
            }
            None => free += 1,
        }
    }
    let power = |n: u32| {
        1_usize
            .checked_shl(n)
            .filter(|_| n < 63)
            .unwrap_or(usize::MAX)
    };
    let mut sets = power(free);
    for values in exact.values() {
        let own = values.values().map(|n| power(*n) - 1);
        sets = sets.saturating_mul(1 + own.fold(0, usize::saturating_add));
    }
    if sets > MOST_SETS {
        let reason = format!(
            "these overrides may combine to more than {MOST_SETS} sets of rules: let fewer of them hold together, by \
             asking for one exact value of the same label in each"
        );
        reader.wrong(key.line, reason);
    }
}
