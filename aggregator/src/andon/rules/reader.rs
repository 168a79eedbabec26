//! Reads parts of a rules file over what is known already, and collects every mistake with its line. *(pure)*

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::tree::{Key, Tree, Value};
use super::{Impossible, Rule};

/// Most mistakes that are told of; a file with more is mostly not a rules file.
const MOST_MISTAKES: usize = 100;

/// What is wrong, where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

/// Mistakes so far.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    mistakes: Vec<Mistake>,
}

impl Reader {
    pub(crate) fn wrong(&mut self, line: u64, reason: impl Into<String>) {
        if self.mistakes.len() < MOST_MISTAKES {
            let reason = reason.into();
            self.mistakes.push(Mistake { line, reason });
        }
    }

    /// What was wrong, by line.
    pub(crate) fn finish(mut self) -> Vec<Mistake> {
        self.mistakes.sort();
        self.mistakes.dedup();
        self.mistakes
    }

    /// The entries of what must be a map; nothing is an empty one.
    pub(crate) fn entries<'t>(&mut self, tree: &'t Tree, what: &str) -> &'t [(Key, Tree)] {
        match &tree.value {
            Value::Map(entries) => entries,
            Value::Scalar(Json::Null) => &[],
            _ => {
                let reason = format!("{what} is {}: write a map, `key: value`", tree.kind());
                self.wrong(tree.line, reason);
                &[]
            }
        }
    }

    /// The items of what must be a list; nothing is an empty one.
    pub(crate) fn items<'t>(&mut self, tree: &'t Tree, what: &str) -> &'t [Tree] {
        match &tree.value {
            Value::List(items) => items,
            Value::Scalar(Json::Null) => &[],
            _ => {
                let reason = format!(
                    "{what} is {}: write a list, each item after `- `",
                    tree.kind()
                );
                self.wrong(tree.line, reason);
                &[]
            }
        }
    }

    pub(crate) fn unknown<'n>(
        &mut self,
        key: &Key,
        what: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) {
        let hint = nearest(&key.text, known)
            .map_or(String::new(), |name| format!(": did you mean `{name}`?"));
        self.wrong(key.line, format!("{what} has no `{}`{hint}", key.text));
    }

    /// Takes over what the entries name; the rest stays as in `base`. `what`: how it is called in words.
    pub(crate) fn part<T: Serialize + DeserializeOwned>(
        &mut self,
        base: &T,
        entries: &[(Key, Tree)],
        what: &str,
    ) -> Option<T> {
        let mut json = serde_json::to_value(base).ok()?;
        let mut good = true;
        for (key, tree) in entries {
            let known = json.as_object_mut()?;
            if !known.contains_key(&key.text) {
                let names: Vec<String> = known.keys().cloned().collect();
                self.unknown(key, what, names.iter().map(String::as_str));
                good = false;
                continue;
            }
            let before = json.clone();
            if let Err(reason) = take::<T>(&mut json, key, tree) {
                self.wrong(key.line, format!("{what}.{}: {reason}", key.text));
                json = before;
                good = false;
            }
        }
        let part = serde_json::from_value(json).ok();
        part.filter(|_| good)
    }

    /// A rule over what is known of it. `None`, with the reason noted: it cannot be.
    pub(crate) fn rule<R: Rule + Serialize + DeserializeOwned>(
        &mut self,
        base: &R,
        key: &Key,
        tree: &Tree,
    ) -> Option<R> {
        let entries = self.entries(tree, R::NAME);
        let rule: R = self.part(base, entries, R::NAME)?;
        match rule.check() {
            Ok(()) => Some(rule),
            Err(impossible) => {
                self.impossible(R::NAME, &impossible, key, entries);
                None
            }
        }
    }

    /// Says that a parameter cannot be so, at its line.
    pub(crate) fn impossible(
        &mut self,
        what: &str,
        impossible: &Impossible,
        key: &Key,
        entries: &[(Key, Tree)],
    ) {
        let Impossible { parameter, reason } = impossible;
        let own = entries.iter().find(|(key, _)| key.text == *parameter);
        let line = own.map_or(key.line, |(key, _)| key.line);
        self.wrong(line, format!("{what}.{parameter}: {reason}"));
    }
}

/// Puts one value in; numbers stand for texts where only those can be.
fn take<T: DeserializeOwned>(json: &mut Json, key: &Key, tree: &Tree) -> Result<(), String> {
    let mut put = |value: Json| {
        json[key.text.as_str()] = value;
        serde_json::from_value::<T>(json.clone()).map_err(|wrong| wrong.to_string())
    };
    let Err(first) = put(tree.json()) else {
        return Ok(());
    };
    match put(tree.json_of_texts()) {
        Ok(_) => Ok(()),
        // The better words are those that do not speak of types.
        Err(second) if !second.starts_with("invalid type") => Err(second),
        Err(_) => Err(first),
    }
}

/// The known name that is most like one that is not known, if it is like it at all.
pub(crate) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let by_distance = known
        .into_iter()
        .map(|other| (distance(name, other), other));
    let (distance, other) = by_distance.min()?;
    let like = distance <= 2.max(name.len() / 3) || (name.len() >= 4 && other.contains(name));
    like.then_some(other)
}

/// How many letters must be changed, put in or left out.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_has_a_nearest_one() {
        let known = ["power_watts", "power_limit_watts", "temperature_celsius"];
        assert_eq!(nearest("power_wats", known), Some("power_watts"));
        assert_eq!(nearest("temperature", known), Some("temperature_celsius"));
        assert_eq!(nearest("fan", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
