//! A YAML file as a tree in which every key and value knows its line. *(pure)*

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_saphyr::Spanned;

/// A value and the line that it begins on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    /// Counted from 1.
    pub(crate) line: u64,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing, a truth value, a number or a text.
    Scalar(Json),
    List(Vec<Tree>),
    Map(Vec<(Key, Tree)>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) line: u64,
}

/// Why a text is no YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoYaml {
    pub(crate) line: u64,
    pub(crate) reason: String,
}

impl Tree {
    /// Reads one document; an empty one, or one of comments only, is an empty map.
    pub(crate) fn parse(text: &str) -> Result<Self, NoYaml> {
        let is_comment = |line: &str| line.trim().is_empty() || line.trim().starts_with('#');
        if text.lines().all(is_comment) {
            return Ok(Self {
                line: 1,
                value: Value::Map(Vec::new()),
            });
        }
        serde_saphyr::from_str(text).map_err(|wrong| NoYaml {
            line: wrong.location().map_or(1, |at| at.line()).max(1),
            reason: words(&wrong.without_snippet().to_string()),
        })
    }

    /// Without the lines.
    pub(crate) fn json(&self) -> Json {
        self.json_of(&|scalar| scalar.clone())
    }

    /// Without the lines, and with numbers and truth values as the texts that they may be meant for: `rack: 7`.
    pub(crate) fn json_of_texts(&self) -> Json {
        self.json_of(&|scalar| match scalar {
            Json::Bool(_) | Json::Number(_) => Json::String(scalar.to_string()),
            other => other.clone(),
        })
    }

    fn json_of(&self, scalar: &impl Fn(&Json) -> Json) -> Json {
        match &self.value {
            Value::Scalar(value) => scalar(value),
            Value::List(items) => items.iter().map(|item| item.json_of(scalar)).collect(),
            Value::Map(entries) => {
                let pairs = entries.iter();
                Json::Object(
                    pairs
                        .map(|(key, value)| (key.text.clone(), value.json_of(scalar)))
                        .collect(),
                )
            }
        }
    }

    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(Json::Null) => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// The parser's words, without the place, which is named before them.
fn words(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let (reason, _) = line.rsplit_once(" at line ").unwrap_or((line, ""));
    reason.to_owned()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Spanned {
            value, referenced, ..
        } = Spanned::<Value>::deserialize(from)?;
        let line = referenced.line();
        Ok(Self { line, value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Scalar(Json::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        Value::deserialize(from)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(value);
        let number = number.ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Value::Scalar(Json::Number(number)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            let text = key.value;
            entries.push((Key { text, line }, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(tree: &Tree, lines: &mut Vec<(String, u64)>) {
        match &tree.value {
            Value::Scalar(value) => lines.push((value.to_string(), tree.line)),
            Value::List(items) => items.iter().for_each(|item| walk(item, lines)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    lines.push((key.text.clone(), key.line));
                    walk(value, lines);
                }
            }
        }
    }

    #[test]
    fn every_key_and_value_knows_its_line() {
        let text = "rules:\n  xid:\n    ignore: [43,\n      45]\n    severity_of: { 94: critical }\n  # why\n  power_limit: {}\n";
        let tree = Tree::parse(text).expect("it is YAML");
        let mut lines = Vec::new();
        walk(&tree, &mut lines);
        let told: Vec<String> = lines
            .iter()
            .map(|(what, line)| format!("{what}:{line}"))
            .collect();
        assert_eq!(
            told.join(" "),
            "rules:1 xid:2 ignore:3 43:3 45:4 severity_of:5 94:5 \"critical\":5 power_limit:7"
        );
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        for (text, line) in [("a: [\n", 2), ("a: 1\na: 2\n", 2), ("a: b: c\n", 1)] {
            let wrong = Tree::parse(text).expect_err("it is refused");
            assert!(wrong.line <= line, "{wrong:?}");
        }
        assert_eq!(
            Tree::parse("# nothing\n").map(|tree| tree.json()),
            Ok(serde_json::json!({}))
        );
    }
}
