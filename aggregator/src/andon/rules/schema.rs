//! The rules file as a JSON schema, from the same declarations that read it: editors complete and check by it. *(pure)*

use std::collections::BTreeMap;

use entrenar::report::JobKind;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::glob::Glob;
use super::selector::Selector;
use super::{CausesRule, MOST_OVERRIDES, RuleSet, Span};
use crate::andon::Severity;
use crate::andon::custom::{MOST_CUSTOM, written_shape};

/// A kind of value, as a schema describes it.
pub(crate) trait Shape {
    fn shape() -> Json;
}

macro_rules! shapes {
    ($($type:ty: $shape:tt)*) => {
        $(impl Shape for $type {
            fn shape() -> Json {
                json!($shape)
            }
        })*
    };
}

shapes! {
    bool: { "type": "boolean" }
    f64: { "type": "number" }
    i32: { "type": "integer" }
    i64: { "type": "integer" }
    u8: { "type": "integer", "minimum": 0 }
    u32: { "type": "integer", "minimum": 0 }
    u64: { "type": "integer", "minimum": 0 }
    usize: { "type": "integer", "minimum": 0 }
    String: { "type": ["string", "number", "boolean"] }
    Span: { "$ref": "#/$defs/span" }
    Glob: { "$ref": "#/$defs/glob" }
    Severity: { "enum": ["info", "warning", "critical"] }
    JobKind: { "enum": ["train", "inference", "interactive", "unknown"] }
}

impl<T: Shape> Shape for Option<T> {
    fn shape() -> Json {
        json!({ "anyOf": [T::shape(), { "type": "null" }] })
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn shape() -> Json {
        json!({ "type": "array", "items": T::shape() })
    }
}

impl<K, V: Shape> Shape for BTreeMap<K, V> {
    fn shape() -> Json {
        json!({ "type": "object", "additionalProperties": V::shape() })
    }
}

/// A parameter: its name, what it means, its kind.
pub(crate) type Parameter = (&'static str, &'static str, Json);

/// An object with these parameters and no others; what it is where the file says nothing is in `usual`.
pub(crate) fn object(about: &str, parameters: Vec<Parameter>, usual: &impl Serialize) -> Json {
    let usual = serde_json::to_value(usual).unwrap_or_default();
    let mut properties = Map::new();
    for (name, about, mut shape) in parameters {
        if let Some(shape) = shape.as_object_mut() {
            shape.insert("description".into(), about.trim().into());
            if let Some(usual) = usual.get(name) {
                shape.insert("default".into(), usual.clone());
            }
        }
        properties.insert(name.into(), shape);
    }
    json!({
        "type": ["object", "null"],
        "description": about.trim(),
        "properties": properties,
        "additionalProperties": false,
    })
}

/// The whole file.
pub fn schema() -> Json {
    let mut rules: Map<String, Json> = RuleSet::shapes()
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), shape))
        .collect();
    let built_in = json!({
        "type": ["object", "null"],
        "description": "Built-in rules: other parameters for what the selector matches.",
        "properties": rules.clone(),
        "additionalProperties": false,
    });
    rules.insert("causes".into(), CausesRule::shape());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rules of entrenar",
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": {
            "rules": {
                "type": ["object", "null"],
                "description": "Built-in rules: only what differs.",
                "properties": rules,
                "additionalProperties": false,
            },
            "overrides": {
                "type": ["array", "null"],
                "description": "Other parameters for some of the fleet. Of each rule, the first override that matches and names it counts.",
                "maxItems": MOST_OVERRIDES,
                "items": {
                    "type": "object",
                    "properties": { "match": Selector::shape(), "rules": built_in },
                    "required": ["match"],
                    "additionalProperties": false,
                },
            },
            "custom": {
                "type": ["array", "null"],
                "description": "Rules of your own.",
                "maxItems": MOST_CUSTOM,
                "items": written_shape(),
            },
        },
        "$defs": {
            "span": {
                "type": "string",
                "description": "A length of time: 500ms, 10s, 5m, 2h or 1d.",
                "pattern": "^[0-9]+ *(ms|s|m|h|d)$",
            },
            "glob": {
                "type": ["string", "number", "boolean"],
                "description": "A pattern: * stands for any text, ? for one character.",
                "minLength": 1,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_published_schema_is_what_the_code_reads() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rules.schema.json");
        let schema = schema();
        if std::env::var_os("UPDATE_PAGES").is_some() {
            let text = serde_json::to_string_pretty(&schema).expect("it is data") + "\n";
            std::fs::write(&path, text).expect("written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let kept: Json = serde_json::from_str(&kept).unwrap_or_default();
        assert!(
            kept == schema,
            "docs/rules.schema.json is stale: run with UPDATE_PAGES=1"
        );
    }

    #[test]
    fn the_schema_knows_every_key_that_can_be_read() {
        let schema = schema();
        let keys = |json: &Json| -> Vec<String> {
            let object = json.as_object().expect("an object");
            object.keys().cloned().collect()
        };
        let rules = &schema["properties"]["rules"]["properties"];
        let defaults = serde_json::to_value(RuleSet::default()).expect("rules are data");
        for (rule, parameters) in defaults.as_object().expect("rules by name") {
            assert_eq!(keys(&rules[rule]["properties"]), keys(parameters), "{rule}");
        }
        assert_eq!(keys(rules), keys(&defaults));
        let own = &schema["properties"]["custom"]["items"]["properties"];
        assert_eq!(keys(own), crate::andon::custom::written_keys());
        let selector = serde_json::to_value(Selector::default()).expect("a selector is data");
        assert_eq!(keys(&own["match"]["properties"]), keys(&selector));
    }
}
